"""ICE restart, RFC 8445 section 9, on one agent: what changes and what does not."""

from __future__ import annotations

import itertools

import pytest

from ice_punch.ice import (
    AgentConfig,
    CandidateType,
    Credentials,
    IceState,
    RestartAdvised,
    SelectedPairChanged,
)
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, completed_bench, remote_candidate

OURS_NEW = Credentials("ourfrag2", "our-second-password-of-24")
PEER_NEW = Credentials("peerfrg2", "peer-second-password-of-24")
ELSEWHERE = ("198.51.100.9", 7000)
OLD = f"{OURS.ufrag}:{PEER.ufrag}"
NEW = f"{OURS_NEW.ufrag}:{PEER_NEW.ufrag}"


def restarted(*, remote: bool = True, **keywords: object) -> Bench:
    """A completed session that restarts; with ``remote`` the peer has answered."""
    bench = completed_bench(**keywords)
    bench.agent.restart(OURS_NEW, bench.now)
    if remote:
        bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02)
        bench.signal(remote_candidate(ELSEWHERE))
    bench.take()
    return bench


def select_the_new_pair(bench: Bench) -> None:
    bench.run(0.1)
    (check,) = [s for s in bench.requests if s.destination == ELSEWHERE]
    bench.receive(bench.answer(check, key=PEER_NEW.key), ELSEWHERE)
    nomination = bench.request(username=NEW, key=OURS_NEW.key, use_candidate=True)
    bench.receive(nomination, ELSEWHERE)


# -- wrong use ----


def test_before_the_peers_parameters_are_known_there_is_nothing_to_restart() -> None:
    bench = Bench(meet=False)
    with pytest.raises(ValueError, match="nothing has begun"):
        bench.agent.restart(OURS_NEW, bench.now)


def test_a_second_restart_waits_for_the_peer() -> None:
    bench = restarted(remote=False)
    with pytest.raises(ValueError, match="under way"):
        bench.agent.restart(Credentials("third", "third-password-of-24-chars"), bench.now)


@pytest.mark.parametrize(
    "credentials", [Credentials(OURS.ufrag, OURS_NEW.pwd), Credentials(OURS_NEW.ufrag, OURS.pwd)]
)
def test_rfc8839_4_4_1_1_1_both_ufrag_and_pwd_change(credentials: Credentials) -> None:
    bench = completed_bench()
    with pytest.raises(ValueError, match="both ufrag and pwd"):
        bench.agent.restart(credentials, bench.now)


def test_a_closed_session_does_not_restart() -> None:
    bench = completed_bench()
    bench.agent.close(bench.now)
    with pytest.raises(ValueError, match="closed"):
        bench.agent.restart(OURS_NEW, bench.now)


# -- the old pair ----


def test_rfc8445_9_the_old_pair_carries_data_until_the_new_one_is_selected() -> None:
    bench = restarted()
    old = bench.agent.selected_pair()
    assert old is not None
    assert old.remote.address == REMOTE
    bench.run(0.1)
    (check,) = [s for s in bench.requests if s.destination == ELSEWHERE]
    bench.receive(bench.answer(check, key=PEER_NEW.key), ELSEWHERE)
    assert bench.agent.data_pair() is old  # valid is not selected
    nomination = bench.request(username=NEW, key=OURS_NEW.key, use_candidate=True)
    bench.receive(nomination, ELSEWHERE)
    selected = bench.agent.data_pair()
    assert selected is not None
    assert selected.remote.address == ELSEWHERE
    assert bench.agent.state is IceState.COMPLETED
    assert "disconnected" not in bench.states
    changes = [e for _, e in bench.events if isinstance(e, SelectedPairChanged)]
    assert [e.pair.remote.address for e in changes] == [REMOTE, ELSEWHERE]


def test_data_comes_in_on_both_paths_while_they_change_hands() -> None:
    bench = restarted()
    bench.receive(b"old")
    select_the_new_pair(bench)
    bench.receive(b"still under way")
    bench.receive(b"new", ELSEWHERE)
    assert bench.agent.counters["data_received"] == 3
    bench.run(11.0)
    bench.receive(b"much too late")
    assert bench.agent.counters["data_received"] == 3
    assert bench.agent.counters["data_from_strangers"] == 1


