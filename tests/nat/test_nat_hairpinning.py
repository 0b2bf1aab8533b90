"""Hairpinning, RFC 4787 section 6 and RFC 5780 section 3.4."""

from __future__ import annotations

import random

import pytest
from nat_support import PRIMARY, Bench, NoNat, SmallNat

from ice_punch.nat import (
    FilteringBehaviour,
    HairpinDiscovery,
    HairpinningBehaviour,
    HairpinResult,
    HairpinTested,
    MappingBehaviour,
    hairpinning_verdict,
)

TARGET = ("10.0.0.2", 40_000)
SENDER = ("10.0.0.2", 40_010)


def discover(nat: SmallNat, **settings: object) -> tuple[HairpinTested, float, Bench]:
    bench = Bench(nat, **settings)  # type: ignore[arg-type]
    event, now = bench.run(HairpinDiscovery(PRIMARY, TARGET, [SENDER], random.Random(1), 0.0))
    assert isinstance(event, HairpinTested)
    return event, now, bench


@pytest.mark.parametrize("filters", [True, False])
@pytest.mark.parametrize(
    ("hairpin", "result"),
    [
        ("none", HairpinResult.NOTHING),
        ("internal", HairpinResult.FROM_INTERNAL),
        ("external", HairpinResult.FROM_EXTERNAL),
    ],
)
def test_every_hairpin_is_seen_through_every_filter(
    hairpin: str, result: HairpinResult, filters: bool
) -> None:
    event, now, _ = discover(SmallNat(hairpin=hairpin, filters=filters))
    assert event.result is result
    assert now < (2.5 if hairpin == "none" else 0.5)


def test_the_sender_aims_at_the_mapped_address_after_the_target_has_opened_its_filter() -> None:
    _, _, bench = discover(SmallNat())
    mapped = {entry.local: entry.mapped for entry in bench.nat.entries}
    to_nat = [(local, to) for _, local, to, _ in bench.sent if to != PRIMARY]
    assert to_nat == [(TARGET, mapped[SENDER]), (SENDER, mapped[TARGET])] * 3


def test_a_lost_datagram_does_not_make_a_hairpin_none() -> None:
    # 1 and 2 ask the server, 3 is the target's first, 4 the sender's first
    event, _, _ = discover(SmallNat(hairpin="external"), lose=lambda number: number in (1, 3, 4))
    assert event.result is HairpinResult.FROM_EXTERNAL


def test_without_a_nat_there_is_no_hairpin() -> None:
    event, _, bench = discover(NoNat())
    assert event.result is HairpinResult.NO_NAT
    assert len(bench.sent) == 2


def test_a_silent_server_ends_it() -> None:
    event, _, _ = discover(SmallNat(), lose=lambda number: True)
    assert event.result is HairpinResult.NO_ANSWER
    assert event.reason == "the server does not answer"


def test_only_our_own_requests_count() -> None:
    discovery = HairpinDiscovery(PRIMARY, TARGET, [SENDER], random.Random(1), 0.0)
    for data in (b"", b"\xff" * 30, bytes(20)):
        discovery.receive_datagram(data, ("203.0.113.5", 1), TARGET, 0.1)
    request = discovery.datagrams_to_send(0.1)[0].data
    discovery.receive_datagram(request, ("203.0.113.5", 1), TARGET, 0.1)
    assert not discovery.done


@pytest.mark.parametrize("mapping", list(MappingBehaviour))
@pytest.mark.parametrize("filtering", list(FilteringBehaviour))
def test_nothing_proves_something_only_where_the_filter_could_have_been_opened(
    mapping: MappingBehaviour, filtering: FilteringBehaviour
) -> None:
    nothing = HairpinTested(HairpinResult.NOTHING, "nothing came back")
    sure = mapping is MappingBehaviour.ENDPOINT_INDEPENDENT or filtering in (
        FilteringBehaviour.ENDPOINT_INDEPENDENT,
        FilteringBehaviour.ADDRESS_DEPENDENT,
    )
    expected = HairpinningBehaviour.NONE if sure else HairpinningBehaviour.UNKNOWN
    assert hairpinning_verdict(nothing, mapping, filtering).behaviour is expected
    something = HairpinTested(HairpinResult.FROM_EXTERNAL, "it came back")
    verdict = hairpinning_verdict(something, mapping, filtering)
    assert verdict.behaviour is HairpinningBehaviour.EXTERNAL_SOURCE


def test_a_symmetric_nat_that_hairpins_shows_nothing_and_is_not_called_none() -> None:
    event, _, _ = discover(SmallNat(hairpin="external", maps_by_destination=True))
    assert event.result is HairpinResult.NOTHING
    verdict = hairpinning_verdict(
        event,
        MappingBehaviour.ADDRESS_AND_PORT_DEPENDENT,
        FilteringBehaviour.ADDRESS_AND_PORT_DEPENDENT,
    )
    assert verdict.behaviour is HairpinningBehaviour.UNKNOWN
    assert "filter" in verdict.reason


def test_one_socket_is_too_few() -> None:
    for senders in ([], [TARGET]):
        with pytest.raises(ValueError, match="two sockets"):
            HairpinDiscovery(PRIMARY, TARGET, senders, random.Random(1), 0.0)
