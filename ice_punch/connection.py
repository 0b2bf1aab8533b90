"""IceConnection: an agent, its sockets and its clock, for people who bring their own signaling."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ice_punch.channel_stats import PathFigures
from ice_punch.data_path import SendLosses
from ice_punch.datagram import Buffer, RandomSource
from ice_punch.detached import DetachedSocket
from ice_punch.diagnosis import Diagnosis, why_relayed
from ice_punch.driver import AgentDriver, common_pacer
from ice_punch.errors import (
    ChannelClosed,
    ConsentLost,
    DatagramRefused,
    DetachFailed,
    GatheringFailed,
    IcePunchError,
    InvalidConfiguration,
    InvalidDescription,
    NoRoute,
    PeerSilent,
    RestartRefused,
)
from ice_punch.ice import (
    Agent,
    AgentConfig,
    Candidate,
    CandidatePair,
    CandidateType,
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
from ice_punch.net.monitor import NetworkChanged
from ice_punch.net.remote_candidates import RemoteCandidates
from ice_punch.net.roaming import Roaming
from ice_punch.outbox import PART, SEND_QUEUE, Outbox, as_sequence
from ice_punch.path import PATH_MTU, Path, headers
from ice_punch.report import Report
from ice_punch.sdp import (
    RENOMINATION,
    Description,
    Fingerprint,
    Setup,
    make_pwd,
    make_ufrag,
    parse_candidate,
)
from ice_punch.stun import MAGIC_COOKIE

if TYPE_CHECKING:
    from ice_punch.net.recording_file import RecordingFile, RecordingFiles

COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
LIKE_STUN = "a datagram that looks like STUN can not be told from it"
DIRECT_ONLY_GIVE_UP = 8.0
"""Seconds. Without relays, what was silent for so long does not begin to answer."""
ADDRESS_LOOKS = 0.005
"""Seconds."""
EVENT_QUEUE = 1024
"""Events held for each iterator; past that the oldest go."""

ConnectionEvent = (
    StateChanged | LocalCandidateFound | SelectedPairChanged | RestartAdvised | NetworkChanged
)


@dataclass(slots=True)
class Timings:
    """Where the time went, in seconds; None where it has not come to that."""

    gathering: float | None = None
    """From the start of gathering to its end or to the first valid pair, whichever was first."""
    checks: float | None = None
    """From knowing both sides' parameters to the first valid pair."""


