"""What a command told, and what its recording replays to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ice_punch.cli import events
from ice_punch.recording import Recording, Replay, replay


def replayed(file: Path) -> Replay:
    """Raises InvalidRecording."""
    with file.open() as opened:
        return replay(Recording.load(opened))


def told_again(again: Replay) -> list[object]:
    """The events of a replay, as ``what_happened`` has them."""
    found = map(events.recorded, again.recording.body)
    return what_happened([event for event in found if event is not None])


def what_happened(told: list[dict[str, Any]]) -> list[object]:
    """Of live and of replayed events: all but the counters, which live a little longer there, and
    what is told when nobody reads it any more."""
    found: list[object] = []
    for event in told:
        if event["event"] == "state" and event["state"] != "closed":
            found.append((event["state"], event["reason"]))
        elif event["event"] == "candidate" and event["side"] == "local":
            found.append((event["type"], event["address"], event["priority"], event["server"]))
        elif event["event"] == "selected":
            found.append((event["kind"], event["pair"]["local"], event["pair"]["remote"]))
    return found
