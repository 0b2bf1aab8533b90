"""The thin shell around a TURN client: its way to the server, its clock, its events."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ice_punch.datagram import Address
from ice_punch.net import turn_path
from ice_punch.net.host_socket import HostSocket
from ice_punch.net.udp import DatagramHandler
from ice_punch.turn import (
    Allocated,
    AllocationFailed,
    Family,
    Redirected,
    RelayedData,
    TurnClient,
    TurnClientStats,
    TurnEvent,
    TurnState,
)

CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class TurnTarget:
    """A server at one of its addresses, and how to get there."""

    address: Address
    name: str
    """Whose certificate it has to have over TLS."""
    transport: Literal["udp", "tcp", "tls"]
    username: str | None
    password: str | None = field(repr=False)
    local_ip: str | None = None
    port_range: tuple[int, int] | None = None
    tls: ssl.SSLContext | None = None
    family: Family = 4
    """Of the relayed address, or ``dual`` for one of each."""
    host: HostSocket | None = None
    """Whose socket to use over UDP."""


class NoAllocation(Exception):
    """As ``AllocationFailed`` tells."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Elsewhere(Exception):
    """The server sends us on to another one, as ``Redirected`` tells."""

    def __init__(self, server: Address, domain: str | None, tried: dict[Address, float]) -> None:
        super().__init__()
        self.server = server
        self.domain = domain
        self.tried = tried


class TurnSession:
    """A TURN client on the event loop. After every call to the client comes ``_pump``."""

    def __init__(self, client: TurnClient, path: turn_path.TurnPath) -> None:
        """``TurnSession.open`` makes one."""
        self.on_event: Callable[[TurnEvent], None] | None = None
        """Told what happens once the allocation stands."""
        self._on_datagram: DatagramHandler | None = None
        self._client = client
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._allocated: asyncio.Future[Allocated] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._pump_is_due = False

    @classmethod
    async def open(
        cls, target: TurnTarget, on_datagram: DatagramHandler, tried: dict[Address, float]
    ) -> tuple[TurnSession, Allocated]:
        """Connect and allocate. ``on_datagram`` gets what peers send: data, peer, relayed address.

        Raises NoAllocation, Elsewhere, OSError (``ssl.SSLError`` is one), PortRangeExhausted or
        InterfaceNotFound.
        """
        early = _Early()
        path = await turn_path.connect(
            target.address,
            transport=target.transport,
            local_ip=target.local_ip,
            port_range=target.port_range,
            tls=target.tls,
            server_name=target.name,
            on_message=early.on_message,
            on_loss=early.on_loss,
            host=target.host,
        )
        try:
            client = TurnClient(
                target.address,
                path.local,
                target.username,
                target.password,
                random.SystemRandom(),
                asyncio.get_running_loop().time(),
                transport=target.transport,
                family=target.family,
                tried=tried,
            )
        except BaseException:
            path.abort()
            raise
        session = cls(client, path)
        session._on_datagram = on_datagram
        try:
            early.hand_over(session)
            session._pump()
            return session, await session._allocated
        except BaseException:
            session.abandon()
            raise

    # -- using it -----------------------------------------------------------------------------

    @property
    def local(self) -> Address:
        """Ours, towards the server."""
        return self._path.local

    @property
    def shared(self) -> bool:
        """Whether that is a host candidate's."""
        return isinstance(self._path, turn_path.SharedPath)

    @property
    def server(self) -> Address:
        """Where the allocation is."""
        return self._client.server

    @property
    def stats(self) -> TurnClientStats:
        return self._client.stats

    @property
    def congested(self) -> bool:
        """Whether data had better wait until the handler below is called."""
        return self._path.congested

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        self._path.set_writable_handler(handler)

    def send(self, data: bytes, peer: Address) -> bool:
        """False: dropped."""
        taken = self._client.send(data, peer, self._loop.time())
        if self._pump() and taken:
            self._client.stats.dropped += 1
            return False
        return taken

    def refusal(self, peer: Address) -> tuple[int, str] | None:
        return self._client.refusal(peer, self._loop.time())

    def permit(self, peer: Address) -> None:
        """What is permitted in one turn of the event loop is asked for in one request."""
        self._client.permit(peer, self._loop.time())
        if not self._pump_is_due:
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    async def close(self) -> None:
        """Give the allocation back and disconnect, within a second."""
        self._client.close(self._loop.time())
        self._pump()
        try:
            with contextlib.suppress(TimeoutError):  # it ends by itself after its lifetime
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._ended.wait()
        finally:
            self.disconnect()

    def abandon(self) -> None:
        """What may exist by now is given back with one message, unanswered."""
        self._client.close(self._loop.time())
        self._pump()
        self.disconnect()
        self._allocated.cancel()

    def disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._path.abort()

    # -- the event loop -----------------------------------------------------------------------

    def on_message(self, message: bytes, source: Address) -> None:
        self._client.receive_datagram(message, source, self._path.local, self._loop.time())
        self._pump()

    def on_loss(self, reason: str) -> None:
        self._client.unreachable(reason, self._loop.time())
        self._pump()

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        self._client.handle_timer(self._loop.time())
        self._pump()

    def _pump(self) -> int:
        """Carry out what the client wants: messages, events, the next timer. How many messages this
        host did not send."""
        client, lost = self._client, 0
        self._pump_is_due = False
        for data, _, server in client.datagrams_to_send(self._loop.time()):
            if not self._path.send(data, server):
                lost += 1
        while (event := client.next_event()) is not None:
            self._on_event(event)
        if client.state is TurnState.ENDED:
            self._ended.set()
        due = client.get_timer()
        if due != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if due is None else self._loop.call_at(due, self._on_timer)
            self._timer_at = due
        return lost

    def _on_event(self, event: TurnEvent) -> None:
        if isinstance(event, RelayedData):
            if self._on_datagram is not None:
                self._on_datagram(event.data, event.peer, event.relayed)
        elif isinstance(event, Allocated):
            self._allocated.set_result(event)
        elif isinstance(event, AllocationFailed):
            self._fail(NoAllocation(event.code, event.reason))
        elif isinstance(event, Redirected):
            self._fail(Elsewhere(event.server, event.domain, self._client.tried))
        elif self.on_event is not None:
            self.on_event(event)

    def _fail(self, error: Exception) -> None:
        if not self._allocated.done():
            self._allocated.set_exception(error)
            self._allocated.exception()  # whoever waits gets it; one that was cancelled does not


class _Early:
    """Hears the path before there is a session."""

    def __init__(self) -> None:
        self._session: TurnSession | None = None
        self._loss: str | None = None

    def hand_over(self, session: TurnSession) -> None:
        self._session = session
        if self._loss is not None:
            session.on_loss(self._loss)

    def on_message(self, message: bytes, source: Address) -> None:
        if self._session is not None:
            self._session.on_message(message, source)

    def on_loss(self, reason: str) -> None:
        if self._session is None:
            self._loss = reason
        else:
            self._session.on_loss(reason)
