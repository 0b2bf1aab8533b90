"""A client of the signaling server that comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random as random_module
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from ssl import SSLContext
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed

from signaling.connecting import no_answer, open_socket
from signaling.errors import (
    BadRoom,
    ClientClosed,
    ProtocolRefused,
    RoomClosed,
    RoomFull,
    ServerRefused,
    ServerUnreachable,
    SessionLost,
    SessionReplaced,
    SignalingError,
    TokenExpired,
    Unauthorized,
    VersionRefused,
)
from signaling.events import Disconnected, Event, Rejected
from signaling.link import ServerUrl
from signaling.mailbox import Mailbox
from signaling.messages import CloseCode, Error, ErrorCode, Kind, Outcome
from signaling.randomness import RandomSource
from signaling.session import ClientSession

_log = logging.getLogger("signaling.client")

BACKOFF_FIRST = 0.5
BACKOFF_MAX = 30.0
STABLE_AFTER = 30.0
"""Seconds a connection holds before the backoff starts from the beginning again."""
ATTEMPT_TIMEOUT = 10.0
"""Seconds for one connection, up to the server's greeting."""
LEAVE_TIMEOUT = 0.8
EVENTS = 256
"""Events that wait for the application before the socket is no longer read."""
_TICK = 5.0

_REFUSALS: dict[int, type[ServerRefused]] = {
    CloseCode.BAD_REQUEST: ProtocolRefused,
    CloseCode.ABUSE: ProtocolRefused,
    CloseCode.TOO_BIG: ProtocolRefused,
    CloseCode.REPLACED: SessionReplaced,
    CloseCode.UNAUTHORIZED: Unauthorized,
    CloseCode.TOKEN_EXPIRED: TokenExpired,
    CloseCode.ROOM_FULL: RoomFull,
    CloseCode.VERSION: VersionRefused,
    CloseCode.BAD_ROOM: BadRoom,
    CloseCode.ROOM_CLOSED: RoomClosed,
}
# RFC 6455 section 7.4.1: codes by which a server says that trying again makes no sense.
_FINAL_STANDARD_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


