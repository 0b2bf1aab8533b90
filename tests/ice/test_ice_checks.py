"""A check and what becomes of it: RFC 8445 sections 7.2.4, 7.2.5 and 14.3, ICMP errors included."""

from __future__ import annotations

import pytest

from ice_punch.ice import AgentConfig, PairState
from ice_punch.ice.checks import REPEATS_REMEMBERED
from ice_punch.ice.pair import CHECKS_REMEMBERED
from ice_punch.stun import Message, MessageClass, Method, response_to
from support.bench import LOCAL, OURS, REMOTE, Bench, completed_bench, remote_candidate

ELSEWHERE = ("198.51.100.66", 6000)
SCHEDULE = [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]


def test_a_check_without_an_answer_is_repeated_seven_times_and_fails_at_39_5_s() -> None:
    bench = Bench(remotes=[REMOTE], config=AgentConfig(patience=100.0))
    bench.run(39.49)
    assert bench.times() == SCHEDULE
    assert len({s.data for s in bench.sent}) == 1
    assert bench.pair().state is PairState.IN_PROGRESS
    bench.run(0.02)
    assert bench.pair().state is PairState.FAILED


def test_success_makes_the_pair_valid() -> None:
    bench = Bench(remotes=[REMOTE], controlling=False)
    bench.run(0.1)
    bench.receive(bench.answer(bench.requests[0]))
    pair = bench.pair()
    assert (pair.state, pair.valid, pair.nominated) == (PairState.SUCCEEDED, True, False)
    assert pair.rtt == pytest.approx(0.1)
    assert bench.agent.valid_list == [pair]
    assert bench.states == ["checking", "connected"]


def test_an_answer_to_a_repeated_check_is_no_sample_of_the_round_trip() -> None:
    bench = Bench(remotes=[REMOTE], controlling=False)
    bench.run(0.6)
    bench.receive(bench.answer(bench.requests[0]))
    assert bench.pair().valid
    assert bench.pair().rtt is None


@pytest.mark.parametrize(("source", "local"), [(ELSEWHERE, LOCAL), (REMOTE, ("192.0.2.9", 5000))])
def test_an_asymmetric_answer_fails_the_pair(
    source: tuple[str, int], local: tuple[str, int]
) -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0]), source, local)
    assert bench.pair().state is PairState.FAILED
    assert bench.agent.counters["responses_from_elsewhere"] == 1


@pytest.mark.parametrize("code", [400, 401, 403, 420, 500])
def test_an_error_response_fails_the_pair(code: int) -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0], code=code))
    assert bench.pair().state is PairState.FAILED
    bench.run(5.0)
    assert len(bench.requests) == 1


def test_an_answer_without_a_mapped_address_fails_the_pair() -> None:
    bench = Bench(remotes=[REMOTE])
    empty = response_to(bench.requests[0].message, MessageClass.SUCCESS)
    from support.bench import PEER

    bench.receive(empty.to_bytes(key=PEER.key))
    assert bench.pair().state is PairState.FAILED
    assert bench.agent.counters["responses_unusable"] == 1


def test_an_answer_with_an_unknown_required_attribute_fails_the_pair() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer_with_unknown_attribute(bench.requests[0]))
    assert bench.pair().state is PairState.FAILED


@pytest.mark.parametrize("code", [None, 400, 487])
def test_an_answer_with_the_wrong_password_never_happened(code: int | None) -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0], key=OURS.key, code=code))
    assert bench.pair().state is PairState.IN_PROGRESS
    assert bench.agent.controlling
    assert bench.agent.counters["responses_unauthenticated"] == 1
    bench.run(0.5)
    assert bench.times() == [0.0, 0.5]


def test_an_answer_without_integrity_never_happened() -> None:
    bench = Bench(remotes=[REMOTE])
    plain = response_to(bench.requests[0].message, MessageClass.ERROR).to_bytes()
    bench.receive(plain)
    assert bench.pair().state is PairState.IN_PROGRESS


def test_an_answer_to_nothing_is_counted() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(Message(Method.BINDING, MessageClass.SUCCESS, bytes(12)).to_bytes())
    assert bench.agent.counters["responses_unmatched"] == 1


def test_an_answer_counts_once() -> None:
    bench = Bench(remotes=[REMOTE], controlling=False)
    answer = bench.answer(bench.requests[0])
    bench.receive(answer)
    bench.receive(answer)
    assert bench.pair().responses_received == 1
    assert bench.agent.counters["responses_unmatched"] == 1


# -- ICMP, section 7.2.5.2.2 ----


def test_an_icmp_error_fails_the_pair_at_once() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    assert bench.pair().state is PairState.FAILED
    bench.run(35.0)
    assert len(bench.requests) == 1


def test_a_pair_that_an_icmp_error_failed_lives_again_when_the_peer_shows_up() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    bench.run(10.0)
    bench.receive(bench.request())
    assert bench.pair().state is PairState.IN_PROGRESS
    bench.receive(bench.answer(bench.requests[-1]))
    assert bench.pair().valid


def test_a_late_answer_revives_a_pair_that_an_icmp_error_failed() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    bench.receive(bench.answer(bench.requests[0]))
    assert bench.pair().state is PairState.SUCCEEDED


