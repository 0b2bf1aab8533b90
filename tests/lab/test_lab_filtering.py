"""Who a virtual NAT lets in, what hairpins, and what comes of knocking too early."""

from __future__ import annotations

import random

import pytest

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import (
    EarlyInbound,
    Filtering,
    Hairpinning,
    Mapping,
    NatBehaviour,
    PortAllocation,
)
from ice_punch.lab.trace import DropReason, Protocol
from ice_punch.lab.virtual.translation import CLAIM_SECONDS, TranslationTable

OUTSIDE = "198.51.100.1"
HOST = ("10.0.0.2", 5000)
NEIGHBOUR = ("10.0.0.3", 5000)
SERVER = ("203.0.113.1", 3478)
PEER = ("203.0.113.2", 50000)
PEER_AGAIN = ("203.0.113.2", 50001)
STRANGER = ("203.0.113.3", 50000)
UDP = Protocol.UDP


def a_table(**behaviour: object) -> TranslationTable:
    made = NatBehaviour(**behaviour)  # type: ignore[arg-type]
    return TranslationTable(OUTSIDE, made, source=random.Random(1))


def out(
    table: TranslationTable, source: Address, destination: Address, now: float = 0.0
) -> Address:
    external = table.outbound(source, destination, now)
    assert not isinstance(external, DropReason)
    return external


# -- filtering, RFC 4787 section 5 ------------------------------------------------------------


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize("filtering", Filtering)
def test_a_filter_asks_whom_the_host_has_sent_to_and_not_through_which_mapping(
    mapping: Mapping, filtering: Filtering
) -> None:
    table = a_table(mapping=mapping, filtering=filtering, allocation=PortAllocation.RANDOM)
    externals = {out(table, HOST, SERVER), out(table, HOST, PEER)}
    assert len(externals) == (1 if mapping is Mapping.ENDPOINT_INDEPENDENT else 2)
    admitted = {SERVER, PEER}
    if filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT:
        admitted.add(PEER_AGAIN)
    if filtering is Filtering.ENDPOINT_INDEPENDENT:
        admitted.add(STRANGER)
    for source in (SERVER, PEER, PEER_AGAIN, STRANGER):
        for external in externals:
            expected = HOST if source in admitted else DropReason.FILTERED
            assert table.inbound(source, external) == expected


@pytest.mark.parametrize("filtering", Filtering)
def test_one_sockets_contacts_open_nothing_for_another_of_the_same_host(
    filtering: Filtering,
) -> None:
    table = a_table(filtering=filtering)
    out(table, HOST, PEER)
    other = out(table, (HOST[0], 6000), SERVER)
    got_in = table.inbound(PEER, other)
    assert (got_in == (HOST[0], 6000)) == (filtering is Filtering.ENDPOINT_INDEPENDENT)


# -- hairpinning, RFC 4787 section 6 ----------------------------------------------------------


@pytest.mark.parametrize("filtering", Filtering)
@pytest.mark.parametrize("kind", Hairpinning)
def test_what_hairpins_passes_the_filter_like_all_else(
    kind: Hairpinning, filtering: Filtering
) -> None:
    table = a_table(hairpinning=kind, filtering=filtering)
    host, neighbour = out(table, HOST, SERVER), out(table, NEIGHBOUR, SERVER)
    first = table.hairpin(HOST, neighbour)
    if kind is Hairpinning.NONE:
        assert first is DropReason.NO_HAIRPIN
        return
    source = HOST if kind is Hairpinning.INTERNAL_SOURCE else host
    open_at_once = filtering is Filtering.ENDPOINT_INDEPENDENT
    assert first == ((source, NEIGHBOUR) if open_at_once else DropReason.FILTERED)
    # What the neighbour sends back passes: the host's own packet has opened the filter.
    back = table.hairpin(NEIGHBOUR, host)
    assert back == ((NEIGHBOUR if kind is Hairpinning.INTERNAL_SOURCE else neighbour), HOST)
    assert table.hairpin(HOST, neighbour) == (source, NEIGHBOUR)


def test_an_address_dependent_filter_sees_all_of_a_nats_own_inside_as_one() -> None:
    table = a_table(hairpinning=Hairpinning.EXTERNAL_SOURCE, filtering=Filtering.ADDRESS_DEPENDENT)
    host, third = out(table, HOST, SERVER), out(table, ("10.0.0.4", 5000), SERVER)
    assert table.hairpin(HOST, third) is DropReason.FILTERED
    assert table.hairpin(NEIGHBOUR, host) == (out(table, NEIGHBOUR, SERVER), HOST)


