"""ICE restarts of two agents while data flows: by either side, by both at once, again and again."""

from __future__ import annotations

import pytest
from lab_roaming import SIDES, Roaming

from ice_punch.ice import IceState, RestartAdvised
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.links import AccessLink, LinkProfile
from ice_punch.lab.scenario import Relays, Scenario, Side, peer
from ice_punch.lab.virtual.session import VirtualSession

PORT, SYMMETRIC = NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC


def restarting(*restarts: tuple[float, Side], **more: object) -> Roaming:
    """A session in which each of ``restarts`` is begun so many seconds after the start."""
    scenario = Scenario(**{"datagrams_per_second": 100, "rtt": 0.08, "seconds": 20.0, **more})  # type: ignore[arg-type]
    session = VirtualSession(scenario)
    start = session.start

    def start_and_restart() -> None:
        start()
        for at, side in restarts:
            session.internet.at(
                session.internet.now + at, lambda side=side: session.signaling.restart(side)
            )

    session.start = start_and_restart  # type: ignore[method-assign]
    return Roaming.of(session)


def restarts_of(run: Roaming) -> list[int]:
    return [run.counter(side, "restarts") for side in SIDES]


def loses_nothing(run: Roaming) -> bool:
    return run.outcome.a.lost == run.outcome.b.lost == 0 and run.unaccounted() == 0


@pytest.mark.parametrize("side", SIDES)
def test_either_side_restarts_and_no_datagram_is_lost_or_late(side: Side) -> None:
    run = restarting((5.0, side))
    assert restarts_of(run) == [1, 1]
    assert loses_nothing(run)
    assert run.settled()
    assert max(run.gap("a"), run.gap("b")) < 0.06
    assert len(run.selected("a", 4.9)) == 1
    assert IceState.DISCONNECTED not in run.states("a", 0) + run.states("b", 0)


@pytest.mark.parametrize("apart", [0.0, 0.001, 0.02, 0.04, 0.0401, 0.08, 0.3])
def test_both_restart_at_once(apart: float) -> None:
    """Glare: each takes the other's description for the answer to its own, and both are right."""
    run = restarting((5.0, "a"), (5.0 + apart, "b"))
    assert loses_nothing(run)
    assert run.settled()
    a, b = (run.session.peers[side].machine for side in SIDES)
    assert a.remote_credentials == b.credentials  # type: ignore[attr-defined]
    assert b.remote_credentials == a.credentials  # type: ignore[attr-defined]
    assert restarts_of(run)[0] == restarts_of(run)[1] <= (1 if apart < 0.04 else 2)


def test_forty_restarts_in_twenty_seconds_are_no_more_than_forty() -> None:
    many: list[tuple[float, Side]] = [(2.0 + n * 0.4, SIDES[n % 2]) for n in range(40)]
    run = restarting(*many, seconds=35.0)
    assert loses_nothing(run)
    assert run.settled()
    assert restarts_of(run)[0] == restarts_of(run)[1] <= 40
    for side in SIDES:
        agent = run.session.peers[side].machine
        assert len(agent._generations) == 1  # type: ignore[attr-defined]


def test_restarts_over_a_relay_lose_nothing_either() -> None:
    run = restarting(
        (5.0, "a"), (9.0, "b"), a=peer(SYMMETRIC), b=peer(SYMMETRIC), relays=Relays.UDP
    )
    assert loses_nothing(run)
    assert run.settled()


@pytest.mark.parametrize("seed", range(5))
def test_restarts_over_a_bad_link_end_on_one_pair(seed: int) -> None:
    bad = AccessLink.both(LinkProfile(0.03, jitter=0.02, loss=0.1))
    scenario_more = {"a": peer(PORT, bad), "b": peer(PORT, bad), "seconds": 40.0}
    run = restarting((5.0 + seed / 10, "a"), (5.2, "b"), (12.0, "a"), **scenario_more)
    assert run.settled()
    assert run.unaccounted() == 0


def test_nobody_advises_a_restart_where_all_is_well() -> None:
    run = Roaming(Scenario(datagrams_per_second=20, seconds=300.0))
    assert [run.told(side, RestartAdvised, 0.0) for side in SIDES] == [[], []]
    assert [len(run.selected(side, 0.0)) for side in SIDES] == [1, 1]
