"""The virtual internet: time, links, NAT behaviour and the trace."""

from __future__ import annotations

import itertools

import pytest

from ice_punch.datagram import Address, Transmit
from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import (
    Blocking,
    Filtering,
    Mapping,
    NatBehaviour,
    NatKind,
    PortAllocation,
)
from ice_punch.lab.links import LinkProfile
from ice_punch.lab.trace import DropReason
from ice_punch.lab.virtual.internet import VirtualHost, VirtualInternet, VirtualNat
from ice_punch.lab.virtual.translation import TranslationTable

EI, AD, ADP = Mapping
FILTER_EI, FILTER_AD, FILTER_ADP = Filtering


class Socket:
    """Sends what it is told and keeps what it gets; echoes when asked to."""

    def __init__(self, host: VirtualHost, port: int = 5000, *, echo: bool = False) -> None:
        self.host = host
        self.local = (host.address, port)
        self.received: list[tuple[float, bytes, Address, Address]] = []
        self.echo = echo
        self._outgoing: list[Transmit] = []
        host.internet.attach(host, self, ports=[port])

    def send(self, destination: Address, data: bytes = b"probe") -> None:
        self._outgoing.append(Transmit(data, self.local, destination))

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        self.received.append((now, data, source, local))
        if self.echo:
            self._outgoing.append(Transmit(data, local, source))

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        out, self._outgoing = self._outgoing, []
        return out

    @property
    def sources(self) -> list[Address]:
        return [source for _, _, source, _ in self.received]


class Ticker:
    """Sends one datagram at each of the given times."""

    def __init__(self, local: Address, destination: Address, times: list[float]) -> None:
        self.local, self.destination, self.times = local, destination, list(times)
        self.ready = False
        self.events = ["first", "second"]

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        raise AssertionError("nobody talks to me")

    def get_timer(self) -> float | None:
        return self.times[0] if self.times else None

    def handle_timer(self, now: float) -> None:
        assert now == self.times.pop(0)
        self.ready = True

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        if not self.ready:
            return []
        self.ready = False
        return [Transmit(b"tick", self.local, self.destination)]

    def next_event(self) -> str | None:
        return self.events.pop(0) if self.events else None


def behind_nat(behaviour: NatBehaviour) -> tuple[VirtualInternet, VirtualNat, Socket]:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1", behaviour)
    return net, nat, Socket(net.host("inside", "10.0.0.2", behind=nat))


def test_a_datagram_takes_the_delay_of_both_links() -> None:
    net = VirtualInternet()
    a = Socket(net.host("a", "203.0.113.1", link=LinkProfile(delay=0.010)))
    b = Socket(net.host("b", "203.0.113.2", link=LinkProfile(delay=0.005)), echo=True)
    a.send(b.local, b"hello")
    net.run(until=1.0)
    assert b.received == [(0.015, b"hello", a.local, b.local)]
    assert [(when, data) for when, data, _, _ in a.received] == [(0.030, b"hello")]
    assert net.now == 1.0


def test_a_downlink_may_differ_from_its_uplink() -> None:
    net = VirtualInternet()
    slow = LinkProfile(delay=0.5)
    a = Socket(net.host("a", "203.0.113.1", link=LinkProfile(delay=0.1), downlink=slow))
    b = Socket(net.host("b", "203.0.113.2"), echo=True)
    a.send(b.local)
    net.run(until=2.0)
    assert b.received[0][0] == pytest.approx(0.1)
    assert a.received[0][0] == pytest.approx(0.6)


def test_timers_fire_at_their_time_and_events_reach_the_handler() -> None:
    net = VirtualInternet(start=100.0)
    host = net.host("a", "203.0.113.1")
    sink = Socket(net.host("b", "203.0.113.2"))
    told: list[tuple[float, object]] = []
    ticker = Ticker((host.address, 1), sink.local, [100.5, 101.0, 103.25])
    net.attach(host, ticker, on_event=lambda now, event: told.append((now, event)))
    net.run(until=102.0)
    assert [when for when, *_ in sink.received] == [100.5, 101.0]
    assert [event for _, event in told] == ["first", "second"]
    net.run(until=200.0)
    assert [when for when, *_ in sink.received] == [100.5, 101.0, 103.25]


