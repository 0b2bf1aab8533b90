"""The WebSocket libraries that carry the server: each an :class:`Engine` behind one interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ssl import SSLContext
from struct import Struct
from typing import Any, Protocol

from signaling.errors import EngineMissing
from signaling.limits import Limits
from signaling.pages import Page, method_not_allowed, upgrade_required

CLOSE_TIMEOUT = 1.0
"""Seconds that a client has to answer the end of its connection."""
SEND_BUFFER = 64 * 1024
"""Bytes in the kernel: a slow reader is to be noticed here, not after megabytes there."""

_GET = b"GET "
_HEAD_MAX = 16 * 1024
"""Bytes of an HTTP request's head."""

Peer = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Request:
    """The HTTP request of a connection."""

    path: str
    headers: Callable[[str], Sequence[str]]
    """Every value of a header by its name, whose case does not matter."""

    def one(self, name: str) -> str | None:
        """The value of a header that is there exactly once."""
        values = self.headers(name)
        return values[0] if len(values) == 1 else None


class Socket(Protocol):
    """One open WebSocket."""

    peer: Peer
    """The other end of the TCP connection."""
    owner_data: Any
    """Whatever the owner remembers of it."""

    def send_text(self, text: str) -> int:
        """Send a text frame, without waiting; what is :attr:`waiting` then."""

    @property
    def waiting(self) -> int:
        """Bytes that were sent and are not in the kernel yet."""

    def pause(self, seconds: float) -> None:
        """Report no more messages for a while, and let the sender feel it."""

    def finish(self, code: int, reason: str) -> None:
        """Close after what was sent; cut off whoever does not answer within a second."""


class Owner(Protocol):
    """Whom an engine reports to: :class:`signaling.server.SignalingServer`."""

    limits: Limits

    def admit(self, ip: str) -> bool:
        """A TCP connection came; whether it may stay. If it may, :meth:`release` follows."""

    def release(self, ip: str) -> None: ...

    def answer(self, request: Request, peer: Peer) -> Page | None:
        """The answer to a request that is not to become a WebSocket."""

    def on_open(self, socket: Socket, request: Request) -> None: ...

    def on_message(self, socket: Socket, data: str | bytes) -> None:
        """A whole message within the limit, after :meth:`on_open` and before :meth:`on_close`."""

    def on_close(self, socket: Socket, code: int | None) -> None:
        """The connection is over; ``code`` is what this side closed it with, if it did."""


class Engine(Protocol):
    async def listen(
        self,
        owner: Owner,
        host: str | Sequence[str] | None,
        port: int,
        ssl: SSLContext | None,
        options: dict[str, Any],
    ) -> Sequence[Peer]:
        """Listen; the names of the sockets. ``options`` are ``loop.create_server``'s, such as
        ``reuse_port`` and ``sock``. Raises ``OSError``."""

    def stop_listening(self) -> None: ...

    async def close(self) -> None:
        """Cut off what is still open."""


ENGINES = ("websockets", "picows")
DEFAULT_ENGINE = ENGINES[0]


def load_engine(name: str) -> Engine:
    """Raises :class:`signaling.errors.EngineMissing`."""
    if name == "websockets":
        from signaling.engines.websockets_engine import WebsocketsEngine

        return WebsocketsEngine()
    if name == "picows":
        try:
            from signaling.engines.picows_engine import PicowsEngine
        except ImportError as error:
            text = "the engine picows is not installed: pip install 'ice-punch[picows]'"
            raise EngineMissing(text) from error
        return PicowsEngine()
    raise EngineMissing(f"there is no engine {name[:40]!r}: choose one of {', '.join(ENGINES)}")


_SHORT, _MEDIUM, _LONG = Struct(">BB").pack, Struct(">BBH").pack, Struct(">BBQ").pack


