"""``ice-punch replay``: a recorded session once more."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ice_punch.cli import events
from ice_punch.errors import (
    InvalidConfiguration,
    InvalidRecording,
    RecordingAltered,
    RecordingCutShort,
    RecordingVersionMismatch,
)
from ice_punch.ice import IceState
from ice_punch.recording import MAX_LINE, Recording, Replay, lines, replay

WIDE = 160
"""Columns of a picture that nobody looks at on a screen."""


@dataclass(frozen=True, slots=True)
class ReplayArguments:
    file: str
    html: str | None
    partial: bool


def run_replay(arguments: ReplayArguments, *, as_json: bool) -> int:
    """Raises InvalidConfiguration for a file that can not be read or written, InvalidRecording for
    one that can not be replayed."""
    done = _replayed(arguments)
    if as_json:
        for event in _events(done):
            sys.stdout.write(json.dumps(event) + "\n")
    else:
        _print(done)
    if arguments.html is not None:
        _write_page(done, arguments.html)
    return 0


def _replayed(arguments: ReplayArguments) -> Replay:
    file = arguments.file
    try:
        with Path(file).open(encoding="utf-8", errors="replace") as opened:
            recording = Recording.load(
                iter(lambda: opened.readline(MAX_LINE), ""), partial=arguments.partial
            )
        return replay(recording)
    except OSError as error:
        raise InvalidConfiguration(f"{file}: {error.strerror or error}") from None
    except RecordingCutShort as error:
        hint = "" if arguments.partial else "; --partial replays what there is"
        raise RecordingCutShort(f"{file}: {error}{hint}", inputs=error.inputs) from None
    except RecordingAltered as error:
        raise RecordingAltered(f"{file}: {error}", input=error.input, at=error.at) from None
    except RecordingVersionMismatch as error:
        raise RecordingVersionMismatch(f"{file}: {error}") from None
    except InvalidRecording as error:
        raise InvalidRecording(f"{file}: {error}") from None


def _events(done: Replay) -> Iterator[dict[str, Any]]:
    """What ``listen`` or ``connect`` told of the session, with the time since its first input."""
    recording, header = done.recording, done.recording.header
    yield {
        "event": "recording",
        "version": header.version,
        "package": header.package,
        "role": _role(header),
        "redacted": header.redacted,
        "started": header.started or None,
    }
    now = recording.began
    for line in recording.body:
        if isinstance(line, lines.Input):
            now = line.at
        event = events.recorded(line)
        if event is not None:
            yield {**event, "at_ms": round((now - recording.began) * 1000, 3)}
    yield events.replayed(done)


def _print(done: Replay) -> None:
    from rich.console import Console

    from ice_punch.lab.drawing import print_timeline
    from ice_punch.lab.replayed import timeline_of

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    print_timeline(console, timeline_of(done))
    for line in _summary(done):
        console.print(line, markup=False, soft_wrap=True)


def _summary(done: Replay) -> Iterator[str]:
    header, last = done.recording.header, done.recording.last
    addresses = "other addresses than the real ones" if header.redacted else "real addresses"
    yield f"{_role(header)} side, format version {header.version}, {addresses}"
    states = [event for _, event in done.states if event.state is not IceState.CLOSED]
    if states:
        yield f"{states[-1].state}: {states[-1].reason}"
    if isinstance(last, lines.Stopped):
        yield f"the recording ended before its session: {last.reason}"
    elif last is None:
        yield "the recording is cut short"
    yield f"replayed: {done.inputs} inputs, {done.outputs} outputs, all as recorded"


def _role(header: lines.Header) -> str:
    return "controlling" if header.controlling else "controlled"


def _write_page(done: Replay, path: str) -> None:
    from ice_punch.lab.page import timeline_page
    from ice_punch.lab.replayed import timeline_of

    try:
        Path(path).write_text(timeline_page(timeline_of(done)), encoding="utf-8")
    except OSError as error:
        raise InvalidConfiguration(
            f"{path} can not be written: {error.strerror or error}"
        ) from None
