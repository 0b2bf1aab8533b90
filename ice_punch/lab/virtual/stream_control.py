"""When a stream sends again, and how much it may have out: RFC 6298, RFC 5681 and RFC 6582."""

from __future__ import annotations

from typing import Final

from ice_punch.lab.virtual.segment import WINDOW

INITIAL_RTO: Final = 1.0
"""Seconds, RFC 6298 section 2.1."""
MINIMUM_RTO: Final = 0.2
"""Seconds. RFC 6298 section 2.4 says 1 s, kernels say this."""
MAXIMUM_RTO: Final = 60.0
RTO_AFTER_LOST_SYN: Final = 3.0
"""Seconds, RFC 6298 section 5.7."""
INITIAL_WINDOW: Final = 10
"""Segments, RFC 6928."""
DUPLICATE_ACKS: Final = 3
"""So many are taken for a loss, RFC 5681 section 3.2."""


class RetransmissionTimeout:
    """RFC 6298: the timeout, from the round trip of one segment at a time."""

    __slots__ = ("_rttvar", "_srtt", "_timed", "seconds")

    def __init__(self) -> None:
        self.seconds = INITIAL_RTO
        self._srtt: float | None = None
        self._rttvar = 0.0
        self._timed: tuple[int, float] | None = None
        # The end of the segment that is timed, and when it left.

    def sent(self, end: int, now: float) -> None:
        """Something new left, up to ``end``."""
        if self._timed is None:
            self._timed = (end, now)

    def sent_again(self, seq: int) -> None:
        """Karn (section 3): its acknowledgement would be ambiguous."""
        if self._timed is not None and seq < self._timed[0]:
            self._timed = None

    def acknowledged(self, ack: int, now: float) -> None:
        if self._timed is None or ack < self._timed[0]:
            return
        rtt, self._timed = now - self._timed[1], None
        if self._srtt is None:  # section 2.2
            self._srtt, self._rttvar = rtt, rtt / 2
        else:  # section 2.3
            self._rttvar += (abs(self._srtt - rtt) - self._rttvar) / 4
            self._srtt += (rtt - self._srtt) / 8
        self.seconds = min(max(self._srtt + 4 * self._rttvar, MINIMUM_RTO), MAXIMUM_RTO)

    def back_off(self) -> None:
        """Section 5.5."""
        self._timed = None
        self.seconds = min(self.seconds * 2, MAXIMUM_RTO)


class CongestionControl:
    """RFC 5681 with NewReno's recovery, RFC 6582. Sizes are bytes."""

    __slots__ = ("_duplicate_acks", "_mss", "_recover", "_recovering", "_threshold", "window")

    def __init__(self, mss: int, initial_sequence: int) -> None:
        self._mss = mss
        self.window = INITIAL_WINDOW * mss
        self._threshold = WINDOW
        self._duplicate_acks = 0
        self._recover = initial_sequence
        self._recovering = False

    def acknowledged(self, ack: int, newly: int) -> bool:
        """True: the segment after ``ack`` is lost too, send it again."""
        self._duplicate_acks = 0
        if not self._recovering:
            if self.window < self._threshold:
                self.window += min(newly, self._mss)
            else:
                self.window += max(self._mss * self._mss // self.window, 1)
            return False
        if ack < self._recover:  # RFC 6582 section 3.2, step 3: a partial acknowledgement
            self.window = max(self.window - newly, 0) + self._mss
            return True
        self._recovering = False
        self.window = self._threshold
        return False

    def duplicate_ack(self, una: int, sent: int) -> bool:
        """True: the first segment that is not acknowledged is lost, send it again."""
        self._duplicate_acks += 1
        if self._recovering:
            self.window += self._mss
        elif self._duplicate_acks == DUPLICATE_ACKS and una > self._recover:
            self._lost(una, sent)
            self._recovering = True
            self.window = self._threshold + DUPLICATE_ACKS * self._mss
            return True
        return False

    def timed_out(self, una: int, sent: int) -> None:
        self._lost(una, sent)
        self._recovering = False
        self._duplicate_acks = 0
        self.window = self._mss

    def syn_timed_out(self) -> None:
        """RFC 5681 section 3.1: the initial window is one segment then."""
        self.window = self._mss

    def _lost(self, una: int, sent: int) -> None:
        self._recover = sent
        self._threshold = max((sent - una) // 2, 2 * self._mss)