def test_rfc7675_5_1_consent_goes_on_for_the_old_pair_during_a_restart() -> None:
    bench = restarted(remote=False)
    bench.answer_all(0.05)
    bench.run(50.0)
    old = [s for s in bench.requests if s.destination == REMOTE]
    assert len(old) >= 8
    assert bench.agent.state is IceState.COMPLETED


def test_without_consent_the_old_pair_carries_nothing_although_a_restart_waits() -> None:
    bench = restarted(remote=False)
    bench.run(31.0)
    assert bench.agent.data_pair() is None
    assert bench.agent.state is IceState.DISCONNECTED
    bench.run(40.0)
    assert bench.agent.state is IceState.FAILED  # the peer answered nothing for a minute


def test_a_restart_that_nobody_answers_leaves_the_session_as_it_was() -> None:
    bench = restarted(remote=False)
    bench.answer_all(0.05)
    bench.run(70.0)
    assert not bench.agent.restarting
    assert bench.agent.credentials == OURS
    assert bench.agent.state is IceState.COMPLETED
    assert bench.agent.counters["restarts_failed"] == 1
    bench.agent.restart(OURS_NEW, bench.now)  # and the next one may begin
    assert bench.agent.restarting


def test_a_restart_that_finds_no_path_leaves_the_session_as_it_was() -> None:
    bench = restarted()
    bench.answer_all(0.05, when=lambda s: s.destination == REMOTE)
    bench.run(60.0)
    pair = bench.agent.data_pair()
    assert pair is not None
    assert pair.remote.address == REMOTE
    assert bench.agent.state is IceState.COMPLETED
    assert "failed" not in bench.states


# -- what is new, and what stays ----


def test_rfc8445_9_the_role_stays_and_the_candidates_too_but_for_peer_reflexive_ones() -> None:
    bench = completed_bench()
    bench.agent._current.checks.mapped_candidate(bench.pair(), ("192.0.2.77", 4000))
    before = {c.address for c in bench.agent.local_candidates}
    assert ("192.0.2.77", 4000) in before
    tie_breaker = bench.agent.tie_breaker
    bench.agent.restart(OURS_NEW, bench.now)
    assert bench.agent.controlling is False
    assert bench.agent.tie_breaker == tie_breaker
    assert {c.address for c in bench.agent.local_candidates} == before - {("192.0.2.77", 4000)}
    assert bench.agent.remote_candidates == ()
    assert list(bench.agent.check_list) == []


def test_with_fresh_sockets_only_relays_stay() -> None:
    bench = completed_bench()
    bench.agent.add_relayed_candidate(("203.0.113.5", 50000), bench.now, server="turn:t")
    bench.agent.restart(OURS_NEW, bench.now, fresh_sockets=True)
    assert {c.type for c in bench.agent.local_candidates} == {CandidateType.RELAY}
    fresh = (LOCAL[0], 5001)
    bench.agent.add_host_candidate(fresh, bench.now)
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02)
    bench.signal(remote_candidate(ELSEWHERE))
    bench.take()
    bench.run(0.1)
    assert {s.local for s in bench.requests} == {fresh, ("203.0.113.5", 50000)}


def test_each_generation_knows_its_own_checks_and_answers() -> None:
    bench = restarted()
    bench.take()
    bench.receive(bench.request(username=OLD))  # the peer's consent for the old pair
    (old,) = bench.responses
    assert old.error is None
    bench.take()
    bench.receive(bench.request(username=NEW, key=OURS_NEW.key), ELSEWHERE)
    assert [s.error for s in bench.responses] == [None]
    bench.take()
    bench.receive(bench.request(username=NEW), ELSEWHERE)  # signed with the old password
    assert [s.error for s in bench.responses] == [401]


def test_a_check_that_comes_before_the_peers_description_counts_once_that_is_there() -> None:
    bench = restarted(remote=False)
    bench.receive(bench.request(username=NEW, key=OURS_NEW.key), ELSEWHERE)
    assert [s.error for s in bench.responses] == [None]
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02)
    bench.flush()
    assert bench.pair(ELSEWHERE).requests_received == 1


def test_an_answer_to_the_old_generation_after_the_change_is_no_harm() -> None:
    bench = restarted()
    bench.run(6.0)
    (consent, *_) = [s for s in bench.requests if s.destination == REMOTE]
    select_the_new_pair_late(bench)
    bench.receive(bench.answer(consent))
    pair = bench.agent.data_pair()
    assert pair is not None
    assert pair.remote.address == ELSEWHERE


