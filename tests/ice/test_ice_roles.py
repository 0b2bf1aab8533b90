"""Roles and their conflicts, both ways: RFC 8445 sections 6.1.1, 7.2.5.1, 7.3.1.1 and 16.1."""

from __future__ import annotations

import pytest

from ice_punch.ice import IceState, PairState
from ice_punch.ice.checks import MAX_ROLE_CONFLICTS
from ice_punch.lab.behaviour import NatKind
from ice_punch.stun import ICE_CONTROLLED, ICE_CONTROLLING, MessageClass
from support.agents import Meeting
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, completed_bench, remote_candidate

HIGHEST = 2**64 - 1


@pytest.mark.parametrize("controlling", [True, False])
def test_the_role_is_in_every_check_with_one_64_bit_tie_breaker(controlling: bool) -> None:
    bench = Bench(controlling=controlling, remotes=[REMOTE, (REMOTE[0], 6001)])
    bench.run(2.0)
    mine, other = (ICE_CONTROLLING, ICE_CONTROLLED)[:: 1 if controlling else -1]
    assert len(bench.requests) == 3
    for sent in bench.requests:
        assert sent.message.get(mine) == bench.agent.tie_breaker
        assert sent.message.get(other) is None
    assert 0 <= bench.agent.tie_breaker < 2**64


# -- what a request of the same role does, section 7.3.1.1 ----


def test_a_controlling_agent_with_the_larger_tie_breaker_refuses_with_487() -> None:
    bench = Bench(remotes=[REMOTE])
    tie_breaker = bench.agent.tie_breaker
    for theirs in (0, tie_breaker - 1, tie_breaker):  # larger than or equal to
        bench.receive(bench.request(controlling=True, tie_breaker=theirs))
    assert [s.error for s in bench.responses] == [487, 487, 487]
    assert all(s.message.verify(OURS.key) for s in bench.responses)
    assert bench.agent.controlling
    assert bench.agent.tie_breaker == tie_breaker
    assert bench.pair().requests_received == 0
    assert bench.agent.counters["role_conflicts"] == 3


def test_a_controlling_agent_with_the_smaller_tie_breaker_gives_way() -> None:
    bench = Bench(remotes=[REMOTE])
    tie_breaker = bench.agent.tie_breaker
    bench.receive(bench.request(controlling=True, tie_breaker=tie_breaker + 1))
    assert not bench.agent.controlling
    assert bench.responses[0].message.message_class is MessageClass.SUCCESS
    assert bench.agent.tie_breaker == tie_breaker
    bench.run(0.02)
    assert bench.requests[-1].message.get(ICE_CONTROLLED) == tie_breaker


@pytest.mark.parametrize("below", [0, 1])
def test_a_controlled_agent_with_the_larger_tie_breaker_takes_control(below: int) -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    tie_breaker = bench.agent.tie_breaker
    bench.receive(bench.request(controlling=False, tie_breaker=tie_breaker - below))
    assert bench.agent.controlling
    assert bench.responses[0].message.message_class is MessageClass.SUCCESS


def test_a_controlled_agent_with_the_smaller_tie_breaker_refuses_with_487() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    bench.receive(bench.request(controlling=False, tie_breaker=HIGHEST))
    assert [s.error for s in bench.responses] == [487]
    assert not bench.agent.controlling


def test_who_takes_control_nominates() -> None:
    bench = Bench(controlling=False, remotes=[REMOTE])
    bench.answer_all(0.1)
    bench.receive(bench.request(controlling=False, tie_breaker=0))
    bench.run(1.0)
    assert any(s.nominates for s in bench.requests)
    assert bench.agent.state is IceState.COMPLETED


def test_who_gives_way_does_not_nominate() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.request(controlling=True, tie_breaker=HIGHEST))
    bench.answer_all(0.1)
    bench.run(3.0)
    assert bench.agent.state is IceState.CONNECTED
    assert not any(s.nominates for s in bench.requests)


def test_giving_way_while_a_nomination_is_out_leaves_the_nomination_to_the_peer() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.1, when=lambda s: not s.nominates)
    bench.run(0.15)
    (nomination,) = [s for s in bench.requests if s.nominates]
    bench.receive(bench.request(controlling=True, tie_breaker=HIGHEST))
    bench.receive(bench.answer(nomination))
    assert bench.agent.selected_pair() is None
    bench.receive(bench.request(controlling=True, tie_breaker=HIGHEST, use_candidate=True))
    assert bench.agent.selected_pair() is bench.pair()


def test_who_regains_control_can_nominate() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.1, when=lambda s: not s.nominates)
    bench.run(0.15)
    bench.receive(bench.request(controlling=True, tie_breaker=HIGHEST))
    bench.run(1.0)
    bench.receive(bench.request(controlling=False, tie_breaker=0))
    bench.answer_all(0.1, when=lambda s: s.at >= bench.begun + 1.15)
    bench.run(0.5)
    assert bench.agent.controlling
    assert bench.agent.state is IceState.COMPLETED


def test_a_request_of_another_branch_does_not_touch_the_role() -> None:
    bench = Bench(remotes=[REMOTE])
    forked = bench.request(controlling=True, tie_breaker=HIGHEST, username=f"{OURS.ufrag}:forked")
    bench.receive(forked, ("203.0.113.8", 1))
    assert bench.agent.controlling
    assert bench.agent.counters["requests_of_another_ufrag"] == 1
    assert len(bench.agent.remote_candidates) == 1


# -- what 487 does, section 7.2.5.1 ----


