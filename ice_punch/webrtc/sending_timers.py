"""When an SCTP sender looks again (RFC 9260 section 6.3), with one timer of the event loop's."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import Any

from aiortc import RTCDtlsTransport, RTCSctpTransport

from ice_punch.webrtc.carrier import run_to_end

PROBE_AFTER = 0.02
"""Seconds of silence, at least, after which a chunk is sent again to learn what has arrived."""
DELAYED_ACK = 0.2
"""Seconds that the acknowledgement of a single packet may take (RFC 9260 section 6.2)."""
SLACK = 0.001
"""Seconds by which an event loop may call a timer too early."""


class SendingTimers(RTCSctpTransport):
    """T3-rtx, and the one after which a probe is sent. Both are put off with every acknowledgement:
    the event loop's timer is set anew only when it rings too early."""

    _loop: asyncio.AbstractEventLoop
    _sent_queue: deque[Any]
    """DATA chunks, each with its ``_order`` besides what aiortc keeps with it."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._t3_due: float | None = None
        self._probe_due: float | None = None
        self._woken_at = 0.0
        self._probed = False
        """Whether nothing has arrived since a probe."""

    def _t3_start(self) -> None:
        self._t3_due = self._loop.time() + self._rto
        self._wake_by(self._t3_due)

    _t3_restart = _t3_start

    def _t3_cancel(self) -> None:
        self._t3_due = self._probe_due = None
        self._probed = False
        if self._t3_handle is not None:
            self._t3_handle.cancel()
            self._t3_handle = None

    def _expect_answer(self) -> None:
        """Within two round trips (RFC 8985 section 7.2 has the same for TCP)."""
        if self._srtt is None or self._probed or not self._sent_queue:
            self._probe_due = None
            return
        patience = max(PROBE_AFTER, 2 * self._srtt)
        if len(self._sent_queue) == 1:
            patience += DELAYED_ACK
        self._probe_due = self._loop.time() + patience
        self._wake_by(self._probe_due)

    def _wake_by(self, due: float) -> None:
        if self._t3_handle is not None:
            if self._woken_at <= due:
                return
            self._t3_handle.cancel()
        self._woken_at = due
        self._t3_handle = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._t3_handle = None
        soon = self._loop.time() + SLACK
        if self._t3_due is not None and self._t3_due <= soon:
            self._t3_expired()
        elif self._probe_due is not None and self._probe_due <= soon:
            self._probe_due = None
            self._run(self._probe())
        for due in (self._t3_due, self._probe_due):
            if due is not None:
                self._wake_by(due)

    async def _probe(self) -> None:
        raise NotImplementedError

    @staticmethod
    def _run(steps: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(ConnectionError):
            run_to_end(steps)
