"""The virtual internet under machines, topologies and numbers that make no sense: nothing hangs,
nothing grows without end, and what is wrong is said in one line."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import pytest
from lab_sockets import Socket

from ice_punch.datagram import Address, Transmit
from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.behaviour import EarlyInbound, Hairpinning, NatBehaviour, NatKind
from ice_punch.lab.links import LinkProfile
from ice_punch.lab.trace import DropReason
from ice_punch.lab.virtual.internet import VirtualInternet
from ice_punch.lab.virtual.translation import TranslationTable

NAN, INF = math.nan, math.inf


# -- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [NAN, -1.0, -INF])
def test_nothing_happens_at_a_time_that_is_none(at: float) -> None:
    net = VirtualInternet()
    with pytest.raises(ValueError, match="has passed"):
        net.at(at, lambda: None)
    with pytest.raises(ValueError, match="has passed"):
        net.after(at, lambda: None)
    assert not net.run(1.0)


@pytest.mark.parametrize("until", [NAN, INF, -INF])
def test_time_does_not_pass_until_a_time_that_never_comes(until: float) -> None:
    net = VirtualInternet()
    with pytest.raises(ValueError, match="time does not pass until"):
        net.run(until)
    assert net.now == 0.0


@pytest.mark.parametrize("start", [NAN, INF, -INF])
def test_time_does_not_start_at_one_either(start: float) -> None:
    with pytest.raises(InvalidConfiguration, match="time does not start at"):
        VirtualInternet(start=start)


@pytest.mark.parametrize("start", [-1e6, 1e9])
def test_time_may_start_anywhere(start: float) -> None:
    net = VirtualInternet(start=start)
    link = LinkProfile(delay=0.25, jitter=1e-6, rate=1e9)
    nat = net.nat("nat", "198.51.100.1", NatBehaviour(lifetime=30.0), link=link)
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    inside.send(server.local)
    net.run(start + 1.0)
    assert [at - start for at, *_ in inside.received] == [pytest.approx(0.5, abs=1e-5)]


def test_what_happens_at_infinity_never_does_and_holds_nothing_up() -> None:
    net = VirtualInternet()
    happened: list[str] = []
    net.at(INF, lambda: happened.append("never"))
    net.at(1.0, lambda: happened.append("once"))
    net.run(1e12)
    assert happened == ["once"]


class Clock:
    """A machine that wants to be called at the times it is told, and says nothing."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.calls: list[float] = []

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        self.calls.append(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return []

    def get_timer(self) -> float | None:
        return self.times[0] if self.times else None

    def handle_timer(self, now: float) -> None:
        self.calls.append(now)
        self.times.pop(0)


def test_a_machine_whose_timer_is_no_time_is_found_out() -> None:
    net = VirtualInternet()
    net.attach(net.host("a", "203.0.113.1"), Clock(NAN))
    with pytest.raises(ValueError, match="nan has passed"):
        net.run(1.0)


def test_a_machine_that_is_late_is_called_at_once_and_one_that_never_is_due_never() -> None:
    net = VirtualInternet(start=10.0)
    late, never = Clock(-INF, 3.0, 10.5), Clock(INF)
    net.attach(net.host("a", "203.0.113.1"), late)
    net.attach(net.host("b", "203.0.113.2"), never)
    net.run(100.0)
    assert late.calls == [10.0, 10.0, 10.5]
    assert never.calls == []


# -- machines ---------------------------------------------------------------------------------


def test_two_machines_that_answer_each_others_answers_are_ended() -> None:
    net = VirtualInternet(max_packets=5000)
    one = Socket(net.host("one", "203.0.113.1"), echo=True)
    two = Socket(net.host("two", "203.0.113.2"), echo=True)
    one.send(two.local)
    with pytest.raises(
        InvalidConfiguration, match=r"more than 5000 packets, the last from .*, at 0 s"
    ):
        net.run(1.0)


def test_a_machine_that_talks_to_itself_is_ended_too() -> None:
    net = VirtualInternet(max_packets=5000)
    one = Socket(net.host("one", "203.0.113.1"), echo=True)
    one.send(one.local)
    with pytest.raises(InvalidConfiguration, match="more than 5000 packets"):
        net.run(1.0)


def test_a_nat_may_hairpin_a_host_to_itself_without_end_only_as_long_as_others() -> None:
    net = VirtualInternet(max_packets=2000)
    nat = net.nat("nat", "198.51.100.1", NatBehaviour(hairpinning=Hairpinning.EXTERNAL_SOURCE))
    one = Socket(net.host("one", "10.0.0.2", behind=nat), echo=True)
    one.send(("198.51.100.1", 5000))
    with pytest.raises(InvalidConfiguration, match="more than 2000 packets"):
        net.run(1.0)


def test_sending_from_an_address_of_somebody_else_is_a_mistake_of_the_machine() -> None:
    net = VirtualInternet()
    one = Socket(net.host("one", "203.0.113.1"))
    net.host("two", "203.0.113.2")
    one.local = ("203.0.113.2", 1)
    one.send(("203.0.113.2", 1))
    with pytest.raises(ValueError, match=r"one has no address 203\.0\.113\.2 to send from"):
        net.run(1.0)
    assert len(net.trace) == 0


def test_an_address_from_outside_used_inside_is_answered_outside() -> None:
    """A host behind a NAT that gives itself a public address: nobody inside is public."""
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1")
    thief = Socket(net.host("thief", "203.0.113.1", behind=nat))
    owner = Socket(net.host("owner", "203.0.113.1"))
    server = Socket(net.host("server", "203.0.113.2"), echo=True)
    thief.send(server.local)
    net.run(1.0)
    assert server.sources == [("198.51.100.1", 5000)]
    assert thief.sources == [server.local]
    assert owner.received == []


@pytest.mark.parametrize("size", [0, 1, 65_507, 10_000_000])
def test_any_size_of_a_datagram_passes_where_nothing_limits_it(size: int) -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1", link=LinkProfile(rate=1e9, queue=0))
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    server = Socket(net.host("server", "203.0.113.1"))
    inside.send(server.local, bytes(size))
    net.run(1.0)
    assert [len(data) for data in server.data] == [size]


@pytest.mark.parametrize("port", [-1, 0, 65_536, 10**9])
def test_a_port_that_is_none_reaches_nobody(port: int) -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1")
    inside = Socket(net.host("inside", "10.0.0.2", behind=nat))
    server = net.host("server", "203.0.113.1")
    inside.send((server.address, port))
    net.run(1.0)
    assert [p.dropped for p in net.trace] == [DropReason.NO_LISTENER]


# -- topologies -------------------------------------------------------------------------------


def test_a_loop_that_doubles_every_packet_is_ended() -> None:
    net = VirtualInternet(max_packets=5000)
    link = LinkProfile(delay=0.001, duplication=1.0)
    one, two = net.router("one", link=link), net.router("two", link=link)
    net.public.add_route("2001:db8::/32", one)
    one.inside.add_route("2001:db8::/32", two)
    two.inside.add_route("2001:db8::/32", one)
    Socket(net.host("sender", "2001:db9::1")).send(("2001:db8::1", 1))
    with pytest.raises(InvalidConfiguration, match="more than 5000 packets"):
        net.run(1.0)


def test_a_hundred_nats_deep_is_too_many_hops_and_thirty_are_not() -> None:
    def through(depth: int) -> list[DropReason | None]:
        net = VirtualInternet()
        behind = None
        for n in range(depth):
            behind = net.nat(f"nat {n}", f"10.{n}.0.1", NatKind.PORT_RESTRICTED, behind=behind)
        inside = Socket(net.host("inside", "10.200.0.2", behind=behind))
        server = Socket(net.host("server", "203.0.113.1"), echo=True)
        inside.send(server.local)
        net.run(1.0)
        return [p.dropped for p in net.trace]

    assert through(30) == [None, None]
    assert through(100) == [DropReason.HOPS]


def test_a_thousand_hosts_behind_ten_nats_all_reach_one_server() -> None:
    net = VirtualInternet()
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    nats = [net.nat(f"nat {n}", f"198.51.100.{n + 1}") for n in range(10)]
    sockets = [
        Socket(net.host(f"host {n}", f"10.0.{n // 250}.{n % 250 + 1}", behind=nats[n % 10]))
        for n in range(1000)
    ]
    began = time.monotonic()
    for socket in sockets:
        socket.send(server.local, str(socket.local).encode())
    net.run(1.0)
    assert time.monotonic() - began < 5
    assert all(socket.data == [str(socket.local).encode()] for socket in sockets)
    assert len(set(server.sources)) == 1000
    assert len(net.trace) == 2000


MISTAKES: list[tuple[Callable[[VirtualInternet], object], str]] = [
    (lambda net: net.nat("n", "2001:db8::1"), "the outside of a NAT is IPv4"),
    (lambda net: net.nat64("n", "2001:db8::1"), "the outside of a NAT is IPv4"),
    (
        lambda net: net.nat("n", "255.255.255.250", NatBehaviour(external_addresses=16)),
        "there are no 16 addresses from 255.255.255.250 on",
    ),
    (lambda net: net.nat("n", "nonsense"), "not an IP address: nonsense"),
    (lambda net: net.host("h", ""), "not an IP address: "),
    (lambda net: net.host("h", "203.0.113.1", "203.0.113.1"), "two nodes with the address"),
    (
        lambda net: (
            net.nat("n", "203.0.113.1", NatBehaviour(external_addresses=4)),
            net.host("h", "203.0.113.4"),
        ),
        "two nodes with the address 203.0.113.4",
    ),
    (lambda net: (net.router("r"), net.host("r", "203.0.113.1")), "two nodes have the name r"),
    (lambda net: net.interface(net.host("h", "203.0.113.1")), "needs an address"),
    (lambda net: net.nat64("n", "203.0.113.1", prefix="nonsense"), "not a prefix: nonsense"),
]


@pytest.mark.parametrize(("make", "message"), MISTAKES)
def test_a_topology_that_can_not_be_is_refused_in_one_line(
    make: Callable[[VirtualInternet], object], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        make(VirtualInternet())
    assert "\n" not in str(caught.value)


# -- what strangers can do to a table ---------------------------------------------------------


@pytest.mark.parametrize("how", EarlyInbound)
def test_a_flood_from_outside_makes_no_mapping_and_leaves_the_nat_as_quick_as_before(
    how: EarlyInbound,
) -> None:
    table = TranslationTable("198.51.100.1", NatBehaviour(early_inbound=how))
    inside, server = ("10.0.0.2", 5000), ("203.0.113.1", 1)
    external = table.outbound(inside, server)
    assert isinstance(external, tuple)
    source = random.Random(1)
    began = time.monotonic()
    for n in range(50_000):
        stranger = (f"192.0.2.{source.randrange(256)}", source.randrange(1, 65536))
        assert isinstance(table.inbound(stranger, external, n * 0.001), DropReason)
    assert time.monotonic() - began < 5
    assert len(table.mappings) == 1
    assert table.inbound(server, external, 50.0) == inside


def test_whoever_finds_a_nat_without_ports_gets_nowhere_and_hurts_nobody() -> None:
    net = VirtualInternet()
    nat = net.nat("nat", "198.51.100.1")
    greedy = Socket(net.host("greedy", "10.0.0.2", behind=nat), 1024)
    late = Socket(net.host("late", "10.0.0.3", behind=nat))
    server = Socket(net.host("server", "203.0.113.1"), echo=True)
    for port in range(1024, 65_536):
        nat.table.outbound((greedy.host.address, port), server.local)
    for _ in range(20):
        late.send(server.local)
    greedy.send(server.local)
    net.run(1.0)
    assert [p.dropped_by for p in net.trace.dropped(DropReason.NO_PORT)] == ["nat"] * 20
    assert greedy.sources == [server.local]
    assert late.received == []