def test_a_host_that_hairpins_to_itself_hears_itself() -> None:
    table = a_table(hairpinning=Hairpinning.EXTERNAL_SOURCE)
    own = out(table, HOST, SERVER)
    assert table.hairpin(HOST, own) == (own, HOST)


def test_a_hairpin_to_a_port_nobody_has_goes_nowhere() -> None:
    table = a_table(hairpinning=Hairpinning.EXTERNAL_SOURCE)
    assert table.hairpin(HOST, (OUTSIDE, 9)) is DropReason.NO_MAPPING


@pytest.mark.parametrize("mapping", Mapping)
def test_a_hairpin_is_mapped_towards_the_external_address(mapping: Mapping) -> None:
    table = a_table(
        mapping=mapping,
        hairpinning=Hairpinning.EXTERNAL_SOURCE,
        filtering=Filtering.ENDPOINT_INDEPENDENT,
        allocation=PortAllocation.SEQUENTIAL,
    )
    host, neighbour = out(table, HOST, SERVER), out(table, NEIGHBOUR, SERVER)
    turned = table.hairpin(HOST, neighbour)
    assert isinstance(turned, tuple)
    assert turned[1] == NEIGHBOUR
    assert (turned[0] == host) == (mapping is Mapping.ENDPOINT_INDEPENDENT)


# -- early inbound ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [EarlyInbound.DROP, EarlyInbound.REJECT, EarlyInbound.RESET])
def test_most_nats_hold_nothing_against_who_came_early(how: EarlyInbound) -> None:
    table = a_table(early_inbound=how)
    assert table.inbound(PEER, (OUTSIDE, 5000)) is DropReason.NO_MAPPING
    external = out(table, HOST, SERVER)
    assert table.inbound(PEER, external) is DropReason.FILTERED
    assert out(table, HOST, PEER) == external
    assert table.inbound(PEER, external) == HOST


@pytest.mark.parametrize("mapped", [False, True])
def test_who_came_early_is_blacklisted_with_all_of_its_ports_for_a_while(mapped: bool) -> None:
    table = a_table(early_inbound=EarlyInbound.BLACKLIST, blacklist_seconds=10.0)
    if mapped:
        out(table, HOST, SERVER)
    first = table.inbound(PEER, (OUTSIDE, 5000), 5.0)
    assert first is (DropReason.FILTERED if mapped else DropReason.NO_MAPPING)
    external = out(table, HOST, PEER, 6.0)
    out(table, HOST, PEER_AGAIN, 6.0)
    out(table, HOST, STRANGER, 6.0)
    assert table.inbound(PEER, external, 7.0) is DropReason.BLACKLISTED
    assert table.inbound(PEER_AGAIN, external, 14.9) is DropReason.BLACKLISTED
    assert table.inbound(PEER, external, 7.0, Protocol.TCP) is DropReason.BLACKLISTED
    assert table.inbound(STRANGER, external, 7.0) == HOST
    # Knocking meanwhile prolongs nothing.
    assert table.inbound(PEER, external, 15.0) == HOST


def test_a_blacklist_of_no_time_is_none() -> None:
    table = a_table(early_inbound=EarlyInbound.BLACKLIST, blacklist_seconds=0.0)
    assert table.inbound(PEER, (OUTSIDE, 5000), 1.0) is DropReason.NO_MAPPING
    external = out(table, HOST, PEER, 1.0)
    assert table.inbound(PEER, external, 1.0) == HOST


def test_a_claim_moves_the_port_of_exactly_one_destination() -> None:
    table = a_table(early_inbound=EarlyInbound.CLAIM)
    external = out(table, HOST, SERVER)
    assert table.inbound(PEER, external, 1.0) is DropReason.FILTERED
    moved = out(table, HOST, PEER, 2.0)
    assert moved != external
    assert out(table, HOST, PEER_AGAIN, 2.0) == external
    assert out(table, HOST, STRANGER, 2.0) == external
    assert out(table, HOST, SERVER, 2.0) == external
    assert table.inbound(PEER, moved, 3.0) == HOST
    assert table.inbound(PEER_AGAIN, external, 3.0) == HOST
    # A mapping once made stays, as a connection does that the kernel tracks.
    assert out(table, HOST, PEER, 4.0 + CLAIM_SECONDS) == moved


