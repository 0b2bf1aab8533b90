"""Calls through real kernel NATs, recorded on both sides, replay to the events that were told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from test_kernel_nats import (
    PASSWORD,
    STUN,
    STUN_SECOND_PORT,
    TURN_UDP,
    Pair,
    two_commands,
)

from ice_punch.ice import CandidateType, IceState, LocalCandidateFound
from ice_punch.recording import Replay
from ice_punch.recording import lines as told
from support.netns import NETNS
from support.recordings import replayed, told_again, what_happened

pytestmark = NETNS

IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")


@contextmanager
def recorded(directory: Path, *switches: str, **options: Any) -> Iterator[Pair]:
    listener, connector = (str(directory / name) for name in ("listener", "connector"))
    with two_commands(
        *switches, "--record", listener, connector_only=("--record", connector), **options
    ) as pair:
        yield pair


def both(directory: Path, pair: Pair) -> list[Replay]:
    """Both replays, which tell what the commands told."""
    again = [replayed(directory / name) for name in ("listener", "connector")]
    for one, command in zip(again, (pair.listener, pair.connector), strict=True):
        assert one.complete
        assert told_again(one) == what_happened(command.events)
    assert sorted(f.name for f in directory.iterdir()) == ["connector", "listener"]
    return again


def completed_and_closed(pair: Pair) -> None:
    for command in (pair.listener, pair.connector):
        command.until(
            lambda c=command: any(e.get("state") == "completed" for e in c.events), 20, "completed"
        )
    pair.exchange()
    pair.connector.interrupt()
    assert (pair.listener.exit_code(), pair.connector.exit_code()) == (0, 0)


def test_a_direct_call_replays(tmp_path: Path) -> None:
    with recorded(tmp_path, "--ice-server", STUN, rtt=0.04) as pair:
        completed_and_closed(pair)
    for again in both(tmp_path, pair):
        states = [event.state for _, event in again.states]
        assert states == [
            IceState.CHECKING,
            IceState.CONNECTED,
            IceState.COMPLETED,
            IceState.CLOSED,
        ]
        kinds = {e.candidate.type for _, e in again.events if isinstance(e, LocalCandidateFound)}
        assert kinds == {CandidateType.HOST, CandidateType.SRFLX}


def test_a_relayed_call_replays_and_its_recording_holds_no_credentials(tmp_path: Path) -> None:
    with recorded(
        tmp_path,
        *("--ice-server", TURN_UDP),
        nat_a="symmetric",
        nat_b="symmetric",
        environment=PASSWORD,
    ) as pair:
        completed_and_closed(pair)
    for again, name in zip(both(tmp_path, pair), ("listener", "connector"), strict=True):
        body = again.recording.body
        selected = [line for line in body if isinstance(line, told.Selected)]
        assert "relay" in (selected[-1].report.local_type, selected[-1].report.remote_type)
        assert any(isinstance(line, told.AddRelayedCandidate) for line in body)
        text = (tmp_path / name).read_text()
        assert "robot" not in text
        assert "correct horse" not in text


def test_a_failed_call_replays_with_its_reason_and_without_addresses(tmp_path: Path) -> None:
    with recorded(
        tmp_path,
        "--direct-only",
        "--redact-addresses",
        *("--ice-server", STUN),
        *("--ice-server", STUN_SECOND_PORT),
        nat_a="symmetric",
        nat_b="symmetric",
    ) as pair:
        said = [command.event("error", timeout=20) for command in (pair.listener, pair.connector)]
        assert (pair.listener.exit_code(), pair.connector.exit_code()) == (1, 1)
    reasons = []
    for name, error, command in zip(
        ("listener", "connector"), said, (pair.listener, pair.connector), strict=True
    ):
        again = replayed(tmp_path / name)
        assert again.complete
        live = [e["state"] for e in command.events if e["event"] == "state"]
        replayed_states = [s.state for _, s in again.states if s.state is not IceState.CLOSED]
        # The peer's word that it failed may come in the moment in which this side would have.
        assert replayed_states in (live, [*live, IceState.FAILED])
        reasons.append(again.reason)
        body = again.recording.body
        (failure,) = [line for line in body if isinstance(line, told.FailureNote)]
        assert failure.error == error["error"] == "NoRoute"
        text = (tmp_path / name).read_text()
        found = {ip for ip in IPV4.findall(text) if ip != "0.0.0.0"}
        assert found
        assert all(ip.startswith(("10.128.", "240.")) for ip in found)
        ports = {e["address"].rpartition(":")[2] for e in command.events if e.get("side")}
        assert ports
        assert all(f",{port}]" in text or f'"port":{port}' in text for port in ports)
    assert any("candidate pairs works after" in reason for reason in reasons)
