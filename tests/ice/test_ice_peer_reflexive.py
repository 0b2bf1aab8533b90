"""Peer-reflexive candidates on both sides: RFC 8445 sections 7.2.5.3.1 and 7.3.1.3, RFC 8838
section 11."""

from __future__ import annotations

import pytest

from ice_punch.datagram import Address
from ice_punch.ice import (
    AgentConfig,
    CandidateType,
    IceState,
    LocalCandidateFound,
    PairState,
)
from ice_punch.ice.candidate import MAX_PRIORITY, candidate_priority
from ice_punch.lab.behaviour import NatKind
from ice_punch.stun import PRIORITY
from support.agents import Meeting
from support.bench import LOCAL, REMOTE, Bench, remote_candidate, valid_bench

SECOND = ("192.0.2.2", 5000)
UNKNOWN = ("203.0.113.44", 4444)
MAPPED = ("203.0.113.7", 40001)


# -- ours ----


def test_an_unknown_mapped_address_becomes_a_candidate_of_ours() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    (check,) = bench.requests
    bench.receive(bench.answer(check, mapped=MAPPED))
    pair = bench.pair()
    assert pair.mapped is not None
    assert (pair.mapped.type, pair.mapped.address, pair.mapped.base) == (
        CandidateType.PRFLX,
        MAPPED,
        LOCAL,
    )
    assert pair.mapped.priority == check.message.get(PRIORITY)
    assert pair.mapped.foundation not in {
        c.foundation for c in bench.agent.local_candidates if c.type is not CandidateType.PRFLX
    }
    assert pair.mapped in bench.agent.local_candidates
    assert bench.events[-1][1] != LocalCandidateFound(pair.mapped)
    assert LocalCandidateFound(pair.mapped) in [e for _, e in bench.events]


def test_a_known_mapped_address_is_the_candidate_it_is() -> None:
    bench = valid_bench()
    assert bench.pair().mapped is bench.agent.local_candidates[0]
    assert len(bench.agent.local_candidates) == 1


def test_a_learned_candidate_of_ours_is_not_paired() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0], mapped=MAPPED))
    bench.signal((REMOTE[0], 6001))
    assert {p.base for p in bench.agent.check_list} == {LOCAL}


def test_a_peer_that_invents_mapped_addresses_does_not_fill_the_memory() -> None:
    bench = Bench(config=AgentConfig(max_pairs=10), remotes=[REMOTE])
    for port in range(1, 300):
        bench.run(0.05)
        check = bench.take()[-1]
        if check.nominates:
            bench.receive(bench.answer(check, code=400))
            bench.receive(bench.request())
        else:
            bench.receive(bench.answer(check, mapped=("203.0.113.7", port)))
    assert len(bench.agent.local_candidates) == 11
    assert bench.agent.counters["candidates_surplus"] > 100


# -- the peer's ----


def test_an_unknown_source_becomes_a_candidate_of_the_peer_with_its_priority() -> None:
    bench = Bench()
    bench.receive(bench.request(priority=1853824255), UNKNOWN)
    (learned,) = bench.agent.remote_candidates
    assert (learned.type, learned.address) == (CandidateType.PRFLX, UNKNOWN)
    assert (learned.priority, learned.component) == (1853824255, 1)
    pair = bench.pair(UNKNOWN)
    assert pair.requests_received == 1
    assert [s.destination for s in bench.requests] == [UNKNOWN]


def test_a_learned_foundation_is_one_that_nobody_can_signal() -> None:
    bench = Bench()
    bench.receive(bench.request(), UNKNOWN)
    bench.receive(bench.request(), ("203.0.113.44", 4445))
    first, second = (c.foundation for c in bench.agent.remote_candidates)
    assert first != second
    assert not first.isalnum()


def test_a_learned_candidate_is_paired_only_where_it_was_learned() -> None:
    bench = Bench(bases=[LOCAL, SECOND])
    bench.receive(bench.request(), UNKNOWN, SECOND)
    assert [(p.base, p.remote.address) for p in bench.agent.check_list] == [(SECOND, UNKNOWN)]


def test_a_priority_beyond_the_range_is_cut() -> None:
    bench = Bench()
    bench.receive(bench.request(priority=2**32 - 1), UNKNOWN)
    assert bench.agent.remote_candidates[0].priority == MAX_PRIORITY


