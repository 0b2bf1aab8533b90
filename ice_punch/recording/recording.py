"""Reads recordings, and says in one line what is wrong with those that are none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from ice_punch.errors import (
    InvalidRecording,
    RecordingAltered,
    RecordingCutShort,
    RecordingVersionMismatch,
)
from ice_punch.recording import lines
from ice_punch.recording.recorder import CHECKSUM

_BEGINNING = '{"what":"recording"'


@dataclass(frozen=True, slots=True)
class Recording:
    """What one agent was told and drew, in order, and what came of it."""

    header: lines.Header
    body: tuple[lines.AnyLine, ...]
    """The lines between the first and the last."""
    last: lines.End | lines.Stopped | None
    """None when it is cut short."""
    intact: bool = True
    """Whether the checksum is right; of what is cut short nobody knows."""

    @classmethod
    def load(cls, texts: Iterable[str], *, partial: bool = False) -> Recording:
        """From the lines of a file, with their line breaks. ``partial``: take what is cut short.

        Raises InvalidRecording, which is RecordingVersionMismatch, RecordingCutShort or
        RecordingAltered where it is a recording at all. A line that was changed so that it still
        reads well shows when it is replayed.
        """
        reader = _Reader()
        for text in texts:
            reader.take(text)
        return reader.finish(partial=partial)

    @property
    def inputs(self) -> int:
        return sum(isinstance(line, lines.Input) for line in self.body)

    @property
    def began(self) -> float:
        """Seconds of the session's own clock: the first input."""
        return next((line.at for line in self.body if isinstance(line, lines.Input)), 0.0)


class _Reader:
    def __init__(self) -> None:
        self._number = 0
        self._header: lines.Header | None = None
        self._lines: list[lines.AnyLine] = []
        self._inputs = 0
        self._last: lines.End | lines.Stopped | None = None
        self._intact = True
        self._cut = False
        self._hash = hashlib.sha256()

    def take(self, text: str) -> None:
        self._number += 1
        bare = text.rstrip("\r\n")
        if self._cut and self._header is not None:
            raise self._altered("it is in the middle")
        if self._header is None:
            self._take_header(bare, whole=bare != text)
        elif self._last is not None:
            raise self._altered("there is more after the end")
        else:
            self._take_line(bare, whole=bare != text)

    def finish(self, *, partial: bool) -> Recording:
        if self._header is None and not self._cut:
            raise InvalidRecording("it is empty: no session had begun")
        if self._last is None and (not partial or self._header is None):
            raise RecordingCutShort(
                f"the recording is cut short after {_counted(self._inputs, 'input')}: "
                "it has no end",
                inputs=self._inputs,
            )
        assert self._header is not None
        return Recording(self._header, tuple(self._lines), self._last, self._intact)

    def _take_header(self, text: str, *, whole: bool) -> None:
        if self._cut:
            raise InvalidRecording("it is not a recording of ice-punch")
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            if not whole and _BEGINNING.startswith(text[: len(_BEGINNING)]) and text:
                self._cut = True
                return
            raise InvalidRecording("it is not a recording of ice-punch") from None
        if not isinstance(told, dict) or told.get("what") != "recording":
            raise InvalidRecording("it is not a recording of ice-punch")
        version = told.get("version")
        if version != lines.FORMAT_VERSION:
            raise RecordingVersionMismatch(
                f"the recording has format version {str(version)[:20]}, "
                f"this ice-punch reads version {lines.FORMAT_VERSION}"
            )
        try:
            header = lines.decode(text)
        except ValueError as error:
            raise self._altered(_first_line(error)) from None
        assert isinstance(header, lines.Header)
        self._header = header
        self._hash.update(text.encode("utf-8", "surrogatepass") + b"\n")

    def _take_line(self, text: str, *, whole: bool) -> None:
        before, mark, checksum = text.rpartition(CHECKSUM)
        if mark and not whole and not checksum.endswith("}"):
            self._cut = True
            return
        try:
            line = lines.decode(f"{before}}}" if mark else text)
        except ValueError as error:
            if whole:
                raise self._altered(_first_line(error)) from None
            self._cut = True
            return
        if isinstance(line, lines.Header):
            raise self._altered("a second beginning")
        if isinstance(line, lines.Last) != bool(mark):
            raise self._altered("a checksum in the wrong place")
        if isinstance(line, lines.End | lines.Stopped):
            self._last = line
            self._hash.update((before + mark).encode("utf-8", "surrogatepass"))
            self._intact = checksum == f'{self._hash.hexdigest()}"}}'
            return
        self._hash.update(text.encode("utf-8", "surrogatepass") + b"\n")
        self._lines.append(line)
        self._inputs += isinstance(line, lines.Input)

    def _altered(self, why: str) -> RecordingAltered:
        return RecordingAltered(
            f"the recording was altered: line {self._number}, after "
            f"{_counted(self._inputs, 'input')}, makes no sense ({why})",
            input=self._inputs,
        )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _first_line(error: ValueError) -> str:
    text = str(error).partition("\n")[0]
    return "".join(c if c.isprintable() else "?" for c in text)[:100]
