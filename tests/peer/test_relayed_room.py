"""Whoever sends through a relay waits while the way to its server takes no more."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ice_punch.channel import Channel
from ice_punch.net.ice_server import IceServer
from ice_punch.net.turn_path import MAX_WRITE_BUFFER, WRITE_BUFFER, StreamPath, connect
from ice_punch.net.turn_server import TurnServerShell
from ice_punch.net.udp import UdpSocket
from ice_punch.turn import allow_every_peer
from support.channels import channels
from support.loopback import GATHERING

HERE = "127.0.0.1"
DATAGRAMS = [n.to_bytes(4, "big") * 250 for n in range(5000)]


@asynccontextmanager
async def relayed(transport: str, *, encrypt: bool) -> AsyncIterator[tuple[Channel, Channel]]:
    users = {"robot": "correct horse"}
    async with await TurnServerShell.start(
        HERE, 0, users=users, peer_filter=allow_every_peer
    ) as shell:
        host, port = (shell.udp_addresses if transport == "udp" else shell.tcp_addresses)[0]
        server = IceServer.parse(f"turn:{host}:{port}?transport={transport}", *users.popitem())
        gathering = replace(GATHERING, relay_only=True, ice_servers=(server,))
        async with channels(encrypt=encrypt, gathering=gathering) as (a, b):
            assert a.connection.carrier.data.pair is not None
            assert a.connection.carrier.data.pair.relayed
            yield a, b


def often_full(sock: UdpSocket) -> None:
    """Have the kernel take no more for 20 ms after every 300 datagrams."""
    loop = asyncio.get_running_loop()
    calls, again_at = 0, 0.0

    class Full:
        def sendto(self, data: Any, destination: Any) -> int:
            nonlocal calls, again_at
            if loop.time() < again_at:
                raise BlockingIOError(errno.EAGAIN, "injected")
            calls += 1
            if calls % 300 == 0:
                again_at = loop.time() + 0.02
            return sock._socket.sendto(data, destination)

        def sendmsg(self, *_: Any) -> int:
            raise BlockingIOError(errno.EAGAIN, "injected")

    full: Any = Full()
    sock._send, sock._sender._socket = full.sendto, full


async def all_leave(a: Channel) -> None:
    async with asyncio.timeout(60):
        await a.send_many(DATAGRAMS)
        await a.drain()
    stats = a.stats
    assert stats.dropped_by_host == 0
    assert stats.datagrams_sent >= len(DATAGRAMS)


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_over_a_connection_nothing_is_dropped(encrypt: bool) -> None:
    async def run() -> None:
        async with relayed("tcp", encrypt=encrypt) as (a, b):
            relay: Any = a.connection.carrier.data._path
            sock = relay._session._path._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            reading = asyncio.ensure_future(b.recv_many())
            await all_leave(a)
            assert (await reading)[0] in DATAGRAMS

    asyncio.run(run())


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_over_a_socket_that_is_full_again_and_again_nothing_is_dropped(encrypt: bool) -> None:
    async def run() -> None:
        async with relayed("udp", encrypt=encrypt) as (a, _):
            relay: Any = a.connection.carrier.data._path
            shared: Any = relay._session._path
            sock = shared._host.socket if hasattr(shared, "_host") else shared._socket
            often_full(sock)
            await all_leave(a)
            assert sock.stats.dropped == 0

    asyncio.run(run())


def test_checks_have_room_where_data_has_none() -> None:
    async def run() -> None:
        accepted: asyncio.Future[asyncio.StreamReader] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda reader, _: accepted.set_result(reader), HERE, 0, limit=1024
        )
        address = server.sockets[0].getsockname()
        path = await connect(
            address,
            transport="tcp",
            local_ip=HERE,
            port_range=None,
            tls=None,
            server_name="",
            on_message=lambda *_: None,
            on_loss=lambda _: None,
        )
        assert isinstance(path, StreamPath)
        assert path._transport is not None
        room = asyncio.Event()
        path.set_writable_handler(room.set)
        message = b"\0\1\3\xe8" + bytes(1016)
        while not path.congested:
            assert path.send(message, address)
        assert WRITE_BUFFER < path._transport.get_write_buffer_size() < MAX_WRITE_BUFFER
        while path.send(message, address):
            pass
        assert path._transport.get_write_buffer_size() > MAX_WRITE_BUFFER
        assert not room.is_set()
        reader = await accepted
        async with asyncio.timeout(30):
            while not room.is_set():
                await reader.read(65536)
        assert not path.congested
        path.abort()
        server.close()

    asyncio.run(run())
