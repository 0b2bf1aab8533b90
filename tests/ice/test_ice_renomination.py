"""Nominations that replace others, and what a peer may do with their numbers."""

from __future__ import annotations

from ice_punch.ice import CandidateType, IceState
from ice_punch.stun import (
    ICE_CONTROLLING,
    NOMINATION,
    PRIORITY,
    USE_CANDIDATE,
    USERNAME,
    Message,
    MessageClass,
    Method,
)
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, completed_bench, remote_candidate

OTHER = ("198.51.100.7", 7000)


def nomination(number: int) -> bytes:
    message = Message(Method.BINDING, MessageClass.REQUEST, number.to_bytes(12, "big"))
    message.add(USERNAME, f"{OURS.ufrag}:{PEER.ufrag}")
    message.add(PRIORITY, 1845501695)
    message.add(ICE_CONTROLLING, 1)
    message.add(USE_CANDIDATE, True)
    message.add(NOMINATION, number)
    return message.to_bytes(key=OURS.key)


def two_paths() -> Bench:
    bench = Bench(
        controlling=False,
        remotes=[REMOTE, remote_candidate(OTHER, foundation="2", priority=100)],
    )
    bench.answer_all(0.05)
    bench.run(0.2)
    bench.receive(bench.request(use_candidate=True))
    assert bench.agent.selected_pair() is bench.pair()
    return bench


def test_the_highest_number_counts_in_whatever_order_they_come() -> None:
    bench = two_paths()
    bench.receive(nomination(2), OTHER)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair(OTHER)
    bench.receive(nomination(1), REMOTE)
    bench.receive(bench.request(use_candidate=True), REMOTE)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair(OTHER)
    assert bench.agent.counters["nominations_outdated"] == 2
    bench.receive(nomination(3), REMOTE)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair()


def test_a_number_that_leaves_no_room_for_ours_is_no_nomination() -> None:
    bench = two_paths()
    bench.receive(nomination(2**32 - 1), OTHER)
    bench.run(0.2)
    assert bench.agent.selected_pair() is bench.pair()
    assert bench.agent.counters["nominations_out_of_range"] == 1


def test_a_reflexive_address_that_a_check_told_first_is_told_to_the_peer_nevertheless() -> None:
    bench = completed_bench()
    mapped = ("203.0.113.77", 4000)
    bench.agent._current.checks.mapped_candidate(bench.pair(), mapped)
    bench.agent.add_server_reflexive_candidate(
        mapped, LOCAL, bench.now, server="turn:t", server_address=("203.0.113.5", 3478)
    )
    types = [c.type for c in bench.agent.local_candidates if c.address == mapped]
    assert types == [CandidateType.SRFLX]
    assert bench.agent.state is IceState.COMPLETED


def test_data_that_anybody_could_have_sent_moves_nothing() -> None:
    """A datagram from an address that the peer owns may be forged: the selected pair is
    asked, and answers."""
    bench = two_paths()
    bench.run(2.0)
    for _ in range(40):
        bench.receive(b"forged", OTHER)
        bench.run(0.3)
        assert bench.agent.data_pair() is bench.pair()
    assert bench.agent.state is IceState.COMPLETED
    assert "disconnected" not in bench.states


def test_data_on_another_pair_makes_one_check_without_an_answer_enough() -> None:
    bench = two_paths()
    bench.answer_all(0.05, when=lambda s: s.destination == OTHER)
    bench.run(2.0)
    began = bench.now
    for _ in range(10):
        bench.receive(b"the peer has moved", OTHER)
        bench.run(0.05)
    assert bench.agent.data_pair() is bench.pair(OTHER)
    (silent,) = [at for at, e in bench.events if getattr(e, "state", None) is IceState.DISCONNECTED]
    assert silent - began < 0.35
