"""Nomination: regular, exactly one, and what a peer does that nominates aggressively.

RFC 8445 sections 7.2.5.3.4, 7.3.1.5 and 8.1.
"""

from __future__ import annotations

import pytest

from ice_punch.ice import (
    CandidatePair,
    CandidateType,
    IceState,
    PairState,
    SelectedPairChanged,
)
from ice_punch.ice.check_list import CheckList
from ice_punch.ice.policy import PEER_BEGINS_WITHIN
from ice_punch.stun import USE_CANDIDATE
from support.agents import Meeting
from support.bench import (
    LOCAL,
    REMOTE,
    Bench,
    Sent,
    completed_bench,
    remote_candidate,
    valid_bench,
)

HOST, SRFLX = REMOTE, ("203.0.113.5", 6000)
TWO = [
    remote_candidate(HOST, foundation="1"),
    remote_candidate(SRFLX, CandidateType.SRFLX, foundation="2"),
]


def nominations(bench: Bench) -> list[Sent]:
    """Distinct checks with USE-CANDIDATE; repetitions of one are one."""
    found: dict[bytes, Sent] = {}
    for sent in bench.requests:
        if sent.nominates:
            found.setdefault(sent.message.transaction_id, sent)
    return list(found.values())


def selections(bench: Bench) -> list[CandidatePair]:
    return [e.pair for _, e in bench.events if isinstance(e, SelectedPairChanged)]


# -- controlling ----


def test_the_controlling_side_nominates_by_repeating_the_check_that_succeeded() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.1)
    bench.run(1.0)
    plain, nominating = bench.requests
    assert (plain.nominates, nominating.nominates) == (False, True)
    assert (plain.local, plain.destination) == (nominating.local, nominating.destination)
    assert nominating.at - plain.at == pytest.approx(0.1)
    assert bench.agent.selected_pair() is bench.pair()
    assert bench.pair().nominated
    assert bench.states == ["checking", "connected", "completed"]


def test_the_controlled_side_never_sends_use_candidate() -> None:
    bench = Bench(controlling=False, remotes=TWO)
    bench.answer_all(0.1)
    bench.receive(bench.request(use_candidate=True))
    bench.run(30.0)
    assert bench.agent.selected_pair() is not None
    assert all(s.message.get(USE_CANDIDATE) is None for s in bench.requests)


def test_exactly_one_pair_is_nominated_though_several_are_valid() -> None:
    bench = Bench(remotes=TWO)
    bench.answer_all(0.1)
    bench.run(60.0)
    assert len(nominations(bench)) == 1
    assert len(selections(bench)) == 1


def test_the_best_pair_is_waited_for_while_it_can_still_win() -> None:
    bench = Bench(remotes=TWO)
    # the better path is slower by a little: 150 ms against 100 ms
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX)
    first = bench.requests[0]
    assert first.destination == HOST
    bench.later(0.2, lambda: bench.receive(bench.answer(first), HOST))
    bench.run(1.0)
    assert [s.destination for s in nominations(bench)] == [HOST]


def test_a_silent_better_pair_is_waited_for_one_and_a_half_round_trips() -> None:
    bench = Bench(remotes=TWO)
    bench.agent.check_list.peer_checked_at = bench.begun
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX)
    bench.run(1.0)
    (nomination,) = nominations(bench)
    valid_at = 0.02 + 0.1
    assert nomination.at - bench.begun == pytest.approx(valid_at + 0.15)
    assert bench.agent.state is IceState.COMPLETED


def test_a_better_pair_is_waited_for_no_longer_than_a_second() -> None:
    bench = Bench(remotes=TWO)
    bench.agent.check_list.peer_checked_at = bench.begun
    bench.answer_all(0.4, when=lambda s: s.destination == SRFLX)
    bench.run(0.43)
    bench.pair(SRFLX).round_trip.answered(2.0)
    bench.run(4.0)
    (nomination,) = nominations(bench)
    valid_at = bench.pair(SRFLX).valid_since
    assert valid_at is not None
    assert nomination.at - valid_at == pytest.approx(1.0)


