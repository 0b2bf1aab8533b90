"""How much a path loses: small checks while datagrams are sent, and how many are answered.

Checks of consent tell little: they are rare, and none is missed as long as the peer sends data.
Times in seconds. Sans-IO: checks are asked for, and answers told.
"""

from __future__ import annotations

FIRST_INTERVAL = 0.2
"""Between checks, while datagrams are sent, until there are as many as count."""
INTERVAL = 0.5
"""And from then on."""
PATIENCE = 1.0
"""The least that an answer is waited for."""
COUNTING = 32
"""Checks that the figure is made of, about."""


class LossMeter:
    """Counts for one path. One check is under way at a time."""

    __slots__ = ("_due", "_sent_at", "_wait", "loss", "samples")

    def __init__(self) -> None:
        self.loss = 0.0
        """The share of checks that went unanswered: the mean of the first ones, then smoothed."""
        self.samples = 0
        self._due: float | None = None
        self._sent_at: float | None = None
        self._wait = PATIENCE

    def used(self, now: float) -> None:
        """Datagrams are sent."""
        if self._due is None and self._sent_at is None:
            self._due = now + (FIRST_INTERVAL if self.samples < COUNTING else INTERVAL)

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``."""
        return self._due if self._sent_at is None else self._sent_at + self._wait

    def handle_timer(self, now: float, rtt: float | None) -> bool:
        """Whether a check must leave now; ``rtt`` is the round trip, if known."""
        due = self.get_timer()
        if due is None or now < due:
            return False
        if self._sent_at is not None:
            self._ended(1.0)
            return False
        self._due, self._sent_at = None, now
        self._wait = PATIENCE if rtt is None else max(PATIENCE, 3 * rtt)
        return True

    def answered(self) -> None:
        """The answer to a check has come; one that comes too late changes nothing."""
        if self._sent_at is not None:
            self._ended(0.0)

    def _ended(self, lost: float) -> None:
        self._sent_at = None
        self.samples += 1
        self.loss += (lost - self.loss) * max(1 / COUNTING, 1 / self.samples)
