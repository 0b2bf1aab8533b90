"""The largest packet that a path carries: packetization layer path MTU discovery, RFC 8899.

Sizes are bytes of an IP packet, times seconds. Sans-IO: probes are asked for, and answers told.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_PROBES = 3
"""Of one size, without an answer, before it counts as too large (section 5.1.2)."""
PROBE_TIMER = 1.0
"""The least that an answer is waited for (section 5.1.1)."""
PMTU_RAISE_TIMER = 600.0
CONFIRMATION_TIMER = 5.0
"""Between probes of the size found, while datagrams that need it are sent."""
BASE_PLPMTU = 1280
"""What is begun with: an IPv6 packet that every path has to carry (RFC 8200 section 5)."""
MIN_PLPMTU = {4: 576, 6: 1280}
MAX_PLPMTU = 9216
"""No search goes beyond jumbo frames."""
GRANULARITY = 4
"""STUN messages, and the headers before them, are multiples of four bytes."""
SMALL = 0
"""In place of a size: a check as it is, which passes wherever anything does."""
COMMON = (
    *(576, 1024, 1152, 1280, 1340, 1380, 1400, 1420, 1440, 1452, 1460, 1472, 1480, 1492),
    *(1500, 2048, 4352, 4464, 8164, 9000),
)
"""Of links and tunnels (section 5.3.2): the search halves among these first."""


class SearchState(Enum):
    """Section 5.2."""

    BASE = "base"
    ERROR = "error"
    SEARCHING = "searching"
    SEARCH_COMPLETE = "search complete"


@dataclass(slots=True)
class _Round:
    """A probe, and a small check beside it that shows whether anything passes at all."""

    size: int
    sent_at: float
    small_answered: bool = False


class PathMtuSearch:
    """Finds the largest packet of one path, and notices when it shrinks.

    ``handle_timer`` tells the sizes of the probes to send, ``SMALL`` for one without padding, and
    ``answered`` is told which have arrived. A size counts as too large once `MAX_PROBES` probes of
    it went unanswered while the small ones beside them were answered: what an outage or random
    loss swallows says nothing about sizes.
    """

    def __init__(self, ip_version: int, ceiling: int, now: float, rtt: float | None = None) -> None:
        """``ceiling`` is what the first link takes; ``rtt`` the round trip, if known."""
        self.state = SearchState.BASE
        self._floor = MIN_PLPMTU[ip_version]
        self._ceiling = min(max(ceiling, self._floor), MAX_PLPMTU)
        self._base = min(BASE_PLPMTU, self._ceiling)
        self.mtu = self._base
        """What packets may have: shown by a probe, or assumed until the first one is answered."""
        self.confirmed = False
        self._wait = PROBE_TIMER if rtt is None else max(PROBE_TIMER, 3 * rtt)
        self._failing = self._ceiling + GRANULARITY
        """The least size known not to pass."""
        self._round: _Round | None = None
        self._target: int | None = _aligned(self.mtu)
        self._due = now
        self._strikes = 0
        self._raise_at: float | None = None
        self._confirm_at: float | None = None

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``."""
        if self._round is not None:
            return self._round.sent_at + self._wait
        if self._target is not None:
            return self._due
        raise_at, confirm_at = self._raise_at, self._confirm_at
        if raise_at is None or confirm_at is None:
            return confirm_at if raise_at is None else raise_at
        return min(raise_at, confirm_at)

    def handle_timer(self, now: float) -> tuple[int, ...]:
        """The sizes of the probes that must leave now."""
        due = self.get_timer()
        if due is None or now < due:
            return ()
        if self._round is not None:
            self._unanswered(self._round, now)
        elif self._target is None:
            if self._raise_at is not None and now >= self._raise_at:
                self._raise_at, self._failing = None, self._ceiling + GRANULARITY
                self._go_on(now)
            else:
                self._target = _aligned(self.mtu)
        if self._target is None:
            return ()
        self._confirm_at = None
        self._round = _Round(self._target, now)
        return (self._target, SMALL)

    def wants_ceiling(self, now: float) -> bool:
        """Whether the next ``handle_timer`` begins to search anew, and `set_ceiling` had better
        come before it."""
        idle = self._round is None and self._target is None
        return idle and self._raise_at is not None and now >= self._raise_at

    def set_ceiling(self, ceiling: int) -> None:
        """What the first link takes may have become more."""
        self._ceiling = min(max(ceiling, self._floor), MAX_PLPMTU)

    def answered(self, size: int, now: float) -> None:
        """A probe has arrived at the peer."""
        current = self._round
        if size == SMALL:
            if current is not None:
                current.small_answered = True
            return
        if current is not None and current.size == size:
            self._round, self._strikes = None, 0
        if size >= _aligned(self.mtu):
            self.mtu, self.confirmed = max(self.mtu, size), True
        self._failing = max(self._failing, size + GRANULARITY)
        if self._round is None:
            self._go_on(now)

    def packet_too_big(self, mtu: int, now: float, *, is_local: bool = True) -> None:
        """Nothing above ``mtu`` passes, as this host knows of a link of its own, or else as an ICMP
        message says that quotes a packet of ours (section 4.6).

        Such a message may be forged. One that says less than any link carries counts for nothing,
        one that comes while no larger probe is under way only until a probe has shown otherwise.
        """
        if not is_local and mtu < self._floor:
            return
        mtu = max(mtu, self._floor)
        if mtu >= self._failing:
            return
        probed = self._round is not None and self._round.size > mtu
        if is_local or probed:
            self._failing = _aligned(mtu) + GRANULARITY
        if probed:
            self._round, self._strikes = None, 0
        if self.mtu > mtu:
            self.mtu, self.confirmed = mtu, False
            self.state = SearchState.BASE
        if self._round is None:
            self._go_on(now)

    def used(self, size: int, now: float) -> None:
        """Packets of up to ``size`` bytes are sent: the path has to go on carrying them."""
        resting = self.state is SearchState.SEARCH_COMPLETE and self._target is None
        if resting and self._confirm_at is None and size > self._floor:
            self._confirm_at = now + CONFIRMATION_TIMER

    # -- the search ---------------------------------------------------------------------------

    def _unanswered(self, lost: _Round, now: float) -> None:
        self._round = None
        self._strikes += lost.small_answered
        if self._strikes >= MAX_PROBES:
            self._strikes = 0
            self._too_large(lost.size, now)

    def _too_large(self, size: int, now: float) -> None:
        self._failing = min(self._failing, size)
        if size <= self.mtu:
            # Section 4.3: a black hole. Back to what is most likely to pass, to be shown anew.
            if self.mtu > self._base:
                self.mtu, self.state = self._base, SearchState.BASE
            elif self.mtu > self._floor:
                self.mtu, self.state = self._floor, SearchState.ERROR
            else:
                self._rest(now)  # not even the least passes: that is no matter of sizes
                return
            self.confirmed = False
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        size = self._next_size() if self.confirmed else _aligned(self.mtu)
        if size is None:
            self._rest(now)
            return
        if self.confirmed:
            self.state = SearchState.SEARCHING
        if size != self._target:
            self._strikes = 0
        self._target, self._due = size, now

    def _rest(self, now: float) -> None:
        self.state = SearchState.SEARCH_COMPLETE
        self._target = None
        if self._raise_at is None and self.mtu < MAX_PLPMTU:
            self._raise_at = now + PMTU_RAISE_TIMER

    def _next_size(self) -> int | None:
        """The next to try between what passes and what does not; None if nothing is left."""
        low, high = _aligned(self.mtu), min(self._failing, _aligned(self._ceiling) + GRANULARITY)
        if high - low <= GRANULARITY:
            return None
        if high > self._ceiling:
            return _aligned(self._ceiling)
        between = [size for size in COMMON if low < size < high]
        if between:
            return between[len(between) // 2]
        return _aligned((low + high) // 2)


def _aligned(size: int) -> int:
    return size - size % GRANULARITY
