"""What happens to a path in mid-session, on real kernels: the same scenarios as in virtual time."""

from __future__ import annotations

import pytest

from ice_punch.lab.behaviour import EarlyInbound, NatBehaviour, NatKind
from ice_punch.lab.kernel import can_run
from ice_punch.lab.kernel.batch import run_all
from ice_punch.lab.links import PERFECT
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import Event, Happening, Relays, Scenario, Verdict, peer
from support.netns import NETNS

pytestmark = [*NETNS, pytest.mark.alone]

OPEN, PORT = NatKind.FULL_CONE, NatKind.PORT_RESTRICTED
CLAIM = NatBehaviour(early_inbound=EarlyInbound.CLAIM)
TRAFFIC = {"rtt": 0.04, "seconds": 9.0, "datagrams_per_second": 50}
TWO = peer(PORT, second_link=PERFECT)
SLACK = 0.7
"""Seconds that a busy machine may add."""
SCENARIOS = {
    scenario.name: (scenario, gap)
    for scenario, gap in (
        (
            Scenario(
                "a moved port and an open filter",
                a=peer(PORT),
                b=peer(OPEN),
                happenings=(Happening(3.0, Event.NAT_REBINDS, "a"),),
                **TRAFFIC,
            ),
            0.5,
        ),
        (
            Scenario(
                "a moved port and a port-restricted filter",
                happenings=(Happening(3.0, Event.NAT_REBINDS, "b"),),
                **TRAFFIC,
            ),
            3.0,
        ),
        (
            Scenario(
                "a moved port and a relay",
                relays=Relays.UDP,
                happenings=(Happening(3.0, Event.NAT_REBINDS, "a"),),
                **TRAFFIC,
            ),
            2.0,
        ),
        (
            Scenario(
                "a NAT that reboots",
                happenings=(Happening(3.0, Event.NAT_REBOOTS, "a"),),
                **TRAFFIC,
            ),
            3.0,
        ),
        (
            Scenario(
                "a dead link and another one",
                a=TWO,
                happenings=(Happening(3.0, Event.LINK_DOWN, "a"),),
                **TRAFFIC,
            ),
            2.0,
        ),
        (
            Scenario(
                "a dead link and a relay",
                b=TWO,
                relays=Relays.UDP,
                happenings=(Happening(3.0, Event.LINK_DOWN, "b"),),
                **TRAFFIC,
            ),
            2.0,
        ),
        (
            Scenario(
                "an outage of four seconds",
                happenings=(
                    Happening(3.0, Event.LINK_DOWN, "b"),
                    Happening(7.0, Event.LINK_UP, "b"),
                ),
                **{**TRAFFIC, "seconds": 16.0},
            ),
            4.0 + 4.0,
        ),
        *(
            (
                Scenario(
                    f"routers that claim an early check, skew {skew} s, relay {relays}",
                    a=peer(CLAIM),
                    b=peer(CLAIM),
                    skew=skew,
                    relays=relays,
                    **TRAFFIC,
                ),
                1.0,
            )
            for skew, relays in ((0.05, Relays.NONE), (-0.05, Relays.UDP), (0.0, Relays.NONE))
        ),
    )
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    scenarios = [scenario for scenario, _ in SCENARIOS.values()]
    # What has to begin at one instant begins late where many begin at once.
    exact = [scenario for scenario in scenarios if scenario.a.nats == (CLAIM,)]
    others = [scenario for scenario in scenarios if scenario not in exact]
    outcomes = (*run_all(others), *run_all(exact, jobs=1))
    return {outcome.scenario.name: outcome for outcome in outcomes}


@pytest.mark.parametrize("name", SCENARIOS)
def test_data_flows_again_on_one_direct_path_in_time(
    name: str, outcomes: dict[str, Outcome]
) -> None:
    scenario, gap = SCENARIOS[name]
    assert can_run(scenario) is None
    outcome = outcomes[name]
    assert outcome.same_pair
    assert (outcome.a.state, outcome.b.state) == ("completed", "completed")
    may_relay = scenario.relays is Relays.UDP and scenario.happenings
    assert outcome.verdict is Verdict.DIRECT or may_relay
    for side in (outcome.a, outcome.b):
        assert side.received > 200
        assert side.longest_gap is not None
        assert side.longest_gap < gap + SLACK
