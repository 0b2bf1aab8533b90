"""Checks that come before the answer: RFC 8445 sections 5.3 and 7.3."""

from __future__ import annotations

import pytest

from ice_punch.ice import AgentConfig, CandidateType, DataReceived, IceState, PairState
from ice_punch.stun import XOR_MAPPED_ADDRESS, MessageClass
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench

OTHER = ("203.0.113.44", 4444)


def early(**keywords: object) -> Bench:
    return Bench(meet=False, **keywords)  # type: ignore[arg-type]


def test_an_early_check_is_answered_at_once() -> None:
    bench = early()
    bench.receive(bench.request())
    (response,) = bench.sent
    assert response.message.message_class is MessageClass.SUCCESS
    assert response.message.get(XOR_MAPPED_ADDRESS) == REMOTE
    assert response.message.verify(OURS.key)
    assert response.message.has_fingerprint
    assert (response.local, response.destination) == (LOCAL, REMOTE)
    assert bench.agent.state is IceState.NEW
    assert len(bench.agent.check_list) == 0


def test_an_early_check_triggers_ours_the_moment_the_answer_comes() -> None:
    bench = early()
    bench.receive(bench.request())
    bench.run(0.5)
    bench.take()
    bench.meet()
    (check,) = bench.requests
    assert check.at == bench.now
    assert check.destination == REMOTE
    assert bench.agent.remote_candidates[0].type is CandidateType.PRFLX


def test_an_early_check_of_a_candidate_in_the_answer_uses_that_one_later() -> None:
    bench = early()
    bench.receive(bench.request())
    bench.meet()
    bench.signal(REMOTE)
    assert [c.type for c in bench.agent.remote_candidates] == [CandidateType.HOST]
    assert len(bench.agent.check_list) == 1


def test_several_early_checks_trigger_several_pairs_in_order() -> None:
    bench = early()
    bench.receive(bench.request(), REMOTE)
    bench.receive(bench.request(), OTHER)
    bench.receive(bench.request(), REMOTE)
    bench.meet()
    bench.run(0.1)
    assert [s.destination for s in bench.requests] == [REMOTE, OTHER]
    assert bench.pair(REMOTE).requests_received == 2


def test_an_early_nomination_is_not_lost() -> None:
    bench = early(controlling=False)
    bench.receive(bench.request(use_candidate=True))
    bench.meet()
    bench.receive(bench.answer(bench.requests[0]))
    assert bench.agent.selected_pair() is bench.pair()


def test_an_early_role_conflict_is_resolved_at_once() -> None:
    bench = early()
    bench.receive(bench.request(controlling=True, tie_breaker=2**64 - 1))
    assert not bench.agent.controlling
    bench.receive(bench.request(controlling=False, tie_breaker=2**64 - 1))
    assert [s.error for s in bench.responses] == [None, 487]


def test_early_checks_are_bounded() -> None:
    bench = early(config=AgentConfig(max_early_checks=8))
    for port in range(1, 101):
        bench.receive(bench.request(), ("203.0.113.1", port))
    assert len(bench.responses) == 100
    assert bench.agent.counters["early_checks_dropped"] == 92
    assert len(bench.agent._session.validated) == 8
    bench.meet()
    assert {c.port for c in bench.agent.remote_candidates} == set(range(93, 101))


def test_an_early_nomination_outlasts_the_checks_after_it() -> None:
    """It was answered, so the peer is done and will not say it again."""
    bench = early(controlling=False, config=AgentConfig(max_early_checks=8))
    bench.receive(bench.request(use_candidate=True))
    for _ in range(50):
        bench.receive(bench.request())
    bench.meet()
    bench.receive(bench.answer(bench.requests[0]))
    assert bench.agent.selected_pair() is bench.pair()


def test_early_nominations_are_bounded_too() -> None:
    bench = early(controlling=False, config=AgentConfig(max_early_checks=8))
    for port in range(1, 101):
        bench.receive(bench.request(use_candidate=True), ("203.0.113.1", port))
    bench.meet()
    assert {c.port for c in bench.agent.remote_candidates} == set(range(93, 101))


def test_early_checks_of_another_branch_are_forgotten_when_the_answer_comes() -> None:
    bench = early()
    bench.receive(bench.request(username=f"{OURS.ufrag}:forked"), OTHER)
    bench.receive(bench.request(), REMOTE)
    assert bench.agent.accepts_data(OTHER, LOCAL)
    bench.meet()
    assert [c.address for c in bench.agent.remote_candidates] == [REMOTE]
    assert not bench.agent.accepts_data(OTHER, LOCAL)
    assert bench.agent.counters["requests_of_another_ufrag"] == 1


def test_data_may_follow_an_early_check() -> None:
    """The peer's pair is valid the moment we answered: it may send before its answer is here."""
    bench = early()
    bench.receive(b"hello")
    bench.receive(bench.request())
    bench.receive(b"hello again")
    assert [e.data for _, e in bench.events if isinstance(e, DataReceived)] == [b"hello again"]
    assert bench.agent.data_pair() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"username": None},
        {"username": "someone:peerfrag"},
        {"username": OURS.ufrag},
        {"key": PEER.key},
        {"key": None},
        {"priority": None},
        {"fingerprint": False},
    ],
)
def test_an_early_check_that_is_none_leaves_nothing(changes: dict[str, object]) -> None:
    bench = early()
    bench.receive(bench.request(**changes))  # type: ignore[arg-type]
    assert all(s.error in (400, 401) for s in bench.sent)
    assert not bench.agent.accepts_data(REMOTE, LOCAL)
    bench.meet()
    assert bench.agent.remote_candidates == ()


def test_pairs_may_be_known_before_the_password_is() -> None:
    bench = early(remotes=[REMOTE])
    assert bench.pair().state is PairState.WAITING
    bench.run(1.0)
    assert bench.requests == []
    bench.meet()
    assert len(bench.requests) == 1
