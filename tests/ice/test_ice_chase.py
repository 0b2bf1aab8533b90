"""Two NATs that map by port and filter by address: every check comes from a port of its own, is
answered from another, and triggers the next. Other checks must have their turn all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ice_punch.ice import Candidate, CandidateType
from ice_punch.ice.requests import MAX_CHASED
from ice_punch.lab.behaviour import Filtering, NatKind
from support.agents import Meeting

SYMMETRIC = NatKind.SYMMETRIC.behaviour
assert SYMMETRIC is not None
CHASING = replace(SYMMETRIC, filtering=Filtering.ADDRESS_DEPENDENT)
RELAY = Candidate(
    foundation="9",
    component=1,
    transport="udp",
    priority=1,
    host="203.0.113.200",
    port=50000,
    type=CandidateType.RELAY,
)


def chase(rtt: float, seconds: float) -> Meeting:
    meeting = Meeting(CHASING, CHASING, rtt=rtt)
    internet = meeting.internet

    def begin() -> None:
        meeting.a.meet(meeting.b, end=False)
        meeting.b.meet(meeting.a)
        meeting.a.agent.add_remote_candidate(RELAY, internet.now)

    meeting.begun = internet.now
    internet.at(internet.now, begin)
    meeting.run(seconds)
    return meeting


@pytest.mark.parametrize("rtt", [0.01, 0.02, 0.05, 0.1, 0.3])
def test_the_check_towards_a_relay_leaves_within_a_few_slots(rtt: float) -> None:
    meeting = chase(rtt, 1.0)
    to_relay = [
        p.sent_at - meeting.begun
        for p in meeting.internet.trace.sent_by("a")
        if p.destination == RELAY.address
    ]
    assert to_relay[0] <= (3 + MAX_CHASED) * 0.02 + 1e-9


def test_the_chase_goes_on_at_the_end_of_the_line() -> None:
    """It may come to something: the peer's NAT can be of a better kind than it seems."""
    meeting = chase(0.05, 1.0)
    learned = {c.port for c in meeting.a.agent.remote_candidates if c.type is CandidateType.PRFLX}
    assert len(learned) > 2 * MAX_CHASED
    checked = {p.destination[1] for p in meeting.internet.trace.sent_by("a")}
    assert len(learned & checked) > 2 * MAX_CHASED


def test_the_chase_stays_within_the_bounds_of_the_check_list() -> None:
    meeting = chase(0.02, 10.0)
    assert len(meeting.a.agent.check_list) <= 100
    assert len(meeting.a.agent.remote_candidates) <= 100
    sent = [p for p in meeting.internet.trace.sent_by("a") if p.sent_at >= meeting.begun]
    # Checks, their resends, and answers to as many of the peer's.
    assert len(sent) <= 10.0 / 0.02 * 3