def test_what_was_claimed_is_the_routers_own_for_as_long_as_it_comes() -> None:
    table = a_table(early_inbound=EarlyInbound.CLAIM)
    external = out(table, HOST, SERVER)
    assert table.inbound(PEER, external, 0.0) is DropReason.FILTERED
    out(table, HOST, PEER, 1.0)
    for now in (2.0, 31.0, 60.0):
        assert table.inbound(PEER, external, now) is DropReason.FILTERED
    assert table.inbound(PEER, external, 60.0 + CLAIM_SECONDS) == HOST


def test_a_claim_that_ended_moves_nothing() -> None:
    table = a_table(early_inbound=EarlyInbound.CLAIM)
    external = out(table, HOST, SERVER)
    table.inbound(PEER, external, 0.0)
    assert out(table, HOST, PEER, CLAIM_SECONDS) == external


def test_a_claim_before_there_is_a_mapping_moves_the_mapping_towards_it() -> None:
    table = a_table(early_inbound=EarlyInbound.CLAIM)
    assert table.inbound(PEER, (OUTSIDE, HOST[1]), 0.0) is DropReason.NO_MAPPING
    assert out(table, HOST, PEER, 1.0) != (OUTSIDE, HOST[1])
    assert out(table, HOST, SERVER, 1.0) == (OUTSIDE, HOST[1])


def test_a_moved_mapping_that_lapsed_makes_way_for_the_first() -> None:
    table = a_table(early_inbound=EarlyInbound.CLAIM, lifetime=10.0)
    external = out(table, HOST, SERVER)
    table.inbound(PEER, external, 0.0)
    assert out(table, HOST, PEER, 1.0) != external
    assert out(table, HOST, PEER, 40.0) == external
    assert len(table.mappings) == 1


def test_a_claim_says_nothing_of_another_protocol() -> None:
    table = a_table(early_inbound=EarlyInbound.CLAIM)
    external = out(table, HOST, SERVER)
    table.inbound(PEER, external, 0.0)
    assert table.outbound(HOST, PEER, 1.0, Protocol.TCP) == external


# -- whose packet an ICMP error is about, RFC 5508 --------------------------------------------


@pytest.mark.parametrize("mapping", Mapping)
def test_either_way_an_error_finds_the_other_address(mapping: Mapping) -> None:
    table = a_table(mapping=mapping, allocation=PortAllocation.RANDOM)
    for remote in (SERVER, PEER):
        external = out(table, HOST, remote)
        assert table.internal_of(UDP, external, 1.0) == HOST
        assert table.external_of(UDP, HOST, remote, 1.0) == external
    assert table.internal_of(Protocol.TCP, external, 1.0) is None
    assert table.internal_of(UDP, (OUTSIDE, 1), 1.0) is None
    assert table.external_of(UDP, NEIGHBOUR, SERVER, 1.0) is None


def test_an_error_about_what_came_through_somebody_elses_mapping_finds_one_too() -> None:
    table = a_table(mapping=Mapping.ADDRESS_DEPENDENT, filtering=Filtering.ENDPOINT_INDEPENDENT)
    external = out(table, HOST, SERVER)
    assert table.inbound(STRANGER, external) == HOST
    assert table.external_of(UDP, HOST, STRANGER, 1.0) == external


def test_an_error_finds_the_port_that_a_claim_moved_to() -> None:
    table = a_table(early_inbound=EarlyInbound.CLAIM)
    table.inbound(PEER, out(table, HOST, SERVER), 0.0)
    moved = out(table, HOST, PEER, 1.0)
    assert table.external_of(UDP, HOST, PEER, 1.0) == moved
    assert table.internal_of(UDP, moved, 1.0) == HOST


def test_errors_refresh_nothing_and_open_nothing() -> None:
    table = a_table(lifetime=30.0)
    external = out(table, HOST, PEER)
    assert table.internal_of(UDP, external, 29.0) == HOST
    assert table.external_of(UDP, HOST, STRANGER, 29.0) == external
    assert table.inbound(STRANGER, external, 29.0) is DropReason.FILTERED
    assert table.internal_of(UDP, external, 30.0) is None
    assert table.external_of(UDP, HOST, PEER, 30.0) is None
