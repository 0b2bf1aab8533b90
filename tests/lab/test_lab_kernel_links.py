"""Links of the kernel laboratory: cables do what the virtual internet's links do, packet by packet,
and the kernel itself tells what is too large."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import time
from collections.abc import Iterator

import pytest

from ice_punch.lab.behaviour import NatBehaviour, NatKind
from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.kernel.faults import set_link
from ice_punch.lab.links import PERFECT, AccessLink, GilbertElliott, LinkDirection, LinkProfile
from ice_punch.lab.scenario import Ip, Scenario, peer
from support.netns import NETNS, UdpProbe, udp_probes

pytestmark = [*NETNS, pytest.mark.alone]

ONE, TWO = "203.0.113.10", "203.0.113.11"
IP_MTU_DISCOVER, DO = 10, 2
HEADERS = 28
NONE = peer(NatKind.NONE)


def numbers(probe: UdpProbe, silence: float = 0.3) -> list[int]:
    """What arrives until nothing does any more."""
    arrived = []
    with contextlib.suppress(TimeoutError):
        while True:
            arrived.append(int(probe.receive(silence)[0][:4]))
    return arrived


def datagram(number: int, size: int) -> bytes:
    """One whose IP packet has this size."""
    return f"{number:04}".encode().ljust(size - HEADERS, b".")


@contextlib.contextmanager
def public_peer(link: AccessLink, seed: int = 0) -> Iterator[tuple[UdpProbe, UdpProbe]]:
    """A host on the internet with this link, and a server."""
    scenario = Scenario(a=peer(NatKind.NONE, link), b=NONE, rtt=0.0)
    with (
        KernelInternet.of(scenario, seed) as net,
        udp_probes((net.peer_a, None), (net.public, ONE)) as (a, server),
    ):
        yield a, server


@pytest.mark.parametrize(
    "profile",
    [
        LinkProfile(loss=0.3),
        LinkProfile(bursts=GilbertElliott.of(mean=0.25, burst=4), loss=0.05),
        LinkProfile(duplication=0.3, loss=0.1),
    ],
    ids=["independent", "bursts", "duplication"],
)
@pytest.mark.parametrize("upward", [True, False], ids=["up", "down"])
def test_a_cable_loses_and_doubles_the_same_packets_as_a_virtual_link(
    profile: LinkProfile, upward: bool
) -> None:
    link = AccessLink(up=profile) if upward else AccessLink(down=profile)
    direction = "up" if upward else "down"
    lottery = LinkDirection(profile, random.Random(f"7/a {direction}"))
    expected = [n for n in range(200) for _ in lottery.carry(100, n * 0.001).arrivals]
    with public_peer(link, seed=7) as (a, server):
        sender, receiver = (a, server) if upward else (server, a)
        for number in range(200):
            sender.send(receiver.address, datagram(number, 100))
            time.sleep(0.0005)
        assert numbers(receiver) == expected


def test_the_first_packet_meets_the_first_draw() -> None:
    """Nothing that a host sends by itself takes part in the lottery."""
    link = AccessLink.both(LinkProfile(loss=0.5))
    fates = []
    for seed in range(6):
        with public_peer(link, seed) as (a, server):
            a.send(server.address, datagram(0, 100))
            lottery = LinkDirection(link.up, random.Random(f"{seed}/a up"))
            expected = [0] * len(lottery.carry(100, 0.0).arrivals)
            fates.append(expected)
            assert numbers(server, 0.1) == expected
    assert [] in fates
    assert [0] in fates


def test_delay_and_jitter_take_their_time_and_never_reorder() -> None:
    with public_peer(AccessLink(up=LinkProfile(delay=0.05, jitter=0.05))) as (a, server):
        began = time.monotonic()
        for number in range(20):
            a.send(server.address, datagram(number, 100))
        server.receive()
        assert time.monotonic() - began >= 0.05
        assert numbers(server, 0.2) == list(range(1, 20))
        assert time.monotonic() - began >= 0.07


def test_some_packets_overtake_where_the_link_reorders() -> None:
    profile = LinkProfile(delay=0.03, reordering=0.2, reordering_gap=0.02)
    with public_peer(AccessLink(up=profile)) as (a, server):
        for number in range(60):
            a.send(server.address, datagram(number, 100))
            time.sleep(0.003)
        arrived = numbers(server)
        assert sorted(arrived) == list(range(60))
        assert arrived != sorted(arrived)


def test_a_rate_makes_packets_wait_and_a_full_queue_loses_them() -> None:
    profile = LinkProfile(rate=1e6, queue=12_500)
    with public_peer(AccessLink(up=profile)) as (a, server):
        began = time.monotonic()
        for number in range(40):
            a.send(server.address, datagram(number, 1250))
        arrived = numbers(server, 0.2)
        # 10 ms each; one is on its way and ten wait while the others come.
        assert arrived[:11] == list(range(11))
        assert 11 <= len(arrived) <= 14
        assert time.monotonic() - began >= 0.11


@pytest.mark.parametrize("nat", [NatKind.NONE, NatKind.PORT_RESTRICTED])
def test_what_is_too_large_for_the_way_out_is_told_by_the_kernel(nat: NatKind) -> None:
    link = AccessLink(up=LinkProfile(mtu=1000))
    with (
        KernelInternet.of(Scenario(a=peer(nat, link), b=NONE, rtt=0.0)) as net,
        udp_probes((net.peer_a, None), (net.public, ONE)) as (a, server),
    ):
        a.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
        with pytest.raises(OSError, match="too long"):  # noqa: PT012
            for _ in range(20):
                a.send(server.address, datagram(0, 1001))
                time.sleep(0.02)
        a.send(server.address, datagram(1, 1000))
        assert numbers(server, 0.1) == [1]


def test_what_is_too_large_for_the_way_in_is_told_to_the_sender_far_away() -> None:
    link = AccessLink(down=LinkProfile(mtu=1000))
    with (
        KernelInternet.of(Scenario(a=peer(link=link), b=peer(), rtt=0.02)) as net,
        udp_probes((net.peer_a, None), (net.peer_b, None), (net.public, ONE)) as (a, b, server),
    ):
        a.send(server.address)
        b.send(server.address)
        mapped_a, mapped_b = server.source_of_next(), server.source_of_next()
        a.send(mapped_b, datagram(0, 1400))
        b.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
        errors = []
        for number in range(20):
            try:
                b.send(mapped_a, datagram(number, 1001))
            except OSError as error:
                errors.append(error.errno)
                break
            time.sleep(0.02)
        assert errors == [errno.EMSGSIZE]
        b.send(mapped_a, datagram(99, 1000))
        assert numbers(a, 0.1) == [99]


def test_a_black_hole_swallows_what_is_too_large() -> None:
    profile = LinkProfile(mtu=1000, tells_mtu=False)
    with public_peer(AccessLink.both(profile)) as (a, server):
        for sender, receiver in ((a, server), (server, a)):
            sender.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
            for number in range(5):
                sender.send(receiver.address, datagram(number, 1001 if number % 2 else 1000))
                time.sleep(0.01)
            assert numbers(receiver, 0.1) == [0, 2, 4]


@pytest.mark.parametrize("rtt", [0.0, 0.01], ids=["wire", "cable"])
@pytest.mark.parametrize("shared", [(), (NatBehaviour(),)], ids=["internet", "local network"])
def test_a_link_that_is_down_loses_everything_and_tells_nobody(
    rtt: float, shared: tuple[NatBehaviour, ...]
) -> None:
    link = AccessLink.both(LinkProfile(delay=rtt))
    scenario = Scenario(a=peer(NatKind.NONE, link), b=NONE, shared_nats=shared, rtt=0.0)
    with (
        KernelInternet.of(scenario) as net,
        udp_probes((net.peer_a, None), (net.peer_b, None)) as (a, b),
    ):
        wire = net.layout.seats[0].wires[0]
        for up in (True, False, True):
            set_link(net, wire, up=up)
            for sender, receiver in ((a, b), (b, a)):
                assert sender.reaches(receiver, expected=up) == up


def test_a_second_link_has_a_nat_and_an_address_of_its_own() -> None:
    with KernelInternet.of(Scenario(a=peer(second_link=PERFECT), rtt=0.0)) as net:
        first, second = net.peer_a.addresses
        places = ((net.peer_a, first), (net.peer_a, second), (net.public, ONE))
        with udp_probes(*places) as (one, two, server):
            seen = []
            for probe in (one, two):
                probe.send(server.address)
                seen.append(server.source_of_next())
                server.send(seen[-1])
                assert probe.source_of_next() == server.address
            assert len({ip for ip, _ in seen}) == 2
            set_link(net, net.layout.seats[0].wires[0], up=False)
            for probe, alive in ((one, False), (two, True)):
                assert probe.reaches(server, expected=alive) == alive


def test_an_ipv6_firewall_lets_in_what_was_asked_for() -> None:
    with (
        KernelInternet.of(Scenario(a=peer(ip=Ip.V6), b=peer(NatKind.NONE, ip=Ip.V6))) as net,
        udp_probes(
            (net.peer_a, None),
            (net.peer_b, None),
            (net.peer_b, None),
            (net.public, "2001:db8:f::10"),
        ) as (inside, friend, neighbour, server),
    ):
        friend.send(inside.address)
        assert inside.hears_nothing()
        inside.send(friend.address)
        assert friend.source_of_next() == inside.address
        friend.send(inside.address)
        assert inside.source_of_next() == friend.address
        for stranger in (neighbour, server):
            stranger.send(inside.address)
        assert inside.hears_nothing()
