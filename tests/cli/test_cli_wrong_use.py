"""Wrong use: one clear line, a non-zero exit code, never a traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from cli_support import HERE, listening, only_line, run

from ice_punch.cli import app, session
from ice_punch.errors import ConsentLost
from support.commands import Command
from support.coturn import Coturn

LINK = "http://127.0.0.1:9/j/AAAAAAAAAAAAAAAAAAAAAA#AAAAAAAAAAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["connect", "http://127.0.0.1:9/j/AAAAAAAAAAAAAAAAAAAAAA"], 1, "no secret"),
        (["connect", "http://127.0.0.1:9/"], 1, "names no room"),
        (["connect", "nonsense"], 1, "link"),
        (["connect"], 2, "ICE_PUNCH_LINK"),
        (["connect", LINK], 1, "no server is listening at http://127.0.0.1:9"),
        (["listen", "--server", "http://127.0.0.1:9"], 1, "no server is listening"),
        (["listen", "--server", "gopher://x"], 2, "http"),
        (["connect", LINK, "--direct-only", "--relay-only"], 2, "exclude each other"),
        (["connect", LINK, "-4", "-6"], 2, "exclude each other"),
        (["connect", LINK, "--ice-server", "http://x"], 2, "stun:HOST"),
        (["connect", LINK, "--ice-server", "turn:user:pw@x"], 2, "ICE_PUNCH_TURN_USERNAME"),
        (["connect", LINK, "--interface", "nope0"], 1, "no interface 'nope0'"),
        (["connect", LINK, "--port-range", "5000"], 1, "no server is listening"),
        (["connect", LINK, "--port-range", "5000-4000"], 2, "the lower one first"),
        (["connect", LINK, "--port-range", "0-70000"], 2, "1 to 65535"),
        (["connect", LINK, "--port-range", "a-b"], 2, "LOW-HIGH"),
        (["connect", LINK, "--timeout", "0"], 2, "above 0"),
        (["connect", LINK, "--timeout", "nan"], 2, "seconds"),
        (["connect", LINK, "--linger", "-1"], 2, "seconds"),
        (["connect", LINK, "--size", "0"], 2, "--size"),
        (["connect", LINK, "another"], 2, "unexpected extra argument"),
        (["connect", LINK, "--frobnicate"], 2, "--frobnicate"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_one_line_and_an_exit_code(
    arguments: list[str], code: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == code
    line = only_line(capfd.readouterr().err)
    assert line.startswith("ice-punch: ")
    assert says in line


def test_a_process_says_it_too_without_a_traceback() -> None:
    done = run("connect", LINK.partition("#")[0])
    assert done.returncode == 1
    assert only_line(done.stderr) == (
        "ice-punch: the link has no secret: the part after # is missing (put the link in quotes)"
    )
    assert done.stdout == ""


def test_programs_get_an_event(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["connect", LINK, "--json"]) == 1
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert events[-1]["event"] == "error"
    assert events[-1]["error"] == "SignalingFailed"
    assert "no server is listening" in events[-1]["message"]
    assert app.run(["connect", "--json", "--frobnicate"]) == 2
    assert json.loads(only_line(capfd.readouterr().err))["error"] == "UsageError"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.mark.parametrize("command", ["listen", "connect"])
def test_a_port_range_that_is_taken(
    command: str, taken_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    target = [] if command == "listen" else [LINK]
    assert app.run([command, *target, *HERE, "--port-range", f"{taken_port}-{taken_port}"]) == 1
    assert str(taken_port) in only_line(capfd.readouterr().err)


def test_nobody_listens(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    link = f"{server}/j/{'B' * 21}A#{'A' * 22}"
    assert app.run(["connect", link, *HERE, "--timeout", "0.3"]) == 1
    assert "nobody listened on this link for 0.3 s" in only_line(capfd.readouterr().err)


def test_a_size_that_the_path_does_not_carry(server: str) -> None:
    with listening(server) as (_, link):
        done = run("connect", link, *HERE, "--size", "5000", data=b"x" * 5000)
        assert done.returncode == 2
        assert "--size 5000 is too large for this path" in only_line(done.stderr)


def test_both_sides_must_agree_on_encryption(server: str) -> None:
    with listening(server) as (listener, link):
        done = run("connect", link, *HERE, "--no-encrypt")
        assert done.returncode == 1
        assert only_line(done.stderr).startswith("ice-punch: the peer refused")
        assert listener.exit_code() == 1
        assert "does not encrypt" in listener.event("error")["message"]


def test_the_peer_vanishes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def vanish(*_: object) -> int:
        raise ConsentLost("no answer from the peer for 30 s")

    monkeypatch.setattr(session, "run_connect", vanish)
    assert app.run(["connect", LINK]) == 1
    assert capfd.readouterr().err == "ice-punch: no answer from the peer for 30 s\n"


WRONG_PASSWORD = {"ICE_PUNCH_TURN_USERNAME": "robot", "ICE_PUNCH_TURN_PASSWORD": "hunter2"}


def test_a_turn_server_that_rejects_the_password(server: str) -> None:
    with Coturn() as coturn, listening(server) as (_, link):
        done = run(
            "connect",
            link,
            *HERE,
            "--relay-only",
            "--ice-server",
            coturn.uri(),
            environment=WRONG_PASSWORD,
        )
        assert done.returncode == 1
        line = only_line(done.stderr)
        assert coturn.uri().partition("?")[0] in line
        assert "password" in line
        assert "hunter2" not in line


def test_a_rejected_password_is_a_warning_where_another_path_exists(server: str) -> None:
    with (
        Coturn() as coturn,
        listening(server) as (_, link),
        Command(
            "connect", link, *HERE, "--ice-server", coturn.uri(), environment=WRONG_PASSWORD
        ) as connector,
    ):
        connector.until(lambda: len(connector.errors) == 2, 10, "warning")
        connector.interrupt()
        assert connector.exit_code() == 0
        status, warning = connector.errors
        assert status.startswith("connected: direct ")
        assert warning.startswith("warning: turn:127.0.0.1:")


def test_only_the_user_name_of_turn_is_set(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ICE_PUNCH_TURN_USERNAME", "robot")
    assert app.run(["connect", LINK]) == 2
    assert "ICE_PUNCH_TURN_PASSWORD" in only_line(capfd.readouterr().err)
