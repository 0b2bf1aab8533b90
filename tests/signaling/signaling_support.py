"""A shell around rooms in virtual time, and clients that are plain dictionaries of JSON."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

from signaling.effects import AwaitIce, Close, Effect, Note, Pause, Send
from signaling.hooks import Authorizer, IceServerSource, Metrics
from signaling.limits import Limits
from signaling.messages import IceInfo
from signaling.rooms import Rooms

ROOM = "room-0123456789abcdefgh"
OTHER_ROOM = "another-0123456789abcdefgh"


class Shell:
    """Carries out the effects of rooms into lists a test can look at."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        seed: int = 0,
        ice: IceInfo | IceServerSource | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.rooms = Rooms(
            random.Random(seed), limits, ice=ice, authorizer=authorizer, metrics=metrics
        )
        self.now = 1000.0
        self.sent: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.closed: dict[int, int] = {}
        self.pauses: dict[int, list[float]] = defaultdict(list)
        self.notes: list[Note] = []
        self.awaited: list[int] = []
        self._last = 0

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(connection=number, text=text):
                    assert number not in self.closed, "a frame after the close"
                    self.sent[number].append(json.loads(text))
                case Close(connection=number, code=code):
                    assert number not in self.closed, "closed twice"
                    self.closed[number] = int(code)
                case Pause(connection=number, seconds=seconds):
                    self.pauses[number].append(seconds)
                case AwaitIce(connection=number):
                    self.awaited.append(number)
                case Note():
                    self.notes.append(effect)

    def open(self, address: str = "198.51.100.1", host: str = "", origin: str | None = None) -> int:
        self._last += 1
        opened = self.rooms.on_open(self._last, (address, 4242), self.now, host=host, origin=origin)
        self.apply(opened)
        return self._last

    def raw(self, connection: int, data: str | bytes) -> list[dict[str, Any]]:
        """Let a frame come in; what that connection was sent because of it."""
        before = len(self.sent[connection])
        self.apply(self.rooms.on_message(connection, data, self.now))
        return self.sent[connection][before:]

    def say(self, connection: int, type: str, **fields: Any) -> list[dict[str, Any]]:
        return self.raw(connection, json.dumps({"type": type, **fields}))

    def hello(self, connection: int, room: str = ROOM, **fields: Any) -> dict[str, Any]:
        """Say hello; the first frame of the answer."""
        return self.say(connection, "hello", v=1, room=room, **fields)[0]

    def join(self, room: str = ROOM, **fields: Any) -> tuple[int, dict[str, Any]]:
        """A new connection that is let in, and its welcome."""
        connection = self.open()
        welcome = self.hello(connection, room, **fields)
        assert welcome["type"] == "welcome", welcome
        return connection, welcome

    def signal(
        self, connection: int, id: int, to: str, data: str = "payload", **fields: Any
    ) -> list[dict[str, Any]]:
        message = {"id": id, "to": to, "link": "a-link", "gen": 0, "kind": "offer", "data": data}
        return self.say(connection, "signal", **(message | fields))

    def resume(self, welcome: dict[str, Any], seq: int, room: str = ROOM, **fields: Any) -> int:
        """A new connection that claims the session of ``welcome``."""
        connection = self.open(**fields)
        claim = {"sid": welcome["sid"], "key": welcome["key"], "seq": seq}
        self.hello(connection, room, resume=claim)
        return connection

    def drop(self, connection: int) -> None:
        self.apply(self.rooms.on_close(connection, self.now))

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer on its way."""
        end = self.now + seconds
        while (at := self.rooms.get_timer()) is not None and at <= end:
            self.now = max(self.now, at)
            self.apply(self.rooms.on_timer(self.now))
        self.now = end

    def heard(self, connection: int, type: str) -> list[dict[str, Any]]:
        return [frame for frame in self.sent[connection] if frame["type"] == type]
