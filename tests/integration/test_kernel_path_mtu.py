"""The path MTU on real links, RFC 8899: found where routers tell it and where they do not, and
followed when a link changes in mid-session."""

from __future__ import annotations

import ast
import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from ice_punch import GatheringOptions
from ice_punch.channel import Channel
from ice_punch.errors import DatagramTooLarge
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.links import AccessLink, LinkProfile
from ice_punch.lab.scenario import Scenario, peer
from support.channels import End
from support.introduction import Mailbox, Party, introduce
from support.lan import ip, two_hosts
from support.netns import NETNS

pytestmark = NETNS

LAN = GatheringOptions(interface="lan0", ipv6=False)
INTERNET = GatheringOptions(ipv6=False)
HEADERS = 28
SEARCH = 20.0
"""Seconds a whole search may take where routers say nothing."""


def party(
    first: bool, gathering: GatheringOptions, work: Callable[[Channel, Mailbox], Any]
) -> Party:
    async def run(mailbox: Mailbox) -> Any:
        end = End(first, encrypt=False, gathering=gathering)
        mailbox.send(await end.describe())
        async with await end.connect(await mailbox.recv()) as channel:
            return await work(channel, mailbox)

    return run


async def until(condition: Callable[[], bool], timeout: float) -> float:
    began = time.monotonic()
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def hold(channel: Channel, mailbox: Mailbox) -> list[int]:
    """Receive until the other side says that it is done; the sizes of what came."""
    sizes: list[int] = []

    async def read() -> None:
        while True:
            sizes.extend(map(len, await channel.recv_many()))

    reading = asyncio.ensure_future(read())
    await mailbox.recv()
    reading.cancel()
    return sizes


@pytest.mark.parametrize("tells", [True, False], ids=["ICMP tells", "black hole"])
@pytest.mark.parametrize("mtu", [1400, 1000])
def test_a_link_in_the_middle_is_found_and_its_largest_datagram_passes(
    mtu: int, tells: bool
) -> None:
    link = AccessLink.both(LinkProfile(mtu=mtu, tells_mtu=tells, delay=0.005))
    scenario = Scenario(a=peer(NatKind.NONE), b=peer(NatKind.NONE, link))

    async def search(channel: Channel, mailbox: Mailbox) -> tuple[int | None, int]:
        found = 1280 if mtu < 1280 else mtu
        # Large datagrams are lost until it is known, and nothing is raised but the typed error.
        await until(
            lambda: (
                channel.stats.path_mtu is not None
                and (channel.stats.path_mtu < 1280 if mtu < 1280 else channel.stats.path_mtu > 1280)
            ),
            SEARCH,
        )
        await until(lambda: channel.stats.path_mtu == found or mtu < 1280, SEARCH)
        await until(lambda: channel.stats.path_mtu == mtu, SEARCH)
        largest = channel.max_datagram_size
        for _ in range(5):
            await channel.send(bytes((99,)) * largest)
        with pytest.raises(DatagramTooLarge):
            channel.send_nowait(bytes(largest + 1))
        await asyncio.sleep(0.3)
        mailbox.send("done")
        return channel.stats.path_mtu, largest

    with KernelInternet.of(scenario) as net:
        (found, largest), sizes = introduce(
            net.peer_a, party(True, INTERNET, search), net.peer_b, party(False, INTERNET, hold)
        )
    assert (found, largest) == (mtu, mtu - HEADERS)
    assert sizes == [largest] * 5


def forge_too_big(local: tuple[str, int], remote: tuple[str, int], mtu: int) -> None:
    """Tell whoever sends from ``local`` to ``remote`` that a packet was too big (RFC 1191)."""
    addresses = socket.inet_aton(local[0]) + socket.inet_aton(remote[0])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 1, 0x4000, 64, socket.IPPROTO_UDP, 0)
    quoted = header + addresses + struct.pack("!HHHH", local[1], remote[1], 1480, 0)
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.sendto(message[:2] + struct.pack("!H", checksum) + message[4:], (local[0], 0))


@pytest.mark.parametrize("mtu", [68, 1000])
def test_a_forged_icmp_message_does_not_keep_large_datagrams_from_passing(mtu: int) -> None:
    with two_hosts() as (one, two):

        async def send(channel: Channel, mailbox: Mailbox) -> dict[str, int]:
            await until(lambda: channel.stats.path_mtu == 1500, SEARCH)
            path = channel.path
            assert path is not None
            mailbox.send(repr((path.local, path.remote)))
            await asyncio.sleep(2.0)
            await until(lambda: channel.stats.path_mtu == 1500, SEARCH)
            await channel.send(bytes((99,)) * channel.max_datagram_size)
            await asyncio.sleep(0.2)
            mailbox.send("done")
            return channel.stats.dropped

        async def forge(channel: Channel, mailbox: Mailbox) -> list[int]:
            forge_too_big(*ast.literal_eval(await mailbox.recv()), mtu)
            return await hold(channel, mailbox)

        dropped, sizes = introduce(one, party(True, LAN, send), two, party(False, LAN, forge))
    assert dropped["too_large"] == 0
    assert sizes == [1500 - HEADERS]


def test_a_link_of_our_own_that_shrinks_is_known_with_the_first_datagram() -> None:
    with two_hosts() as (one, two):

        async def shrink(channel: Channel, mailbox: Mailbox) -> tuple[int, int, dict[str, int]]:
            await until(lambda: channel.stats.path_mtu == 1500, SEARCH)
            before = channel.max_datagram_size
            ip("link set lan0 mtu 1320")
            await channel.send(bytes((99,)) * before)
            await until(lambda: channel.max_datagram_size < before, 1.0)
            await channel.send(bytes((99,)) * channel.max_datagram_size)
            await asyncio.sleep(0.2)
            mailbox.send("done")
            return before, channel.max_datagram_size, channel.stats.dropped

        (before, after, dropped), sizes = introduce(
            one, party(True, LAN, shrink), two, party(False, LAN, hold)
        )
    assert (before, after) == (1500 - HEADERS, 1320 - HEADERS)
    assert dropped["too_large"] == 1
    assert sizes == [after]


def test_a_link_far_away_that_shrinks_without_a_word_is_noticed_while_it_is_used() -> None:
    with two_hosts() as (one, two):

        async def stream(channel: Channel, mailbox: Mailbox) -> tuple[float, int]:
            await until(lambda: channel.stats.path_mtu == 1500, SEARCH)
            # The other end's interface drops what is longer, and tells nobody.
            ip(f"-n {two.namespace} link set lan0 mtu 1400")
            began = time.monotonic()
            while channel.stats.path_mtu == 1500 and time.monotonic() < began + 15:
                channel.send_nowait(bytes((99,)) * channel.max_datagram_size)
                await asyncio.sleep(0.05)
            noticed = time.monotonic() - began
            await until(lambda: channel.stats.path_mtu == 1400, SEARCH)
            await channel.send(bytes((98,)) * channel.max_datagram_size)
            await asyncio.sleep(0.2)
            mailbox.send("done")
            return noticed, channel.max_datagram_size

        (noticed, after), sizes = introduce(
            one, party(True, LAN, stream), two, party(False, LAN, hold)
        )
    assert noticed < 9.5
    assert after == 1400 - HEADERS
    assert sizes[-1] == after
    assert max(sizes) <= 1500 - HEADERS
