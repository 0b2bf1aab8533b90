"""How sessions enter rooms, are claimed again, and learn of ICE servers. Sans-IO."""

from __future__ import annotations

import hmac

from signaling.addresses import address_key
from signaling.connections import Connection, Connections, Entering, IceTimer
from signaling.effects import AwaitIce, Effect, Send
from signaling.greeting import Refusal, read_hello, welcome
from signaling.hooks import Denied, Grant, IceRequest
from signaling.member import Member
from signaling.messages import (
    CloseCode,
    ErrorCode,
    FreshIce,
    Hello,
    IceInfo,
    Resume,
    Resumed,
)

ICE_REFRESH = 0.8
"""The part of the lifetime of relay credentials after which new ones are sent."""
ICE_RETRY = 10
"""The lifetime, in seconds, of having been told of no ICE servers because nobody knew any."""
_DENIALS = {
    ErrorCode.TOKEN_EXPIRED: CloseCode.TOKEN_EXPIRED,
    ErrorCode.BAD_ROOM: CloseCode.BAD_ROOM,
    ErrorCode.BUSY: CloseCode.BUSY,
}


class Entrance(Connections):
    """From ``hello`` to ``welcome`` or ``resumed``."""

    def _greet(self, source: Connection, data: str, now: float) -> None:
        hello = read_hello(data, self.limits)
        if isinstance(hello, Refusal):
            self._refuse(source, *hello)
        elif hello.resume is None or not self._resume(source, hello.room, hello.resume, now):
            self._judge(source, hello, now)

    def _judge(self, source: Connection, hello: Hello, now: float) -> None:
        grant = self._authorizer.authorize(hello, source.address[0], source.origin)
        if isinstance(grant, Denied):
            close_code = _DENIALS.get(grant.code, CloseCode.UNAUTHORIZED)
            self._refuse(source, grant.code, close_code, grant.text, retry_after=grant.retry_after)
            return
        source.entering = Entering(hello, grant, self._hall.new_peer_id())
        self._fetch_ice(source, source.entering.peer_id, grant, now)

    def _resume(self, source: Connection, room: str, resume: Resume, now: float) -> bool:
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

    def _join(self, source: Connection, entering: Entering, ice: IceInfo, now: float) -> None:
        """Seat the newcomer and show it the room, in one step: nobody misses anybody."""
        hello, grant = entering.hello, entering.grant
        address = address_key(source.address[0])
        refusal = self._hall.refusal(hello.room, address)
        if refusal is not None:
            self._refuse_for_now(source, ErrorCode.BUSY, refusal, self.limits.seat_grace)
            return
        if self._hall.is_closed(hello.room):
            self._refuse_closed(source)
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

    def _refuse_closed(self, source: Connection) -> None:
        text = "the room was closed for good: its link is used up"
        self._refuse(source, ErrorCode.ROOM_CLOSED, CloseCode.ROOM_CLOSED, text)

    def _find_seat(self, source: Connection, name: str, now: float) -> bool:
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

    # ICE servers

    def on_ice_servers(self, connection: int, ice: IceInfo | None, now: float) -> list[Effect]:
        """What an :class:`AwaitIce` came to; ``None`` if there was no answer."""
        source = self._connections.get(connection)
        if source is not None:
            if ice is None:
                self.counters["ice_failed"] += 1
            self._take_ice(source, ice, now)
        return self._take_effects()

    def _fetch_ice(self, source: Connection, peer_id: str, grant: Grant, now: float) -> None:
        request = IceRequest(peer_id, grant.subject, grant.relay, source.host, source.address[0])
        servers = self._ice.ice_servers(request)
        if isinstance(servers, IceInfo):
            self._take_ice(source, servers, now)
        else:
            self._effects.append(AwaitIce(source.number, servers))

    def _take_ice(self, source: Connection, ice: IceInfo | None, now: float) -> None:
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
            self._set_timer(member.ice_due, IceTimer(member.sid))

    def _refresh_ice(self, sid: str, now: float) -> None:
        member = self._hall.members.get(sid)
        if member is None or member.connection is None or now < member.ice_due:
            return  # whoever is away is given new ones when it is back
        source = self._connections[member.connection]
        member.ice_due = now + self.limits.ice_interval
        self._set_timer(member.ice_due, IceTimer(sid))
        self._fetch_ice(source, member.id, member.grant, now)
