"""Rooms that several server processes share, as one of these processes sees them. Sans-IO.

What concerns others is asked of the bus with :class:`signaling.backends.calls.Call`; the shell
carries the calls out in order and reports with :meth:`SharedRooms.on_reply`, ``on_push`` and
``on_bus_*``. Everything that concerns one connection alone is :class:`signaling.rooms.Rooms`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from signaling.addresses import address_key
from signaling.backends.calls import Call, Frame, Reply, frame_of, key_hash
from signaling.backends.reunion import Reunion
from signaling.backends.shared_hall import SharedHall
from signaling.backends.shared_member import Outgoing, SharedMember
from signaling.effects import Effect, Send
from signaling.greeting import Refusal, read_hello, welcome
from signaling.hooks import Authorizer, Grant, IceServerSource, Metrics
from signaling.limits import Limits
from signaling.member import Member
from signaling.messages import (
    CloseCode,
    Error,
    ErrorCode,
    Hello,
    IceInfo,
    PeerInfo,
    Relayed,
    Resume,
    Resumed,
    SendSignal,
    SignalAck,
)
from signaling.randomness import RandomSource, base64url
from signaling.rooms import Rooms, _Connection, _Entering

TELL_EVERY = 32
"""Frames taken after which the script hears of it, if no client has acknowledged any."""
RETRY = 1.0
"""Seconds after which to come back when the bus is down."""
_TEXTS = {
    "unavailable": (ErrorCode.PEER_UNAVAILABLE, "no such peer in this room"),
    "queue_full": (ErrorCode.QUEUE_FULL, "the peer is away and its queue is full"),
}


class Bus(Enum):
    DOWN = "down"
    SETTLING = "settling"
    """It has lost its memory: every process brings its sessions back before any goes on."""
    UP = "up"


class SharedRooms(Rooms):
    """``node`` names this process among those that share the rooms."""

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
        self._reunion = Reunion(self._hall, self._ask, self._part, self._take_early)

    def take_calls(self) -> list[Call]:
        calls, self.calls = self.calls, []
        return calls

    # What the shell reports of the bus

    def on_reply(self, call: Call, reply: Reply, now: float) -> list[Effect]:
        self._now = now
        call.done(reply, now)
        return self._take_effects()

    def on_push(self, push: list[Any], now: float) -> list[Effect]:
        """What another process, or this one, made the script tell a session here."""
        self._now = now
        kind, id, *rest = push
        member = self._hall.by_id.get(id)
        if kind == "f":
            seq, generation, src, n, head, tail = rest
            frame = (generation, seq, Frame(src, n, head, tail))
            if id in self._early:
                self._early[id].append(frame)
            elif member is not None and self.bus is Bus.UP:
                self._take(member, *frame)
        elif member is not None:
            if kind == "t":
                if rest[0] > member.takeovers:  # else it has come back since
                    self._replace_connection(member)
                    self._hall.drop(member, "elsewhere")
            else:
                self._part(member, str(rest[0]))
        return self._take_effects()

    def room_of_notice(self, push: list[Any]) -> str | None:
        """The room in which, as a push says, somebody came or went; ``None`` if it does not."""
        member = self._hall.by_id.get(push[1])
        return None if member is None or push[0] != "f" or push[5] else member.room.name

    def on_bus_down(self, lost: list[Call], now: float) -> list[Effect]:
        """The bus is gone, and ``lost`` are the calls without a reply, in their order."""
        self._now = now
        if self.bus is not Bus.DOWN:
            self.down_since = now
        self.bus = Bus.DOWN
        self._hall.up = False
        for member in self._hall.by_id.values():
            member.early.clear()
            member.reading, member.syncing = False, 0
        for call in [*lost, *self.take_calls()]:
            call.lost(now)
        return self._take_effects()

    def on_bus_settling(self, now: float) -> list[Effect]:
        """It is back and has forgotten everything: bring it what is known here."""
        self._now = now
        self.bus = Bus.SETTLING
        self._reunion.synchronize(now)
        return self._take_effects()

    def on_bus_up(self, now: float, *, forgotten: bool) -> list[Effect]:
        """It is back, and others had the time to come back as well."""
        self._now = now
        self._reunion.synchronize(now)
        # From here on the bus is asked again; these calls stand in line after the others.
        self.bus = Bus.UP
        self.down_since = None
        self._hall.up = True
        self._reunion.catch_up(now, self._relay_again, forgotten=forgotten)
        return self._take_effects()

    def sweep(self, room: str, dead: list[str], now: float) -> None:
        """Look after a room: see whether processes and sessions in it have died."""
        if self.bus is not Bus.UP or self._pending.get(room):
            return
        known = self._hall.rooms.get(room)
        if known is None:
            self.elsewhere.pop(room, None)
            return
        window = int(self.limits.resume_window * 1000)
        arguments = {"mine": list(known.members), "dead": dead, "window": window}
        self._ask("sweep", room, arguments, done=lambda reply, now: self._swept(room, reply))

    def _swept(self, room: str, reply: Reply) -> None:
        _, nodes, numbers = reply
        self.elsewhere.pop(room, None)
        self._know(room, nodes)
        for id, seq in dict(numbers or {}).items():
            member = self._hall.by_id.get(id)
            if member is not None and member.seq < seq and not member.syncing:
                self._read(member)

    def part_with_the_lost(self, now: float) -> list[Effect]:
        """The bus is down for too long: send those away who have peers elsewhere."""
        self._now = now
        for room, nodes in list(self.elsewhere.items()):
            known = self._hall.rooms.get(room)
            if known is None or not nodes:
                continue
            for member in list(known.members.values()):
                source = self._connection_of(member)
                if source is not None:
                    self._forget(source, CloseCode.BUS_LOST, "the other servers are out of reach")
                    self._go_away(member, now)
        return self._take_effects()

    @property
    def rooms_here(self) -> list[str]:
        return list(self._hall.rooms)

    # Numbered frames

    def _take(self, member: SharedMember, generation: int, seq: int, frame: Frame) -> None:
        if member.syncing or member.reading:
            if len(member.early) < 4 * self.limits.resume_messages:
                member.early.append((generation, seq, frame))
        elif generation == member.generation and seq > member.seq:
            if seq == member.seq + 1:
                member.base = seq
                self._hall.deliver(member, seq, frame)
                if seq - member.told >= TELL_EVERY:
                    self._acknowledged(member)
            else:
                self.counters["bus_gaps"] += 1
                self._read(member)

    def _read(self, member: SharedMember) -> None:
        """Something published did not arrive: read it where it is kept."""
        if member.reading:
            return
        member.reading = True

        def done(reply: Reply, now: float) -> None:
            member.reading = False
            if reply[0] != "ok":
                self._part(member, "gap")
                return
            _, generation, frames = reply
            for seq, src, n, head, tail in frames:
                self._take(member, generation, seq, Frame(src, n, head, tail))
            self._take_early(member)

        self._ask("read", member.room.name, {"id": member.id, "after": member.seq}, done=done)

    def _take_early(self, member: SharedMember) -> None:
        early, member.early = member.early, []
        for generation, seq, frame in sorted(early, key=lambda one: one[:2]):
            self._take(member, generation, seq, frame)

    # Entering

    def _greet(self, source: _Connection, data: str, now: float) -> None:
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

    def _resume_here(self, source: _Connection, hello: Hello, resume: Resume, now: float) -> bool:
        """Without the bus, a session whose last connection was to this process can go on."""
        member = self._hall.members.get(resume.sid)
        if member is None or (self._is_lost_for_long(now) and self.elsewhere.get(hello.room)):
            return False
        return self._resume(source, hello.room, resume, now)

    def _is_lost_for_long(self, now: float) -> bool:
        return self.down_since is not None and now - self.down_since > self.limits.resume_window

    def _refuse_without_bus(self, source: _Connection) -> None:
        self._refuse_for_now(source, ErrorCode.BUSY, "the other servers are out of reach", RETRY)

    def _claim(self, source: _Connection, hello: Hello, resume: Resume) -> None:
        """Ask for a session, wherever its last connection was."""
        # Whatever comes before the reply is too early, as before a welcome.
        source.entering = _Entering(hello, Grant(), "")
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
        self, source: _Connection, resume: Resume, room: str, reply: Reply, now: float
    ) -> None:
        _, id, order, rx, meta, grant, generation, frames, peers, last, seats, seen, times = reply
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

    def _join(self, source: _Connection, entering: _Entering, ice: IceInfo, now: float) -> None:
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
        source: _Connection,
        member: SharedMember,
        peers: list[Any],
        ice: IceInfo,
        now: float,
    ) -> None:
        if source.number not in self._connections:
            self._hall.end(member, "left")
            return
        member.connection = source.number
        source.member = member
        told = welcome(member, _infos(peers), self.limits, ice, address=source.address)
        self._send(source, told)
        self._plan_ice(member, ice, now)
        self._take_early(member)

    def _turn_away(self, source: _Connection, reply: Reply) -> None:
        if reply[0] == "full":
            text = f"the room is full: all {reply[1]} seats are taken"
            self._refuse(source, ErrorCode.ROOM_FULL, CloseCode.ROOM_FULL, text)
        else:
            text = "the room is full: a seat is kept for a peer that lost its connection"
            self._refuse_for_now(source, ErrorCode.ROOM_FULL, text, reply[1] / 1000)

    def _member(
        self,
        source: _Connection,
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

    def _let_go(self, source: _Connection, room: str) -> None:
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

    # Being in

    def _relay(self, source: _Connection, member: Member, signal: SendSignal) -> None:
        assert isinstance(member, SharedMember)
        if signal.id <= member.rx:
            self.counters["duplicates"] += 1
            return
        if signal.id != member.rx + 1:
            text = f"signal {signal.id} after {member.rx}: ids count up by one"
            self._refuse(source, ErrorCode.BAD_ORDER, CloseCode.BAD_REQUEST, text)
            return
        member.rx = signal.id
        refusal = self._hall.refusal_here(member, signal)
        if refusal is not None:
            self._decline(member, signal, *refusal)
            return
        frame = frame_of(
            Relayed(
                seq=0,
                sender=member.id,
                link=signal.link,
                gen=signal.gen,
                kind=signal.kind,
                data=signal.data,
            ),
            member.id,
            signal.id,
        )
        if self.bus is not Bus.UP:
            self._relay_here(member, signal, frame, self._now)
            return
        outgoing = Outgoing(frame, signal.to, self._now)

        def done(reply: Reply, now: float) -> None:
            status = reply[0]
            if status == "gone":
                self._part(member, "gap")
            elif status in ("delivered", "queued"):
                self.counters["relayed"] += 1
                if signal.to not in self._hall.by_id:
                    member.retain(outgoing, now)
                self._acknowledge(member, signal.id, status)
            elif status in _TEXTS:
                self.counters[str(_TEXTS[status][0])] += 1
                if status == "unavailable":
                    self._acknowledge(member, signal.id, "unavailable")

        self._ask(
            "relay",
            member.room.name,
            self._relay_arguments(member, outgoing),
            done=done,
            lost=lambda now: self._relay_here(member, signal, frame, now),
        )

    def _relay_arguments(
        self, member: SharedMember, outgoing: Outgoing, *, again: bool = False, quiet: bool = False
    ) -> dict[str, Any]:
        frame = outgoing.frame
        refusals = {}
        for name, (code, text) in _TEXTS.items():
            refused = frame_of(Error(code=code, message=text, ref=frame.n, to=outgoing.to))
            refusals[name] = [refused.head, refused.tail]
        return {
            "id": member.id,
            "n": frame.n,
            "to": outgoing.to,
            "head": frame.head,
            "tail": frame.tail,
            "refusals": refusals,
            "again": int(again),
            "quiet": int(quiet),
        }

    def _relay_again(self, member: SharedMember, outgoing: Outgoing, *, quiet: bool) -> None:
        """A signal that waited for the bus, or that the bus may have forgotten."""

        def lost(now: float) -> None:
            if not quiet:
                member.put_out(outgoing)

        def done(reply: Reply, now: float) -> None:
            if not quiet and reply[0] in ("delivered", "queued"):
                self.counters["relayed"] += 1
                member.retain(outgoing, now)

        arguments = self._relay_arguments(member, outgoing, again=True, quiet=quiet)
        self._ask("relay", member.room.name, arguments, done=done, lost=lost)

    def _relay_here(
        self, member: SharedMember, signal: SendSignal, frame: Frame, now: float
    ) -> None:
        if member.sid not in self._hall.members:
            return
        status = self._hall.relay_here(member, signal, frame, now)
        if status == "full":
            self._decline(member, signal, *_TEXTS["queue_full"])
            return
        self.counters["relayed"] += 1
        self._acknowledge(member, signal.id, status)

    def _decline(
        self, member: SharedMember, signal: SendSignal, code: ErrorCode, text: str
    ) -> None:
        self.counters[str(code)] += 1
        if code is ErrorCode.PEER_UNAVAILABLE:
            self._acknowledge(member, signal.id, "unavailable")
        self._hall.post(member, Error(code=code, message=text, ref=signal.id, to=signal.to))

    def _acknowledge(self, member: Member, id: int, status: Any) -> None:
        source = self._connection_of(member)
        if source is not None:
            self._send(source, SignalAck(id=id, status=status))

    def _acknowledged(self, member: SharedMember) -> None:
        """Tell the script what need not be kept, and what has come as far as here."""
        if self.bus is Bus.UP and not member.syncing:
            member.told = member.seq
            arguments = {"id": member.id, "seq": member.acknowledged, "taken": member.seq}
            self._ask("ack", member.room.name, arguments)

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

    def _connection_of(self, member: Member) -> _Connection | None:
        return None if member.connection is None else self._connections.get(member.connection)

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