def test_without_a_handler_events_stay_in_the_machine() -> None:
    net = VirtualInternet()
    host = net.host("a", "203.0.113.1")
    ticker = Ticker((host.address, 1), ("203.0.113.9", 9), [0.5])
    net.attach(host, ticker)
    net.run(until=1.0)
    assert ticker.events == ["first", "second"]


def test_a_timer_that_stands_still_is_an_error_and_not_a_hang() -> None:
    class Stuck(Ticker):
        def handle_timer(self, now: float) -> None:
            pass

    net = VirtualInternet()
    host = net.host("a", "203.0.113.1")
    net.attach(host, Stuck((host.address, 1), ("203.0.113.9", 9), [0.5]))
    with pytest.raises(RuntimeError, match="stands still"):
        net.run(until=1.0)


def test_run_stops_when_asked_and_goes_on_later() -> None:
    net = VirtualInternet()
    a = Socket(net.host("a", "203.0.113.1"))
    b = Socket(net.host("b", "203.0.113.2", link=LinkProfile(delay=0.25)))
    for at in (1.0, 2.0, 3.0):
        net.at(at, lambda: a.send(b.local))
    assert net.run(until=10.0, stop=lambda: len(b.received) == 2)
    assert net.now == 2.25
    assert not net.run(until=10.0, stop=lambda: len(b.received) == 9)
    assert len(b.received) == 3
    with pytest.raises(ValueError, match="has passed"):
        net.at(5.0, lambda: None)


def test_actions_of_one_instant_run_in_the_order_given() -> None:
    net = VirtualInternet()
    order: list[int] = []
    for number in range(20):
        net.at(1.0, lambda number=number: order.append(number))  # type: ignore[misc]
    net.run(until=1.0)
    assert order == list(range(20))


@pytest.mark.parametrize(
    ("mapping", "allocation"), list(itertools.product(Mapping, PortAllocation))
)
def test_mapping_follows_rfc_4787_section_4_1(mapping: Mapping, allocation: PortAllocation) -> None:
    net, nat, inside = behind_nat(NatBehaviour(mapping=mapping, allocation=allocation))
    one = net.host("one", "203.0.113.1")
    two = net.host("two", "203.0.113.2")
    targets = [Socket(one, 1000), Socket(one, 2000), Socket(two, 1000)]
    for target in targets * 2:
        inside.send(target.local)
    net.run(until=1.0)
    ports = []
    for target in targets:
        first, again = target.sources
        assert first == again
        assert first[0] == "198.51.100.1"
        ports.append(first[1])
    same_ip, same_host = ports[0] == ports[1], ports[0] == ports[2]
    assert (same_ip, same_host) == {
        EI: (True, True),
        AD: (True, False),
        ADP: (False, False),
    }[mapping]
    if allocation is PortAllocation.PRESERVING:
        assert ports[0] == inside.local[1]
    if allocation is PortAllocation.SEQUENTIAL:
        assert list(dict.fromkeys(ports)) == list(range(40000, 40000 + len(set(ports))))
    assert len(nat.table.mappings) == len(set(ports))


@pytest.mark.parametrize(("mapping", "filtering"), list(itertools.product(Mapping, Filtering)))
def test_filtering_follows_rfc_4787_section_5(mapping: Mapping, filtering: Filtering) -> None:
    net, _, inside = behind_nat(NatBehaviour(mapping=mapping, filtering=filtering))
    known = net.host("known", "203.0.113.1")
    friend, neighbour = Socket(known, 1000), Socket(known, 2000)
    stranger = Socket(net.host("stranger", "203.0.113.2"))
    inside.send(friend.local)
    net.run(until=1.0)
    mapped = friend.sources[0]
    for socket in (friend, neighbour, stranger):
        socket.send(mapped)
    net.run(until=2.0)
    assert (
        set(inside.sources)
        == {
            FILTER_EI: {friend.local, neighbour.local, stranger.local},
            FILTER_AD: {friend.local, neighbour.local},
            FILTER_ADP: {friend.local},
        }[filtering]
    )
    filtered = net.trace.dropped(DropReason.FILTERED)
    assert len(filtered) == 3 - len(inside.received)
    assert all(p.dropped_by == "nat" for p in filtered)


