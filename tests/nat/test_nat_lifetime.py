"""The lifetime of mappings and who refreshes them: RFC 5780 section 4.6, RFC 4787 section 4.3."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_support import PRIMARY, Bench, NoNat, SmallNat

from ice_punch.datagram import Address, Transmit
from ice_punch.nat import LifetimeDetermined, LifetimeDiscovery, RefreshBehaviour
from ice_punch.stun import (
    ERROR_CODE,
    RESPONSE_PORT,
    UNKNOWN_ATTRIBUTES,
    XOR_MAPPED_ADDRESS,
    BindingServer,
    ErrorCode,
    MessageClass,
    parse_message,
    response_to,
)

TESTED = ("10.0.0.2", 40_000)
HELPERS = [("10.0.0.2", 40_010 + 10 * n) for n in range(8)]
REFRESHED_BY = {
    RefreshBehaviour.OUTBOUND: ("out",),
    RefreshBehaviour.INBOUND: ("in",),
    RefreshBehaviour.BOTH: ("out", "in"),
}


class WithoutResponsePort(BindingServer):
    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        request = parse_message(data)
        if request.get(RESPONSE_PORT) is None:
            super().receive_datagram(data, source, local, now)
            return
        response = response_to(request, MessageClass.ERROR)
        response.add(ERROR_CODE, ErrorCode(420, "Unknown Attribute"))
        response.add(UNKNOWN_ATTRIBUTES, (RESPONSE_PORT.type,))
        self._outgoing.append(Transmit(response.to_bytes(), local, source))


def only_to_who_asked(answer: Transmit) -> Transmit | None:
    response = parse_message(answer.data)
    return answer if response.get(XOR_MAPPED_ADDRESS) == answer.destination else None


def discover(
    nat: SmallNat, *, bench: dict[str, Any] | None = None, **search: float
) -> tuple[LifetimeDetermined, float, Bench]:
    place = Bench(nat, **(bench or {}))
    discovery = LifetimeDiscovery(PRIMARY, TESTED, HELPERS, random.Random(1), 0.0, **search)  # type: ignore[arg-type]
    event, now = place.run(discovery)
    assert isinstance(event, LifetimeDetermined)
    return event, now, place


@pytest.mark.parametrize("refresh", REFRESHED_BY)
@pytest.mark.parametrize("lifetime", [10.0, 30.0, 65.0, 300.0])
def test_lifetime_and_refreshing_are_found(lifetime: float, refresh: RefreshBehaviour) -> None:
    nat = SmallNat(lifetime=lifetime, refreshed_by=REFRESHED_BY[refresh])
    event, _, _ = discover(nat)
    assert event.alive_after is not None
    assert event.expired_after is not None
    assert event.alive_after < lifetime <= event.expired_after + 0.05
    assert event.expired_after - event.alive_after <= 1.0
    assert event.refresh is refresh


@settings(max_examples=50, deadline=None)
@given(lifetime=st.floats(4.0, 500.0), precision=st.floats(0.1, 2.0), first=st.floats(1.0, 100.0))
def test_any_lifetime_lies_between_the_two_bounds(
    lifetime: float, precision: float, first: float
) -> None:
    search = {"precision": precision, "first": first, "time_limit": 1e6}
    event, _, _ = discover(SmallNat(lifetime=lifetime), **search)
    assert event.alive_after is not None
    assert event.expired_after is not None
    assert event.alive_after < lifetime <= event.expired_after + 0.05
    assert event.expired_after - event.alive_after <= precision + 0.1


def test_the_search_is_binary() -> None:
    event, _, _ = discover(SmallNat(lifetime=300.0), first=15.0, precision=1.0)
    # 0, 15, 30, 60, 120, 240, 480, then 240 s halved eight times, and three for refreshing
    assert event.tests <= 7 + 8 + 3


def test_a_mapping_is_looked_at_with_response_port_from_another_socket() -> None:
    _, _, bench = discover(SmallNat(lifetime=30.0))
    looks = [(local, m.get(RESPONSE_PORT)) for _, local, _, m in bench.sent if m.get(RESPONSE_PORT)]
    ports = {entry.mapped[1] for entry in bench.nat.entries if entry.local == TESTED}
    assert looks
    assert all(local != TESTED and port in ports for local, port in looks)


def test_a_mapping_that_outlives_the_search_has_a_lower_bound_only() -> None:
    event, _, _ = discover(SmallNat(), longest=100.0)
    assert event.alive_after == pytest.approx(100.0, abs=0.1)
    assert event.expired_after is None
    assert event.refresh is RefreshBehaviour.UNKNOWN
    assert event.reason == "it lives for 100 s at least"


@pytest.mark.parametrize("limit", [0.0, 5.0, 60.0, 200.0, 400.0])
def test_it_ends_in_time_with_what_it_knows(limit: float) -> None:
    event, now, _ = discover(SmallNat(lifetime=90.0), time_limit=limit)
    assert now <= limit
    assert event.reason == "the time is up"
    if limit >= 60:
        assert event.alive_after is not None
        assert event.alive_after < 90
    assert event.expired_after is None or event.expired_after >= 90


def test_a_lost_datagram_changes_nothing() -> None:
    for lost in range(1, 40):
        event, _, _ = discover(
            SmallNat(lifetime=30.0), bench={"lose": lambda number, lost=lost: number == lost}
        )
        assert event.alive_after is not None
        assert event.expired_after is not None
        assert event.alive_after < 30.0 <= event.expired_after + 0.05


def test_of_several_external_addresses_a_helper_is_found_that_shares_the_right_one() -> None:
    source = random.Random(3)
    nat = SmallNat(lifetime=30.0, ip=lambda number: f"203.0.113.{source.randrange(4)}")
    bench = Bench(nat)
    helpers = [("10.0.0.2", 41_000 + n) for n in range(30)]
    event, _ = bench.run(LifetimeDiscovery(PRIMARY, TESTED, helpers, random.Random(1), 0.0))
    assert event.alive_after < 30.0 <= event.expired_after + 0.05
    assert event.refresh is RefreshBehaviour.OUTBOUND


def test_without_such_a_helper_nothing_is_measured() -> None:
    event, _, bench = discover(SmallNat(ip=lambda number: f"203.0.113.{number}"))
    assert event.alive_after is None
    assert event.reason == "no two sockets have one external address"
    assert not any(message.get(RESPONSE_PORT) for _, _, _, message in bench.sent)


def test_a_mapping_that_took_the_place_of_an_old_one_is_not_taken_for_it_rfc5780_4_6() -> None:
    """The helper gets the very port that the tested socket had."""
    nat = SmallNat(lifetime=30.0, port=lambda local, number: 50_000)
    event, _, _ = discover(nat)
    assert event.alive_after is None or event.alive_after < 30.0


def test_a_server_without_response_port_is_named() -> None:
    """RFC 5780 section 5: it answers 420, to where the request came from."""
    event, _, _ = discover(SmallNat(), bench={"server": WithoutResponsePort(PRIMARY)})
    assert event.alive_after is None
    assert event.reason == "the server answered 420 Unknown Attribute"


def test_a_server_whose_answer_to_another_port_gets_lost_is_found_out_by_the_control_test() -> None:
    event, _, _ = discover(SmallNat(), bench={"tamper": only_to_who_asked})
    assert event.alive_after is None
    assert event.reason == "a response to another port does not come at all"


def test_a_mapping_that_nothing_refreshes_is_found_to_be_inconsistent() -> None:
    event, _, _ = discover(SmallNat(lifetime=65.0, refreshed_by=()))
    assert event.reason == "the mapping does not always live for the same time"
    assert event.refresh is RefreshBehaviour.UNKNOWN


def test_without_a_nat_it_says_so() -> None:
    event, now, _ = discover(NoNat())
    assert event.reason == "there is no NAT: the server sees the local address"
    assert now < 1.0


def test_a_silent_server_ends_it() -> None:
    event, _, _ = discover(SmallNat(), bench={"lose": lambda number: True})
    assert event.reason == "the server does not answer"
    assert event.alive_after is event.expired_after is None


def test_what_refreshes_outbound_is_an_indication_that_nobody_answers() -> None:
    _, _, bench = discover(SmallNat(lifetime=30.0))
    indications = [
        local for _, local, _, m in bench.sent if m.message_class is MessageClass.INDICATION
    ]
    assert indications == [TESTED]


def test_sockets_and_times_that_are_none_raise() -> None:
    for helpers in ([], [TESTED]):
        with pytest.raises(ValueError, match="second socket"):
            LifetimeDiscovery(PRIMARY, TESTED, helpers, random.Random(1), 0.0)
    for search in ({"first": 0.0}, {"first": 20.0, "longest": 10.0}, {"precision": 0.0}):
        with pytest.raises(ValueError, match="search"):
            LifetimeDiscovery(PRIMARY, TESTED, HELPERS, random.Random(1), 0.0, **search)  # type: ignore[arg-type]
