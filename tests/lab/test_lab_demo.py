"""The demo: what it makes of events, what it prints, how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from ice_punch.lab import kernel
from ice_punch.lab.demo import play as demo_module
from ice_punch.lab.demo.events import PeerStory, milliseconds, parse_event, text
from ice_punch.lab.demo.play import run_demo
from ice_punch.lab.demo.tables import print_story
from ice_punch.lab.kernel import namespaces
from support.netns import ROOT, needs_netns

FAKE = [sys.executable, str(Path(__file__).parents[1] / "support" / "fake_ice_punch.py")]


def run(monkeypatch: pytest.MonkeyPatch, fault: str = "") -> tuple[int, str]:
    monkeypatch.setenv("FAKE_FAULT", fault)
    console = Console(file=io.StringIO(), width=80)
    status = run_demo(console, program=FAKE)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "available", lambda: "network namespaces need root")


def children() -> list[str]:
    """The command lines of every stand-in that still runs."""
    running = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = file.read_bytes().decode(errors="replace").split("\0")
            if FAKE[1] in command:
                running.append(" ".join(command))
    return running


@pytest.mark.usefixtures("on_host")
def test_elsewhere_it_runs_on_this_host_and_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, told = run(monkeypatch)
    assert status == 0
    first = told.splitlines()[0]
    assert first.startswith(
        "No NAT to punch here (network namespaces need root): both peers run on"
    )
    assert "Both sides received what the other sent." in told
    assert children() == []


@needs_netns
def test_as_root_on_linux_it_runs_behind_two_kernel_nats(monkeypatch: pytest.MonkeyPatch) -> None:
    status, told = run(monkeypatch)
    assert status == 0
    assert "a is 10.1.0.2 behind 198.51.100.1" in told
    assert namespaces.ours(pid=os.getpid()) == []
    assert children() == []


@pytest.mark.usefixtures("on_host")
def test_the_tables_tell_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = run(monkeypatch)
    words = [line.split() for line in told.splitlines()]
    assert ["a", "host", "10.1.0.2:50000", "10.1.0.2:50000", "2130706431"] in words
    assert ["b", "srflx", "198.51.100.1:50000", "10.2.0.2:50000", "2130706431"] in words
    check = words.index(["host", "srflx", "succeeded", "*", "2", "1", "1", "41.2", "ms"])
    assert words[check + 1] == ["10.1.0.2:50000", "198.51.100.2:50000"]
    check = words.index(["host", "srflx", "failed", "2", "1", "1", "-"])
    assert words[check + 1] == ["10.1.0.2:50000", "10.9.9.9:1"]
    assert ["a", "12.5", "ms", "22.0", "ms", "63.1", "ms", "101", "ms"] in words
    assert ["peer", "signaling", "gathering", "checks", "DTLS"] in words
    assert ["path", "direct", "direct"] in words
    assert ["from", "host", "10.1.0.2:50000", "host", "10.2.0.2:50000"] in words
    assert ["to", "srflx", "198.51.100.2:50000", "srflx", "198.51.100.1:50000"] in words
    assert ["DTLS", "DTLSv1.2", "DTLSv1.2"] in words
    assert ["cipher", *["ECDHE-ECDSA-AES256-GCM-SHA384"] * 2] in words
    for number in (1, 2, 3):
        assert f"question {number} from peer a" in told
        assert f"answer {number} from peer b" in told
    assert told.splitlines()[-1] == "Connected: direct. Both sides received what the other sent."


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize(
    ("fault", "last"),
    [
        ("no-route", "NoRoute: no candidate pair works"),
        ("crash", "Segmentation fault"),
        ("garble", "peer b received something else than was sent"),
        ("mute", "peer b did not receive what was sent within 0.3 s"),
        ("hang", "the peers did not connect within 1 s"),
    ],
)
def test_it_fails_with_one_line_and_status_1(
    fault: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "MESSAGE_TIMEOUT", 0.3)
    monkeypatch.setattr(demo_module, "CONNECT_TIMEOUT", 1.0)
    status, told = run(monkeypatch, fault)
    assert status == 1
    assert told.splitlines()[-1].startswith("Failed. ")
    assert last in told.splitlines()[-1]
    assert children() == []


def test_a_program_that_cannot_run_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "available", lambda: "network namespaces need Linux")
    console = Console(file=io.StringIO(), width=100)
    assert run_demo(console, program=[sys.executable, "-c", "raise SystemExit('no such command')"])
    assert isinstance(console.file, io.StringIO)
    assert "Failed. server: no such command" in console.file.getvalue()


def test_ipv6_addresses_are_shown_whole() -> None:
    story = PeerStory("a")
    address = "[2001:db8::1]:50000"
    story.feed(
        json.dumps(
            {"event": "candidate", "side": "local", "type": "host", "address": address}
            | {"base": address, "priority": 1}
        )
    )
    console = Console(file=io.StringIO(), width=100)
    print_story(console, [story], [])
    assert isinstance(console.file, io.StringIO)
    assert ["a", "host", address, address, "1"] in map(
        str.split, console.file.getvalue().splitlines()
    )


INTERRUPTED = f"""
import sys
from rich.console import Console
from ice_punch.lab.demo.play import run_demo
sys.exit(run_demo(Console(), program={FAKE!r}))
"""


@needs_netns
@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.2, 0.8])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_nothing(number: signal.Signals, status: int, after: float) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env={**os.environ, "FAKE_FAULT": "hang"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while not namespaces.ours(pid=demo.pid):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(after)
    os.killpg(demo.pid, number)
    out, err = demo.communicate(timeout=20)
    assert demo.returncode == status
    assert "Traceback" not in out + err
    assert namespaces.ours(pid=demo.pid) == []
    assert children() == []


def test_a_story_is_put_together_from_events_in_any_state() -> None:
    story = PeerStory("a")
    for event in (
        {"event": "listening", "link": "http://h/j/r#s", "command": "c"},
        {"event": "candidate", "side": "local", "type": "host", "address": ["10.0.0.1", 5]},
        {"event": "candidate", "side": "remote", "type": "srflx", "address": "1.2.3.4:5"},
        {"event": "state", "state": "checking", "reason": "r"},
        {"event": "connected", "path": None, "dtls": None, "timings": {"dtls_ms": None}},
        {"event": "closed", "reason": "bye"},
        {"event": "something new"},
    ):
        story.feed(json.dumps(event))
    story.feed("Traceback (most recent call last):\n")
    assert story.link == "http://h/j/r#s"
    assert (len(story.local_candidates), len(story.remote_candidates)) == (1, 1)
    assert text(story.local_candidates[0]["address"]) == "10.0.0.1:5"
    assert (story.path, story.dtls, story.pairs) == ({}, {}, [])
    assert story.timings == {"dtls": None}
    assert story.closed is not None
    assert story.complaint == "Traceback (most recent call last):"
    story.feed('{"event": "error", "error": "NoRoute", "message": "nothing works"}')
    assert story.complaint == "NoRoute: nothing works"


def test_what_is_no_event_is_no_event() -> None:
    for line in ("", "hello", "[1]", "{}", '{"event": 1}', "{", "null", '{"event": "x"'):
        assert parse_event(line) is None
    assert [milliseconds(v) for v in (None, 0.25, 99.94, 100.4, "x")] == [
        "-",
        "0.2 ms",
        "99.9 ms",
        "100 ms",
        "-",
    ]
