"""Our own STUN and TURN servers in the virtual internet, IPv4, IPv6 and the way between them."""

from __future__ import annotations

import random

import pytest
from lab_sockets import Socket

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import CandidateType, LocalCandidateFound
from ice_punch.lab.behaviour import Blocking, Filtering, Hairpinning, Mapping, NatBehaviour, NatKind
from ice_punch.lab.links import LinkProfile
from ice_punch.lab.scenario import Ip, Relays, Scenario, Verdict, peer
from ice_punch.lab.trace import DropReason, Protocol
from ice_punch.lab.virtual.firewall import StatefulFirewall
from ice_punch.lab.virtual.gateway import Gateway
from ice_punch.lab.virtual.host import VirtualHost
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.lab.virtual.nat64 import Dns64, embed, extract
from ice_punch.lab.virtual.peer import TurnServerAt
from ice_punch.lab.virtual.servers import VirtualTurnServer, serve_stun, serve_turn
from ice_punch.lab.virtual.session import VirtualSession
from ice_punch.lab.virtual.turn_path import StreamTurnPath, TurnPath
from ice_punch.stun import (
    ClientTransaction,
    Message,
    MessageClass,
    Method,
    TransactionSucceeded,
    mapped_address,
)
from ice_punch.turn import Allocated, AllocationFailed, RelayedData, TurnClient, TurnEvent

STUN_IP, TURN_IP = "203.0.113.10", "203.0.113.20"
LINK = LinkProfile(delay=0.05)


class Query:
    """One Binding request, and what the server saw."""

    def __init__(self, host: VirtualHost, server: Address, port: int = 5000) -> None:
        net = host.internet
        request = Message(Method.BINDING, MessageClass.REQUEST, net.random("query").randbytes(12))
        local = (host.address, port)
        self._transaction = ClientTransaction(request, local, server, net.now)
        self.mapped: Address | None = None
        net.attach(host, self, ports=[port])

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        self._transaction.receive_datagram(data, source, local, now)
        while (event := self._transaction.next_event()) is not None:
            assert isinstance(event, TransactionSucceeded)
            self.mapped = mapped_address(event.response)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return list(self._transaction.datagrams_to_send(now))

    def get_timer(self) -> float | None:
        return self._transaction.get_timer()

    def handle_timer(self, now: float) -> None:
        self._transaction.handle_timer(now)


# -- NAT64 and DNS64, RFC 6052, RFC 6146, RFC 6147 --------------------------------------------


@pytest.mark.parametrize(
    ("ipv4", "ipv6"),
    [("192.0.2.33", "64:ff9b::c000:221"), ("203.0.113.10", "64:ff9b::cb00:710a")],
)
def test_an_ipv4_address_stands_in_the_well_known_prefix(ipv4: str, ipv6: str) -> None:
    assert embed(ipv4) == ipv6
    assert extract(ipv6) == ipv4


@pytest.mark.parametrize("ipv6", ["2001:db8::1", "64:ff9b:1::c000:221", "64:ff9b::1:c000:221"])
def test_other_addresses_hide_none(ipv6: str) -> None:
    assert extract(ipv6) is None


def test_dns64_makes_up_addresses_only_where_there_is_no_real_one() -> None:
    dns = Dns64({"old": ("192.0.2.33", "192.0.2.34"), "new": ("192.0.2.1", "2001:db8::1")})
    assert dns.resolve("old") == ("64:ff9b::c000:221", "64:ff9b::c000:222")
    assert dns.resolve("new") == ("2001:db8::1",)
    assert dns.resolve("unknown") == ()


def behind_nat64(behaviour: NatBehaviour | NatKind) -> tuple[VirtualInternet, Gateway, VirtualHost]:
    net = VirtualInternet()
    nat64 = net.nat64(
        "nat64",
        "198.51.100.1",
        behaviour,
        prefix="2001:db8:1::/64",
        link=LINK,
        firewall=StatefulFirewall(),
    )
    return net, nat64, net.host("inside", "2001:db8:1::2", behind=nat64)


def test_a_stun_server_sees_an_ipv6_only_host_as_the_nat64s_ipv4_address() -> None:
    net, _, host = behind_nat64(NatKind.PORT_RESTRICTED)
    serve_stun(net.host("stun", STUN_IP))
    query = Query(host, (embed(STUN_IP), 3478))
    net.run(1.0)
    assert query.mapped == ("198.51.100.1", 5000)
    request, answer = net.trace
    assert (request.wire_source, request.wire_destination) == (query.mapped, (STUN_IP, 3478))
    assert answer.wire_source == (embed(STUN_IP), 3478)
    assert answer.wire_destination == (host.address, 5000)


