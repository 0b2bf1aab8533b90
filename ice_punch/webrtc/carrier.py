"""What lies below SCTP (RFC 8261): the encrypted path, as aiortc's SCTP wants to see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ice_punch.dtls import DtlsRole


def run_to_end(steps: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits. Above this carrier none of aiortc's SCTP does: no task is
    needed for it, and nothing comes in between."""
    try:
        steps.send(None)
    except StopIteration:
        return
    steps.close()
    raise RuntimeError("this version of aiortc waits where the one that this was made for did not")


class SctpCarrier:
    """Stands where aiortc has its DTLS transport. What is sent in one turn of the event loop, or in
    answer to what came together, leaves together."""

    state = "connected"

    def __init__(self, role: DtlsRole, send: Callable[[list[bytes]], None]) -> None:
        self._role = role.value
        self._send = send
        self._packets: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.Handle | None = None

    def flush(self) -> None:
        """Send what has been written."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        packets, self._packets = self._packets, []
        if packets:
            self._send(packets)

    # -- what aiortc calls ----------------------------------------------------------------------

    async def _send_data(self, data: bytes) -> None:
        self._packets.append(data)
        if self._due is None:
            self._due = self._loop.call_soon(self.flush)

    def _register_data_receiver(self, receiver: object) -> None:
        """The receiver is handed packets by whoever made it."""

    def _unregister_data_receiver(self, receiver: object) -> None:
        self._packets.clear()