def test_a_learned_candidate_that_is_signalled_keeps_its_pair_and_state() -> None:
    bench = Bench(controlling=False)
    bench.receive(bench.request(), UNKNOWN)
    bench.receive(bench.answer(bench.requests[0]), UNKNOWN)
    pair = bench.pair(UNKNOWN)
    before = pair.priority
    signalled = remote_candidate(
        UNKNOWN, CandidateType.SRFLX, foundation="9", related=("10.0.0.1", 1)
    )
    bench.signal(signalled)
    assert bench.pair(UNKNOWN) is pair
    assert (pair.state, pair.valid) == (PairState.SUCCEEDED, True)
    assert pair.remote == signalled
    assert pair.priority != before
    assert bench.agent.remote_candidates == (signalled,)
    bench.run(1.0)
    assert len(bench.requests) == 1


@pytest.mark.parametrize("state", ["in-progress", "waiting", "failed"])
def test_a_promotion_changes_no_state(state: str) -> None:
    bench = Bench()
    bench.receive(bench.request(), UNKNOWN)
    pair = bench.pair(UNKNOWN)
    pair.state = PairState(state)
    bench.agent._session.check_list.unqueue(pair)
    bench.agent._current.trickle.add(remote_candidate(UNKNOWN, CandidateType.RELAY), bench.now)
    assert pair.state == state
    assert pair.remote.type is CandidateType.RELAY


def test_a_promotion_reorders_the_check_list() -> None:
    bench = Bench()
    bench.receive(
        bench.request(priority=candidate_priority(CandidateType.PRFLX, 65535, 1)), UNKNOWN
    )
    bench.signal(remote_candidate(REMOTE, CandidateType.SRFLX, foundation="2"))
    assert [p.remote.address for p in bench.agent.check_list] == [UNKNOWN, REMOTE]
    bench.signal(remote_candidate(UNKNOWN, CandidateType.RELAY, foundation="3"))
    assert [p.remote.address for p in bench.agent.check_list] == [REMOTE, UNKNOWN]


def test_a_promoted_candidate_is_paired_with_our_other_bases() -> None:
    bench = Bench(bases=[LOCAL, SECOND])
    bench.receive(bench.request(), UNKNOWN, SECOND)
    bench.signal(remote_candidate(UNKNOWN, CandidateType.SRFLX))
    assert {(p.base, p.remote.address) for p in bench.agent.check_list} == {
        (SECOND, UNKNOWN),
        (LOCAL, UNKNOWN),
    }


def test_a_promotion_of_the_selected_pair_changes_only_what_it_is_called() -> None:
    bench = Bench(controlling=False)
    bench.receive(bench.request(use_candidate=True), UNKNOWN)
    bench.receive(bench.answer(bench.requests[0]), UNKNOWN)
    selected = bench.agent.selected_pair()
    assert selected is not None
    bench.signal(remote_candidate(UNKNOWN, CandidateType.SRFLX))
    assert bench.agent.selected_pair() is selected
    assert selected.remote.type is CandidateType.SRFLX
    assert bench.agent.state is IceState.COMPLETED


def test_a_candidate_signalled_as_peer_reflexive_is_taken_as_it_is() -> None:
    bench = Bench()
    bench.receive(bench.request(), UNKNOWN)
    learned = bench.agent.remote_candidates
    bench.signal(remote_candidate(UNKNOWN, CandidateType.PRFLX, priority=5))
    assert bench.agent.remote_candidates == learned


# -- direct only ----


def test_direct_only_pairs_with_no_relay_of_the_peer() -> None:
    bench = Bench(config=AgentConfig(direct_only=True))
    bench.signal(remote_candidate(UNKNOWN, CandidateType.RELAY))
    assert len(bench.agent.check_list) == 0
    assert bench.agent.counters["candidates_refused_relayed"] == 1
    bench.receive(bench.request(use_candidate=True), UNKNOWN)
    assert [s.error for s in bench.responses] == [400]
    assert len(bench.agent.check_list) == 0
    assert not bench.agent.accepts_data(UNKNOWN, LOCAL)


