"""The sending half of an SCTP association (RFC 9260 sections 6 and 7), in aiortc's class.

aiortc's own counts a loss again for every acknowledgement until the new copy has arrived, answers
each with a FORWARD TSN, waits a second for what is lost at the end, and does not look at the peer's
window. Where the peer's socket holds few datagrams, as that of aiortc does, all of these cost time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiortc import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    SCTP_MAX_BURST,
    SCTP_TSN_MODULO,
    USERDATA_MAX_LENGTH,
    DataChunk,
    SackChunk,
)

from ice_punch.webrtc.sending_timers import SendingTimers

STRIKES = 3
"""Acknowledgements of later chunks after which one is lost (RFC 9260 section 7.2.4)."""
FORWARD_AGAIN = 0.02
"""Seconds, at least, before the same FORWARD TSN is sent again."""
BURST = 16 * USERDATA_MAX_LENGTH
"""Bytes that may leave at once after a pause, and again every `PAUSE` s."""
PAUSE = 0.001
MOST_RTO = 4.0
"""Seconds: RTO.Max. A path that comes back shall not lie idle."""
_HALF = SCTP_TSN_MODULO // 2


@dataclass(slots=True)
class SendingCounters:
    """DATA chunks of ours."""

    sent: int = 0
    """For the first time."""
    sent_again: int = 0
    lost: int = 0
    """As the peer's acknowledgements say."""
    given_up: int = 0
    """Lost, and not sent again because of the channel's bound."""
    probes: int = 0
    """Sent before their time, because the peer fell silent."""
    timeouts: int = 0
    """Of T3-rtx (RFC 9260 section 6.3.3)."""


