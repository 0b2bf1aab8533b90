"""When a session fails, and when not yet: RFC 8863, RFC 8445 sections 7.2.5.4 and 8.1.2, and the
deviation ``give_up_after``."""

from __future__ import annotations

import pytest

from ice_punch.ice import AgentConfig, CandidateType, FailureCause, IceState, StateChanged
from ice_punch.lab.behaviour import NatKind
from ice_punch.stun import BindingServer
from support.agents import Meeting
from support.bench import REMOTE, Bench, remote_candidate

QUICK = AgentConfig(give_up_after=8.0)


def failure(bench: Bench) -> tuple[float, StateChanged]:
    """Seconds after the beginning, and the event."""
    assert bench.agent.state is IceState.FAILED
    at, event = bench.events[-1]
    assert isinstance(event, StateChanged)
    return round(at - bench.begun, 6), event


def test_the_patience_is_that_of_a_whole_transaction() -> None:
    config = AgentConfig()
    assert (config.patience, config.rc, config.rm, config.rto) == (39.5, 7, 16, 0.5)


def test_an_empty_check_list_fails_only_when_the_patience_is_over() -> None:
    bench = Bench()
    bench.agent.end_of_remote_candidates(bench.now)
    bench.run(39.4)
    assert bench.agent.state is IceState.CHECKING
    bench.run(100.0)
    at, event = failure(bench)
    assert at == 39.5
    assert event.cause is FailureCause.NO_ROUTE


def test_failed_pairs_alone_fail_only_when_the_patience_is_over() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0], code=400))
    bench.run(100.0)
    at, event = failure(bench)
    assert at == 39.5
    assert event.cause is FailureCause.NO_ROUTE  # the peer did speak
    assert "1 candidate pairs" in event.reason


def test_a_silent_peer_is_called_silent() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.run(100.0)
    at, event = failure(bench)
    assert at == 39.5
    assert event.cause is FailureCause.PEER_SILENT


def test_the_patience_starts_with_the_peers_parameters() -> None:
    bench = Bench(meet=False)
    bench.run(100.0)
    assert bench.agent.state is IceState.NEW
    bench.meet()
    bench.run(39.4)
    assert bench.agent.state is IceState.CHECKING
    bench.run(0.2)
    assert bench.agent.state is IceState.FAILED


def test_a_peer_that_shows_up_in_the_last_second_is_in_time() -> None:
    bench = Bench()
    bench.agent.end_of_remote_candidates(bench.now)
    bench.run(39.0)
    bench.receive(bench.request())
    bench.answer_all(0.6)
    bench.run(2.0)
    assert bench.agent.state is IceState.COMPLETED


def test_a_check_that_is_out_when_the_patience_ends_is_awaited() -> None:
    bench = Bench()
    bench.run(30.0)
    bench.signal(REMOTE)
    bench.run(39.0)
    assert bench.agent.state is IceState.CHECKING
    bench.run(1.0)
    assert failure(bench)[0] == 69.5


def test_a_session_that_loses_its_only_pair_after_the_patience_fails_then() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.answer_all(0.1, when=lambda s: not s.nominates)
    bench.run(45.0)
    assert bench.agent.state is IceState.CONNECTED
    nomination = [s for s in bench.requests if s.nominates][-1]
    bench.receive(bench.answer(nomination, code=400))
    assert bench.agent.state is IceState.FAILED


def test_an_announced_pacing_of_an_hour_does_not_keep_a_session_forever() -> None:
    bench = Bench(ta=3600.0)
    for n in range(1, 11):
        bench.signal(remote_candidate((REMOTE[0], n), foundation=str(n)))
    bench.run(1000.0)
    assert bench.agent.state is IceState.FAILED


# -- give_up_after ----


def test_giving_up_counts_from_the_last_sign_of_the_peer() -> None:
    bench = Bench(config=QUICK, remotes=[REMOTE])
    bench.run(5.0)
    bench.signal(("198.51.100.1", 6001))
    bench.run(5.0)
    bench.receive(bench.request())
    bench.run(7.9)
    assert bench.agent.state is IceState.CHECKING
    bench.run(0.2)
    at, event = failure(bench)
    assert at == 18.0
    assert event.cause is FailureCause.NO_ROUTE


def test_a_silent_peer_is_given_up_as_silent() -> None:
    bench = Bench(config=QUICK, remotes=[REMOTE])
    bench.run(9.0)
    assert failure(bench)[1].cause is FailureCause.PEER_SILENT


def test_a_refused_relay_is_a_sign_of_the_peer_but_no_way_to_it() -> None:
    bench = Bench(config=AgentConfig(give_up_after=8.0, direct_only=True))
    bench.run(5.0)
    bench.signal(remote_candidate(REMOTE, CandidateType.RELAY))
    bench.run(7.9)
    assert bench.agent.state is IceState.CHECKING
    bench.run(0.2)
    assert bench.agent.state is IceState.FAILED


def test_a_connected_session_is_not_given_up() -> None:
    bench = Bench(config=QUICK, controlling=False, remotes=[REMOTE])
    bench.answer_all(0.1)
    bench.run(100.0)
    assert bench.agent.state is IceState.CONNECTED


def between_symmetric_nats(config: AgentConfig) -> Meeting:
    """Two servers were asked on each side, and saw two addresses."""
    meeting = Meeting(
        NatKind.SYMMETRIC, NatKind.SYMMETRIC, rtt=0.1, config_a=config, config_b=config
    )
    second = ("198.51.100.2", 3478)
    meeting.internet.attach(meeting.internet.host("second", second[0]), BindingServer(second))
    for side in (meeting.a, meeting.b):
        side.agent.query_server("stun:second", second, side.address, meeting.internet.now)
    meeting.run(1.0)
    return meeting


@pytest.mark.parametrize(
    ("config", "earliest", "latest"),
    [
        (AgentConfig(direct_only=True, give_up_after=8.0), 3.0, 4.0),
        (AgentConfig(), 39.5, 40.0),
    ],
    ids=["direct only", "not before the patience is over"],
)
def test_two_nats_that_map_by_destination_are_given_up(
    config: AgentConfig, earliest: float, latest: float
) -> None:
    meeting = between_symmetric_nats(config)
    meeting.start()
    meeting.run(41.0)
    for side in (meeting.a, meeting.b):
        assert earliest <= side.when(IceState.FAILED) - meeting.begun <= latest
        causes = [e.cause for _, e in side.events if isinstance(e, StateChanged)]
        assert causes[-1] is FailureCause.NO_ROUTE


def test_after_failure_nothing_is_sent_and_nothing_is_due() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.run(40.0)
    bench.take()
    bench.receive(bench.request())
    bench.agent.handle_timer(bench.now)
    bench.run(100.0)
    assert bench.sent == []
    assert bench.agent.get_timer() is None
    assert bench.agent.data_pair() is None
    bench.agent.close(bench.now)
    assert bench.agent.state is IceState.FAILED


@pytest.mark.parametrize("blocked", ["a", "b"])
def test_who_can_not_send_at_all_fails_on_both_sides(blocked: str) -> None:
    kinds = [NatKind.UDP_BLOCKED if blocked == n else NatKind.PORT_RESTRICTED for n in "ab"]
    meeting = Meeting(*kinds, rtt=0.1, gather=False)
    meeting.start()
    meeting.run(45.0)
    for side in (meeting.a, meeting.b):
        assert side.agent.state is IceState.FAILED
        assert side.when(IceState.FAILED) - meeting.begun == pytest.approx(39.5)
