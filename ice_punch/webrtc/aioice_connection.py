"""An ICE connection with the members that aiortc uses of ``aioice.Connection``, on our agent."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections.abc import Iterable
from dataclasses import replace

from aioice import Candidate as AioiceCandidate
from aioice import ConnectionClosed, TransportPolicy

from ice_punch.connection import IceConnection
from ice_punch.errors import (
    GatheringFailed,
    IcePunchError,
    InvalidConfiguration,
    InvalidDescription,
)
from ice_punch.ice import AgentConfig, Candidate, Credentials, IceState, StateChanged
from ice_punch.inbox import RECEIVE_QUEUE, Inbox
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.sdp import RENOMINATION, Description, make_pwd, make_ufrag

logger = logging.getLogger(__name__)

READS_IN_TURN = 16
"""Datagrams taken in a row where the peer may take them one by one: it gets what answers them in
bursts, of which aiortc's own receivers lose most."""
OURS = frozenset({"ice2", RENOMINATION})
"""ICE options that only peers with our ICE have together; they read many at a time."""
PEER_LOOKS = 0.005
"""Seconds."""
MAX_REMOTE_CANDIDATES = 128
"""Of the peer's that are kept to be shown, and until checks begin."""


class AioiceConnection:
    """What ``aioice.Connection`` is to aiortc, with an `IceConnection` inside.

    It has the constructor, the members and the errors (``ConnectionError``) that aiortc's
    ``RTCIceGatherer`` and ``RTCIceTransport`` use. One component, as aiortc has it.
    """

    def __init__(
        self,
        ice_controlling: bool,
        components: int = 1,
        stun_server: tuple[str, int] | None = None,
        turn_server: tuple[str, int] | None = None,
        turn_username: str | None = None,
        turn_password: str | None = None,
        turn_ssl: bool = False,
        turn_transport: str = "udp",
        use_ipv4: bool = True,
        use_ipv6: bool = True,
        transport_policy: TransportPolicy = TransportPolicy.ALL,
        local_username: str | None = None,
        local_password: str | None = None,
        *,
        ice_servers: Iterable[IceServer | str] = (),
        options: GatheringOptions | None = None,
        agent_config: AgentConfig | None = None,
    ) -> None:
        """As of aioice; besides these any number of ``ice_servers``, and what `IceConnection` can
        do. Needs no event loop yet. Raises InvalidConfiguration for what can not be had, and
        InvalidDescription for a user name or password that ICE does not allow."""
        if components != 1:
            raise InvalidConfiguration("aiortc multiplexes RTP and RTCP: there is one component")
        given = options or GatheringOptions()
        servers = [s if isinstance(s, IceServer) else IceServer.parse(s) for s in ice_servers]
        if stun_server is not None:
            servers.append(IceServer("stun", *stun_server, "udp"))
        if turn_server is not None:
            scheme = "turns" if turn_ssl else "turn"
            servers.append(
                IceServer(scheme, *turn_server, turn_transport, turn_username, turn_password)
            )
        self._options = replace(
            given,
            ice_servers=given.ice_servers + tuple(servers),
            ipv4=given.ipv4 and use_ipv4,
            ipv6=given.ipv6 and use_ipv6,
            relay_only=given.relay_only or transport_policy is TransportPolicy.RELAY,
        )
        self._agent_config = agent_config
        source = random.SystemRandom()
        self._credentials = Credentials(
            make_ufrag(source) if local_username is None else local_username,
            make_pwd(source) if local_password is None else local_password,
        )
        Description(self._credentials.ufrag, self._credentials.pwd)  # judges their grammar
        self.remote_username: str | None = None
        self.remote_password: str | None = None
        self.remote_is_lite = False
        self.remote_options: tuple[str, ...] = ()
        """The peer's ICE options (RFC 8839 section 5.6), where the session description was seen."""
        self.failure: IcePunchError | None = None
        """Why ``connect`` failed, or what ended the session later."""
        self._controlling = ice_controlling
        self._ice: IceConnection | None = None
        self._observer: asyncio.Task[None] | None = None
        self._inbox = Inbox(RECEIVE_QUEUE, self._raise_end)
        self._remote_candidates: list[AioiceCandidate] = []
        self._remote_end = False
        self._remote_known = False
        self._sent = self._sent_bytes = 0
        self._connected = False
        self._closed = False
        self._over = asyncio.Event()
        self._told = False
        self._reads = 0
        self._takes_turns = True

    @property
    def ice(self) -> IceConnection:
        """The session inside, which begins with the first use of this. Needs an event loop."""
        if self._ice is None:
            self._ice = IceConnection(
                controlling=self._controlling,
                options=self._options,
                agent_config=self._agent_config,
                credentials=self._credentials,
            )
            self._ice.carrier.set_batch_handler(self._inbox.extend)
            self._observer = asyncio.ensure_future(self._observe(self._ice))
        return self._ice

    @property
    def begun(self) -> bool:
        """Whether there is a session inside yet."""
        return self._ice is not None

    # -- what aiortc asks and sets ----------------------------------------------------------------

    @property
    def ice_controlling(self) -> bool:
        """The role (RFC 8445 section 6.1.1). Once gathering has begun the agents of both sides
        see to it, and setting it changes nothing any more."""
        return self._controlling if self._ice is None else self._ice.controlling

    @ice_controlling.setter
    def ice_controlling(self, controlling: bool) -> None:
        self._controlling = controlling

    @property
    def local_username(self) -> str:
        return self._local.ufrag

    @property
    def local_password(self) -> str:
        return self._local.pwd

    @property
    def _local(self) -> Credentials:
        if self._ice is None:
            return self._credentials
        now = self._ice.describe(candidates=False)
        return Credentials(now.ufrag, now.pwd)

    @property
    def local_candidates(self) -> list[AioiceCandidate]:
        return [] if self._ice is None else [to_aioice(c) for c in self._ice.local_candidates]

    @property
    def remote_candidates(self) -> list[AioiceCandidate]:
        """As they were given, names of Multicast DNS too."""
        return list(self._remote_candidates)

    @property
    def datagrams_sent(self) -> tuple[int, int]:
        """How many, and their bytes."""
        return self._sent, self._sent_bytes

    @property
    def datagrams_received(self) -> tuple[int, int]:
        """How many, and their bytes."""
        return self._inbox.received, self._inbox.received_bytes

    # -- candidates and checks --------------------------------------------------------------------

    async def gather_candidates(self) -> None:
        """Gather until there is nothing more to come. Where nothing can be gathered there are no
        local candidates; raises PortRangeExhausted, InterfaceNotFound, AuthenticationRejected or
        RelayDenied where that is why."""
        try:
            async for _ in self.ice.gather():
                pass
        except GatheringFailed as error:
            logger.warning("no local candidates: %s", error)

    async def add_remote_candidate(self, remote_candidate: AioiceCandidate | None) -> None:
        """A candidate of the peer's; None says that no more come. What is of no use to us is
        dropped. Raises ValueError after the end."""
        if self._remote_end:
            raise ValueError("no candidate can be added after the end of candidates")
        if self._closed:
            return
        if remote_candidate is None:
            self._remote_end = True
            if self._remote_known:
                self.ice.add_remote_candidate(None)
            return
        where = (remote_candidate.transport, remote_candidate.host, remote_candidate.port)
        known = {(c.transport, c.host, c.port) for c in self._remote_candidates}
        if where in known or len(known) >= MAX_REMOTE_CANDIDATES:
            return
        remote_candidate = copy.copy(remote_candidate)
        self._remote_candidates.append(remote_candidate)
        if self._remote_known:
            self._give(remote_candidate)

    def _give(self, remote_candidate: AioiceCandidate) -> None:
        try:
            self.ice.add_remote_candidate(f"candidate:{remote_candidate.to_sdp()}")
        except InvalidDescription as error:
            logger.debug("a candidate of the peer's is dropped: %s", error)

    async def connect(self) -> None:
        """Check until datagrams can flow both ways: a pair is valid, and the peer checks too, so
        that it has our parameters. Raises ConnectionError when they can not."""
        if self.remote_username is None or self.remote_password is None:
            raise ConnectionError("the peer's user name and password are not known")
        try:
            self._set_remote_parameters(self.remote_username, self.remote_password)
            await self.ice.connect()
            # An early check of ours is answered before the peer has seen our description.
            while not (self.ice.peer_checks or self.ice.selected_pair or self._inbox.held):
                await asyncio.sleep(PEER_LOOKS)
                await self.ice.connect()  # raises if it has failed meanwhile
        except IcePunchError as error:
            self.failure = self.failure or error
            raise ConnectionError(str(error)) from error
        self._connected = True

    def _set_remote_parameters(self, username: str, password: str) -> None:
        self.ice.set_remote_description(
            Description(username, password, options=self.remote_options, lite=self.remote_is_lite)
        )
        self._remote_known = True
        self._takes_turns = not set(self.remote_options) >= OURS
        for candidate in self._remote_candidates:
            self._give(candidate)
        if self._remote_end:
            self.ice.add_remote_candidate(None)

    # -- restarts ---------------------------------------------------------------------------------

    def restart(self, *, fresh_sockets: bool = False) -> None:
        """Begin an ICE restart with new ``local_username`` and ``local_password``: see
        `IceConnection.restart`. Raises RestartRefused."""
        self.ice.restart(fresh_sockets=fresh_sockets)

    def remote_restarts(self, username: str, password: str) -> bool:
        """Whether these are a new generation of the peer's, where one is known already."""
        known = (self.remote_username, self.remote_password)
        return self._remote_known and known != (username, password)

    def restart_remote(self, username: str, password: str) -> None:
        """The peer's restart, or its answer to ours: its candidates begin anew. Raises
        InvalidDescription or RestartRefused."""
        self._remote_candidates.clear()
        self._remote_end = False
        self._set_remote_parameters(username, password)
        self.remote_username, self.remote_password = username, password

    # -- datagrams --------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Send a datagram; raises ConnectionError if there is no connection."""
        ice = self._ice
        if ice is None or not self._connected:
            raise ConnectionError("there is no connection to send on")
        try:
            # Each at once: aiortc's own receivers take datagrams one by one, and lose most of what
            # comes in bursts. Larger ones than are sure to fit are RTP; they are tried.
            ice.carrier.send_record(data)
        except IcePunchError as error:
            raise ConnectionError(str(error)) from error
        self._sent += 1
        self._sent_bytes += len(data)

    async def recv(self) -> bytes:
        """Wait for the next datagram; raises ConnectionError if there is no connection."""
        if self._takes_turns:
            self._reads += 1
            if not self._reads % READS_IN_TURN:
                await asyncio.sleep(0)
        return await self._inbox.get()

    def _raise_end(self) -> None:
        if self._closed or self._over.is_set():
            raise ConnectionError("the connection is over")
        if not self._connected:
            raise ConnectionError("there is no connection to receive from")

    # -- the end ----------------------------------------------------------------------------------

    async def _observe(self, ice: IceConnection) -> None:
        async for event in ice.events():
            if isinstance(event, StateChanged) and event.state is IceState.FAILED:
                try:
                    await ice.connect()  # says why
                except IcePunchError as error:
                    self.failure = self.failure or error
                self._end()

    def _end(self) -> None:
        if self._connected or self._closed:
            self._over.set()
            self._inbox.wake()

    async def get_event(self) -> ConnectionClosed | None:
        """Wait for the end of the connection; None once that has been told."""
        if self._told:
            return None
        await self._over.wait()
        self._told = True
        return ConnectionClosed()

    async def close(self) -> None:
        """End the session and free its sockets. May be called again."""
        self._closed = True
        self._end()
        if self._ice is not None:
            await self._ice.close()
        if self._observer is not None:
            self._observer.cancel()


def to_aioice(candidate: Candidate) -> AioiceCandidate:
    """A candidate as aioice has it."""
    related = candidate.related_address
    return AioiceCandidate(
        foundation=candidate.foundation,
        component=candidate.component,
        transport=candidate.transport,
        priority=candidate.priority,
        host=candidate.host,
        port=candidate.port,
        type=candidate.type.value,
        related_address=None if related is None else related[0],
        related_port=None if related is None else related[1],
        tcptype=candidate.tcptype,
    )