class SendingHalf(SendingTimers):
    """aiortc's association with loss recovery by order of sending, probes, and the peer's window.

    Each chunk remembers when among all transmissions it was sent last. What was sent later and is
    acknowledged counts against it, so that a copy that is lost too is noticed, and one that is
    still on its way is not taken for lost.
    """

    _fast_recovery_exit: Any
    """The last TSN that was on its way when a loss was noticed, or None."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self.sending = SendingCounters()
        self._last_order = 0
        self._peer_window: int | None = None
        self._credit = 1
        """Acknowledgements that the next one stands for."""
        self._allowance = BURST
        """Bytes that may leave before an acknowledgement or a pause."""
        self._pausing: asyncio.TimerHandle | None = None
        self._any_lost = False
        self._forwarded: tuple[int, float] | None = None
        """The FORWARD TSN that was sent last, and when."""
        self._probe_order = 0
        """What was sent before the probe, and is missing when that has arrived, is lost."""

    # -- acknowledgements -----------------------------------------------------------------------

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        ahead = (chunk.cumulative_tsn - self._last_sacked_tsn) % SCTP_TSN_MODULO
        if ahead >= _HALF:
            return
        self._last_sacked_tsn = chunk.cumulative_tsn
        self._peer_window = chunk.advertised_rwnd
        credit, self._credit = self._credit, 1
        was_full = self._flight_size >= self._cwnd
        progress, done_bytes, newest = self._acknowledge_all(chunk.cumulative_tsn)
        loss = False
        if chunk.gaps and self._sent_queue:
            more, newest = self._acknowledge_blocks(chunk.cumulative_tsn, chunk.gaps, newest)
            done_bytes += more
            if newest:
                loss = self._strike(chunk.cumulative_tsn, chunk.gaps[-1][1], newest, credit)
        elif newest >= self._probe_order > 0:
            loss = self._strike(chunk.cumulative_tsn, 0, newest, credit)
        self._adjust_window(progress and was_full, min(done_bytes, credit * USERDATA_MAX_LENGTH))
        if self._fast_recovery_exit is None:
            if loss:
                self._shrink_window(self._sent_queue[-1].tsn)
        elif (chunk.cumulative_tsn - self._fast_recovery_exit) % SCTP_TSN_MODULO < _HALF:
            self._fast_recovery_exit = None
        self._update_advanced_peer_ack_point()
        self._rarely_forward()
        if not self._sent_queue and not self._must_forward:
            self._t3_cancel()
        elif progress:
            self._t3_restart()
        if newest:
            self._probed = False
            self._expect_answer()
        self._allowance = max(self._allowance, SCTP_MAX_BURST * USERDATA_MAX_LENGTH * credit)
        await self._data_channel_flush()
        await self._transmit()

    def _acknowledge_all(self, cumulative: int) -> tuple[bool, int, int]:
        """Forget what has arrived: whether there was any, its bytes, and the latest sent of it."""
        queue, done_bytes, newest = self._sent_queue, 0, 0
        measured = False
        progress = False
        while queue and (cumulative - queue[0].tsn) % SCTP_TSN_MODULO < _HALF:
            chunk = queue.popleft()
            if not chunk._acked:
                done_bytes += chunk._book_size
                if chunk._sent_count:
                    newest = max(newest, chunk._order)
                if not measured and chunk._sent_count == 1:
                    measured = True
                    self._update_rto(time.time() - chunk._sent_time)
            progress = True
            self._flight_size_decrease(chunk)
        return progress, done_bytes, newest

    def _acknowledge_blocks(
        self, cumulative: int, gaps: Sequence[tuple[int, int]], newest: int
    ) -> tuple[int, int]:
        done_bytes = at = 0
        last = gaps[-1][1]
        for chunk in self._sent_queue:
            place = (chunk.tsn - cumulative) % SCTP_TSN_MODULO
            if place > last:
                break
            while gaps[at][1] < place:
                at += 1
            if gaps[at][0] <= place and not chunk._acked and chunk._sent_count:
                chunk._acked, chunk._retransmit = True, False
                done_bytes += chunk._book_size
                newest = max(newest, chunk._order)
                self._flight_size_decrease(chunk)
        return done_bytes, newest

    def _strike(self, cumulative: int, last: int, newest: int, credit: int) -> bool:
        """Count against what is missing, though it was sent before what has arrived now: whether
        any of it is lost."""
        weight = credit
        if 0 < self._probe_order <= newest:
            weight, last = STRIKES, SCTP_TSN_MODULO
            self._probe_order = 0
        loss = False
        for chunk in self._sent_queue:
            if (chunk.tsn - cumulative) % SCTP_TSN_MODULO > last:
                break
            if chunk._acked or chunk._abandoned or chunk._retransmit or chunk._order >= newest:
                continue
            chunk._misses += weight
            if chunk._misses >= STRIKES:
                self._lose(chunk)
                loss = True
        return loss

    def _lose(self, chunk: DataChunk) -> None:
        chunk._misses = 0
        self.sending.lost += 1
        if self._maybe_abandon(chunk):
            self.sending.given_up += 1
        else:
            chunk._retransmit = self._any_lost = True
        self._flight_size_decrease(chunk)

    # -- the congestion window (RFC 9260 section 7.2) -------------------------------------------

    def _adjust_window(self, may_grow: bool, done_bytes: int) -> None:
        if not may_grow or self._fast_recovery_exit is not None:
            return
        if self._cwnd <= self._ssthresh:
            self._cwnd += done_bytes
            return
        self._partial_bytes_acked += done_bytes
        if self._partial_bytes_acked >= self._cwnd:
            self._partial_bytes_acked -= self._cwnd
            self._cwnd += USERDATA_MAX_LENGTH

    def _shrink_window(self, until: int) -> None:
        """Once for all that is lost of what is on its way now."""
        self._ssthresh = max(self._cwnd // 2, 4 * USERDATA_MAX_LENGTH)
        self._cwnd = self._ssthresh
        self._partial_bytes_acked = 0
        self._fast_recovery_exit = until
        self._fast_recovery_transmit = True

    # -- what the peer shall not wait for (RFC 3758) --------------------------------------------

    @property
    def _must_forward(self) -> bool:
        beyond = (self._advanced_peer_ack_tsn - self._last_sacked_tsn) % SCTP_TSN_MODULO
        return 0 < beyond < _HALF

    def _update_advanced_peer_ack_point(self) -> None:
        """As aiortc does, and past what has arrived beyond a gap: one round trip for all gaps, not
        for each. Only where a peer that thinks better of it (RFC 9260 section 6.2) loses nothing
        that was promised."""
        super()._update_advanced_peer_ack_point()
        queue = self._sent_queue
        while queue and self._must_forward and queue[0]._acked:
            passed = 0
            for chunk in queue:
                if chunk._abandoned or not (chunk._acked and _is_unreliable(chunk)):
                    break
                passed += 1
            if passed == len(queue) or not queue[passed]._abandoned:
                return
            for _ in range(passed):
                self._flight_size_decrease(queue.popleft())
            super()._update_advanced_peer_ack_point()

    def _rarely_forward(self) -> None:
        """The same FORWARD TSN need not answer every acknowledgement (RFC 3758 section 3.5): the
        peer would acknowledge each."""
        chunk = self._forward_tsn_chunk
        if chunk is None:
            return
        now = self._loop.time()
        if self._forwarded is not None:
            tsn, at = self._forwarded
            if tsn == chunk.cumulative_tsn and now < at + max(self._srtt or 0.0, FORWARD_AGAIN):
                self._forward_tsn_chunk = None
                return
        self._forwarded = chunk.cumulative_tsn, now

    # -- sending --------------------------------------------------------------------------------

    async def _transmit(self) -> None:
        """Send what both windows and the bound to bursts allow (RFC 9260 section 6.1)."""
        if self._forward_tsn_chunk is not None:
            forward, self._forward_tsn_chunk = self._forward_tsn_chunk, None
            await self._send_chunk(forward)
            if self._t3_due is None:
                self._t3_start()
        window = self._cwnd
        if self._peer_window is not None:
            window = min(window, max(self._peer_window, 1))  # one chunk is always allowed
        if self._any_lost and not await self._send_lost(window):
            return
        while self._outbound_queue and self._flight_size < window:
            if self._allowance <= 0:
                self._pause()
                return
            await self._send_next()

    async def _send_lost(self, window: int) -> bool:
        """Send again what was lost, and whether all of it."""
        first = True
        for chunk in self._sent_queue:
            if chunk._retransmit:
                if self._fast_recovery_transmit:
                    self._fast_recovery_transmit = (
                        False  # RFC 9260 section 7.2.4: the first at once
                    )
                elif self._flight_size >= window:
                    return False
                elif self._allowance <= 0:
                    self._pause()
                    return False
                await self._send_again(chunk)
                if first:
                    self._t3_restart()
            first = False
        self._any_lost = False
        return True

    async def _send_again(self, chunk: Any) -> None:
        self._flight_size_increase(chunk)
        chunk._misses, chunk._retransmit = 0, False
        self.sending.sent_again += 1
        await self._put_on_its_way(chunk)

    async def _send_next(self) -> None:
        chunk: Any = self._outbound_queue.popleft()
        self._sent_queue.append(chunk)
        self._flight_size_increase(chunk)
        chunk._sent_time = time.time()
        self.sending.sent += 1
        await self._put_on_its_way(chunk)
        if self._t3_due is None:
            self._t3_start()

    async def _put_on_its_way(self, chunk: Any) -> None:
        chunk._sent_count += 1
        chunk._order = self._last_order = self._last_order + 1
        self._allowance -= chunk._book_size
        await self._send_chunk(chunk)
        if self._probe_due is None:
            self._expect_answer()

    def _pause(self) -> None:
        if self._pausing is None:
            self._pausing = self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pausing = None
        self._allowance = BURST
        self._run(self._resume())

    async def _resume(self) -> None:
        if self._association_state is not self.State.ESTABLISHED:
            return
        await self._transmit()
        await self._data_channel_flush()

    # -- silence --------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Have the peer say what has arrived: by something new, or by what was sent last."""
        if self._association_state is not self.State.ESTABLISHED or self._any_lost:
            return
        allowed = self._peer_window is None or self._flight_size < self._peer_window
        if self._outbound_queue and allowed:
            await self._send_next()
            probe = self._sent_queue[-1]
        else:
            sent = [c for c in self._sent_queue if not (c._acked or c._abandoned)]
            probe = max(sent, key=lambda chunk: chunk._order, default=None)
            if probe is None:
                return
            bound = probe._max_retransmits
            if bound is not None and probe._sent_count > bound:
                return
            order = probe._order
            await self._send_again(probe)
            probe._order = order  # whichever copy arrives, what was sent before it has or is lost
        self._probed = True
        self._probe_due = None
        self._probe_order = probe._order
        self.sending.probes += 1

    def _t3_expired(self) -> None:
        """Take all that is missing for lost, and begin again slowly (RFC 9260 section 6.3.3)."""
        self._t3_due = None
        self.sending.timeouts += 1
        for chunk in self._sent_queue:
            if not chunk._acked:
                if not self._maybe_abandon(chunk):
                    chunk._retransmit = self._any_lost = True
                self._flight_size_decrease(chunk)
        self._forwarded = None
        self._update_advanced_peer_ack_point()
        self._probed, self._probe_order = False, 0
        self._fast_recovery_exit = None
        self._fast_recovery_transmit = False
        self._partial_bytes_acked = 0
        self._ssthresh = max(self._cwnd // 2, 4 * USERDATA_MAX_LENGTH)
        self._cwnd = USERDATA_MAX_LENGTH
        self._rto = min(2 * self._rto, MOST_RTO)
        self._allowance = BURST
        self._run(self._resume())


def _is_unreliable(chunk: Any) -> bool:
    return chunk._max_retransmits is not None or chunk._expiry is not None
