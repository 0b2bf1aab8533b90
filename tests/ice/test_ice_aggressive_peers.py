"""A peer that nominates aggressively (RFC 5245 section 8.1.1.2) nominates every pair that it
checks; both sides take the best of those that work, in whatever order all that comes."""

from __future__ import annotations

import pytest

from ice_punch.ice import CandidateType
from support.bench import REMOTE, Bench, Sent, remote_candidate

HOST, SRFLX = REMOTE, ("203.0.113.5", 6000)
ROUND_TRIP = 0.05


def nominated_twice(apart: float, lost: int) -> Bench:
    """The peer nominates the worse pair, and the better one ``apart`` seconds later. It answers
    our checks after 50 ms, but of those on the better pair it never gets the first ``lost``."""
    bench = Bench(controlling=False)
    better: list[Sent] = []

    def arrives(sent: Sent) -> bool:
        if sent.destination != HOST:
            return True
        better.append(sent)
        return len(better) > lost

    bench.answer_all(ROUND_TRIP, when=arrives)
    bench.signal(remote_candidate(SRFLX, CandidateType.SRFLX, foundation="2"))
    bench.signal(remote_candidate(HOST))
    bench.receive(bench.request(use_candidate=True), SRFLX)
    bench.run(apart)
    bench.receive(bench.request(use_candidate=True), HOST)
    bench.run(5.0)
    return bench


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.03, 0.045, 0.06, 0.1])
def test_the_better_pair_is_taken_although_the_worse_one_was_nominated_first(
    apart: float, lost: int
) -> None:
    """The worse pair's nomination is complete while the better one waits for its turn, for its
    answer, or for the repetition of a check that was lost: the peer has selected it by then."""
    bench = nominated_twice(apart, lost)
    selected = bench.agent.selected_pair()
    assert selected is bench.pair(HOST)
