"""Sessions with libnice that live on while data flows: restarts from either side, and paths that
open and close.

libnice follows a renomination (draft-thatcher-ice-renomination) to a pair of lower priority only
where both its ends differ from those of the selected one: not from a direct pair to a relay, but to
another family.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from ice_punch.lab.kernel.internet import load_rules
from support.foreign_peer import Setup
from support.foreign_sessions import (
    INTERVAL,
    Meetings,
    Ours,
    Sides,
    assert_good,
    assert_same_pair,
    missing,
)
from support.foreign_stories import (
    BLOCKED,
    the_direct_way_opens,
    the_selected_family_fails,
    they_restart,
    we_restart,
)
from support.foreign_world import (
    LIBNICE,
    NEEDS_LIBNICE,
    OUR_STUN,
    OUR_TURN,
    STUN,
    TURN,
    behind_nats,
    dual_stack,
)

pytestmark = NEEDS_LIBNICE

LONGEST_OUTAGE = 2.0
"""Seconds."""

RESTARTS: dict[str, Sides] = {
    f"{who}, {role}": (Ours(we_control, (OUR_STUN,)), Setup(not we_control, stun=STUN), story)
    for who, story in (("we restart", we_restart), ("libnice restarts", they_restart))
    for role, we_control in (("we control", True), ("libnice controls", False))
}
FOLLOWS = Setup(False, renomination=True, stun=STUN)
OUR_RELAY: dict[str, Sides] = {
    "through our relay": (Ours(True, (OUR_TURN,)), FOLLOWS, the_direct_way_opens)
}
THEIR_RELAY: dict[str, Sides] = {
    "through its relay": (
        Ours(True, (OUR_STUN,)),
        Setup(False, renomination=True, stun=STUN, turn=TURN),
        the_direct_way_opens,
    )
}
FAILURE: dict[str, Sides] = {"one family": (Ours(True), FOLLOWS, the_selected_family_fails)}


@pytest.fixture(scope="module")
def meetings() -> Iterator[Meetings]:
    with contextlib.ExitStack() as stack:
        nats, ours, theirs = (stack.enter_context(behind_nats()) for _ in range(3))
        both = stack.enter_context(dual_stack())
        for blocked in (ours, theirs):
            load_rules(blocked.public.namespace, BLOCKED)
        yield Meetings(
            LIBNICE, (nats, RESTARTS), (ours, OUR_RELAY), (theirs, THEIR_RELAY), (both, FAILURE)
        )


@pytest.mark.parametrize("session", RESTARTS)
def test_a_restart_loses_no_datagram(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert len(meeting.selected) == 2


@pytest.mark.parametrize("session", OUR_RELAY | THEIR_RELAY)
def test_a_relayed_session_becomes_direct_without_losing_a_datagram(
    meetings: Meetings, session: str
) -> None:
    meeting = meetings[session]
    assert_good(meeting)
    assert [path.kind for path in meeting.selected] == ["relayed", "direct"]


@pytest.mark.parametrize("session", FAILURE)
def test_when_a_family_fails_the_other_takes_over(meetings: Meetings, session: str) -> None:
    meeting = meetings[session]
    assert_same_pair(meeting)
    before, after = meeting.selected
    assert (":" in before.remote[0]) is not (":" in after.remote[0])
    for got in (meeting.we_got, meeting.they_got):
        lost = missing(got, meeting)
        assert lost == list(range(lost[0], lost[-1] + 1))
        assert len(lost) * INTERVAL < LONGEST_OUTAGE
