"""A recorded agent, run again on what it was told, does the same: every byte, event and number."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable
from typing import Any

import pytest
from recording_support import Studio, Tape, unsigned

from ice_punch.datagram import Transmit
from ice_punch.errors import RecordingAltered
from ice_punch.ice import (
    MINIMUM_TA,
    Agent,
    AgentConfig,
    Credentials,
    FailureCause,
    IceState,
    Pacer,
    PatientPolicy,
    StateChanged,
)
from ice_punch.lab.behaviour import NatKind
from ice_punch.recording import RecordedAgent, Recording, replay
from ice_punch.recording import lines as told
from ice_punch.stun import MessageClass, Method
from support.agents import Meeting
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, Sent
from support.wire import Weather, Wire

RELAYED = ("203.0.113.9", 49152)
STUN_SERVER = ("203.0.113.10", 3478)
MAPPED = ("203.0.113.77", 5000)


def recorded_meeting(*nats: NatKind, **options: Any) -> tuple[Meeting, Studio]:
    studio = Studio()
    return Meeting(*nats, make_agent=studio.make_agent, **options), studio


def finished(studio: Studio) -> list[Recording]:
    studio.end()
    assert [tape.stopped for tape in studio.tapes] == [[] for _ in studio.tapes]
    return [tape.load() for tape in studio.tapes]


def states(recording: Recording) -> list[IceState]:
    return [event.state for _, event in replay(recording).states]


def what_was_sent(sent: Iterable[tuple[float, Transmit]]) -> list[object]:
    """But for the signatures, which are made with other passwords."""
    return [(at, t.local, t.destination, unsigned(t.data)) for at, t in sent]


def test_a_whole_life_behind_two_nats_comes_out_the_same() -> None:
    meeting, studio = recorded_meeting(NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED)
    meeting.start(0.03)
    assert meeting.until_completed()
    meeting.run(60.0)
    meeting.a.agent.close(meeting.internet.now)
    meeting.run(60.0)
    for side, recording in zip((meeting.a, meeting.b), finished(studio), strict=True):
        again = replay(recording)
        assert again.complete
        assert again.report == side.agent.report()
        assert again.state is side.agent.state
        assert again.agent.tie_breaker == side.agent.tie_breaker
        sent = [unsigned(p.data) for p in meeting.internet.trace.sent_by(side.name)]
        assert [unsigned(transmit.data) for _, transmit in again.sent] == sent
        lived = [(at, e) for at, e in side.events if isinstance(e, StateChanged)]
        assert list(again.states) == lived
        assert lived[-1][1].state in (IceState.CLOSED, IceState.FAILED)


def test_recording_changes_nothing_about_a_session() -> None:
    traces = []
    for recorded in (False, True):
        options = {"make_agent": Studio().make_agent} if recorded else {}
        meeting = Meeting(NatKind.SYMMETRIC, NatKind.FULL_CONE, loss=0.1, seed=4, **options)
        meeting.start(0.1)
        meeting.run(30.0)
        traces.append(str(meeting.internet.trace))
    assert traces[0] == traces[1]


@pytest.mark.parametrize("seed", range(3))
def test_loss_reordering_and_duplication_come_out_the_same(seed: int) -> None:
    studio = Studio()
    wire = Wire(
        seed,
        Weather(delay=0.1, jitter=0.3, loss=0.1, duplication=0.3),
        bases=(2, 3),
        make_agent=studio.make_agent,
    )
    wire.meet(wire.a)
    wire.run(0.7)
    wire.meet(wire.b)
    wire.run(60.0)
    for end, recording in zip(wire.ends, finished(studio), strict=True):
        assert what_was_sent(replay(recording).sent) == what_was_sent(end.sent)


@pytest.mark.parametrize("role", [True, False])
def test_a_role_conflict_comes_out_the_same(role: bool) -> None:
    studio = Studio()
    wire = Wire(1, Weather(delay=0.02), roles=(role, role), make_agent=studio.make_agent)
    wire.meet(wire.a)
    wire.meet(wire.b)
    wire.run(20.0)
    recordings = finished(studio)
    assert [r.header.controlling for r in recordings] == [role, role]
    switches = [replay(r).agent.counters["role_switches"] for r in recordings]
    assert sorted(switches) == [0, 1]


def test_a_peer_that_is_never_heard_fails_the_same() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.run(60.0)
    (recording,) = finished(studio)
    again = replay(recording)
    at, event = again.states[-1]
    assert event.state is IceState.FAILED
    assert event.cause is FailureCause.PEER_SILENT
    assert at - recording.began == pytest.approx(39.5)
    assert "not heard on any of 1 candidate pairs" in again.reason


def test_consent_that_is_lost_is_lost_at_the_same_time() -> None:
    studio = Studio()
    wire = Wire(5, Weather(delay=0.05), make_agent=studio.make_agent)
    wire.dead_from = 30.0
    wire.meet(wire.a)
    wire.meet(wire.b)
    wire.run(90.0)
    for end, recording in zip(wire.ends, finished(studio), strict=True):
        at, event = replay(recording).states[-1]
        assert event.cause is FailureCause.CONSENT_LOST
        assert at == end.when(IceState.FAILED)


# -- every way into an agent -------------------------------------------------------------------


def test_every_public_method_of_an_agent_is_recorded_or_only_looks() -> None:
    looks = {"accepts_data", "data_pair", "get_timer", "report", "selected_pair"}
    methods = {
        name
        for name, member in vars(Agent).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert methods - looks == methods & vars(RecordedAgent).keys()
    for name in methods - looks:
        mine = inspect.signature(getattr(RecordedAgent, name))
        assert mine == inspect.signature(getattr(Agent, name)), name


def test_every_kind_of_input_is_replayed() -> None:
    tape = Tape()
    agent = RecordedAgent(
        controlling=False,
        credentials=OURS,
        random=random.Random(1),
        recorder=tape.recorder,
        config=AgentConfig(components=(1, 2), max_pairs=7),
        policy=PatientPolicy(round_trips=2.0, shortest=0.1, longest=0.5),
    )
    bench = Bench(bases=(), meet=False, make_agent=lambda **_: agent)
    bench.agent.add_host_candidate(LOCAL, bench.now, local_preference=3, component=2)
    bench.agent.add_host_candidate(LOCAL, bench.now, component=2)  # known: nothing comes of it
    bench.agent.query_server("stun:a", STUN_SERVER, LOCAL, bench.now, component=2)
    bench.flush()
    slot = bench.agent.pacer.reserve(bench.now)
    assert slot > bench.now
    bench.agent.add_relayed_candidate(
        RELAYED, bench.now, server="turn:a", mapped=LOCAL, local_preference=4, component=2
    )
    bench.agent.add_server_reflexive_candidate(
        MAPPED, LOCAL, bench.now, server="turn:a", server_address=STUN_SERVER, component=2
    )
    bench.receive(bench.request())  # early
    bench.agent.set_remote_parameters(PEER, bench.now, lite=True, ta=0.03)
    with pytest.raises(ValueError, match="ICE restart"):
        bench.agent.set_remote_parameters(OURS, bench.now)
    bench.signal(REMOTE)
    bench.agent.receive_icmp_error(LOCAL, STUN_SERVER, bench.now)
    bench.receive(b"application data, and secret")
    bench.receive(b"from a stranger", ("198.51.100.99", 9))
    bench.agent.data_sent(bench.now)
    bench.agent.data_received(REMOTE, LOCAL, bench.now)
    bench.agent.data_from_stranger((REMOTE[0], 9), LOCAL, bench.now)
    bench.agent.end_of_remote_candidates(bench.now)
    bench.run(2.0)
    bench.agent.restart(Credentials("ufrag2", "another-password-of-ours-"), bench.now)
    with pytest.raises(ValueError, match="under way"):
        bench.agent.restart(OURS, bench.now)
    bench.agent.set_remote_parameters(
        Credentials("peer2", "another-password-of-peers"),
        bench.now,
        renomination=True,
        start_at=bench.now + 0.3,
    )
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    bench.run(2.0)
    bench.agent.close(bench.now)
    bench.flush()
    agent.end_recording()
    recording = tape.load()
    again = replay(recording)
    assert again.inputs == recording.inputs == len(tape.lines) - len(outputs_and_draws(recording))
    kinds = {type(line) for line in recording.body}
    assert kinds >= set(told.Input.__subclasses__())
    later = {told.Advised, told.Data, told.Selected}  # in test_recording_restart
    assert kinds >= set(told.Output.__subclasses__()) - later
    assert again.agent.config == AgentConfig(components=(1, 2), max_pairs=7)
    assert "application data" not in tape.text
    assert "from a stranger" not in tape.text
    assert b"application data".hex() not in tape.text


def outputs_and_draws(recording: Recording) -> list[object]:
    """And the first and the last line."""
    others = [line for line in recording.body if not isinstance(line, told.Input)]
    return [*others, recording.header, recording.last]


def test_application_data_is_a_size_and_is_handed_out_again() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.answer_all(0.01)
    bench.run(0.2)
    bench.receive(b"twelve bytes")
    (recording,) = finished(studio)
    (data,) = [line for line in recording.body if isinstance(line, told.Data)]
    assert (data.size, data.source) == (12, REMOTE)
    assert replay(recording).agent.counters["data_received"] == 1


def test_what_others_take_of_the_common_pacer_is_an_input() -> None:
    common = Pacer(MINIMUM_TA)
    tape = Tape()

    def make(**arguments: Any) -> RecordedAgent:
        arguments.pop("pacer")
        return RecordedAgent(recorder=tape.recorder, common=common, **arguments)

    bench = Bench(make_agent=make)
    common.reserve(bench.now + 0.7)
    bench.signal(REMOTE)
    assert bench.requests == []
    bench.run(1.0)
    first = bench.requests[0].at
    assert first == pytest.approx(bench.begun + 0.7 + MINIMUM_TA)
    bench.agent.end_recording()  # type: ignore[attr-defined]
    again = tape.replay()
    assert again.sent[0][0] == first
    assert any(isinstance(line, told.OthersPaced) for line in again.recording.body)


def test_an_agent_that_is_driven_carelessly_comes_out_the_same() -> None:
    """Nothing is fetched for a while, and then it is closed with datagrams still waiting."""
    studio = Studio()
    agent = studio.make_agent(controlling=True, credentials=OURS, random=random.Random(2))
    agent.add_host_candidate(LOCAL, 1.0)
    agent.set_remote_parameters(PEER, 1.0, ta=0.02)
    for port in range(6000, 6003):
        agent.add_remote_candidate(
            Bench(meet=False, bases=()).signal((REMOTE[0], port)), 1.0 + (port - 6000) * 0.1
        )
    agent.next_event()
    agent.handle_timer(3.0)
    agent.close(4.0)
    assert agent.datagrams_to_send(4.0) == []
    (recording,) = finished(studio)
    assert replay(recording).sent == ()


def test_a_fault_of_the_agent_is_recorded_with_what_led_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)

    def fault(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr("ice_punch.ice.checks.Checks.handle_timer", fault)
        with pytest.raises(ZeroDivisionError):
            bench.agent.handle_timer(bench.now + 1.0)
        (recording,) = finished(studio)
        assert isinstance(recording.body[-1], told.Raised)
        assert replay(recording).inputs == recording.inputs


# -- what a replay is good for -----------------------------------------------------------------


def test_an_agent_that_does_something_else_is_told_at_its_first_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studio = Studio()
    wire = Wire(0, Weather(delay=0.05), make_agent=studio.make_agent)
    wire.meet(wire.a)
    wire.run(0.01)
    wire.meet(wire.b)
    wire.run(3.0)
    recording = finished(studio)[0]
    replay(recording)
    monkeypatch.setattr("ice_punch.ice.policy.PatientPolicy.nominate", lambda *_: (None, None))
    with pytest.raises(
        RecordingAltered, match=r"after input \d+ \(receive_datagram, at "
    ) as caught:
        replay(recording)
    assert caught.value.at is not None
    assert 0.05 < caught.value.at < 0.25
    assert "and came" in str(caught.value)


def test_checks_and_answers_of_a_replay_can_be_read() -> None:
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.answer_all(0.05)
    bench.run(1.0)
    (recording,) = finished(studio)
    messages = [Sent(at, *transmit).message for at, transmit in replay(recording).sent]
    assert {m.method for m in messages} == {Method.BINDING}
    assert {m.message_class for m in messages} == {MessageClass.REQUEST}
    # the peer's password is another one, and the checks are signed with it
    peer = next(line for line in recording.body if isinstance(line, told.SetRemoteParameters))
    assert peer.credentials.pwd != PEER.pwd
    assert all(m.verify(peer.credentials.key) for m in messages)
    assert not any(m.verify(PEER.key) for m in messages)


def test_credentials_in_a_recording_are_those_of_nobody() -> None:
    texts = []
    for salt in (bytes(32), bytes(31) + b"\1"):
        tape = Tape(salt=salt)
        RecordedAgent(
            controlling=True,
            credentials=Credentials("ufrag", "0123456789abcdefghijklmn"),
            random=random.Random(0),
            recorder=tape.recorder,
        ).end_recording()
        header = tape.load().header
        assert header.credentials.ufrag == "ufrag"
        assert len(header.credentials.pwd) == 24
        texts.append(header.credentials.pwd)
    assert len({*texts, "0123456789abcdefghijklmn"}) == 3
