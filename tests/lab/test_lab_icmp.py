"""ICMP errors, MTUs, refusals and copies: what a packet that does not get through brings about."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lab_sockets import Socket

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import EarlyInbound, Filtering, Hairpinning, NatBehaviour, NatKind
from ice_punch.lab.links import AccessLink, LinkProfile
from ice_punch.lab.trace import DropReason, IcmpKind, PacketRecord, Protocol
from ice_punch.lab.virtual.firewall import StatefulFirewall
from ice_punch.lab.virtual.host import VirtualHost
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.lab.virtual.nat64 import embed
from ice_punch.lab.virtual.stream import Closed, DataReceived, StreamEvent

LINK = LinkProfile(delay=0.1)
UNREACHABLE, TOO_BIG = IcmpKind.PORT_UNREACHABLE, IcmpKind.TOO_BIG


def icmp(net: VirtualInternet) -> list[PacketRecord]:
    return [p for p in net.trace if p.protocol is Protocol.ICMP]


def a_closed_host(net: VirtualInternet, ip: str = "203.0.113.1", **kwargs: object) -> VirtualHost:
    host = net.host("closed", ip, **kwargs)  # type: ignore[arg-type]
    host.rejects_strays = True
    return host


# -- port unreachable -------------------------------------------------------------------------


def test_an_error_comes_back_through_two_nats_to_the_very_socket() -> None:
    net = VirtualInternet()
    carrier = net.nat("carrier", "198.51.100.1", NatKind.SYMMETRIC, link=LINK)
    home = net.nat("home", "100.64.0.2", NatKind.SYMMETRIC, behind=carrier)
    host = net.host("inside", "10.0.0.2", behind=home)
    sockets = [Socket(host, port) for port in (5000, 5001)]
    closed = a_closed_host(net, link=LinkProfile(delay=0.05))
    sockets[1].send((closed.address, 9))
    net.run(1.0)
    assert sockets[0].errors == []
    assert sockets[1].errors == [
        (pytest.approx(0.3), ("10.0.0.2", 5001), ("203.0.113.1", 9)),
    ]
    (error,) = icmp(net)
    assert error.delivered
    assert net.trace.dropped() == [net.trace.packets[0]]
    assert net.trace.packets[0].dropped is DropReason.NO_LISTENER


def test_an_error_from_inside_names_the_addresses_that_the_outside_knows() -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1", NatKind.SYMMETRIC, link=LINK)
    inside = Socket(a_closed_host(net, "10.0.0.2", behind=nat))
    server = Socket(net.host("server", "203.0.113.1", link=LinkProfile(delay=0.05)))
    inside.send(server.local)
    net.run(1.0)
    inside.host.attachments.clear()
    server.send(server.sources[0])
    net.run(2.0)
    assert server.errors == [(pytest.approx(1.3), server.local, server.sources[0])]


def test_errors_of_two_hosts_that_meet_through_their_nats_cross_both() -> None:
    net = VirtualInternet()
    ends = []
    for n in (1, 2):
        nat = net.nat(f"nat {n}", f"198.51.100.{n}", NatKind.PORT_RESTRICTED)
        ends.append(Socket(net.host(f"host {n}", "192.168.1.2", behind=nat)))
    one, two = ends
    one.send(("198.51.100.2", 5000))
    net.run(1.0)
    two.send(("198.51.100.1", 5000))
    net.run(2.0)
    assert one.sources == [("198.51.100.2", 5000)]
    two.host.attachments.clear()
    two.host.rejects_strays = True
    one.send(("198.51.100.2", 5000))
    net.run(3.0)
    assert one.errors == [(2.0, one.local, ("198.51.100.2", 5000))]


@pytest.mark.parametrize("host_is", ["public", "inside"])
def test_a_host_that_does_not_reject_says_nothing(host_is: str) -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1")
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    server = Socket(net.host("server", "203.0.113.1"))
    destination = (server.host.address, 9) if host_is == "public" else ("10.0.0.2", 9)
    inside.send(destination)
    net.run(1.0)
    assert icmp(net) == []


def test_there_are_no_errors_about_errors() -> None:
    net = VirtualInternet()
    link = AccessLink(up=LinkProfile(delay=0.1), down=LinkProfile(delay=0.1, mtu=68))
    sender = Socket(net.host("sender", "203.0.113.1", link=LinkProfile(loss=0.0, mtu=80)))
    closed = a_closed_host(net, "203.0.113.2", link=link)
    sender.send((closed.address, 9), b"")
    sender.send((closed.address, 9), b"x" * 45)
    net.run(1.0)
    assert [p.error.kind for p in icmp(net) if p.error] == [TOO_BIG, UNREACHABLE]
    assert len(net.trace) == 4


def test_a_firewall_lets_in_errors_about_what_went_out_and_no_others() -> None:
    net = VirtualInternet()
    router = net.router("firewall", "2001:db8:1::/64", firewall=StatefulFirewall())
    inside = Socket(net.host("inside", "2001:db8:1::2", behind=router))
    closed = a_closed_host(net, "2001:db8:f::1")
    inside.send((closed.address, 9))
    net.run(1.0)
    assert [(local, to) for _, local, to in inside.errors] == [(inside.local, (closed.address, 9))]
    router.reboot()
    closed.interfaces[0].complain(net.trace.packets[0], UNREACHABLE)
    net.run(2.0)
    assert len(inside.errors) == 1
    assert icmp(net)[-1].dropped is DropReason.FILTERED


def test_an_error_for_a_mapping_that_is_gone_ends_at_the_nat() -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1", link=LINK)
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    closed = a_closed_host(net)
    inside.send((closed.address, 9))
    net.at(0.15, nat.reboot)
    net.run(1.0)
    assert inside.errors == []
    assert [(p.dropped, p.dropped_by) for p in icmp(net)] == [(DropReason.NO_MAPPING, "nat")]


# -- refusals ---------------------------------------------------------------------------------


def knocks(how: EarlyInbound, *, mapped: bool) -> tuple[VirtualInternet, Socket, Address]:
    """A stranger sends a datagram and opens a TCP connection to a NAT."""
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1", NatBehaviour(early_inbound=how), link=LINK)
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    stranger = Socket(net.host("stranger", "203.0.113.1", link=LinkProfile(delay=0.05)))
    if mapped:
        inside.send(("203.0.113.99", 1))
        inside.host.streams.connect((inside.local[0], 5000), ("203.0.113.99", 1), 0.0)
        net.run(0.0)
    target = ("198.51.100.1", 5000)
    stranger.send(target)
    return net, stranger, target


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("how", EarlyInbound)
def test_what_an_early_datagram_gets_for_an_answer(how: EarlyInbound, mapped: bool) -> None:
    net, stranger, target = knocks(how, mapped=mapped)
    net.run(1.0)
    rejected = how in (EarlyInbound.REJECT, EarlyInbound.CLAIM)
    assert stranger.errors == ([(pytest.approx(0.3), stranger.local, target)] if rejected else [])
    why = DropReason.FILTERED if mapped else DropReason.NO_MAPPING
    assert net.trace.sent_by("stranger")[0].dropped is why


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("how", EarlyInbound)
def test_what_an_early_syn_gets_for_an_answer(how: EarlyInbound, mapped: bool) -> None:
    net, stranger, target = knocks(how, mapped=mapped)
    told: list[tuple[float, str]] = []

    def on_event(event: StreamEvent, now: float) -> None:
        assert isinstance(event, Closed)
        told.append((now, event.reason))

    stranger.host.stream_users.append(on_event)
    stranger.host.streams.connect((stranger.host.address, 6000), target, 0.0)
    net.run(1.0)
    assert told == {
        EarlyInbound.REJECT: [(pytest.approx(0.3), "unreachable")],
        EarlyInbound.CLAIM: [(pytest.approx(0.3), "unreachable")],
        EarlyInbound.RESET: [(pytest.approx(0.3), "refused")],
    }.get(how, [])


def test_a_refused_hairpin_is_answered_inside() -> None:
    net = VirtualInternet()
    behaviour = NatBehaviour(
        hairpinning=Hairpinning.EXTERNAL_SOURCE, early_inbound=EarlyInbound.REJECT
    )
    nat = net.nat("nat", "198.51.100.1", behaviour, link=LINK)
    one, two = (Socket(net.host(f"host {n}", f"10.0.0.{n}", behind=nat)) for n in (2, 3))
    two.send(("203.0.113.9", 9))
    net.run(0.0)
    one.send(("198.51.100.1", 5000))
    net.run(0.0)
    assert one.errors == [(0.0, one.local, ("198.51.100.1", 5000))]


def test_an_error_about_a_hairpin_comes_back_as_the_hairpin_went() -> None:
    net = VirtualInternet()
    behaviour = NatBehaviour(
        hairpinning=Hairpinning.EXTERNAL_SOURCE, filtering=Filtering.ENDPOINT_INDEPENDENT
    )
    nat = net.nat("nat", "198.51.100.1", behaviour, link=LINK)
    one = Socket(net.host("one", "10.0.0.2", behind=nat))
    two = Socket(a_closed_host(net, "10.0.0.3", behind=nat))
    two.send(("203.0.113.9", 9))
    net.run(0.0)
    two.host.attachments.clear()
    one.send(("198.51.100.1", 5000))
    net.run(0.0)
    assert one.errors == [(0.0, one.local, ("198.51.100.1", 5000))]


# -- MTU --------------------------------------------------------------------------------------

SIZE = 20_000


def transfer(
    net: VirtualInternet, client: VirtualHost, server: VirtualHost, *, upload: bool
) -> Callable[[], int]:
    """Have one side send ``SIZE`` bytes over TCP; how much has arrived is told when asked."""
    arrived = bytearray()

    def on_event(event: StreamEvent, now: float) -> None:
        if isinstance(event, DataReceived):
            arrived.extend(event.data)

    client_ip = client.address
    server_ip = next(ip for ip in server.addresses if (":" in ip) == (":" in client_ip))
    server.streams.listen((server_ip, 80))
    connection = client.streams.connect((client_ip, 9000), (server_ip, 80), net.now)
    receiver = server if upload else client
    receiver.stream_users.append(on_event)
    net.run(net.now + 1.0)
    sender = connection if upload else server.streams.connections[0]
    assert sender.send(bytes(SIZE))
    net.flush()
    return lambda: len(arrived)


NARROW = LinkProfile(delay=0.02, mtu=600)
BLACK_HOLE = LinkProfile(delay=0.02, mtu=600, tells_mtu=False)
EASY = LinkProfile(delay=0.02)


@pytest.mark.parametrize("upload", [True, False])
@pytest.mark.parametrize("where", ["client", "nat", "carrier", "server"])
@pytest.mark.parametrize("narrow", [NARROW, BLACK_HOLE], ids=["told", "black hole"])
def test_tcp_learns_of_a_narrow_link_anywhere_unless_nobody_tells(
    narrow: LinkProfile, where: str, upload: bool
) -> None:
    net = VirtualInternet()

    def link(name: str) -> LinkProfile:
        return narrow if name == where else EASY

    carrier = net.nat("carrier", "198.51.100.1", link=link("carrier"))
    nat = net.nat("nat", "100.64.0.2", behind=carrier, link=link("nat"))
    client = net.host("client", "10.0.0.2", behind=nat, link=link("client"))
    server = net.host("server", "203.0.113.1", link=link("server"))
    arrived = transfer(net, client, server, upload=upload)
    net.run(20.0)
    too_big = net.trace.dropped(DropReason.TOO_BIG)
    assert {p.dropped_by for p in too_big} == {where}
    assert all(p.ip_size > 600 for p in too_big)
    if narrow is BLACK_HOLE:
        assert icmp(net) == []
        assert arrived() == 0
    else:
        assert arrived() == SIZE
        assert len(too_big) == len(icmp(net)) <= 10, "no more than the first window"
        assert all(p.delivered for p in icmp(net))


def test_a_datagram_that_is_too_big_vanishes_and_udp_machines_are_not_bothered() -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1", link=NARROW)
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    server = Socket(net.host("server", "203.0.113.1"))
    inside.send(server.local, bytes(573))
    inside.send(server.local, bytes(572))
    net.run(1.0)
    assert [len(data) for data in server.data] == [572]
    assert [p.dropped for p in net.trace][:2] == [DropReason.TOO_BIG, None]
    (error,) = icmp(net)
    assert error.receiver == "inside"
    assert error.ended_at == 0.0, "told at the near end of the link"
    assert inside.errors == []


@pytest.mark.parametrize("upload", [True, False])
def test_an_mtu_is_translated_by_nat64_with_the_headers(upload: bool) -> None:
    net = VirtualInternet()
    nat64 = net.nat64("nat64", "198.51.100.1", link=NARROW)
    client = net.host("client", "2001:db8:1::2", behind=nat64)
    server = net.host("server", "203.0.113.1")
    net.run(0.0)
    server.streams.listen((server.address, 80))
    connection = client.streams.connect((client.address, 9000), (embed(server.address), 80), 0.0)
    net.run(1.0)
    sender = connection if upload else server.streams.connections[0]
    sender.send(bytes(SIZE))
    net.run(20.0)
    assert sender.unacknowledged == 0
    assert sender.mss == 560, "600 bytes in IPv4 are 620 in IPv6, less its 60 of headers"
    largest = max(p.ip_size for p in net.trace if p.segment is not None and p.delivered)
    assert largest == (600 if upload else 620)


# -- copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_both_copies_are_translated_and_arrive_as_one_would(delay: float) -> None:
    net = VirtualInternet()
    twice = LinkProfile(delay=delay, duplication=1.0)
    nat = net.nat("nat", "198.51.100.1")
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat, link=twice))
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    inside.send(server.local, b"once")
    net.run(1.0)
    assert server.received == [(delay, b"once", ("198.51.100.1", 5000))] * 2
    assert inside.received == [(2 * delay, b"once", server.local)] * 4
    first, second = net.trace.packets[:2]
    assert (first.copy_of, second.copy_of) == (None, first.number)
    assert first.source == second.source == inside.local
    assert first.hops == second.hops


def test_a_copy_may_be_lost_alone() -> None:
    net = VirtualInternet(3)
    twice = LinkProfile(duplication=1.0)
    sender = Socket(net.host("sender", "203.0.113.1", link=twice))
    server = Socket(net.host("server", "203.0.113.2", link=LinkProfile(loss=0.5)))
    for _ in range(100):
        sender.send(server.local)
    net.run(1.0)
    assert len(net.trace) == 200
    assert len(server.received) + len(net.trace.dropped(DropReason.LOST)) == 200
    pairs = [net.trace.packets[n : n + 2] for n in range(0, 200, 2)]
    assert any(one.delivered != other.delivered for one, other in pairs)
