"""Writes a recording, line by line, and never stands in the way of what it records."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping

from ice_punch.ice import IceState
from ice_punch.recording import lines
from ice_punch.recording.pseudonyms import TooManyPseudonyms
from ice_punch.recording.redaction import Redaction, TooManyCredentials
from ice_punch.report import Report

MAX_BYTES = 64 << 20
MAX_LINES = 1_000_000
CHECKSUM = ',"sha256":"'
"""What follows in the last line is the SHA-256 of everything before it."""


class Recorder:
    """Takes lines, makes them fit to be written, and counts them.

    Whatever goes wrong ends the recording, is told once to ``on_stopped``, and is not raised.
    """

    def __init__(
        self,
        sink: Callable[[str], object],
        *,
        salt: bytes,
        redact_addresses: bool = False,
        secrets: tuple[str, ...] = (),
        started: str = "",
        max_bytes: int = MAX_BYTES,
        max_lines: int = MAX_LINES,
        on_stopped: Callable[[str], object] | None = None,
    ) -> None:
        """``sink`` gets each line with its line break. ``salt``: 32 random bytes for this recording
        alone, from which the passwords in place of the real ones are made. ``secrets``: what no
        note may hold. ``started``: the date, for people."""
        self.open = True
        self.started = started
        self.redaction = Redaction(salt, addresses=redact_addresses, secrets=secrets)
        self.inputs = 0
        self.outputs = 0
        self._sink = sink
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._on_stopped = on_stopped
        self._bytes = 0
        self._lines = 0
        self._hash = hashlib.sha256()

    def write(self, line: lines.Line) -> None:
        """Nothing happens once the recording is over."""
        text = self._encoded(line)
        if text is None:
            return
        if self._lines >= self._max_lines:
            self._stop(f"the limit of {self._max_lines} lines was reached")
            return
        if self._bytes + len(text) + 1 > self._max_bytes:
            self._stop(f"the limit of {self._max_bytes} bytes was reached")
            return
        self._put(text + "\n")
        if isinstance(line, lines.Input):
            self.inputs += 1
        elif isinstance(line, lines.Output):
            self.outputs += 1

    def end(self, state: IceState, report: Report, counters: Counter[str]) -> None:
        """The last line. May be called again."""
        text = self._encoded(
            lines.End(
                inputs=self.inputs,
                outputs=self.outputs,
                state=state,
                report=report,
                counters=dict(counters),
            )
        )
        if text is not None:
            self._put_last(text)

    # -- inside -------------------------------------------------------------------------------

    def _encoded(self, line: lines.Line) -> str | None:
        if not self.open:
            return None
        try:
            return lines.encode(self.redaction.line(line))
        except TooManyPseudonyms:
            self._stop("there are more addresses than can be replaced")
        except TooManyCredentials:
            self._stop("there are more passwords than can be replaced")
        except Exception as error:  # a fault here must not become one of the session
            self._over(f"{type(line).__name__} can not be recorded: {error!r}")
        return None

    def _put(self, text: str) -> None:
        self._lines += 1
        self._bytes += len(text)
        self._hash.update(text.encode())
        try:
            self._sink(text)
        except Exception as error:
            self._over(getattr(error, "strerror", None) or str(error) or repr(error))

    def _put_last(self, text: str) -> None:
        text = text.removesuffix("}") + CHECKSUM
        self._hash.update(text.encode())
        self._put(f'{text}{self._hash.hexdigest()}"}}\n')
        self.open = False

    def _stop(self, reason: str) -> None:
        self._put_last(
            lines.encode(lines.Stopped(inputs=self.inputs, outputs=self.outputs, reason=reason))
        )
        self._over(reason)

    def _over(self, reason: str) -> None:
        self.open = False
        on_stopped, self._on_stopped = self._on_stopped, None
        if on_stopped is not None:
            with contextlib.suppress(Exception):
                on_stopped(reason)


def compared(counters: Mapping[str, int]) -> dict[str, int]:
    """What a replay has to count as well. Whoever drives an agent may count its data up himself."""
    of_driver = ("data_received", "data_from_strangers")
    return {name: n for name, n in counters.items() if n and name not in of_driver}
