"""The fast engine: ``picows``, which parses frames in C and leaves the rest to us.

What is ours: messages in fragments, their limit, the closing handshake, pongs, backpressure.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Sequence
from ssl import SSLContext
from typing import Any, cast

from multidict import CIMultiDict
from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from signaling import pages
from signaling.engines import (
    CLOSE_TIMEOUT,
    SEND_BUFFER,
    Collected,
    OtherMethod,
    Owner,
    Peer,
    Request,
    Turn,
    TurnedAway,
    is_other_method,
    text_frame,
)
from signaling.errors import EngineMissing
from signaling.messages import SUBPROTOCOL, CloseCode


class _Silence:
    """The library's logger: its lines show frames. A real one would be copied per connection."""

    name = "picows"

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def log(self, *args: object, **kwargs: object) -> None: ...

    debug = info = warning = error = exception = critical = log


_SILENCE = _Silence()
_SERVER_NAME = pages.server_name()  # asked for once: it is read from a file
_READ_BUFFER = 1024
"""Bytes to begin with, for each connection; the buffer grows with what comes."""
_REQUEST = b"GET "
_NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TEXT, _CLOSE = WSMsgType.TEXT, WSMsgType.CLOSE
_PROTOCOL_ERROR = 1002
_BAD_TEXT = 1007


class PicowsEngine:
    """Connections of ``picows`` on the running loop's own server."""

    def __init__(self) -> None:
        self.open: set[_Protocol] = set()
        self._turn = Turn()

    async def listen(
        self,
        owner: Owner,
        host: str | Sequence[str] | None,
        port: int,
        ssl: SSLContext | None,
        options: dict[str, Any],
    ) -> Sequence[Peer]:
        try:
            _Protocol(
                owner, set(), self._turn
            )  # what this raised later, asyncio would keep to itself
        except TypeError as error:
            text = "this version of picows is not the one this package knows: 2.3"
            raise EngineMissing(text) from error
        if ssl is not None:
            options = {"ssl_handshake_timeout": owner.limits.handshake_timeout, **options}
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Protocol(owner, self.open, self._turn),
            cast("Any", host or None),
            port,
            ssl=ssl,
            **options,
        )
        return [listening.getsockname()[:2] for listening in self._server.sockets]

    def stop_listening(self) -> None:
        self._server.close()

    async def close(self) -> None:
        closing = {protocol.gone for protocol in self.open if protocol.closing}
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_TIMEOUT)
        for protocol in list(self.open):
            protocol.abort()
        # Python 3.12 waits for connections here, and those that were aborted end a turn later.
        await asyncio.sleep(0)
        await self._server.wait_closed()


