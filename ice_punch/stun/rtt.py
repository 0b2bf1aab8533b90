"""The retransmission timeout per server: RFC 8489 section 6.2.1, RFC 6298."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STALE_AFTER: Final = 600.0
"""Seconds without a transaction after which what is known of a server is forgotten."""
MAX_RTO: Final = 60.0
"""Seconds, RFC 6298 section 2.5."""
GRANULARITY: Final = 0.001
"""Seconds, RFC 8489 section 6.2.1."""
_MAX_SERVERS: Final = 1024


@dataclass(slots=True)
class _Estimate:
    srtt: float | None
    rttvar: float
    rto: float
    used_at: float


class RttEstimator:
    """Round trip times and timeouts of servers, told apart by IP address."""

    def __init__(self, *, initial_rto: float = 0.5, minimum_rto: float = 0.1) -> None:
        """Seconds. ``initial_rto`` is that of an unknown server; ``minimum_rto`` keeps a stall of
        a moment from exhausting the sends of a transaction with a near server."""
        self._initial_rto = initial_rto
        self._minimum_rto = minimum_rto
        self._servers: dict[str, _Estimate] = {}

    def rto(self, server: str, now: float) -> float:
        """Seconds to begin with for the next transaction with the IP address ``server``."""
        estimate = self._fresh(server, now)
        return estimate.rto if estimate else self._initial_rto

    def smoothed_rtt(self, server: str, now: float) -> float | None:
        """Seconds, SRTT of RFC 6298, or None before the first sample."""
        estimate = self._fresh(server, now)
        return estimate.srtt if estimate else None

    def record(self, server: str, rtt: float | None, sends: int, now: float) -> None:
        """A transaction was answered after ``sends`` sends.

        ``rtt`` counts only if there was one send (Karn); after more the timeout stays backed off
        (RFC 6298 section 5.5) until a transaction is answered at its first send.
        """
        estimate = self._fresh(server, now)
        if estimate is None:
            estimate = _Estimate(None, 0.0, self._initial_rto, now)
            self._servers.pop(server, None)
            while len(self._servers) >= _MAX_SERVERS:
                del self._servers[next(iter(self._servers))]
            self._servers[server] = estimate
        estimate.used_at = now
        if sends > 1:
            estimate.rto = min(estimate.rto * 2.0 ** min(sends - 1, 16), MAX_RTO)
        elif rtt is not None:
            self._sample(estimate, rtt)

    def _sample(self, estimate: _Estimate, rtt: float) -> None:
        if estimate.srtt is None:  # RFC 6298 section 2.2
            estimate.srtt = rtt
            estimate.rttvar = rtt / 2
        else:  # RFC 6298 section 2.3: alpha 1/8, beta 1/4, RTTVAR first
            estimate.rttvar += (abs(estimate.srtt - rtt) - estimate.rttvar) / 4
            estimate.srtt += (rtt - estimate.srtt) / 8
        rto = estimate.srtt + max(GRANULARITY, 4 * estimate.rttvar)
        estimate.rto = min(max(rto, self._minimum_rto), MAX_RTO)

    def _fresh(self, server: str, now: float) -> _Estimate | None:
        estimate = self._servers.get(server)
        if estimate is None or now - estimate.used_at > STALE_AFTER:
            return None
        return estimate