def test_nothing_comes_in_before_something_went_out() -> None:
    net, _, inside = behind_nat(NatBehaviour(filtering=FILTER_EI))
    stranger = Socket(net.host("stranger", "203.0.113.2"))
    stranger.send(("198.51.100.1", inside.local[1]))
    net.run(until=1.0)
    assert not inside.received
    assert [p.dropped for p in net.trace] == [DropReason.NO_MAPPING]


def test_two_hosts_with_one_port_get_two_external_ports() -> None:
    net, nat, inside = behind_nat(NatBehaviour())
    other = Socket(net.host("other", "10.0.0.3", behind=nat))
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    inside.send(server.local, b"one")
    other.send(server.local, b"two")
    net.run(until=1.0)
    assert server.sources == [("198.51.100.1", 5000), ("198.51.100.1", 5001)]
    assert [data for _, data, _, _ in inside.received + other.received] == [b"one", b"two"]


def test_neighbours_behind_one_nat_talk_past_it_and_not_through_it() -> None:
    net, nat, inside = behind_nat(NatBehaviour())
    other = Socket(net.host("other", "10.0.0.3", behind=nat))
    inside.send(other.local)
    inside.send(("198.51.100.1", 5000))
    net.run(until=1.0)
    assert other.sources == [inside.local]
    assert [p.dropped for p in net.trace] == [None, DropReason.NO_HAIRPIN]


def test_a_nat_behind_a_nat_translates_twice() -> None:
    net = VirtualInternet()
    carrier = net.nat("carrier", "198.51.100.1", NatBehaviour(allocation=PortAllocation.SEQUENTIAL))
    home = net.nat("home", "100.64.0.5", NatKind.PORT_RESTRICTED, behind=carrier)
    peer = Socket(net.host("peer", "192.168.0.2", behind=home))
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    peer.send(server.local)
    net.run(until=1.0)
    assert server.sources == [("198.51.100.1", 40000)]
    assert peer.sources == [server.local]


def test_udp_blocked_drops_at_the_nat() -> None:
    net, _, inside = behind_nat(NatBehaviour(blocking=Blocking.UDP))
    server = Socket(net.host("server", "203.0.113.1"))
    inside.send(server.local)
    net.run(until=1.0)
    assert not server.received
    assert [(p.dropped, p.dropped_by) for p in net.trace] == [(DropReason.UDP_BLOCKED, "nat")]


def test_a_nat_that_restarts_maps_anew() -> None:
    net, nat, inside = behind_nat(NatBehaviour(allocation=PortAllocation.SEQUENTIAL))
    server = Socket(net.host("server", "203.0.113.1"))
    inside.send(server.local)
    net.run(until=1.0)
    nat.table.forget()
    inside.send(server.local)
    net.run(until=2.0)
    assert [port for _, port in server.sources] == [40000, 40001]


