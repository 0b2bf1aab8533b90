"""What a process tells the bus after having been cut off from it. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from signaling.backends.calls import Reply, key_hash
from signaling.backends.shared_hall import Ask, SharedHall
from signaling.backends.shared_member import Outgoing, SharedMember


class RelayAgain(Protocol):
    def __call__(self, member: SharedMember, outgoing: Outgoing, *, quiet: bool) -> None: ...


class Reunion:
    """First every session is brought back, then what it has for others, in its order.

    A session may have gone on elsewhere without this process having heard of it; what it was given
    here meanwhile is passed on to it.
    """

    def __init__(
        self,
        hall: SharedHall,
        ask: Ask,
        part: Callable[[SharedMember, str], None],
        caught_up: Callable[[SharedMember], None],
    ) -> None:
        self._hall = hall
        self._ask = ask
        self._part = part
        self._caught_up = caught_up
        self._tokens: dict[str, str] = {}
        self._count = 0
        self._orphans: list[Outgoing] = []

    def synchronize(self, now: float, finished: Callable[[float], None] | None = None) -> None:
        """Bring back all sessions of this process. Asked twice, it does no harm."""
        members = list(self._hall.by_id.values())
        open_calls = len(members)

        def answered(now: float) -> None:
            nonlocal open_calls
            open_calls -= 1
            if open_calls == 0 and finished is not None:
                finished(now)

        for member in members:
            self._synchronize(member, now, answered)
        if not members and finished is not None:
            finished(now)

    def _synchronize(
        self, member: SharedMember, now: float, answered: Callable[[float], None]
    ) -> None:
        # An attempt keeps its name until it is answered: if it was carried out and the answer was
        # lost, the script knows the next one for the same.
        token = self._tokens.get(member.id)
        if token is None:
            self._count += 1
            token = self._tokens[member.id] = f"{member.seq}.{self._count}"
        mark = member.seq
        away = 0 if member.away_since is None else max(1, int((now - member.away_since) * 1000))
        arguments: dict[str, Any] = {
            "id": member.id,
            "sid": member.sid,
            "key": key_hash(member.key),
            "meta": member.meta,
            "grant": msgspec.json.encode(member.grant).decode("utf-8"),
            "order": member.order,
            "last_order": member.room.last_order,
            "seats": member.room.seats,
            "away": away,
            "left": int((member.ends_at - now) * 1000),
            "base": member.base,
            "seq": mark,
            "lo": member.first_kept,
            "rx": member.rx,
            "seen": member.seen,
            "frames": [[seq, *frame] for seq, frame in member.frames],
            "token": token,
            "tk": member.takeovers,
        }

        def done(reply: Reply, now: float) -> None:
            self._tokens.pop(member.id, None)
            member.syncing = max(0, member.syncing - 1)
            if member.sid in self._hall.members:
                if reply[0] == "ok":
                    member.base = member.told = mark
                    member.generation = reply[1]
                    self._caught_up(member)
                else:
                    self.leave_behind(member, now)
                    self._part(member, "gap")
            answered(now)

        member.syncing += 1
        self._ask("sync", member.room.name, arguments, done=done)

    def leave_behind(self, member: SharedMember, now: float) -> None:
        """A session is elsewhere: keep the signals that it was given only here."""
        self._orphans += [
            Outgoing(frame, member.id, now)
            for seq, frame in member.frames
            if seq > member.base and frame.n and frame.src != member.id
        ]

    def catch_up(self, now: float, relay_again: RelayAgain, *, forgotten: bool) -> None:
        """Tell what ended, and pass on what waited; what the bus may have forgotten, once more."""
        ended, self._hall.ended = self._hall.ended, []
        for room, what in ended:
            self._hall.tell_end(room, what)
        orphans, self._orphans = self._orphans, []
        for member in self._hall.by_id.values():
            if forgotten:
                for outgoing in list(member.retained):
                    relay_again(member, outgoing, quiet=True)
            waiting = member.take_outbox()
            waiting += [outgoing for outgoing in orphans if outgoing.frame.src == member.id]
            for outgoing in sorted(waiting, key=lambda outgoing: outgoing.frame.n):
                relay_again(member, outgoing, quiet=False)
