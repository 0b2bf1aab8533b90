"""The rooms themselves: seats, members and what members hear of each other. Sans-IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from signaling.hooks import Grant
from signaling.limits import Limits
from signaling.member import Member, Room
from signaling.messages import (
    Error,
    ErrorCode,
    PeerInfo,
    PeerNotice,
    Relayed,
    SendSignal,
    byte_length,
    encode,
    encode_relayed,
)
from signaling.randomness import RandomSource, base64url
from signaling.throttle import Throttle

CLOSED = "closed"
"""Why a session ended that closed its room with it."""


class Hall:
    """All rooms and all sessions in them.

    ``send`` takes a connection and a text frame for it, ``note`` a member, what happened to it and
    why.
    """

    def __init__(
        self,
        random: RandomSource,
        limits: Limits,
        send: Callable[[int, str], None],
        note: Callable[[Member, str, str], None],
    ) -> None:
        self.rooms: dict[str, Room] = {}
        self.members: dict[str, Member] = {}
        self._closed: dict[str, None] = {}
        self._random = random
        self._limits = limits
        self._send = send
        self._note = note
        self._per_address: Counter[str] = Counter()

    def refusal(self, name: str, address: str) -> str | None:
        """Why nobody from ``address`` may enter the room ``name`` now, if so."""
        limits = self._limits
        if len(self.members) >= limits.sessions:
            return "the server is full"
        if name not in self.rooms and len(self.rooms) >= limits.rooms:
            return "the server has as many rooms as it can hold"
        if self._per_address[address] >= limits.sessions_per_address:
            return "too many sessions from this address"
        return None

    def enter(
        self,
        name: str,
        peer_id: str,
        grant: Grant,
        *,
        meta: str,
        address: str,
        connection: int,
        throttle: Throttle,
        max_peers: int | None,
    ) -> Member:
        """Seat a new session; the first in a room says how many seats it has.

        The caller has asked :meth:`refusal` and found a free seat, and announces the newcomer.
        """
        room = self.rooms.get(name)
        if room is None:
            cap = self._limits.peers_per_room
            room = self.rooms[name] = Room(name, min(max_peers or cap, cap))
        member = Member(
            room,
            id=peer_id if peer_id not in room.members else self.new_peer_id(),
            grant=grant,
            sid=base64url(self._random.randbytes(16)),
            key=base64url(self._random.randbytes(16)),
            meta=meta,
            address=address,
            connection=connection,
            throttle=throttle,
            limits=self._limits,
        )
        room.members[member.id] = member
        self.members[member.sid] = member
        self._per_address[address] += 1
        self._note(member, "opened", "")
        return member

    def end(self, member: Member, reason: str) -> None:
        """End a session; its peers hear ``leave``. Ending it twice does nothing."""
        if self.members.pop(member.sid, None) is None:
            return
        self._note(member, "ended", reason)
        room = member.room
        del room.members[member.id]
        room.closing |= reason == CLOSED
        for other in room.members.values():
            other.candidates.pop(member.id, None)
        self._per_address[member.address] -= 1
        if not self._per_address[member.address]:
            del self._per_address[member.address]
        if room.members:
            self.announce(member, "leave", reason)
        else:
            del self.rooms[room.name]
            if room.closing:
                self._remember_closed(room.name)

    def is_closed(self, name: str) -> bool:
        """Whether the room ``name`` was closed for good and nobody is left in it."""
        return name in self._closed and name not in self.rooms

    def _remember_closed(self, name: str) -> None:
        self._closed.pop(name, None)
        self._closed[name] = None
        if len(self._closed) > self._limits.closed_rooms:
            del self._closed[next(iter(self._closed))]

    def announce(
        self, member: Member, event: Literal["join", "leave", "away", "back"], reason: str = ""
    ) -> None:
        """Tell everybody else in the room what happened to ``member``."""
        notice = PeerNotice(
            seq=0,
            event=event,
            id=member.id,
            order=member.order,
            meta=member.meta if event == "join" else "",
            reason=reason,
        )
        others = [other for other in member.room.members.values() if other is not member]
        for other in others:
            self.post(other, notice)
        for other in others:
            if other.overflowed:
                self.end(other, "overflow")

    def refusal_of_signal(self, member: Member, signal: SendSignal) -> tuple[ErrorCode, str] | None:
        """Why this signal can not be relayed, if so. A candidate that can be is counted."""
        limits = self._limits
        if not member.grant.call:
            return ErrorCode.UNAUTHORIZED, "this peer may not send signals"
        target = member.room.members.get(signal.to)
        if target is None or target is member:
            return ErrorCode.PEER_UNAVAILABLE, "no such peer in this room"
        data = signal.data
        size = len(data) if data.isascii() else byte_length(data)
        if size > limits.data:
            text = f"data of {size} bytes is over the limit of {limits.data}"
            return ErrorCode.TOO_LARGE, text
        if target.connection is None and not target.can_queue(size):
            return ErrorCode.QUEUE_FULL, "the peer is away and its queue is full"
        if signal.kind == "cand" and not member.count_candidate(signal.to, signal.link, signal.gen):
            text = f"more than {limits.candidates} candidate messages in one generation"
            return ErrorCode.TOO_MANY_CANDIDATES, text
        return None

    def relay(self, member: Member, signal: SendSignal) -> Literal["delivered", "queued"]:
        """Pass on a signal that :meth:`refusal_of_signal` had nothing against."""
        target = member.room.members[signal.to]
        target.seq = seq = target.seq + 1
        text, size = encode_relayed(
            Relayed(seq, member.id, signal.link, signal.gen, signal.kind, signal.data)
        )
        target.keep(text, size)
        if target.connection is None:
            return "queued"
        self._send(target.connection, text)
        return "delivered"

    def post(self, member: Member, message: PeerNotice | Relayed | Error) -> None:
        """Number a message, keep it for replay, and send it if the member is there."""
        member.seq += 1
        text = encode(replace(message, seq=member.seq))
        member.keep(text)
        if member.connection is not None:
            self._send(member.connection, text)

    def snapshot(self, member: Member) -> list[PeerInfo]:
        """Everybody else in the member's room, at this instant."""
        return [other.info() for other in member.room.members.values() if other is not member]

    def new_peer_id(self) -> str:
        return base64url(self._random.randbytes(9))
