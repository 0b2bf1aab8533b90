"""Where packets go in the virtual internet: routers, firewalls, interfaces, NATs behind NATs."""

from __future__ import annotations

import pytest
from lab_sockets import Socket

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import Blocking, Filtering, Hairpinning, NatBehaviour, NatKind
from ice_punch.lab.links import AccessLink, LinkProfile
from ice_punch.lab.trace import DropReason, Protocol
from ice_punch.lab.virtual.firewall import StatefulFirewall
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.lab.virtual.node import MAX_HOPS

SLOW = LinkProfile(delay=0.1)


def drops(net: VirtualInternet) -> list[tuple[DropReason | None, str | None]]:
    return [(p.dropped, p.dropped_by) for p in net.trace if p.dropped is not None]


# -- routers ----------------------------------------------------------------------------------


def test_a_router_brings_packets_in_and_out_untouched() -> None:
    net = VirtualInternet()
    router = net.router("router", "2001:db8:1::/64", link=SLOW)
    inside = Socket(net.host("inside", "2001:db8:1::2", behind=router), echo=True)
    outside = Socket(net.host("outside", "2001:db8:f::1"))
    outside.send(inside.local)
    net.run(1.0)
    assert inside.sources == [outside.local]
    assert [(at, source) for at, _, source in outside.received] == [(0.2, inside.local)]


def test_the_longest_prefix_wins_whichever_was_there_first() -> None:
    for order in (("wide", "narrow"), ("narrow", "wide")):
        net = VirtualInternet()
        prefixes = {"wide": "2001:db8::/32", "narrow": "2001:db8:5::/48"}
        routers = {name: net.router(name, prefixes[name]) for name in order}
        near = Socket(net.host("near", "2001:db8:5::2", behind=routers["narrow"]))
        far = Socket(net.host("far", "2001:db8:6::2", behind=routers["wide"]))
        sender = Socket(net.host("sender", "2001:db9::1"))
        sender.send(near.local)
        sender.send(far.local)
        net.run(1.0)
        assert near.sources == far.sources == [sender.local]


def test_a_host_comes_before_any_prefix_and_families_do_not_mix() -> None:
    net = VirtualInternet()
    router = net.router("router", "0.0.0.0/0", "::/0")
    public = Socket(net.host("public", "203.0.113.1"))
    v4 = Socket(net.host("v4", "10.0.0.2", behind=router))
    v6 = Socket(net.host("v6", "2001:db8::2", behind=router))
    sender = Socket(net.host("sender", "203.0.113.2"))
    for destination in (public, v4, v6):
        sender.send(destination.local)
    net.run(1.0)
    assert public.sources == v4.sources == v6.sources == [sender.local]


def test_routers_behind_routers_need_a_route_in_each_network() -> None:
    net = VirtualInternet()
    outer = net.router("outer", "2001:db8::/32")
    inner = net.router("inner", "2001:db8:1::/48", behind=outer)
    deep = Socket(net.host("deep", "2001:db8:1::2", behind=inner), echo=True)
    sender = Socket(net.host("sender", "2001:db9::1"))
    sender.send(deep.local)
    net.run(1.0)
    assert sender.sources == [deep.local]


def test_an_address_that_nobody_has_is_not_sent_round_in_circles() -> None:
    net = VirtualInternet()
    router = net.router("router", "2001:db8:1::/64")
    inside = Socket(net.host("inside", "2001:db8:1::2", behind=router))
    sender = Socket(net.host("sender", "2001:db9::1"))
    sender.send(("2001:db8:1::99", 1))
    inside.send(("2001:db8:1::99", 1))
    net.run(1.0)
    assert drops(net) == [(DropReason.NO_ROUTE, "router inside")] * 2
    assert max(p.hops for p in net.trace) <= 3


@pytest.mark.parametrize("duplication", [0.0, 0.05])
def test_a_loop_of_two_routers_ends(duplication: float) -> None:
    net = VirtualInternet()
    link = LinkProfile(delay=0.001, duplication=duplication)
    one = net.router("one", link=link)
    two = net.router("two", link=link)
    net.public.add_route("2001:db8:1::/64", one)
    one.inside.add_route("2001:db8:1::/64", two)
    two.inside.add_route("2001:db8:1::/64", one)
    sender = Socket(net.host("sender", "2001:db9::1"))
    sender.send(("2001:db8:1::2", 1))
    net.run(10.0)
    assert {p.dropped for p in net.trace} == {DropReason.HOPS}
    assert {p.hops for p in net.trace} == {MAX_HOPS + 1}
    assert all(p.ended_at is not None and p.ended_at < 0.1 for p in net.trace)
    assert len(net.trace) == 1 if not duplication else len(net.trace) > 1