def test_a_peer_that_answers_and_has_yet_to_check_is_waited_for() -> None:
    """It may not know of us yet, and its checks may open the better pair."""
    bench = Bench(remotes=TWO)
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX)
    bench.run(1.0)
    assert bench.agent.state is IceState.CONNECTED
    assert nominations(bench) == []
    begins = bench.elapsed
    bench.receive(bench.request(), SRFLX)
    bench.run(1.0)
    (nomination,) = nominations(bench)
    assert nomination.at - bench.begun == pytest.approx(begins + 0.15)


def test_a_peer_that_never_checks_is_not_waited_for_for_ever() -> None:
    bench = Bench(remotes=TWO)
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX)
    bench.run(5.0)
    valid_at = bench.pair(SRFLX).valid_since
    assert valid_at is not None
    assert nominations(bench)[0].at - valid_at == pytest.approx(PEER_BEGINS_WITHIN)


def test_a_lite_peer_makes_no_checks_and_is_not_waited_for() -> None:
    bench = Bench(remotes=TWO, lite=True)
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX)
    bench.run(1.0)
    assert nominations(bench)[0].at - bench.begun == pytest.approx(0.02 + 0.1 + 0.15, abs=0.03)


def test_a_better_pair_that_the_peer_has_checked_has_time_from_our_own_check() -> None:
    """The peer's check has come, so ours can get through: one and a half round trips from when it
    left, though the valid pair has waited as long already."""
    bench = Bench(remotes=TWO)
    bench.agent.check_list.peer_checked_at = bench.begun
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX)
    bench.run(0.25)
    assert nominations(bench) == []
    better = bench.pair(HOST)
    assert better.priority > bench.pair(SRFLX).priority
    bench.receive(bench.request(), HOST)
    bench.run(0.1)
    assert nominations(bench) == []
    bench.run(0.1)
    assert len(nominations(bench)) == 1


def test_candidate_types_alone_hold_nothing_back() -> None:
    relay = remote_candidate(("203.0.113.9", 7000), CandidateType.RELAY)
    bench = Bench(remotes=[relay])
    bench.answer_all(0.1)
    bench.run(0.1)
    bench.run(0.02)
    assert len(nominations(bench)) == 1


def test_a_lost_nomination_is_repeated_with_the_same_transaction() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.1, when=lambda s: not s.nominates or s.at > bench.begun + 1.0)
    bench.run(3.0)
    asked = [s for s in bench.requests if s.nominates]
    assert len(asked) == 3
    assert len({s.data for s in asked}) == 1
    assert bench.agent.state is IceState.COMPLETED


def test_a_late_answer_to_an_older_check_does_not_stop_the_nomination() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.run(0.1)
    bench.receive(bench.request())
    first, second = bench.requests
    bench.receive(bench.answer(first))
    bench.run(0.1)
    assert bench.requests[-1].nominates
    bench.receive(bench.answer(second))
    bench.run(4.0)
    assert len([s for s in bench.requests if s.nominates]) == 4
    assert len(nominations(bench)) == 1


def test_a_nomination_that_gets_no_answer_is_made_again_on_the_same_pair() -> None:
    """The peer may have heard the first one: another pair would leave the two sides apart."""
    bench = Bench(remotes=TWO)
    bench.answer_all(0.1, when=lambda s: not s.nominates or s.at > bench.begun + 39.0)
    bench.run(45.0)
    first, second = nominations(bench)
    assert second.at - first.at == pytest.approx(39.5)
    assert first.destination == second.destination == HOST
    assert bench.agent.selected_pair() is bench.pair(HOST)


