"""Hostile clients on real sockets: each meets its limit, and two bystanders notice nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from signaling_net import SUBPROTOCOL, hear, join, raw_client, say
from signaling_support import OTHER_ROOM, ROOM
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from signaling.limits import Limits
from signaling.server import SignalingServer

pytestmark = pytest.mark.usefixtures("engine")

LIMITS = Limits(handshake_timeout=0.5, hello_timeout=0.5)
GENEROUS = replace(
    LIMITS, message_rate=1e6, message_burst=10**6, byte_rate=1e9, byte_burst=10**9, out_queue=65536
)
PATIENCE = 0.6
"""Seconds that a bystander's signal may take on a busy machine."""

Hostile = Callable[[SignalingServer], Awaitable[None]]


async def closed_with(client: ClientConnection, code: int) -> None:
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
    assert client.close_code == code


async def oversized(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await join(client, OTHER_ROOM)
        await client.send("x" * (64 * 1024 + 1))
        await closed_with(client, 1009)


async def oversized_in_fragments(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await join(client, OTHER_ROOM)
        with contextlib.suppress(ConnectionClosed):
            await client.send("x" * 16 * 1024 for _ in range(5))
        await closed_with(client, 1009)


async def malformed(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await join(client, OTHER_ROOM)
        for _ in range(11):
            await client.send('{"type":')
        for _ in range(10):
            assert (await hear(client))["code"] == "bad_json"
        await closed_with(client, 4500)


async def malformed_utf8(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await join(client, OTHER_ROOM)
        await client.send(b'{"type":"ping","x":"\xff"}', text=True)
        await closed_with(client, 1007)


async def binary(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await client.send(b"\x00" * 100)
        await closed_with(client, 4500)


async def wrong_order(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await say(client, "ping", n=1)
        assert (await hear(client))["code"] == "bad_order"
        await closed_with(client, 4500)


async def gap_in_the_ids(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await join(client, OTHER_ROOM)
        await say(client, "signal", id=2, to="x", link="l", gen=0, kind="bye", data="")
        assert (await hear(client))["code"] == "bad_order"
        await closed_with(client, 4500)


async def flooding(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await join(client, OTHER_ROOM)
        began = time.monotonic()
        frames = 600

        async def flood() -> None:
            for n in range(frames):
                await say(client, "ping", n=n)

        task = asyncio.create_task(flood())
        pongs = 0
        async with asyncio.timeout(20):
            while pongs < 65 or time.monotonic() - began < 1.5:
                pongs += json.loads(await client.recv())["type"] == "pong"
        task.cancel()
        elapsed = time.monotonic() - began
        assert pongs <= 62 + 20 * elapsed
        client.transport.abort()
    # Told once as long as it goes on; a busy machine makes pauses in it.
    assert 1 <= server.counters["rate_limited"] < server.counters["throttled"]


async def silent(server: SignalingServer) -> None:
    async with raw_client(server) as client:
        await closed_with(client, 4005)


async def slow_handshake(server: SignalingServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    began = time.monotonic()
    request = b"GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n" + b"A: b\r\n" * 100
    with contextlib.suppress(OSError):
        for position in range(len(request)):
            writer.write(request[position : position + 1])
            await writer.drain()
            if reader.at_eof():
                break
            await asyncio.sleep(0.02)
            if time.monotonic() - began > 3:
                break
    with contextlib.suppress(OSError):
        await reader.read()
    assert time.monotonic() - began < 2
    writer.close()


async def slow_hello(server: SignalingServer) -> None:
    """A frame that never ends."""
    async with raw_client(server) as client:
        client.transport.write(b"\x81\xfe\x10\x00\x00\x00\x00\x00" + b"x" * 100)
        await closed_with(client, 4005)


async def slow_reader(server: SignalingServer) -> None:
    """A peer of its own sends it more than it reads."""
    url = f"ws://127.0.0.1:{server.port}/v1/ws"
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    sock.setblocking(False)
    async with connect(url, sock=sock, subprotocols=[SUBPROTOCOL], compression=None) as lazy:
        lazy_id = (await join(lazy, OTHER_ROOM))["self"]
        lazy.transport.pause_reading()
        async with raw_client(server) as fast:
            await join(fast, OTHER_ROOM)
            fields = {"to": lazy_id, "link": "l", "gen": 0, "kind": "offer", "data": "x" * 16384}
            for id in range(1, 65):
                await say(fast, "signal", id=id, **fields)
            events: list[str] = []
            while "away" not in events:
                frame = await hear(fast)
                events.append(frame.get("event", ""))
            lazy.transport.abort()
    assert server.counters["slow"] == 1


async def ping_flood_never_read(server: SignalingServer) -> None:
    """Control frames are answered by the transport: those answers are bounded, too."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Protocol: icepunch.v1\r\n\r\n"
    )
    await loop.sock_sendall(sock, request.encode())
    assert b" 101 " in await loop.sock_recv(sock, 13)
    ping = b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125

    async def flood() -> None:
        while True:
            await loop.sock_sendall(sock, ping * 100)

    # It is cut off, or it is not read any more.
    with pytest.raises((ConnectionError, TimeoutError)):
        await asyncio.wait_for(flood(), 2)
    assert server.sizes["queue_bytes"] < 1024 * 1024
    sock.close()


@pytest.mark.parametrize(
    ("hostile", "limits"),
    [
        (oversized, LIMITS),
        (oversized_in_fragments, LIMITS),
        (malformed, LIMITS),
        (malformed_utf8, LIMITS),
        (binary, LIMITS),
        (wrong_order, LIMITS),
        (gap_in_the_ids, LIMITS),
        (flooding, LIMITS),
        (silent, LIMITS),
        (slow_handshake, LIMITS),
        (slow_hello, LIMITS),
        (slow_reader, GENEROUS),
        (ping_flood_never_read, replace(LIMITS, hello_timeout=5.0)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_hostile_client_meets_its_limit_and_disturbs_nobody(
    hostile: Hostile, limits: Limits
) -> None:
    async def run() -> None:
        async with (
            await SignalingServer.start(port=0, limits=limits) as server,
            raw_client(server) as a,
            raw_client(server) as b,
        ):
            await join(a)
            b_id = (await join(b, ROOM))["self"]
            assert (await hear(a))["event"] == "join"
            attack = asyncio.ensure_future(hostile(server))
            id, slowest = 0, 0.0
            while not attack.done() or id < 5:
                id += 1
                began = time.monotonic()
                fields = {"link": "l", "gen": 0, "kind": "cand", "data": str(id)}
                await say(a, "signal", id=id, to=b_id, **fields)
                assert (await hear(b))["data"] == str(id)
                assert (await hear(a)) == {"type": "ack", "id": id, "status": "delivered"}
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.055)
            await attack
            assert slowest < PATIENCE
            assert server.sizes["sessions"] >= 2

    asyncio.run(run())