def text_frame(text: str) -> bytes:
    """A whole text message as a server sends it, RFC 6455 section 5.2."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    size = len(data)
    if size < 126:
        return _SHORT(0x81, size) + data
    if size < 1 << 16:
        return _MEDIUM(0x81, 126, size) + data
    return _LONG(0x81, 127, size) + data


_COLLECTED = 64 * 1024
"""Bytes for one connection that are not held back."""


class Outbox(Protocol):
    """A connection that collects frames, see :class:`Turn`."""

    def flush(self) -> None: ...


class Turn:
    """One turn of the event loop: what is sent in it to one connection is written at once.

    Signals come in by the dozen when many talk, and each is answered; a call of the kernel costs
    more than all that is done for a signal before it.
    """

    def __init__(self) -> None:
        self._boxes: list[Outbox] = []

    def add(self, box: Outbox) -> None:
        """Flush ``box`` when everything is done that is to be done now."""
        if not self._boxes:
            asyncio.get_running_loop().call_soon(self._flush)
        self._boxes.append(box)

    def _flush(self) -> None:
        boxes, self._boxes = self._boxes, []
        for box in boxes:
            box.flush()


class Collected:
    """The frames for one connection, and the transport they go to."""

    __slots__ = ("_before", "_frames", "_size", "_transport", "_turn")

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        self._transport = transport
        self._turn = turn
        self._frames: list[bytes] = []
        self._size = 0
        self._before = 0
        """Bytes that the transport had at the first frame of this turn."""

    def add(self, frame: bytes) -> int:
        """Send ``frame`` with the others of this turn; what is waiting then."""
        if not self._frames:
            self._turn.add(self)
            self._before = self._transport.get_write_buffer_size()
        self._frames.append(frame)
        self._size = size = self._size + len(frame)
        if size > _COLLECTED:
            self.flush()
            return self.waiting
        return self._before + size

    @property
    def waiting(self) -> int:
        return self._size + self._transport.get_write_buffer_size()

    def drop(self) -> None:
        """Nothing may follow the end of the connection; a resume brings what was numbered."""
        self._frames.clear()
        self._size = 0

    def flush(self) -> None:
        frames, self._frames, self._size = self._frames, [], 0
        if frames and not self._transport.is_closing():
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))


class TurnedAway(asyncio.Protocol):
    """Says why to the first bytes that come, and lets the other side close.

    An answer before the request confuses clients; a close with unread bytes resets the connection,
    and the answer with it.
    """

    def __init__(self, transport: asyncio.Transport, answer: bytes) -> None:
        self._transport = transport
        self._answer = answer
        self._answered = False
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._answered = True
        self._transport.write(self._answer)
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def eof_received(self) -> None:
        self._transport.close()


def is_other_method(data: bytes | memoryview) -> bool:
    """Whether a connection begins as an HTTP request of another method than GET."""
    begins = bytes(data[: len(_GET)])
    return begins[:1].isupper() and begins != _GET[: len(begins)]


class OtherMethod(TurnedAway):
    """Answers a request that libraries for WebSockets do not know: of another method than GET.

    HEAD is answered like GET, without the body; anything else with what is allowed. GET comes here
    where the library does not take its version of HTTP.
    """

    def __init__(
        self,
        owner: Owner,
        transport: asyncio.Transport,
        peer: Peer,
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(transport, b"")
        self._owner = owner
        self._peer = peer
        self._on_lost = on_lost
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._head += data
        head, end, _ = bytes(self._head).partition(b"\r\n\r\n")
        if len(head) > _HEAD_MAX:
            self._transport.abort()
        elif end:
            self._answer = self._answer_to(head.decode("latin-1").split("\r\n"))
            super().data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(exc)

    def _answer_to(self, lines: list[str]) -> bytes:
        method, path, *_ = [*lines[0].split(" "), ""]
        fields = [line.partition(":") for line in lines[1:]]

        def headers(name: str) -> list[str]:
            return [value.strip() for key, _, value in fields if key.lower() == name.lower()]

        page = self._owner.answer(Request(path, headers), self._peer) or upgrade_required()
        if method not in ("GET", "HEAD") and page.status is not HTTPStatus.NOT_FOUND:
            page = method_not_allowed()
        begin = f"HTTP/1.1 {page.status.value} {page.status.phrase}"
        told = [begin, *(f"{name}: {value}" for name, value in page.headers), "", ""]
        return "\r\n".join(told).encode("latin-1") + (b"" if method == "HEAD" else page.body)
