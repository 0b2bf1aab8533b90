"""``--record`` and ``ice-punch replay``: calls that worked, that failed, that were killed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_support import HERE, connected, listening, only_line, run

from ice_punch.cli import app
from support.commands import Command, start_here
from support.recordings import what_happened

LINK = "http://127.0.0.1:9/j/AAAAAAAAAAAAAAAAAAAAAA#AAAAAAAAAAAAAAAAAAAAAA"


def replayed(file: Path, *options: str) -> list[dict[str, Any]]:
    done = run("replay", str(file), "--json", *options)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def completed(command: Command) -> bool:
    return any(event.get("state") == "completed" for event in command.events)


def test_both_sides_of_a_call_replay_to_the_events_they_told(server: str, tmp_path: Path) -> None:
    listened, made = tmp_path / "listen.jsonl", tmp_path / "connect.jsonl"
    with connected(server, listen=["--record", str(listened)], connect=["--record", str(made)]) as (
        listener,
        connector,
    ):
        connector.send(b"nobody else's business")
        listener.received(b"nobody else's business")
        connector.until(lambda: completed(connector), 10, "pair")
        connector.interrupt()
        assert (listener.exit_code(), connector.exit_code()) == (0, 0)
    for command, file, role in (
        (listener, listened, "controlled"),
        (connector, made, "controlling"),
    ):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        first, *events, last = replayed(file)
        assert first["event"] == "recording"
        assert (first["role"], first["redacted"], first["version"]) == (role, False, 2)
        assert last["event"] == "replayed"
        assert last["complete"]
        assert last["state"] == "closed"
        assert last["pairs"][0]["state"] == "succeeded"
        assert what_happened(events) == what_happened(command.events)
        assert [e["at_ms"] for e in events] == sorted(e["at_ms"] for e in events)
        text = file.read_text()
        assert "nobody else" not in text
        assert b"nobody else".hex() not in text
        secret = listener.event("listening")["link"].partition("#")[2]
        assert secret not in text
    assert {f.name for f in tmp_path.iterdir()} == {"listen.jsonl", "connect.jsonl"}


def test_people_see_a_picture_and_that_all_came_out_the_same(server: str, tmp_path: Path) -> None:
    file = tmp_path / "call"
    with connected(server, connect=["--record", str(file), "--redact-addresses"]) as (_, connector):
        connector.interrupt()
        assert connector.exit_code() == 0
    page = tmp_path / "call.html"
    done = run("replay", str(file), "--html", str(page))
    assert done.returncode == 0
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("the controlling side, recorded on 20")
    assert any("check" in line and "answered after" in line for line in lines)
    assert any("connected: a valid pair was found" in line for line in lines)
    assert lines[-3] == "controlling side, format version 2, other addresses than the real ones"
    assert lines[-2].startswith(("connected: ", "completed: "))
    assert lines[-1].startswith("replayed: ")
    assert lines[-1].endswith(" outputs, all as recorded")
    assert "<html" in page.read_text()


def test_a_call_that_failed_is_recorded_with_its_reason(server: str, tmp_path: Path) -> None:
    file = tmp_path / "failed"
    with listening(server, "--relay-only") as (listener, link):
        done = run("connect", link, *HERE, "--record", str(file))
        assert done.returncode == 1
        assert listener.exit_code() == 1
    why = only_line(done.stderr).removeprefix("ice-punch: ")
    shown = run("replay", str(file))
    assert shown.returncode == 0
    assert f"NoRoute: {why}" in " ".join(shown.stdout.replace("─", " ").split())


def test_a_call_that_was_killed_is_cut_short_and_can_be_replayed_so_far(
    server: str, tmp_path: Path
) -> None:
    file = tmp_path / "killed"
    with connected(server, connect=["--record", str(file)]) as (_, connector):
        connector.until(lambda: completed(connector), 10, "pair")
        connector.process.kill()
        connector.process.wait()
    done = run("replay", str(file))
    assert done.returncode == 2
    line = only_line(done.stderr)
    assert line.startswith(f"ice-punch: {file}: the recording is cut short after ")
    assert line.endswith("; --partial replays what there is")
    _, *events, last = replayed(file, "--partial")
    assert not last["complete"]
    assert last["state"] == "completed"
    assert what_happened(events) == what_happened(connector.events)
    with file.open("a") as again:
        again.write('{"what":"handle_ti')
    assert replayed(file, "--partial")[-1] == last
    shown = run("replay", str(file), "--partial").stdout.splitlines()
    assert shown[-2:] == [
        "the recording is cut short",
        f"replayed: {last['inputs']} inputs, {last['outputs']} outputs, all as recorded",
    ]


def test_a_recording_with_no_room_ends_and_the_call_goes_on(server: str, tmp_path: Path) -> None:
    file = tmp_path / "call"

    def start(command: list[str], **options: Any) -> subprocess.Popen[Any]:
        limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "_", *command]
        return start_here(limited, **options)

    with (
        listening(server) as (listener, link),
        Command("connect", link, *HERE, "--json", "--record", str(file), start=start) as connector,
    ):
        connector.event("connected")
        connector.send(b"still going")
        listener.received(b"still going")
        connector.interrupt()
        assert connector.exit_code() == 0
        warnings = [e["message"] for e in connector.events if e["event"] == "warning"]
        assert warnings == [f"the recording {file} ended before its session: File too large"]
    assert file.stat().st_size == 1024
    assert run("replay", str(file)).returncode == 2
    assert replayed(file, "--partial")[-1]["event"] == "replayed"


def test_no_session_leaves_no_file(server: str, tmp_path: Path) -> None:
    file = tmp_path / "call"
    with listening(server, "--record", str(file)) as (listener, _):
        assert file.exists()
        listener.interrupt()
        listener.exit_code()
    assert not file.exists()


# -- wrong use ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--record", "here"], "here exists already: a recording overwrites no file"),
        (["--record", "no/such/dir/x"], "no/such/dir/x can not be written: No such file"),
        (["--redact-addresses"], "--redact-addresses is for a recording: --record FILE"),
        (["--record", "here", "-4", "-6"], "exclude each other"),
    ],
)
@pytest.mark.parametrize(
    "command", [["connect", LINK], ["listen", "--server", "http://127.0.0.1:9"]]
)
def test_a_file_that_can_not_be_written_is_told_before_anything_else(
    command: list[str],
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").write_text("mine")
    assert app.run([*command, *arguments]) == 2
    assert says in only_line(capfd.readouterr().err)
    assert Path("here").read_text() == "mine"
    assert os.listdir() == ["here"]


def test_a_link_that_is_none_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "call"
    assert app.run(["connect", LINK, "--record", str(file)]) == 1
    assert app.run(["connect", "nonsense", "--record", str(file)]) == 1
    assert not file.exists()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short one, made without a network."""
    import random

    from ice_punch.ice import Credentials
    from ice_punch.recording import RecordedAgent, Recorder

    file = tmp_path_factory.mktemp("recording") / "call"
    with file.open("w") as opened:
        agent = RecordedAgent(
            controlling=True,
            credentials=Credentials("ours", "password-of-24-characters"),
            random=random.Random(1),
            recorder=Recorder(opened.write, salt=bytes(32)),
        )
        agent.add_host_candidate(("192.0.2.1", 5000), 1.0)
        agent.set_remote_parameters(Credentials("theirs", "another-of-24-characters"), 1.0)
        while agent.next_event() is not None:
            pass
        agent.end_recording()
    return file