@pytest.mark.parametrize("destination", ["nonsense", "300.1.1.1", "a:b", "", "peer.local", "::1%0"])
def test_a_destination_that_is_no_address_is_nowhere(destination: str) -> None:
    net = VirtualInternet()
    router = net.router("router", "2001:db8:1::/64")
    nat64 = net.nat64("nat64", "198.51.100.1", prefix="2001:db8:2::/64", behind=router)
    senders = [
        Socket(net.host("public", "203.0.113.1")),
        Socket(net.host("routed", "2001:db8:1::2", behind=router)),
        Socket(net.host("translated", "2001:db8:2::2", behind=nat64)),
    ]
    for sender in senders:
        sender.send((destination, 5000))
    net.run(1.0)
    assert [p.dropped for p in net.trace] == [DropReason.NO_ROUTE] * 3


@pytest.mark.parametrize("prefix", ["2001:db8::1/64", "nonsense", "10.0.0.0/33", ""])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidConfiguration, match="not a prefix"):
        VirtualInternet().router("router", prefix)


# -- stateful firewalls, RFC 6092 -------------------------------------------------------------


def behind_a_firewall(firewall: StatefulFirewall) -> tuple[VirtualInternet, Socket, list[Socket]]:
    net = VirtualInternet()
    router = net.router("firewall", "2001:db8:1::/64", firewall=firewall)
    inside = Socket(net.host("inside", "2001:db8:1::2", behind=router))
    friend = net.host("friend", "2001:db8:f::1")
    stranger = net.host("stranger", "2001:db8:f::2")
    return net, inside, [Socket(friend, 1), Socket(friend, 2), Socket(stranger, 1)]


@pytest.mark.parametrize("filtering", Filtering)
def test_a_firewall_lets_in_what_answers_and_translates_nothing(filtering: Filtering) -> None:
    net, inside, outside = behind_a_firewall(StatefulFirewall(filtering))
    for socket in outside:
        socket.send(inside.local)
    net.run(1.0)
    assert not inside.received, "nothing has gone out yet"
    inside.send(outside[0].local)
    net.run(2.0)
    assert outside[0].sources == [inside.local]
    for socket in outside:
        socket.send(inside.local)
    net.run(3.0)
    admitted = {
        Filtering.ENDPOINT_INDEPENDENT: 3,
        Filtering.ADDRESS_DEPENDENT: 2,
        Filtering.ADDRESS_AND_PORT_DEPENDENT: 1,
    }[filtering]
    assert inside.sources == [socket.local for socket in outside[:admitted]]
    assert drops(net) == [(DropReason.FILTERED, "firewall")] * (6 - admitted)


@pytest.mark.parametrize("filtering", Filtering)
def test_what_a_firewall_has_opened_closes_again(filtering: Filtering) -> None:
    net, inside, (friend, *_) = behind_a_firewall(StatefulFirewall(filtering, lifetime=30.0))
    inside.send(friend.local)
    for at in (20.0, 29.9, 30.0):
        net.at(at, lambda: friend.send(inside.local))
    net.run(100.0)
    assert [at for at, *_ in inside.received] == [20.0, 29.9]


@pytest.mark.parametrize("blocking", Blocking)
def test_a_firewall_blocks_like_a_nat(blocking: Blocking) -> None:
    net, inside, (friend, *_) = behind_a_firewall(StatefulFirewall(blocking=blocking))
    inside.send(friend.local)
    net.run(1.0)
    expected = [] if blocking is Blocking.NOTHING else [(DropReason.UDP_BLOCKED, "firewall")]
    assert drops(net) == expected


def test_a_firewall_that_restarts_closes() -> None:
    net, inside, (friend, *_) = behind_a_firewall(StatefulFirewall())
    inside.send(friend.local)
    net.run(1.0)
    gateway = inside.host.interfaces[0].network.gateway
    assert gateway is not None
    gateway.reboot()
    friend.send(inside.local)
    net.run(2.0)
    assert drops(net) == [(DropReason.FILTERED, "firewall")]


