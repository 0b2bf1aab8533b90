"""How sessions enter rooms that are shared, are claimed again, and leave. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from signaling.addresses import address_key
from signaling.backends.calls import Call, Frame, Reply, key_hash
from signaling.backends.shared_hall import SharedHall
from signaling.backends.shared_member import SharedMember
from signaling.connections import Connection, Entering
from signaling.effects import Send
from signaling.greeting import Refusal, read_hello, welcome
from signaling.hooks import Authorizer, Grant, IceServerSource, Metrics
from signaling.limits import Limits
from signaling.member import Member
from signaling.messages import CloseCode, ErrorCode, Hello, IceInfo, PeerInfo, Resume, Resumed
from signaling.randomness import RandomSource, base64url
from signaling.rooms import Rooms

RETRY = 1.0
"""Seconds after which to come back when the bus is down."""


class Bus(Enum):
    DOWN = "down"
    SETTLING = "settling"
    """It has lost its memory: every process brings its sessions back before any goes on."""
    UP = "up"


class SharedEntrance(Rooms):
    """Entering and leaving; ``node`` names this process among those that share the rooms."""

    def __init__(
        self,
        node: str,
        random: RandomSource,
        limits: Limits | None = None,
        *,
        ice: IceServerSource | IceInfo | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(random, limits, ice=ice, authorizer=authorizer, metrics=metrics)
        self.node = node
        self.bus = Bus.DOWN
        self.calls: list[Call] = []
        self.elsewhere: dict[str, set[str]] = {}
        """By room: other processes that have sessions in it."""
        self.down_since: float | None = None
        self._random = random
        self._now = 0.0
        self._pending: dict[str, int] = {}
        self._early: dict[str, list[tuple[int, int, Frame]]] = {}
        self._hall: SharedHall = SharedHall(
            random, self.limits, self._send_text, self._note, ask=self._ask
        )

    # Entering

    def _greet(self, source: Connection, data: str, now: float) -> None:
        self._now = now
        hello = read_hello(data, self.limits)
        if isinstance(hello, Refusal):
            self._refuse(source, *hello)
        elif hello.resume is None:
            self._judge(source, hello, now)
        elif self.bus is Bus.UP:
            self._claim(source, hello, hello.resume)
        elif not self._resume_here(source, hello, hello.resume, now):
            self._refuse_without_bus(source)

    def _resume_here(self, source: Connection, hello: Hello, resume: Resume, now: float) -> bool:
        """Without the bus, a session whose last connection was to this process can go on."""
        member = self._hall.members.get(resume.sid)
        if member is None or (self._is_lost_for_long(now) and self.elsewhere.get(hello.room)):
            return False
        return self._resume(source, hello.room, resume, now)

    def _is_lost_for_long(self, now: float) -> bool:
        return self.down_since is not None and now - self.down_since > self.limits.resume_window

    def _refuse_without_bus(self, source: Connection) -> None:
        self._refuse_for_now(source, ErrorCode.BUSY, "the other servers are out of reach", RETRY)

    def _claim(self, source: Connection, hello: Hello, resume: Resume) -> None:
        """Ask for a session, wherever its last connection was."""
        known = self._hall.members.get(resume.sid)
        if known is not None:
            known.throttle.take(0, self._now)
            if known.throttle.abused:
                wait = known.throttle.debt
                self._refuse_for_now(source, ErrorCode.BUSY, "too many resumes", wait)
                return
        # Whatever comes before the reply is too early, as before a welcome.
        source.entering = Entering(hello, Grant(), "")
        room = hello.room
        arguments = {"sid": resume.sid, "key": key_hash(resume.key), "seq": resume.seq}
        self._pending[room] = self._pending.get(room, 0) + 1

        def done(reply: Reply, now: float) -> None:
            self._settle_pending(room)
            source.entering = None
            if reply[0] == "ok":
                self._claimed(source, resume, room, reply, now)
            elif source.number in self._connections:
                self.counters["resumes_refused"] += 1
                self._judge(source, hello, now)

        self._ask("resume", room, arguments, done=done, lost=lambda now: self._let_go(source, room))

    def _claimed(
        self, source: Connection, resume: Resume, room: str, reply: Reply, now: float
    ) -> None:
        _, id, order, rx, meta, grant, generation, frames, peers, last, seats, seen, times, left = (
            reply
        )
        member = self._hall.by_id.get(id)
        if member is not None:
            self._replace_connection(member)
        else:
            member = self._member(
                source, room, seats, id, order, resume.sid, resume.key, meta, grant
            )
            member.ice_due = now
        member.begin_again(resume.seq)
        member.acknowledged = resume.seq
        for number, *frame in frames:
            member.take(number, Frame(*frame))
        member.rx, member.seen = rx, dict(seen or {})
        member.base = member.told = member.seq
        member.generation, member.takeovers = generation, times
        member.ends_at = now + left / 1000
        member.room.last_order = max(member.room.last_order, last)
        self._know(room, [peer[4] for peer in peers])
        if source.number not in self._connections:
            member.connection = None
            self._go_away(member, now)
            return
        member.throttle.take(0, now)
        member.enter_connection(source.number)
        source.member = member
        source.throttle = member.throttle
        self.counters["replayed"] += len(frames)
        self._note(member, "resumed", "")
        self._send(source, Resumed(seq=member.seq, rx=member.rx, peers=_infos(peers)))
        for number, *frame in frames:
            self._effects.append(Send(source.number, Frame(*frame).text(number), replay=True))
        self._take_early(member)
        self._refresh_ice(member.sid, now)

    def _join(self, source: Connection, entering: Entering, ice: IceInfo, now: float) -> None:
        self._now = now
        if self.bus is not Bus.UP:
            self._refuse_without_bus(source)
            return
        hello, grant, id = entering.hello, entering.grant, entering.peer_id
        address = address_key(source.address[0])
        refusal = self._hall.refusal(hello.room, address)
        if refusal is not None:
            self._refuse_for_now(source, ErrorCode.BUSY, refusal, self.limits.seat_grace)
            return
        seats = min(
            seats
            for seats in (hello.max_peers, grant.max_peers, self.limits.peers_per_room)
            if seats is not None
        )
        sid, key = (base64url(self._random.randbytes(16)) for _ in range(2))
        packed = msgspec.json.encode(grant).decode("utf-8")
        arguments = {
            "id": id,
            "sid": sid,
            "key": key_hash(key),
            "meta": hello.meta,
            "meta_json": msgspec.json.encode(hello.meta).decode("utf-8") if hello.meta else "",
            "grant": packed,
            "seats": seats,
            "grace": int(self.limits.seat_grace * 1000),
        }
        source.entering = entering
        room = hello.room
        self._pending[room] = self._pending.get(room, 0) + 1
        self._early[id] = []

        def done(reply: Reply, now: float) -> None:
            self._settle_pending(room)
            early = self._early.pop(id, [])
            source.entering = None
            if reply[0] == "ok":
                _, order, agreed, peers = reply
                member = self._member(source, room, agreed, id, order, sid, key, hello.meta, packed)
                self._note(member, "opened", "")
                self._know(room, [peer[4] for peer in peers])
                member.early = early
                self._entered(source, member, peers, ice, now)
            elif source.number in self._connections:
                self._turn_away(source, reply)

        def lost(now: float) -> None:
            self._early.pop(id, None)
            self._let_go(source, room)

        self._ask("enter", room, arguments, done=done, lost=lost)

    def _entered(
        self,
        source: Connection,
        member: SharedMember,
        peers: list[Any],
        ice: IceInfo,
        now: float,
    ) -> None:
        if source.number not in self._connections:
            self._hall.end(member, "left")
            return
        member.connection = source.number
        member.ends_at = now + self.limits.session_lifetime
        source.member = member
        told = welcome(member, _infos(peers), self.limits, ice, address=source.address)
        self._send(source, told)
        self._plan_ice(member, ice, now)
        self._take_early(member)

    def _turn_away(self, source: Connection, reply: Reply) -> None:
        if reply[0] == "full":
            text = f"the room is full: all {reply[1]} seats are taken"
            self._refuse(source, ErrorCode.ROOM_FULL, CloseCode.ROOM_FULL, text)
        elif reply[0] == "closed":
            self._refuse_closed(source)
        else:
            text = "the room is full: a seat is kept for a peer that lost its connection"
            self._refuse_for_now(source, ErrorCode.ROOM_FULL, text, reply[1] / 1000)

    def _member(
        self,
        source: Connection,
        room: str,
        seats: int,
        id: str,
        order: int,
        sid: str,
        key: str,
        meta: str,
        grant: str,
    ) -> SharedMember:
        home = self._hall.room(room, seats)
        last, home.last_order = max(home.last_order, order), order - 1
        member = SharedMember(
            home,
            id=id,
            grant=msgspec.json.decode(grant, type=Grant),
            sid=sid,
            key=key,
            meta=meta,
            address=address_key(source.address[0]),
            connection=source.number,
            throttle=source.throttle,
            limits=self.limits,
        )
        home.last_order = last
        member.on_acknowledged = self._acknowledged
        self._hall.adopt(member)
        return member

    def _let_go(self, source: Connection, room: str) -> None:
        self._settle_pending(room)
        source.entering = None
        if source.number in self._connections:
            self._refuse_without_bus(source)

    def _settle_pending(self, room: str) -> None:
        self._pending[room] -= 1
        if not self._pending[room]:
            del self._pending[room]

    def _know(self, room: str, nodes: list[str]) -> None:
        others = {node for node in nodes if node != self.node}
        if others:
            self.elsewhere[room] = self.elsewhere.get(room, set()) | others
        elif room not in self._hall.rooms:
            self.elsewhere.pop(room, None)

    # Leaving

    def _go_away(self, member: Member, now: float) -> None:
        super()._go_away(member, now)
        if self._draining and self.bus is Bus.UP:
            self._ask("away", member.room.name, {"id": member.id, "quiet": 1})

    def _part(self, member: SharedMember, reason: str) -> None:
        """The session is over, as others say; whoever is still connected comes back anew."""
        source = self._connection_of(member)
        if source is not None:
            self._forget(source, CloseCode.BUS_LOST, "the session was lost")
        self._hall.drop(member, reason)

    def _connection_of(self, member: Member) -> Connection | None:
        return None if member.connection is None else self._connections.get(member.connection)

    def _take_early(self, member: SharedMember) -> None:
        """Take the frames that came before the session could."""
        raise NotImplementedError

    def _acknowledged(self, member: SharedMember) -> None:
        """Tell the script what need not be kept, and what has come as far as here."""
        if self.bus is Bus.UP and not member.syncing:
            member.told = member.seq
            arguments = {"id": member.id, "seq": member.acknowledged, "taken": member.seq}
            self._ask("ack", member.room.name, arguments)

    # The bus

    def _ask(
        self,
        operation: str,
        room: str,
        arguments: dict[str, Any],
        *,
        done: Callable[[Reply, float], None] = lambda reply, now: None,
        lost: Callable[[float], None] = lambda now: None,
    ) -> None:
        self.calls.append(Call(operation, room, arguments, done, lost))


def _infos(peers: list[Any]) -> list[PeerInfo]:
    return [
        PeerInfo(id=id, order=order, meta=meta, away=away) for id, order, meta, away, _ in peers
    ]
