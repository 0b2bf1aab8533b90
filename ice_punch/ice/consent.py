"""Consent freshness, RFC 7675: the peer must keep answering, or we fall silent."""

from __future__ import annotations

from ice_punch.datagram import RandomSource

CONSENT_INTERVAL = 5.0
"""Seconds between checks, randomized by 0.8 to 1.2 (section 5.1)."""
CONSENT_TIMEOUT = 30.0
"""Seconds since the last valid response after which sending stops (section 5.1)."""


class Consent:
    """The checks that keep the consent of one address. An answer to any of the last 30 s counts."""

    def __init__(
        self,
        now: float,
        random: RandomSource,
        *,
        interval: float = CONSENT_INTERVAL,
        timeout: float = CONSENT_TIMEOUT,
    ) -> None:
        self.checks_sent = 0
        self.last_sent_at = now
        self._timeout = timeout
        self._interval = interval
        self._random = random
        self._outstanding: dict[bytes, float] = {}
        self._next_check_at = now + self._jittered()
        self.latest_check_at = now + self._interval * 1.2
        """Until when the next check may wait (section 5.1)."""

    def _jittered(self) -> float:
        return self._interval * (0.8 + 0.4 * self._random.random())

    @property
    def next_check_at(self) -> float:
        return self._next_check_at

    def hurry(self, now: float) -> None:
        """Make the next check now, when no round trip is known yet."""
        self._next_check_at = now

    def check_sent(self, transaction_id: bytes, now: float) -> None:
        """A check has left, one of consent or another: any valid answer renews it."""
        oldest = now - self._timeout
        self._outstanding = {t: sent for t, sent in self._outstanding.items() if sent > oldest}
        self._outstanding[transaction_id] = now
        self.checks_sent += 1
        self.last_sent_at = now

    def schedule(self, now: float, *, rarer: float = 1.0) -> None:
        """The next check is due after the interval, times ``rarer``."""
        self._next_check_at = now + self._jittered() * rarer
        self.latest_check_at = now + self._interval * 1.2 * rarer

    def owns(self, transaction_id: bytes) -> bool:
        return transaction_id in self._outstanding

    def answered(self, transaction_id: bytes, now: float) -> float:
        """A valid response came; returns the round trip in seconds."""
        return now - self._outstanding.pop(transaction_id)
