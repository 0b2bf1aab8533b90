"""Every virtual NAT, seen from inside by a probe that knows nothing of how it is made."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from ice_punch.lab.behaviour import (
    NINE,
    Blocking,
    Filtering,
    Hairpinning,
    Mapping,
    NatBehaviour,
    NatKind,
    Pooling,
    PortAllocation,
    Refresh,
)
from ice_punch.lab.probe import ProbedBehaviour, probe

LIFETIME = 30.0
SLACK = 0.05
"""Seconds: what is measured as idle time lacks the round trips around it."""


def hairpin_can_be_seen(behaviour: NatBehaviour) -> bool:
    """Two sockets behind the NAT can open its filter to each other only if they can know each
    other's ports. Otherwise nothing comes back from any hairpin, and none is all the same."""
    return (
        behaviour.mapping is Mapping.ENDPOINT_INDEPENDENT
        or behaviour.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT
    )


def assert_found(probed: ProbedBehaviour, behaviour: NatBehaviour) -> None:
    assert probed.mapping.value == behaviour.mapping.value
    assert probed.filtering.value == behaviour.filtering.value
    assert probed.allocation.value == behaviour.allocation.value
    assert probed.pooling.value == behaviour.pooling.value
    sequential = behaviour.allocation is PortAllocation.SEQUENTIAL
    assert probed.step == (behaviour.step if sequential else None)
    hairpinning = behaviour.hairpinning.value if hairpin_can_be_seen(behaviour) else "unknown"
    assert probed.hairpinning.value == hairpinning
    alive_after, gone_after = probed.lifetime
    assert alive_after is not None
    if behaviour.lifetime is None:
        assert gone_after is None
        assert probed.refresh.value == "unknown"
    else:
        assert gone_after is not None
        assert alive_after < behaviour.lifetime <= gone_after + SLACK
        assert gone_after - alive_after < 1.1
        assert probed.refresh.value == behaviour.refresh.value


@pytest.mark.parametrize("nat", NINE, ids=lambda nat: nat.short)
def test_whatever_a_nat_is_made_of_the_probe_finds_it(nat: NatBehaviour) -> None:
    """Each of the nine with every allocation, hairpinning, pooling and refresh: 810 in all."""
    rest = product(PortAllocation, Hairpinning, Pooling, Refresh)
    for seed, (allocation, hairpinning, pooling, refresh) in enumerate(rest):
        behaviour = replace(
            nat,
            allocation=allocation,
            hairpinning=hairpinning,
            pooling=pooling,
            refresh=refresh,
            lifetime=LIFETIME,
            external_addresses=4,
        )
        assert_found(probe(behaviour, seed), behaviour)


@pytest.mark.parametrize("step", [1, -1, 2, -2, 7, 100, -4096, 10_000])
def test_every_step_is_measured(step: int) -> None:
    for pooling in Pooling:
        behaviour = NatBehaviour(
            allocation=PortAllocation.SEQUENTIAL, step=step, pooling=pooling, external_addresses=3
        )
        assert_found(probe(behaviour), behaviour)


@pytest.mark.parametrize("lifetime", [5.0, 12.5, 65.0, None])
def test_every_lifetime_is_measured(lifetime: float | None) -> None:
    for mapping, refresh in product(Mapping, Refresh):
        behaviour = NatBehaviour(mapping=mapping, lifetime=lifetime, refresh=refresh)
        assert_found(probe(behaviour), behaviour)


@pytest.mark.parametrize("nat", NINE, ids=lambda nat: nat.short)
def test_the_verdict_does_not_hang_on_the_seed(nat: NatBehaviour) -> None:
    behaviour = replace(nat, lifetime=LIFETIME, hairpinning=Hairpinning.EXTERNAL_SOURCE)
    for seed in range(10):
        assert_found(probe(behaviour, seed), behaviour)


def test_the_same_seed_measures_the_same() -> None:
    behaviour = replace(NINE[-1], lifetime=LIFETIME, pooling=Pooling.ARBITRARY)
    behaviour = replace(behaviour, external_addresses=4)
    assert probe(behaviour, 7) == probe(behaviour, 7)
    assert probe(behaviour, 7) != probe(behaviour, 8)


def test_all_external_addresses_are_seen_where_any_of_them_may_be_used() -> None:
    behaviour = NatBehaviour(pooling=Pooling.ARBITRARY, external_addresses=4)
    expected = {f"198.51.100.{n}" for n in (1, 2, 3, 4)}
    assert set(probe(behaviour).external_ips) == expected
    paired = probe(replace(behaviour, pooling=Pooling.PAIRED))
    assert len(paired.external_ips) == 1


def test_every_kind_that_has_a_name_is_what_its_name_says() -> None:
    for kind in (
        NatKind.FULL_CONE,
        NatKind.ADDRESS_RESTRICTED,
        NatKind.PORT_RESTRICTED,
        NatKind.SYMMETRIC,
    ):
        behaviour = kind.behaviour
        assert behaviour is not None
        assert_found(probe(behaviour), behaviour)


def test_where_udp_does_not_get_out_nothing_is_known_and_that_is_said() -> None:
    probed = probe(NatBehaviour(blocking=Blocking.UDP))
    verdicts = (
        probed.mapping,
        probed.filtering,
        probed.allocation,
        probed.hairpinning,
        probed.pooling,
        probed.refresh,
    )
    assert {verdict.value for verdict in verdicts} == {"unknown"}
    assert probed.lifetime == (None, None)
    reasons = dict(probed.reasons)
    assert reasons["mapping"] == reasons["allocation"] == "the server does not answer"


def test_a_probe_takes_less_than_300_datagrams() -> None:
    worst = max(
        probe(replace(nat, lifetime=LIFETIME, pooling=pooling, external_addresses=4)).datagrams
        for nat, pooling in product(NINE, Pooling)
    )
    assert 100 < worst < 300
