"""A lite agent of ours, RFC 8445 sections 2.5, 5.2, 7.3.2 and 8.2."""

from __future__ import annotations

import random

import pytest

from ice_punch.ice import Agent, AgentConfig, Credentials, FailureCause, IceState, StateChanged
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.links import LinkProfile
from ice_punch.lab.virtual.internet import VirtualInternet
from support.agents import Meeting
from support.bench import LOCAL, REMOTE, Bench, remote_candidate

LITE = AgentConfig(lite=True)


def lite_bench(**keywords: object) -> Bench:
    return Bench(config=LITE, remotes=[REMOTE], **keywords)  # type: ignore[arg-type]


def test_it_answers_and_never_asks() -> None:
    bench = lite_bench()
    for _ in range(3):
        bench.receive(bench.request(controlling=True))
        bench.run(5.0)
    assert len(bench.responses) == 3
    assert {s.error for s in bench.responses} == {None}
    assert bench.requests == []
    assert bench.agent.data_pair() is None  # section 12.1.1: nothing is sent before the nomination


def test_rfc8445_6_1_1_it_is_controlled_by_a_full_peer_whatever_it_was_made_for() -> None:
    bench = lite_bench(controlling=True)
    assert bench.agent.controlling is False
    bench.receive(bench.request(controlling=False, tie_breaker=1))
    assert [s.error for s in bench.responses] == [487]  # however large its own tie-breaker is
    assert bench.agent.controlling is False


def test_rfc8445_7_3_2_a_nomination_selects_the_pair_it_came_on() -> None:
    bench = lite_bench()
    elsewhere = ("203.0.113.9", 4000)
    bench.receive(bench.request(controlling=True, use_candidate=True), elsewhere)
    pair = bench.agent.selected_pair()
    assert pair is not None
    assert (pair.base, pair.remote.address) == (LOCAL, elsewhere)
    assert bench.agent.state is IceState.COMPLETED
    assert bench.agent.accepts_data(elsewhere, LOCAL)


def test_rfc8445_5_2_it_has_host_candidates_only() -> None:
    bench = lite_bench()
    bench.agent.query_server("stun:s", ("203.0.113.1", 3478), LOCAL, bench.now)
    relayed = bench.agent.add_relayed_candidate(("203.0.113.1", 5000), bench.now, server="turn:t")
    assert relayed is None
    bench.run(1.0)
    assert bench.sent == []
    assert [c.type.value for c in bench.agent.local_candidates] == ["host"]


def test_it_falls_silent_when_the_peer_stops_asking() -> None:
    bench = lite_bench()
    bench.receive(bench.request(controlling=True, use_candidate=True))
    for _ in range(20):
        bench.run(5.0)
        bench.receive(bench.request(controlling=True))
    assert bench.agent.state is IceState.COMPLETED
    bench.run(14.0)
    assert bench.agent.state is IceState.DISCONNECTED
    bench.receive(bench.request(controlling=True))
    assert bench.agent.state is IceState.COMPLETED
    bench.run(31.0)
    event = bench.events[-1][1]
    assert isinstance(event, StateChanged)
    assert (event.state, event.cause) == (IceState.FAILED, FailureCause.CONSENT_LOST)
    assert bench.agent.get_timer() is None


def test_a_peer_that_never_comes_is_given_up_after_the_patience_of_rfc_8863() -> None:
    bench = lite_bench()
    bench.run(39.0)
    assert bench.agent.state is IceState.CHECKING
    bench.run(1.0)
    assert bench.agent.state is IceState.FAILED


@pytest.mark.parametrize("nat", [NatKind.NONE, NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC])
def test_a_full_agent_of_ours_reaches_it_from_behind_any_nat(nat: NatKind) -> None:
    meeting = Meeting(nat, NatKind.NONE, config_b=LITE)
    now = meeting.internet.now
    a, b = meeting.a.agent, meeting.b.agent
    a.set_remote_parameters(b.credentials, now, lite=True)
    b.set_remote_parameters(a.credentials, now)
    for candidate in meeting.b.candidates:
        a.add_remote_candidate(candidate, now)
    assert meeting.until_completed()
    one, other = a.selected_pair(), b.selected_pair()
    assert one is not None
    assert other is not None
    assert one.remote.address == other.base
    meeting.run(120.0)
    assert (a.state, b.state) == (IceState.COMPLETED, IceState.COMPLETED)


def test_rfc8445_8_2_two_lite_agents_check_nothing_and_agree_where_there_is_one_pair() -> None:
    internet = VirtualInternet(0)
    ends = []
    for name, number in (("a", 1), ("b", 2)):
        agent = Agent(
            controlling=name == "a",
            credentials=Credentials(f"ufrag{name}", f"{name}-password-of-24-characters"),
            random=random.Random(number),
            config=LITE,
        )
        host = internet.host(name, f"198.51.100.{number}", link=LinkProfile(delay=0.01))
        internet.attach(host, agent, on_event=lambda *_: None)
        agent.add_host_candidate((host.addresses[0], 5000), internet.now)
        ends.append(agent)
    for agent, other in (ends, ends[::-1]):
        agent.set_remote_parameters(other.credentials, internet.now, lite=True)
        (candidate,) = other.local_candidates
        remote = remote_candidate(candidate.address)
        agent.add_remote_candidate(remote, internet.now)
        agent.end_of_remote_candidates(internet.now)
    internet.run(100.0)
    assert [agent.state for agent in ends] == [IceState.COMPLETED] * 2
    assert [agent.controlling for agent in ends] == [True, False]
    assert len(internet.trace) == 0
    assert ends[0].accepts_data(("198.51.100.2", 5000), ("198.51.100.1", 5000))
