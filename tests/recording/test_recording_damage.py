"""Recordings that are none, of another version, cut short or altered: one clear line each."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from typing import Any

import pytest
from recording_support import Studio, Tape

from ice_punch.errors import (
    InvalidConfiguration,
    InvalidRecording,
    RecordingAltered,
    RecordingCutShort,
    RecordingVersionMismatch,
)
from ice_punch.ice import IceState
from ice_punch.recording import FORMAT_VERSION, Recording, replay
from ice_punch.recording import lines as told
from support.bench import LOCAL, OURS, REMOTE, Bench


@cache
def session() -> tuple[str, ...]:
    """The lines of a short session that has a bit of everything."""
    studio = Studio()
    bench = Bench(remotes=[REMOTE], make_agent=studio.make_agent)
    bench.answer_all(0.05)
    bench.agent.query_server("stun:s", ("203.0.113.10", 3478), LOCAL, bench.now)
    bench.run(0.2)
    bench.receive(bench.request())
    bench.receive(b"data")
    bench.run(5.0)
    bench.agent.close(bench.now)
    bench.flush()
    studio.end()
    lines = tuple(studio.tapes[0].lines)
    assert 25 < len(lines) < 60
    return lines


def run(lines: list[str] | tuple[str, ...]) -> Any:
    return replay(Recording.load(lines))


def problem(lines: list[str]) -> InvalidRecording:
    with pytest.raises(InvalidRecording) as caught:
        run(lines)
    assert isinstance(caught.value, InvalidConfiguration)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 1000
    return caught.value


# -- other files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        "{}\n",
        "[]\n",
        "3\n",
        "null\n",
        '{"what":"end"}\n',
        '{"event": "listening"}\n',
        "\n",
        "[" * 100_000,
        '{"what":"recordings","version":1}\n',
        "\x7fELF\x02\x01\ufffd\ufffd\n",
    ],
)
def test_other_files_are_no_recordings(text: str) -> None:
    error = problem([text, *session()[1:]])
    assert type(error) is InvalidRecording
    assert str(error) == "it is not a recording of ice-punch"


def test_an_empty_file_says_that_no_session_began() -> None:
    assert str(problem([])) == "it is empty: no session had begun"


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None, 10**50, [1] * 1000])
def test_another_version_names_both(version: object) -> None:
    header = json.loads(session()[0])
    # what else stands there in another version is not looked at
    header |= {"version": version, "unheard-of": 1}
    error = problem([json.dumps(header) + "\n", "whatever it says\n"])
    assert type(error) is RecordingVersionMismatch
    assert f"format version {str(version)[:20]}, " in str(error)
    assert f"reads version {FORMAT_VERSION}" in str(error)


def test_a_recording_of_the_first_version_gets_one_clear_line() -> None:
    """As ice-punch wrote it before agents could restart: another agent, with other numbers."""
    error = problem(
        [
            '{"what":"recording","version":1,"package":"0.1.0","controlling":true,'
            '"credentials":{"ufrag":"ours","pwd":"AkZstHHKqtyZld+Z+KN0A3MA6"},'
            '"config":{"ta":0.02,"rto":0.5,"rc":7,"rm":16,"patience":39.5,"give_up_after":null,'
            '"max_pairs":100,"max_remote_candidates":100,"max_early_checks":64,'
            '"consent_interval":5.0,"consent_timeout":30.0,"disconnected_after":13.0,'
            '"components":[1],"direct_only":false,"software":"ice-punch"},'
            '"policy":{"round_trips":1.5,"shortest":0.05,"longest":1.0}}\n',
            '{"what":"drawn_bits","bits":64,"value":10499958131665514997}\n',
            '{"what":"add_host_candidate","at":1.0,"address":["192.0.2.1",5000],'
            '"local_preference":65535}\n',
        ]
    )
    assert type(error) is RecordingVersionMismatch
    assert str(error) == "the recording has format version 1, this ice-punch reads version 2"


# -- cut short ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", range(1, len(session())))
def test_cut_after_any_line(kept: int) -> None:
    lines = list(session()[:kept])
    inputs = sum(isinstance(told.decode(line), told.Input) for line in lines)
    error = problem(lines)
    assert type(error) is RecordingCutShort
    assert error.inputs == inputs
    assert f"cut short after {inputs} input" in str(error)
    if kept == 1:  # not even the draws that its agent was made with
        with pytest.raises(RecordingCutShort, match="nothing of its agent is there"):
            replay(Recording.load(lines, partial=True))
        return
    again = replay(Recording.load(lines, partial=True))
    assert not again.complete
    assert again.inputs in (inputs, inputs - 1)  # the last one may lack what it drew


@pytest.mark.parametrize("cut", range(len(session())))
def test_cut_within_any_line(cut: int) -> None:
    for size in (1, len(session()[cut]) // 2, len(session()[cut]) - 2):
        lines = [*session()[:cut], session()[cut][:size]]
        error = problem(lines)
        assert type(error) is RecordingCutShort
        if cut > 1:
            whole = replay(Recording.load(lines[:-1], partial=True))
            again = replay(Recording.load(lines, partial=True))
            assert (again.inputs, again.outputs) == (whole.inputs, whole.outputs)
        else:
            with pytest.raises(RecordingCutShort):
                replay(Recording.load(lines, partial=True))


def test_a_missing_last_line_break_is_nothing() -> None:
    assert run([*session()[:-1], session()[-1].rstrip("\n")]).complete


def test_line_breaks_of_another_system_are_nothing() -> None:
    assert run([line.replace("\n", "\r\n") for line in session()]).complete


def test_what_comes_after_the_end_is_noticed() -> None:
    error = problem([*session(), session()[1]])
    assert type(error) is RecordingAltered
    assert "there is more after the end" in str(error)


# -- altered -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(session())))
def test_one_altered_byte_in_any_line(number: int) -> None:
    line = session()[number].rstrip("\n")
    places = random.Random(number).sample(range(len(line)), 12)
    for place in places:
        for byte in "0z\x00}":
            if line[place] == byte:
                continue
            altered = line[:place] + byte + line[place + 1 :]
            lines = [*session()[:number], altered + "\n", *session()[number + 1 :]]
            error = problem(lines)
            expected: tuple[type[InvalidRecording], ...] = (RecordingAltered,)
            if number == 0:
                expected += (RecordingVersionMismatch, InvalidRecording)
            assert type(error) in expected, altered


@pytest.mark.parametrize("number", range(1, len(session()) - 1))
def test_any_line_left_out_doubled_or_moved(number: int) -> None:
    lines = list(session())
    line = lines.pop(number)
    assert type(problem(lines)) is RecordingAltered
    lines[number:number] = [line, line]
    assert type(problem(lines)) is RecordingAltered
    if number > 1 and session()[number] != session()[number - 1]:
        lines = list(session())
        lines[number - 1 : number + 1] = [line, session()[number - 1]]
        assert type(problem(lines)) is RecordingAltered


def index_of(kind: type[told.Line], after: int = 0) -> int:
    return next(
        n for n, line in enumerate(session()) if n >= after and isinstance(told.decode(line), kind)
    )


def test_an_altered_packet_is_found_where_it_makes_a_difference() -> None:
    number = index_of(told.Sent, after=index_of(told.SetRemoteParameters))
    lines = list(session())
    sent = told.decode(lines[number])
    assert isinstance(sent, told.Sent)
    lines[number] = lines[number].replace(sent.data[-8:], "00000000")
    error = problem(lines)
    inputs = sum(isinstance(told.decode(line), told.Input) for line in lines[:number])
    assert isinstance(error, RecordingAltered)
    assert error.input == inputs
    assert error.at == 0.0
    assert f"after input {inputs} (add_remote_candidate, at 0.000000 s) there is sent" in str(error)
    assert "and came sent" in str(error)


def test_an_altered_time_is_found_too() -> None:
    number = index_of(told.ReceiveDatagram)
    lines = list(session())
    before = told.decode(lines[number])
    assert isinstance(before, told.ReceiveDatagram)
    lines[number] = lines[number].replace(f'"at":{before.at}', f'"at":{before.at + 0.001}')
    error = problem(lines)
    assert isinstance(error, RecordingAltered)


def test_what_no_replay_could_notice_is_found_by_the_checksum() -> None:
    lines = list(session())
    lines.insert(10, told.encode(told.FailureNote("NoRoute", "never said")) + "\n")
    error = problem(lines)
    assert isinstance(error, RecordingAltered)
    assert "its checksum is wrong" in str(error)


@pytest.mark.parametrize(
    "line",
    [
        '{"what":"handle_timer"}',
        '{"what":"handle_timer","at":"soon"}',
        '{"what":"handle_timer","at":1,"more":2}',
        '{"what":"no such thing","at":1}',
        '{"what":"recording"}',
        '{"what":"receive_datagram","at":1000.1,"data":"zz","source":["x",1],"local":["y",2]}',
        '{"what":"receive_datagram","at":1000.1,"data":"00","source":["x",1,2],"local":["y",2]}',
        '{"what":"drawn_bytes","value":"00"}',
        '{"what":"handle_timer","at":NaN}',
        '{"what":"handle_timer","at":-Infinity}',
        '{"what":"handle_timer","at":1e300}',
        '{"what":"receive_data","at":1000.1,"size":1000000000000,"source":["x",1],"local":["y",2]}',
        '{"what":"others_paced","next_at":NaN}',
        '{"what":"reserved","slot":1}',
        '{"what":"add_host_candidate","at":1000.1,"address":["x",1],"component":100000}',
        "[" * 5000,
        "1" * 5000,
    ],
)
def test_lines_that_no_recording_has(line: str) -> None:
    lines = [*session()[:5], line + "\n", *session()[5:]]
    assert isinstance(problem(lines), RecordingAltered)


def test_a_header_that_makes_no_agent() -> None:
    for field, value in (
        ("credentials", {"ufrag": "u"}),
        ("config", {"ta": "fast"}),
        ("policy", None),
        ("controlling", 1),
    ):
        header = json.loads(session()[0]) | {field: value}
        assert isinstance(problem([json.dumps(header) + "\n", *session()[1:]]), RecordingAltered)
    for number in ("NaN", "-1", "1e999", '"x"'):
        for field in ("ta", "max_early_checks", "rto", "patience"):
            before = re.search(rf'"{field}":[^,]*', session()[0])
            assert before is not None
            header_text = session()[0].replace(before[0], f'"{field}":{number}')
            assert isinstance(problem([header_text, *session()[1:]]), RecordingAltered)
    header = json.loads(session()[0])
    header["config"]["max_early_checks"] = -1
    assert isinstance(problem([json.dumps(header) + "\n", *session()[1:]]), RecordingAltered)


def test_another_package_is_named_where_it_may_be_the_reason() -> None:
    header = json.loads(session()[0]) | {"package": "0.0.7"}
    assert "it is of ice-punch 0.0.7, not " in str(
        problem([json.dumps(header) + "\n", *session()[2:]])
    )


# -- what ends a recording early ---------------------------------------------------------------


def busy_session(tape: Tape) -> Bench:
    from ice_punch.recording import RecordedAgent

    bench = Bench(
        remotes=[REMOTE],
        make_agent=lambda **arguments: RecordedAgent(
            recorder=tape.recorder, **{k: v for k, v in arguments.items() if k != "pacer"}
        ),
    )
    bench.answer_all(0.05)
    bench.run(60.0)
    bench.agent.close(bench.now)
    bench.flush()
    bench.agent.end_recording()  # type: ignore[attr-defined]
    return bench


UNRECORDED = Bench(remotes=[REMOTE])
UNRECORDED.answer_all(0.05)
UNRECORDED.run(60.0)


@pytest.mark.parametrize("limit", [{"max_lines": 20}, {"max_bytes": 5000}])
def test_a_full_recording_says_so_and_the_session_goes_on(limit: dict[str, int]) -> None:
    tape = Tape(**limit)
    bench = busy_session(tape)
    assert bench.agent.state is IceState.CLOSED
    assert bench.sent == UNRECORDED.sent
    kind, value = next(iter(limit.items()))
    (why,) = tape.stopped
    assert why == f"the limit of {value} {kind.removeprefix('max_')} was reached"
    assert len(tape.text) < 5500
    assert len(tape.lines) == limit.get("max_lines", len(tape.lines) - 1) + 1
    again = tape.replay()
    assert not again.complete
    assert isinstance(again.recording.last, told.Stopped)
    assert again.recording.last.reason == why
    assert 0 < again.inputs <= again.recording.last.inputs


@pytest.mark.parametrize("after", [0, 1, 17])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed")])
def test_a_sink_that_breaks_is_told_once_and_hurts_nobody(after: int, error: Exception) -> None:
    written: list[str] = []

    def sink(text: str) -> None:
        if len(written) == after:
            raise error
        written.append(text)

    tape = Tape()
    tape.recorder = type(tape.recorder)(sink, salt=bytes(32), on_stopped=tape.stopped.append)
    bench = busy_session(tape)
    assert bench.sent == UNRECORDED.sent
    assert tape.stopped == ["No space left on device" if isinstance(error, OSError) else "closed"]
    assert len(written) == after
    if after > 1:
        assert not replay(Recording.load(written, partial=True)).complete


def test_whoever_is_told_may_fail_as_well() -> None:
    def tell(_: str) -> None:
        raise RuntimeError("nobody listens")

    tape = Tape(max_lines=3, on_stopped=tell)
    assert busy_session(tape).sent == UNRECORDED.sent


def test_a_fault_of_the_recorder_is_none_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("ice_punch.recording.redaction.rewritten", fault)
    tape = Tape()
    assert busy_session(tape).sent == UNRECORDED.sent
    (why,) = tape.stopped
    assert "can not be recorded: ZeroDivisionError()" in why


def test_a_password_that_can_be_no_key_hurts_nobody() -> None:
    from ice_punch.ice import Credentials

    tape = Tape()
    studio = Studio()
    agent = studio.make_agent(controlling=True, credentials=OURS, random=random.Random(1))
    agent.set_remote_parameters(Credentials("peer", ""), 1.0)
    agent.end_recording()
    assert len(studio.tapes[0].stopped) == 1
    assert not tape.stopped
