"""Channel: datagrams between two peers over an ICE path, encrypted with DTLS unless told not to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

from ice_punch.connection import ConnectionEvent, IceConnection
from ice_punch.diagnosis import Diagnosis
from ice_punch.dtls import DtlsMachine, HandshakeCompleted, HandshakeFailedEvent, PeerClosed
from ice_punch.dtls_driver import DtlsDriver
from ice_punch.dtls_driver import Event as DtlsEvent
from ice_punch.errors import ChannelClosed, ConsentLost, HandshakeFailed, IcePunchError
from ice_punch.ice import IceState, StateChanged
from ice_punch.inbox import RECEIVE_QUEUE, Inbox
from ice_punch.path import Path
from ice_punch.report import Report

IN_FLIGHT = 0.2
"""Seconds, at least: how long what a peer sent before it said goodbye may still be on its way."""
IN_FLIGHT_MAX = 2.0


@dataclass(frozen=True, slots=True)
class ChannelTimings:
    """Where the time to connect went, in seconds; None for a part that did not take place."""

    signaling: float | None = None
    gathering: float | None = None
    checks: float | None = None
    dtls: float | None = None


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """Counted since the channel opened."""

    datagrams_sent: int = 0
    datagrams_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    dropped_oldest: int = 0
    """Received, and dropped because nobody read them in time."""
    dropped_strangers: int = 0
    """Datagrams from addresses that the peer has not proven to own."""
    dropped_malformed: int = 0
    """STUN or DTLS that could not be parsed or authenticated, and datagrams that are neither."""
    rtt: float | None = None
    """Seconds, the latest measured round trip."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """What DTLS agreed on."""

    version: str
    """``DTLSv1.2`` or later."""
    cipher: str


class Channel:
    """An open way for datagrams, both ways, unordered and unreliable like UDP.

    ``listen`` and ``connect`` make it. Iterate over it to receive::

        async for datagram in channel:
            await channel.send(datagram)
    """

    def __init__(
        self,
        connection: IceConnection,
        dtls: DtlsMachine | None = None,
        *,
        receive_queue: int = RECEIVE_QUEUE,
    ) -> None:
        self.connection = connection
        """The ICE session below."""
        self.encryption: Encryption | None = None
        """None on a plain channel."""
        self.timings = ChannelTimings()
        self._on_closed: list[Callable[[], object]] = []
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(receive_queue, self._raise_end)
        self._sent = self._bytes_sent = self._got = self._bytes_got = 0
        self._end: IcePunchError | None = None
        self._told = False
        self._parting: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Future[None] = self._loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        self._watcher = asyncio.ensure_future(self._watch(connection.events()))
        self._dtls: DtlsDriver | None = None
        if dtls is None:
            connection.set_data_handler(self._deliver)
        else:
            self._dtls = DtlsDriver(
                dtls,
                connection,
                on_data=self._deliver_many,
                on_event=self._on_dtls_event,
                on_error=self._finish,
            )
        if connection.state is IceState.FAILED:
            self._finish(ConsentLost("the session ended before it was used", connection.report()))

    # -- opening ------------------------------------------------------------------------------

    async def open(self, signaling_time: float | None = None) -> None:
        """Encrypt, where that is wanted; the connection below must be connected.

        Raises HandshakeFailed or FingerprintMismatch, or the error that ended the session.
        """
        began = self._loop.time()
        if self._dtls is not None:
            self._dtls.start()
            await asyncio.shield(self._handshake)
        below = self.connection.timings
        self.timings = ChannelTimings(
            signaling=signaling_time,
            gathering=below.gathering,
            checks=below.checks,
            dtls=None if self._dtls is None else self._loop.time() - began,
        )

    async def _watch(self, events: AsyncIterator[ConnectionEvent]) -> None:
        async for event in events:
            if isinstance(event, StateChanged) and event.state is IceState.FAILED:
                self._finish(ConsentLost(event.reason, self.connection.report()))
        self._finish(ChannelClosed("the channel is closed"))

    # -- what there is to see -----------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The way datagrams take now: kind, local, remote, rtt. None when there is none."""
        return self.connection.path

    @property
    def stats(self) -> ChannelStats:
        counters = self.connection.counters
        malformed = counters["stun_malformed"]
        if self._dtls is not None:
            malformed += self._dtls.counters.malformed + self._dtls.counters.discarded
        path = self.path
        return ChannelStats(
            datagrams_sent=self._sent,
            datagrams_received=self._got,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_got,
            dropped_oldest=self._inbox.dropped,
            dropped_strangers=counters["data_from_strangers"],
            dropped_malformed=malformed,
            rtt=None if path is None else path.rtt,
        )

    @property
    def max_datagram_size(self) -> int:
        """Bytes: the largest datagram ``send`` takes. It changes with the path."""
        return (self._dtls or self.connection).max_datagram_size

    @property
    def closed(self) -> bool:
        return self._end is not None

    def report(self) -> Report:
        """Candidates, pairs, servers and what was noticed."""
        return self.connection.report()

    @property
    def why_relayed(self) -> Diagnosis | None:
        """Why the path goes through a relay, as far as is known by now; None when it does not."""
        return self.connection.why_relayed

    # -- datagrams ----------------------------------------------------------------------------

    def send_nowait(self, data: bytes) -> None:
        """Send one datagram, without waiting.

        Raises ChannelClosed, DatagramTooLarge, DatagramRefused (plain channels: what looks like
        STUN; encrypted ones: an empty datagram) or the error that ended the session.
        """
        self._raise_end()
        if self._dtls is None:
            self.connection.send_nowait(data)
        else:
            self._dtls.send(data)
        self._sent += 1
        self._bytes_sent += len(data)

    async def send(self, data: bytes) -> None:
        """``send_nowait``, and let other tasks run. Raises the same."""
        self.send_nowait(data)
        await asyncio.sleep(0)

    async def recv(self) -> bytes:
        """The next datagram.

        Raises ChannelClosed once the channel is closed, by whichever side, and ConsentLost when
        the peer vanished; both only after everything received before is read.
        """
        return await self._inbox.get()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Datagrams until the channel is closed. Raises ConsentLost when the peer vanished."""
        while True:
            try:
                datagram = await self.recv()
            except ChannelClosed:
                return
            yield datagram

    def _deliver(self, data: bytes) -> None:
        if self._end is not None:
            return
        self._got += 1
        self._bytes_got += len(data)
        self._inbox.put(data)

    def _deliver_many(self, datagrams: list[bytes]) -> None:
        for data in datagrams:
            self._deliver(data)

    # -- DTLS ---------------------------------------------------------------------------------

    def _on_dtls_event(self, event: DtlsEvent) -> None:
        match event:
            case HandshakeCompleted():
                self.encryption = Encryption(event.version, event.cipher)
                if not self._handshake.done():
                    self._handshake.set_result(None)
            case HandshakeFailedEvent():
                self._finish(event.error)
            case PeerClosed():
                self._peer_ended(event.reason)

    # -- the end ------------------------------------------------------------------------------

    def _raise_end(self) -> None:
        if self._end is not None:
            # The same object may be raised any number of times: it must not collect the tracebacks.
            raise self._end.with_traceback(None)

    def _finish(self, error: IcePunchError) -> None:
        """The first end counts. Whoever reads or sends learns of it."""
        if self._end is not None:
            return
        self._end = error
        if not self._handshake.done():
            self._handshake.set_exception(error)
            self._handshake.exception()  # whoever waits gets it; nobody waiting is no fault
        self._inbox.wake()
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close_below())

    def on_closed(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the channel ends, by whichever side. ``close`` waits for what it
        returns, if that is awaitable."""
        if self._told:
            callback()
        else:
            self._on_closed.append(callback)

    def peer_closed(self, how: str = "it gave up") -> None:
        """Signaling told that the peer closed the channel. That may have overtaken datagrams."""
        if self._end is None and self._parting is None:
            path = self.path
            rtt = 0.0 if path is None or path.rtt is None else path.rtt
            wait = min(max(IN_FLIGHT, rtt), IN_FLIGHT_MAX)
            self._parting = self._loop.call_later(wait, self._peer_ended, how)

    def _peer_ended(self, why: str) -> None:
        if self._handshake.done() or self._dtls is None:
            self._finish(ChannelClosed("the peer closed the channel"))
        else:
            self._finish(HandshakeFailed(f"the peer ended the DTLS handshake: {why}"))

    async def close(self) -> None:
        """Tell the peer, and free everything, within about a second. May be called again."""
        if self._end is None:
            self._end = ChannelClosed("the channel is closed")
            if self._dtls is not None:
                self._dtls.close()
            if not self._handshake.done():
                self._handshake.set_exception(self._end)
                self._handshake.exception()
            self._inbox.wake()
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close_below())
        await asyncio.shield(self._closing)

    async def _close_below(self) -> None:
        self._watcher.cancel()
        if self._dtls is not None:
            self._dtls.stop()
        if self._parting is not None:
            self._parting.cancel()
        self._told = True
        told = [callback() for callback in self._on_closed]
        farewells = [result for result in told if isinstance(result, Awaitable)]
        await asyncio.gather(self.connection.close(), *farewells, return_exceptions=True)

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
