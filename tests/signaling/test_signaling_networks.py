"""A client whose host changes networks does not wait for what can not come any more."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from signaling_support import ROOM

from signaling.client import ClientState, SignalingClient
from signaling.events import Disconnected, PeerJoined, Resumed, SignalReceived
from signaling.server import SignalingServer

E = TypeVar("E")


class Patient(random.Random):
    """Always the longest wait."""

    def random(self) -> float:
        return 1.0


async def next_of(client: SignalingClient, kind: type[E]) -> E:
    async with asyncio.timeout(5):
        async for event in client:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the events ended without {kind.__name__}")


def with_two_clients(
    story: Callable[[SignalingServer, SignalingClient, SignalingClient], Awaitable[None]],
) -> None:
    async def main() -> None:
        async with await SignalingServer.start(port=0) as server:
            url = server.urls[0]
            async with (
                SignalingClient(url, ROOM, random=Patient()) as a,
                SignalingClient(url, ROOM, random=Patient()) as b,
            ):
                await a.connect()
                await b.connect()
                await next_of(a, PeerJoined)
                await story(server, a, b)

    asyncio.run(main())


def test_a_connection_whose_address_is_gone_is_dropped_and_resumed_at_once() -> None:
    async def story(server: SignalingServer, a: SignalingClient, b: SignalingClient) -> None:
        assert a.local_ip == "127.0.0.1"
        began = time.monotonic()
        a.network_changed(lost=True)
        sending = asyncio.ensure_future(a.send(b.self_id, "link", 1, "cand", "on the way"))
        await next_of(a, Disconnected)
        await next_of(a, Resumed)
        assert time.monotonic() - began < 0.4, "not the half second of a first retry"
        await sending
        signal = await next_of(b, SignalReceived)
        assert signal.data == "on the way"

    with_two_clients(story)


def test_a_connection_whose_address_is_still_there_is_left_alone() -> None:
    async def story(server: SignalingServer, a: SignalingClient, b: SignalingClient) -> None:
        a.network_changed(lost=False)
        await asyncio.sleep(0.1)
        assert a.state is ClientState.CONNECTED
        await a.send(b.self_id, "link", 1, "cand", "nothing happened")
        assert (await next_of(b, SignalReceived)).data == "nothing happened"

    with_two_clients(story)


def test_who_waits_to_try_again_tries_at_once_when_there_is_another_network() -> None:
    async def main() -> None:
        server = await SignalingServer.start(port=0)
        port, url = server.port, server.urls[0]
        async with SignalingClient(url, ROOM, random=Patient()) as client:
            await client.connect()
            await server.close()
            waits = 0.0
            while waits < 2.0:  # 0.5, 1, 2 s
                waits = (await next_of(client, Disconnected)).retry_in
            async with await SignalingServer.start(port=port):
                began = time.monotonic()
                client.network_changed(lost=False)
                async with asyncio.timeout(5):
                    while client.state is not ClientState.CONNECTED:
                        await asyncio.sleep(0.01)
                assert time.monotonic() - began < 1.0

    asyncio.run(main())


def test_an_attempt_that_hangs_on_the_old_network_is_made_anew() -> None:
    """A server that takes the connection and then says nothing: as a way that is gone does."""

    async def main() -> None:
        silent: list[asyncio.StreamWriter] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            silent.append(writer)

        hole = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = hole.sockets[0].getsockname()[1]
        async with SignalingClient(f"http://127.0.0.1:{port}", ROOM, random=Patient()) as client:
            connecting = asyncio.ensure_future(client.connect(8.0))
            async with asyncio.timeout(2):
                while not silent:
                    await asyncio.sleep(0.01)
            hole.close()
            async with await SignalingServer.start(port=0) as server:
                client.server = type(client.server).parse(server.urls[0])
                began = time.monotonic()
                client.network_changed(lost=False)
                await connecting
                assert time.monotonic() - began < 1.0
            for writer in silent:
                writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_opens_while_its_client_is_stopped_is_closed(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    class Opened:
        def __init__(self) -> None:
            self.transport = self
            self.aborted = False

        def abort(self) -> None:
            self.aborted = True

    async def main() -> None:
        opened, answered = Opened(), asyncio.Event()

        async def open_socket(*_: object, **__: object) -> Opened:
            await answered.wait()
            return opened

        monkeypatch.setattr("signaling.client.open_socket", open_socket)
        client = SignalingClient("ws://127.0.0.1:9/", ROOM)
        opening = asyncio.ensure_future(client._unless_hurried(client._open()))
        await asyncio.sleep(0.01)
        answered.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening})
        if opening.cancelled():
            assert opened.aborted or turns == 0, "nobody has this connection"
        else:
            assert opening.result() is opened

    asyncio.run(main())
