"""Consent freshness and what happens when it is lost: RFC 7675, RFC 8445 section 11."""

from __future__ import annotations

import itertools

import pytest

from ice_punch.ice import (
    AgentConfig,
    FailureCause,
    IceState,
    PairState,
    PatientPolicy,
    StateChanged,
)
from support.bench import (
    LOCAL,
    OURS,
    PEER,
    REMOTE,
    Bench,
    Sent,
    completed_bench,
    remote_candidate,
    valid_bench,
)

ELSEWHERE = ("198.51.100.66", 6000)
SRFLX = ("203.0.113.5", 6000)
THIRD = ("198.51.100.3", 6000)


def gaps(bench: Bench) -> list[float]:
    times = [s.at for s in bench.requests]
    return [b - a for a, b in itertools.pairwise(times)]


def test_checks_come_every_four_to_six_seconds_at_random() -> None:
    bench = completed_bench()
    bench.answer_all(0.1)
    for _ in range(400):  # a peer that is heard needs no other checks
        bench.run(2.5)
        bench.receive(bench.request())
    between = gaps(bench)
    assert min(between) >= 4.0
    assert max(between) <= 6.0
    assert max(between) - min(between) > 1.0
    assert sum(between) / len(between) == pytest.approx(5.0, abs=0.2)
    assert bench.agent.state is IceState.COMPLETED


def test_a_check_for_the_sake_of_silence_asks_for_consent_too() -> None:
    bench = completed_bench()
    bench.answer_all(0.1)
    bench.run(1000.0)  # a peer that does nothing but answer
    assert bench.agent.counters["liveness_checks"] > 50
    assert min(gaps(bench)) >= 4.0
    assert bench.agent.state is IceState.COMPLETED


def test_every_check_is_a_transaction_of_its_own_sent_once_and_never_nominates() -> None:
    bench = completed_bench()
    bench.run(29.0)
    assert len(bench.requests) >= 4
    ids = {s.message.transaction_id for s in bench.requests}
    assert len(ids) == len(bench.requests)
    assert all(s.message.verify(PEER.key) and s.message.has_fingerprint for s in bench.requests)
    assert not any(s.nominates for s in bench.requests)
    assert {(s.local, s.destination) for s in bench.requests} == {(LOCAL, REMOTE)}


def test_without_any_answer_sending_stops_30_s_after_the_last_one() -> None:
    bench = completed_bench()
    bench.run(29.99)
    assert bench.agent.state is IceState.DISCONNECTED
    assert bench.agent.data_pair() is not None
    bench.run(0.02)
    assert bench.agent.state is IceState.FAILED
    assert bench.agent.data_pair() is None
    at, failed = bench.events[-1]
    assert at == pytest.approx(bench.begun + 30.0)
    assert isinstance(failed, StateChanged)
    assert failed.cause is FailureCause.CONSENT_LOST
    assert "30 s" in failed.reason
    bench.take()
    bench.run(600.0)
    assert bench.sent == []
    assert bench.agent.get_timer() is None


def test_the_clock_starts_at_the_last_answer_not_at_the_last_miss() -> None:
    bench = completed_bench()
    bench.answer_all(0.1, when=lambda s: s.at < bench.begun + 100.0)
    bench.run(100.0)
    bench.run(60.0)
    last = max(s.at for s in bench.requests if s.at < bench.begun + 100.0) + 0.1
    lost_at = bench.events[-1][0]
    assert lost_at == pytest.approx(last + 30.0)


@pytest.mark.parametrize("rtt", [0.6, 2.0, 4.5, 12.0])
def test_a_long_round_trip_keeps_the_session_alive(rtt: float) -> None:
    """Any outstanding transaction counts, however late its answer."""
    bench = completed_bench()
    bench.answer_all(rtt)
    bench.run(300.0)
    assert bench.agent.state in (IceState.COMPLETED, IceState.DISCONNECTED)
    assert bench.pair().rtt == pytest.approx(rtt)
    if rtt < 4.0:
        assert bench.states[-1] == "completed"
        # A round trip that grows all at once to many times what it was is noticed.
        assert bench.states.count("disconnected") <= (rtt > 1.0)


