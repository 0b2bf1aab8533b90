"""ICE restarts, renominations, silent paths and moved ports: recorded, replayed and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from recording_support import Studio, unsigned

from ice_punch.ice import AgentConfig, Credentials, IceState, RestartAdvised, SelectedPairChanged
from ice_punch.lab.replayed import timeline_of
from ice_punch.lab.timeline import Kind, Mark, Place
from ice_punch.recording import Replay
from ice_punch.recording import lines as told
from ice_punch.stun import NOMINATION, USERNAME, Integrity
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, Sent, remote_candidate
from support.wire import End, Weather, Wire

OTHER = ("198.51.100.2", 6000)
MOVED = (REMOTE[0], 7000)


def generations(name: str) -> Iterator[Credentials]:
    for number in range(1, 200):
        yield Credentials(f"{name}{number}", f"password-{number:03}-of-side-{name}--")


@pytest.fixture(params=[False, True], ids=["as it is", "redacted"])
def studio(request: pytest.FixtureRequest) -> Studio:
    return Studio(redact_addresses=request.param)


def replayed(studio: Studio) -> list[Replay]:
    studio.end()
    assert [tape.stopped for tape in studio.tapes] == [[] for _ in studio.tapes]
    again = [tape.replay() for tape in studio.tapes]
    assert all(replay.complete for replay in again)
    return again


def marks(replay: Replay, place: Place = Place.A) -> list[Mark]:
    return [mark for mark in timeline_of(replay).marks if mark.place is place]


def texts(replay: Replay, place: Place = Place.A) -> list[str]:
    return [mark.text for mark in marks(replay, place)]


# -- restarts ----------------------------------------------------------------------------------


class Call:
    """Two recorded agents, and the signaling of their restarts."""

    def __init__(self, studio: Studio) -> None:
        weather = Weather(delay=0.05, jitter=0.02, duplication=0.1)
        self.wire = Wire(3, weather, bases=(2, 2), make_agent=studio.make_agent)
        self._fresh = {end.name: generations(end.name) for end in self.wire.ends}
        self.used = [end.agent.credentials for end in self.wire.ends]
        for end in self.wire.ends:
            self.wire.meet(end)
        self.wire.run(3.0)

    def restarts(self, end: End) -> None:
        credentials = next(self._fresh[end.name])
        self.used.append(credentials)
        end.agent.restart(credentials, self.wire.now)

    def restart(self, *ends: End) -> None:
        """By one side, or by both at once, as signaling settles it (RFC 8839 section 4.4.2)."""
        for end in ends:
            self.restarts(end)
        self.wire.run(self.wire.now + 0.1)
        for end in self.wire.ends:
            if not end.agent.restarting:
                self.restarts(end)
        for end in self.wire.ends:
            self.wire.meet(end)
        self.wire.run(self.wire.now + 5.0)


@pytest.mark.parametrize("who", ["a", "b", "ab"])
def test_a_restart_comes_out_the_same(who: str, studio: Studio) -> None:
    call = Call(studio)
    call.restart(*(end for end in call.wire.ends if end.name in who))
    for end, again in zip(call.wire.ends, replayed(studio), strict=True):
        assert end.agent.state is again.state is IceState.COMPLETED
        assert [at for at, _ in again.sent] == [at for at, _ in end.sent]
        if not studio.redacts:
            sent = [unsigned(transmit.data) for _, transmit in end.sent]
            assert [unsigned(transmit.data) for _, transmit in again.sent] == sent
        chosen = [event for _, event in again.events if isinstance(event, SelectedPairChanged)]
        assert len(chosen) == 2
        shown = texts(again)
        assert shown.count("ICE restart: new credentials") == 1
        (instead,) = [text for text in shown if " instead: " in text]
        assert instead.startswith("selected host ")
        assert "nominated host to host" in instead
        assert texts(again, Place.B).count("has new credentials") == 1


def test_of_no_generation_the_password_is_in_a_recording(studio: Studio) -> None:
    call = Call(studio)
    for number in range(12):
        call.restart(call.wire.ends[number % 2])
    assert len(set(call.used)) == 2 * 13
    for tape, again in zip(studio.tapes, replayed(studio), strict=True):
        pwds = [credentials.pwd for credentials in call.used]
        for pwd in pwds:
            assert pwd not in tape.text
            assert pwd.encode().hex() not in tape.text
        for message in signed_messages(again):
            assert not any(message.verify(p.encode(), a) for p in pwds for a in Integrity)


def signed_messages(again: Replay) -> Iterator[Any]:
    for at, transmit in again.sent:
        yield Sent(at, *transmit).message
    for line in again.recording.body:
        if isinstance(line, told.ReceiveDatagram):
            yield Sent(line.at, bytes.fromhex(line.data), line.local, line.source).message


def test_an_old_generation_that_lives_on_through_many_restarts_is_replayed(studio: Studio) -> None:
    """The peer's new generations never get through: the first one carries data all the time."""
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.answer_all(0.02, when=lambda s: s.message.get(USERNAME) == f"{PEER.ufrag}:{OURS.ufrag}")
    bench.run(1.0)
    ours, theirs = generations("ours"), generations("theirs")
    for _ in range(10):
        bench.agent.restart(next(ours), bench.now)
        bench.agent.set_remote_parameters(next(theirs), bench.now)
        bench.signal(REMOTE)
        bench.run(0.2)
    bench.run(20.0)
    assert bench.agent.state is IceState.COMPLETED
    assert bench.agent.counters["restarts"] == 10
    (again,) = replayed(studio)
    assert again.state is IceState.COMPLETED
    assert not any(message.verify(PEER.key) for message in signed_messages(again))


