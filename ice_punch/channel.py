"""Channel: datagrams between two peers over an ICE path, encrypted with DTLS unless told not to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from ice_punch.batches import as_sequence, size_of_each
from ice_punch.channel_stats import ChannelStats
from ice_punch.connection import IceConnection
from ice_punch.connection_events import ConnectionEvent
from ice_punch.datagram import Buffer
from ice_punch.datagram_end import LIKE_STUN, DatagramEnd
from ice_punch.diagnosis import Diagnosis
from ice_punch.dtls import DtlsMachine, HandshakeCompleted, HandshakeFailedEvent, PeerClosed
from ice_punch.dtls_driver import DtlsDriver
from ice_punch.dtls_driver import Event as DtlsEvent
from ice_punch.endpoint import ChannelTransport, ProtocolFactory
from ice_punch.errors import (
    ChannelClosed,
    ConsentLost,
    DatagramRefused,
    HandshakeFailed,
    IcePunchError,
    RestartRefused,
)
from ice_punch.ice import IceState, StateChanged
from ice_punch.inbox import RECEIVE_QUEUE, Inbox
from ice_punch.outbox import SEND_QUEUE, Outbox
from ice_punch.path import Path
from ice_punch.report import Report
from ice_punch.stun import COOKIE

IN_FLIGHT = 0.2
"""Seconds, at least: how long what a peer sent before it said goodbye may still be on its way."""
IN_FLIGHT_MAX = 2.0
EMPTY = "DTLS does not carry empty datagrams"


@dataclass(frozen=True, slots=True)
class ChannelTimings:
    """Where the time to connect went, in seconds; None for a part that did not take place."""

    signaling: float | None = None
    gathering: float | None = None
    checks: float | None = None
    dtls: float | None = None


@dataclass(frozen=True, slots=True)
class Encryption:
    """What DTLS agreed on."""

    version: str
    """``DTLSv1.2`` or later."""
    cipher: str


class Channel(DatagramEnd):
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
        send_queue: int = SEND_QUEUE,
        newest_wins: bool = False,
    ) -> None:
        """``send_queue`` and ``newest_wins`` are those of an encrypted channel; a plain one has
        those of its connection."""
        self.connection = connection
        """The ICE session below."""
        self.encryption: Encryption | None = None
        """None on a plain channel."""
        self.timings = ChannelTimings()
        self._restart: Callable[[], Awaitable[None]] | None = None
        self._on_closed: list[Callable[[], object]] = []
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(receive_queue, self._raise_end)
        self._handler: Callable[[bytes], None] | None = None
        """Who gets datagrams in place of the inbox."""
        self._end: IcePunchError | None = None
        self._told = False
        self._parting: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Future[None] = self._loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        self._watcher = asyncio.ensure_future(self._watch(connection.events()))
        self._dtls: DtlsDriver | None = None
        if dtls is None:
            self._outbox = connection.carrier.outbox
            connection.carrier.set_batch_handler(self._deliver, self._on_alone)
        else:
            on_data, on_alone = self._takers()
            self._dtls = DtlsDriver(
                dtls,
                connection.carrier,
                on_data=on_data,
                on_alone=on_alone,
                on_event=self._on_dtls_event,
                on_error=self._finish,
            )
            self._outbox = Outbox(
                self._encrypt,
                self._raise_end,
                capacity=send_queue,
                newest_wins=newest_wins,
                sink_one=self._sink_one(self._dtls),
                sink_alike=self._encrypt_alike,
            )
            connection.carrier.set_path_handler(self._on_path, self._outbox.resume)
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
        counters, carrier = self.connection.counters, self.connection.carrier
        losses, figures = carrier.losses, carrier.figures
        inbox, outbox = self._inbox, self._outbox
        malformed = counters["stun_malformed"]
        if self._dtls is not None:
            malformed += self._dtls.counters.malformed + self._dtls.counters.discarded
        return ChannelStats(
            datagrams_sent=max(0, outbox.sent - losses.total),
            datagrams_received=inbox.received,
            bytes_sent=outbox.sent_bytes,
            bytes_received=inbox.received_bytes,
            queued=outbox.queued,
            dropped_expired=outbox.expired,
            dropped_queue_full=outbox.dropped_full,
            dropped_by_host=losses.by_host,
            dropped_too_large=losses.too_large + outbox.too_large,
            dropped_unroutable=losses.unroutable + outbox.abandoned,
            dropped_oldest=inbox.dropped,
            dropped_strangers=counters["data_from_strangers"],
            dropped_malformed=malformed,
            rtt=figures.rtt,
            rtt_smoothed=figures.rtt_smoothed,
            rtt_min=figures.rtt_min,
            loss=figures.loss,
            path_mtu=figures.path_mtu,
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

    def send_nowait(self, data: Buffer, *, expires_in: float | None = None) -> None:
        """Send one datagram, without waiting.

        What is sent in one turn of the event loop leaves together, in order; the first at once.
        While the kernel or `pacing_rate` lets nothing go, up to ``send_queue`` datagrams are held.
        One that is still held ``expires_in`` seconds later is dropped and counted.

        Raises ChannelClosed, DatagramTooLarge, DatagramRefused (plain channels: what looks like
        STUN; encrypted ones: an empty datagram) or the error that ended the session.
        """
        if self._end is not None:
            self._raise_end()
        if self._dtls is None:
            if type(data) is memoryview:  # its items may be anything
                data = bytes(data)
            if data and data[0] < 4 and data[4:8] == COOKIE:
                raise DatagramRefused(LIKE_STUN)
        elif not data:
            raise DatagramRefused(EMPTY)
        if expires_in is None:
            self._outbox.put(data)
        else:
            self._outbox.put_until(data, expires_in)

    def send_many_nowait(self, datagrams: Iterable[Buffer]) -> None:
        """``send_nowait`` for several, in order, or for none of them if one is refused."""
        if self._end is not None:
            self._raise_end()
        datagrams = as_sequence(datagrams)
        if self._dtls is None:
            self.connection.send_many_nowait(datagrams)
            return
        if size := size_of_each(datagrams):
            self._outbox.put_alike(datagrams, size)
            return
        if not all(datagrams):
            raise DatagramRefused(EMPTY)
        self._outbox.put_many(datagrams)

    async def drain(self) -> None:
        """Wait until what was sent has left this host's queue, or can not leave any more."""
        await self._outbox.drain()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Datagrams until the channel is closed. Raises ConsentLost when the peer vanished."""
        return self

    async def __anext__(self) -> bytes:
        held = self._inbox.held
        if held:
            return held.popleft()
        try:
            return await self._inbox.get()
        except ChannelClosed:
            raise StopAsyncIteration from None

    async def create_datagram_endpoint(
        self, protocol_factory: ProtocolFactory
    ) -> tuple[ChannelTransport, asyncio.DatagramProtocol]:
        """Like the event loop's method of that name, over this channel: for libraries that speak
        asyncio's datagram protocols. From now on datagrams go to the protocol, and not to ``recv``.

        Raises ChannelClosed, or the error that ended the session.
        """
        self._raise_end()
        path = self.path
        protocol = protocol_factory()
        transport = ChannelTransport(
            self,
            protocol,
            ("0.0.0.0", 0) if path is None else path.local,  # noqa: S104
            ("0.0.0.0", 0) if path is None else path.remote,  # noqa: S104
            self._outbox,
        )
        protocol.connection_made(transport)
        self.on_closed(lambda: transport.lose(self._end))
        self._handler = transport.deliver
        self._inbox.drain(transport.deliver)
        return transport, protocol

    @property
    def newest_wins(self) -> bool:
        """Whether a full queue drops the oldest datagram for the newest, on the way out as it
        always does on the way in. May be set at any time."""
        return self._outbox.newest_wins

    @newest_wins.setter
    def newest_wins(self, wins: bool) -> None:
        self._outbox.newest_wins = wins

    def _pace_kernel(self, rate: float | None) -> None:
        self.connection.carrier.set_kernel_pacing(rate)

    def _deliver(self, datagrams: Sequence[bytes], size: int) -> None:
        if self._end is not None:
            return
        if self._handler is None:
            self._inbox.extend(datagrams, size)
            return
        self._inbox.count(len(datagrams), size)
        for data in datagrams:
            self._handler(data)

    def _on_alone(self, buffer: bytearray, size: int, now: float) -> None:
        self._deliver_alone(bytes(buffer[:size]))

    def _deliver_alone(self, data: bytes) -> None:
        """The only datagram of a turn of the event loop, which called this. Whoever waits for it
        has it, and has perhaps answered it, before this returns."""
        if self._end is not None:
            return
        self._outbox.new_turn = True
        if self._handler is None:
            self._inbox.put_alone(data)
        else:
            inbox = self._inbox
            inbox.received += 1
            inbox.received_bytes += len(data)
            self._handler(data)

    # -- DTLS ---------------------------------------------------------------------------------

    # `WebRtcChannel` has SCTP between DTLS and datagrams: it overrides the next four.

    def _takers(self) -> tuple[Callable[[list[bytes], int], None], Callable[[bytes], None]]:
        """Who gets what DTLS has decrypted, and what was alone in its turn."""
        return self._deliver, self._deliver_alone

    def _encrypt(self, datagrams: Sequence[Buffer], sizes: Sequence[int]) -> int:
        """The sink of the outbox: as many as there is room for below."""
        assert self._dtls is not None
        return self._dtls.send_some(datagrams)

    def _encrypt_alike(self, datagrams: Sequence[Buffer], size: int, _: bytes | None) -> int:
        """`_encrypt` for bytes objects of ``size`` bytes each."""
        assert self._dtls is not None
        return self._dtls.send_alike(datagrams, size)

    def _sink_one(self, dtls: DtlsDriver) -> Callable[[Buffer], bool]:
        """`_encrypt` for a datagram that is alone: whether it has left."""
        return dtls.send_one

    def _on_path(self) -> None:
        over = self._end is not None or self.encryption is None
        self._outbox.set_limit(-1 if over else self.max_datagram_size)

    def _on_dtls_event(self, event: DtlsEvent) -> None:
        match event:
            case HandshakeCompleted():
                self.encryption = Encryption(event.version, event.cipher)
                self._on_path()
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
        self._outbox.close()
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close_below())

    async def restart(self) -> None:
        """Restart ICE, RFC 8445 section 9: find the best path anew. Datagrams go on where they go
        until it is selected, and encryption is not touched.

        It happens by itself when a path is lost or a network comes. Raises RestartRefused while
        another restart is under way, less than a second after one, and where there is no signaling
        to carry it; or the error that ended the channel.
        """
        self._raise_end()
        if self._restart is None:
            raise RestartRefused("there is no signaling that could carry an ICE restart")
        await self._restart()

    def set_restart(self, restart: Callable[[], Awaitable[None]]) -> None:
        """How an ICE restart is made, for whoever has signaling."""
        self._restart = restart

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
            self._outbox.flush()
            self._end = ChannelClosed("the channel is closed")
            if self._dtls is not None:
                self._dtls.close()
            if not self._handshake.done():
                self._handshake.set_exception(self._end)
                self._handshake.exception()
            self._inbox.wake()
            self._outbox.close()
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
