"""Whatever the peer or the servers are like: not one datagram of the application is lost without
being counted."""

from __future__ import annotations

import pytest
from lab_roaming import Roaming

from ice_punch.ice import IceState
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.links import AccessLink, LinkProfile
from ice_punch.lab.scenario import Habit, Relays, Scenario, Verdict, peer
from ice_punch.lab.virtual.session import VirtualSession

PORT, SYMMETRIC = NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC


def flowing(**more: object) -> Scenario:
    return Scenario(**{"datagrams_per_second": 50, "seconds": 20.0, "rtt": 0.06, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "habit", [Habit.SLOW, Habit.LITE, Habit.AGGRESSIVE, Habit.NO_TRIGGERED_CHECKS]
)
@pytest.mark.parametrize("role", ["a", "b"])
def test_with_peers_of_other_habits(habit: Habit, role: str) -> None:
    """Answers that come 2 s late, a peer that never checks, one that nominates all there is."""
    nats = NatKind.NONE if habit is Habit.LITE else PORT
    other = {"a": "b", "b": "a"}[role]
    run = Roaming(flowing(**{role: peer(nats, habit=habit), other: peer(PORT)}))
    assert run.outcome.verdict is Verdict.DIRECT
    assert run.unaccounted() == 0
    assert run.outcome.a.received > 500
    assert run.outcome.b.received > 500
    assert run.outcome.a.lost + run.outcome.b.lost <= 4


@pytest.mark.parametrize("controlling", [True, False])
def test_with_roles_that_conflict(controlling: bool) -> None:
    """Both believe to be controlling, or both controlled, for as long as it takes to find out."""
    for seed in range(4):
        session = VirtualSession(flowing(), seed)
        for side in session.peers.values():
            side.machine._session.controlling = controlling  # type: ignore[attr-defined]
        run = Roaming.of(session)
        assert run.settled()
        assert {p.machine.controlling for p in session.peers.values()} == {True, False}
        assert run.unaccounted() == 0
        assert run.outcome.a.lost == run.outcome.b.lost == 0


def test_with_servers_that_never_answer() -> None:
    session = VirtualSession(flowing(relays=Relays.UDP, a=peer(NatKind.NONE)))
    for host in (session.topology.stun, session.topology.turn):
        for interface in host.interfaces:
            interface.up = False
    run = Roaming.of(session)
    assert run.settled()
    assert run.unaccounted() == 0
    assert run.outcome.a.lost == run.outcome.b.lost == 0


def test_with_answers_that_come_late_and_out_of_order() -> None:
    wild = AccessLink.both(LinkProfile(0.05, jitter=0.4, reordering=0.3, duplication=0.2))
    for seed in range(4):
        run = Roaming(flowing(a=peer(PORT, wild), seconds=40.0), seed)
        assert run.settled()
        assert run.unaccounted() == 0


def test_with_a_relay_on_one_side_only() -> None:
    run = Roaming(flowing(a=peer(SYMMETRIC), b=peer(SYMMETRIC), relays=Relays.UDP))
    assert run.outcome.verdict is Verdict.RELAYED
    assert run.unaccounted() == 0
    assert IceState.DISCONNECTED not in run.states("a", 0) + run.states("b", 0)
