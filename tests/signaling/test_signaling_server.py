"""The server on real sockets: what HTTP says, what clients can not do to others, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
from signaling_net import eventually, get, hear, join, raw_client, say
from signaling_support import ROOM
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from signaling.auth import TrustedProxies
from signaling.errors import ListenFailed
from signaling.limits import Limits
from signaling.messages import IceServerInfo
from signaling.server import SignalingServer

pytestmark = pytest.mark.usefixtures("engine")

UPGRADE = (
    "GET /v1/ws HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: Upgrade\n"
    "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
)


def with_server(
    test: Callable[[SignalingServer], Awaitable[None]], limits: Limits | None = None
) -> SignalingServer:
    """Run ``test`` with a server, which must still work afterwards."""

    async def run() -> SignalingServer:
        async with await SignalingServer.start(port=0, limits=limits) as server:
            await test(server)
            assert (await get(server.port, "GET /healthz HTTP/1.1\nHost: h\n\n")).endswith("ok\n")
            return server

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("request_text", "status", "holds"),
    [
        ("GET /healthz HTTP/1.1\nHost: h\n\n", 200, "ok\n"),
        ("GET / HTTP/1.1\nHost: h\n\n", 200, "signaling server"),
        (f"GET /j/{ROOM} HTTP/1.1\nHost: h\n\n", 200, "ice-punch connect"),
        ("GET /j/short HTTP/1.1\nHost: h\n\n", 404, "not found"),
        ("GET /etc/passwd HTTP/1.1\nHost: h\n\n", 404, "not found"),
        ("GET /v1/ws HTTP/1.1\nHost: h\n\n", 426, "icepunch.v1"),
        (UPGRADE + "\n", 426, "icepunch.v1"),
        (UPGRADE + "Sec-WebSocket-Protocol: icepunch.v2, chat\n\n", 426, "icepunch.v1"),
        (UPGRADE + "Sec-WebSocket-Protocol: chat, icepunch.v1\n\n", 101, "icepunch.v1"),
    ],
)
def test_http_answers(request_text: str, status: int, holds: str) -> None:
    async def test(server: SignalingServer) -> None:
        if status == 101:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request_text.replace("\n", "\r\n").encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.close()
        else:
            answer = await get(server.port, request_text)
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert holds in answer

    with_server(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [f"/j/{ROOM}", "/", "/web/page.js", "/healthz"])
def test_another_method_than_get_or_head_is_not_allowed(method: str, path: str) -> None:
    async def test(server: SignalingServer) -> None:
        answer = await get(
            server.port, f"{method} {path} HTTP/1.1\nHost: h\nContent-Length: 4\n\nbody"
        )
        assert answer.startswith("HTTP/1.1 405 Method Not Allowed\r\n")
        assert "Allow: GET, HEAD\r\n" in answer

    with_server(test)


@pytest.mark.parametrize("path", [f"/j/{ROOM}", "/web/style.css", "/nowhere", "/v1/ws"])
def test_head_is_answered_like_get_without_the_body(path: str) -> None:
    async def test(server: SignalingServer) -> None:
        got = await get(server.port, f"GET {path} HTTP/1.1\nHost: h\n\n")
        told = await get(server.port, f"HEAD {path} HTTP/1.1\nHost: h\n\n")
        assert told.endswith("\r\n\r\n")
        lines, expected = (
            {line for line in head.splitlines() if not line.startswith(("Server:", "Date:"))}
            for head in (told.partition("\r\n\r\n")[0], got.partition("\r\n\r\n")[0])
        )
        assert lines == expected

    with_server(test)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/nowhere", "/v1/ws"])
def test_http_1_0_is_enough_to_ask_how_a_server_is(path: str) -> None:
    async def test(server: SignalingServer) -> None:
        old = await get(server.port, f"GET {path} HTTP/1.0\n\n")
        new = await get(server.port, f"GET {path} HTTP/1.1\nHost: h\n\n")
        assert old.splitlines()[0] == new.splitlines()[0]
        assert old.partition("\r\n\r\n")[2] == new.partition("\r\n\r\n")[2]
        assert server.sizes["connections"] == 0

    with_server(test)


def test_the_head_of_a_request_may_come_in_pieces_and_not_without_end() -> None:
    async def test(server: SignalingServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for piece in (b"P", b"OST / HTTP/1.1\r\n", b"Host: h\r", b"\n\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.02)
        assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\nX: " + b"x" * 20_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert server.sizes["connections"] == 0

    with_server(test)


def test_the_page_of_a_link_asks_nothing_of_anybody() -> None:
    async def test(server: SignalingServer) -> None:
        answer = await get(server.port, f"GET /j/{ROOM} HTTP/1.1\nHost: h\n\n")
        head, _, body = answer.partition("\r\n\r\n")
        assert "default-src 'none'" in head
        assert "script-src 'self'; style-src 'self'" in head
        assert "unsafe" not in head
        assert "Referrer-Policy: no-referrer" in head
        for thing in ("http://", "https://", "<script>", "style=", "onclick", ROOM):
            assert thing not in body
        used = re.findall(r'(?:src|href)="([^"]*)"', body)
        assert len(used) > 2
        assert all(path.startswith("/web/") for path in used)

    with_server(test)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/web/ice-punch.js", "text/javascript; charset=utf-8"),
        ("/web/page.js", "text/javascript; charset=utf-8"),
        ("/web/style.css", "text/css; charset=utf-8"),
        ("/web/icon.svg", "image/svg+xml"),
    ],
)
def test_the_parts_of_the_page_come_with_their_types(path: str, content_type: str) -> None:
    async def test(server: SignalingServer) -> None:
        head, _, body = (await get(server.port, f"GET {path} HTTP/1.1\nHost: h\n\n")).partition(
            "\r\n\r\n"
        )
        assert head.startswith("HTTP/1.1 200 ")
        assert f"Content-Type: {content_type}" in head
        assert "X-Content-Type-Options: nosniff" in head
        assert "Access-Control-Allow-Origin: *" in head
        assert body
        for other in ("/web/", "/web/index.html", "/web/../server.py", "/web/%2e%2e/server.py"):
            assert "404" in (await get(server.port, f"GET {other} HTTP/1.1\nHost: h\n\n"))[:20]

    with_server(test)


def test_two_peers_meet_and_exchange_a_signal() -> None:
    async def test(server: SignalingServer) -> None:
        async with raw_client(server) as a, raw_client(server) as b:
            first = await join(a)
            second = await join(b)
            assert (await hear(a))["id"] == second["self"]
            signal = {"id": 1, "link": "l", "gen": 0, "kind": "offer", "data": "d"}
            await say(b, "signal", to=first["self"], **signal)
            assert (await hear(a))["data"] == "d"
            assert await hear(b) == {"type": "ack", "id": 1, "status": "delivered"}
            await say(b, "leave")
            assert (await hear(a))["reason"] == "left"
            await b.wait_closed()
            assert b.close_code == 1000

    server = with_server(test)
    assert server.counters["relayed"] == 1


def test_ice_servers_are_announced_by_the_name_the_client_used() -> None:
    async def run() -> None:
        turn = IceServerInfo(urls=["turn:turn.example"], username="u", credential="c")
        servers = ["stun:{host}:3478", turn]
        async with (
            await SignalingServer.start(port=0, ice_servers=servers) as server,
            raw_client(server) as client,
        ):
            assert (await join(client))["ice"]["servers"] == [
                {"urls": ["stun:127.0.0.1:3478"]},
                {"urls": ["turn:turn.example"], "username": "u", "credential": "c"},
            ]

    asyncio.run(run())


def test_a_wrong_subprotocol_is_http_426() -> None:
    async def test(server: SignalingServer) -> None:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{server.port}/v1/ws", proxy=None)
        assert caught.value.response.status_code == 426

    assert with_server(test).counters["wrong_subprotocol"] == 1


def test_an_oversized_frame_closes_its_connection_alone() -> None:
    async def test(server: SignalingServer) -> None:
        async with raw_client(server) as victim, raw_client(server) as client:
            await join(victim)
            await join(client)
            await hear(victim)
            await client.send("x" * 65537)
            with pytest.raises(ConnectionClosed):
                await hear(client)
            assert client.close_code == 1009
            assert (await hear(victim))["event"] == "away"
            await say(victim, "ping", n=1)
            assert await hear(victim) == {"type": "pong", "n": 1}

    assert with_server(test).counters["too_large"] == 1


def test_a_frame_of_64_kib_is_welcome_also_in_fragments() -> None:
    async def test(server: SignalingServer) -> None:
        async with raw_client(server) as client:
            frame = json.dumps({"type": "hello", "v": 1, "room": ROOM}).ljust(65536)
            await client.send([frame[:1000], frame[1000:]])
            assert (await hear(client))["type"] == "welcome"

    with_server(test)


def test_garbage_and_silence_before_the_handshake_are_cut_off() -> None:
    async def test(server: SignalingServer) -> None:
        async def attack(data: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            async with asyncio.timeout(3):
                try:
                    return await reader.read()
                except ConnectionError:
                    return b""
                finally:
                    writer.close()

        began = time.monotonic()
        await asyncio.gather(
            attack(b""),
            attack(b"GET"),
            attack(b"\x16\x03\x01" + bytes(200)),
            attack(b"\xff" * 100_000),
            attack(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000),
            attack(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        )
        assert time.monotonic() - began < 2.5

    with_server(test, Limits(handshake_timeout=0.3))


def test_no_hello_closes_with_4005() -> None:
    async def test(server: SignalingServer) -> None:
        async with raw_client(server) as client:
            assert (await hear(client))["code"] == "hello_timeout"
            await client.wait_closed()
            assert client.close_code == 4005

    with_server(test, Limits(hello_timeout=0.1))


def test_a_flood_slows_its_sender_and_nobody_else() -> None:
    async def test(server: SignalingServer) -> None:
        async with raw_client(server) as victim, raw_client(server) as flooder:
            await join(victim)
            await join(flooder)
            await hear(victim)

            async def flood() -> None:
                while True:
                    await say(flooder, "ping", n=1)

            async def drain() -> int:
                pongs = 0
                try:
                    while True:
                        pongs += json.loads(await flooder.recv())["type"] == "pong"
                except asyncio.CancelledError:
                    return pongs

            opened = time.monotonic()
            tasks = [asyncio.create_task(flood()), asyncio.create_task(drain())]
            await asyncio.sleep(0.3)
            for n in range(10):
                began = time.monotonic()
                await say(victim, "ping", n=n)
                assert await hear(victim) == {"type": "pong", "n": n}
                assert time.monotonic() - began < 0.5
            await asyncio.sleep(0.2)
            for task in tasks:
                task.cancel()
            pongs = (await asyncio.gather(*tasks, return_exceptions=True))[1]
            assert isinstance(pongs, int)
            assert 59 <= pongs <= 62 + 20 * (time.monotonic() - opened)
            flooder.transport.abort()

    server = with_server(test)
    assert server.counters["rate_limited"] == 1
    assert server.counters["throttled"] > 0


def test_a_slow_reader_is_closed_with_4001_and_its_peer_goes_on() -> None:
    limits = Limits(message_rate=1e6, message_burst=10**6, byte_rate=1e9, byte_burst=10**9)

    async def test(server: SignalingServer) -> None:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.setblocking(False)
        url = f"ws://127.0.0.1:{server.port}/v1/ws"
        async with raw_client(server) as fast:
            lazy = await connect(url, sock=slow, subprotocols=["icepunch.v1"], compression=None)
            lazy_id = (await join(lazy))["self"]
            await join(fast)
            lazy.transport.pause_reading()
            answers = []
            for id in range(1, 101):
                payload = {"link": "l", "gen": 0, "kind": "offer", "data": "x" * 32768}
                await say(fast, "signal", id=id, to=lazy_id, **payload)
                while (answer := await hear(fast))["type"] == "peer":
                    answers.append(answer)
                if answer.get("status") != "delivered":
                    break
            assert id < 60
            if not answers:
                answers.append(await hear(fast))
            assert answers[-1]["event"] == "away"
            lazy.transport.abort()
            await say(fast, "ping", n=1)
            assert (await hear(fast))["type"] == "pong"

    server = with_server(test, limits)
    assert server.counters["slow"] == 1


def test_connections_from_one_address_are_counted_and_the_next_is_http_429() -> None:
    async def test(server: SignalingServer) -> None:
        async with raw_client(server), raw_client(server), raw_client(server):
            with pytest.raises(InvalidStatus) as caught:
                await connect(
                    f"ws://127.0.0.1:{server.port}/v1/ws", subprotocols=["icepunch.v1"], proxy=None
                )
            assert caught.value.response.status_code == 429
        await eventually(lambda: server.sizes["connections"] == 0)

    server = with_server(test, Limits(connections_per_address=3))
    assert server.counters["too_many_connections"] == 1


def test_connections_from_one_address_come_at_a_rate_and_the_next_is_http_429() -> None:
    async def run() -> None:
        limits = Limits(accept_burst=3, accept_rate=0.01)
        async with await SignalingServer.start(port=0, limits=limits) as server:
            for _ in range(3):
                async with raw_client(server) as client:
                    await join(client)
            with pytest.raises(InvalidStatus) as caught:
                async with raw_client(server):
                    pass
            assert caught.value.response.status_code == 429
            assert server.counters["too_many_accepts"] == 1

    asyncio.run(run())


def test_the_files_of_the_page_count_little_among_connections() -> None:
    async def run() -> None:
        limits = Limits(accept_burst=4, accept_rate=0.001)
        async with await SignalingServer.start(port=0, limits=limits) as server:
            for path in ["/web/page.js"] * 32 + [f"/j/{ROOM}", "/web/page.js"]:  # 2, 1 and a bit
                answer = await get(server.port, f"GET {path} HTTP/1.1\nHost: h\n\n")
                assert answer.startswith("HTTP/1.1 200 ")
            answer = await get(server.port, "GET /web/page.js HTTP/1.1\nHost: h\n\n")
            assert answer.startswith("HTTP/1.1 429 ")

    asyncio.run(run())


def test_behind_a_trusted_proxy_every_client_counts_for_itself() -> None:
    async def run() -> None:
        proxies = TrustedProxies(["127.0.0.0/8"])
        limits = Limits(connections_per_address=1)
        async with await SignalingServer.start(port=0, limits=limits, proxies=proxies) as server:
            url = f"ws://127.0.0.1:{server.port}/v1/ws"

            def come(*forwarded: str) -> connect:
                headers = [("X-Forwarded-For", value) for value in forwarded]
                return connect(
                    url, subprotocols=["icepunch.v1"], additional_headers=headers, proxy=None
                )

            async with come("192.0.2.1") as first, come("spoofed, 192.0.2.2") as second:
                assert (await join(first))["you"] == {"ip": "192.0.2.1", "port": 0}
                assert (await join(second))["you"]["ip"] == "192.0.2.2"
                with pytest.raises(InvalidStatus) as caught:
                    await come("192.0.2.1")
                assert caught.value.response.status_code == 429
            await eventually(lambda: server.sizes["connections"] == 0)
            async with come("192.0.2.1") as again:
                await join(again)

    asyncio.run(run())


def test_the_word_of_anybody_else_on_where_he_comes_from_is_not_taken() -> None:
    async def test(server: SignalingServer) -> None:
        headers = [("X-Forwarded-For", "192.0.2.1")]
        url = f"ws://127.0.0.1:{server.port}/v1/ws"
        async with connect(
            url, subprotocols=["icepunch.v1"], additional_headers=headers, proxy=None
        ) as client:
            assert (await join(client))["you"]["ip"] == "127.0.0.1"

    with_server(test)


def test_drain_sends_everybody_away_over_its_window_and_lets_nobody_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        server = await SignalingServer.start(port=0)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw_client(server)) for _ in range(6)]
            for index, client in enumerate(clients):
                await join(client, f"the-room-number-{index}-of-six")
            dismissed: list[float] = []
            dismiss = server._backend.dismiss

            def watching(number: int) -> None:
                dismissed.append(time.monotonic())
                dismiss(number)

            monkeypatch.setattr(server._backend, "dismiss", watching)
            draining = asyncio.create_task(server.drain(0.6))

            async def leave(client: ClientConnection) -> None:
                assert await hear(client) == {"type": "drain", "in_s": 0.6, "jitter_s": 0.6}
                await client.wait_closed()
                assert client.close_code == 4000

            await asyncio.sleep(0.05)
            assert not server.ready
            with pytest.raises(OSError, match=r"refused|Connect"):
                await asyncio.open_connection("127.0.0.1", server.port)
            await asyncio.gather(*map(leave, clients))
            await draining
            assert len(dismissed) == 6
            assert dismissed[-1] - dismissed[0] > 0.4

    asyncio.run(run())


def test_close_sends_drain_and_4000_and_takes_no_longer_than_a_second_or_so() -> None:
    async def run() -> None:
        server = await SignalingServer.start(port=0)
        async with raw_client(server) as client:
            await join(client)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            began = time.monotonic()
            await server.close(jitter=3.0)
            assert time.monotonic() - began < 1.5
            assert await hear(client) == {"type": "drain", "in_s": 0.0, "jitter_s": 3.0}
            with pytest.raises(ConnectionClosed):
                await hear(client)
            assert client.close_code == 4000
            assert await reader.read() == b""
            writer.close()
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection("127.0.0.1", server.port)
        await server.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("127.0.0.1", None, "address already in use"),
        ("203.0.113.77", 0, "cannot assign requested address"),
        ("127.0.0.1", 99999, "port"),
    ],
)
def test_an_address_that_can_not_be_had_is_one_clear_error(
    host: str, port: int | None, says: str
) -> None:
    async def run() -> None:
        async with await SignalingServer.start(port=0) as server:
            with pytest.raises(ListenFailed, match=says) as caught:
                await SignalingServer.start(host, server.port if port is None else port)
            assert str(caught.value).startswith(f"can not listen on {host} port ")

    asyncio.run(run())


def test_urls_name_every_socket() -> None:
    async def run() -> None:
        async with await SignalingServer.start("127.0.0.1", 0) as server:
            assert server.urls == [f"http://127.0.0.1:{server.port}"]

    asyncio.run(run())


def test_logs_tell_what_happened_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    secrets: list[str] = [ROOM, "private-payload", "private-meta"]

    async def test(server: SignalingServer) -> None:
        async with raw_client(server) as a, raw_client(server) as b:
            await say(a, "hello", v=1, room=ROOM, meta="private-meta")
            first = await hear(a)
            second = await join(b)
            secrets.extend([first["sid"], first["key"], second["sid"], second["key"]])
            signal = {"id": 1, "link": "l", "gen": 0, "kind": "offer", "data": "private-payload"}
            await say(b, "signal", to=first["self"], **signal)
            await hear(b)
            await say(b, "dance")
            await hear(b)
            await b.send("x" * 70000)
            await b.wait_closed()

    with caplog.at_level(logging.DEBUG, logger="signaling"):
        with_server(test)
    text = caplog.text
    for secret in secrets:
        assert secret not in text
    for fact in ("listening url=", "session opened", "refused code=too_large", "closed"):
        assert fact in text
