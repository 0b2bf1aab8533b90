"""The connections of one server process: shaped, refused, forgotten, and timed. Sans-IO."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from signaling.effects import Close, Effect, Note, Pause, Send
from signaling.hall import Hall
from signaling.hooks import (
    Authorizer,
    Capabilities,
    Grant,
    IceServerSource,
    Metrics,
    SameIceServers,
    Tally,
)
from signaling.limits import Limits
from signaling.member import Member
from signaling.messages import CloseCode, Error, ErrorCode, Hello, IceInfo, ServerMessage, encode
from signaling.randomness import RandomSource
from signaling.throttle import Throttle


@dataclass(slots=True, eq=False)
class Entering:
    """A ``hello`` that was found good and waits for its ICE servers."""

    hello: Hello
    grant: Grant
    peer_id: str


@dataclass(slots=True, eq=False)
class Connection:
    number: int
    address: tuple[str, int]
    host: str
    origin: str | None
    heard_at: float
    throttle: Throttle
    member: Member | None = None
    entering: Entering | None = None
    faults: int = 0
    throttled: bool = False


class IceTimer(NamedTuple):
    sid: str


class Connections:
    """What every connection has in common, whatever its session does."""

    def __init__(
        self,
        random: RandomSource,
        limits: Limits | None = None,
        *,
        ice: IceServerSource | IceInfo | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.limits = limits if limits is not None else Limits()
        self._metrics = metrics if metrics is not None else Tally()
        self._authorizer = authorizer if authorizer is not None else Capabilities()
        if ice is None or isinstance(ice, IceInfo):
            ice = SameIceServers(ice if ice is not None else IceInfo(servers=[]))
        self._ice: IceServerSource = ice
        self._connections: dict[int, Connection] = {}
        self._timers: list[tuple[float, int, int | str | IceTimer]] = []
        self._timers_set = 0
        self._effects: list[Effect] = []
        self._draining = False
        self._hall = Hall(random, self.limits, self._send_text, self._note)

    @property
    def counters(self) -> Counter[str]:
        return self._metrics.counters

    # Refusing

    def _slow_down(self, source: Connection, wait: float) -> bool:
        """Let a sender that is over its rate wait; ``False`` if it was cut off instead."""
        if source.throttle.abused:
            text = "the flood went on although the connection was paused"
            self._refuse(source, ErrorCode.ABUSE, CloseCode.ABUSE, text)
            return False
        self.counters["throttled"] += 1
        self._effects.append(Pause(source.number, wait))
        if not source.throttled:
            source.throttled = True
            text = "over the rate; nothing is lost, but reading is paused"
            self.counters["rate_limited"] += 1
            self._send(
                source,
                Error(code=ErrorCode.RATE_LIMITED, message=text, retry_after=round(wait, 3)),
            )
        return True

    def _fault(self, source: Connection, code: ErrorCode, text: str) -> None:
        source.faults += 1
        if source.faults > self.limits.faults:
            self._refuse(source, code, CloseCode.BAD_REQUEST, text)
            return
        self.counters[str(code)] += 1
        self._send(source, Error(code=code, message=text))

    def _refuse_for_now(self, source: Connection, code: ErrorCode, text: str, wait: float) -> None:
        self._refuse(source, code, CloseCode.BUSY, text, retry_after=round(wait, 3))

    def _refuse(
        self,
        source: Connection,
        code: ErrorCode,
        close_code: CloseCode,
        text: str,
        *,
        retry_after: float | None = None,
    ) -> None:
        """Say why and close. From 4500 on that is the end of the session, too."""
        self.counters[str(code)] += 1
        self._effects.append(Note("refused", {"code": str(code), "address": source.address[0]}))
        self._send(source, Error(code=code, message=text, retry_after=retry_after, fatal=True))
        self._forget(source, close_code, str(code))
        if source.member is not None:
            if close_code >= CloseCode.BAD_REQUEST:
                self._hall.end(source.member, "refused")
            else:
                self._go_away(source.member, source.heard_at)

    # Leaving

    def _forget(self, source: Connection, code: CloseCode, reason: str) -> None:
        self._connections.pop(source.number, None)
        self._effects.append(Close(source.number, code, reason))

    def _go_away(self, member: Member, now: float) -> None:
        member.leave_connection(now)
        self._set_timer(now + self.limits.resume_window, member.sid)
        self._note(member, "away", "")
        if not self._draining:  # then everybody goes, and comes back
            self._hall.announce(member, "away")

    # Time

    def _set_timer(self, at: float, owner: int | str | IceTimer) -> None:
        self._timers_set += 1
        heapq.heappush(self._timers, (at, self._timers_set, owner))

    # Effects

    def _send(self, to: Connection, message: ServerMessage) -> None:
        self._send_text(to.number, encode(message))

    def _send_text(self, connection: int, text: str) -> None:
        self._effects.append(Send(connection, text))

    def _note(self, member: Member, event: str, reason: str) -> None:
        self.counters[f"sessions_{event}"] += 1
        fields: dict[str, str | int] = {"room": member.room.fingerprint, "peer": member.id}
        if reason:
            self.counters[f"{event}_{reason}"] += 1
            fields["reason"] = reason
        self._effects.append(Note(f"session {event}", fields))

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