def select_the_new_pair_late(bench: Bench) -> None:
    check = [s for s in bench.requests if s.destination == ELSEWHERE][-1]
    bench.receive(bench.answer(check, key=PEER_NEW.key), ELSEWHERE)
    nomination = bench.request(username=NEW, key=OURS_NEW.key, use_candidate=True)
    bench.receive(nomination, ELSEWHERE)


def test_a_role_conflict_in_a_restart_is_resolved_as_ever() -> None:
    """RFC 8445 section 6.1.1: roles are kept, and a peer that determines them anew is followed."""
    bench = restarted()
    low = bench.request(controlling=False, username=NEW, key=OURS_NEW.key, tie_breaker=1)
    bench.receive(low, ELSEWHERE)
    assert bench.agent.controlling  # our tie-breaker is the larger one, so we take over
    assert [s.error for s in bench.responses] == [None]


# -- instants ----


def test_checks_wait_for_the_instant_that_was_agreed_on() -> None:
    bench = restarted(remote=False)
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02, start_at=bench.now + 0.3)
    bench.signal(remote_candidate(ELSEWHERE))
    bench.take()
    bench.run(0.29)
    assert [s for s in bench.requests if s.destination == ELSEWHERE] == []
    bench.run(0.02)
    assert [s for s in bench.requests if s.destination == ELSEWHERE]


def test_a_check_of_the_peers_ends_the_wait() -> None:
    bench = restarted(remote=False)
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02, start_at=bench.now + 3.0)
    bench.signal(remote_candidate(ELSEWHERE))
    bench.run(0.1)
    bench.take()
    bench.receive(bench.request(username=NEW, key=OURS_NEW.key), ELSEWHERE)
    bench.run(0.03)
    assert [s for s in bench.requests if s.destination == ELSEWHERE]


def test_no_instant_is_waited_for_longer_than_five_seconds() -> None:
    bench = restarted(remote=False)
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02, start_at=bench.now + 3600)
    bench.signal(remote_candidate(ELSEWHERE))
    bench.run(5.1)
    assert [s for s in bench.requests if s.destination == ELSEWHERE]


# -- advice ----


def advice(bench: Bench) -> list[tuple[float, RestartAdvised]]:
    return [(at - bench.begun, e) for at, e in bench.events if isinstance(e, RestartAdvised)]


def test_a_silent_path_is_reason_enough_and_the_advice_is_repeated_less_and_less() -> None:
    bench = completed_bench()
    bench.run(29.0)
    times = [at for at, _ in advice(bench)]
    assert times[0] < 6.0
    gaps = [later - at for at, later in itertools.pairwise(times)]
    assert len(gaps) >= 2
    assert gaps == sorted(gaps)
    assert gaps[0] >= 3.0


def test_no_restart_is_advised_while_one_is_under_way() -> None:
    bench = restarted(remote=False)
    bench.run(29.0)
    assert advice(bench) == []


def test_a_new_interface_after_the_nomination_is_reason_enough() -> None:
    bench = completed_bench()
    bench.answer_all(0.05)
    bench.agent.add_host_candidate(("192.0.2.9", 5000), bench.now)
    bench.run(1.0)
    ((at, event),) = advice(bench)
    assert (event.reason, event.fresh_sockets) == ("there is a new interface", False)
    assert at < 0.5


def test_the_interface_of_the_only_path_is_gone() -> None:
    bench = completed_bench()
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    bench.flush()
    assert bench.agent.state is IceState.DISCONNECTED
    assert bench.agent.data_pair() is None
    assert len(advice(bench)) == 1
    bench.run(31.0)
    assert bench.agent.state is IceState.FAILED


def test_what_was_never_connected_is_not_restarted_for_a_lost_interface() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    bench.run(1.0)
    assert advice(bench) == []


def test_what_was_heard_at_an_interface_that_is_gone_is_forgotten_without_a_pair_too() -> None:
    bench = Bench(config=AgentConfig(max_pairs=1), remotes=[REMOTE])
    others = [(REMOTE[0], port) for port in range(7000, 7003)]
    for other in others:
        bench.receive(bench.request(), source=other)
    assert any(bench.agent.accepts_data(other, LOCAL) for other in others)
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    assert not any(bench.agent.accepts_data(other, LOCAL) for other in others)
