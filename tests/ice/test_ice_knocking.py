"""A side whose NAT maps by destination keeps knocking: nobody can know the port it comes from, so
what it sends before the other side's filter is open is lost, and only it can open the way."""

from __future__ import annotations

import itertools

import pytest

from ice_punch.ice.knocking import KNOCK_FOR
from ice_punch.lab.behaviour import NINE, Filtering, Mapping, NatBehaviour, NatKind
from ice_punch.stun import BindingServer
from support.agents import Meeting

SYMMETRIC = NatKind.SYMMETRIC.behaviour
ADDRESS_RESTRICTED = NatKind.ADDRESS_RESTRICTED.behaviour
VARYING = [behaviour for behaviour in NINE if behaviour.mapping is not Mapping.ENDPOINT_INDEPENDENT]
TA = 0.02


def meeting_with_two_servers(
    nat_a: NatBehaviour | None, nat_b: NatBehaviour | None, **options: float
) -> Meeting:
    """Two servers at two IP addresses show each side how its NAT maps."""
    assert nat_a is not None
    assert nat_b is not None
    meeting = Meeting(nat_a, nat_b, rtt=options.get("rtt", 0.1))
    internet = meeting.internet
    second = ("198.51.101.1", 3478)
    internet.attach(internet.host("second", second[0]), BindingServer(second))
    for side in (meeting.a, meeting.b):
        side.agent.query_server("stun:second", second, side.address, internet.now)
    internet.run(internet.now + 1)
    return meeting


@pytest.mark.parametrize("skew", [0.05, 0.15, 0.6, 2.0])
@pytest.mark.parametrize("nat", VARYING, ids=lambda nat: nat.short)
def test_the_early_side_gets_through_as_soon_as_the_late_side_has_opened(
    nat: NatBehaviour, skew: float
) -> None:
    r = 0.1
    meeting = meeting_with_two_servers(nat, ADDRESS_RESTRICTED, rtt=r)
    meeting.start(skew=skew)
    assert meeting.until_valid()
    latest = max(meeting.a.valid_at, meeting.b.valid_at) - meeting.begun
    assert latest <= skew + 1.5 * r + 0.045


def test_knocks_are_checks_of_their_own_and_keep_the_distance_of_ta() -> None:
    meeting = meeting_with_two_servers(SYMMETRIC, SYMMETRIC)
    before = len(meeting.internet.trace)
    meeting.internet.at(meeting.internet.now, lambda: meeting.a.meet(meeting.b))
    meeting.run(1.0)
    sent = [p for p in list(meeting.internet.trace)[before:] if p.sender == "a"]
    firsts = {p.data[8:20]: p.sent_at for p in reversed(sent)}
    times = sorted(firsts.values())
    assert len(times) >= 45
    assert all(later - earlier >= TA - 1e-9 for earlier, later in itertools.pairwise(times))
    assert meeting.a.agent.counters["checks_repeated"] == len(times) - 3


def test_knocking_ends_after_a_while() -> None:
    meeting = meeting_with_two_servers(SYMMETRIC, SYMMETRIC)
    meeting.start()
    meeting.run(KNOCK_FOR + 0.1)
    knocks = meeting.a.agent.counters["checks_repeated"]
    assert 100 <= knocks <= KNOCK_FOR / TA
    meeting.run(20.0)
    assert meeting.a.agent.counters["checks_repeated"] == knocks


def test_who_can_be_reached_does_not_knock() -> None:
    meeting = meeting_with_two_servers(NatBehaviour(), SYMMETRIC)
    meeting.start(skew=1.0)
    meeting.run(3.0)
    assert meeting.a.agent.counters["checks_repeated"] == 0
    assert meeting.b.agent.counters["checks_repeated"] > 0


def test_one_server_does_not_tell_how_the_nat_maps_and_nobody_knocks() -> None:
    meeting = Meeting(NatKind.SYMMETRIC, NatKind.ADDRESS_RESTRICTED)
    meeting.start(skew=0.6)
    assert meeting.until_valid()
    assert meeting.a.agent.counters["checks_repeated"] == 0


def test_the_answer_to_a_knock_measures_the_round_trip() -> None:
    meeting = meeting_with_two_servers(SYMMETRIC, ADDRESS_RESTRICTED, rtt=0.3)
    meeting.start(skew=0.7)
    assert meeting.until_completed()
    pair = meeting.a.agent.selected_pair()
    assert pair is not None
    assert pair.rtt == pytest.approx(0.3)


def test_a_selected_pair_ends_the_knocking() -> None:
    meeting = meeting_with_two_servers(
        NatBehaviour(mapping=Mapping.ADDRESS_DEPENDENT, filtering=Filtering.ADDRESS_DEPENDENT),
        ADDRESS_RESTRICTED,
    )
    meeting.start(skew=0.3)
    assert meeting.until_completed()
    knocks = meeting.a.agent.counters["checks_repeated"]
    assert knocks > 0
    meeting.run(2.0)
    assert meeting.a.agent.counters["checks_repeated"] == knocks


def test_a_side_that_closes_meanwhile_forgets_what_it_knocked_on() -> None:
    meeting = meeting_with_two_servers(SYMMETRIC, SYMMETRIC)
    meeting.start()
    meeting.run(0.5)
    agent = meeting.a.agent
    assert agent._lineage.current.knocking.has_work()
    agent.close(meeting.internet.now)
    assert not agent._lineage.current.knocking.has_work()
    assert agent.get_timer() is None
