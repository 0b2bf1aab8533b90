"""What the commands tell with ``--json``, one object a line, put together per peer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

TIMINGS = ("signaling", "gathering", "checks", "dtls")

Event = dict[str, Any]


def parse_event(line: str) -> Event | None:
    """The event on a line of standard error, ``None`` for a line that holds none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        return event
    return None


@dataclass(slots=True)
class PeerStory:
    """Everything one peer has told about itself so far."""

    name: str
    link: str | None = None
    local_candidates: list[Event] = field(default_factory=list)
    remote_candidates: list[Event] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    connected: Event | None = None
    selected: Event | None = None
    """The nominated pair, which may come after the first datagrams (RFC 8445 section 12.1)."""
    closed: Event | None = None
    error: str | None = None
    noise: list[str] = field(default_factory=list)
    """Lines that were no events, the latest few."""

    def feed(self, line: str) -> None:
        """Take in one line of standard error."""
        event = parse_event(line)
        if event is None:
            if line.strip():
                self.noise = [*self.noise[-9:], line.rstrip()]
            return
        match event["event"]:
            case "listening":
                self.link = text(event.get("link"))
            case "candidate" if event.get("side") == "remote":
                self.remote_candidates.append(event)
            case "candidate":
                self.local_candidates.append(event)
            case "state":
                self.states.append(text(event.get("state")))
            case "connected":
                self.connected = event
            case "selected":
                self.selected = event
            case "closed":
                self.closed = event
            case "error":
                self.error = f"{text(event.get('error'))}: {text(event.get('message'))}"

    @property
    def path(self) -> Event:
        return _object(self.connected, "path")

    @property
    def dtls(self) -> Event:
        return _object(self.connected, "dtls")

    @property
    def timings(self) -> Event:
        """Milliseconds by phase; a phase that was not told is missing."""
        told = _object(self.connected, "timings")
        return {phase: told[f"{phase}_ms"] for phase in TIMINGS if f"{phase}_ms" in told}

    @property
    def pairs(self) -> list[Event]:
        """The checks as they stood when the peers connected, the selected pair as it is."""
        told = (self.connected or {}).get("pairs")
        pairs = [p for p in told if isinstance(p, dict)] if isinstance(told, list) else []
        selected = _object(self.selected, "pair")
        return [selected if _same_pair(p, selected) else p for p in pairs]

    @property
    def nominated(self) -> bool:
        return any(pair.get("nominated") for pair in self.pairs)

    @property
    def complaint(self) -> str | None:
        """Why the peer gave up, if it has."""
        return self.error or (self.noise[-1] if self.noise else None)


def text(value: object) -> str:
    """A value of an event for people: an address may be a string or a pair."""
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ":".join(map(str, value))
    return str(value)


def milliseconds(value: object) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _same_pair(one: Event, other: Event) -> bool:
    return all(one.get(side) == other.get(side) for side in ("local", "remote"))


def _object(event: Event | None, name: str) -> Event:
    value = (event or {}).get(name)
    return value if isinstance(value, dict) else {}
