"""Rooms as a state machine: who is in, who hears what, who may come back. Sans-IO.

The shell names each connection by a number, reports what happens to it with the ``on_*`` calls and
carries out the effects they return, in order. ``now`` is float seconds from any monotonic origin.
"""

from __future__ import annotations

import heapq

from signaling.connections import Connection, IceTimer
from signaling.effects import Effect, Send
from signaling.entrance import Entrance
from signaling.errors import InvalidMessage
from signaling.hall import CLOSED
from signaling.member import Member
from signaling.messages import (
    AskIce,
    CloseCode,
    Drain,
    Error,
    ErrorCode,
    Hello,
    Leave,
    Ping,
    Pong,
    ReportOutcome,
    SendSignal,
    SeqAck,
    SignalAck,
    byte_length,
    decode_client_message,
    encode_ack,
)
from signaling.throttle import Throttle


class Rooms(Entrance):
    """All rooms of one server process.

    ``random`` names sessions and makes their keys. ``authorizer`` decides who may enter, by default
    who knows a room's name of 128 bits; ``ice`` says which ICE servers a session is told of;
    ``metrics`` is where everything is counted.
    """

    @property
    def sizes(self) -> dict[str, int]:
        """How many rooms, sessions (all, and those away) and connections there are, and how many
        bytes are kept for replay."""
        members = self._hall.members.values()
        return {
            "rooms": len(self._hall.rooms),
            "sessions": len(members),
            "connections": len(self._connections),
            "away": sum(member.connection is None for member in members),
            "kept_bytes": sum(member.kept_bytes for member in members),
        }

    def on_open(
        self,
        connection: int,
        address: tuple[str, int],
        now: float,
        *,
        host: str = "",
        origin: str | None = None,
    ) -> list[Effect]:
        """A WebSocket was opened from ``address``; ``host`` is the name it asked for, ``origin``
        its ``Origin`` header."""
        throttle = Throttle(self.limits, now)
        opened = Connection(connection, address, host, origin, now, throttle)
        self._connections[connection] = opened
        self.counters["connections"] += 1
        self._set_timer(now + self.limits.hello_timeout, connection)
        return self._take_effects()

    def on_message(self, connection: int, data: str | bytes, now: float) -> list[Effect]:
        """A whole message came: ``str`` for a text frame, ``bytes`` for a binary one."""
        source = self._connections.get(connection)
        if source is None:
            return []
        source.heard_at = now
        size = len(data) if isinstance(data, bytes) or data.isascii() else byte_length(data)
        if size > self.limits.frame:
            text = f"a frame of {size} bytes is over the limit of {self.limits.frame}"
            self._refuse(source, ErrorCode.TOO_LARGE, CloseCode.TOO_BIG, text)
        elif (wait := source.throttle.take(size, now)) <= 0.0 or self._slow_down(source, wait):
            source.throttled = wait > 0.0
            if isinstance(data, bytes):
                text = "binary frame; this protocol is JSON in text frames"
                self._refuse(source, ErrorCode.BAD_JSON, CloseCode.BAD_REQUEST, text)
            elif source.member is not None:
                self._serve(source, source.member, data, now)
            elif source.entering is None:
                self._greet(source, data, now)
            else:
                text = "nothing may follow a hello before its welcome"
                self._refuse(source, ErrorCode.BAD_ORDER, CloseCode.BAD_REQUEST, text)
        return self._take_effects()

    def on_close(self, connection: int, now: float) -> list[Effect]:
        """The connection is gone, or about to be closed by the shell; its session waits."""
        source = self._connections.pop(connection, None)
        if source is not None and source.member is not None:
            self._go_away(source.member, now)
        return self._take_effects()

    def on_timer(self, now: float) -> list[Effect]:
        """The time :meth:`get_timer` named has come."""
        while self._timers and self._timers[0][0] <= now:
            _, _, owner = heapq.heappop(self._timers)
            match owner:
                case int():
                    self._check_connection(owner, now)
                case str():
                    self._check_session(owner, now)
                case IceTimer(sid=sid):
                    self._refresh_ice(sid, now)
        return self._take_effects()

    def get_timer(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def drain(self, in_s: float, jitter_s: float) -> list[Effect]:
        """Tell everybody that the server goes away in ``in_s`` seconds.

        Clients come back after a random part of ``jitter_s``; see :meth:`dismiss`.
        """
        self._draining = True
        for source in self._connections.values():
            self._send(source, Drain(in_s=in_s, jitter_s=jitter_s))
        return self._take_effects()

    def dismiss(self, connection: int) -> list[Effect]:
        """Close a connection with code 4000; its session waits for a resume."""
        source = self._connections.get(connection)
        if source is not None:
            self._forget(source, CloseCode.DRAIN, "server going away")
            if source.member is not None:
                self._go_away(source.member, source.heard_at)
        return self._take_effects()

    # Being in

    def _serve(self, source: Connection, member: Member, data: str, now: float) -> None:
        try:
            message = decode_client_message(data)
        except InvalidMessage as error:
            self._fault(source, ErrorCode(error.code), str(error))
            return
        match message:
            case SendSignal():
                self._relay(source, member, message)
            case SeqAck(seq=seq):
                member.acknowledge(seq)
            case Ping(n=n):
                self._send(source, Pong(n=n))
            case AskIce():
                self._ask_ice(source, member, now)
            case ReportOutcome(outcome=outcome, ms=ms):
                self._metrics.outcome(outcome, None if ms is None else ms / 1000)
            case Leave(close=close):
                self._forget(source, CloseCode.NORMAL, "left")
                # A guest that could close it could have a link refused whose secret it lacks.
                opened = member.order == 1
                self._hall.end(member, CLOSED if close and opened else "left")
            case Hello():
                text = "hello came twice on one connection"
                self._refuse(source, ErrorCode.BAD_ORDER, CloseCode.BAD_REQUEST, text)

    def _ask_ice(self, source: Connection, member: Member, now: float) -> None:
        wait = member.ice_asked + self.limits.ice_interval - now
        if wait > 0:
            text = "ICE servers were asked for a moment ago"
            code = ErrorCode.RATE_LIMITED
            self.counters[str(code)] += 1
            self._send(source, Error(code=code, message=text, retry_after=round(wait, 3)))
            return
        member.ice_asked = now
        self._fetch_ice(source, member.id, member.grant, now)

    def _relay(self, source: Connection, member: Member, signal: SendSignal) -> None:
        if signal.id <= member.rx:
            self.counters["duplicates"] += 1
            return
        if signal.id != member.rx + 1:
            text = f"signal {signal.id} after {member.rx}: ids count up by one"
            self._refuse(source, ErrorCode.BAD_ORDER, CloseCode.BAD_REQUEST, text)
            return
        member.rx = signal.id
        refusal = self._hall.refusal_of_signal(member, signal)
        if refusal is not None:
            code, text = refusal
            self.counters[str(code)] += 1
            if code is ErrorCode.PEER_UNAVAILABLE:
                self._send(source, SignalAck(id=signal.id, status="unavailable"))
            self._hall.post(member, Error(code=code, message=text, ref=signal.id, to=signal.to))
            return
        self.counters["relayed"] += 1
        status = self._hall.relay(member, signal)
        self._effects.append(Send(source.number, encode_ack(signal.id, status)))

    # Time

    def _check_connection(self, number: int, now: float) -> None:
        source = self._connections.get(number)
        if source is None:
            return
        if source.entering is not None:
            self._set_timer(now + self.limits.hello_timeout, number)
            return
        if source.member is None:
            text = f"no hello within {self.limits.hello_timeout:g} s"
            self._refuse(source, ErrorCode.HELLO_TIMEOUT, CloseCode.HELLO_TIMEOUT, text)
            return
        deadline = source.heard_at + self.limits.idle_timeout
        if now >= source.member.ends_at:
            self._forget(source, CloseCode.OUTLIVED, "the session has lasted its time")
            self._hall.end(source.member, "outlived")
            return
        if now < deadline:
            self._set_timer(min(deadline, source.member.ends_at), number)
            return
        self.counters["idle"] += 1
        self._forget(source, CloseCode.IDLE, "nothing heard")
        self._go_away(source.member, now)

    def _check_session(self, sid: str, now: float) -> None:
        member = self._hall.members.get(sid)
        if (
            member is not None
            and member.away_since is not None
            and now >= member.away_since + self.limits.resume_window
        ):
            self._hall.end(member, "expired")
