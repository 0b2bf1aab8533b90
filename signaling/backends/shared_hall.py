"""The hall of shared rooms: what happens is told to the bus, or kept for it. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from signaling.backends.calls import Frame, frame_of
from signaling.backends.shared_member import Outgoing, SharedMember
from signaling.hall import Hall
from signaling.member import Member, Room
from signaling.messages import Error, ErrorCode, PeerNotice, Relayed, SendSignal, byte_length

Ask = Callable[..., None]
ADDRESSEES = 256
"""Peers whose candidates are counted, for each sender."""


class SharedHall(Hall):
    """The sessions of this process. ``ask`` takes an operation, a room's name and arguments.

    While :attr:`up`, the script does everything and tells everybody, this process included; while
    not, sessions of this process hear from each other directly.
    """

    def __init__(self, *arguments: Any, ask: Ask) -> None:
        super().__init__(*arguments)
        self.up = False
        self.by_id: dict[str, SharedMember] = {}
        self.ended: list[tuple[str, dict[str, Any]]] = []
        """Sessions whose end the bus has to be told of: the room, and what to tell."""
        self._ask = ask
        self._silent = False

    def adopt(self, member: SharedMember) -> None:
        """Seat a session that the script has seated."""
        room = member.room
        self.rooms[room.name] = room
        room.members[member.id] = member
        self.members[member.sid] = member
        self.by_id[member.id] = member
        self._per_address[member.address] += 1

    def room(self, name: str, seats: int) -> Room:
        return self.rooms.get(name) or Room(name, seats)

    def drop(self, member: Member, reason: str) -> None:
        """Forget a session that goes on elsewhere, or has ended there."""
        self._silent = True
        try:
            super().end(member, reason)
        finally:
            self._silent = False
            self.by_id.pop(member.id, None)

    def end(self, member: Member, reason: str) -> None:
        if member.sid not in self.members:
            return
        if self.up:
            self.drop(member, reason)
            self.tell_end(member.room.name, {"id": member.id, "reason": reason, "told": 0})
            return
        self.ended.append((member.room.name, {"id": member.id, "reason": reason, "told": 1}))
        super().end(member, reason)
        self.by_id.pop(member.id, None)

    def tell_end(self, room: str, what: dict[str, Any]) -> None:
        self._ask("end", room, what, lost=lambda now: self.ended.append((room, what)))

    def announce(
        self, member: Member, event: Literal["join", "leave", "away", "back"], reason: str = ""
    ) -> None:
        if self._silent:
            return
        if not self.up:
            super().announce(member, event, reason)
        elif event == "away":
            self._ask("away", member.room.name, {"id": member.id, "quiet": 0})

    def post(self, member: Member, message: PeerNotice | Relayed | Error) -> None:
        assert isinstance(member, SharedMember)
        frame = frame_of(message)
        if isinstance(message, Error) and message.ref is not None:
            frame = frame._replace(src=member.id, n=message.ref)
        if self.up:
            arguments = {"id": member.id, "n": frame.n, "head": frame.head, "tail": frame.tail}
            self._ask(
                "post", member.room.name, arguments, lost=lambda now: self.number(member, frame)
            )
        else:
            self.number(member, frame)

    def number(self, member: SharedMember, frame: Frame) -> None:
        """Give a frame its number here, unless it was taken already."""
        if member.sid in self.members and (not frame.n or member.seen.get(frame.src, 0) < frame.n):
            self.deliver(member, member.seq + 1, frame)

    def deliver(self, member: SharedMember, seq: int, frame: Frame) -> None:
        text = member.take(seq, frame)
        if member.connection is not None:
            self._send(member.connection, text)

    def refusal_here(self, member: Member, signal: SendSignal) -> tuple[ErrorCode, str] | None:
        """What can be held against a signal without knowing its addressee."""
        limits = self._limits
        if not member.grant.call:
            return ErrorCode.UNAUTHORIZED, "this peer may not send signals"
        if signal.to == member.id:
            return ErrorCode.PEER_UNAVAILABLE, "no such peer in this room"
        size = byte_length(signal.data)
        if size > limits.data:
            text = f"data of {size} bytes is over the limit of {limits.data}"
            return ErrorCode.TOO_LARGE, text
        if signal.kind == "cand":
            counted = member.candidates
            if signal.to not in counted and len(counted) >= ADDRESSEES:
                del counted[next(iter(counted))]  # names can be made up
            if not member.count_candidate(signal.to, signal.link, signal.gen):
                text = f"more than {limits.candidates} candidate messages in one generation"
                return ErrorCode.TOO_MANY_CANDIDATES, text
        return None

    def relay_here(
        self, member: SharedMember, signal: SendSignal, frame: Frame, now: float
    ) -> Literal["delivered", "queued", "full"]:
        """Pass a signal on without the bus: to a session of this process, or to the outbox."""
        target = self.by_id.get(signal.to)
        size = byte_length(signal.data)
        if target is None or target.room is not member.room:
            if not member.can_wait(size):
                return "full"
            member.put_out(Outgoing(frame, signal.to, now))
            return "queued"
        if target.connection is None and not target.can_queue(size):
            return "full"
        self.number(target, frame)
        return "delivered" if target.connection is not None else "queued"