def test_an_icmp_error_can_not_end_what_works() -> None:
    bench = completed_bench()
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    bench.agent.receive_icmp_error(LOCAL, ELSEWHERE, bench.now)
    assert bench.pair().valid
    assert bench.agent.state == "completed"


def test_an_icmp_error_does_not_touch_a_pair_that_is_valid_or_was_not_tried() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE, (REMOTE[0], 6001)])
    bench.agent.receive_icmp_error(LOCAL, (REMOTE[0], 6001), bench.now)
    assert bench.pair((REMOTE[0], 6001)).state is PairState.FROZEN
    bench.receive(bench.answer(bench.requests[0]))
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    assert bench.pair().valid


# -- the triggered check and the one before it, section 7.3.1.4 ----


def test_a_request_on_an_in_progress_pair_replaces_the_check_but_not_its_answer() -> None:
    bench = Bench(remotes=[REMOTE], controlling=False)
    bench.run(0.1)
    bench.receive(bench.request())
    first, second = bench.requests
    assert second.at == pytest.approx(bench.begun + 0.1)
    assert first.message.transaction_id != second.message.transaction_id
    bench.run(0.45)  # the first one's repetition would have been due
    assert len(bench.requests) == 2
    bench.receive(bench.answer(first))
    assert bench.pair().valid
    bench.run(3.0)
    assert len(bench.requests) == 2


def test_a_cancelled_check_that_fails_says_nothing_about_the_pair() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.run(0.1)
    bench.receive(bench.request())
    bench.receive(bench.answer(bench.requests[0], code=400))
    assert bench.pair().state is PairState.IN_PROGRESS
    bench.receive(bench.answer(bench.requests[1]))
    assert bench.pair().valid


def test_an_error_while_the_triggered_check_is_queued_does_not_undo_the_trigger() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.request())  # the slot of this moment is taken: the check is queued
    assert bench.pair().state is PairState.WAITING
    bench.receive(bench.answer(bench.requests[0], code=400))
    bench.run(0.02)
    assert len(bench.requests) == 2


@pytest.mark.parametrize("state", [PairState.FROZEN, PairState.WAITING, PairState.FAILED])
def test_a_request_on_an_idle_pair_triggers_a_check(state: PairState) -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    bench.pair().state = state
    bench.receive(bench.request())
    bench.run(0.02)
    assert len(bench.requests) == 2


def test_a_request_on_a_succeeded_pair_is_answered_and_nothing_more() -> None:
    bench = completed_bench()
    for _ in range(5):
        bench.receive(bench.request())
        bench.run(0.02)
    assert bench.requests == []
    assert len(bench.responses) == 5


def test_a_hasty_peer_on_a_slow_path_does_not_make_every_check_forgotten() -> None:
    """A peer that asks every 48 ms triggers a check every time; the answers take 2 s."""
    bench = Bench(remotes=[REMOTE], controlling=False)
    bench.answer_all(rtt=2.0)
    for _ in range(60):
        bench.receive(bench.request())
        bench.run(0.048)
        if bench.pair().valid:
            break
    assert bench.pair().valid
    assert bench.elapsed < 2.1


def test_the_memory_of_checks_is_bounded() -> None:
    bench = Bench(remotes=[REMOTE])
    for _ in range(500):
        bench.receive(bench.request())
        bench.run(1.0)
    assert len(bench.pair().checks) <= CHECKS_REMEMBERED
    assert len(bench.agent._current.checks._out) <= CHECKS_REMEMBERED


def test_checks_of_pairs_that_made_way_for_others_do_not_fill_the_memory() -> None:
    bench = Bench(controlling=False, config=AgentConfig(max_pairs=1))
    for n in range(200):
        source = (REMOTE[0], 6000 + n % 2)
        for _ in range(3):
            bench.receive(bench.request(), source)
            bench.run(0.021)
        bench.receive(bench.answer(bench.requests[-1], code=400), source)
        assert bench.pair(source).state is PairState.FAILED
        bench.take()
    assert bench.elapsed < 30.0
    assert len(bench.agent._current.checks._out) <= CHECKS_REMEMBERED + REPEATS_REMEMBERED


# -- RTO, section 14.3 ----


def test_the_timeout_grows_with_the_checks_that_share_the_pacing() -> None:
    bench = Bench(config=AgentConfig(ta=0.05, max_remote_candidates=30))
    for n in range(1, 31):
        candidate = remote_candidate((REMOTE[0], n), foundation=str(n))
        bench.agent.add_remote_candidate(candidate, bench.now)
    bench.run(4.0)
    by_port: dict[int, list[float]] = {}
    for sent in bench.requests:
        by_port.setdefault(sent.destination[1], []).append(sent.at)
    first, last = by_port[1], by_port[30]
    # Ta * (Num-Waiting + Num-In-Progress): the first was alone, the last the thirtieth
    assert first[1] - first[0] == pytest.approx(0.5)
    assert last[1] - last[0] == pytest.approx(0.05 * 30)


def test_no_configuration_makes_the_timeout_shorter_than_500_ms() -> None:
    bench = Bench(remotes=[REMOTE], config=AgentConfig(rto=0.1))
    bench.run(0.6)
    assert bench.times() == [0.0, 0.5]
