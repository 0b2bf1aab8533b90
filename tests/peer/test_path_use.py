"""What is sent has the path MTU confirmed (RFC 8899 section 5.1.1), and fits the path it takes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from unittest import mock

import pytest

from ice_punch import GatheringOptions
from ice_punch.datagram import Buffer
from ice_punch.outbox import Outbox
from ice_punch.path_mtu import PathMtuSearch
from support.channels import channels
from support.loopback import LOOPBACK


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6 loopback")
def test_large_datagrams_between_middling_ones_have_an_ipv6_path_confirmed() -> None:
    async def run() -> list[int]:
        gathering = GatheringOptions(interface=LOOPBACK, ipv4=False)
        async with channels(encrypt=False, gathering=gathering) as (a, _):
            async with asyncio.timeout(10):
                while a.stats.path_mtu == 1280:
                    await asyncio.sleep(0.02)
            with mock.patch.object(PathMtuSearch, "used") as used:
                for _turn in range(3):
                    for size in (700, 700, 5000):
                        a.send_nowait(bytes((99,)) * size)
                    await asyncio.sleep(0.06)
                return [call.args[0] for call in used.call_args_list]

    assert max(asyncio.run(run())) > 5000


@pytest.mark.parametrize("encrypt", [False, True])
def test_what_waited_for_a_path_and_is_too_large_for_it_is_dropped_and_counted(
    encrypt: bool,
) -> None:
    async def run() -> tuple[list[int], int, int]:
        async with channels(encrypt=encrypt) as (a, b):
            async with asyncio.timeout(10):
                while a.stats.path_mtu != 9216:
                    await asyncio.sleep(0.02)
            data = a.connection.carrier.data
            with mock.patch.object(type(data), "mtu", 9216):
                pair, path = data.pair, data._path
                data._leave()
                data._take(None, None)  # the path is lost
                data._path = None
                for size in (5000, 100, 5000, 200):
                    a.send_nowait(bytes((99,)) * size, expires_in=20)
                await asyncio.sleep(0.05)
                assert a.stats.queued == 4
            data._search, data._searches = None, {}
            with mock.patch.object(type(data), "mtu", 1280):  # another one carries less
                data.follow(data._clock())
                assert (data.pair, data._path) == (pair, path)
                await asyncio.sleep(0.1)
                sizes: list[int] = []
                async with asyncio.timeout(5):
                    while len(sizes) < 2:
                        sizes += map(len, await b.recv_many())
                return sizes, a.stats.dropped_too_large, a.stats.queued

    assert asyncio.run(run()) == ([100, 200], 2, 0)


def test_a_limit_that_fell_and_rose_again_drops_nothing() -> None:
    async def run() -> None:
        calls: list[list[bytes]] = []
        open_now = False

        def sink(datagrams: Sequence[Buffer], sizes: Sequence[int]) -> int:
            if open_now:
                calls.append([bytes(data) for data in datagrams])
            return len(datagrams) if open_now else 0

        outbox = Outbox(sink, lambda: None)
        outbox.set_limit(1472)
        outbox.put(bytes(1472))
        outbox.put(bytes(10))
        outbox.set_limit(1252)
        outbox.set_limit(1472)
        open_now = True
        outbox.resume()
        assert [*map(len, calls[0])] == [1472, 10]
        assert (outbox.too_large, outbox.queued) == (0, 0)

    asyncio.run(run())
