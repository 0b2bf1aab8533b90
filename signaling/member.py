"""The server's side of a session: who it is, what it was sent, what it may still claim. Sans-IO."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf

from signaling.hooks import Grant
from signaling.limits import Limits
from signaling.messages import PeerInfo, byte_length
from signaling.throttle import Throttle

CANDIDATE_LINKS = 4
"""Links to one peer whose candidates are counted."""


@dataclass(slots=True, eq=False)
class Room:
    """The peers that share a room's name, present or away, by their id."""

    name: str
    seats: int
    members: dict[str, Member] = field(default_factory=dict)
    last_order: int = 0
    closing: bool = False
    """Whether nobody may open it again once it is empty."""

    @property
    def fingerprint(self) -> str:
        """What logs call the room by: its name is the right to enter it."""
        return sha256(self.name.encode("utf-8")).hexdigest()[:8]


class Member:
    """A session in a room.

    Two counters make a resume exact: ``rx`` is the last id processed from the client, ``seq`` the
    last number given to a frame for the client. Numbered frames are kept until the client says it
    has them: the last 64 sent, and up to 64 more while it is away (``Limits.resume_messages``,
    ``resume_bytes``).
    """

    __slots__ = (
        "_kept",
        "_kept_bytes",
        "_limits",
        "_queued",
        "_queued_bytes",
        "address",
        "away_since",
        "candidates",
        "connection",
        "ends_at",
        "grant",
        "ice_asked",
        "ice_due",
        "id",
        "key",
        "meta",
        "order",
        "room",
        "rx",
        "seq",
        "sid",
        "throttle",
    )

    def __init__(
        self,
        room: Room,
        *,
        id: str,
        grant: Grant,
        sid: str,
        key: str,
        meta: str,
        address: str,
        connection: int,
        throttle: Throttle,
        limits: Limits,
    ) -> None:
        room.last_order += 1
        self.room = room
        self.order = room.last_order
        self.id = id
        self.grant = grant
        self.sid = sid
        self.key = key
        self.meta = meta
        self.address = address
        self.connection: int | None = connection
        self.throttle = throttle
        self.away_since: float | None = None
        self.ends_at = inf
        self.ice_due = inf
        self.ice_asked = -inf
        self.rx = 0
        self.seq = 0
        # Candidates sent, per addressee and link: the latest generation, its count, and what any
        # generation before it may have had.
        self.candidates: dict[str, dict[str, tuple[int, int, int]]] = {}
        self._limits = limits
        self._kept: deque[tuple[int, str, int]] = deque()
        self._kept_bytes = 0
        self._queued = 0
        self._queued_bytes = 0

    def info(self) -> PeerInfo:
        return PeerInfo(
            id=self.id, order=self.order, meta=self.meta, away=self.away_since is not None
        )

    @property
    def kept_bytes(self) -> int:
        return self._kept_bytes

    def can_queue(self, size: int) -> bool:
        """Whether a signal of about ``size`` bytes still fits what is kept for an absent peer."""
        return (
            self._queued < self._limits.resume_messages
            and self._queued_bytes + size <= self._limits.resume_bytes
        )

    @property
    def overflowed(self) -> bool:
        """Whether so much was queued, notices included, that an exact resume is given up."""
        return self._queued > 2 * self._limits.resume_messages

    def keep(self, text: str, size: int | None = None) -> None:
        """Keep the frame numbered ``seq``, of ``size`` bytes, for replay."""
        if size is None:
            size = byte_length(text)
        kept = self._kept
        kept.append((self.seq, text, size))
        self._kept_bytes = total = self._kept_bytes + size
        if self.connection is None:
            self._queued += 1
            self._queued_bytes += size
        elif len(kept) > self._limits.resume_messages or total > self._limits.resume_bytes:
            self._trim()

    def acknowledge(self, seq: int) -> None:
        """Forget the frames up to ``seq``."""
        while self._kept and self._kept[0][0] <= seq:
            self._drop_oldest()

    def replay(self, seq: int) -> list[str] | None:
        """The frames after ``seq``, or ``None`` if one of them is no longer kept or never was."""
        first = self._kept[0][0] if self._kept else self.seq + 1
        if not first - 1 <= seq <= self.seq:
            return None
        self.acknowledge(seq)
        return [text for _, text, _ in self._kept]

    def leave_connection(self, now: float) -> None:
        self.connection = None
        self.away_since = now

    def enter_connection(self, connection: int) -> None:
        self.connection = connection
        self.away_since = None

    def count_candidate(self, to: str, link: str, generation: int) -> bool:
        """Count one ``cand`` signal; ``False`` when the limit of its link is reached.

        Those of older generations count together, from the most that one of them had: going back
        does not begin the count anew.
        """
        links = self.candidates.get(to)
        if links is None:
            links = self.candidates[to] = {}
        latest, count, older = links.pop(link, (generation, 0, 0))
        if generation > latest:
            latest, count, older = generation, 0, max(older, count)
        if generation == latest:
            granted = count < self._limits.candidates
            count += granted
        else:
            granted = older < self._limits.candidates
            older += granted
        links[link] = (latest, count, older)
        if len(links) > CANDIDATE_LINKS:
            del links[next(iter(links))]  # the one used least lately
        return granted

    def _trim(self) -> None:
        # What was queued during an absence is spared: its replay may be on its way right now.
        messages = self._limits.resume_messages + self._queued
        size = self._limits.resume_bytes + self._queued_bytes
        while len(self._kept) > messages or self._kept_bytes > size:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._kept_bytes -= self._kept.popleft()[2]
        self._queued = min(self._queued, len(self._kept))
        self._queued_bytes = min(self._queued_bytes, self._kept_bytes)