def test_direct_only_drops_a_selected_pair_once_it_turns_out_to_be_a_relay() -> None:
    """The peer's check through its relay came before the relayed candidate was signalled."""
    bench = Bench(controlling=False, config=AgentConfig(direct_only=True), remotes=[REMOTE])
    bench.receive(bench.request(use_candidate=True), UNKNOWN)
    bench.run(0.1)
    bench.receive(bench.answer(bench.requests[-1]), UNKNOWN)
    assert bench.agent.state is IceState.COMPLETED
    bench.signal(remote_candidate(UNKNOWN, CandidateType.RELAY))
    assert bench.agent.state is IceState.CHECKING
    assert bench.agent.data_pair() is None
    assert not bench.agent.accepts_data(UNKNOWN, LOCAL)
    bench.take()
    bench.run(0.1)
    bench.receive(bench.request(), REMOTE)
    bench.run(0.1)
    bench.receive(bench.answer(bench.requests[-1]), REMOTE)
    assert bench.agent.state is IceState.CONNECTED
    assert bench.agent.data_pair() is bench.pair()


def test_direct_only_pairs_anew_what_the_nomination_put_aside() -> None:
    other = (REMOTE[0], 6001)
    bench = Bench(controlling=False, config=AgentConfig(direct_only=True), remotes=[REMOTE, other])
    bench.receive(bench.request(use_candidate=True), UNKNOWN)
    bench.run(0.02)
    bench.receive(bench.answer(bench.requests[-1]), UNKNOWN)
    assert bench.agent.check_list.find(LOCAL, other) is None  # it was frozen
    bench.signal(remote_candidate(UNKNOWN, CandidateType.RELAY))
    assert bench.agent.check_list.find(LOCAL, other) is not None


def test_direct_only_stops_a_check_that_is_out_to_a_relay() -> None:
    bench = Bench(controlling=False, config=AgentConfig(direct_only=True))
    bench.receive(bench.request(), UNKNOWN)
    (check,) = bench.requests
    bench.signal(remote_candidate(UNKNOWN, CandidateType.RELAY))
    bench.run(5.0)
    assert len(bench.requests) == 1
    bench.receive(bench.answer(check), UNKNOWN)
    assert bench.agent.counters["responses_unmatched"] == 1


def test_direct_only_that_lost_its_only_way_fails_in_the_end() -> None:
    config = AgentConfig(direct_only=True, give_up_after=8.0)
    bench = Bench(controlling=False, config=config)
    bench.receive(bench.request(use_candidate=True), UNKNOWN)
    bench.receive(bench.answer(bench.requests[-1]), UNKNOWN)
    bench.signal(remote_candidate(UNKNOWN, CandidateType.RELAY))
    bench.run(9.0)
    assert bench.agent.state is IceState.FAILED


def test_direct_only_with_another_valid_pair_goes_on_with_that() -> None:
    bench = Bench(controlling=False, config=AgentConfig(direct_only=True), remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0]))
    bench.receive(bench.request(use_candidate=True), UNKNOWN)
    bench.run(0.1)
    bench.receive(bench.answer(bench.requests[-1]), UNKNOWN)
    assert bench.agent.selected_pair() is bench.pair(UNKNOWN)
    bench.signal(remote_candidate(UNKNOWN, CandidateType.RELAY))
    assert bench.agent.state is IceState.CONNECTED
    assert bench.agent.data_pair() is bench.pair()


def test_a_refused_relay_does_not_take_a_direct_candidate_of_the_same_address_with_it() -> None:
    bench = Bench(config=AgentConfig(direct_only=True), remotes=[REMOTE])
    bench.signal(remote_candidate(REMOTE, CandidateType.RELAY))
    bench.receive(bench.request())
    assert len(bench.agent.check_list) == 1
    assert bench.pair().requests_received == 1


# -- both ends ----


@pytest.mark.parametrize("seed", range(4))
def test_a_symmetric_nat_against_a_full_cone_meets_on_learned_addresses(seed: int) -> None:
    meeting = Meeting(NatKind.SYMMETRIC, NatKind.FULL_CONE, rtt=0.1, seed=seed)
    meeting.start(0.05)
    assert meeting.until_completed(10.0)
    a, b = meeting.a.agent.selected_pair(), meeting.b.agent.selected_pair()
    assert a is not None
    assert b is not None
    assert a.mapped is not None
    assert a.mapped.type is CandidateType.PRFLX
    assert b.remote.type is CandidateType.PRFLX
    assert a.mapped.address == b.remote.address


@pytest.mark.parametrize("nonsense", [("192.0.2.9", 0), ("224.0.0.1", 5000), ("2001:db8::1", 5000)])
def test_a_mapped_address_that_is_none_makes_no_candidate(nonsense: Address) -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0], mapped=nonsense))
    assert bench.pair().valid
    assert bench.agent.counters["mapped_addresses_unusable"] == 1
    assert [c.type for c in bench.agent.local_candidates] == [CandidateType.HOST]