def test_an_answer_that_somebody_sent_on_does_not_make_another_pair_be_nominated() -> None:
    """It is real, so the peer has selected the pair, and only its way here was another."""
    bench = Bench(remotes=TWO)
    bench.answer_all(0.1, when=lambda s: not s.nominates)
    bench.run(1.0)
    (nomination,) = nominations(bench)
    answer = bench.answer(nomination)
    bench.receive(answer, ("203.0.113.200", 4444))
    bench.run(5.0)
    assert len(nominations(bench)) == 1
    assert bench.pair(HOST).valid
    bench.receive(answer, HOST)
    assert bench.agent.selected_pair() is bench.pair(HOST)
    assert bench.agent.counters["responses_from_elsewhere"] == 1


def test_a_refused_nomination_takes_the_pair_off_the_valid_list() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.1, when=lambda s: not s.nominates)
    bench.run(0.2)
    (refused,) = nominations(bench)
    bench.receive(bench.answer(refused, code=400))
    assert bench.agent.valid_list == []
    assert bench.pair().state is PairState.FAILED
    assert not bench.pair().nominated
    assert bench.agent.selected_pair() is None
    assert bench.agent.data_pair() is None
    assert bench.states == ["checking", "connected", "checking"]
    bench.run(45.0)
    assert bench.agent.state is IceState.FAILED  # RFC 8863: when the patience is over


def test_another_valid_pair_takes_the_place_of_a_refused_one() -> None:
    bench = Bench(remotes=TWO)
    bench.answer_all(0.1, when=lambda s: not s.nominates)
    bench.run(0.2)
    (refused,) = nominations(bench)
    assert refused.destination == HOST
    bench.receive(bench.answer(refused, code=400), HOST)
    assert bench.agent.state is IceState.CONNECTED
    bench.run(0.1)
    assert nominations(bench)[-1].destination == SRFLX
    bench.receive(bench.answer(nominations(bench)[-1]), SRFLX)
    assert bench.agent.selected_pair() is bench.pair(SRFLX)


def test_a_refusal_while_disconnected_does_not_leave_the_session_hanging() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.1, when=lambda s: s.at < bench.begun + 0.05)
    bench.run(14.0)
    assert bench.agent.state is IceState.DISCONNECTED
    bench.receive(bench.answer(nominations(bench)[0], code=400))
    assert bench.agent.state is IceState.CHECKING
    bench.run(60.0)
    assert bench.agent.state is IceState.FAILED


def test_a_superfluous_check_that_fails_does_not_harm_a_valid_pair() -> None:
    bench = Bench(remotes=[REMOTE], controlling=False)
    bench.run(0.1)
    bench.receive(bench.request())
    first, second = bench.requests
    bench.receive(bench.answer(first))
    bench.receive(bench.answer(second, code=400))
    assert bench.pair().valid


# -- controlled ----


def test_a_nomination_on_a_succeeded_pair_selects_it_at_once() -> None:
    bench = valid_bench()
    bench.receive(bench.request(use_candidate=True))
    assert bench.agent.selected_pair() is bench.pair()
    assert bench.states[-1] == "completed"
    assert bench.requests == []


def test_a_nomination_on_an_in_progress_pair_counts_when_the_check_succeeds() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    bench.run(0.1)
    bench.receive(bench.request(use_candidate=True))
    assert bench.agent.selected_pair() is None
    bench.receive(bench.answer(bench.requests[-1]))
    assert bench.agent.selected_pair() is bench.pair()


def test_a_nomination_whose_triggered_check_fails_selects_nothing() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    bench.run(0.1)
    bench.receive(bench.request(use_candidate=True))
    bench.receive(bench.answer(bench.requests[-1], code=400))
    assert bench.pair().state is PairState.FAILED
    assert bench.agent.selected_pair() is None


def test_the_controlling_side_ignores_use_candidate_from_its_peer() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.request(use_candidate=True))
    bench.answer_all(0.1)
    bench.run(0.05)
    assert not bench.pair().nominate_on_success


def test_repeated_nominations_of_the_same_pair_select_it_once() -> None:
    bench = completed_bench()
    for _ in range(3):
        bench.receive(bench.request(use_candidate=True))
    assert len(selections(bench)) == 1


