"""Nominations are numbered for each component of its own."""

from __future__ import annotations

from ice_punch.ice import AgentConfig, IceState
from support.bench import LOCAL, PEER, REMOTE, Bench, remote_candidate


def test_a_renomination_of_one_component_does_not_outdate_the_nomination_of_the_other() -> None:
    bench = Bench(controlling=False, config=AgentConfig(components=(1, 2)), bases=(), meet=False)
    bench.agent.set_remote_parameters(PEER, bench.now, ta=0.02, renomination=True)
    bases = {1: LOCAL, 2: (LOCAL[0], 5001)}
    for component, base in bases.items():
        bench.agent.add_host_candidate(base, bench.now, component=component)
        bench.signal(remote_candidate((REMOTE[0], 5999 + component), component=component))
    bench.answer_all(0.05)
    bench.run(0.2)
    bench.receive(bench.request(use_candidate=True, nomination=7), (REMOTE[0], 6000), bases[1])
    bench.receive(bench.request(use_candidate=True), (REMOTE[0], 6001), bases[2])
    assert bench.agent.state is IceState.COMPLETED
    bench.receive(bench.request(use_candidate=True, nomination=6), (REMOTE[0], 6000), bases[1])
    assert bench.agent.counters["nominations_outdated"] == 1


def test_a_nomination_that_nobody_answers_is_made_again_once_in_a_while() -> None:
    """The only pair that is left; ``Bench.run`` fails where a timer stands still."""
    second = ("192.0.2.2", 5000)
    bench = Bench(bases=(LOCAL, second), meet=False)
    bench.agent.set_remote_parameters(PEER, bench.now, ta=0.02, renomination=True)
    bench.signal(REMOTE)
    bench.answer_all(0.02)
    bench.run(2.0)
    selected = bench.agent.selected_pair()
    assert selected is not None
    assert selected.base == LOCAL
    bench.answer_all(0.02, when=lambda sent: sent.local == second and not sent.nominates)
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    bench.take()
    bench.run(60.0)
    assert 10 < len({s.message.transaction_id for s in bench.sent if s.nominates}) < 70
