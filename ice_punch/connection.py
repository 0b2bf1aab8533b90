"""IceConnection: an agent, its sockets and its clock, for people who bring their own signaling."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ice_punch.batches import as_bytes_of_views, as_sequence, may_hold_stun, size_of_each
from ice_punch.carrier import Carrier
from ice_punch.connection_events import ConnectionEvent, Subscribers
from ice_punch.datagram import Buffer, RandomSource
from ice_punch.datagram_end import LIKE_STUN, DatagramEnd
from ice_punch.detached import DetachedSocket
from ice_punch.diagnosis import Diagnosis, why_relayed
from ice_punch.driver import SYSTEM_RANDOM, AgentDriver, common_pacer
from ice_punch.errors import (
    ChannelClosed,
    ConsentLost,
    DatagramRefused,
    DetachFailed,
    IcePunchError,
    InvalidConfiguration,
    NoRoute,
    PeerSilent,
)
from ice_punch.exchange import Exchange
from ice_punch.ice import (
    Agent,
    AgentConfig,
    CandidatePair,
    Credentials,
    Event,
    FailureCause,
    IceState,
    LocalCandidateFound,
    Pacer,
    RestartAdvised,
    SelectedPairChanged,
    ServerQueryEnded,
    StateChanged,
)
from ice_punch.inbox import RECEIVE_QUEUE, Inbox
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.outbox import PART, SEND_QUEUE
from ice_punch.path import Path
from ice_punch.sdp import make_pwd, make_ufrag
from ice_punch.stun import COOKIE

if TYPE_CHECKING:
    from ice_punch.net.recording_file import RecordingFile, RecordingFiles

DIRECT_ONLY_GIVE_UP = 8.0
"""Seconds. Without relays, what was silent for so long does not begin to answer."""

_USUAL = AgentConfig()


class IceConnection(Exchange, DatagramEnd):
    """One ICE session over real sockets; the datagrams it carries are not encrypted.

    Bring the two descriptions together in any way you like::

        connection = IceConnection(controlling=True, ice_servers=["stun:stun.example.org"])
        async for candidate in connection.gather():
            ...                                     # trickle it, or wait for the end
        send_somehow(connection.local_description)
        connection.set_remote_description(received_somehow())
        await connection.connect()
        await connection.send(b"hello")
    """

    def __init__(
        self,
        *,
        controlling: bool = True,
        ice_servers: Iterable[IceServer | str] = (),
        options: GatheringOptions | None = None,
        agent_config: AgentConfig | None = None,
        receive_queue: int = RECEIVE_QUEUE,
        send_queue: int = SEND_QUEUE,
        newest_wins: bool = False,
        record: RecordingFiles | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """Needs a running event loop.

        ``controlling`` is the role of the side that offers (RFC 8445 section 6.1.1); when both
        sides say the same they sort it out. ``ice_servers`` are RFC 7064 and 7065 URIs. At most
        ``send_queue`` datagrams wait to be sent, and the newest are dropped when it is full: with
        ``newest_wins`` the oldest. Everything the agent is told goes to the next file of
        ``record``, to be replayed. ``credentials`` are our first ufrag and password, random ones
        by default. Raises InvalidConfiguration for a bad URI or contradictory options.
        """
        servers = tuple(s if isinstance(s, IceServer) else IceServer.parse(s) for s in ice_servers)
        options = options or GatheringOptions()
        options = replace(options, ice_servers=options.ice_servers + servers)
        if options.direct_only and options.relay_only:
            raise InvalidConfiguration("direct-only and relay-only exclude each other")
        if not options.ipv4 and not options.ipv6:
            raise InvalidConfiguration("with neither IPv4 nor IPv6 nothing can be reached")
        config = agent_config or _USUAL
        if config.lite and (options.ice_servers or options.relay_only):
            raise InvalidConfiguration(
                "a lite agent has host candidates only (RFC 8445 section 5.2)"
            )
        if options.direct_only:
            config = replace(config, direct_only=True, give_up_after=DIRECT_ONLY_GIVE_UP)
        self._recording = None if record is None else record.begin(options.ice_servers)
        self._inbox = Inbox(receive_queue, self._raise_failure)
        driver = AgentDriver(
            _make_agent(controlling, SYSTEM_RANDOM, config, self._recording, credentials),
            options,
            on_datagrams=self._inbox.extend,
            on_event=self._on_event,
            on_path=lambda: self.carrier.path_changed(),
            on_writable=lambda: self.carrier.path_writable(),
        )
        super().__init__(driver, options)
        self.carrier = Carrier(
            driver,
            self._inbox,
            self._raise_not_connected,
            send_queue=send_queue,
            newest_wins=newest_wins,
        )
        """What sends and receives below ``send`` and ``recv``, for whoever builds on top."""
        self._outbox = self.carrier.outbox
        self._subscribers = Subscribers()
        self._valid = self._loop.create_future()
        self._failure: IcePunchError | None = None
        self._advised = False
        self.detached = False
        """Whether another program has the socket now."""
        self._closing: asyncio.Task[None] | None = None

    # -- the session --------------------------------------------------------------------------

    async def connect(self, timeout: float | None = None) -> None:
        """Wait until datagrams can flow: the first valid pair (RFC 8445 section 12.1).

        Raises NoRoute, PeerSilent or an error of gathering; TimeoutError after ``timeout`` s;
        ChannelClosed or ConsentLost when the session is over.
        """
        if self._closed or self._failure is not None:
            self._raise_failure()
        self.start_gathering()
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._valid)

    @property
    def state(self) -> IceState:
        return self._agent.state

    @property
    def controlling(self) -> bool:
        """The role (RFC 8445 section 6.1.1); a conflict with the peer's may change it."""
        return self._agent.controlling

    @property
    def peer_checks(self) -> bool:
        """Whether a check of the peer's has come: it knows our parameters."""
        return self._agent.check_list.peer_checked_at is not None

    @property
    def selected_pair(self) -> CandidatePair | None:
        """The nominated pair; None before nomination."""
        return self._agent.selected_pair()

    @property
    def path(self) -> Path | None:
        """The way datagrams take now; None when there is none."""
        pair = self._agent.data_pair()
        return None if pair is None else Path.of(pair)

    @property
    def max_datagram_size(self) -> int:
        """Bytes: the largest datagram ``send`` takes. It is what an IP packet of 1280 bytes has
        room for until the path MTU is known (RFC 8899), and follows the path from then on."""
        return self.carrier.max_datagram_size

    @property
    def counters(self) -> Counter[str]:
        """What was received and dropped, by reason, and what the network did."""
        return self._agent.counters + self._driver.gatherer.counters

    @property
    def dropped_oldest(self) -> int:
        """Datagrams lost because nobody read them in time."""
        return self._inbox.dropped

    @property
    def why_relayed(self) -> Diagnosis | None:
        """Why the path goes through a relay, as far as is known by now; None when it does not."""
        pair = self._agent.data_pair()
        return why_relayed(self.report()) if pair is not None and pair.relayed else None

    def note_tcp(self, host: str) -> None:
        """A host is known to answer over TCP: if it does not over UDP, that tells something."""
        self._driver.gatherer.note_tcp(host)

    def events(self) -> AsyncIterator[ConnectionEvent]:
        """State changes with their reasons, local candidates, the selected pair, and addresses of
        this host that come and go, from this call on until the connection closes. Who does not
        read loses the oldest."""
        return self._subscribers.events()

    # -- datagrams ----------------------------------------------------------------------------

    def send_nowait(self, data: Buffer, *, expires_in: float | None = None) -> None:
        """Send a datagram on the best path there is, without waiting.

        What is sent in one turn of the event loop leaves together, in order; the first at once.
        While the kernel or `pacing_rate` lets nothing go, up to ``send_queue`` datagrams are held.
        One that is still held ``expires_in`` seconds later is dropped and counted.

        Raises DatagramTooLarge, DatagramRefused (it looks like STUN, RFC 7983), ChannelClosed, or
        the error that ended the session.
        """
        if type(data) is memoryview:  # its items may be anything
            data = bytes(data)
        if data and data[0] < 4 and data[4:8] == COOKIE:
            raise DatagramRefused(LIKE_STUN)
        if expires_in is None:
            self._outbox.put(data)
        else:
            self._outbox.put_until(data, expires_in)

    def send_many_nowait(self, datagrams: Iterable[Buffer]) -> None:
        """``send_nowait`` for several, in order, or for none of them if one is refused."""
        datagrams = as_sequence(datagrams)
        size = size_of_each(datagrams) if self.carrier.joins else 0
        if size > 4 and len(datagrams) <= PART:
            joined = b"".join(datagrams)
            if not may_hold_stun(joined, len(joined), size):
                self._outbox.put_alike(datagrams, size, joined)
                return
        datagrams = as_bytes_of_views(datagrams)
        if [True for data in datagrams if data and data[0] < 4 and data[4:8] == COOKIE]:
            raise DatagramRefused(LIKE_STUN)
        self._outbox.put_many(datagrams)

    def set_data_handler(self, handler: Callable[[bytes], object]) -> None:
        """Give every datagram to ``handler`` instead of ``recv``."""
        self.carrier.set_batch_handler(lambda datagrams, _: [handler(data) for data in datagrams])

    def _pace_kernel(self, rate: float | None) -> None:
        self.carrier.set_kernel_pacing(rate)

    def _raise_not_connected(self) -> None:
        self._raise_failure()
        raise ChannelClosed("the connection is not established")

    # -- what the agent tells -----------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if self._recording is not None:
            self._recording.note(event, self._driver.gatherer.reports)
        if isinstance(event, ServerQueryEnded):
            self._server_answered(event)
        elif isinstance(event, LocalCandidateFound):
            self._local_candidate_found(event.candidate)
        elif isinstance(event, SelectedPairChanged):
            self._publish(event)
        elif isinstance(event, RestartAdvised):
            self._advised = True
            self._publish(event)
        elif isinstance(event, StateChanged):
            self._on_state(event)
            self._publish(event)

    def _on_state(self, event: StateChanged) -> None:
        if event.state in (IceState.CONNECTED, IceState.COMPLETED):
            if self.timings.checks is None and self._remote_since is not None:
                self.timings.checks = self._loop.time() - self._remote_since
                self._note_gathering_time()
            if not self._valid.done():
                self._valid.set_result(None)
        if event.state in (IceState.COMPLETED, IceState.FAILED):
            self._driver.gatherer.queries_changed()
        if event.state is IceState.FAILED:
            self._fail(self._failed(event))

    def _failed(self, event: StateChanged) -> IcePunchError:
        if event.cause is FailureCause.CONSENT_LOST:
            return ConsentLost(event.reason, self.report())
        silent = event.cause is FailureCause.PEER_SILENT
        return (PeerSilent if silent else NoRoute).explained(self.report())

    def _publish(self, event: ConnectionEvent) -> None:
        self._subscribers.publish(event)

    @property
    def _may_restart(self) -> bool:
        connected = self._valid.done() and self._failure is None
        return connected or self._advised

    # -- the end ------------------------------------------------------------------------------

    def fail(self, error: IcePunchError) -> None:
        """Someone above knows that this session comes to nothing, and why."""
        if not self._valid.done():
            self._fail(error)

    def note_failure(self, error: IcePunchError) -> None:
        """What the user is told, for whoever reads the recording."""
        if self._recording is not None:
            self._recording.note_failure(error, self._driver.gatherer.reports)

    def _fail(self, error: IcePunchError) -> None:
        self.note_failure(error)
        if self._failure is None:
            self._failure = error
        if not self._valid.done():
            self._valid.set_exception(error)
            self._valid.exception()  # whoever waits gets it; nobody waiting is no fault
        self._inbox.wake()

    def _raise_failure(self) -> None:
        """Raise what ended the session, if it has ended."""
        if self._failure is not None:
            # The same object may be raised any number of times: it must not collect the tracebacks.
            raise self._failure.with_traceback(None)
        if self._closed:
            raise ChannelClosed("the connection is closed")

    async def detach(self) -> DetachedSocket:
        """Give the socket of the path away, connected to the peer, and end the session without a
        word: what was received before can still be read here, what comes later belongs to the
        socket.

        Nobody answers the peer's consent checks from then on (RFC 7675): within 30 s its session
        ends too, unless it has detached as well. Raises DetachFailed where there is no socket to
        give, as on a relayed path, and what ended the session before.
        """
        pair = self._driver.data.pair
        self._raise_failure()
        if pair is None:
            self._raise_not_connected()
        assert pair is not None
        self._outbox.flush()
        path, size = Path.of(pair), self.max_datagram_size
        try:
            released = self._driver.data.release()
        except OSError as error:
            raise DetachFailed(f"there is no way to the peer: {error.strerror}") from error
        if released is None:
            raise DetachFailed(
                "a path through a relay has no socket of its own"
                if pair.relayed
                else "this event loop does not let go of its sockets"
            )
        self.detached = True
        try:
            await self.close()
        except BaseException:  # nobody is left to take it
            released.close()
            raise
        return DetachedSocket(released, pair.base, pair.remote.address, path, size)

    async def close(self) -> None:
        """End the session and free its sockets and relays, within about a second. May be called
        again."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._free(self._end()))
        await asyncio.shield(self._closing)

    def _end(self) -> list[asyncio.Task[None]]:
        """Fall silent now; the tasks that have yet to stop."""
        self._roaming.close()
        self._outbox.flush()
        self._outbox.close()
        self._driver.stop()
        if self._recording is not None:
            self._recording.end(self._driver.gatherer.reports)
        self._closed = True
        if not self._valid.done():
            self._valid.set_exception(ChannelClosed("the connection is closed"))
            self._valid.exception()
        self._inbox.wake()
        self._subscribers.close()
        return self._stop_gathering()

    async def _free(self, tasks: list[asyncio.Task[None]]) -> None:
        stopping = [asyncio.wait(tasks, timeout=1.0)] if tasks else []
        await asyncio.gather(self._driver.gatherer.close(), *stopping)

    async def __aenter__(self) -> IceConnection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _make_agent(
    controlling: bool,
    source: RandomSource,
    config: AgentConfig,
    recording: RecordingFile | None,
    credentials: Credentials | None,
) -> Agent:
    credentials = credentials or Credentials(make_ufrag(source), make_pwd(source))
    if recording is None:
        return Agent(
            controlling=controlling,
            credentials=credentials,
            random=source,
            config=config,
            pacer=Pacer(config.ta, common=common_pacer()),
        )
    return recording.agent(
        controlling=controlling,
        credentials=credentials,
        random=source,
        config=config,
        common=common_pacer(),
    )
