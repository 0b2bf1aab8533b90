"""``ice-punch listen`` and ``connect`` as processes: what they carry, say and how they end."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from cli_support import HERE, connected, listening, only_line, run

from ice_punch.cli.output import browser_hint
from ice_punch.peer import transports
from support.commands import PUNCH, Command
from support.coturn import Coturn

HINT = "or open the link in a browser"
CANDIDATE_KEYS = {
    "event",
    "side",
    "type",
    "address",
    "base",
    "priority",
    "component",
    "foundation",
    "server",
}


def test_datagrams_go_both_ways_and_ctrl_c_closes_both_sides(server: str) -> None:
    with connected(server) as (listener, connector):
        connector.send(b"from the connector\n")
        listener.received(b"from the connector\n")
        listener.send(b"from the listener\n")
        connector.received(b"from the listener\n")
        began = time.monotonic()
        connector.interrupt()
        assert listener.exit_code() == 0
        assert connector.exit_code() == 0
        assert time.monotonic() - began < 1.0
        assert connector.event("closed")["reason"] == "interrupted"
        assert listener.event("closed")["reason"] == "the peer closed the channel"
        assert bytes(listener.output) == b"from the connector\n"
        assert not listener.errors
        assert not connector.errors


def test_ctrl_c_at_the_listening_side_closes_both_sides(server: str) -> None:
    with connected(server, both=["--no-encrypt"]) as (listener, connector):
        began = time.monotonic()
        listener.interrupt()
        assert (listener.exit_code(), connector.exit_code()) == (0, 0)
        assert time.monotonic() - began < 1.0
        assert connector.event("closed")["reason"] == "the peer closed the channel"


def test_people_see_the_link_a_qr_code_the_command_and_one_status_line(server: str) -> None:
    with Command("listen", "--server", server, *HERE) as listener:
        listener.until(lambda: any("on the other side" in e for e in listener.errors), 10, "hint")
        link = next(e for e in listener.errors if e.startswith("link: ")).removeprefix("link: ")
        assert f"on the other side: ice-punch connect '{link}'" in listener.errors
        listener.until(lambda: HINT in listener.errors, 10, "word of browsers")
        assert sum("█" in line for line in listener.errors) > 15
        done = run("connect", link, *HERE, data=b"over and out")
        assert done.returncode == 0
        status = only_line(done.stderr)
        assert re.fullmatch(r"connected: direct 127\.0\.0\.1:\d+ rtt \d+ ms DTLSv1\.[23]", status)
        assert listener.exit_code() == 0
        assert bytes(listener.output) == b"over and out"
        after = listener.errors[listener.errors.index(HINT) + 1 :]
        assert after[0].startswith("connected: direct 127.0.0.1:")
        assert after[1:] == ["closed: the peer closed the channel"]


@pytest.mark.parametrize(
    ("link", "options", "extra", "says"),
    [
        ("https://signal.example.org/j/r#s", [], True, HINT),
        ("http://localhost:8080/j/r#s", [], True, HINT),
        ("http://[::1]:8080/j/r#s", [], True, HINT),
        ("http://192.0.2.1:8080/j/r#s", [], True, "where the server has https"),
        ("http://127.0.0.1.example.org/j/r#s", [], True, "where the server has https"),
        ("https://signal.example.org/j/r#s", [], False, "pip install 'ice-punch[webrtc]'"),
        ("https://signal.example.org/j/r#s", ["--no-encrypt"], True, ""),
    ],
)
def test_people_hear_of_the_browser_where_it_can_open_the_link(
    link: str, options: list[str], extra: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "has_webrtc", lambda: extra)
    assert says in browser_hint(link, *options)
    assert bool(says) == bool(browser_hint(link, *options))


def test_a_plain_channel_and_a_link_from_the_environment(server: str) -> None:
    with listening(server, "--no-encrypt") as (listener, link):
        assert listener.event("listening")["command"] == f"ice-punch connect --no-encrypt '{link}'"
        done = run(
            "connect",
            *HERE,
            "--no-encrypt",
            "--linger",
            "0.1",
            environment={"ICE_PUNCH_LINK": link},
            data=b"no link in the process list",
        )
        assert only_line(done.stderr).endswith(" ms not encrypted")
        assert done.returncode == 0
        assert listener.event("connected")["dtls"] is None
        listener.received(b"no link in the process list")


def test_events_for_programs(server: str) -> None:
    with connected(server) as (listener, connector):
        connector.send(b"counted")
        listener.received(b"counted")
        connector.interrupt()
        assert connector.exit_code() == 0
        for command in (listener, connector):
            event = command.event("connected")
            path = event["path"]
            assert path["kind"] == "direct"
            assert path["local"].startswith("127.0.0.1:")
            assert path["remote"].startswith("127.0.0.1:")
            assert path["local_type"] in ("host", "prflx")
            assert isinstance(path["rtt_ms"], float)
            assert event["why_relayed"] is None
            assert event["peer_heard"] is True
            assert event["local"]["ip_versions"] == event["remote"]["ip_versions"] == [4]
            assert event["dtls"]["version"].startswith("DTLSv1.")
            assert event["dtls"]["cipher"]
            assert set(event["timings"]) == {
                "signaling_ms",
                "gathering_ms",
                "checks_ms",
                "dtls_ms",
            }
            assert all(isinstance(ms, float) for ms in event["timings"].values())
            pair = event["pairs"][0]
            assert {"local", "remote", "state", "requests_sent", "rtt_ms", "nominated"} <= set(pair)
            candidates = [e for e in command.events if e["event"] == "candidate"]
            assert {e["side"] for e in candidates} == {"local", "remote"}
            assert all(set(e) == CANDIDATE_KEYS for e in candidates)
            states = [e["state"] for e in command.events if e["event"] == "state"]
            assert states[:2] == ["checking", "connected"]
            assert all(e["reason"] for e in command.events if e["event"] == "state")
            assert {"joined", "answered"} <= {
                e["state"] for e in command.events if e["event"] == "signaling"
            }
        assert connector.event("closed")["stats"]["datagrams_sent"] == 1
        assert listener.event("closed")["stats"]["bytes_received"] == len(b"counted")
        link = listener.event("listening")["link"]
        secret = link.partition("#")[2]
        assert not any(secret in str(event) for event in connector.events)
        assert [secret in str(event) for event in listener.events].count(True) == 1


def test_a_file_is_piped_whole_in_blocks_of_the_size_asked_for(server: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    file = tmp_path / "file"
    file.write_bytes(content)
    with (
        file.open("rb") as stdin,
        connected(server, connect=["--size", "1000"], stdin=stdin) as (listener, connector),
    ):
        assert connector.exit_code() == 0
        assert listener.exit_code() == 0
        assert connector.event("closed")["stats"]["datagrams_sent"] == 256
        assert bytes(listener.output) == content


def test_input_that_is_empty_from_the_start_only_receives(server: str) -> None:
    with (
        listening(server, "--linger", "0.1", stdin=subprocess.DEVNULL) as (listener, link),
        Command("connect", link, *HERE, "--json") as connector,
    ):
        connector.event("connected")
        time.sleep(0.5)
        connector.send(b"still there")
        listener.received(b"still there")
        connector.interrupt()
        assert listener.exit_code() == 0


def test_lingering_waits_for_answers_as_long_as_they_come(server: str) -> None:
    with connected(server, connect=["--linger", "0.5"]) as (listener, connector):
        connector.send(b"question")
        assert connector.process.stdin is not None
        connector.process.stdin.close()
        began = time.monotonic()
        for _ in range(3):
            time.sleep(0.25)
            listener.send(b"answer")
        assert connector.exit_code() == 0
        assert 0.75 + 0.5 <= time.monotonic() - began < 4
        assert bytes(connector.output) == b"answer" * 3


def test_a_closed_standard_output_ends_the_session_quietly(server: str) -> None:
    with listening(server) as (listener, link):
        connector = subprocess.Popen(
            [*PUNCH, "connect", link, *HERE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            listener.event("connected")
            assert connector.stdout is not None
            connector.stdout.close()
            listener.send(b"nobody reads this")
            assert connector.wait(5) == 0
            assert connector.stderr is not None
            assert only_line(connector.stderr.read().decode()).startswith("connected: ")
        finally:
            connector.kill()
            connector.wait()
            for stream in (connector.stdin, connector.stderr):
                assert stream is not None
                stream.close()


def test_a_wrong_secret_is_refused_and_the_right_one_still_let_in(server: str) -> None:
    with Command("listen", "--server", server, *HERE) as listener:
        listener.until(lambda: any("on the other side" in e for e in listener.errors), 10, "hint")
        link = next(e for e in listener.errors if e.startswith("link: ")).removeprefix("link: ")
        wrong = link.partition("#")[0] + "#" + "A" * 22
        refused = run("connect", wrong, *HERE)
        assert refused.returncode == 1
        assert "secret" in only_line(refused.stderr)
        listener.until(
            lambda: "refused a peer with a wrong secret" in listener.errors, 5, "refusal"
        )
        done = run("connect", link, *HERE, "--linger", "0.1", data=b"it is me")
        assert done.returncode == 0, done.stderr
        assert listener.exit_code() == 0
        assert bytes(listener.output) == b"it is me"
        assert listener.errors.count("refused a peer with a wrong secret") == 1


def test_signals_before_a_connection(server: str) -> None:
    with (
        listening(server) as (listener, link),
        Command("connect", link.replace("/j/", "/j/A"), *HERE, "--json") as connector,
    ):
        connector.until(lambda: any(e.get("state") == "joined" for e in connector.events), 10, "")
        began = time.monotonic()
        listener.process.terminate()
        connector.interrupt()
        assert listener.exit_code() == 143
        assert connector.exit_code() == 130
        assert time.monotonic() - began < 1.5
        assert not listener.errors
        assert not connector.errors


def test_a_relayed_path_says_so(server: str) -> None:
    with Coturn() as coturn:
        relay = ("--relay-only", "--ice-server", coturn.uri())
        ((username, password),) = coturn.users.items()
        environment = {"ICE_PUNCH_TURN_USERNAME": username, "ICE_PUNCH_TURN_PASSWORD": password}
        listen = Command(
            "listen", "--server", server, *HERE, *relay, "--json", environment=environment
        )
        with listen as listener:
            link = listener.event("listening")["link"]
            done = run("connect", link, *HERE, *relay, environment=environment, data=b"detour")
            connected_line, why = done.stderr.splitlines()
            assert connected_line.startswith("connected: relayed 127.0.0.1:")
            assert why == (
                "relayed because this side was told to use nothing but relays; "
                "a direct path needs it without --relay-only"
            )
            assert listener.exit_code() == 0
            assert bytes(listener.output) == b"detour"
            event = listener.event("connected")
            assert event["path"]["kind"] == "relayed"
            assert (event["why_relayed"]["cause"], event["why_relayed"]["side"]) == (
                "relay-only",
                "here",
            )
            assert not any(password in str(event) for event in listener.events)
