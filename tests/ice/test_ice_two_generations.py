"""Two generations side by side: what the old one had begun neither stops nor holds the agent."""

from __future__ import annotations

from ice_punch.ice import AgentConfig, CandidateType, Credentials, IceState
from support.bench import LOCAL, PEER, REMOTE, Bench, remote_candidate, valid_bench

OURS_NEW = Credentials("ourfrag2", "our-second-password-of-24")
PEER_NEW = Credentials("peerfrg2", "peer-second-password-of-24")
OTHER = ("198.51.100.2", 6000)


def restarted(bench: Bench) -> Bench:
    bench.agent.restart(OURS_NEW, bench.now)
    bench.take()
    return bench


def nominating() -> Bench:
    """A bench that has nominated its only pair, and waits for the answer."""
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0]))
    bench.receive(bench.request())
    bench.run(0.1)
    assert bench.requests[-1].nominates
    return bench


def test_the_state_of_the_new_generation_is_told_though_the_old_one_never_completed() -> None:
    bench = restarted(valid_bench())
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02)
    bench.signal(REMOTE)
    bench.run(0.05)
    bench.receive(bench.answer(bench.requests[-1], key=PEER_NEW.key))
    username = f"{OURS_NEW.ufrag}:{PEER_NEW.ufrag}"
    bench.receive(bench.request(username=username, key=OURS_NEW.key, use_candidate=True))
    assert bench.agent.state is IceState.COMPLETED
    assert bench.states[-1] == "completed"


def test_a_nomination_that_the_old_generation_was_to_make_is_made_no_more() -> None:
    """Its policy waits for a better pair; ``Bench.run`` fails where a timer stands still."""
    better = remote_candidate(OTHER, priority=2**31 - 1, foundation="2")
    bench = Bench(remotes=[REMOTE, better])
    bench.run(0.05)
    bench.receive(bench.answer(next(s for s in bench.requests if s.destination == REMOTE)))
    assert bench.agent.state is IceState.CONNECTED
    restarted(bench)
    bench.run(5.0)
    assert not any(sent.nominates for sent in bench.requests)


def test_an_old_generation_that_has_lost_its_only_pair_is_done_with() -> None:
    bench = nominating()
    nomination = bench.requests[-1]
    restarted(bench)
    bench.receive(bench.answer(nomination, code=400))
    assert bench.agent.state is IceState.DISCONNECTED
    assert bench.agent.data_pair() is None
    bench.run(70.0)
    assert bench.agent.state is IceState.FAILED  # nobody has answered the restart


def two_components() -> Bench:
    config = AgentConfig(components=(1, 2))
    bench = Bench(controlling=False, config=config, bases=())
    for component, base in enumerate((LOCAL, (LOCAL[0], 5001)), 1):
        bench.agent.add_host_candidate(base, bench.now, component=component)
        bench.signal(remote_candidate((REMOTE[0], 5999 + component), component=component))
    bench.answer_all(0.05)
    bench.run(0.2)
    for component, base in enumerate((LOCAL, (LOCAL[0], 5001)), 1):
        source = (REMOTE[0], 5999 + component)
        bench.receive(bench.request(use_candidate=True), source, base)
    assert bench.agent.state is IceState.COMPLETED
    return bench


def test_one_component_does_not_speak_for_the_other_that_has_lost_its_interface() -> None:
    bench = two_components()
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    bench.run(10.0)  # consent of the other one is renewed
    assert bench.agent.state is IceState.DISCONNECTED


def test_one_component_does_not_speak_for_the_other_that_is_silent() -> None:
    bench = two_components()
    bench.answer_all(0.05, when=lambda sent: sent.local != LOCAL)
    bench.run(20.0)
    assert bench.states[-1] == "disconnected"
    bench.answer_all(0.05)
    bench.run(10.0)
    assert bench.states[-1] == "completed"


def test_pairs_that_crowd_each_other_out_do_no_harm() -> None:
    """A new base finds more remote candidates than there is room for pairs."""
    bench = Bench(controlling=False, config=AgentConfig(max_pairs=3), meet=False)
    bench.agent.set_remote_parameters(PEER, bench.now, ta=0.02, renomination=True)
    for number in range(1, 5):
        address = (f"198.51.100.{number}", 6000)
        bench.signal(
            remote_candidate(
                address, CandidateType.RELAY, priority=1000 + number, foundation=f"{number}"
            )
        )
    bench.answer_all(0.05, when=lambda sent: sent.destination == REMOTE)
    bench.receive(bench.request(use_candidate=True))
    bench.run(0.2)
    assert bench.agent.state is IceState.COMPLETED
    bench.agent.add_host_candidate(("192.0.2.2", 5000), bench.now)
    assert len(bench.agent.check_list) <= 3


def test_an_interface_that_goes_after_the_end_is_not_there_in_the_restart() -> None:
    bench = valid_bench()
    bench.run(31.0)
    assert bench.agent.state is IceState.FAILED
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    restarted(bench)
    assert bench.agent.local_candidates == ()
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02)
    bench.signal(REMOTE)
    assert len(bench.agent.check_list) == 0


def test_fresh_sockets_leave_no_query_for_those_before() -> None:
    server = ("203.0.113.10", 3478)
    bench = valid_bench()
    bench.agent.query_server("stun:s", server, LOCAL, bench.now)
    bench.agent.restart(OURS_NEW, bench.now, fresh_sockets=True)
    bench.agent.add_host_candidate((LOCAL[0], 5099), bench.now)
    bench.agent.set_remote_parameters(PEER_NEW, bench.now, ta=0.02)
    bench.agent.restart(Credentials("ourfrag3", "our-third-password-of-24c"), bench.now)
    bench.take()
    bench.run(1.0)
    assert bench.agent.check_list.find(LOCAL, REMOTE) is None
    assert not any(sent.destination == server for sent in bench.sent)


def test_a_way_around_that_goes_leaves_the_silence() -> None:
    """The selected pair is silent, another one carries data, and then its interface is gone."""
    second = ("192.0.2.2", 5000)
    bench = Bench(controlling=False, bases=(LOCAL, second), remotes=[REMOTE])
    bench.answer_all(0.05)
    bench.run(0.2)
    bench.receive(bench.request(use_candidate=True))
    bench.run(0.2)
    bench.answer_all(0.05, when=lambda sent: sent.local == second)
    bench.run(8.0)
    assert bench.agent.state is IceState.CONNECTED
    bench.agent.remove_local_candidate(second, bench.now)
    assert bench.agent.state is IceState.DISCONNECTED
