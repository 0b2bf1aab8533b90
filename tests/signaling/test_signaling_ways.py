"""The client's way to the server, and what its user can see of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from signaling_net import Wire, eventually
from signaling_support import ROOM
from test_signaling_client import Quiet, next_of

from signaling.client import ClientState, SignalingClient
from signaling.errors import (
    RoomFull,
    ServerUnreachable,
    SignalingError,
    TokenExpired,
    Unauthorized,
)
from signaling.events import Acknowledged, Disconnected, IceServersChanged, Resumed, Welcomed
from signaling.hooks import Denied, Grant, IceRequest
from signaling.messages import ErrorCode, Hello, IceInfo, IceServerInfo
from signaling.server import SignalingServer

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "socks_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Proxy:
    """An HTTP proxy that leads every CONNECT to one port of this host."""

    def __init__(self, target: int, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self._target = target
        self._answer = answer
        self.requests: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        writer.write(self._answer)
        if b" 200 " not in self._answer:
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with await SignalingServer.start(port=0) as server, Proxy(server.port) as proxy:
            monkeypatch.setenv(variable, proxy.url)
            async with SignalingClient("http://signal.example:8080", ROOM) as client:
                await client.connect(timeout=5)
            assert proxy.requests == ["CONNECT signal.example:8080 HTTP/1.1"]
            async with SignalingClient(server.urls[0], ROOM) as client:
                await client.connect(timeout=5)  # never by a proxy to this host
            assert len(proxy.requests) == 1
            monkeypatch.setenv("no_proxy", "signal.example")
            with pytest.raises(ServerUnreachable) as caught:
                await SignalingClient("http://signal.example:8080", ROOM).connect(timeout=5)
            assert caught.value.cause in ("name", "network", "timeout")
            assert len(proxy.requests) == 1

    asyncio.run(run())


def test_a_proxy_that_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        async with Proxy(1, answer) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            with pytest.raises(ServerUnreachable, match=r"the proxy to .* does not work") as caught:
                await SignalingClient("http://signal.example:8080", ROOM).connect(timeout=5)
            assert caught.value.cause == "proxy"
            assert "\n" not in str(caught.value)

    asyncio.run(run())


def test_a_proxy_may_be_written_without_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with await SignalingServer.start(port=0) as server, Proxy(server.port) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
            async with SignalingClient("http://signal.example:8080", ROOM) as client:
                await client.connect(timeout=5)
            assert proxy.requests == ["CONNECT signal.example:8080 HTTP/1.1"]

    asyncio.run(run())


@asynccontextmanager
async def black_hole(ip: str, port: int) -> AsyncIterator[None]:
    """A port that answers nothing: its backlog is full."""
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind((ip, port))
        hole.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((ip, port))
        await asyncio.sleep(0.05)
        yield


def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second() -> None:
    """RFC 8305: the next address is tried while the first is still silent."""

    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            loop = asyncio.get_running_loop()
            resolve = loop.getaddrinfo

            async def resolved(host: Any, port: Any, **options: Any) -> Any:
                if host != "two.addresses.example":
                    return await resolve(host, port, **options)
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*kind, ("127.0.0.2", port)), (*kind, ("127.0.0.1", port))]

            loop.getaddrinfo = resolved  # type: ignore[method-assign]
            try:
                async with black_hole("127.0.0.2", server.port):
                    began = time.monotonic()
                    url = f"http://two.addresses.example:{server.port}"
                    async with SignalingClient(url, ROOM) as client:
                        await client.connect(timeout=5)
                    assert 0.2 < time.monotonic() - began < 1.5
            except OSError:
                pytest.skip("this system has no 127.0.0.2")

    asyncio.run(run())


def test_the_state_of_a_client_can_be_seen() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0) as server,
            Wire(server.port) as wire,
            SignalingClient(wire.url, ROOM, max_peers=2, random=Quiet()) as client,
            SignalingClient(server.urls[0], ROOM) as other,
        ):
            assert client.state is ClientState.NEW
            connecting = asyncio.create_task(client.connect())
            await asyncio.sleep(0)
            assert client.state is ClientState.CONNECTING
            await connecting
            assert client.state is ClientState.CONNECTED
            wire.shut = True
            wire.cut()
            lost = await next_of(client, Disconnected)
            assert isinstance(lost, Disconnected)
            assert "was lost" in lost.reason
            assert lost.retry_in == pytest.approx(0.05, abs=0.2)
            await eventually(lambda: client.state is ClientState.WAITING)
            wire.shut = False
            await next_of(client, Resumed)
            assert client.state is ClientState.CONNECTED
            await other.connect()
            late = SignalingClient(server.urls[0], ROOM)
            with pytest.raises(RoomFull):
                await late.connect()
            assert late.state is ClientState.REFUSED
            await client.close()
            assert client.state is ClientState.CLOSED

    asyncio.run(run())


class Guarded:
    """Lets in who has the token of the day."""

    def __init__(self) -> None:
        self.token = "monday"

    def authorize(self, hello: Hello, address: str, origin: str | None) -> Grant | Denied:
        if not hello.token:
            return Denied(ErrorCode.UNAUTHORIZED, "this server wants a token")
        if hello.token != self.token:
            return Denied(ErrorCode.TOKEN_EXPIRED, "the token has expired")
        return Grant()


@pytest.mark.usefixtures("engine")
def test_tokens_are_shown_and_a_function_makes_a_new_one_when_they_expire() -> None:
    async def run() -> None:
        door = Guarded()
        async with await SignalingServer.start(port=0, authorizer=door) as server:
            url = server.urls[0]
            with pytest.raises(Unauthorized, match="wants a token"):
                await SignalingClient(url, ROOM).connect()
            with pytest.raises(TokenExpired, match="has expired"):
                await SignalingClient(url, ROOM, token="sunday").connect()
            tokens = iter(["sunday", "monday"])
            client = SignalingClient(url, ROOM, token=lambda: next(tokens), random=Quiet())
            async with client:
                await client.connect()
            days = iter(["friday", "saturday", "sunday"])
            with pytest.raises(TokenExpired):  # one more try, not one for ever
                await SignalingClient(url, ROOM, token=lambda: next(days), random=Quiet()).connect()
            assert next(days) == "sunday"

    asyncio.run(run())


def test_a_function_without_a_token_leaves_no_connection_behind() -> None:
    def forgetful() -> str:
        raise LookupError("no token today")

    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            client = SignalingClient(server.urls[0], ROOM, token=forgetful)
            with pytest.raises(SignalingError, match="no token today"):
                await client.connect()
            await eventually(lambda: server.sizes["connections"] == 0, 1.0)
            assert server.counters["connections"] == 1

    asyncio.run(run())


class Hourly:
    def __init__(self) -> None:
        self.minted = 0

    async def ice_servers(self, request: IceRequest) -> IceInfo:
        self.minted += 1
        await asyncio.sleep(0)
        name = f"{self.minted}:{request.peer}"
        server = IceServerInfo(urls=["turn:h"], username=name, credential="c")
        return IceInfo(servers=[server], ttl=3600)


@pytest.mark.usefixtures("engine")
def test_credentials_acknowledgements_and_outcomes_go_all_the_way() -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0, ice=Hourly()) as server,
            SignalingClient(server.urls[0], ROOM) as a,
            SignalingClient(server.urls[0], ROOM) as b,
        ):
            await a.connect()
            await b.connect()
            welcomed = await next_of(a, Welcomed)
            assert isinstance(welcomed, Welcomed)
            assert welcomed.ice_ttl == 3600
            assert welcomed.ice_servers[0].username == f"1:{a.self_id}"
            a.ask_for_ice_servers()
            changed = await next_of(a, IceServersChanged)
            assert isinstance(changed, IceServersChanged)
            assert changed.ice_servers[0].username == f"3:{a.self_id}"
            ref = await a.send(b.self_id, "link", 0, "offer", "data")
            assert await next_of(a, Acknowledged) == Acknowledged(ref, "delivered")
            a.report_outcome("relay", 1.5)
            await eventually(lambda: server.counters["outcome_relay"] == 1)

    asyncio.run(run())
