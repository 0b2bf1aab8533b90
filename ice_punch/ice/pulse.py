"""Notices that a path fell silent long before consent expires."""

from __future__ import annotations

from ice_punch.ice.pair import CandidatePair

QUIET_RECEIVING = 0.25
"""Seconds of silence that raise suspicion while the peer sends data."""
QUIET_SENDING = 0.5
"""The same while only this side does."""
QUIET_IDLE = 5.0
"""And while nobody sends any: with three checks that nobody answers, less than 6 s on a path of
100 ms."""
ACTIVE_FOR = 5.0
"""Seconds after the last datagram of the application in which a path counts as in use."""


class Pulse:
    """The checks that left since a pair was last heard, and that nobody has answered."""

    __slots__ = ("_began_at", "_pair", "_tried_at", "_tries", "_wait")

    def __init__(self, pair: CandidatePair, now: float) -> None:
        self._pair = pair
        self._began_at = now
        self._tries = 0
        self._tried_at = float("-inf")
        self._wait = 0.0

    @property
    def heard_at(self) -> float:
        return max(self._pair.heard_at, self._began_at)

    @property
    def tries(self) -> int:
        """How many checks have left since anything was heard."""
        return self._tries if self._tried_at > self.heard_at else 0

    def tried(self, now: float) -> None:
        """One more check has left."""
        trip = self._pair.round_trip
        before = self.tries
        if before:
            trip.missed()
        self._tries = before + 1
        self._tried_at = now
        # Once it is sure that nobody answers there is no hurry any more.
        wait = trip.timeout * 2.0 ** max(0, self._tries - trip.tries)
        self._wait = min(wait, max(QUIET_IDLE, trip.timeout))

    def next_try_at(self, sent_at: float | None, received_at: float | None) -> float:
        """When the next check is due, if nothing is heard until then."""
        heard_at = self.heard_at
        if self._tries and self._tried_at > heard_at:
            return self._tried_at + self._wait
        doubted_at = self._pair.doubted_at
        if doubted_at is not None and doubted_at > heard_at:
            return doubted_at
        return suspicious_at(heard_at, sent_at, received_at)

    @property
    def suspicious(self) -> bool:
        """Whether two checks in a row went out without an answer, or one where there is doubt."""
        return self.tries >= (1 if self._doubted else 2)

    @property
    def _doubted(self) -> bool:
        doubted_at = self._pair.doubted_at
        return doubted_at is not None and doubted_at > self.heard_at

    def silent(self, now: float) -> bool:
        """Whether so many checks went unanswered that it is no accident."""
        enough = 1 if self._doubted else self._pair.round_trip.tries
        return self.tries >= enough and now >= self._tried_at + self._wait


def suspicious_at(heard_at: float, sent_at: float | None, received_at: float | None) -> float:
    """When silence begins to mean something, by when the path was last heard and when data of the
    application was last sent and received. A stream that ended is asked after less and less."""
    for last, quiet in ((received_at, QUIET_RECEIVING), (sent_at, QUIET_SENDING)):
        if last is None:
            continue
        due = max(heard_at + quiet, 2 * heard_at - last)
        if due - last < ACTIVE_FOR:
            return due
    return heard_at + QUIET_IDLE
