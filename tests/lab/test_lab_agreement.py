"""The kernel and virtual time come to the same: every scenario that both can run, and the whole
matrix."""

from __future__ import annotations

import itertools

import pytest

from ice_punch.lab.behaviour import NINE
from ice_punch.lab.catalogue import SCENARIOS
from ice_punch.lab.kernel.ability import can_run
from ice_punch.lab.kernel.batch import run_all
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import PeerSetup, Relays, Scenario, Verdict
from ice_punch.lab.virtual.session import run
from support.netns import NETNS

pytestmark = [*NETNS, pytest.mark.timeout(240)]

BOTH = [name for name, scenario in SCENARIOS.items() if can_run(scenario) is None]
EXACT = ("claiming", "claiming-late")
"""Both sides have to begin at one instant, which nothing else may put off."""
JOBS = 10
"""Most of them wait most of the time."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    together = [SCENARIOS[name] for name in BOTH if name not in EXACT]
    alone = [SCENARIOS[name] for name in EXACT]
    real = (*run_all(together, jobs=JOBS), *run_all(alone, jobs=1))
    return {outcome.scenario.name: outcome for outcome in real}


def test_all_but_foreign_peers_nat64_and_lost_interfaces_can_run_on_the_kernel() -> None:
    """What takes interfaces away from real hosts is in ``test_kernel_roaming.py``."""
    only_virtual = set(SCENARIOS) - set(BOTH)
    assert only_virtual == {
        "nat64",
        "interface-lost",
        *(name for name in SCENARIOS if name.startswith("peer-")),
    }


@pytest.mark.parametrize("name", BOTH)
def test_the_kernel_agrees_with_virtual_time(name: str, outcomes: dict[str, Outcome]) -> None:
    real, virtual = outcomes[name], run(SCENARIOS[name])
    assert real.verdict is virtual.verdict is SCENARIOS[name].expects
    if real.verdict is not Verdict.FAILED:
        assert real.same_pair, (real.a.pair, real.b.pair)


def test_the_kernel_comes_to_the_same_matrix() -> None:
    scenarios = {
        (row.short, column.short): Scenario(
            f"{row.short} x {column.short}",
            a=PeerSetup((row,)),
            b=PeerSetup((column,)),
            rtt=0.04,
            relays=Relays.UDP,
        )
        for row, column in itertools.product(NINE, NINE)
    }
    real = {o.scenario.name: o.verdict for o in run_all(scenarios.values())}
    virtual = {s.name: run(s).verdict for s in scenarios.values()}
    assert real == virtual