def test_more_restarts_than_can_be_redacted_end_the_recording_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ice_punch.recording.redaction.MAX_CREDENTIALS", 8)
    studio = Studio()
    call = Call(studio)
    for _ in range(5):
        call.restart(call.wire.a)
    for end, tape in zip(call.wire.ends, studio.tapes, strict=True):
        assert tape.stopped == ["there are more passwords than can be replaced"]
        assert end.agent.state is IceState.COMPLETED
        again = tape.replay()
        assert not again.complete
        assert again.agent.counters["restarts"] == 3
        assert not any(c.pwd in tape.text for c in call.used)


# -- other paths -------------------------------------------------------------------------------


def test_a_renomination_and_what_led_to_it_come_out_the_same(studio: Studio) -> None:
    """The selected path falls silent for good, another one takes over and is nominated."""
    bench = Bench(meet=False, make_agent=studio.make_agent)
    bench.agent.set_remote_parameters(PEER, bench.now, ta=0.02, renomination=True)
    bench.signal(remote_candidate(REMOTE))
    bench.signal(remote_candidate(OTHER, foundation="2", priority=5))
    bench.answer_all(0.05, when=lambda s: s.destination != REMOTE or s.at < bench.begun + 5.0)
    bench.run(30.0)
    selected = bench.agent.selected_pair()
    assert selected is not None
    assert selected.remote.address == OTHER
    (again,) = replayed(studio)
    chosen = [event for _, event in again.events if isinstance(event, SelectedPairChanged)]
    assert len(chosen) == 2
    numbers = [m.get(NOMINATION) for m in signed_messages(again) if m.get(NOMINATION)]
    assert set(numbers) == {1}
    timeline = timeline_of(again)
    labels = [arrow.label for arrow in timeline.arrows if arrow.kind is Kind.NOMINATION]
    assert labels[0].startswith("check with USE-CANDIDATE, ")
    assert labels[-1].startswith("check with USE-CANDIDATE and NOMINATION 1, ")
    (instead,) = [mark for mark in timeline.marks if " instead: this side nominated" in mark.text]
    assert instead.good
    assert any(text.startswith("disconnected: no answer for ") for text in texts(again))


def test_a_port_that_moved_comes_out_the_same(studio: Studio) -> None:
    """Data from a new port of the peer is a stranger's until a check there is answered."""
    bench = Bench(controlling=False, remotes=[REMOTE], make_agent=studio.make_agent)
    bench.answer_all(0.05)
    bench.receive(bench.request(use_candidate=True))
    bench.run(1.0)
    bench.agent.data_sent(bench.now)
    bench.receive(b"data")
    bench.run(0.02)
    bench.answer_all(0.05, when=lambda sent: sent.destination == MOVED)
    bench.receive(b"data", MOVED)
    bench.agent.data_from_stranger(MOVED, LOCAL, bench.now)
    bench.run(2.0)
    bench.receive(b"more", MOVED)
    selected = bench.agent.selected_pair()
    assert selected is not None
    assert selected.remote.address == MOVED
    (again,) = replayed(studio)
    data = [line for line in again.recording.body if isinstance(line, told.Data)]
    assert [line.size for line in data] == [4, 4]
    assert again.agent.counters["ports_followed"] == 1
    (instead,) = [text for text in texts(again) if " instead: " in text]
    assert instead.endswith(" instead: the peer is seen at another port")


def test_an_interface_that_goes_and_the_advice_that_follows_come_out_the_same(
    studio: Studio,
) -> None:
    bench = Bench(remotes=[REMOTE], config=AgentConfig(), make_agent=studio.make_agent)
    bench.answer_all(0.05)
    bench.run(1.0)
    bench.agent.remove_local_candidate(LOCAL, bench.now)
    bench.run(1.0)
    bench.agent.add_host_candidate(("192.0.2.9", 5000), bench.now)
    bench.run(9.0)
    (again,) = replayed(studio)
    advised = [(at, event) for at, event in again.events if isinstance(event, RestartAdvised)]
    live = [(at, event) for at, event in bench.events if isinstance(event, RestartAdvised)]
    assert advised == live
    assert len(advised) >= 2
    lost, first = [
        mark for mark in marks(again) if "is gone with" in mark.text or "is advised" in mark.text
    ][:2]
    assert (lost.good, first.good) == (False, False)
    assert lost.text.endswith(":5000 is gone with its interface")
    assert first.text == f"an ICE restart is advised: {advised[0][1].reason}"
    assert ("192.0.2.1" in lost.text) is not studio.redacts
