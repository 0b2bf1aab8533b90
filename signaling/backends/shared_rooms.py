"""Rooms that several server processes share, as one of these processes sees them. Sans-IO.

What concerns others is asked of the bus with :class:`signaling.backends.calls.Call`; the shell
carries the calls out in order and reports with :meth:`SharedRooms.on_reply`, ``on_push`` and
``on_bus_*``. Everything that concerns one connection alone is :class:`signaling.rooms.Rooms`.
"""

from __future__ import annotations

from typing import Any

from signaling.backends.calls import Call, Frame, Reply
from signaling.backends.reunion import Reunion
from signaling.backends.shared_entrance import Bus
from signaling.backends.shared_member import SharedMember
from signaling.backends.shared_relay import SharedRelay
from signaling.effects import Effect
from signaling.messages import CloseCode

TELL_EVERY = 32
"""Frames taken after which the script hears of it, if no client has acknowledged any."""

__all__ = ["Bus", "SharedRooms"]


class SharedRooms(SharedRelay):
    """What the bus reports, and the numbered frames it brings."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
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
                    self._reunion.leave_behind(member, now)
                    self._hall.drop(member, "elsewhere")
                    if self.bus is Bus.UP and self._held is None:
                        self._reunion.catch_up(now, self._relay_again, forgotten=False)
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
        held, self._held = self._held or [], None
        for member in self._hall.by_id.values():
            member.early.clear()
            member.reading, member.syncing = False, 0
        for call in [*lost, *self.take_calls()]:
            call.lost(now)
        for one in held:
            self._relay_here(*one, now)
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
        # From here on the bus is asked again; calls stand in line after these. Signals are held
        # until it is known which sessions are still here.
        self.bus = Bus.UP
        self.down_since = None
        self._hall.up = True
        self._held = []

        def reunited(now: float) -> None:
            self._reunion.catch_up(now, self._relay_again, forgotten=forgotten)
            held, self._held = self._held or [], None
            for member, signal, frame in held:
                self._relay_to(member, signal, frame)

        self._reunion.synchronize(now, reunited)
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
        here = [id for id, member in known.members.items() if member.connection is not None]
        mine = list(known.members)
        arguments = {"mine": mine, "here": here, "dead": dead, "window": window}
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
