"""Agents that are recorded, and what was recorded of each."""

from __future__ import annotations

from typing import Any

from ice_punch.recording import RecordedAgent, Recorder, Recording, Replay, replay

SALT = bytes(range(32))


class Tape:
    """The lines of one recording, in memory."""

    def __init__(self, **options: Any) -> None:
        self.lines: list[str] = []
        self.stopped: list[str] = []
        options = {"salt": SALT, "on_stopped": self.stopped.append, **options}
        self.recorder = Recorder(self.lines.append, **options)

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def load(self, **options: Any) -> Recording:
        return Recording.load(self.lines, **options)

    def replay(self, **options: Any) -> Replay:
        return replay(self.load(**options))


class Studio:
    """Makes recorded agents in place of others."""

    def __init__(self, **options: Any) -> None:
        self.tapes: list[Tape] = []
        self.agents: list[RecordedAgent] = []
        self._options = options
        self.redacts = bool(options.get("redact_addresses"))

    def make_agent(self, **arguments: Any) -> RecordedAgent:
        arguments.pop("pacer", None)
        tape = Tape(**self._options)
        agent = RecordedAgent(recorder=tape.recorder, **arguments)
        self.tapes.append(tape)
        self.agents.append(agent)
        return agent

    def end(self) -> None:
        for agent in self.agents:
            agent.end_recording()


SIGNATURES = (0x0008, 0x001C, 0x8028)
"""MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT."""


def unsigned(data: bytes) -> bytes:
    """A message up to what depends on a password."""
    offset = 20
    while offset < len(data):
        kind, size = (int.from_bytes(data[offset + i : offset + i + 2], "big") for i in (0, 2))
        if kind in SIGNATURES:
            break
        offset += 4 + size + -size % 4
    return data[:offset]