def test_tcp_passes_a_firewall_from_inside_only() -> None:
    net, inside, (friend, *_) = behind_a_firewall(StatefulFirewall())
    inside.host.streams.listen((inside.local[0], 80))
    friend.host.streams.listen((friend.local[0], 80))
    out = inside.host.streams.connect((inside.local[0], 9000), (friend.local[0], 80), 0.0)
    into = friend.host.streams.connect((friend.local[0], 9000), (inside.local[0], 80), 0.0)
    net.run(5.0)
    assert out.state.value == "established"
    assert into.state.value == "syn-sent"
    assert all(p.protocol is Protocol.TCP for p in net.trace.dropped(DropReason.FILTERED))


# -- hosts ------------------------------------------------------------------------------------


def test_a_host_with_two_interfaces_uses_the_one_that_has_the_address() -> None:
    net = VirtualInternet()
    fast = net.nat("fast", "198.51.100.1", link=LinkProfile(delay=0.01))
    slow = net.nat("slow", "198.51.100.2", link=SLOW)
    host = net.host("host", "10.0.0.2", behind=fast)
    net.interface(host, "10.0.1.2", behind=slow)
    assert host.addresses == ("10.0.0.2", "10.0.1.2")
    by_fast, by_slow = Socket(host), Socket(host, ip="10.0.1.2")
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    by_fast.send(server.local)
    by_slow.send(server.local)
    net.run(1.0)
    assert server.sources == [("198.51.100.1", 5000), ("198.51.100.2", 5000)]
    assert [at for at, *_ in by_fast.received] == [pytest.approx(0.02)]
    assert [at for at, *_ in by_slow.received] == [pytest.approx(0.2)]


def test_a_link_that_is_down_loses_both_ways_and_only_its_own() -> None:
    net = VirtualInternet()
    host = net.host("host", "203.0.113.1")
    other = net.interface(host, "203.0.113.2")
    first, second = Socket(host), Socket(host, ip="203.0.113.2")
    server = Socket(net.host("server", "203.0.113.9"), echo=True)

    def all_send() -> None:
        first.send(server.local)
        second.send(server.local)
        server.send(second.local)

    other.up = False
    net.at(1.0, all_send)
    net.run(2.0)
    assert server.sources == [first.local]
    assert second.received == []
    assert drops(net) == [(DropReason.LINK_DOWN, "host")] * 2
    other.up = True
    net.at(3.0, all_send)
    net.run(4.0)
    assert server.sources == [first.local, first.local, second.local]
    assert second.sources == [server.local, server.local]


def test_what_was_on_its_way_when_the_link_went_down_still_arrives() -> None:
    net = VirtualInternet()
    host = net.host("host", "203.0.113.1", link=SLOW)
    server = Socket(net.host("server", "203.0.113.9"))
    sender = Socket(host)
    sender.send(server.local)
    net.at(0.05, lambda: setattr(host.interfaces[0], "up", False))
    net.at(0.06, lambda: sender.send(server.local))
    net.run(1.0)
    assert [at for at, *_ in server.received] == [pytest.approx(0.1)]


def test_what_a_host_sends_to_itself_never_leaves_it() -> None:
    net = VirtualInternet()
    host = net.host("host", "203.0.113.1", link=LinkProfile(delay=1.0, loss=1.0))
    net.interface(host, "10.0.0.2", behind=net.nat("nat", "198.51.100.1"))
    first, second = Socket(host, 1), Socket(host, 2, ip="10.0.0.2")
    for source in (first, second):
        for destination in (first, second):
            source.send(destination.local)
    net.run(0.0)
    assert first.sources == second.sources == [first.local, second.local]


def test_the_very_port_comes_before_whoever_takes_everything() -> None:
    net = VirtualInternet()
    host = net.host("host", "203.0.113.1")

    class Everything:
        ports: tuple[int, ...] = ()

        def receive_datagram(
            self, data: bytes, source: object, local: tuple[str, int], now: float
        ) -> None:
            self.ports += (local[1],)

        def datagrams_to_send(self, now: float) -> list[object]:
            return []

    everything = Everything()
    net.attach(host, everything)  # type: ignore[arg-type]
    chosen = Socket(host, 7)
    sender = Socket(net.host("sender", "203.0.113.2"))
    for port in (6, 7, 8):
        sender.send((host.address, port))
    net.run(1.0)
    assert everything.ports == (6, 8)
    assert chosen.sources == [sender.local]