@pytest.mark.parametrize(
    ("change", "code", "error", "says"),
    [
        (lambda t: "", 2, "InvalidRecording", "it is empty: no session had begun"),
        (lambda t: "call me\n", 2, "InvalidRecording", "it is not a recording of ice-punch"),
        (lambda t: '{"event": "state"}\n' + t, 2, "InvalidRecording", "not a recording"),
        (
            lambda t: t.replace('"version":2', '"version":1'),
            2,
            "RecordingVersionMismatch",
            "the recording has format version 1, this ice-punch reads version 2",
        ),
        (lambda t: t[:-100], 2, "RecordingCutShort", "cut short after 2 inputs: it has no end; "),
        (
            lambda t: t.replace('"192.0.2.1",5000],"local', '"192.0.2.1",5001],"local'),
            1,
            "RecordingAltered",
            "after input 2 (set_remote_parameters, at 0.000000 s) there is ",
        ),
        (lambda t: t.replace('"at":1.0', '"at":1.5', 1), 1, "RecordingAltered", "checksum"),
        (lambda t: t.replace("local_candidate", "loco"), 1, "RecordingAltered", "makes no sense"),
    ],
)
def test_files_that_can_not_be_replayed(
    change: Any,
    code: int,
    error: str,
    says: str,
    recording: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.write_text(change(recording.read_text()))
    assert app.run(["replay", str(file)]) == code
    out = capfd.readouterr()
    line = only_line(out.err)
    assert line.startswith(f"ice-punch: {file}: ")
    assert says in line
    assert not out.out
    assert app.run(["replay", str(file), "--json"]) == code
    event = json.loads(only_line(capfd.readouterr().err))
    assert (event["event"], event["error"]) == ("error", error)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-file"], "no-such-file: No such file or directory"),
        (["."], ".: Is a directory"),
        ([], "Missing argument"),
        (["RECORDING", "--html", "no/such/dir/x"], "no/such/dir/x can not be written: No such"),
    ],
)
def test_files_that_can_not_be_read_or_written(
    arguments: list[str], says: str, recording: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [str(recording) if a == "RECORDING" else a for a in arguments]
    assert app.run(["replay", *given]) == 2
    assert says in only_line(capfd.readouterr().err)


def test_a_huge_line_is_not_read_to_its_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as opened:
        opened.truncate(1 << 33)  # sparse
    assert app.run(["replay", str(file)]) == 2
    assert "not a recording" in only_line(capfd.readouterr().err)