def test_one_answer_in_five_is_enough() -> None:
    bench = completed_bench()
    counter = itertools.count()
    bench.answer_all(0.1, when=lambda _: next(counter) % 5 == 4)
    bench.run(600.0)
    assert bench.agent.state is not IceState.FAILED


def test_a_single_lost_answer_is_no_disconnection() -> None:
    bench = completed_bench()
    counter = itertools.count()
    bench.answer_all(0.5, when=lambda _: next(counter) % 2 == 1)
    bench.run(3000.0)
    assert "disconnected" not in bench.states


def test_disconnected_is_not_failed_and_may_recover() -> None:
    bench = completed_bench()
    bench.run(6.0)
    assert bench.states[-1] == "disconnected"
    assert bench.events[-1][0] <= bench.begun + 6.0
    assert bench.agent.data_pair() is bench.pair()
    bench.receive(bench.answer(bench.requests[-1]))
    assert bench.states[-2:] == ["disconnected", "completed"]
    bench.run(4.0)
    assert bench.agent.state is IceState.COMPLETED


def test_an_answer_with_the_wrong_password_renews_nothing() -> None:
    bench = completed_bench()
    bench.responder = lambda s: bench.later(
        0.1, lambda: bench.receive(bench.answer(s, key=OURS.key))
    )
    bench.run(31.0)
    assert bench.agent.state is IceState.FAILED


@pytest.mark.parametrize("source", [ELSEWHERE, (REMOTE[0], 6001)])
def test_an_answer_from_elsewhere_renews_nothing(source: tuple[str, int]) -> None:
    bench = completed_bench()
    bench.responder = lambda s: bench.later(
        0.1, lambda: bench.receive(bench.answer(s), source, LOCAL)
    )
    bench.run(31.0)
    assert bench.agent.state is IceState.FAILED
    assert bench.agent.counters["responses_from_elsewhere"] >= 4


def test_an_answer_that_came_to_another_base_renews_nothing() -> None:
    bench = completed_bench(bases=[LOCAL, ("192.0.2.2", 5000)])
    bench.responder = lambda s: bench.later(
        0.1, lambda: bench.receive(bench.answer(s), REMOTE, ("192.0.2.2", 5000))
    )
    bench.run(31.0)
    assert bench.agent.state is IceState.FAILED


@pytest.mark.parametrize("code", [400, 401, 487, 500])
def test_an_error_response_renews_nothing_and_ends_nothing(code: int) -> None:
    bench = completed_bench()
    bench.responder = lambda s: bench.receive(bench.answer(s, code=code))
    bench.run(29.0)
    assert bench.agent.state is IceState.DISCONNECTED
    bench.run(2.0)
    assert bench.agent.state is IceState.FAILED


def test_an_answer_with_an_unknown_required_attribute_renews_nothing() -> None:
    bench = completed_bench()
    bench.responder = lambda s: bench.receive(bench.answer_with_unknown_attribute(s))
    bench.run(31.0)
    assert bench.agent.state is IceState.FAILED


def test_requests_and_data_of_the_peer_renew_nothing() -> None:
    bench = completed_bench()
    for _ in range(30):
        bench.receive(bench.request())
        bench.receive(b"data")
        bench.run(1.0)
    assert bench.agent.state is IceState.FAILED


def test_403_revokes_consent_at_once() -> None:
    bench = completed_bench()
    bench.run(6.0)
    bench.receive(bench.answer(bench.requests[0], code=403))
    assert bench.agent.state is IceState.FAILED
    event = bench.events[-1][1]
    assert isinstance(event, StateChanged)
    assert (event.cause, "revoked" in event.reason) == (FailureCause.CONSENT_LOST, True)


