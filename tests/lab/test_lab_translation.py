"""The translation table of a virtual NAT: which port for whom, for how long, and who gets out."""

from __future__ import annotations

import random

import pytest

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import (
    Blocking,
    EarlyInbound,
    Filtering,
    Mapping,
    NatBehaviour,
    Pooling,
    PortAllocation,
    Refresh,
)
from ice_punch.lab.trace import DropReason, Protocol
from ice_punch.lab.virtual.translation import FIRST_DYNAMIC_PORT, LAST_PORT, TranslationTable

OUTSIDE = "198.51.100.1"
HOST = ("10.0.0.2", 5000)
NEIGHBOUR = ("10.0.0.3", 5000)
SERVER = ("203.0.113.1", 3478)
PEER = ("203.0.113.2", 50000)
DYNAMIC = LAST_PORT - FIRST_DYNAMIC_PORT + 1
BY_PORT = Mapping.ADDRESS_AND_PORT_DEPENDENT


def a_table(seed: int = 0, **behaviour: object) -> TranslationTable:
    made = NatBehaviour(**behaviour)  # type: ignore[arg-type]
    return TranslationTable(OUTSIDE, made, source=random.Random(seed))


def port_of(table: TranslationTable, source: Address, destination: Address = SERVER) -> int:
    external = table.outbound(source, destination)
    assert not isinstance(external, DropReason)
    return external[1]


def from_port(port: int, host: str = "10.0.0.2") -> Address:
    return (host, port)


# -- port allocation, RFC 4787 section 4.2 ----------------------------------------------------


@pytest.mark.parametrize("port", [1, 80, 1023, 1024, 5000, 65535])
def test_a_preserving_nat_keeps_the_port_whatever_it_is(port: int) -> None:
    assert port_of(a_table(), from_port(port)) == port


@pytest.mark.parametrize(
    ("port", "others"),
    [(5000, [5001, 5002]), (65535, [1024, 1025]), (80, [1024, 1025])],
)
def test_where_a_port_is_taken_a_preserving_nat_takes_the_next_dynamic_one(
    port: int, others: list[int]
) -> None:
    table = a_table()
    hosts = [from_port(port, f"10.0.0.{n}") for n in (2, 3, 4)]
    assert [port_of(table, host) for host in hosts] == [port, *others]
    assert [port_of(table, host) for host in hosts] == [port, *others]


def test_parity_is_preserved_and_nothing_else_of_the_port() -> None:
    table = a_table(allocation=PortAllocation.PARITY_PRESERVING)
    ports = [port_of(table, from_port(port)) for port in range(6000, 6200)]
    assert [port % 2 for port in ports] == [0, 1] * 100
    assert len(set(ports)) == 200
    assert not any(port in range(6000, 6200) for port in ports[:20])


class TakingTurns(random.Random):
    """Every second port in turn, so that nobody has to look for a free one."""

    turn = 0

    def random(self) -> float:
        self.turn += 2
        return (self.turn % DYNAMIC + 0.5) / DYNAMIC


