"""ICE restarts of channels: over real signaling, with data under way and encryption untouched."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

import ice_punch
from ice_punch import ChannelClosed, InvalidDescription, RestartRefused
from ice_punch.channel import Channel
from ice_punch.connection import IceConnection
from ice_punch.ice import IceState, SelectedPairChanged
from ice_punch.peer import PeerOptions
from ice_punch.peer.restarting import way_of_a_letter
from ice_punch.sdp import Description
from support.loopback import GATHERING, OPTIONS, connected_pair, signaling

PLAIN = replace(OPTIONS, encrypt=False)
both_kinds = pytest.mark.parametrize("options", [OPTIONS, PLAIN], ids=["encrypted", "plain"])


@contextlib.asynccontextmanager
async def channels(options: PeerOptions) -> AsyncIterator[tuple[Channel, Channel]]:
    async with signaling() as url, ice_punch.listen(url, options) as listener:
        accepting = asyncio.ensure_future(_accept(listener))
        async with ice_punch.connect(listener.link, options) as connected:
            accepted = await accepting
            async with accepted:
                yield connected, accepted


async def _accept(listener: ice_punch.peer.Listener) -> Channel:
    return await listener.accept()


class Stream:
    """Numbers from one channel to the other, one every millisecond."""

    def __init__(self, sender: Channel, receiver: Channel) -> None:
        self.sent = 0
        self.received: list[int] = []
        self._sender, self._receiver = sender, receiver
        self._tasks = [asyncio.ensure_future(t()) for t in (self._send, self._receive)]

    async def _send(self) -> None:
        while True:
            await self._sender.send(b"%d" % self.sent)
            self.sent += 1
            await asyncio.sleep(0.001)

    async def _receive(self) -> None:
        while True:
            self.received.append(int(await self._receiver.recv()))

    async def stop(self) -> None:
        self._tasks[0].cancel()
        await asyncio.sleep(0.3)
        self._tasks[1].cancel()


async def until_restarted(*channels: Channel, generations: int = 1) -> None:
    """Until the new path is selected on both sides."""
    async with asyncio.timeout(10):
        while not all(
            c.connection.counters["restarts"] >= generations
            and not c.connection.restarting
            and c.connection._agent._session.state is IceState.COMPLETED
            for c in channels
        ):
            await asyncio.sleep(0.01)


@both_kinds
@pytest.mark.parametrize("who", [0, 1], ids=["offerer", "answerer"])
def test_a_restart_by_either_side_loses_and_doubles_nothing(options: PeerOptions, who: int) -> None:
    async def run() -> None:
        async with channels(options) as pair:
            streams = [Stream(*pair), Stream(*reversed(pair))]
            ufrags = [channel.connection._agent.credentials.ufrag for channel in pair]
            encryption = [channel.encryption for channel in pair]
            await asyncio.sleep(0.1)
            # On a busy machine one may be under way: of a path that fell silent.
            with contextlib.suppress(RestartRefused):
                await pair[who].restart()
            await until_restarted(*pair)
            await asyncio.sleep(0.1)
            for stream in streams:
                await stream.stop()
                assert stream.received == list(range(stream.sent))
            assert [c.connection._agent.credentials.ufrag for c in pair] != ufrags
            assert [channel.encryption for channel in pair] == encryption

    asyncio.run(run())


def test_both_sides_restart_at_once() -> None:
    async def run() -> None:
        async with channels(OPTIONS) as pair:
            streams = [Stream(*pair), Stream(*reversed(pair))]
            results = await asyncio.gather(
                *(channel.restart() for channel in pair), return_exceptions=True
            )
            assert all(r is None or isinstance(r, RestartRefused) for r in results)
            await until_restarted(*pair)
            for stream in streams:
                await stream.stop()
                assert stream.received == list(range(stream.sent))

    asyncio.run(run())


def test_a_second_restart_at_once_is_refused_and_a_later_one_is_not() -> None:
    async def run() -> None:
        async with channels(PLAIN) as pair:
            await pair[0].restart()
            with pytest.raises(RestartRefused, match="under way"):
                await pair[0].restart()
            await until_restarted(*pair)
            await asyncio.sleep(1.0)
            await pair[0].restart()
            await until_restarted(*pair, generations=2)

    asyncio.run(run())


def test_a_closed_channel_does_not_restart() -> None:
    async def run() -> None:
        async with channels(PLAIN) as pair:
            await pair[0].close()
            with pytest.raises(ChannelClosed):
                await pair[0].restart()

    asyncio.run(run())


# -- with signaling of one's own ----


def test_a_restart_before_the_first_connect_is_refused() -> None:
    async def run() -> None:
        async with IceConnection(options=GATHERING) as connection:
            with pytest.raises(RestartRefused, match="never connected"):
                connection.restart()

    asyncio.run(run())


def test_descriptions_carry_a_restart_and_its_answer() -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            events = a.events()
            before = b.local_description
            a.restart()
            assert a.restarting
            with pytest.raises(RestartRefused, match="under way"):
                a.restart()
            await a.send(b"on the old path")
            assert await b.recv() == b"on the old path"
            b.set_remote_description(a.local_description)  # b restarts by that
            assert b.local_description != before
            a.set_remote_description(b.local_description)
            async with asyncio.timeout(5):
                async for event in events:
                    if isinstance(event, SelectedPairChanged):
                        break
            await b.send(b"on the new one")
            assert await a.recv() == b"on the new one"
            assert a.state is IceState.COMPLETED

    asyncio.run(run())


@pytest.mark.parametrize("changes", ["ufrag", "pwd"])
def test_rfc8839_4_4_1_1_1_half_a_restart_is_none(changes: str) -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            remote = a.remote_description
            assert remote is not None
            half = replace(remote, **{changes: "x" * 24})
            with pytest.raises(InvalidDescription, match="both"):
                a.set_remote_description(half)
            await a.send(b"still here")
            assert await b.recv() == b"still here"

    asyncio.run(run())


@pytest.mark.parametrize(
    "change",
    [{"pacing": 40}, {"lite": True}, {"options": ("ice2",)}],
    ids=["pacing", "lite", "options"],
)
def test_rfc8839_4_4_2_1_options_change_only_with_a_restart(change: dict[str, object]) -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            remote = a.remote_description
            assert remote is not None
            a.set_remote_description(remote)  # the same once more is nothing
            with pytest.raises(InvalidDescription, match="only with an ICE restart"):
                a.set_remote_description(replace(remote, **change))  # type: ignore[arg-type]
            await a.send(b"still here")
            assert await b.recv() == b"still here"

    asyncio.run(run())


def test_rfc8842_5_5_a_restart_keeps_fingerprints_tls_id_and_roles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described: dict[bool, list[Description]] = {True: [], False: []}
    describe = IceConnection.describe

    def noting(connection: IceConnection, **keywords: object) -> Description:
        description = describe(connection, **keywords)  # type: ignore[arg-type]
        if description.fingerprints:
            described[connection._agent.controlling].append(description)
        return description

    monkeypatch.setattr(IceConnection, "describe", noting)

    async def run() -> None:
        async with channels(OPTIONS) as pair:
            await pair[0].restart()
            await until_restarted(*pair)

    asyncio.run(run())
    for first, again in described.values():
        assert (again.fingerprints, again.tls_id, again.setup) == (
            first.fingerprints,
            first.tls_id,
            first.setup,
        )
        assert again.ufrag != first.ufrag
        assert again.pwd != first.pwd


@pytest.mark.parametrize(
    ("theirs", "ours", "way"),
    [
        (0.1, 0.3, 0.2),
        (None, 0.3, 0.0),  # a peer that knows nothing of instants
        (0.1, None, 0.0),
        (-1.0, 0.3, 0.0),
        (1e300, 0.3, 0.0),
        (2.0, 90.0, 2.0),
    ],
)
def test_what_a_letter_takes_is_known_by_both_round_trips_to_the_server(
    theirs: float | None, ours: float | None, way: float
) -> None:
    assert way_of_a_letter(ours, theirs) == pytest.approx(way)
