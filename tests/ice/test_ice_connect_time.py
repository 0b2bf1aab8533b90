"""Two agents behind port-restricted NATs: when both are valid, and what it costs in packets.

r is the round trip between them, s the skew between their starts. The ideal is max(r, s + 1.5 r):
whoever starts first finds the other NAT closed, and is triggered by the other's first check
(RFC 8445 section 7.3.1.4). 45 ms on top are two slots of Ta and a bit.
"""

from __future__ import annotations

import pytest

from ice_punch.ice import IceState
from ice_punch.lab.behaviour import NatKind
from support.agents import Meeting

BUDGET = 0.045

EXPECTED_PACKETS = {
    # (r, s): (sent by the first to start, sent by the second), until one second after completion
    (0.02, 0.0): (4, 4),
    (0.02, 0.01): (5, 4),
    (0.02, 0.03): (5, 4),
    (0.02, 0.6): (7, 4),
    (0.1, 0.0): (6, 6),
    (0.1, 0.05): (6, 6),
    (0.1, 0.15): (6, 4),
    (0.1, 0.6): (7, 4),
    (0.3, 0.0): (7, 7),
    (0.3, 0.15): (6, 5),
    (0.3, 0.45): (10, 8),
    (0.3, 0.6): (10, 8),
}


@pytest.mark.parametrize(("r", "s"), EXPECTED_PACKETS)
def test_both_are_valid_within_the_budget_and_send_exactly_these_packets(
    r: float, s: float
) -> None:
    meeting = Meeting(NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED, rtt=r)
    before = len(meeting.internet.trace)
    meeting.start(skew=s)
    assert meeting.until_completed()
    meeting.run(1.0)
    latest = max(meeting.a.valid_at, meeting.b.valid_at) - meeting.begun
    assert latest <= max(r, s + 1.5 * r) + BUDGET
    sent = [p.sender for p in list(meeting.internet.trace)[before:]]
    assert (sent.count("a"), sent.count("b")) == EXPECTED_PACKETS[(r, s)]


@pytest.mark.parametrize("s", [-0.6, -0.15, -0.05])
def test_the_controlled_side_may_start_first(s: float) -> None:
    r = 0.1
    meeting = Meeting(rtt=r)
    begin = meeting.internet.now
    meeting.internet.at(begin, lambda: meeting.b.meet(meeting.a))
    meeting.internet.at(begin - s, lambda: meeting.a.meet(meeting.b))
    assert meeting.until_completed()
    latest = max(meeting.a.valid_at, meeting.b.valid_at) - begin
    assert latest <= max(r, -s + 1.5 * r) + BUDGET


def test_both_sides_select_the_same_pair() -> None:
    meeting = Meeting(rtt=0.1)
    meeting.start(skew=0.15)
    assert meeting.until_completed()
    a, b = meeting.a.agent.selected_pair(), meeting.b.agent.selected_pair()
    assert a is not None
    assert b is not None
    assert a.mapped is not None
    assert b.mapped is not None
    assert (a.mapped.address, a.remote.address) == (b.remote.address, b.mapped.address)
    assert (a.nominated, b.nominated) == (True, True)


def test_the_same_seed_gives_the_same_bytes() -> None:
    def run() -> list[bytes]:
        meeting = Meeting(rtt=0.1, seed=7)
        meeting.start(skew=0.15)
        meeting.until_completed()
        return [packet.data for packet in meeting.internet.trace]

    assert run() == run()


def test_two_public_hosts_need_one_round_trip() -> None:
    meeting = Meeting(NatKind.NONE, NatKind.NONE, rtt=0.1, gather=False)
    meeting.start()
    assert meeting.until_valid()
    assert max(meeting.a.valid_at, meeting.b.valid_at) - meeting.begun == pytest.approx(0.1)
    assert meeting.a.agent.state in (IceState.CONNECTED, IceState.COMPLETED)