@pytest.mark.parametrize("order", [(HOST, SRFLX), (SRFLX, HOST)])
def test_of_several_nominations_the_highest_priority_wins(
    order: tuple[tuple[str, int], ...],
) -> None:
    bench = Bench(controlling=False, remotes=TWO)
    bench.answer_all(0.05)
    bench.run(0.2)
    for remote in order:
        bench.receive(bench.request(use_candidate=True), remote)
        bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair(HOST)
    assert bench.agent.data_pair() is bench.pair(HOST)


def test_an_aggressive_peer_may_still_improve_on_its_first_nomination() -> None:
    """USE-CANDIDATE in every check (RFC 5245): the better pair answers later."""
    bench = Bench(controlling=False)
    bench.answer_all(0.05)
    bench.signal(TWO[1])
    bench.receive(bench.request(use_candidate=True), SRFLX)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair(SRFLX)
    bench.signal(TWO[0])
    bench.receive(bench.request(use_candidate=True), HOST)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair(HOST)
    assert bench.agent.state is IceState.COMPLETED


# -- concluding, section 8.1.2 ----


def test_nomination_ends_the_other_checks() -> None:
    bench = Bench(controlling=False, remotes=TWO)
    for n in range(7, 30):
        bench.signal(remote_candidate(("203.0.113.9", n), CandidateType.RELAY, foundation="9"))
    bench.run(0.02)
    sent = {s.destination for s in bench.requests}
    assert {HOST, SRFLX} <= sent
    bench.receive(bench.answer(bench.requests[0]), HOST)
    bench.receive(bench.request(use_candidate=True), HOST)
    bench.take()
    bench.run(3.9)
    assert bench.requests == []
    left = {p.remote.address: p.state for p in bench.agent.check_list}
    assert PairState.WAITING not in left.values()
    assert PairState.FROZEN not in left.values()
    assert not bench.agent.check_list.triggered_check_queue


def test_an_answer_to_a_check_that_nomination_cancelled_is_still_accepted() -> None:
    bench = Bench(controlling=False, remotes=TWO)
    bench.run(0.02)
    late = next(s for s in bench.requests if s.destination == SRFLX)
    bench.receive(bench.answer(bench.requests[0]), HOST)
    bench.receive(bench.request(use_candidate=True), HOST)
    bench.receive(bench.answer(late), SRFLX)
    assert bench.pair(SRFLX).valid
    assert bench.agent.selected_pair() is bench.pair(HOST)


def test_checks_on_every_pair_are_answered_after_completion() -> None:
    bench = completed_bench()
    bench.run(3.5)
    bench.take()
    bench.receive(bench.request(), REMOTE)
    bench.receive(bench.request(), ("203.0.113.77", 1))
    assert len(bench.responses) == 2
    bench.run(1.0)
    assert len(bench.agent.check_list) == 1


def test_candidates_that_come_after_selection_are_known_but_not_paired() -> None:
    bench = completed_bench()
    bench.signal(("203.0.113.8", 1))
    bench.agent.add_host_candidate(("192.0.2.8", 5000), bench.now)
    bench.run(3.9)
    assert len(bench.agent.check_list) == 1
    assert len(bench.agent.remote_candidates) == 2
    assert bench.requests == []


def test_a_request_on_a_pair_that_was_put_aside_triggers_nothing() -> None:
    bench = Bench(controlling=False, remotes=TWO)
    bench.run(0.02)
    bench.receive(bench.answer(bench.requests[0]), HOST)
    bench.receive(bench.request(use_candidate=True), HOST)
    bench.take()
    bench.receive(bench.request(), SRFLX)
    bench.run(3.0)
    assert bench.requests == []


def test_a_nomination_from_before_a_role_switch_does_not_select() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    bench.run(0.1)
    bench.receive(bench.request(use_candidate=True))
    bench.receive(bench.request(controlling=False, tie_breaker=0))  # now we control
    assert bench.agent.controlling
    bench.receive(bench.answer(bench.requests[-1]))
    assert bench.agent.state is IceState.CONNECTED
    bench.run(0.1)
    assert bench.requests[-1].nominates


