"""Whatever is cancelled, and whenever: nothing is left, nothing hangs, nobody is kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

import ice_punch
from ice_punch import (
    ChannelClosed,
    ConsentLost,
    GatheringFailed,
    GatheringOptions,
    IceConnection,
    PeerSilent,
)
from ice_punch.channel import Channel
from ice_punch.dtls_driver import DtlsDriver
from ice_punch.ice import AgentConfig
from ice_punch.net.ice_server import IceServer
from ice_punch.peer import PeerOptions
from ice_punch.peer.listener import Listener
from support.leaks import nothing_left_behind
from support.loopback import GATHERING, OPTIONS, connected_pair, signaling

PLAIN = replace(OPTIONS, encrypt=False)
TURNS_OF_THE_LOOP = [*range(12), *range(12, 120, 6)]


async def _turns(count: int) -> None:
    """Let the event loop turn, with a little time now and then for the network."""
    for turn in range(count):
        await asyncio.sleep(0.001 if turn % 4 == 3 else 0)


async def _accept(listener: Listener) -> Channel:
    return await listener.accept()


async def _connect(link: str, options: PeerOptions = OPTIONS) -> Channel:
    return await ice_punch.connect(link, options)


async def _serve(listener: Listener) -> None:
    while True:
        try:
            channel = await listener.accept()
        except ChannelClosed:
            return
        except ice_punch.IcePunchError:
            continue
        await channel.close()


def test_connect_may_be_cancelled_at_any_moment() -> None:
    async def run() -> None:
        async with signaling() as url, nothing_left_behind():
            async with ice_punch.listen(url, OPTIONS) as listener:
                serving = asyncio.ensure_future(_serve(listener))
                for turns in TURNS_OF_THE_LOOP:
                    connecting = asyncio.ensure_future(_connect(listener.link))
                    await _turns(turns)
                    connecting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await (await connecting).close()
                async with ice_punch.connect(listener.link, OPTIONS):
                    pass  # the listener has lived through all of that
            await asyncio.wait_for(serving, 1)

    asyncio.run(run())


def test_connect_may_be_cancelled_twice() -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            nothing_left_behind(),
            ice_punch.listen(url, OPTIONS) as listener,
        ):
            for turns in range(8, 100, 7):
                connecting = asyncio.ensure_future(_connect(listener.link))
                await _turns(turns)
                connecting.cancel()
                await asyncio.sleep(0)
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await connecting).close()

    asyncio.run(run())


def test_a_listener_may_be_closed_at_any_moment_of_an_attempt() -> None:
    async def run() -> None:
        async with signaling() as url, nothing_left_behind():
            for turns in range(0, 120, 10):
                listener = ice_punch.listen(url, OPTIONS)
                async with listener:
                    connecting = asyncio.ensure_future(_connect(listener.link))
                    await _turns(turns)
                    began = time.monotonic()
                assert time.monotonic() - began < 1
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError, ice_punch.IcePunchError):
                    await (await connecting).close()

    asyncio.run(run())


def test_entering_a_listener_may_be_cancelled_at_any_moment() -> None:
    async def enter(url: str) -> None:
        async with ice_punch.listen(url, OPTIONS):
            await asyncio.sleep(60)

    async def run() -> None:
        # The server waits 5 s for the hello of who is cut off before it has said anything.
        async with signaling() as url, nothing_left_behind(within=8.0):
            for turns in range(24):
                entering = asyncio.ensure_future(enter(url))
                await _turns(turns)
                entering.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await entering

    asyncio.run(run())


def test_a_cancelled_accept_loses_no_channel() -> None:
    async def run() -> None:
        async with (
            signaling() as url,
            nothing_left_behind(),
            ice_punch.listen(url, OPTIONS) as listener,
        ):
            connecting = asyncio.ensure_future(_connect(listener.link))
            accepted: Channel | None = None
            while accepted is None:
                with contextlib.suppress(TimeoutError):
                    accepted = await asyncio.wait_for(_accept(listener), 0.002)
            channel = await connecting
            await accepted.send(b"found")
            assert await channel.recv() == b"found"
            await channel.close()
            await accepted.close()

    asyncio.run(run())


def test_gathering_may_be_cancelled_at_any_moment() -> None:
    # A TURN server and a STUN server that never answer.
    dead = (IceServer.parse("turn:127.0.0.1:9", "u", "p"), IceServer.parse("stun:127.0.0.1:9"))

    async def gather(connection: IceConnection) -> None:
        async for _ in connection.gather():
            pass

    async def run() -> None:
        async with nothing_left_behind():
            for turns in range(0, 40, 2):
                options = replace(GATHERING, ice_servers=dead)
                connection = IceConnection(options=options)
                gathering = asyncio.ensure_future(gather(connection))
                await _turns(turns)
                gathering.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await gathering
                await asyncio.wait_for(connection.close(), 1.2)

    asyncio.run(run())


def test_closing_ends_whoever_gathers_connects_reads_or_watches() -> None:
    async def gather(connection: IceConnection) -> None:
        async for _ in connection.gather():
            pass

    async def watch(connection: IceConnection) -> None:
        async for _ in connection.events():
            pass

    async def run() -> None:
        for turns in range(4):
            async with nothing_left_behind():
                connection = IceConnection(options=GATHERING)
                waiting = [
                    asyncio.ensure_future(work)
                    for work in (
                        gather(connection),
                        gather(connection),
                        watch(connection),
                        watch(connection),
                        connection.connect(),
                        connection.recv(),
                    )
                ]
                await _turns(turns)
                await connection.close()
                async with asyncio.timeout(1):
                    ends = await asyncio.gather(*waiting, return_exceptions=True)
                assert all(end is None or isinstance(end, ChannelClosed) for end in ends), ends

    asyncio.run(run())


def test_a_closed_connection_says_so() -> None:
    async def run() -> None:
        async with nothing_left_behind():
            connection = IceConnection(options=GATHERING)
            await connection.close()
            with pytest.raises(ChannelClosed):
                async for _ in connection.gather():
                    pass
            with pytest.raises(ChannelClosed):
                await connection.connect()
            connection.add_remote_candidate("candidate:1 1 udp 1 a-name.local 9 typ host")
            assert [event async for event in connection.events()] == []

    asyncio.run(run())


def test_candidates_may_be_iterated_again() -> None:
    async def run() -> None:
        async with IceConnection(options=GATHERING) as connection:
            first = [candidate async for candidate in connection.gather()]
            assert first
            assert [candidate async for candidate in connection.gather()] == first

    asyncio.run(run())


def test_events_count_from_the_call() -> None:
    async def run() -> None:
        async with IceConnection(options=GATHERING) as connection:
            events = connection.events()
            assert [candidate async for candidate in connection.gather()]
            assert await asyncio.wait_for(anext(events), 1) is not None

    asyncio.run(run())


def test_close_may_be_cancelled_and_called_again() -> None:
    async def run() -> None:
        async with nothing_left_behind(), connected_pair() as (a, b):
            for connection in (a, b):
                closing = asyncio.ensure_future(connection.close())
                await asyncio.sleep(0)
                closing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await closing
                await asyncio.gather(connection.close(), connection.close())

    asyncio.run(run())


def test_closing_a_listener_ends_everybody_who_accepts() -> None:
    async def run() -> None:
        async with signaling() as url, nothing_left_behind():
            async with ice_punch.listen(url, OPTIONS) as listener:
                waiting = [asyncio.ensure_future(_accept(listener)) for _ in range(3)]
                await asyncio.sleep(0.01)
            async with asyncio.timeout(1):
                ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(end) for end in ends] == [ChannelClosed] * 3
            with pytest.raises(ChannelClosed):
                await listener.accept()
            await listener.close()

    asyncio.run(run())


def test_an_accepted_channel_outlives_its_listener() -> None:
    async def run() -> None:
        async with signaling() as url, nothing_left_behind():
            async with ice_punch.listen(url, OPTIONS) as listener:
                accepting = asyncio.ensure_future(_accept(listener))
                channel = await _connect(listener.link)
                accepted = await accepting
                began = time.monotonic()
            assert time.monotonic() - began < 1
            await accepted.send(b"still here")
            assert await asyncio.wait_for(channel.recv(), 1) == b"still here"
            await accepted.close()
            await channel.close()

    asyncio.run(run())


def test_a_channel_nobody_accepted_is_closed_with_the_listener() -> None:
    async def run() -> None:
        async with signaling() as url, nothing_left_behind():
            async with ice_punch.listen(url, OPTIONS) as listener:
                channel = await _connect(listener.link)
            with pytest.raises(ChannelClosed):
                await asyncio.wait_for(channel.recv(), 1)
            await channel.close()

    asyncio.run(run())


@pytest.mark.parametrize("options", [OPTIONS, PLAIN], ids=["encrypted", "plain"])
def test_what_was_sent_before_closing_arrives(options: PeerOptions) -> None:
    async def run() -> list[bytes]:
        async with signaling() as url, ice_punch.listen(url, options) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            channel = await _connect(listener.link, options)
            accepted = await accepting
            for number in range(100):
                channel.send_nowait(b"%d" % number)
            await channel.close()
            async with asyncio.timeout(1):
                return [datagram async for datagram in accepted]

    assert len(asyncio.run(run())) == 100


@pytest.mark.parametrize("options", [OPTIONS, PLAIN], ids=["encrypted", "plain"])
def test_the_peer_is_told_even_if_the_program_ends_at_once(options: PeerOptions) -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, options) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            before = asyncio.all_tasks()
            channel = await _connect(listener.link, options)
            accepted = await accepting
            await channel.close()
            names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}
            assert not {name for name in names if name.startswith(("Connector", "SignalingClient"))}
            await accepted.close()

    asyncio.run(run())


def test_leaving_the_context_by_cancellation_closes_both_sides_within_a_second() -> None:
    async def talk(link: str, ready: asyncio.Event) -> None:
        async with ice_punch.connect(link, OPTIONS):
            ready.set()
            await asyncio.sleep(60)

    async def run() -> None:
        async with (
            signaling() as url,
            nothing_left_behind(),
            ice_punch.listen(url, OPTIONS) as listener,
        ):
            ready = asyncio.Event()
            talking = asyncio.ensure_future(talk(listener.link, ready))
            accepted = await _accept(listener)
            await ready.wait()
            began = time.monotonic()
            talking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await talking
            with pytest.raises(ChannelClosed):
                await accepted.recv()
            assert time.monotonic() - began < 1
            await accepted.close()

    asyncio.run(run())


def test_recv_may_be_cancelled_without_losing_a_datagram() -> None:
    async def run() -> None:
        async with connected_pair() as (a, b):
            got: list[bytes] = []
            for number in range(200):
                a.send_nowait(b"%d" % number)
                reading = asyncio.ensure_future(b.recv())
                await _turns(number % 3)
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    got.append(await reading)
            while len(got) < 200:
                got.append(await asyncio.wait_for(b.recv(), 1))
            assert got == [b"%d" % number for number in range(200)]

    asyncio.run(run())


def test_a_channel_learns_that_the_session_below_it_ended() -> None:
    async def run() -> None:
        async with connected_pair() as (a, _b):
            channel = Channel(a)
            await channel.open()
            reading = asyncio.ensure_future(channel.recv())
            await asyncio.sleep(0)
            await a.close()
            with pytest.raises(ChannelClosed):
                await asyncio.wait_for(reading, 1)
            await channel.close()

    asyncio.run(run())


def test_a_session_that_failed_before_the_channel_was_made_ends_the_channel() -> None:
    async def run() -> None:
        quick = AgentConfig(consent_timeout=0.4)
        async with connected_pair(agent_config=quick) as (a, b):
            await b.close()
            while a.state is not ice_punch.ice.IceState.FAILED:
                await asyncio.sleep(0.02)
            channel = Channel(a)
            with pytest.raises(ConsentLost):
                await asyncio.wait_for(channel.recv(), 1)
            await channel.close()

    asyncio.run(run())


def test_an_error_raised_again_and_again_does_not_grow() -> None:
    async def run() -> None:
        async with connected_pair() as (a, _b):
            channel = Channel(a)
            await channel.close()
            depth = 0
            for _ in range(50):
                try:
                    channel.send_nowait(b"late")
                except ChannelClosed as error:
                    depth, trace = 0, error.__traceback__
                    while trace is not None:
                        depth, trace = depth + 1, trace.tb_next
            assert depth < 10

    asyncio.run(run())


def test_an_observer_that_raises_stops_nothing() -> None:
    def observe(_: object) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        faulty = replace(OPTIONS, observer=observe)
        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        async with signaling() as url, ice_punch.listen(url, faulty) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            async with ice_punch.connect(listener.link, faulty):
                await (await accepting).close()
        assert {type(c["exception"]) for c in complaints} == {ZeroDivisionError}

    asyncio.run(run())


def test_a_fault_of_gathering_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: GatheringOptions) -> None:
        raise PermissionError("no netlink here")

    monkeypatch.setattr(GatheringOptions, "addresses", broken)

    async def run() -> None:
        async with nothing_left_behind(), IceConnection(options=GATHERING) as connection:
            with pytest.raises(GatheringFailed, match="no netlink"):
                await connection.connect(1)

    asyncio.run(run())


def test_the_time_spent_waiting_for_a_listener_is_not_signaling() -> None:
    async def run() -> None:
        async with signaling() as url:
            late = ice_punch.listen(url, OPTIONS)
            connecting = asyncio.ensure_future(_connect(late.link))
            await asyncio.sleep(0.5)
            async with late:
                accepted = await late.accept()
                channel = await connecting
                assert channel.timings.signaling is not None
                assert channel.timings.signaling < 0.4
                await channel.close()
                await accepted.close()

    asyncio.run(run())


def test_a_handshake_that_takes_too_long_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with signaling() as url, ice_punch.listen(url, OPTIONS) as listener:
            accepting = asyncio.ensure_future(_accept(listener))
            monkeypatch.setattr(DtlsDriver, "_on_segments", lambda *_: None)
            with pytest.raises(ice_punch.HandshakeFailed, match="DTLS"):
                await _connect(listener.link, replace(OPTIONS, timeout=0.7))
            with pytest.raises(ice_punch.HandshakeFailed):
                await asyncio.wait_for(accepting, 2)

    asyncio.run(run())


def test_nobody_listening_may_be_cancelled() -> None:
    async def run() -> None:
        async with signaling() as url, nothing_left_behind():
            link = f"{url}/j/" + "B" * 22 + "#" + "A" * 22
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_connect(link), 0.1)
            with pytest.raises(PeerSilent):
                await _connect(link, replace(OPTIONS, timeout=0.1))

    asyncio.run(run())
