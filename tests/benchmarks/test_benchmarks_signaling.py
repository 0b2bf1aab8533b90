"""The load generator of the signaling server runs, and loses and doubles nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "signaling_load.py"

pytest.importorskip("uvloop")
pytest.importorskip("picows")


def measured(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--runs", "1"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_storm_is_told_with_what_was_lost_and_what_was_doubled() -> None:
    told = measured("storm", "--clients", "40", "--port", "18180")
    runs = re.findall(
        r"(\w+) +run 1: 40 of 40 resumed in [\d.]+ s, 0 anew, 0 messages lost, 0 doubled", told
    )
    assert runs == ["websockets", "picows"]


def test_relayed_messages_and_idle_memory_are_measured_for_both_engines() -> None:
    for told in (
        measured("relay", "--seconds", "0.5"),
        measured("idle", "--clients", "300"),
    ):
        rows = dict(re.findall(r"^  (websockets|picows) +([\d.,]+) /", told, re.MULTILINE))
        assert set(rows) == {"websockets", "picows"}
        assert all(float(row.replace(",", "")) > 0 for row in rows.values())
