"""Whose turn it is to offer, which generation counts, when a candidate may be used. Sans-IO.

Of two peers the one with the larger room order makes every offer, the first and that of every
restart; the other asks with ``restart``. So two offers never cross. Candidates wait until the
description with their ufrag is set, and those of an older generation are dropped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from signaling.limits import GENERATION_MAX

MAX_WAITING = 128
"""Candidates, or fragments of them, that wait for their description."""
MAX_WAIT = 15.0
"""Seconds that one waits."""
RESTART_INTERVAL = 1.0
"""Seconds between two restarts."""

ANSWER_WITHIN = 20.0
"""Seconds after which an offer without an answer may be followed by another one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MakeOffer:
    """Describe yourself anew and send an ``offer`` of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class AskForOffer:
    """Send a ``restart`` of this generation: the one that is wanted."""

    generation: int


class _Waiting(NamedTuple, Generic[T]):
    until: float
    generation: int
    ufrag: str
    candidates: T


class Negotiation(Generic[T]):
    """One link between two peers. ``T`` is what a ``cand`` signal holds.

    ``offers`` says whether our order in the room is the larger one. ``now`` is float seconds from
    any monotonic origin.
    """

    def __init__(self, *, offers: bool, max_waiting: int = MAX_WAITING) -> None:
        self.offers = offers
        self._max_waiting = max_waiting
        self.generation = -1
        """The last one offered, by us or to us; -1 before the first offer."""
        self.dropped = 0
        """Candidates and descriptions that were too old, too early for too long, or too many."""
        self._answered = False
        self._asked_at: float | None = None
        self._offered_at: float | None = None
        self._described: tuple[int, str] = (-1, "")
        self._waiting: deque[_Waiting[T]] = deque()

    @property
    def settled(self) -> bool:
        """Whether the last offer has its answer."""
        return self._answered

    # What we want

    def begin(self, now: float) -> MakeOffer | AskForOffer:
        """The first step of an attempt of ours."""
        if self.generation >= 0:
            raise ValueError("the attempt has begun already")
        return self._next_step(None)

    def restart(self, now: float) -> MakeOffer | AskForOffer | None:
        """ICE is to restart: what to send. ``None``: a restart is under way, and has been for less
        than 20 s, or began less than 1 s ago."""
        if not self._may_restart(now):
            return None
        return self._next_step(now)

    def answered(self) -> None:
        """We sent the answer to the offer last taken."""
        self._answered = True

    # What the peer says

    def receive_restart(self, generation: int, now: float) -> MakeOffer | None:
        """The peer asks for an offer. ``None``: not our turn, or there is one already."""
        if not self.offers or generation <= self.generation:
            return None
        if self.generation >= 0 and not self._may_restart(now):
            self.dropped += 1
            return None
        step = self._next_step(now)
        return step if isinstance(step, MakeOffer) else None

    def receive_offer(self, generation: int) -> bool:
        """Whether this offer is to be taken: it is the peer's turn, and it is newer."""
        if self.offers or generation <= self.generation:
            self.dropped += 1
            return False
        self.generation = generation
        self._answered = False
        self._asked_at = None
        return True

    def receive_answer(self, generation: int) -> bool:
        """Whether this answer is to be taken: it is the first to our last offer."""
        if not self.offers or generation != self.generation or self._answered:
            self.dropped += 1
            return False
        self._answered = True
        return True

    def receive_candidates(
        self, generation: int, ufrag: str, candidates: T, now: float
    ) -> T | None:
        """``candidates``, if they are to be used now. Those that come early wait."""
        if (generation, ufrag) == self._described:
            return candidates
        if generation < self.generation or generation <= self._described[0]:
            self.dropped += 1
            return None
        self._forget_old(now)
        if len(self._waiting) >= self._max_waiting:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(_Waiting(now + MAX_WAIT, generation, ufrag, candidates))
        return None

    def description_set(self, generation: int, ufrag: str, now: float) -> list[T]:
        """The peer's description was set: the candidates that waited for it, in order."""
        self._described = (generation, ufrag)
        self._forget_old(now)
        due, later = [], deque[_Waiting[T]]()
        for waiting in self._waiting:
            if (waiting.generation, waiting.ufrag) == self._described:
                due.append(waiting.candidates)
            elif waiting.generation > generation:
                later.append(waiting)
            else:
                self.dropped += 1
        self._waiting = later
        return due

    # Inside

    def _may_restart(self, now: float) -> bool:
        if self.generation >= GENERATION_MAX:
            return False
        if not self._answered:
            return self._offered_at is not None and now >= self._offered_at + ANSWER_WITHIN
        return self._asked_at is None or now >= self._asked_at + RESTART_INTERVAL

    def _next_step(self, now: float | None) -> MakeOffer | AskForOffer:
        self._asked_at = now
        if not self.offers:
            return AskForOffer(self.generation + 1)
        self.generation += 1
        self._answered = False
        self._offered_at = now
        return MakeOffer(self.generation)

    def _forget_old(self, now: float) -> None:
        while self._waiting and self._waiting[0].until <= now:
            self._waiting.popleft()
            self.dropped += 1
