"""What the answers to checks tell of a pair: how long a round trip takes, how many are lost."""

from __future__ import annotations

import math

FIRST_TIMEOUT = 0.5
"""Seconds, RFC 8445 section 14.3, as long as no round trip is known."""
SHORTEST_TIMEOUT = 0.2
LONGEST_TIMEOUT = 3.0
LOSS_WEIGHT = 1 / 16
FALSE_ALARM = 0.001
"""How likely it may be that a path is taken for silent only because answers were lost."""
FEWEST_TRIES = 3
MOST_TRIES = 12


class RoundTrip:
    """The round trips of one pair, smoothed as RFC 6298 section 2 has it. Times in seconds."""

    __slots__ = ("latest", "loss", "minimum", "samples", "smoothed", "variance")

    def __init__(self) -> None:
        self.latest: float | None = None
        self.minimum: float | None = None
        self.smoothed: float | None = None
        self.variance = 0.0
        self.samples = 0
        self.loss = 0.0
        """The share of checks that go unanswered, 0 to 1, smoothed."""

    def answered(self, round_trip: float | None) -> None:
        """A check was answered; ``round_trip`` is None where it is ambiguous (Karn)."""
        self.loss -= self.loss * LOSS_WEIGHT
        if round_trip is None:
            return
        self.samples += 1
        self.latest = round_trip
        if self.minimum is None or round_trip < self.minimum:
            self.minimum = round_trip
        if self.smoothed is None:
            self.smoothed, self.variance = round_trip, round_trip / 2
        else:
            self.variance += (abs(self.smoothed - round_trip) - self.variance) / 4
            self.smoothed += (round_trip - self.smoothed) / 8

    def missed(self) -> None:
        """A check was not answered in time."""
        self.loss += (1 - self.loss) * LOSS_WEIGHT

    @property
    def timeout(self) -> float:
        """How long an answer is waited for before one more check is made."""
        if self.smoothed is None:
            return FIRST_TIMEOUT
        wanted = self.smoothed + 4 * self.variance
        return min(max(wanted, SHORTEST_TIMEOUT), LONGEST_TIMEOUT)

    @property
    def tries(self) -> int:
        """How many checks in a row must go unanswered before the path counts as silent."""
        if self.loss <= 0:
            return FEWEST_TRIES
        if self.loss >= 0.6:
            return MOST_TRIES
        wanted = math.ceil(math.log(FALSE_ALARM) / math.log(self.loss))
        return min(max(wanted, FEWEST_TRIES), MOST_TRIES)