# -- NATs in several places -------------------------------------------------------------------


def two_homes(hairpinning: Hairpinning) -> tuple[VirtualInternet, Socket, Socket, Socket]:
    net = VirtualInternet()
    behaviour = NatBehaviour(hairpinning=hairpinning, filtering=Filtering.ENDPOINT_INDEPENDENT)
    carrier = net.nat("carrier", "198.51.100.1", behaviour, link=SLOW)
    sockets = []
    for n in (1, 2):
        home = net.nat(f"home {n}", f"100.64.0.{n}", NatKind.FULL_CONE, behind=carrier)
        sockets.append(Socket(net.host(f"peer {n}", "192.168.1.2", behind=home)))
    return net, *sockets, Socket(net.host("server", "203.0.113.1"), 3478)  # type: ignore[return-value]


def test_two_homes_with_the_same_addresses_behind_one_carrier_are_neighbours_outside() -> None:
    net, one, two, server = two_homes(Hairpinning.NONE)
    assert one.local == two.local
    for socket in (one, two):
        socket.send(server.local)
    net.run(1.0)
    assert server.sources == [("198.51.100.1", 5000), ("198.51.100.1", 5001)]
    one.send(("100.64.0.2", 5000))
    one.send(server.sources[1])
    net.run(2.0)
    assert two.sources == [("100.64.0.1", 5000)]
    assert drops(net) == [(DropReason.NO_HAIRPIN, "carrier")]


@pytest.mark.parametrize("kind", [Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE])
def test_a_carrier_that_hairpins_turns_packets_around_without_its_link(kind: Hairpinning) -> None:
    net, one, two, server = two_homes(kind)
    for socket in (one, two):
        socket.send(server.local)
    net.run(1.0)
    one.send(server.sources[1])
    net.run(1.0)
    inside = kind is Hairpinning.INTERNAL_SOURCE
    assert two.received == [(1.0, b"probe", (("100.64.0.1" if inside else "198.51.100.1"), 5000))]


@pytest.mark.parametrize("kind", Hairpinning)
def test_two_hosts_behind_one_nat_meet_at_its_outside_if_it_hairpins(kind: Hairpinning) -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1", NatBehaviour(hairpinning=kind))
    one, two = (Socket(net.host(f"host {n}", f"10.0.0.{n}", behind=nat)) for n in (2, 3))
    server = Socket(net.host("server", "203.0.113.1"))
    for socket in (one, two):
        socket.send(server.local)
    net.run(1.0)
    outside_one, outside_two = server.sources
    one.send(outside_two)
    net.run(2.0)
    two.send(outside_one)
    net.run(3.0)
    one.send(outside_two)
    net.run(4.0)
    if kind is Hairpinning.NONE:
        assert drops(net) == [(DropReason.NO_HAIRPIN, "nat")] * 3
        return
    assert drops(net) == [(DropReason.FILTERED, "nat")], "the first came before two had sent"
    inside = kind is Hairpinning.INTERNAL_SOURCE
    assert one.sources == [two.local if inside else outside_two]
    assert two.sources == [one.local if inside else outside_one]


def test_a_nat_whose_outside_address_is_that_of_a_host_inside_serves_both() -> None:
    net = VirtualInternet()
    carrier = net.nat("carrier", "198.51.100.1")
    home = net.nat("home", "10.0.0.2", behind=carrier)
    twin = Socket(net.host("twin", "10.0.0.2", behind=home))
    other = Socket(net.host("other", "10.0.0.3", behind=home))
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    server.host.rejects_strays = True
    twin.send(server.local)
    twin.send((server.local[0], 9))
    other.send(twin.local)
    net.run(1.0)
    assert server.sources == [("198.51.100.1", 5000)]
    assert set(twin.sources) == {server.local, other.local}
    assert [(local, to) for _, local, to in twin.errors] == [(twin.local, (server.local[0], 9))]


def test_asymmetric_access_links_are_used_in_their_directions_through_a_nat() -> None:
    net = VirtualInternet()
    access = AccessLink(up=LinkProfile(delay=0.3), down=LinkProfile(delay=0.05))
    nat = net.nat("nat", "198.51.100.1", link=access)
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    inside.send(server.local)
    net.run(1.0)
    assert [at for at, *_ in server.received] == [pytest.approx(0.3)]
    assert [at for at, *_ in inside.received] == [pytest.approx(0.35)]
