"""The check list: pairing, pruning, freezing, limit, and the order of checks.

RFC 8445 sections 6.1.2 to 6.1.4, RFC 8838 section 12.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ice_punch.datagram import Address
from ice_punch.ice import AgentConfig, Candidate, CandidatePair, CandidateType, PairState
from ice_punch.ice.candidate import candidate_priority
from ice_punch.ice.check_list import CheckList, may_pair
from ice_punch.ice.pair import pair_priority
from support.bench import LOCAL, PEER, REMOTE, Bench, remote_candidate

FROZEN, WAITING, IN_PROGRESS = PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS
SUCCEEDED, FAILED = PairState.SUCCEEDED, PairState.FAILED


def local(
    address: Address = LOCAL, *, component: int = 1, foundation: str = "L", preference: int = 65535
) -> Candidate:
    return Candidate(
        foundation=foundation,
        component=component,
        transport="udp",
        priority=candidate_priority(CandidateType.HOST, preference, component),
        host=address[0],
        port=address[1],
        type=CandidateType.HOST,
        base=address,
    )


def remote(
    port: int, *, foundation: str = "R", component: int = 1, preference: int = 65535
) -> Candidate:
    priority = candidate_priority(CandidateType.HOST, preference, component)
    return remote_candidate(
        (REMOTE[0], port), priority=priority, foundation=foundation, component=component
    )


def pair(ours: Candidate, theirs: Candidate) -> CandidatePair:
    return CandidatePair(ours, theirs, controlling=True)


def filled(pairs: Iterable[CandidatePair], limit: int = 100) -> CheckList:
    check_list = CheckList(limit)
    for one in pairs:
        check_list.add(one)
    return check_list


# -- pairing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "together"),
    [
        ("192.0.2.1", "198.51.100.1", True),
        ("192.0.2.1", "2001:db8::1", False),
        ("2001:db8::2", "2001:db8::1", True),
        ("fe80::2", "fe80::1", True),
        ("fe80::2", "2001:db8::1", False),
        ("fd00::2", "fe80::1", False),
        ("192.0.2.1", "169.254.1.1", True),
    ],
)
def test_families_match_and_ipv6_link_local_stays_among_itself(
    ours: str, theirs: str, together: bool
) -> None:
    assert may_pair(local((ours, 1)), remote_candidate((theirs, 1))) is together


def test_components_and_transports_match() -> None:
    assert not may_pair(local(component=1), remote(1, component=2))
    assert may_pair(local(component=2), remote(1, component=2))
    assert not may_pair(local(), remote_candidate(transport="tcp"))


def test_the_pair_priority_formula() -> None:
    assert pair_priority(5, 7) == (5 << 32) + 14
    assert pair_priority(7, 5) == (5 << 32) + 14 + 1
    assert pair_priority(6, 6) == (6 << 32) + 12


def test_both_sides_compute_the_same_pair_priority() -> None:
    ours = CandidatePair(local(preference=7), remote(1, preference=9), controlling=True)
    theirs = CandidatePair(local(preference=9), remote(1, preference=7), controlling=False)
    assert ours.priority == theirs.priority


def test_a_reflexive_candidate_of_ours_is_never_paired() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent._session.local.add(
        CandidateType.SRFLX,
        ("203.0.113.7", 4000),
        base=LOCAL,
        component=1,
        local_preference=65535,
        related=LOCAL,
        server="stun:x",
    )
    bench.signal(("198.51.100.1", 6001))
    bench.run(0.2)
    assert {p.base for p in bench.agent.check_list} == {LOCAL}
    assert len(bench.agent.check_list) == 2
    assert {s.local for s in bench.requests} == {LOCAL}


def test_one_pair_for_each_base_and_remote_address() -> None:
    check_list = filled([pair(local(), remote(1))])
    assert not check_list.add(pair(local(), remote(1, foundation="other")))
    assert len(check_list) == 1


@pytest.mark.parametrize(
    "candidate",
    [
        remote_candidate(transport="tcp"),
        remote_candidate(("198.51.100.1", 0)),
        remote_candidate(("198.51.100.1", 65536)),
        remote_candidate(component=2),
        remote_candidate(("printer.local", 5)),
        remote_candidate(("stun.example.org", 5)),
        remote_candidate(("224.0.0.1", 5)),
        remote_candidate(("0.0.0.0", 5)),
        remote_candidate(("::ffff:192.0.2.1", 5)),
        remote_candidate(("", 5)),
    ],
)
def test_a_remote_candidate_of_no_use_is_counted_and_dropped(candidate: Candidate) -> None:
    bench = Bench()
    bench.signal(candidate)
    assert bench.agent.remote_candidates == ()
    assert bench.agent.counters["candidates_unusable"] == 1


# -- states, RFC 8445 section 6.1.2.6 and RFC 8838 section 12 ------------------------------------


def test_one_pair_of_a_foundation_is_waiting_whatever_the_order_of_arrival() -> None:
    low = pair(local(), remote(1, preference=1))
    middle = pair(local(), remote(2, preference=2))
    high = pair(local(), remote(3, preference=3))
    for order in ([low, middle, high], [high, middle, low], [middle, high, low]):
        filled(order)
        assert [p.state for p in (low, middle, high)] == [FROZEN, FROZEN, WAITING]


def test_the_lowest_component_goes_before_the_highest_priority() -> None:
    second = pair(local(component=2), remote(1, component=2, preference=9))
    first = pair(local(component=1), remote(2, component=1, preference=1))
    for order in ([first, second], [second, first]):
        filled(order)
        assert (first.state, second.state) == (WAITING, FROZEN)


def test_a_foundation_is_that_of_both_candidates() -> None:
    pairs = [
        pair(local(), remote(1, foundation="1")),
        pair(local(), remote(2, foundation="2")),
        pair(local(("192.0.2.2", 1), foundation="M"), remote(1, foundation="1")),
        pair(local(("192.0.2.2", 1), foundation="M"), remote(2, foundation="2")),
    ]
    filled(pairs)
    assert [p.state for p in pairs] == [WAITING] * 4


def test_the_first_of_its_foundation_is_waiting_though_a_lesser_one_is_in_progress() -> None:
    low, high = pair(local(), remote(1, preference=1)), pair(local(), remote(2, preference=2))
    check_list = filled([low])
    low.state = IN_PROGRESS
    check_list.add(high)
    assert high.state is WAITING  # rule 1


def test_a_late_pair_is_waiting_when_its_foundation_has_succeeded() -> None:
    high, low = pair(local(), remote(1, preference=2)), pair(local(), remote(2, preference=1))
    check_list = filled([high])
    check_list.succeeded(high)
    check_list.add(low)
    assert low.state is WAITING  # rule 2


@pytest.mark.parametrize("state", [FROZEN, WAITING, IN_PROGRESS, FAILED])
def test_a_late_pair_is_frozen_otherwise(state: PairState) -> None:
    high, low = pair(local(), remote(1, preference=2)), pair(local(), remote(2, preference=1))
    check_list = filled([high])
    high.state = state
    check_list.add(low)
    assert low.state is FROZEN  # rule 3


def test_a_triggered_pair_is_not_frozen_again() -> None:
    low, high = pair(local(), remote(1, preference=1)), pair(local(), remote(2, preference=2))
    check_list = filled([low])
    check_list.trigger(low)
    check_list.add(high)
    assert (low.state, high.state) == (WAITING, WAITING)


def test_success_unfreezes_the_foundation_and_nothing_else() -> None:
    first = pair(local(), remote(1, preference=3))
    same = pair(local(), remote(2, preference=2))
    component = pair(local(component=2), remote(3, component=2))
    other = pair(local(), remote(4, foundation="X"))
    frozen_other = pair(local(), remote(5, foundation="X", preference=1))
    check_list = filled([first, same, component, other, frozen_other])
    check_list.succeeded(first)
    assert [p.state for p in (first, same, component)] == [SUCCEEDED, WAITING, WAITING]
    assert (other.state, frozen_other.state) == (WAITING, FROZEN)


def test_failure_unfreezes_one_pair_of_the_foundation() -> None:
    first, second, third = (pair(local(), remote(n, preference=9 - n)) for n in (1, 2, 3))
    check_list = filled([first, second, third])
    first.state = FAILED
    assert check_list.has_work()
    assert check_list.next_ordinary() is second
    assert (second.state, third.state) == (WAITING, FROZEN)


def test_nothing_is_unfrozen_while_the_foundation_is_busy() -> None:
    first, second = (pair(local(), remote(n, preference=9 - n)) for n in (1, 2))
    check_list = filled([first, second])
    first.state = IN_PROGRESS
    assert not check_list.has_work()
    assert check_list.next_ordinary() is None
    assert second.state is FROZEN


# -- limit, RFC 8445 section 6.1.2.5 and RFC 8838 section 10 -------------------------------------


def test_there_are_at_most_one_hundred_pairs() -> None:
    bench = Bench(bases=[("192.0.2.1", n) for n in range(1, 21)])
    for n in range(1, 21):
        bench.signal(remote_candidate((REMOTE[0], n), foundation=str(n)))
    assert len(bench.agent.check_list) == 100
    assert AgentConfig().max_pairs == 100


def test_a_better_pair_displaces_the_worst_that_was_not_tried() -> None:
    pairs = [pair(local(), remote(n, foundation=str(n), preference=n)) for n in range(2, 6)]
    check_list = filled(pairs, limit=4)
    check_list.trigger(pairs[0])
    better = pair(local(), remote(9, foundation="9", preference=9))
    assert check_list.add(better)
    assert pairs[0] not in check_list.pairs
    assert not check_list.triggered_check_queue
    assert check_list.find(LOCAL, (REMOTE[0], 2)) is None


def test_a_worse_pair_is_refused() -> None:
    pairs = [pair(local(), remote(n, foundation=str(n), preference=n)) for n in range(2, 6)]
    check_list = filled(pairs, limit=4)
    assert not check_list.add(pair(local(), remote(1, foundation="1", preference=1)))
    assert check_list.pairs_refused == 1


def test_failed_pairs_go_first_and_tried_ones_stay() -> None:
    pairs = [pair(local(), remote(n, foundation=str(n), preference=n)) for n in range(2, 6)]
    check_list = filled(pairs, limit=4)
    pairs[3].state = FAILED
    pairs[0].state = IN_PROGRESS
    pairs[1].state = SUCCEEDED
    pairs[2].state = SUCCEEDED
    assert check_list.add(pair(local(), remote(1, foundation="1", preference=1)))
    assert pairs[3] not in check_list.pairs
    assert not check_list.add(pair(local(), remote(8, foundation="8", preference=0)))


def test_a_late_answer_for_a_pair_that_is_gone_changes_nothing() -> None:
    bench = Bench(config=AgentConfig(max_pairs=1), remotes=[remote_candidate(priority=5)])
    check = bench.requests[0]
    bench.agent.receive_icmp_error(LOCAL, REMOTE, bench.now)
    bench.signal(remote_candidate(("198.51.100.7", 7), foundation="2"))
    assert bench.agent.check_list.find(LOCAL, REMOTE) is None
    bench.receive(bench.answer(check))
    assert bench.agent.valid_list == []
    assert bench.agent.counters["responses_unmatched"] == 1


def test_remote_candidates_are_bounded() -> None:
    bench = Bench()
    for n in range(1, 300):
        bench.signal((REMOTE[0], n))
    for n in range(300, 600):
        bench.receive(bench.request(), (REMOTE[0], n))
    assert len(bench.agent.remote_candidates) == 100
    assert bench.agent.counters["candidates_surplus"] == 499
    assert len(bench.agent._session.validated) <= 100


# -- order, RFC 8445 section 6.1.4.2 -------------------------------------------------------------


def test_ordinary_checks_go_by_priority() -> None:
    bench = Bench()
    for n in (2, 1, 3):
        bench.agent.add_remote_candidate(remote(n, foundation=str(n), preference=n), bench.now)
    bench.run(0.1)
    # the first is sent the moment it is there; the others are in order when their turn comes
    assert [s.destination[1] for s in bench.requests] == [2, 3, 1]


def test_equal_priorities_go_by_component() -> None:
    # priorities of a peer may collide; the component then decides
    one, two = remote(1, foundation="1"), remote(2, foundation="2", component=2)
    two = remote_candidate((REMOTE[0], 2), priority=one.priority, foundation="2", component=2)
    second = pair(local(component=2, preference=65535), two)
    first = pair(local(), one)
    second.priority = first.priority
    check_list = CheckList()
    check_list.add(second)
    check_list.add(first)
    assert check_list.next_ordinary() is first


def test_a_triggered_check_goes_ahead_of_ordinary_ones() -> None:
    bench = Bench()
    for n in range(1, 6):
        bench.agent.add_remote_candidate(remote(n, foundation=str(n), preference=9 - n), bench.now)
    bench.receive(bench.request(), (REMOTE[0], 5))
    bench.run(0.2)
    assert [s.destination[1] for s in bench.requests] == [1, 5, 2, 3, 4]


def test_a_role_switch_reorders_the_list() -> None:
    bench = Bench(controlling=True)
    # G > D counts 1: with the roles exchanged it moves to the other pair
    ours = bench.agent.local_candidates[0].priority
    bench.signal(remote_candidate((REMOTE[0], 1), priority=ours - 1, foundation="1"))
    before = bench.pair((REMOTE[0], 1)).priority
    bench.receive(bench.request(controlling=True, tie_breaker=2**64 - 1), (REMOTE[0], 1))
    assert not bench.agent.controlling
    assert bench.pair((REMOTE[0], 1)).priority == before - 1


def test_a_check_is_what_the_rfc_says() -> None:
    from ice_punch.stun import FINGERPRINT, ICE_CONTROLLED, ICE_CONTROLLING, PRIORITY, USERNAME

    bench = Bench(remotes=[REMOTE])
    (check,) = bench.requests
    message = check.message
    assert message.get(USERNAME) == f"{PEER.ufrag}:{bench.agent.credentials.ufrag}"
    assert message.verify(PEER.key)
    assert message.has_fingerprint
    assert message.get(FINGERPRINT) is not None
    assert message.get(ICE_CONTROLLING) == bench.agent.tie_breaker
    assert message.get(ICE_CONTROLLED) is None
    assert message.get(PRIORITY) == candidate_priority(CandidateType.PRFLX, 65535, 1)
    assert not check.nominates
    assert (check.local, check.destination) == (LOCAL, REMOTE)