@pytest.mark.parametrize("controlling", [True, False])
def test_487_switches_the_role_changes_the_tie_breaker_and_repeats_the_check(
    controlling: bool,
) -> None:
    bench = Bench(controlling=controlling, remotes=[REMOTE])
    before = bench.agent.tie_breaker
    bench.receive(bench.answer(bench.requests[0], code=487))
    assert bench.agent.controlling is not controlling
    assert bench.agent.tie_breaker != before
    assert bench.pair().state is PairState.WAITING
    bench.run(0.02)
    assert len(bench.requests) == 2
    now_mine = ICE_CONTROLLED if controlling else ICE_CONTROLLING
    assert bench.requests[1].message.get(now_mine) == bench.agent.tie_breaker
    assert bench.requests[1].at == pytest.approx(bench.begun + 0.02)  # its slot of Ta


def test_487_puts_the_pair_ahead_of_ordinary_checks() -> None:
    bench = Bench()
    for n in range(1, 5):
        bench.agent.add_remote_candidate(
            remote_candidate((REMOTE[0], n), foundation=str(n)), bench.now
        )
    bench.flush()
    bench.receive(bench.answer(bench.requests[0], code=487), (REMOTE[0], 1))
    bench.run(0.02)
    assert [s.destination[1] for s in bench.requests] == [1, 1]


def test_a_stale_487_does_not_switch_back() -> None:
    """Two checks of the old role are out, both are refused: the role changes once."""
    remotes = [remote_candidate((REMOTE[0], n), foundation=str(n)) for n in (1, 2)]
    bench = Bench(remotes=remotes)
    bench.run(0.02)
    first, second = bench.requests
    bench.receive(bench.answer(first, code=487), first.destination)
    tie_breaker = bench.agent.tie_breaker
    bench.receive(bench.answer(second, code=487), second.destination)
    assert not bench.agent.controlling
    assert bench.agent.tie_breaker == tie_breaker
    bench.run(0.1)
    assert [s.destination[1] for s in bench.requests] == [1, 2, 1, 2]
    assert all(s.message.get(ICE_CONTROLLED) == tie_breaker for s in bench.requests[2:])


def test_a_487_to_a_superseded_check_repeats_nothing() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.run(0.1)
    bench.receive(bench.request(controlling=True, tie_breaker=HIGHEST))
    old, new = bench.requests
    assert new.message.get(ICE_CONTROLLED) is not None
    bench.receive(bench.answer(old, code=487))
    assert bench.pair().state is PairState.IN_PROGRESS
    assert not bench.agent.controlling
    bench.run(0.1)
    assert len(bench.requests) == 2


def test_a_487_that_nobody_authenticated_switches_nothing() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0], code=487, key=b"wrong"))
    assert bench.agent.controlling


def test_a_peer_that_always_says_487_is_given_up() -> None:
    bench = Bench(remotes=[REMOTE])
    for _ in range(MAX_ROLE_CONFLICTS + 5):
        if bench.requests:
            bench.receive(bench.answer(bench.take()[-1], code=487))
        bench.run(0.02)
    assert bench.pair().state is PairState.FAILED
    bench.run(5.0)
    assert bench.requests == []


def test_the_tie_breaker_is_constant_otherwise() -> None:
    bench = Bench(remotes=[REMOTE])
    before = bench.agent.tie_breaker
    bench.answer_all(0.1)
    bench.receive(bench.request())
    bench.run(60.0)
    assert bench.agent.tie_breaker == before


def test_a_role_switch_after_completion_nominates_nothing_again() -> None:
    bench = completed_bench()
    bench.receive(bench.request(controlling=False, tie_breaker=0))
    bench.answer_all(0.1)
    bench.run(20.0)
    assert bench.agent.controlling
    assert bench.agent.state is IceState.COMPLETED
    assert not any(s.nominates for s in bench.requests)


# -- lite peers, section 6.1.1 ----


def test_against_a_lite_peer_the_full_agent_controls() -> None:
    bench = Bench(controlling=False, meet=False)
    bench.meet(lite=True)
    assert bench.agent.controlling
    bench.answer_all(0.1)
    bench.signal(REMOTE)
    bench.run(1.0)
    assert bench.agent.state is IceState.COMPLETED
    assert [s.nominates for s in bench.requests] == [False, True]


# -- both ends ----


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("skew", [0.0, 0.03, 0.2])
def test_two_controlling_agents_agree(seed: int, skew: float) -> None:
    meeting = Meeting(rtt=0.1, seed=seed, controlling_b=True)
    meeting.start(skew)
    assert meeting.until_completed(10.0)
    meeting.run(1.0)
    a, b = meeting.a.agent, meeting.b.agent
    assert a.controlling is not b.controlling
    first, second = a.selected_pair(), b.selected_pair()
    assert first is not None
    assert second is not None
    assert first.mapped is not None
    assert first.mapped.address == second.remote.address


@pytest.mark.parametrize("seed", range(8))
def test_two_controlled_agents_agree(seed: int) -> None:
    meeting = Meeting(NatKind.NONE, NatKind.NONE, rtt=0.1, seed=seed, gather=False)
    meeting.a.agent._session.controlling = False
    meeting.start(0.02)
    assert meeting.until_completed(10.0)
    assert meeting.a.agent.controlling is not meeting.b.agent.controlling


def test_our_own_check_that_comes_back_to_us_is_no_check() -> None:
    """Two private networks may use the same addresses: the peer's host address is our own."""
    bench = Bench(remotes=[LOCAL])
    (check,) = bench.take()
    bench.receive(check.data, LOCAL, LOCAL)
    (response,) = bench.responses
    assert response.error == 401
    assert not response.message.integrity
    bench.receive(response.data, LOCAL, LOCAL)
    assert bench.pair(LOCAL).state is PairState.IN_PROGRESS
    assert bench.agent.controlling
    assert PEER.ufrag != OURS.ufrag
