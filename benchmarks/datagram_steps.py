"""What it costs to send and receive a plain datagram, in one process over the loopback interface:
ice-punch's channel, aioice, and the calls of UDP segmentation offload alone. Needs nothing.

The lower quartile of many short rounds is shown: what else the machine does hardly shows in it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aioice
from harness import at_least_one, table, where

from ice_punch import GatheringOptions, IceConnection
from ice_punch.channel import Channel

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
BURST = 52
LOOPBACK = GatheringOptions(interface="lo", ipv6=False)

Send = Callable[[list[bytes]], Awaitable[None]]
Receive = Callable[[int], Awaitable[None]]
Path = tuple[Send, Receive]


@contextlib.asynccontextmanager
async def channels() -> AsyncIterator[tuple[Channel, Channel]]:
    ends = [IceConnection(controlling=first, options=LOOPBACK) for first in (True, False)]
    for end in ends:
        async for _ in end.gather():
            pass
    for end, other in zip(ends, reversed(ends), strict=True):
        end.set_remote_description(other.local_description)
    await asyncio.gather(*(end.connect(10) for end in ends))
    a, b = map(Channel, ends)
    async with a, b:
        await asyncio.sleep(0.3)
        yield a, b


@contextlib.asynccontextmanager
async def in_batches() -> AsyncIterator[Path]:
    async with channels() as (a, b):

        async def send(burst: list[bytes]) -> None:
            a.send_many_nowait(burst)

        async def receive(count: int) -> None:
            while count > 0:
                count -= len(await b.recv_many())

        yield send, receive


@contextlib.asynccontextmanager
async def one_by_one() -> AsyncIterator[Path]:
    async with channels() as (a, b):

        async def send(burst: list[bytes]) -> None:
            for data in burst:
                a.send_nowait(data)

        async def receive(count: int) -> None:
            for _ in range(count):
                await b.recv()

        yield send, receive


@contextlib.asynccontextmanager
async def without_offload() -> AsyncIterator[Path]:
    os.environ["ICE_PUNCH_UDP_OFFLOAD"] = "off"
    try:
        async with one_by_one() as path:
            yield path
    finally:
        del os.environ["ICE_PUNCH_UDP_OFFLOAD"]


@contextlib.asynccontextmanager
async def with_aioice() -> AsyncIterator[Path]:
    def address(host: str) -> aioice.Candidate:
        port = sockets[host].get_extra_info("sockname")[1]
        return aioice.Candidate("1", 1, "udp", 2130706431, "127.0.0.1", port, "host")

    # It leaves loopback addresses out, so they are put in by hand.
    a, b = (aioice.Connection(ice_controlling=first, use_ipv6=False) for first in (True, False))
    sockets: dict[str, Any] = {}
    for name, connection in (("a", a), ("b", b)):
        connection._local_candidates_start = True
        connection._protocols.append(await _stun_protocol(connection))
        sockets[name] = connection._protocols[0].transport
        connection._local_candidates = [address(name)]
        connection._protocols[0].local_candidate = connection._local_candidates[0]
        connection._local_candidates_end = True
    for connection, other in ((a, b), (b, a)):
        connection.remote_username = other.local_username
        connection.remote_password = other.local_password
        for candidate in other.local_candidates:
            await connection.add_remote_candidate(candidate)
        await connection.add_remote_candidate(None)
    await asyncio.gather(a.connect(), b.connect())

    async def send(burst: list[bytes]) -> None:
        for data in burst:
            await a.send(data)

    async def receive(count: int) -> None:
        for _ in range(count):
            await b.recv()

    yield send, receive
    await asyncio.gather(a.close(), b.close())


async def _stun_protocol(connection: aioice.Connection) -> Any:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(
        lambda: aioice.ice.StunProtocol(connection), local_addr=("127.0.0.1", 0)
    )
    raw = protocol.transport.get_extra_info("socket")
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        raw.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    return protocol


@contextlib.asynccontextmanager
async def bare() -> AsyncIterator[Path]:
    """Offload on connected sockets and nothing else, one step of Python for each datagram."""
    loop = asyncio.get_running_loop()
    a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for end in (a, b):
        end.bind(("127.0.0.1", 0))
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    a.connect(b.getsockname())
    b.setsockopt(SOL_UDP, UDP_GRO, 1)
    buffer, arrived, came = bytearray(65535), [], asyncio.Event()
    view = memoryview(buffer)

    def on_readable() -> None:
        for _ in range(4):
            try:
                end, ancillary, _, _ = b.recvmsg_into([buffer], 64)
            except OSError:
                break
            size = int.from_bytes(ancillary[0][2][:4], sys.byteorder) if ancillary else end
            arrived.extend([bytes(view[n : min(n + size, end)]) for n in range(0, end, size)])
        came.set()

    async def send(burst: list[bytes]) -> None:
        batch = []
        for data in burst:
            batch.append(data)
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(batch[0])))]
        a.sendmsg([b"".join(batch)], control)

    async def receive(count: int) -> None:
        while len(arrived) < count:
            came.clear()
            await came.wait()
        arrived.clear()

    loop.add_reader(b.fileno(), on_readable)
    yield send, receive
    loop.remove_reader(b.fileno())
    a.close()
    b.close()


@contextlib.asynccontextmanager
async def asyncio_udp() -> AsyncIterator[Path]:
    """asyncio's own datagram transport and a queue."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _: Any) -> None:
            queue.put_nowait(data)

    loop = asyncio.get_running_loop()
    b, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
    peer = b.get_extra_info("sockname")
    a, _ = await loop.create_datagram_endpoint(Protocol, remote_addr=peer)
    for end in (a, b):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 4 << 20)

    async def send(burst: list[bytes]) -> None:
        for data in burst:
            a.sendto(data)

    async def receive(count: int) -> None:
        for _ in range(count):
            await queue.get()

    yield send, receive
    a.close()
    b.close()