@pytest.mark.parametrize("filtering", Filtering)
def test_nat64_filters_by_ipv4_addresses_as_any_nat_does(filtering: Filtering) -> None:
    net, nat64, host = behind_nat64(NatBehaviour(filtering=filtering))
    inside = Socket(host)
    known = net.host("known", "203.0.113.1")
    outside = [Socket(known, 1), Socket(known, 2), Socket(net.host("stranger", "203.0.113.2"), 1)]
    inside.send((embed("203.0.113.1"), 1))
    net.run(1.0)
    for socket in outside:
        socket.send(("198.51.100.1", 5000))
    net.run(2.0)
    admitted = {"endpoint-independent": 3, "address-dependent": 2}.get(filtering.value, 1)
    assert inside.sources == [(embed(s.local[0]), s.local[1]) for s in outside[:admitted]]
    nat64.reboot()
    outside[0].send(("198.51.100.1", 5000))
    net.run(3.0)
    assert net.trace.packets[-1].dropped is DropReason.NO_MAPPING


def test_real_ipv6_goes_past_nat64_through_its_firewall() -> None:
    net, _, host = behind_nat64(NatKind.PORT_RESTRICTED)
    inside = Socket(host)
    outside = Socket(net.host("outside", "2001:db8:f::1"), echo=True)
    outside.send(inside.local)
    net.run(1.0)
    assert net.trace.packets[0].dropped is DropReason.FILTERED
    inside.send(outside.local)
    net.run(2.0)
    assert outside.sources == [inside.local]
    assert inside.sources == [outside.local]


@pytest.mark.parametrize("kind", Hairpinning)
def test_two_hosts_behind_one_nat64_meet_in_ipv4_if_it_hairpins(kind: Hairpinning) -> None:
    behaviour = NatBehaviour(hairpinning=kind, filtering=Filtering.ENDPOINT_INDEPENDENT)
    net, nat64, host = behind_nat64(behaviour)
    one, two = Socket(host), Socket(net.host("other", "2001:db8:1::3", behind=nat64))
    two.send((embed("203.0.113.1"), 1))
    net.run(1.0)
    one.send((embed("198.51.100.1"), 5000))
    net.run(1.0)
    assert (
        two.sources
        == {
            Hairpinning.NONE: [],
            Hairpinning.INTERNAL_SOURCE: [one.local],
            Hairpinning.EXTERNAL_SOURCE: [(embed("198.51.100.1"), 5001)],
        }[kind]
    )


@pytest.mark.parametrize("from_inside", [True, False])
def test_errors_pass_nat64_either_way(from_inside: bool) -> None:
    net, _, host = behind_nat64(NatKind.SYMMETRIC)
    inside, outside = Socket(host), Socket(net.host("outside", "203.0.113.1"))
    seen_inside = (embed("203.0.113.1"), 5000)
    inside.send(seen_inside)
    net.run(1.0)
    closed, sender = (inside, outside) if from_inside else (outside, inside)
    to = outside.sources[0] if from_inside else seen_inside
    closed.host.attachments.clear()
    closed.host.rejects_strays = True
    sender.send(to)
    net.run(2.0)
    assert [(local, where) for _, local, where in sender.errors] == [(sender.local, to)]
    error = net.trace.packets[-1]
    families = {":" in address[0] for address in (error.wire_source, error.wire_destination)}
    assert families == {not from_inside}, "the error is of the family that its reader speaks"


def test_a_stun_server_of_both_families_answers_in_both() -> None:
    net = VirtualInternet()
    serve_stun(net.host("stun", STUN_IP, "203.0.113.11", "2001:db8:f::10", "2001:db8:f::11"))
    nat = net.nat("nat", "198.51.100.1", firewall=StatefulFirewall())
    net.public.add_route("2001:db8:1::/64", nat)
    v4 = Query(net.host("v4", "10.0.0.2", behind=nat), (STUN_IP, 3478))
    v6 = Query(net.host("v6", "2001:db8:1::2", behind=nat), ("2001:db8:f::11", 3479))
    net.run(1.0)
    assert v4.mapped == ("198.51.100.1", 5000)
    assert v6.mapped == ("2001:db8:1::2", 5000)


# -- TURN, RFC 8656 ---------------------------------------------------------------------------