class _Protocol(WSProtocol):  # type: ignore[misc]
    """A TCP connection: counted from its first byte, and bounded in what it buffers."""

    def __init__(self, owner: Owner, among: set[_Protocol], turn: Turn) -> None:
        super().__init__(
            None,  # host and port of a client
            None,  # path of a client
            False,  # is a client
            self._upgrade,
            _SILENCE,
            True,  # disconnect on exception
            owner.limits.handshake_timeout,
            False,  # pings of its own
            20,
            20,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # answer pings by itself
            owner.limits.frame,
            None,  # headers of a client
            _READ_BUFFER,
        )
        self._owner = owner
        self._among = among
        self._turn = turn
        self._tcp: asyncio.Transport | None = None
        self.peer: Peer = ("", 0)
        self.socket: _Socket | None = None
        # picows waits for the end of a request however it begins: these are in its way once.
        self.get_buffer = self._first_buffer
        self.buffer_updated = self._first_bytes
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def closing(self) -> bool:
        return self.socket is not None and self.socket.closing

    def connection_made(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        if peer:
            self.peer = (peer[0], peer[1])
        if not self._owner.admit(self.peer[0]):
            transport.set_protocol(TurnedAway(transport, pages.too_many_connections()))
            return
        self._tcp = transport
        self._among.add(self)
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def _first_buffer(self, size: int) -> memoryview:
        self._first = cast("memoryview", super().get_buffer(size))
        return self._first

    def _first_bytes(self, count: int) -> None:
        assert self._tcp is not None
        begins = self._first[: min(count, len(_REQUEST))]
        is_request = begins == _REQUEST[: len(begins)]
        data = bytes(self._first[:count])
        del self.get_buffer, self.buffer_updated, self._first
        # picows refuses HTTP/1.0, in which load balancers ask how a server is.
        if is_other_method(data) or data.partition(b"\r\n")[0].endswith(b" HTTP/1.0"):
            other = OtherMethod(self._owner, self._tcp, self.peer, self.connection_lost)
            self._tcp.set_protocol(other)
            other.data_received(data)
            return
        if not is_request:
            self._tcp.set_protocol(TurnedAway(self._tcp, b""))
            self.connection_lost(None)
            self._tcp.write(_NOT_HTTP)
            self._tcp.close()
            return
        self._tcp.set_protocol(self)
        super().buffer_updated(count)

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.discard(self)
        self._owner.release(self.peer[0])
        super().connection_lost(exc)
        if not self.gone.done():
            self.gone.set_result(None)

    def abort(self) -> None:
        if self._tcp is not None:
            self._tcp.abort()

    def _upgrade(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        asked = _request(request)
        page = self._owner.answer(asked, self.peer)
        if page is not None:
            response = WSUpgradeResponse()
            response.version = b"HTTP/1.1"
            response.status = page.status
            response.headers = CIMultiDict(
                [
                    ("Server", _SERVER_NAME),
                    *(field for field in page.headers if field[0] != "Content-Length"),
                ]
            )
            response.body = page.body
            return WSUpgradeResponseWithListener(response, None)
        self.socket = _Socket(self._owner, self, asked, self._turn)
        headers = {"Sec-WebSocket-Protocol": SUBPROTOCOL, "Server": _SERVER_NAME}
        accepted = WSUpgradeResponse.create_101_response(headers)
        return WSUpgradeResponseWithListener(accepted, self.socket)


class _Socket(WSListener):
    def __init__(self, owner: Owner, protocol: _Protocol, request: Request, turn: Turn) -> None:
        self.owner_data: Any = None
        self.peer = protocol.peer
        self.closing = False
        self._owner = owner
        self._request: Request | None = request
        self._turn = turn
        self._abort = protocol.abort
        self._code: int | None = None
        self._over = False
        self._parts: list[bytes] = []
        self._size = 0
        self._binary = False
        self._backlog: deque[str | bytes] = deque()
        self._resuming: asyncio.TimerHandle | None = None

    # What picows reports

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._tcp = transport.underlying_transport
        self._collected = Collected(self._tcp, self._turn)
        request, self._request = self._request, None
        assert request is not None
        self._owner.on_open(self, request)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if self.closing and kind != _CLOSE:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.finish(_PROTOCOL_ERROR, "reserved bits")
            return
        if kind == _TEXT and frame.fin and not self._parts:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self.finish(_BAD_TEXT, "not UTF-8")
            else:
                if self._resuming is None:  # as _take() does
                    self._owner.on_message(self, text)
                else:
                    self._backlog.append(text)
            return
        match kind:
            case WSMsgType.TEXT | WSMsgType.BINARY | WSMsgType.CONTINUATION:
                self._take_part(frame)
            case WSMsgType.PING:
                if self.waiting > 2 * self._owner.limits.out_queue:
                    self._abort()
                else:
                    transport.send_pong(frame.get_payload_as_bytes())
            case WSMsgType.CLOSE:
                if not self.closing:
                    self.closing = True
                    self._collected.flush()
                    transport.send_close(frame.get_close_code())
                transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._over:
            return
        self._over = True
        self._backlog.clear()
        if self._resuming is not None:
            self._resuming.cancel()
        handshake = transport.close_handshake
        if self._code is None and handshake is not None and handshake.sent is not None:
            self._code = cast(int, handshake.sent.code)
        self._owner.on_close(self, self._code)

    # What the owner asks for

    def send_text(self, text: str) -> int:
        if self.closing:
            return self.waiting
        return self._collected.add(text_frame(text))

    @property
    def waiting(self) -> int:
        return self._collected.waiting

    def pause(self, seconds: float) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        else:
            self._tcp.pause_reading()
        loop = asyncio.get_running_loop()
        self._resuming = loop.call_later(seconds, self._resume)

    def finish(self, code: int, reason: str) -> None:
        if self.closing:
            return
        self.closing = True
        self._code = code
        self._backlog.clear()
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
            self._tcp.resume_reading()
        self._collected.flush()
        self._transport.send_close(cast("WSCloseCode", code), reason.encode("utf-8")[:120])
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._abort)

    # Messages

    def _take_part(self, frame: WSFrame) -> None:
        starts = frame.msg_type != WSMsgType.CONTINUATION
        if starts == bool(self._parts):
            self.finish(_PROTOCOL_ERROR, "fragments out of order")
            return
        if starts:
            self._binary = frame.msg_type == WSMsgType.BINARY
        self._size += frame.payload_size
        # Empty fragments are counted, too: each is an object to keep.
        if self._size > self._owner.limits.frame or len(self._parts) >= _MAX_FRAGMENTS:
            self.finish(CloseCode.TOO_BIG, "message too big")
            return
        self._parts.append(frame.get_payload_as_bytes())
        if frame.fin:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            if self._binary:
                self._take(data)
            else:
                self._take_text(data)

    def _take_text(self, data: bytes) -> None:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            self.finish(_BAD_TEXT, "not UTF-8")
            return
        self._take(text)

    def _take(self, message: str | bytes) -> None:
        if self._resuming is not None:
            self._backlog.append(message)  # what had been read before the pause
        else:
            self._owner.on_message(self, message)

    def _resume(self) -> None:
        self._resuming = None
        self._tcp.resume_reading()
        while self._backlog and self._resuming is None and not self.closing:
            self._owner.on_message(self, self._backlog.popleft())


_MAX_FRAGMENTS = 1024


def _request(request: WSUpgradeRequest) -> Request:
    headers = request.headers

    def values(name: str) -> Sequence[str]:
        return headers.getall(name, [])

    return Request(request.path.decode("latin-1"), values)
