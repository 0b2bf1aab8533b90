"""On links that other stacks do not connect on: 200 seeds each, within the 39.5 s of RFC 8863."""

from __future__ import annotations

import statistics

import pytest

from ice_punch.lab.links import preset
from ice_punch.lab.outcome import Outcome
from ice_punch.lab.scenario import Relays, Scenario, peer
from ice_punch.lab.virtual.session import run

RFC_8863 = 39.5


def outcomes(link: str, *, relays: Relays) -> list[Outcome]:
    scenario = Scenario(a=peer("port_restricted", preset(link)), rtt=0.0, relays=relays)
    return [run(scenario, seed) for seed in range(200)]


@pytest.mark.parametrize("relays", [Relays.NONE, Relays.UDP])
@pytest.mark.parametrize(
    ("link", "least", "median"), [("barely_usable", 200, 4.0), ("absurd", 198, 8.0)]
)
def test_nearly_everybody_connects(link: str, least: int, median: float, relays: Relays) -> None:
    connected = [
        time
        for outcome in outcomes(link, relays=relays)
        if (time := outcome.connect_time) is not None and time <= RFC_8863
    ]
    assert len(connected) >= least
    assert statistics.median(connected) < median