class RelayUser:
    """A TURN client, over UDP or TCP."""

    def __init__(self, host: VirtualHost, transport: str, password: str = "right") -> None:
        local = (host.address, 50100)
        port = 443 if transport == "tcp" else 3478
        at = TurnServerAt("turn:lab", (TURN_IP, port), transport, "user", password)  # type: ignore[arg-type]
        self.client = TurnClient(
            at.address,
            local,
            "user",
            password,
            random.Random(host.name),
            0.0,
            transport=at.transport,
        )
        self.events: list[TurnEvent] = []
        self._host = host
        attachment = host.internet.attach(host, self, ports=[50100])
        self._path = (
            StreamTurnPath(host, self.client, at, attachment.flush)
            if transport == "tcp"
            else TurnPath(self.client, at)
        )

    def send(self, data: bytes, peer: Address) -> None:
        self.client.send(data, peer, self._host.internet.now)

    @property
    def relayed(self) -> Address:
        (allocated,) = [e for e in self.events if isinstance(e, Allocated)]
        return allocated.relayed[0]

    @property
    def data(self) -> list[tuple[bytes, Address]]:
        return [(e.data, e.peer) for e in self.events if isinstance(e, RelayedData)]

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        self.client.receive_datagram(data, source, local, now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        while (event := self.client.next_event()) is not None:
            self.events.append(event)
        return self._path.datagrams_to_send(now)

    def get_timer(self) -> float | None:
        return self.client.get_timer()

    def handle_timer(self, now: float) -> None:
        self.client.handle_timer(now)


def with_a_relay(
    nat: NatBehaviour | NatKind, transport: str, password: str = "right"
) -> tuple[VirtualInternet, RelayUser, Socket, VirtualTurnServer]:
    net = VirtualInternet()
    server = serve_turn(net.host("turn", TURN_IP), {"user": "right"}, tcp_port=443)
    gateway = net.nat("nat", "198.51.100.1", nat, link=LINK)
    user = RelayUser(net.host("user", "10.0.0.2", behind=gateway), transport, password)
    return net, user, Socket(net.host("peer", "203.0.113.1", link=LINK)), server


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_relay_carries_datagrams_both_ways_once_it_was_asked_to(transport: str) -> None:
    net, user, other, _ = with_a_relay(NatKind.SYMMETRIC, transport)
    net.run(2.0)
    assert user.relayed[0] == TURN_IP
    other.send(user.relayed, b"early")
    net.run(3.0)
    refused = net.trace.packets[-1]
    assert (refused.data, refused.dropped) == (b"early", DropReason.NO_PERMISSION)
    assert (refused.dropped_by, refused.receiver) == ("turn", None)
    assert user.data == []
    user.send(b"hello", other.local)
    net.flush()
    net.run(4.0)
    assert [(data, source) for _, data, source in other.received] == [(b"hello", user.relayed)]
    other.send(user.relayed, b"answer")
    net.run(5.0)
    assert user.data == [(b"answer", other.local)]
    assert net.trace.dropped() == [refused]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_permission_is_for_the_ip_address_and_ends(transport: str) -> None:
    net, user, other, _ = with_a_relay(NatKind.PORT_RESTRICTED, transport)
    neighbour = Socket(other.host, 7)
    stranger = Socket(net.host("stranger", "203.0.113.2"))
    net.run(2.0)
    user.client.permit(other.local, net.now)
    net.flush()
    net.run(3.0)
    for socket in (other, neighbour, stranger):
        socket.send(user.relayed)
    net.run(4.0)
    assert [source for _, source in user.data] == [other.local, neighbour.local]
    assert [p.sender for p in net.trace.dropped(DropReason.NO_PERMISSION)] == ["stranger"]
    user.client.close(net.now)
    net.flush()
    net.run(6.0)
    other.send(user.relayed)
    net.run(7.0)
    assert net.trace.packets[-1].dropped is DropReason.NO_LISTENER


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_wrong_password_is_told_and_leaves_no_allocation(transport: str) -> None:
    net, user, _, server = with_a_relay(NatKind.PORT_RESTRICTED, transport, password="wrong")
    net.run(10.0)
    (failed,) = user.events
    assert isinstance(failed, AllocationFailed)
    assert failed.code == 401
    assert server.server.allocations == 0


@pytest.mark.parametrize(
    ("blocking", "by_udp", "by_tcp"),
    [
        (Blocking.NOTHING, True, True),
        (Blocking.UDP, False, True),
        (Blocking.ALL_BUT_TCP_443, False, True),
    ],
)
def test_tcp_at_port_443_gets_out_where_udp_does_not(
    blocking: Blocking, by_udp: bool, by_tcp: bool
) -> None:
    for transport, gets_out in (("udp", by_udp), ("tcp", by_tcp)):
        net, user, *_ = with_a_relay(NatBehaviour(blocking=blocking), transport)
        net.run(60.0)
        assert [type(e) for e in user.events] == [Allocated if gets_out else AllocationFailed]
        if not gets_out:
            assert {p.dropped for p in net.trace} == {DropReason.UDP_BLOCKED}


def test_a_relay_over_tcp_survives_loss_and_narrow_links() -> None:
    net = VirtualInternet(5)
    serve_turn(net.host("turn", TURN_IP), {"user": "right"}, tcp_port=443)
    bad = LinkProfile(delay=0.05, loss=0.15, mtu=700, reordering=0.1, duplication=0.1)
    nat = net.nat("nat", "198.51.100.1", link=bad)
    user = RelayUser(net.host("user", "10.0.0.2", behind=nat), "tcp")
    other = Socket(net.host("peer", "203.0.113.1"), echo=True)
    net.run(30.0)
    sent = [bytes([n]) * 1000 for n in range(30)]
    for data in sent:
        user.send(data, other.local)
    net.flush()
    net.run(120.0)
    assert other.data == sent, "a stream neither loses nor reorders"
    assert [data for data, _ in user.data] == sent


def test_two_users_of_one_relay_do_not_hear_each_other() -> None:
    net, user, other, server = with_a_relay(NatKind.PORT_RESTRICTED, "udp")
    second = RelayUser(net.host("second", "203.0.113.3"), "tcp")
    net.run(2.0)
    assert server.server.allocations == 2
    assert user.relayed != second.relayed
    user.send(b"one", other.local)
    second.send(b"two", other.local)
    net.flush()
    net.run(3.0)
    other.send(user.relayed, b"to one")
    other.send(second.relayed, b"to two")
    net.run(4.0)
    assert [data for data, _ in user.data] == [b"to one"]
    assert [data for data, _ in second.data] == [b"to two"]


def test_what_a_client_may_not_do_over_tcp_is_not_blamed_on_a_datagram() -> None:
    net, user, other, server = with_a_relay(NatKind.PORT_RESTRICTED, "tcp")
    net.run(2.0)
    # Garbage within the stream is dropped by the server and counted.
    connection = next(iter(user._host.streams.connections))
    connection.send(b"\x00\x16\x00\x00" + b"\x21\x12\xa4\x42" + bytes(12))
    user._host.wake_streams()
    net.run(3.0)
    assert server.server.counters.dropped.total() == 1
    user.client.permit(other.local, net.now)
    net.flush()
    net.run(4.0)
    other.send(user.relayed, b"fine")
    net.run(5.0)
    assert [data for data, _ in user.data] == [b"fine"]
    assert net.trace.dropped() == []


# -- both families at once --------------------------------------------------------------------


def test_dual_stack_peers_gather_from_servers_of_both_families() -> None:
    scenario = Scenario(
        a=peer(NatKind.PORT_RESTRICTED, ip=Ip.DUAL),
        b=peer(NatKind.NONE, ip=Ip.DUAL),
        relays=Relays.UDP,
    )
    session = VirtualSession(scenario)
    session.gather()
    asked = {p.destination for p in session.internet.trace.sent_by("a")}
    assert asked == {
        *((ip, 3478) for ip in ("203.0.113.10", "203.0.113.20")),
        *((ip, 3478) for ip in ("2001:db8:f::10", "2001:db8:f::20")),
    }
    candidates = [
        event.candidate
        for _, event in session.peers["a"].events
        if isinstance(event, LocalCandidateFound)
    ]
    found = {(c.type, c.ip_version) for c in candidates}
    assert found >= {(CandidateType.HOST, 4), (CandidateType.HOST, 6), (CandidateType.SRFLX, 4)}
    assert (CandidateType.RELAY, 4) in found
    assert (CandidateType.SRFLX, 6) not in found, "nothing translates IPv6: it would be the host"


def test_a_peer_behind_nat64_reaches_every_server_by_an_address_of_dns64() -> None:
    scenario = Scenario(a=peer(NatKind.FULL_CONE, ip=Ip.NAT64), relays=Relays.UDP)
    session = VirtualSession(scenario)
    outcome = session.run()
    assert outcome.verdict is Verdict.DIRECT
    queries = [p for p in session.internet.trace.sent_by("a") if p.destination[1] == 3478]
    assert queries
    assert all(extract(p.destination[0]) is not None for p in queries)
    assert all(p.wire_source[0] == "198.51.100.16" for p in queries if p.protocol is Protocol.UDP)


def test_mappings_that_vary_differ_by_server_also_through_nat64() -> None:
    behaviour = NatBehaviour(mapping=Mapping.ADDRESS_DEPENDENT)
    net, _, host = behind_nat64(behaviour)
    serve_stun(net.host("one", "203.0.113.1"))
    serve_stun(net.host("two", "203.0.113.2"))
    first = Query(host, (embed("203.0.113.1"), 3478))
    net.run(1.0)
    host.attachments.clear()
    second = Query(host, (embed("203.0.113.2"), 3478))
    net.run(2.0)
    assert first.mapped is not None
    assert second.mapped is not None
    assert first.mapped != second.mapped