class IceConnection:
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
    ) -> None:
        """Needs a running event loop.

        ``controlling`` is the role of the side that offers (RFC 8445 section 6.1.1); when both
        sides say the same they sort it out. ``ice_servers`` are RFC 7064 and 7065 URIs. At most
        ``send_queue`` datagrams wait to be sent, and the newest are dropped when it is full: with
        ``newest_wins`` the oldest. Everything the agent is told goes to the next file of
        ``record``, to be replayed. Raises InvalidConfiguration for a bad URI or contradictory
        options.
        """
        servers = tuple(s if isinstance(s, IceServer) else IceServer.parse(s) for s in ice_servers)
        options = options or GatheringOptions()
        self._options = replace(options, ice_servers=options.ice_servers + servers)
        if options.direct_only and options.relay_only:
            raise InvalidConfiguration("direct-only and relay-only exclude each other")
        if not options.ipv4 and not options.ipv6:
            raise InvalidConfiguration("with neither IPv4 nor IPv6 nothing can be reached")
        config = agent_config or AgentConfig()
        if config.lite and (self._options.ice_servers or options.relay_only):
            raise InvalidConfiguration(
                "a lite agent has host candidates only (RFC 8445 section 5.2)"
            )
        if options.direct_only:
            config = replace(config, direct_only=True, give_up_after=DIRECT_ONLY_GIVE_UP)
        source = random.SystemRandom()
        self._loop = asyncio.get_running_loop()
        self._recording = None if record is None else record.begin(self._options.ice_servers)
        self._agent = _make_agent(controlling, source, config, self._recording)
        self._inbox = Inbox(receive_queue, self._raise_failure)
        self._driver = AgentDriver(
            self._agent,
            self._options,
            on_datagrams=self._inbox.extend,
            on_event=self._on_event,
            on_path=self._on_path,
            on_writable=self._on_writable,
        )
        self._roaming = Roaming(self._driver.gatherer, self._options, on_change=self._publish)
        self._data = self._driver.data
        self._outbox = Outbox(
            self._data.send_many,
            self._raise_not_connected,
            capacity=send_queue,
            newest_wins=newest_wins,
        )
        self._on_path_changed: Callable[[], None] | None = None
        self._on_room: Callable[[], None] | None = None
        self.timings = Timings()
        self._valid = self._loop.create_future()
        self._failure: IcePunchError | None = None
        self._gathering: asyncio.Task[None] | None = None
        self._gathered: list[Candidate] = []
        self._gathered_more = asyncio.Event()
        self._gathering_started: float | None = None
        self._gathering_over = False
        self._remote: Description | None = None
        self._remote_since: float | None = None
        self._remote_candidates = RemoteCandidates(
            self._driver.gatherer,
            relay_only=options.relay_only,
            on_candidate=self._add_resolved,
            on_end=self._end_of_remote_candidates,
        )
        self._subscribers: weakref.WeakSet[asyncio.Queue[ConnectionEvent | None]]
        self._subscribers = weakref.WeakSet()  # an iterator that is dropped takes its queue along
        self._restarts = 0
        self._advised = False
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    # -- descriptions and candidates ----------------------------------------------------------

    def start_gathering(self) -> None:
        """Begin to gather, without waiting. ``gather`` and ``connect`` do it by themselves."""
        if self._gathering is None and not self._closed:
            self._gathering_started = self._loop.time()
            self._gathering = asyncio.ensure_future(self._gather())
            if self._options.follow_network:
                self._roaming.start()

    async def _gather(self) -> None:
        try:
            await self._driver.gatherer.run()
        except IcePunchError as error:
            self._fail(error)
        except Exception as error:
            failure = GatheringFailed(f"gathering failed: {error!r}", self.report())
            failure.__cause__ = error
            self._fail(failure)
        finally:
            self._gathering_over = True
            self._note_gathering_time()
            self._gathered_more.set()

    def _note_gathering_time(self) -> None:
        if self.timings.gathering is None and self._gathering_started is not None:
            self.timings.gathering = self._loop.time() - self._gathering_started

    async def gather(self) -> AsyncIterator[Candidate]:
        """Our candidates, each as soon as it exists; ends when gathering is over.

        Raises GatheringFailed, PortRangeExhausted, InterfaceNotFound, AuthenticationRejected or
        RelayDenied if it yields nothing, ChannelClosed if the connection is closed.
        """
        self.start_gathering()
        given = 0
        while True:
            while given < len(self._gathered):
                given += 1
                yield self._gathered[given - 1]
            if self._gathering_over or self._closed:
                break
            self._gathered_more.clear()
            await self._gathered_more.wait()
        if not given:
            self._raise_failure()

    @property
    def local_candidates(self) -> tuple[Candidate, ...]:
        """What is gathered so far, without peer-reflexive candidates; as the peer is told of it,
        where addresses are hidden."""
        found = tuple(c for c in self._agent.local_candidates if c.type is not CandidateType.PRFLX)
        hidden = self._driver.gatherer.hidden
        return found if hidden is None else hidden.all_shown(found)

    @property
    def local_description(self) -> str:
        """Our SDP (RFC 8839) with all candidates gathered so far."""
        return self.describe().to_sdp()

    def describe(
        self,
        *,
        setup: Setup | None = None,
        fingerprints: tuple[Fingerprint, ...] = (),
        tls_id: str | None = None,
        candidates: bool = True,
    ) -> Description:
        """Our description, with the DTLS parameters of whoever encrypts above (RFC 8842)."""
        credentials = self._agent.credentials
        encrypted = bool(fingerprints)
        return Description(
            ufrag=credentials.ufrag,
            pwd=credentials.pwd,
            # RFC 8839 section 4.3.1: a lite agent says so, and has no pacing.
            pacing=None if self._agent.config.lite else round(self._agent.config.ta * 1000),
            lite=self._agent.config.lite,
            options=("trickle", "ice2", RENOMINATION),
            setup=setup,
            fingerprints=fingerprints,
            tls_id=tls_id,
            mid="0" if self._remote is None else self._remote.mid,
            candidates=self.local_candidates if candidates else (),
            end_of_candidates=candidates and self._gathering_over and not self._restarts,
            protocol="UDP/DTLS/SCTP" if encrypted else "UDP",
            formats=("webrtc-datachannel",) if encrypted else ("octet-stream",),
        )

    def set_remote_description(
        self, description: Description | str, *, start_at: float | None = None
    ) -> None:
        """The peer's SDP. Checks begin as soon as there are pairs, or at ``start_at`` on the clock
        of the event loop.

        A description with another ufrag and another pwd is the peer's ICE restart, or its answer to
        ours (RFC 8839 section 4.4.1.1.1). If it is the peer's, this side restarts too: send it
        ``local_description`` once more. Raises InvalidDescription if it is not a description, or
        if only one of the two has changed.
        """
        remote = (
            description if isinstance(description, Description) else Description.parse(description)
        )
        credentials = Credentials(remote.ufrag, remote.pwd)
        self.start_gathering()
        known = self._agent.remote_credentials
        if known is not None and known != credentials:
            if credentials.ufrag == known.ufrag or credentials.pwd == known.pwd:
                raise InvalidDescription("an ICE restart changes both ufrag and pwd")
            if not self._may_restart:
                raise InvalidDescription("the description is one of another session")
            self._restart(fresh_sockets=False)
        again = self._agent.remote_credentials is None
        if (
            not again
            and self._remote is not None
            and _ice_options(remote) != _ice_options(self._remote)
        ):
            # RFC 8839 section 4.4.2.1
            raise InvalidDescription("ICE options, pacing and lite change only with an ICE restart")
        try:
            self._agent.set_remote_parameters(
                credentials,
                self._loop.time(),
                lite=remote.lite,
                ta=None if remote.pacing is None else remote.pacing / 1000,
                renomination=RENOMINATION in remote.options,
                start_at=start_at,
            )
        except ValueError as error:
            raise InvalidDescription(str(error)) from None
        if again:
            self._remote = remote
            self._remote_candidates.restart()
        if self._remote_since is None:
            self._remote_since = self._loop.time()
        for candidate in remote.candidates:
            self.add_remote_candidate(candidate)
        if remote.end_of_candidates:
            self.add_remote_candidate(None)
        self._driver.pump()

    def restart(self, *, fresh_sockets: bool = False, asked: bool = False) -> None:
        """Begin an ICE restart (RFC 8445 section 9). Datagrams go on where they go until the new
        path is selected, and encryption above is not touched. Send the peer ``local_description``
        once more, and give its answer to ``set_remote_description``. ``fresh_sockets``: with other
        ports, as a ``RestartAdvised`` may want it. ``asked``: it is the peer's restart.

        Raises RestartRefused before the session has connected for the first time, unless the peer
        or a ``RestartAdvised`` wants it, while a restart waits for the peer, and when the
        connection is closed.
        """
        if not self._may_restart and not asked:
            raise RestartRefused("there is nothing to restart: the session has never connected")
        self._restart(fresh_sockets=fresh_sockets)
        self._driver.pump()

    @property
    def _may_restart(self) -> bool:
        connected = self._valid.done() and self._failure is None
        return connected or self._advised

    async def addresses_known(self, timeout: float) -> None:
        """During a restart: wait until the servers have told our addresses anew, for ``timeout`` s
        at most."""
        until = self._loop.time() + timeout
        gatherer = self._driver.gatherer
        # An address that is told again as it was is no event to wait for.
        while self._loop.time() < until and (gatherer.busy or not self._agent.addresses_known):  # noqa: ASYNC110
            await asyncio.sleep(ADDRESS_LOOKS)

    def _restart(self, *, fresh_sockets: bool) -> None:
        if self._closed:
            raise RestartRefused("the connection is closed")
        source = random.SystemRandom()
        credentials = Credentials(make_ufrag(source), make_pwd(source))
        try:
            self._agent.restart(credentials, self._loop.time(), fresh_sockets=fresh_sockets)
        except ValueError as error:
            raise RestartRefused(str(error)) from None
        self._restarts += 1
        if fresh_sockets:
            self._driver.gatherer.open_fresh_sockets()

    @property
    def restarting(self) -> bool:
        """Whether a restart of ours waits for the peer's new description."""
        return self._agent.restarting

    @property
    def remote_description(self) -> Description | None:
        return self._remote

    def add_remote_candidate(self, candidate: Candidate | str | None) -> None:
        """A candidate of the peer's, as an object or a ``candidate:`` line; None says that no more
        come (RFC 8838 section 14). A candidate of no use to us is dropped.

        Raises InvalidDescription for a line that breaks the grammar of RFC 8839.
        """
        if isinstance(candidate, str):
            candidate = parse_candidate(candidate)
            if candidate is None:
                return
        if candidate is None:
            self._remote_candidates.end()
        else:
            self._remote_candidates.add(candidate)

    def _add_resolved(self, candidate: Candidate) -> None:
        self._agent.add_remote_candidate(candidate, self._loop.time())
        self._driver.gatherer.permit_remote_candidates()
        self._driver.pump()

    def _end_of_remote_candidates(self) -> None:
        self._agent.end_of_remote_candidates(self._loop.time())
        self._driver.pump()

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
        limit = self._data.limit
        return limit if limit >= 0 else PATH_MTU - headers(None)

    @property
    def path_figures(self) -> PathFigures:
        """Round trips, loss and MTU of the path that data takes now."""
        pair = self._data.pair
        if pair is None:
            return PathFigures()
        trip = pair.round_trip
        return PathFigures(
            rtt=trip.latest,
            rtt_smoothed=trip.smoothed,
            rtt_min=trip.minimum,
            loss=trip.loss,
            path_mtu=self._data.mtu,
        )

    @property
    def counters(self) -> Counter[str]:
        """What was received and dropped, by reason, and what the network did."""
        return self._agent.counters + self._driver.gatherer.counters

    @property
    def dropped_oldest(self) -> int:
        """Datagrams lost because nobody read them in time."""
        return self._inbox.dropped

    def report(self) -> Report:
        """Everything known about the session: candidates, pairs, servers, and what was noticed."""
        return self._driver.gatherer.report()

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
        queue: asyncio.Queue[ConnectionEvent | None] = asyncio.Queue()
        if self._closed:
            queue.put_nowait(None)
        self._subscribers.add(queue)
        return _events_of(queue)

    # -- datagrams ----------------------------------------------------------------------------

    def send_nowait(self, data: Buffer, *, expires_in: float | None = None) -> None:
        """Send a datagram on the best path there is, without waiting.

        What is sent in one turn of the event loop leaves together, in order; the first at once.
        While the kernel or `pacing_rate` lets nothing go, up to ``send_queue`` datagrams are held.
        One that is still held ``expires_in`` seconds later is dropped and counted.

        Raises DatagramTooLarge, DatagramRefused (it looks like STUN, RFC 7983), ChannelClosed, or
        the error that ended the session.
        """
        if data and data[0] < 4 and data[4:8] == COOKIE:
            raise DatagramRefused(LIKE_STUN)
        if expires_in is None:
            self._outbox.put(data)
        else:
            self._outbox.put_until(data, expires_in)

    def send_many_nowait(self, datagrams: Iterable[Buffer]) -> None:
        """``send_nowait`` for several, in order, or for none of them if one is refused."""
        datagrams = as_sequence(datagrams)
        if [True for data in datagrams if data and data[0] < 4 and data[4:8] == COOKIE]:
            raise DatagramRefused(LIKE_STUN)
        self._outbox.put_many(datagrams)

    async def send(self, data: Buffer, *, expires_in: float | None = None) -> None:
        """``send_nowait``, once there is room: it waits while many datagrams are held, and every
        so often lets other tasks run. Raises the same."""
        await self._outbox.room()
        self.send_nowait(data, expires_in=expires_in)

    async def send_many(self, datagrams: Iterable[Buffer]) -> None:
        """``send_many_nowait``, a part at a time, each once there is room. Raises the same."""
        datagrams = as_sequence(datagrams)
        for start in range(0, len(datagrams), PART):
            part = datagrams[start : start + PART]
            await self._outbox.room(len(part))
            self.send_many_nowait(part)

    async def recv(self) -> bytes:
        """The next datagram. Raises ChannelClosed after close, or the error that ended the
        session, once everything received before is read."""
        return await self._inbox.get()

    async def recv_many(self, limit: int | None = None) -> list[bytes]:
        """All datagrams that have come, at most ``limit``; waits for one. Raises as ``recv``."""
        return await self._inbox.get_many(limit)

    @property
    def pacing_rate(self) -> float | None:
        """Bytes of datagrams a second to spread what is sent to; None, as it begins, sends as fast
        as the kernel takes them. Raises InvalidConfiguration for a rate that is none."""
        return self._outbox.pacing_rate

    @pacing_rate.setter
    def pacing_rate(self, rate: float | None) -> None:
        self._outbox.pacing_rate = rate
        self.set_kernel_pacing(rate)

    def set_data_handler(self, handler: Callable[[bytes], object]) -> None:
        """Give every datagram to ``handler`` instead of ``recv``."""
        self.set_batch_handler(lambda datagrams, _: [handler(data) for data in datagrams])

    # -- for what is built on top -------------------------------------------------------------

    @property
    def outbox(self) -> Outbox:
        """What ``send`` fills."""
        return self._outbox

    @property
    def losses(self) -> SendLosses:
        """Datagrams that this host did not send."""
        return self._data.losses

    def set_batch_handler(self, handler: Callable[[Sequence[bytes], int], object]) -> None:
        """Give datagrams, and how many bytes they have together, to ``handler`` instead of
        ``recv``."""
        self._driver.on_datagrams = handler
        self._inbox.drain(lambda data: handler((data,), len(data)))

    def set_segments_handler(self, handler: Callable[[bytes | bytearray, int, int], None]) -> None:
        """Give what is received to ``handler`` as it comes from the kernel: a buffer, how many of
        its bytes are datagrams back to back, and the bytes of each, of which the last may be
        shorter. The buffer is valid only during the call. STUN is not among them."""
        self._driver.on_segments = handler
        self._inbox.drain(lambda data: handler(data, len(data), len(data)))

    def set_path_handler(
        self, on_path: Callable[[], None], on_writable: Callable[[], None]
    ) -> None:
        """``on_path`` is called when `max_datagram_size` has changed, or there is no path any more;
        ``on_writable`` when `writable` has become true."""
        self._on_path_changed, self._on_room = on_path, on_writable

    def set_kernel_pacing(self, rate: float | None) -> None:
        """Have the kernel spread packets too, where its queueing does that."""
        self._data.set_pacing_rate(rate)

    @property
    def writable(self) -> bool:
        """Whether datagrams can leave now. Where they can not, those of ``send_records`` and
        ``send_segments`` are held up to a bound, or dropped, and counted."""
        return not self._data.congested

    def send_record(self, data: Buffer) -> None:
        """Send what a protocol above has made to fit; raises ChannelClosed or what ended the
        session."""
        self.send_records((data,))

    def send_records(self, datagrams: Sequence[Buffer]) -> None:
        """``send_record`` for several, in order: they leave in as few system calls as the kernel
        allows."""
        if self._data.limit < 0:
            self._raise_not_connected()
        self._data.send_whatever(datagrams)

    def send_segments(self, buffer: Buffer, size: int) -> None:
        """``send_record`` for datagrams of ``size`` bytes that lie back to back in ``buffer``; the
        last may be shorter. ``buffer`` may be used again once this returns. With UDP segmentation
        offload it goes to the kernel as it is."""
        if self._data.limit < 0:
            self._raise_not_connected()
        done = self._data.send_segments(buffer, size)
        if done < len(buffer):
            rest = memoryview(buffer)[done:]
            self._data.send_whatever([rest[n : n + size] for n in range(0, len(rest), size)])

    def _on_path(self) -> None:
        self._outbox.limit = self._data.limit
        if self._data.limit < 0:
            self._outbox.wake()
        if self._on_path_changed is not None:
            self._on_path_changed()

    def _on_writable(self) -> None:
        self._outbox.resume()
        if self._on_room is not None:
            self._on_room()

    def _raise_not_connected(self) -> None:
        self._raise_failure()
        raise ChannelClosed("the connection is not established")

    # -- what the agent tells -----------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if self._recording is not None:
            self._recording.note(event, self._driver.gatherer.reports)
        if isinstance(event, ServerQueryEnded):
            self._driver.gatherer.queries_changed()
            if self._driver.gatherer.hidden is not None:
                public = self._driver.gatherer.hidden.public_candidate(
                    event, self._agent.local_candidates
                )
                if public is not None:
                    self._local_candidate_found(public)
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

    def _local_candidate_found(self, candidate: Candidate) -> None:
        hidden = self._driver.gatherer.hidden
        if hidden is not None and candidate.type is not CandidateType.PRFLX:
            candidate = hidden.shown(candidate)
        if candidate.type is not CandidateType.PRFLX and not self._gathering_over:
            self._gathered.append(candidate)
            self._gathered_more.set()
        self._publish(LocalCandidateFound(candidate))

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
        for queue in self._subscribers:
            if queue.qsize() >= EVENT_QUEUE:
                queue.get_nowait()
            queue.put_nowait(event)

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
        pair = self._data.pair
        self._raise_failure()
        if pair is None:
            self._raise_not_connected()
        assert pair is not None
        self._outbox.flush()
        path, size = Path.of(pair), self.max_datagram_size
        released = self._data.release()
        if released is None:
            raise DetachFailed(
                "a path through a relay has no socket of its own"
                if pair.relayed
                else "this event loop does not let go of its sockets"
            )
        await self.close()
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
        tasks = self._remote_candidates.close()
        if self._gathering is not None:
            self._gathering.cancel()
            tasks.append(self._gathering)
        if not self._valid.done():
            self._valid.set_exception(ChannelClosed("the connection is closed"))
            self._valid.exception()
        self._inbox.wake()
        self._gathered_more.set()
        for queue in self._subscribers:
            queue.put_nowait(None)
        return tasks

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
) -> Agent:
    credentials = Credentials(make_ufrag(source), make_pwd(source))
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


def _ice_options(description: Description) -> tuple[object, ...]:
    return (frozenset(description.options), description.pacing, description.lite)


async def _events_of(
    queue: asyncio.Queue[ConnectionEvent | None],
) -> AsyncIterator[ConnectionEvent]:
    while (event := await queue.get()) is not None:
        yield event