def test_both_sides_rank_valid_pairs_alike_though_each_checks_from_its_base() -> None:
    """Two relayed paths of equal relay priority: only the candidates that were seen decide."""

    def ends(
        ours: CandidateType, seen: CandidateType, theirs: CandidateType, *, controlling: bool
    ) -> CandidatePair:
        pair = CandidatePair(
            remote_candidate(LOCAL, ours), remote_candidate(REMOTE, theirs), controlling=controlling
        )
        pair.mapped = remote_candidate(("203.0.113.1", 1), seen)
        return pair

    host, srflx, relay = CandidateType.HOST, CandidateType.SRFLX, CandidateType.RELAY
    near = ends(host, srflx, relay, controlling=True)  # our NAT, the peer's relay
    far = ends(relay, relay, srflx, controlling=False)  # the same path from the other end
    assert near.valid_priority == far.valid_priority
    assert near.priority != far.priority


# -- both sides, and policies ----


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_both_sides_select_the_same_pair_under_loss(loss: float, seed: int) -> None:
    meeting = Meeting(rtt=0.1, loss=loss, seed=seed)
    meeting.a.agent.add_host_candidate(("192.168.1.2", 50001), meeting.internet.now)
    meeting.start(skew=0.05)
    assert meeting.until_completed(120.0)
    a, b = meeting.a.agent.selected_pair(), meeting.b.agent.selected_pair()
    assert a is not None
    assert b is not None
    assert a.mapped is not None
    assert a.mapped.address == b.remote.address


def test_a_policy_decides_when_and_what() -> None:
    class Second:
        def nominate(
            self, check_list: CheckList, component: int, ta: float, now: float
        ) -> tuple[CandidatePair | None, float | None]:
            if now < 1005.0:
                return None, 1005.0
            return check_list.valid_list[-1], None

    bench = Bench(remotes=TWO, policy=Second())
    bench.answer_all(0.1)
    bench.run(4.9)
    assert nominations(bench) == []
    assert bench.agent.data_pair() is bench.pair(HOST)
    bench.run(0.2)
    assert [s.destination for s in nominations(bench)] == [SRFLX]
    bench.run(0.1)
    assert bench.agent.data_pair() is bench.pair(SRFLX)


def test_a_component_without_a_way_is_not_held_up_by_the_checks_of_another() -> None:
    from ice_punch.ice import AgentConfig

    bench = Bench(controlling=False, config=AgentConfig(components=(1, 2)), remotes=[HOST])
    bench.receive(bench.answer(bench.requests[0]))
    bench.answer_all(0.1, when=lambda s: s.destination == HOST)
    bench.run(30.0)
    bench.signal(TWO[1])
    bench.run(0.1)
    bench.receive(bench.request(use_candidate=True))
    assert bench.pair(SRFLX).state is PairState.IN_PROGRESS
    bench.run(9.5)
    assert bench.agent.state is IceState.FAILED
    assert bench.elapsed < 40.0


def test_every_component_gets_its_own_nomination() -> None:
    from ice_punch.ice import AgentConfig

    bench = Bench(config=AgentConfig(components=(1, 2)))
    second = ("192.0.2.1", 5001)
    bench.agent.add_host_candidate(second, bench.now, component=2)
    bench.answer_all(0.1)
    bench.signal(remote_candidate(REMOTE, component=1))
    bench.run(1.0)
    assert len(nominations(bench)) == 1
    assert bench.agent.state is IceState.CHECKING
    assert bench.agent.data_pair(1) is None  # section 12.1: not before every component can
    bench.signal(remote_candidate((REMOTE[0], 6001), component=2))
    bench.run(1.0)
    assert {(s.local, s.destination) for s in nominations(bench)} == {
        (LOCAL, REMOTE),
        (second, (REMOTE[0], 6001)),
    }
    assert bench.agent.state is IceState.COMPLETED
    assert bench.agent.data_pair(1) is bench.agent.selected_pair(1)