def test_403_that_nobody_authenticated_revokes_nothing() -> None:
    bench = completed_bench()
    bench.run(6.0)
    bench.receive(bench.answer(bench.requests[0], code=403, key=b"forged"))
    bench.receive(bench.answer(bench.requests[-1]))
    assert bench.agent.state is IceState.COMPLETED


def test_an_answer_after_the_expiry_does_not_bring_consent_back() -> None:
    """Even if it is read before the timer fires."""
    bench = completed_bench()
    bench.run(29.9)
    late = bench.answer(bench.requests[-1])
    bench.now += 0.2
    bench.receive(late)
    assert bench.agent.state is IceState.FAILED
    assert bench.agent.data_pair() is None


def test_nothing_at_all_is_sent_in_the_moment_of_expiry() -> None:
    bench = completed_bench(config=AgentConfig(consent_interval=5.0))
    bench.run(25.0)
    bench.take()
    bench.now = bench.begun + 31.0  # the process was asleep: check and expiry are both overdue
    bench.agent.handle_timer(bench.now)
    bench.flush()
    assert bench.sent == []
    assert bench.agent.state is IceState.FAILED


def test_outstanding_transactions_are_dropped_at_expiry() -> None:
    bench = completed_bench()
    bench.run(31.0)
    bench.receive(bench.answer(bench.requests[-1]))
    assert bench.agent.counters["after_end"] == 1


def test_outstanding_transactions_are_bounded() -> None:
    bench = completed_bench()
    counter = itertools.count()
    bench.answer_all(0.1, when=lambda _: next(counter) % 4 == 0)
    bench.run(5000.0)
    (consent,) = bench.agent._current.liveness._consent.values()
    assert len(consent._outstanding) <= 40


def test_a_pair_of_unknown_round_trip_is_asked_at_once() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    bench.run(0.6)
    bench.receive(bench.answer(bench.requests[0]))  # repeated already: no sample
    assert bench.pair().rtt is None
    bench.run(0.0)
    assert len(bench.requests) == 3
    bench.run(0.1)
    bench.receive(bench.answer(bench.requests[-1]))
    assert bench.pair().rtt == pytest.approx(0.1)


# -- before nomination ----


def two_valid() -> Bench:
    bench = Bench(
        controlling=False,
        remotes=[
            remote_candidate(REMOTE, foundation="1"),
            remote_candidate(SRFLX, foundation="2", priority=100),
        ],
    )
    bench.answer_all(0.1)
    bench.run(0.2)
    bench.take()
    assert len(bench.agent.valid_list) == 2
    return bench


def test_every_valid_pair_is_kept_fresh_until_one_is_selected() -> None:
    bench = two_valid()
    bench.run(30.0)
    assert {s.destination for s in bench.requests} == {REMOTE, SRFLX}
    bench.receive(bench.request(use_candidate=True), SRFLX)
    bench.take()
    bench.run(50.0)
    often, rarely = (
        sum(s.destination == destination for s in bench.requests) for destination in (SRFLX, REMOTE)
    )
    assert 2 <= rarely <= often / 2  # it stands by: RFC 7675 section 5.1 asks no more of it


def test_a_nomination_after_the_patience_of_rfc_8863_finds_its_pair_alive() -> None:
    """A controlling peer may wait 39.5 s before it nominates, and need not take our best pair."""
    bench = two_valid()
    bench.run(39.5)
    bench.receive(bench.request(use_candidate=True), SRFLX)
    assert bench.agent.selected_pair() is bench.pair(SRFLX)
    bench.run(60.0)
    assert bench.agent.state is IceState.COMPLETED


