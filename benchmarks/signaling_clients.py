"""Signaling clients that cost next to nothing: the client's own session on a bare TCP connection.

Thousands of them fit one process, so that what is measured is the server. They speak the protocol
exactly (``signaling.session``), come back with full jitter, and mask their frames with zeros.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from signaling.events import Event
from signaling.messages import Kind
from signaling.session import ClientSession

REQUEST = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: icepunch.v1\r\n\r\n"
)
BACKOFF_FIRST, BACKOFF_MAX = 0.5, 30.0


def text_frame(text: str) -> bytes:
    data = text.encode()
    if len(data) < 126:
        return bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data
    return b"\x81\xfe" + len(data).to_bytes(2, "big") + b"\0\0\0\0" + data


class LeanClient(asyncio.Protocol):
    """A place in a room that comes back by itself, as ``signaling.SignalingClient`` does."""

    def __init__(
        self,
        address: tuple[str, int],
        room: str,
        chance: random.Random,
        on_event: Callable[[LeanClient, Event], None],
        *,
        ssl: object = None,
    ) -> None:
        self.session = ClientSession(room, max_peers=2)
        self.closed = False
        self.drops = 0
        """Connections that were lost."""
        self.attempts = 0
        self._address = address
        self._chance = chance
        self._on_event = on_event
        self._ssl = ssl
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._upgraded = False
        self._failures = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        task = self._loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        self.attempts += 1
        try:
            await self._loop.create_connection(lambda: self, *self._address, ssl=self._ssl)
        except OSError:
            self._retry()

    def _retry(self) -> None:
        if self.closed:
            return
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(self._failures, 16))
        self._failures += 1
        drain = self.session.drain
        wait = self._chance.random() * (drain.jitter_s if drain is not None else delay)
        self._loop.call_later(wait, self.start)

    def send(self, to: str, data: str, kind: Kind = "cand", link: str = "l") -> None:
        self.session.send(to, link, 0, kind, data, self._loop.time())
        self._flush()

    def tick(self) -> None:
        """To be called every few seconds: pings."""
        now = self._loop.time()
        timer = self.session.get_timer()
        if timer is not None and timer <= now:
            self.session.handle_timer(now)
            self._flush()

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        frames = self.session.frames_to_send()
        if self._transport is not None and frames:
            self._transport.write(b"".join(map(text_frame, frames)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._buffer = b""
        self._upgraded = False
        transport.write(REQUEST)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.drops += 1
        self.session.connection_lost()
        self._retry()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                assert self._transport is not None
                self._transport.abort()
                return
            self._upgraded = True
            self._buffer = rest
            self.session.connection_made(self._loop.time())
            self._flush()
        self._read_frames()

    def _read_frames(self) -> None:
        data, at = self._buffer, 0
        while len(data) - at >= 2:
            size, begin = data[at + 1] & 0x7F, at + 2
            if size == 126:
                size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, begin = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if len(data) < begin + size or (begin > at + 2 and len(data) < begin):
                break
            opcode, at = data[at] & 0x0F, begin + size
            if opcode == 1:
                self._take(data[begin:at].decode())
            elif opcode == 8 and self._transport is not None:
                self._transport.close()
        self._buffer = data[at:]

    def _take(self, text: str) -> None:
        was = self.session.established
        for event in self.session.receive(text, self._loop.time()):
            self._on_event(self, event)
        if self.session.established and not was:
            self._failures = 0
        self._flush()
        if self.session.fault is not None and self._transport is not None:
            self._transport.abort()
