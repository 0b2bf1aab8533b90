"""``ice-punch stun``: one row a server, and the verdict."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
from cli_support import only_line

from ice_punch.cli import app
from ice_punch.cli import stun as stun_command
from ice_punch.cli.stun import _sentence, _verdict_event
from ice_punch.nat import MappingBehaviour, MappingVerdict
from support.commands import Command


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    with Command(
        "serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0", "--json"
    ) as command:
        yield command.event("serving")["stun"]


@pytest.fixture
def dead() -> Iterator[str]:
    """A server that reads nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def test_one_dead_server_costs_its_own_row(
    servers: list[str], dead: str, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert app.run(["stun", servers[0], dead, servers[1], "--timeout", "0.7"]) == 0
    assert time.monotonic() - began < 1.5
    captured = capfd.readouterr()
    assert captured.err == ""
    title, first, second, third, verdict = captured.out.splitlines()
    assert title.split() == ["server", "reflexive", "address", "round", "trip"]
    assert first.startswith(f"stun:{servers[0]} ")
    assert " 127.0.0.1:" in first
    assert first.rstrip().endswith(" ms")
    assert second.startswith(f"stun:{dead} ")
    assert "no answer within 0.7 s" in second
    assert third.startswith(f"stun:{servers[1]} ")
    assert verdict.startswith("IPv4: no NAT")


def test_objects_for_programs(
    servers: list[str], dead: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["stun", *servers, f"stun:{dead}", "--timeout", "0.3", "--json", "-4"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    answers = {e["server"]: e for e in events if e["event"] == "server"}
    assert len(answers) == 3
    for server in servers:
        answer = answers[f"stun:{server}"]
        assert answer["mapped"] == answer["local"]
        assert answer["rtt_ms"] > 0
        assert answer["error"] is None
    assert answers[f"stun:{dead}"]["mapped"] is None
    assert answers[f"stun:{dead}"]["error"]
    assert events[-1] == {
        "event": "verdict",
        "ip_version": 4,
        "mapping": "open",
        "varies": False,
        "exact": True,
        "reason": "servers see the local address",
    }


def test_no_answer_at_all(dead: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stun", dead, "--timeout", "0.2"]) == 1
    captured = capfd.readouterr()
    assert only_line(captured.err) == "ice-punch: no STUN server answered"
    assert f"stun:{dead}" in captured.out


@pytest.mark.parametrize(
    "arguments", [["http://x"], ["turn:u:p@x"], ["127.0.0.1:99999"], ["x", "-4", "-6"]]
)
def test_wrong_arguments(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stun", *arguments]) == 2
    assert only_line(capfd.readouterr().err).startswith("ice-punch: ")


def test_without_arguments_public_servers_are_asked(
    monkeypatch: pytest.MonkeyPatch, servers: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stun_command, "DEFAULT_STUN_SERVERS", (f"stun:{servers[0]}",))
    assert app.run(["stun"]) == 0
    assert servers[0] in capfd.readouterr().out


@pytest.mark.parametrize(
    ("behaviour", "varies", "words"),
    [
        (MappingBehaviour.OPEN, False, "no NAT"),
        (MappingBehaviour.ENDPOINT_INDEPENDENT, False, "does not vary"),
        (MappingBehaviour.ADDRESS_DEPENDENT, True, "varies by destination"),
        (MappingBehaviour.ADDRESS_AND_PORT_DEPENDENT, True, "varies by destination"),
        (MappingBehaviour.UNKNOWN, None, "not known"),
    ],
)
def test_the_verdict_in_words(behaviour: MappingBehaviour, varies: bool | None, words: str) -> None:
    verdict = MappingVerdict(behaviour, True, "why")
    assert words in _sentence(verdict)
    assert _sentence(verdict).endswith("(why)")
    assert _verdict_event(4, verdict)["varies"] is varies