def test_when_the_best_pair_dies_before_nomination_the_next_one_carries_data() -> None:
    bench = two_valid()
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX)
    assert bench.agent.data_pair() is bench.pair(REMOTE)
    bench.run(40.0)
    assert bench.agent.data_pair() is bench.pair(SRFLX)
    assert bench.agent.state is not IceState.FAILED
    assert not bench.pair(REMOTE).valid
    # the same credentials are not used on that path again, RFC 7675 section 5.1
    bench.take()
    bench.receive(bench.request(use_candidate=True), REMOTE)
    assert bench.responses[-1].error == 500  # or the peer would select what nothing comes through
    bench.run(1.0)
    assert [s for s in bench.requests if s.destination == REMOTE] == []
    assert bench.pair(REMOTE).state is PairState.FAILED
    bench.receive(bench.request(), REMOTE)
    assert bench.responses[-1].error is None


def test_a_pair_that_falls_silent_before_nomination_is_gone_around_and_not_nominated() -> None:
    bench = Bench(
        remotes=[
            remote_candidate(REMOTE, foundation="1"),
            remote_candidate(SRFLX, foundation="2", priority=100),
        ],
        policy=PatientPolicy(longest=9.0, shortest=9.0),
    )
    bench.signal(remote_candidate(THIRD, foundation="3", priority=2**31 - 1))  # to wait for
    bench.answer_all(
        0.1,
        when=lambda s: (
            s.destination == SRFLX or (s.destination == REMOTE and s.at < bench.begun + 1)
        ),
    )
    bench.run(8.0)
    assert bench.states[-2:] == ["disconnected", "connected"]
    assert bench.agent.data_pair() is bench.pair(SRFLX)
    bench.run(5.0)
    assert bench.agent.selected_pair() is bench.pair(SRFLX)
    assert bench.agent.state is IceState.COMPLETED


def test_a_late_answer_to_a_nomination_does_not_revive_a_pair_without_consent() -> None:
    bench = Bench(
        remotes=[
            remote_candidate(REMOTE, foundation="1"),
            remote_candidate(SRFLX, foundation="2", priority=100),
        ],
    )
    bench.answer_all(0.1, when=lambda s: s.destination == SRFLX or s.at == bench.begun)
    bench.run(29.0)
    nomination = next(s for s in bench.requests if s.nominates)
    assert nomination.destination == REMOTE
    bench.run(5.0)
    assert bench.agent.selected_pair() is bench.pair(SRFLX)
    bench.receive(bench.answer(nomination))
    assert not bench.pair(REMOTE).valid
    assert bench.agent.selected_pair() is bench.pair(SRFLX)


def test_the_last_valid_pair_that_dies_before_nomination_ends_the_session() -> None:
    bench = valid_bench()
    bench.run(31.0)
    assert bench.agent.state is IceState.FAILED


def test_a_pair_put_aside_long_ago_is_checked_again_before_it_carries_data() -> None:
    bench = two_valid()
    bench.signal(
        remote_candidate(THIRD, foundation="3", priority=2**31 - 1)
    )  # the best, which stands by
    bench.run(0.5)
    bench.receive(bench.request(use_candidate=True), SRFLX)
    bench.run(60.0)
    bench.take()
    bench.responder = None
    bench.receive(bench.request(use_candidate=True), REMOTE)  # of higher priority
    assert bench.agent.selected_pair() is bench.pair(SRFLX)
    (check,) = [s for s in bench.requests if s.destination == REMOTE]
    bench.receive(bench.answer(check), REMOTE)
    assert bench.agent.selected_pair() is bench.pair(REMOTE)
    assert bench.agent.state is IceState.COMPLETED


def test_an_answered_nomination_renews_consent_like_any_check() -> None:
    bench = Bench(remotes=[REMOTE])
    held: list[Sent] = []
    bench.answer_all(0.1, when=lambda s: len(bench.requests) == 1)
    bench.responder, respond = (lambda s: held.append(s) if s.nominates else None), bench.responder
    bench.run(14.0)
    assert bench.agent.state is IceState.DISCONNECTED
    assert respond is not None
    bench.receive(bench.answer(held[0]))
    assert bench.agent.state is IceState.COMPLETED
    bench.run(29.0)
    assert bench.agent.state is IceState.DISCONNECTED
