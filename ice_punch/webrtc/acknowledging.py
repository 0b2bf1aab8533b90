"""When an SCTP association acknowledges (RFC 9260 section 6.2), in aiortc's class."""

from __future__ import annotations

import asyncio
import contextlib

from aiortc import RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcsctptransport import Chunk, DataChunk, InitChunk, parse_packet

from ice_punch.webrtc.carrier import run_to_end

ACK_EVERY = 2
"""Packets of DATA in order; what is out of order, or alone, is acknowledged at once."""
IMMEDIATELY = 0x08
"""The I bit of a DATA chunk (RFC 7053)."""


class AcknowledgingHalf(RTCSctpTransport):
    """aiortc's association, which acknowledges every second packet of those that come together
    where aiortc does each: half the packets to encrypt, to send and to take for both sides."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._unacknowledged = 0
        self._ack_due: asyncio.Handle | None = None

    async def _handle_data(self, data: bytes) -> None:
        try:
            _, _, tag, chunks = parse_packet(data)
        except ValueError:
            return
        is_init = any(isinstance(chunk, InitChunk) for chunk in chunks)
        if is_init and len(chunks) > 1:
            return
        if tag != (0 if is_init else self._local_verification_tag):
            return
        for chunk in chunks:
            await self._receive_chunk(chunk)
        if self._sack_needed and chunks:
            await self._acknowledge(chunks[-1])

    async def _acknowledge(self, last: Chunk) -> None:
        self._unacknowledged += 1
        if (
            self._unacknowledged >= ACK_EVERY
            or self._must_acknowledge()
            or not isinstance(last, DataChunk)
            or last.flags & IMMEDIATELY
        ):
            await self._send_sack()
        else:
            self._acknowledge_soon()

    def _must_acknowledge(self) -> bool:
        """Whether the peer has to know at once (RFC 9260 section 6.7)."""
        return bool(self._sack_misordered or self._sack_duplicates)

    def _acknowledge_soon(self) -> None:
        """Unless more has come together with what came."""
        if self._ack_due is None:
            self._ack_due = self._loop.call_soon(self._acknowledge_rest)

    def _acknowledge_rest(self) -> None:
        self._ack_due = None
        if self._sack_needed:
            with contextlib.suppress(ConnectionError):
                run_to_end(self._send_sack())

    async def _send_sack(self) -> None:
        self._unacknowledged = 0
        await super()._send_sack()
