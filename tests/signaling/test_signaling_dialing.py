"""Names with several addresses on event loops that try one after the other."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from signaling_net import other_service
from signaling_support import ROOM
from test_signaling_ways import black_hole, no_proxies

from signaling import dialing
from signaling.client import SignalingClient
from signaling.dialing import Address, dial
from signaling.errors import ServerUnreachable
from signaling.server import SignalingServer

uvloop = pytest.importorskip("uvloop")
__all__ = ["no_proxies"]
NAME = "several.addresses.example"


def on_uvloop(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def resolving(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    """Let every name have these addresses."""

    async def resolve(host: str, port: int) -> list[Address]:
        return [Address(socket.AF_INET6 if ":" in ip else socket.AF_INET, (ip, port)) for ip in ips]

    monkeypatch.setattr(dialing, "_resolve", resolve)


def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, "127.0.0.2", "127.0.0.1")

    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            try:
                async with black_hole("127.0.0.2", server.port):
                    began = time.monotonic()
                    async with SignalingClient(f"http://{NAME}:{server.port}", ROOM) as client:
                        await client.connect(timeout=5)
                    assert 0.2 < time.monotonic() - began < 1.5
            except OSError:
                pytest.skip("this system has no 127.0.0.2")

    on_uvloop(run())


def test_an_address_that_refuses_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.2", "127.0.0.1")

    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            began = time.monotonic()
            async with SignalingClient(f"http://{NAME}:{server.port}", ROOM) as client:
                await client.connect(timeout=5)
            assert time.monotonic() - began < 0.2

    on_uvloop(run())


def test_where_all_refuse_the_words_are_those_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.2", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        url = f"http://{NAME}:{taken.getsockname()[1]}"

        async def run() -> None:
            with pytest.raises(ServerUnreachable, match="no server is listening at") as caught:
                await SignalingClient(url, ROOM).connect(timeout=5)
            assert caught.value.cause == "refused"

        on_uvloop(run())


def test_a_redirection_is_followed_to_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1")

    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:

            async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                where = f"http://{NAME}:{server.port}/v1/ws"
                writer.write(
                    b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n"
                    b"Location: %b\r\n\r\n" % where.replace("http", "ws", 1).encode()
                )
                await writer.drain()

            async with other_service(elsewhere) as url:
                port = url.rpartition(":")[2]
                async with SignalingClient(f"http://{NAME}:{port}", ROOM) as client:
                    await client.connect(timeout=5)
                    assert server.sizes["sessions"] == 1

    on_uvloop(run())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_families_take_turns_and_no_socket_is_left_open(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, socket.socket]] = []
    create = socket.socket

    async def run() -> None:
        with create() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            ips = ["::2", "::3", "::4", "127.0.0.1", "127.0.0.2"]
            resolving(monkeypatch, *ips)
            with pytest.raises(OSError, match=r"no address answers: .*, .*, .*, .*, "):
                await dial(NAME, port)
            assert [ip for ip, _ in made] == ["::2", "127.0.0.1", "::3", "127.0.0.2", "::4"]
        async with black_hole("127.0.0.1", port):
            resolving(monkeypatch, "127.0.0.1", "127.0.0.1")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await dial(NAME, port)
        assert len(made) == 7
        assert all(one.fileno() == -1 for _, one in made)

    connect = dialing._connect

    async def noted(address: Address) -> socket.socket:
        def create_noted(*kind: int) -> socket.socket:
            made.append((address.where[0], create(*kind)))
            return made[-1][1]

        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", create_noted)
            attempt = asyncio.ensure_future(connect(address))
            await asyncio.sleep(0)
        return await attempt

    monkeypatch.setattr(dialing, "_connect", noted)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
