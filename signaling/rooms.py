"""Rooms as a state machine: who is in, who hears what, who may come back. Sans-IO.

The shell names each connection by a number, reports what happens to it with the ``on_*`` calls and
carries out the effects they return, in order. ``now`` is float seconds from any monotonic origin.
"""

from __future__ import annotations

import heapq
import hmac
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from signaling.addresses import address_key
from signaling.effects import AwaitIce, Close, Effect, Note, Pause, Send
from signaling.errors import InvalidMessage
from signaling.greeting import Refusal, read_hello, welcome
from signaling.hall import Hall
from signaling.hooks import (
    Authorizer,
    Capabilities,
    Denied,
    Grant,
    IceRequest,
    IceServerSource,
    Metrics,
    SameIceServers,
    Tally,
)
from signaling.limits import Limits
from signaling.member import Member
from signaling.messages import (
    AskIce,
    CloseCode,
    Drain,
    Error,
    ErrorCode,
    FreshIce,
    Hello,
    IceInfo,
    Leave,
    Ping,
    Pong,
    ReportOutcome,
    Resume,
    Resumed,
    SendSignal,
    SeqAck,
    ServerMessage,
    SignalAck,
    byte_length,
    decode_client_message,
    encode,
)
from signaling.randomness import RandomSource
from signaling.throttle import Throttle

ICE_REFRESH = 0.8
"""The part of the lifetime of relay credentials after which new ones are sent."""
ICE_RETRY = 10
"""The lifetime, in seconds, of having been told of no ICE servers because nobody knew any."""
_DENIALS = {
    ErrorCode.TOKEN_EXPIRED: CloseCode.TOKEN_EXPIRED,
    ErrorCode.BAD_ROOM: CloseCode.BAD_ROOM,
    ErrorCode.BUSY: CloseCode.BUSY,
}


@dataclass(slots=True, eq=False)
class _Connection:
    number: int
    address: tuple[str, int]
    host: str
    origin: str | None
    heard_at: float
    throttle: Throttle
    member: Member | None = None
    entering: _Entering | None = None
    faults: int = 0
    throttled: bool = False


class _IceTimer(NamedTuple):
    sid: str


@dataclass(slots=True, eq=False)
class _Entering:
    """A ``hello`` that was found good and waits for its ICE servers."""

    hello: Hello
    grant: Grant
    peer_id: str