def test_loss_is_seeded_and_recorded() -> None:
    def run(seed: int) -> list[DropReason | None]:
        net = VirtualInternet(seed)
        a = Socket(net.host("a", "203.0.113.1", link=LinkProfile(delay=0.01, loss=0.25)))
        b = Socket(net.host("b", "203.0.113.2"))
        for number in range(400):
            a.send(b.local, number.to_bytes(2, "big"))
        net.run(until=1.0)
        lost = net.trace.dropped(DropReason.LOST)
        assert all(p.dropped_by == "a" for p in lost)
        assert len(b.received) + len(lost) == len(net.trace) == 400
        assert 60 <= len(lost) <= 140
        return [p.dropped for p in net.trace]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_jitter_delays_within_bounds_and_keeps_the_order() -> None:
    net = VirtualInternet(3)
    link = LinkProfile(delay=0.010, jitter=0.020)
    a = Socket(net.host("a", "203.0.113.1", link=link))
    b = Socket(net.host("b", "203.0.113.2"))
    for number in range(100):
        net.at(number * 0.05, lambda number=number: a.send(b.local, bytes([number])))  # type: ignore[misc]
    for number in range(100, 200):
        net.at(6.0, lambda number=number: a.send(b.local, bytes([number])))  # type: ignore[misc]
    net.run(until=10.0)
    assert [data[0] for _, data, _, _ in b.received] == list(range(200))
    took = [p.ended_at - p.sent_at for p in net.trace if p.ended_at is not None]
    assert min(took) >= 0.010
    assert max(took) <= 0.030 + 1e-9
    assert len({round(t, 6) for t in took[:100]}) > 50


def test_the_trace_tells_who_sent_what_to_whom_and_how_it_was_translated() -> None:
    net, _, inside = behind_nat(NatBehaviour(allocation=PortAllocation.SEQUENTIAL))
    server = Socket(net.host("server", "203.0.113.1"), 3478)
    inside.send(server.local, b"12345")
    inside.send(("203.0.113.77", 1))
    inside.send((server.local[0], 9))
    net.run(until=1.0)
    sent, nowhere, unheard = net.trace
    assert (sent.sender, sent.receiver, sent.size) == ("inside", "server", 5)
    assert (sent.source, sent.wire_source) == (inside.local, ("198.51.100.1", 40000))
    assert nowhere.dropped is DropReason.NO_ROUTE
    assert (unheard.dropped, unheard.dropped_by) == (DropReason.NO_LISTENER, "server")
    assert net.trace.between("inside", "server") == [sent]
    assert "inside 10.0.0.2:5000 > 203.0.113.1:3478 5 bytes" in str(sent)


def test_a_host_cannot_send_from_an_address_it_lacks() -> None:
    net = VirtualInternet()
    host = net.host("a", "203.0.113.1")
    with pytest.raises(ValueError, match="has no address"):
        host.send(Transmit(b"x", ("203.0.113.2", 1), ("203.0.113.3", 1)))


def test_ipv6_hosts_talk() -> None:
    net = VirtualInternet()
    a = Socket(net.host("a", "2001:DB8::1"))
    b = Socket(net.host("b", "2001:db8:0::2"), echo=True)
    a.send(b.local)
    net.run(until=1.0)
    assert a.sources == [("2001:db8::2", 5000)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda net: net.host("a"),
        lambda net: net.host("a", "203.0.113.300"),
        lambda net: (net.host("a", "203.0.113.1"), net.host("a", "203.0.113.2")),
        lambda net: (net.host("a", "203.0.113.1"), net.host("b", "203.0.113.1")),
        lambda net: net.nat("n", "203.0.113.1", NatKind.NONE),
        lambda net: LinkProfile(delay=-1.0),
        lambda net: LinkProfile(loss=1.5),
    ],
)
def test_an_impossible_topology_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(InvalidConfiguration):
        wrong(VirtualInternet())


def test_a_nat_without_ports_left_drops_and_wraps_before_that() -> None:
    table = TranslationTable(
        "198.51.100.1", NatBehaviour(allocation=PortAllocation.SEQUENTIAL), first_port=65535
    )
    server = ("203.0.113.1", 1)
    first = [table.outbound(("10.0.0.2", port), server) for port in (1, 2)]
    assert first == [("198.51.100.1", 65535), ("198.51.100.1", 1024)]
    for number in range(2, 65536 - 1024):
        table.outbound((f"10.1.{number >> 8}.{number & 255}", 1), server)
    assert table.outbound(("10.9.9.9", 1), server) is DropReason.NO_PORT
    assert table.outbound(("10.0.0.2", 1), server) == first[0]