def test_once_all_even_ports_are_taken_an_even_one_becomes_odd() -> None:
    behaviour = NatBehaviour(allocation=PortAllocation.PARITY_PRESERVING)
    table = TranslationTable(OUTSIDE, behaviour, source=TakingTurns())
    evens = (
        from_port(port, f"10.0.{host}.2") for host in (0, 1) for port in range(0, LAST_PORT, 2)
    )
    even = [port_of(table, next(evens)) for _ in range(DYNAMIC // 2)]
    assert {port % 2 for port in even} == {0}
    assert len(set(even)) == DYNAMIC // 2
    assert port_of(table, next(evens)) % 2 == 1


def test_neighbouring_ports_become_neighbours_in_whatever_order_they_come() -> None:
    table = a_table(allocation=PortAllocation.CONTIGUOUS)
    outside = {port: port_of(table, from_port(port)) for port in (5002, 5000, 5001, 5007)}
    assert {outside[port] - port for port in outside} == {outside[5000] - 5000}
    other = port_of(table, NEIGHBOUR)
    assert other != outside[5000]


def test_contiguity_holds_within_each_destination_where_the_mapping_varies() -> None:
    table = a_table(allocation=PortAllocation.CONTIGUOUS, mapping=BY_PORT)
    for destination in (SERVER, PEER):
        first, second = (port_of(table, from_port(p), destination) for p in (5000, 5001))
        assert second == first + 1 or (first, second) == (LAST_PORT, FIRST_DYNAMIC_PORT)


@pytest.mark.parametrize(
    ("first", "step", "expected"),
    [
        (40000, 1, [40000, 40001, 40002, 40003]),
        (40000, 7, [40000, 40007, 40014, 40021]),
        (40000, -2, [40000, 39998, 39996, 39994]),
        (65534, 1, [65534, 65535, 1024, 1025]),
        (65534, 3, [65534, 1025, 1028, 1031]),
        (1025, -1, [1025, 1024, 65535, 65534]),
    ],
)
def test_a_sequential_nat_steps_up_or_down_and_wraps(
    first: int, step: int, expected: list[int]
) -> None:
    behaviour = NatBehaviour(allocation=PortAllocation.SEQUENTIAL, step=step, mapping=BY_PORT)
    table = TranslationTable(OUTSIDE, behaviour, first_port=first)
    destinations = [("203.0.113.1", port) for port in range(1, 5)]
    assert [port_of(table, HOST, d) for d in destinations] == expected
    assert [port_of(table, HOST, d) for d in destinations] == expected


def test_random_ports_are_drawn_from_the_seed_and_from_the_whole_dynamic_range() -> None:
    def drawn(seed: int) -> list[int]:
        table = a_table(seed, allocation=PortAllocation.RANDOM)
        return [port_of(table, from_port(port)) for port in range(1, 2001)]

    ports = drawn(1)
    assert ports == drawn(1) != drawn(2)
    assert len(set(ports)) == 2000
    assert min(ports) in range(FIRST_DYNAMIC_PORT, FIRST_DYNAMIC_PORT + 500)
    assert max(ports) in range(LAST_PORT - 500, LAST_PORT + 1)
    assert abs(sum(ports) / 2000 - (FIRST_DYNAMIC_PORT + LAST_PORT) / 2) < 1500


@pytest.mark.parametrize(
    "behaviour",
    [
        {"allocation": PortAllocation.PRESERVING},
        {"allocation": PortAllocation.CONTIGUOUS},
        {"allocation": PortAllocation.SEQUENTIAL, "step": 7},
        {"allocation": PortAllocation.SEQUENTIAL, "step": -96},
    ],
    ids=["preserving", "contiguous", "7 up", "96 down"],
)
def test_every_dynamic_port_is_given_out_once_before_there_is_none(
    behaviour: dict[str, object],
) -> None:
    table = a_table(**behaviour)
    given = {port_of(table, from_port(p)) for p in range(FIRST_DYNAMIC_PORT, LAST_PORT + 1)}
    assert given == set(range(FIRST_DYNAMIC_PORT, LAST_PORT + 1))
    assert table.outbound(NEIGHBOUR, SERVER) is DropReason.NO_PORT
    assert not isinstance(table.outbound(HOST, SERVER), DropReason)
    assert not isinstance(table.outbound(NEIGHBOUR, SERVER, 0.0, Protocol.TCP), DropReason)


def test_a_second_external_address_doubles_the_ports() -> None:
    table = a_table(external_addresses=2)
    for n in range(40):
        table.outbound((f"10.0.1.{n}", 5000), SERVER)
    externals = [m.external for m in table.mappings]
    assert {ip for ip, _ in externals} == {"198.51.100.1", "198.51.100.2"}
    assert [port for _, port in externals].count(5000) == 2


# -- pooling, RFC 4787 section 4.1 ------------------------------------------------------------


def test_paired_pooling_gives_all_mappings_of_a_host_one_address() -> None:
    table = a_table(external_addresses=8)
    used = {}
    for n in range(40):
        host = f"10.0.1.{n}"
        ips = {table.outbound((host, port), SERVER)[0] for port in range(5000, 5010)}  # type: ignore[index]
        assert len(ips) == 1
        used[host] = ips.pop()
    assert set(used.values()) <= set(table.external_ips)
    assert len(set(used.values())) > 4


def test_arbitrary_pooling_gives_mappings_of_one_host_any_address() -> None:
    table = a_table(external_addresses=8, pooling=Pooling.ARBITRARY)
    externals = [table.outbound(from_port(port), SERVER) for port in range(5000, 5100)]
    assert {external[0] for external in externals} == set(table.external_ips)  # type: ignore[index]
    assert [table.outbound(from_port(port), SERVER) for port in range(5000, 5100)] == externals


# -- lifetimes, RFC 4787 section 4.3 ----------------------------------------------------------

LIFETIME = 30.0


@pytest.mark.parametrize("refresh", Refresh)
@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("filtering", Filtering)
def test_a_mapping_and_its_filter_live_on_what_refreshes_them(
    refresh: Refresh, way: str, filtering: Filtering
) -> None:
    table = a_table(lifetime=LIFETIME, refresh=refresh, filtering=filtering)
    external = table.outbound(HOST, PEER, 0.0)
    assert isinstance(external, tuple)
    if way == "in":
        assert table.inbound(PEER, external, 20.0) == HOST
    else:
        assert table.outbound(HOST, PEER, 20.0) == external
    refreshed = refresh is Refresh.BOTH or refresh.value == way + "bound"
    assert table.internal_of(Protocol.UDP, external, 49.9) == (HOST if refreshed else None)
    arrives = table.inbound(PEER, external, 49.9)
    assert arrives == (HOST if refreshed else DropReason.NO_MAPPING)


def test_a_mapping_that_nothing_refreshes_ends_at_its_time_and_not_before() -> None:
    table = a_table(lifetime=LIFETIME)
    external = table.outbound(HOST, PEER, 100.0)
    assert isinstance(external, tuple)
    assert table.inbound(PEER, external, 129.999) == HOST
    assert table.inbound(PEER, external, 130.0) is DropReason.NO_MAPPING


def test_a_contact_lapses_while_its_mapping_lives_on_others() -> None:
    table = a_table(lifetime=LIFETIME)
    external = table.outbound(HOST, PEER, 0.0)
    assert isinstance(external, tuple)
    for now in (20.0, 40.0, 60.0):
        assert table.outbound(HOST, SERVER, now) == external
    assert table.inbound(SERVER, external, 61.0) == HOST
    assert table.inbound(PEER, external, 61.0) is DropReason.FILTERED


def test_what_goes_out_to_a_new_port_refreshes_no_address_where_only_answers_do() -> None:
    table = a_table(
        lifetime=LIFETIME, refresh=Refresh.INBOUND, filtering=Filtering.ADDRESS_DEPENDENT
    )
    external = table.outbound(HOST, PEER, 0.0)
    assert isinstance(external, tuple)
    table.outbound(HOST, SERVER, 0.0)
    assert table.inbound(SERVER, external, 20.0) == HOST  # keeps the mapping
    table.outbound(HOST, (PEER[0], 9), 20.0)
    assert table.inbound(PEER, external, 31.0) is DropReason.FILTERED


def test_a_tcp_mapping_does_not_lapse_with_udps_lifetime() -> None:
    table = a_table(lifetime=LIFETIME)
    external = table.outbound(HOST, PEER, 0.0, Protocol.TCP)
    assert isinstance(external, tuple)
    assert table.inbound(PEER, external, 7200.0, Protocol.TCP) == HOST


def test_a_mapping_that_comes_again_gets_a_port_like_a_new_one() -> None:
    table = a_table(lifetime=LIFETIME, allocation=PortAllocation.SEQUENTIAL)
    assert table.outbound(HOST, SERVER, 0.0) == (OUTSIDE, 40000)
    assert table.outbound(HOST, SERVER, 30.0) == (OUTSIDE, 40001)
    assert len(table.mappings) == 1


def test_the_port_of_a_mapping_that_lapsed_is_there_for_others() -> None:
    table = a_table(lifetime=LIFETIME)
    assert table.outbound(HOST, SERVER, 0.0) == (OUTSIDE, 5000)
    assert table.outbound(NEIGHBOUR, SERVER, 29.0) == (OUTSIDE, 5001)
    third = ("10.0.0.4", 5000)
    assert table.outbound(third, SERVER, 30.0) == (OUTSIDE, 5000)
    assert table.inbound(SERVER, (OUTSIDE, 5000), 31.0) == third
    assert table.outbound(HOST, SERVER, 31.0) == (OUTSIDE, 5002)


def test_a_nat_that_lives_long_enough_does_not_run_out_of_ports() -> None:
    table = a_table(lifetime=LIFETIME, allocation=PortAllocation.RANDOM, mapping=BY_PORT)
    for n in range(70000):
        external = table.outbound(HOST, ("203.0.113.9", n % 60000 + 1), n * 0.1)
        assert not isinstance(external, DropReason)
    assert len(table.mappings) <= DYNAMIC


# -- protocols, and what happens to NATs ------------------------------------------------------


def test_tcp_is_mapped_and_filtered_apart_from_udp() -> None:
    table = a_table(allocation=PortAllocation.RANDOM)
    udp = table.outbound(HOST, PEER)
    assert isinstance(udp, tuple)
    assert table.inbound(PEER, udp, 0.0, Protocol.TCP) is DropReason.NO_MAPPING
    tcp = table.outbound(HOST, SERVER, 0.0, Protocol.TCP)
    assert isinstance(tcp, tuple)
    assert tcp != udp
    assert table.inbound(PEER, tcp, 0.0, Protocol.TCP) is DropReason.FILTERED
    assert table.inbound(SERVER, tcp, 0.0, Protocol.TCP) == HOST


def test_the_same_port_is_given_to_udp_and_to_tcp() -> None:
    table = a_table()
    assert table.outbound(HOST, PEER) == table.outbound(NEIGHBOUR, PEER, 0.0, Protocol.TCP)


WHO_GETS_OUT = {
    Blocking.NOTHING: {"udp 443", "udp 3478", "tcp 443", "tcp 80"},
    Blocking.UDP: {"tcp 443", "tcp 80"},
    Blocking.ALL_BUT_TCP_443: {"tcp 443"},
}


@pytest.mark.parametrize("blocking", Blocking)
def test_what_is_blocked_leaves_no_trace_in_the_table(blocking: Blocking) -> None:
    table = a_table(blocking=blocking)
    out = set()
    for protocol, port in ((Protocol.UDP, 443), (Protocol.UDP, 3478)):
        verdict = table.outbound(HOST, (SERVER[0], port), 0.0, protocol)
        if isinstance(verdict, DropReason):
            assert verdict is DropReason.UDP_BLOCKED
        else:
            out.add(f"{protocol} {port}")
    if not out:
        assert not table.mappings
    for port in (443, 80):
        verdict = table.outbound(HOST, (SERVER[0], port), 0.0, Protocol.TCP)
        if isinstance(verdict, DropReason):
            assert verdict is DropReason.BLOCKED
        else:
            out.add(f"tcp {port}")
    assert out == WHO_GETS_OUT[blocking]


@pytest.mark.parametrize("protocol", [Protocol.UDP, Protocol.TCP])
def test_a_nat_that_forgets_lets_nothing_in_until_something_goes_out(protocol: Protocol) -> None:
    table = a_table(early_inbound=EarlyInbound.BLACKLIST)
    external = table.outbound(HOST, PEER, 0.0, protocol)
    assert isinstance(external, tuple)
    assert table.inbound(SERVER, external, 0.0, protocol) is DropReason.FILTERED
    table.forget()
    assert not table.mappings
    assert table.inbound(PEER, external, 1.0, protocol) is DropReason.NO_MAPPING
    table.forget()
    assert table.outbound(HOST, PEER, 2.0, protocol) == external
    assert table.inbound(PEER, external, 3.0, protocol) == HOST
    assert table.inbound(SERVER, external, 3.0, protocol) is DropReason.FILTERED, "not blacklisted"


@pytest.mark.parametrize("allocation", PortAllocation)
def test_a_nat_that_rebinds_gives_every_mapping_a_port_it_never_had(
    allocation: PortAllocation,
) -> None:
    table = a_table(allocation=allocation)
    hosts = [from_port(port) for port in range(5000, 5010)]
    seen: set[int] = set()
    for _ in range(4):
        ports = {port_of(table, host) for host in hosts}
        assert len(ports) == 10
        assert not ports & seen
        assert {port_of(table, host) for host in hosts} == ports
        seen |= ports
        table.rebind()
        assert all(
            table.inbound(SERVER, (OUTSIDE, port)) is DropReason.NO_MAPPING for port in ports
        )