class Rooms:
    """All rooms of one server process.

    ``random`` names sessions and makes their keys. ``authorizer`` decides who may enter, by default
    who knows a room's name of 128 bits; ``ice`` says which ICE servers a session is told of;
    ``metrics`` is where everything is counted.
    """

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
        self._connections: dict[int, _Connection] = {}
        self._timers: list[tuple[float, int, int | str | _IceTimer]] = []
        self._timers_set = 0
        self._effects: list[Effect] = []
        self._draining = False
        self._hall = Hall(random, self.limits, self._send_text, self._note)

    @property
    def counters(self) -> Counter[str]:
        return self._metrics.counters

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
        opened = _Connection(connection, address, host, origin, now, throttle)
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
        size = len(data) if isinstance(data, bytes) else byte_length(data)
        if size > self.limits.frame:
            text = f"a frame of {size} bytes is over the limit of {self.limits.frame}"
            self._refuse(source, ErrorCode.TOO_LARGE, CloseCode.TOO_BIG, text)
        elif self._admit(source, size, now):
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
                case _IceTimer(sid=sid):
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

    # Entering

    def _greet(self, source: _Connection, data: str, now: float) -> None:
        hello = read_hello(data, self.limits)
        if isinstance(hello, Refusal):
            self._refuse(source, *hello)
        elif hello.resume is None or not self._resume(source, hello.room, hello.resume, now):
            self._judge(source, hello, now)

    def _judge(self, source: _Connection, hello: Hello, now: float) -> None:
        grant = self._authorizer.authorize(hello, source.address[0], source.origin)
        if isinstance(grant, Denied):
            close_code = _DENIALS.get(grant.code, CloseCode.UNAUTHORIZED)
            self._refuse(source, grant.code, close_code, grant.text, retry_after=grant.retry_after)
            return
        source.entering = _Entering(hello, grant, self._hall.new_peer_id())
        self._fetch_ice(source, source.entering.peer_id, grant, now)

    def _fetch_ice(self, source: _Connection, peer_id: str, grant: Grant, now: float) -> None:
        request = IceRequest(peer_id, grant.subject, grant.relay, source.host, source.address[0])
        servers = self._ice.ice_servers(request)
        if isinstance(servers, IceInfo):
            self._take_ice(source, servers, now)
        else:
            self._effects.append(AwaitIce(source.number, servers))

    def on_ice_servers(self, connection: int, ice: IceInfo | None, now: float) -> list[Effect]:
        """What an :class:`AwaitIce` came to; ``None`` if there was no answer."""
        source = self._connections.get(connection)
        if source is not None:
            if ice is None:
                self.counters["ice_failed"] += 1
            self._take_ice(source, ice, now)
        return self._take_effects()

    def _take_ice(self, source: _Connection, ice: IceInfo | None, now: float) -> None:
        member, entering = source.member, source.entering
        if entering is not None:
            source.entering = None
            self._join(source, entering, ice or IceInfo(servers=[], ttl=ICE_RETRY), now)
        elif member is not None and ice is not None:
            self._send(source, FreshIce(servers=ice.servers, ttl=ice.ttl))
            self._plan_ice(member, ice, now)

    def _plan_ice(self, member: Member, ice: IceInfo, now: float) -> None:
        if ice.ttl is not None:
            member.ice_due = now + max(1.0, ICE_REFRESH * ice.ttl)
            self._set_timer(member.ice_due, _IceTimer(member.sid))

    def _refresh_ice(self, sid: str, now: float) -> None:
        member = self._hall.members.get(sid)
        if member is None or member.connection is None or now < member.ice_due:
            return  # whoever is away is given new ones when it is back
        source = self._connections[member.connection]
        member.ice_due = now + self.limits.ice_interval
        self._set_timer(member.ice_due, _IceTimer(sid))
        self._fetch_ice(source, member.id, member.grant, now)

    def _resume(self, source: _Connection, room: str, resume: Resume, now: float) -> bool:
        """Give the session to this connection. ``False``: refused, to be welcomed afresh."""
        member = self._hall.members.get(resume.sid)
        expected = member.key if member is not None else ""
        proven = hmac.compare_digest(expected.encode("utf-8"), resume.key.encode("utf-8"))
        if member is None or not proven or member.room.name != room:
            self.counters["resumes_refused"] += 1
            return False
        frames = member.replay(resume.seq) if now < member.ends_at else None
        if frames is None:
            self.counters["resumes_refused"] += 1
            self._replace_connection(member)
            self._hall.end(member, "gap" if now < member.ends_at else "outlived")
            return False
        member.throttle.take(0, now)
        if member.throttle.abused:
            self._refuse_for_now(source, ErrorCode.BUSY, "too many resumes", member.throttle.debt)
            return True
        was_away = member.connection is None
        self._replace_connection(member)
        member.enter_connection(source.number)
        source.member = member
        source.throttle = member.throttle
        self.counters["replayed"] += len(frames)
        self._note(member, "resumed", "")
        snapshot = self._hall.snapshot(member)
        self._send(source, Resumed(seq=member.seq, rx=member.rx, peers=snapshot))
        self._effects.extend(Send(source.number, frame, replay=True) for frame in frames)
        if was_away:
            self._hall.announce(member, "back")
        self._refresh_ice(member.sid, now)
        return True

    def _replace_connection(self, member: Member) -> None:
        old = self._connections.get(member.connection) if member.connection is not None else None
        if old is not None:
            self.counters["takeovers"] += 1
            self._forget(old, CloseCode.REPLACED, "another connection took the session over")

    def _join(self, source: _Connection, entering: _Entering, ice: IceInfo, now: float) -> None:
        """Seat the newcomer and show it the room, in one step: nobody misses anybody."""
        hello, grant = entering.hello, entering.grant
        address = address_key(source.address[0])
        refusal = self._hall.refusal(hello.room, address)
        if refusal is not None:
            self._refuse_for_now(source, ErrorCode.BUSY, refusal, self.limits.seat_grace)
            return
        if not self._find_seat(source, hello.room, now):
            return
        seats = [seats for seats in (hello.max_peers, grant.max_peers) if seats is not None]
        member = self._hall.enter(
            hello.room,
            entering.peer_id,
            grant,
            meta=hello.meta,
            address=address,
            connection=source.number,
            throttle=source.throttle,
            max_peers=min(seats, default=None),
        )
        member.ends_at = now + self.limits.session_lifetime
        source.member = member
        snapshot = self._hall.snapshot(member)
        self._send(source, welcome(member, snapshot, self.limits, ice, address=source.address))
        self._plan_ice(member, ice, now)
        self._hall.announce(member, "join")

    def _find_seat(self, source: _Connection, name: str, now: float) -> bool:
        """Whether there is a seat; that of the peer longest absent is taken if need be."""
        room = self._hall.rooms.get(name)
        if room is None or len(room.members) < room.seats:
            return True
        absent = [
            (member.away_since, member.order, member)
            for member in room.members.values()
            if member.away_since is not None
        ]
        if not absent:
            text = f"the room is full: all {room.seats} seats are taken"
            self._refuse(source, ErrorCode.ROOM_FULL, CloseCode.ROOM_FULL, text)
            return False
        since, _, longest = min(absent)
        wait = since + self.limits.seat_grace - now
        if wait > 0:
            text = "the room is full: a seat is kept for a peer that lost its connection"
            self._refuse_for_now(source, ErrorCode.ROOM_FULL, text, wait)
            return False
        self._hall.end(longest, "unseated")
        return True

    # Being in

    def _serve(self, source: _Connection, member: Member, data: str, now: float) -> None:
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
            case Leave():
                self._forget(source, CloseCode.NORMAL, "left")
                self._hall.end(member, "left")
            case Hello():
                text = "hello came twice on one connection"
                self._refuse(source, ErrorCode.BAD_ORDER, CloseCode.BAD_REQUEST, text)

    def _ask_ice(self, source: _Connection, member: Member, now: float) -> None:
        wait = member.ice_asked + self.limits.ice_interval - now
        if wait > 0:
            text = "ICE servers were asked for a moment ago"
            code = ErrorCode.RATE_LIMITED
            self.counters[str(code)] += 1
            self._send(source, Error(code=code, message=text, retry_after=round(wait, 3)))
            return
        member.ice_asked = now
        self._fetch_ice(source, member.id, member.grant, now)

    def _relay(self, source: _Connection, member: Member, signal: SendSignal) -> None:
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
        self._send(source, SignalAck(id=signal.id, status=status))

    # Refusing

    def _admit(self, source: _Connection, size: int, now: float) -> bool:
        """Charge a frame to its sender; ``False`` if that was the end of its connection."""
        wait = source.throttle.take(size, now)
        if wait <= 0.0:
            source.throttled = False
            return True
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

    def _fault(self, source: _Connection, code: ErrorCode, text: str) -> None:
        source.faults += 1
        if source.faults > self.limits.faults:
            self._refuse(source, code, CloseCode.BAD_REQUEST, text)
            return
        self.counters[str(code)] += 1
        self._send(source, Error(code=code, message=text))

    def _refuse_for_now(self, source: _Connection, code: ErrorCode, text: str, wait: float) -> None:
        self._refuse(source, code, CloseCode.BUSY, text, retry_after=round(wait, 3))

    def _refuse(
        self,
        source: _Connection,
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

    def _forget(self, source: _Connection, code: CloseCode, reason: str) -> None:
        self._connections.pop(source.number, None)
        self._effects.append(Close(source.number, code, reason))

    def _go_away(self, member: Member, now: float) -> None:
        member.leave_connection(now)
        self._set_timer(now + self.limits.resume_window, member.sid)
        self._note(member, "away", "")
        if not self._draining:  # then everybody goes, and comes back
            self._hall.announce(member, "away")

    # Time

    def _set_timer(self, at: float, owner: int | str | _IceTimer) -> None:
        self._timers_set += 1
        heapq.heappush(self._timers, (at, self._timers_set, owner))

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

    # Effects

    def _send(self, to: _Connection, message: ServerMessage) -> None:
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