class ClientState(StrEnum):
    """What a client is at."""

    NEW = "new"
    CONNECTING = "connecting"
    """On the way to the server, or to its greeting."""
    CONNECTED = "connected"
    WAITING = "waiting"
    """Without a connection; the next try comes after a while."""
    REFUSED = "refused"
    """The server does not want this client, or was never reached. Final."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class _Loss:
    """How a connection ended that may be tried again."""

    error: SignalingError
    temporary: bool
    """Whether the first connection, too, is worth another try."""
    retry_after: float | None = None
    jitter: float | None = None


class SignalingClient:
    """A place in a room of a signaling server.

    ``async with`` closes it at the end; ``connect`` opens it; ``async for`` gives its events until
    it is closed, and raises what ended it if the server refused it for good. It reconnects with
    full jitter, from 0.5 s doubling to 30 s, and resumes: signals are neither lost nor doubled.

    ``url`` is the server's, ``http(s)`` or ``ws(s)``; ``meta`` a note of at most 1 KiB to the other
    peers; ``max_peers`` the seats of the room if this client comes first. ``token`` is what the
    server's authorization asks for; a function is called for every connection, and once more if
    the server finds the token expired. ``ssl`` replaces the system's trust in certificates.
    ``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy`` in the environment hold.
    Raises :class:`signaling.errors.InvalidServerUrl`.
    """

    def __init__(
        self,
        url: str,
        room: str,
        *,
        meta: str = "",
        max_peers: int | None = None,
        token: str | Callable[[], str] = "",
        ssl: SSLContext | None = None,
        random: RandomSource | None = None,
    ) -> None:
        self.server = ServerUrl.parse(url)
        self._session = ClientSession(room, meta=meta, max_peers=max_peers)
        self._token = token
        self._renewed = False
        self._ssl = ssl
        self._random = random if random is not None else random_module.SystemRandom()
        self._connection: ClientConnection | None = None
        self._runner: asyncio.Task[None] | None = None
        self._greeted = asyncio.Event()
        self._window = asyncio.Event()
        self._hurry = asyncio.Event()
        self._turn = asyncio.Lock()
        self._mailbox: Mailbox[Event] = Mailbox(EVENTS)
        self._waiting = False
        self._closed = False
        self._closing: asyncio.Future[None] | None = None
        self._error: SignalingError | None = None
        self._last_loss: SignalingError | None = None

    @property
    def self_id(self) -> str:
        """This client's id in the room; empty before the first welcome."""
        return self._session.self_id

    @property
    def round_trip(self) -> float | None:
        """Seconds to the server and back, when it last welcomed this client."""
        return self._session.round_trip

    @property
    def connected(self) -> bool:
        """Whether there is a connection that the server has greeted."""
        return self._session.established

    @property
    def local_ip(self) -> str | None:
        """This host's address towards the server; ``None`` without a connection."""
        if self._connection is None:
            return None
        return str(self._connection.local_address[0]).partition("%")[0]

    def network_changed(self, *, lost: bool) -> None:
        """This host's networks are others now. An attempt that is out or due is made anew at once;
        ``lost`` is whether the connection's own address is gone: so is the connection then."""
        connection = self._connection
        if connection is not None and lost:
            connection.transport.abort()
        if connection is None or lost:
            self._hurry.set()

    @property
    def state(self) -> ClientState:
        if self._closed:
            return ClientState.CLOSED
        if self._error is not None:
            return ClientState.REFUSED
        if self._runner is None:
            return ClientState.NEW
        if self._session.established:
            return ClientState.CONNECTED
        return ClientState.WAITING if self._waiting else ClientState.CONNECTING

    async def connect(self, timeout: float = 10.0) -> None:
        """Enter the room. Returns when the server has welcomed this client.

        Raises :class:`signaling.errors.ServerUnreachable` at once if there is no such server,
        after ``timeout`` seconds if it does not answer; :class:`signaling.errors.RoomFull` and the
        other refusals if it does not let us in.
        """
        if self._closed or self._runner is not None:
            raise ClientClosed("a client connects once")
        self._runner = asyncio.create_task(self._run())
        greeted = asyncio.create_task(self._greeted.wait())
        try:
            done, _ = await asyncio.wait(
                {self._runner, greeted}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self._fail(self._last_loss or no_answer(self.server, timeout))
            if self._error is not None:
                raise self._error
            if self._closed:
                raise ClientClosed("the client was closed")
        finally:
            greeted.cancel()
            if not self._greeted.is_set():
                await self._stop()

    async def send(self, to: str, link: str, generation: int, kind: Kind, data: str) -> int:
        """Send a signal to the peer ``to``; its number, as an ``Unavailable`` event would name it.

        Returns when the signal is queued; it survives reconnects. Waits while 64 signals are
        unconfirmed. Raises :class:`signaling.errors.MessageTooLarge`,
        :class:`signaling.errors.ClientClosed`, :class:`signaling.errors.SessionLost` if the
        identity changed while waiting, or the error that ended this client.
        """
        epoch = self._session.epoch
        async with self._turn:
            while True:
                self._check_open()
                if self._session.epoch != epoch:
                    raise SessionLost("the session was lost before the signal could be sent")
                if self._session.can_send:
                    break
                self._window.clear()
                await self._window.wait()
            ref = self._session.send(to, link, generation, kind, data, self._now())
            self._flush()
            return ref

    def ask_for_ice_servers(self) -> None:
        """Ask for fresh ones; they come as :class:`signaling.events.IceServersChanged`."""
        self._session.ask_for_ice_servers()
        self._flush()

    def report_outcome(self, outcome: Outcome, seconds: float | None = None) -> None:
        """Tell the server's statistics how an attempt ended: ``direct``, ``relay`` or ``failed``.

        ``seconds`` is the time until there was a path. Lost while there is no connection.
        """
        self._session.report_outcome(outcome, seconds)
        self._flush()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._mailbox.get()
        if event is not None:
            return event
        if self._error is not None and not self._closed:
            raise self._error
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self, *, close_room: bool = False) -> None:
        """Leave the room, within a second. What was sent before goes out first.

        With ``close_room`` nobody can open the room again once it is empty: its link is used up.
        """
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(close_room))
        await asyncio.shield(self._closing)

    async def _close(self, close_room: bool) -> None:
        self._mailbox.end()
        self._window.set()
        if self.connected:
            self._session.leave(close=close_room)
            self._flush()
            assert self._runner is not None
            await asyncio.wait({self._runner}, timeout=LEAVE_TIMEOUT)
        await self._stop()

    # The runner

    async def _run(self) -> None:
        try:
            await self._keep_connected()
        except SignalingError as error:
            self._fail(error)
        except Exception as error:
            _log.exception("the signaling client failed")
            self._fail(SignalingError(f"the signaling client failed: {error!r}"))

    async def _keep_connected(self) -> None:
        attempt = 0
        while True:
            began = self._now()
            loss = await self._connect_once()
            if self._closed:
                return
            if not self._greeted.is_set():
                if not loss.temporary:
                    raise loss.error
                self._last_loss = loss.error
            elif self._now() - began >= STABLE_AFTER:
                attempt = 0
            delay = self._delay(loss, attempt)
            attempt += 1
            _log.info("disconnected reason=%r retry_in=%.1f", str(loss.error), delay)
            if self._greeted.is_set():
                await self._mailbox.put(Disconnected(str(loss.error), delay))
            self._waiting = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._hurry.wait()
                    attempt = 0
            self._hurry.clear()
            self._waiting = False

    def _delay(self, loss: _Loss, attempt: int) -> float:
        spread = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(attempt, 16))
        if loss.jitter is not None:
            wish = _bounded(loss.jitter)
            # Sent away time and again, it comes less and less often, whatever the server says.
            return self._random.random() * (wish if attempt == 0 else max(wish, spread))
        return _bounded(loss.retry_after or 0.0) + self._random.random() * spread

    async def _connect_once(self) -> _Loss:
        """One connection from beginning to end. Raises what makes another one useless."""
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT):
                connection = await self._unless_hurried(self._open())
        except TimeoutError:
            return _Loss(no_answer(self.server, ATTEMPT_TIMEOUT), temporary=False)
        except ServerUnreachable as error:
            return _Loss(error, temporary=error.cause == "busy")
        self._connection = connection
        try:
            self._session.token = self._token if isinstance(self._token, str) else self._token()
            self._session.connection_made(self._now())
            self._flush()
            await self._converse(connection)
        except ConnectionClosed:
            pass
        finally:
            self._connection = None
            self._session.connection_lost()
            if self._session.fault is not None or connection.close_code is None:
                connection.transport.abort()
        return self._judge(connection.close_code)

    def _open(self) -> Coroutine[object, object, ClientConnection]:
        return open_socket(self.server, self._session.room, ssl=self._ssl)

    async def _unless_hurried(
        self, opening: Coroutine[object, object, ClientConnection]
    ) -> ClientConnection:
        """Raises ServerUnreachable where the network changes meanwhile."""
        attempt = asyncio.ensure_future(opening)
        hurry = asyncio.ensure_future(self._hurry.wait())
        wanted = False
        try:
            await asyncio.wait({attempt, hurry}, return_when=asyncio.FIRST_COMPLETED)
            wanted = attempt.done()
            if wanted:
                return attempt.result()
            raise ServerUnreachable(f"the network changed on the way to {self.server}", "busy")
        finally:
            hurry.cancel()
            if not attempt.done():
                attempt.cancel()
                await asyncio.wait({attempt})
            # It may have opened in the very turn of the loop that this was cancelled in.
            if not (wanted or attempt.cancelled() or attempt.exception()):
                attempt.result().transport.abort()

    async def _converse(self, connection: ClientConnection) -> None:
        session = self._session
        give_up = self._now() + ATTEMPT_TIMEOUT
        while session.fault is None:
            now = self._now()
            if not session.established and now >= give_up:
                session.fault = f"{self.server} did not greet within {ATTEMPT_TIMEOUT:g} s"
                break
            timer = session.get_timer()
            wake = now + _TICK if timer is None else min(timer, now + _TICK)
            events: list[Event] = []
            try:
                async with asyncio.timeout_at(wake):
                    frame = await connection.recv()
            except TimeoutError:
                session.handle_timer(self._now())
            else:
                if isinstance(frame, bytes):
                    session.fault = "the server broke the protocol: a binary frame"
                    break
                events = session.receive(frame, self._now())
            self._flush()
            if session.can_send:
                self._window.set()
            for event in events:
                await self._mailbox.put(event)
            if session.established:
                self._renewed = False
                self._greeted.set()

    def _judge(self, close_code: int | None) -> _Loss:
        """What the end of a connection means. Raises what makes another one useless."""
        session = self._session
        if session.fault is not None:
            return _Loss(ServerUnreachable(session.fault, "network"), temporary=False)
        code = close_code if close_code is not None else 1006
        refusal = session.refusal
        words = refusal.message if refusal is not None else f"closed with code {code}"
        if code == CloseCode.TOKEN_EXPIRED and callable(self._token) and not self._renewed:
            self._renewed = True
            text = f"{self.server} wants a new token"
            return _Loss(ServerUnreachable(text, "busy"), temporary=True)
        if 4500 <= code <= 4999 or code in _FINAL_STANDARD_CODES:
            kind = _REFUSALS.get(code, ServerRefused)
            raise kind(
                f"{self.server} refused: {words}",
                code=refusal.code if refusal is not None else "",
                close_code=code,
            )
        if session.drain is not None:
            text = f"{self.server} is going away"
            return _Loss(
                ServerUnreachable(text, "busy"), temporary=True, jitter=session.drain.jitter_s
            )
        if refusal is not None:
            return _Loss(
                _for_now(refusal, f"{self.server} refused for now: {words}", code),
                temporary=True,
                retry_after=refusal.retry_after,
            )
        return _Loss(
            ServerUnreachable(f"the connection to {self.server} was lost ({words})", "network"),
            temporary=True,
        )

    def _flush(self) -> None:
        if self._connection is None:
            return
        # Unlike send(), broadcast() does not wait; the session's window bounds what is buffered.
        for frame in self._session.frames_to_send():
            broadcast((self._connection,), frame)

    def _fail(self, error: SignalingError) -> None:
        self._error = error
        self._window.set()
        self._mailbox.end(Rejected(error))

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._error is not None:
            raise self._error

    async def _stop(self) -> None:
        if self._runner is not None and not self._runner.done():
            self._runner.cancel()
            await asyncio.wait({self._runner})

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _bounded(seconds: float) -> float:
    """What a server says, within what this client does."""
    return min(max(seconds, 0.0), BACKOFF_MAX)


def _for_now(refusal: Error, text: str, close_code: int) -> SignalingError:
    if refusal.code == ErrorCode.ROOM_FULL:
        return RoomFull(text, code=refusal.code, close_code=close_code)
    return ServerUnreachable(text, "busy")
