"""Candidates in every order, and the end of them: RFC 8838."""

from __future__ import annotations

import itertools

import pytest

from ice_punch.ice import CandidateType, IceState, LocalCandidateFound, PairState
from ice_punch.lab.behaviour import NatKind
from support.agents import Meeting
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, remote_candidate

STEPS = ("local", "remote", "parameters", "end")


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)))
def test_candidates_and_parameters_may_come_in_any_order(order: tuple[str, ...]) -> None:
    """Only what comes after the end of candidates is lost: section 14."""
    bench = Bench(meet=False, bases=[])
    bench.answer_all(0.1)
    for step in order:
        if step == "local":
            bench.agent.add_host_candidate(LOCAL, bench.now)
        elif step == "remote":
            bench.signal(REMOTE)
        elif step == "parameters":
            bench.meet()
        else:
            bench.agent.end_of_remote_candidates(bench.now)
        bench.run(0.05)
    bench.run(1.0)
    lost = order.index("end") < order.index("remote")
    assert bench.agent.state is (IceState.CHECKING if lost else IceState.COMPLETED)
    assert bench.agent.counters["candidates_after_end"] == lost


def test_a_late_remote_candidate_is_paired_with_every_base() -> None:
    bases = [LOCAL, ("192.0.2.2", 5000), ("2001:db8::1", 5000)]
    bench = Bench(bases=bases)
    bench.run(5.0)
    bench.signal(REMOTE)
    assert {p.base for p in bench.agent.check_list} == set(bases[:2])


def test_a_late_local_candidate_is_paired_with_every_remote_one() -> None:
    bench = Bench(remotes=[REMOTE, (REMOTE[0], 6001), ("2001:db8::9", 1)])
    bench.run(1.0)
    late = ("192.0.2.7", 5000)
    bench.agent.add_host_candidate(late, bench.now)
    assert [p.remote.port for p in bench.agent.check_list if p.base == late] == [6000, 6001]


def test_a_relayed_candidate_is_a_base_of_its_own() -> None:
    bench = Bench(remotes=[REMOTE])
    relayed = ("203.0.113.9", 49152)
    candidate = bench.agent.add_relayed_candidate(relayed, bench.now, server="turn:a", mapped=LOCAL)
    assert candidate is not None
    assert (candidate.type, candidate.base) == (CandidateType.RELAY, relayed)
    assert candidate.related_address == LOCAL
    bench.run(0.1)
    assert {s.local for s in bench.requests} == {LOCAL, relayed}
    assert LocalCandidateFound(candidate) in [e for _, e in bench.events]


def test_a_candidate_is_taken_once() -> None:
    bench = Bench(remotes=[REMOTE, REMOTE])
    assert len(bench.agent.remote_candidates) == 1
    assert bench.agent.counters["candidates_redundant"] == 1


def test_the_session_keeps_checking_while_candidates_may_come() -> None:
    bench = Bench()
    bench.run(30.0)
    assert bench.agent.state is IceState.CHECKING
    bench.answer_all(0.1)
    bench.signal(REMOTE)
    bench.run(1.0)
    assert bench.agent.state is IceState.COMPLETED


def test_the_end_of_candidates_alone_fails_nothing() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    bench.agent.end_of_remote_candidates(bench.now)
    bench.run(30.0)
    assert bench.agent.state is IceState.CHECKING


def test_the_peer_may_be_learned_after_its_end_of_candidates() -> None:
    bench = Bench()
    bench.agent.end_of_remote_candidates(bench.now)
    bench.answer_all(0.1)
    bench.receive(bench.request())
    bench.run(1.0)
    assert bench.agent.state is IceState.COMPLETED


def test_signalling_to_an_ended_session_does_nothing() -> None:
    bench = Bench()
    bench.agent.close(bench.now)
    bench.signal(REMOTE)
    bench.agent.end_of_remote_candidates(bench.now)
    bench.agent.query_server("stun:x", ("203.0.113.1", 3478), LOCAL, bench.now)
    bench.run(60.0)
    assert bench.sent == []
    assert bench.agent.remote_candidates == ()


def test_new_parameters_are_a_restart_and_the_same_ones_are_nothing() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent.set_remote_parameters(PEER, bench.now)
    assert len(bench.agent.check_list) == 1
    with pytest.raises(ValueError, match="restart"):
        bench.agent.set_remote_parameters(OURS, bench.now)


def test_queries_and_ordinary_checks_take_turns() -> None:
    bench = Bench()
    for n in range(1, 5):
        bench.agent.query_server("stun:x", (f"203.0.113.{n}", 3478), LOCAL, bench.now)
        bench.signal(remote_candidate((REMOTE[0], n), foundation=str(n)))
    bench.run(0.2)
    kinds = "".join("q" if s.destination[1] == 3478 else "c" for s in bench.requests)
    assert kinds[:8] == "qcqcqcqc"


def test_a_triggered_check_does_not_wait_for_queries() -> None:
    bench = Bench()
    for n in range(1, 9):
        bench.agent.query_server("stun:x", (f"203.0.113.{n}", 3478), LOCAL, bench.now)
    bench.receive(bench.request())
    bench.run(0.02)
    assert bench.requests[1].destination == REMOTE


@pytest.mark.parametrize("delay", [0.0, 0.3, 2.0])
def test_half_and_full_trickle_between_nats(delay: float) -> None:
    """``b`` hears the parameters at once and the candidates one by one."""
    meeting = Meeting(NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED, rtt=0.1)
    a, b, internet = meeting.a, meeting.b, meeting.internet
    a.meet(b)
    b.agent.set_remote_parameters(a.agent.credentials, internet.now, ta=0.02)
    for n, candidate in enumerate(a.candidates):
        internet.after(
            delay * (n + 1), lambda c=candidate: b.agent.add_remote_candidate(c, internet.now)
        )
    assert meeting.until_completed(10.0)


def test_pair_states_do_not_depend_on_the_order_of_arrival_before_the_start() -> None:
    remotes = [
        remote_candidate((REMOTE[0], 1), foundation="1", priority=300),
        remote_candidate((REMOTE[0], 2), foundation="1", priority=200),
        remote_candidate((REMOTE[0], 3), foundation="2", priority=100),
    ]
    for order in itertools.permutations(remotes):
        bench = Bench(meet=False, remotes=order)
        states = {p.remote.port: p.state for p in bench.agent.check_list}
        assert states == {
            1: PairState.WAITING,
            2: PairState.FROZEN,
            3: PairState.WAITING,
        }
