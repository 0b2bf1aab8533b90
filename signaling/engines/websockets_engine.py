"""The default engine: the library ``websockets``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from functools import partial
from ssl import SSLContext
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol

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
from signaling.messages import SUBPROTOCOL

_log = logging.getLogger("signaling.server")
# The library's debug log shows frames, and those carry session keys and payloads.
_silent = logging.getLogger("signaling.server.websockets")
_silent.setLevel(logging.CRITICAL + 1)

_READ_AHEAD = 4


_PAST = HttpRequest("", Headers())
"""In place of a request that has been answered, and of the memory its headers take."""


class WebsocketsEngine:
    """One ``websockets`` server."""

    def __init__(self) -> None:
        self._open: set[_Socket] = set()
        self._turn = Turn()

    async def listen(
        self,
        owner: Owner,
        host: str | Sequence[str] | None,
        port: int,
        ssl: SSLContext | None,
        options: dict[str, Any],
    ) -> Sequence[Peer]:
        self._owner = owner
        self._server: Server = await serve(
            self._handle,
            # asyncio takes several hosts, only the library's annotation does not.
            cast("str | None", host or None),
            port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            process_request=self._answer,
            server_header=pages.server_name(),
            open_timeout=owner.limits.handshake_timeout,
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT,
            max_size=owner.limits.frame,
            max_queue=_READ_AHEAD,
            logger=_silent,
            create_connection=cast(
                "type[ServerConnection]", partial(_Socket, owner, self._open, self._turn)
            ),
            ssl=ssl,
            **options,
        )
        return [listening.getsockname()[:2] for listening in self._server.sockets]

    def stop_listening(self) -> None:
        self._server.close(close_connections=False)

    async def close(self) -> None:
        closing = {connection.closing for connection in self._open if connection.closing}
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_TIMEOUT)
        for connection in list(self._open):
            connection.transport.abort()
        await self._server.wait_closed()

    def _answer(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        assert isinstance(connection, _Socket)
        page = self._owner.answer(_request(request), connection.peer)
        if page is None:
            return None
        fields = Headers()
        for name, value in page.headers:
            fields[name] = value
        return Response(page.status.value, page.status.phrase, fields, page.body)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _Socket)
        assert connection.request is not None
        loop = asyncio.get_running_loop()
        self._owner.on_open(connection, _request(connection.request))
        connection.request, connection.response = _PAST, None
        code: int | None = None
        try:
            while True:
                # What comes while this waits is passed on as it comes; see process_event.
                connection.listening = connection.paused_until <= loop.time()
                message = await connection.recv()
                connection.listening = False
                wait = connection.paused_until - loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                self._owner.on_message(connection, message)
        except ConnectionClosed as closed:
            code = closed.sent.code if closed.sent is not None else None
        except Exception:
            _log.exception("connection handler failed")
        finally:
            connection.listening = False
            self._owner.on_close(connection, code)


class _Socket(ServerConnection):
    """A connection that is counted from its first byte and bounded in what it buffers."""

    def __init__(
        self, owner: Owner, among: set[_Socket], turn: Turn, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._owner = owner
        self._among = among
        self._turn = turn
        self.owner_data: Any = None
        self.paused_until = 0.0
        self.listening = False
        self._begun = False
        self.closing: asyncio.Task[None] | None = None
        self.peer: Peer = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        peer = transport.get_extra_info("peername")
        if peer:
            self.peer = (peer[0], peer[1])
        if not self._owner.admit(self.peer[0]):
            transport.set_protocol(TurnedAway(transport, pages.too_many_connections()))
            return
        self._among.add(self)
        self._collected = Collected(transport, self._turn)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            if is_other_method(data):
                transport = self.transport
                other = OtherMethod(self._owner, transport, self.peer, self.connection_lost)
                transport.set_protocol(other)
                other.data_received(data)
                return
        super().data_received(data)
        if self.state is not State.OPEN:
            self._collected.drop()
        # Pongs are queued by the library; whoever sends pings and reads nothing is cut off.
        if self.waiting > 2 * self._owner.limits.out_queue:
            self.transport.abort()

    def process_event(self, event: Event) -> None:
        """Spare a whole message the way through the library's queue and another task."""
        if self.listening and isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            if event.opcode is Opcode.TEXT and event.fin:
                try:
                    text = str(event.data, "utf-8")
                except UnicodeDecodeError:
                    pass  # for the library to refuse
                else:
                    self._take(text)
                    return
            # A fragment, or what the library refuses: everything after it has to stand in line.
            self.listening = False
        super().process_event(event)

    def _take(self, text: str) -> None:
        try:
            self._owner.on_message(self, text)
        except Exception:
            _log.exception("connection handler failed")
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.discard(self)
        self._owner.release(self.peer[0])
        super().connection_lost(exc)

    def send_text(self, text: str) -> int:
        # The library's own send() waits; how much is queued is the owner's business. Without
        # extensions a frame is a header before the text: the library need not know of it.
        if self.state is State.OPEN:
            return self._collected.add(text_frame(text))
        return self.waiting

    @property
    def waiting(self) -> int:
        return self._collected.waiting

    def pause(self, seconds: float) -> None:
        self.paused_until = asyncio.get_running_loop().time() + seconds
        self.listening = False

    def finish(self, code: int, reason: str) -> None:
        if self.closing is None:
            self._collected.flush()
            self.closing = asyncio.get_running_loop().create_task(self._finish(code, reason))

    async def _finish(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.close(code, reason)
        except TimeoutError:
            self.transport.abort()


def _request(request: HttpRequest) -> Request:
    return Request(request.path, request.headers.get_all)