WAYS = {
    "ice-punch, in batches": in_batches,
    "ice-punch, one by one": one_by_one,
    "ice-punch, no offload": without_offload,
    "aioice": with_aioice,
    "asyncio": asyncio_udp,
    "bare offload": bare,
}


async def measure(name: str, size: int, rounds: int) -> tuple[float, float]:
    """ns to send and receive a datagram of a burst, and µs one way for a single one."""
    async with WAYS[name]() as (send, receive):
        burst = [bytes((99,)) * size] * BURST
        bursts, single = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            await send(burst)
            await receive(BURST)
            bursts.append((time.perf_counter() - began) / BURST * 1e9)
            await asyncio.sleep(0)
            began = time.perf_counter()
            await send(burst[:1])
            await receive(1)
            single.append((time.perf_counter() - began) * 1e6)
            await asyncio.sleep(0)
    return statistics.quantiles(bursts, n=4)[0], statistics.quantiles(single, n=4)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=100)
    parser.add_argument("--repeat", type=at_least_one, default=5)
    parser.add_argument("--uvloop", action="store_true")
    arguments = parser.parse_args()
    if arguments.uvloop and importlib.util.find_spec("uvloop") is None:
        raise SystemExit("datagram_steps.py: uvloop is missing: pip install '.[uvloop]'")
    print(where())
    factory = None
    if arguments.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    print(f"event loop  {'uvloop' if arguments.uvloop else 'asyncio'}")
    for size in (1200, 200):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
        for _ in range(arguments.repeat):
            for name in WAYS:
                with asyncio.Runner(loop_factory=factory) as runner:
                    found[name].append(runner.run(measure(name, size, arguments.rounds)))
        figures = {
            name: [statistics.median(column) for column in zip(*results, strict=True)]
            for name, results in found.items()
        }
        ours = figures["ice-punch, in batches"][0]
        rows = [
            [
                name,
                f"{each:.0f}",
                f"{each / ours:.2f}",
                f"{one_way:.1f}",
            ]
            for name, (each, one_way) in figures.items()
        ]
        print(f"\n{size} bytes, bursts of {BURST}, medians of {arguments.repeat}\n")
        head = ["", "sent and received, ns", "this / first", "a single one, µs"]
        print(table(head, rows))


if __name__ == "__main__":
    main()
