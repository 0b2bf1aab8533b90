"""A WebRTC peer for those who bring their own signaling: offers, answers, candidates."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType

from ice_punch.connection import IceConnection
from ice_punch.dtls import Certificate, DtlsMachine, DtlsRole, answer_setup, dtls_role
from ice_punch.errors import IcePunchError, InvalidDescription, RestartRefused
from ice_punch.ice import Candidate
from ice_punch.ice.advice import addresses_within
from ice_punch.inbox import RECEIVE_QUEUE
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.outbox import SEND_QUEUE
from ice_punch.sdp import (
    Description,
    Setup,
    format_candidate,
    make_tls_id,
    parse_candidate,
)
from ice_punch.webrtc.association import MAX_MESSAGE_SIZE
from ice_punch.webrtc.channel import WebRtcChannel
from ice_punch.webrtc.parameters import SctpParameters

GATHERING_TIME = 10.0
"""Seconds for candidates, where a description is to have all of them."""
TURNS = 8
"""Of the event loop, in which the candidates that are had for nothing come."""
MAX_EARLY = 128
"""Candidates held until the description that they belong to is set."""


@dataclass(frozen=True, slots=True)
class TrickledCandidate:
    """One of our candidates, as browsers have them (RTCIceCandidateInit)."""

    candidate: str
    """``candidate:...``; empty says that no more come (RFC 8838 section 14)."""
    sdp_mid: str
    sdp_mline_index: int
    username_fragment: str

    def to_json(self) -> dict[str, str | int]:
        """What ``RTCPeerConnection.addIceCandidate`` takes."""
        return {
            "candidate": self.candidate,
            "sdpMid": self.sdp_mid,
            "sdpMLineIndex": self.sdp_mline_index,
            "usernameFragment": self.username_fragment,
        }


class WebRtcPeer:
    """One side of a session with any WebRTC peer. ::

        async with WebRtcPeer(ice_servers=["stun:stun.example.org"]) as peer:
            send(await peer.create_offer())       # or: send(await peer.create_answer(offer))
            await peer.set_answer(await receive())
            channel = await peer.connect()
            data = await channel.open_channel("telemetry", ordered=False, max_retransmits=0)

    Leaving the block closes everything, the channel too.
    """

    def __init__(
        self,
        *,
        ice_servers: Iterable[IceServer | str] = (),
        options: GatheringOptions | None = None,
        certificate: Certificate | None = None,
        trickle: bool = True,
        negotiated: bool = False,
        receive_queue: int = RECEIVE_QUEUE,
        send_queue: int = SEND_QUEUE,
        newest_wins: bool = False,
    ) -> None:
        """Without ``trickle`` a description waits until all candidates are in it, 10 s at most.
        With ``negotiated`` both sides have the channels ``datagrams`` (stream 0) and ``messages``
        (stream 2) without opening them. Raises InvalidConfiguration for a bad URI."""
        given = options or GatheringOptions()
        servers = tuple(s if isinstance(s, IceServer) else IceServer.parse(s) for s in ice_servers)
        self._options = replace(given, ice_servers=given.ice_servers + servers)
        self._certificate = certificate or Certificate.generate()
        self._tls_id: str | None = make_tls_id(random.SystemRandom())
        self._trickle_wanted = trickle
        self._negotiated = negotiated
        self._receive_queue, self._send_queue = receive_queue, send_queue
        self._newest_wins = newest_wins
        self._connection: IceConnection | None = None
        self._offered = False
        """Whether an offer of ours waits for its answer."""
        self._setup = Setup.ACTPASS
        self._role: DtlsRole | None = None
        self._remote: Description | None = None
        self._shape: Description | None = None
        """The last offer of the peer's: every description of ours has its media sections."""
        self._early: deque[tuple[str | None, Candidate | None]] = deque(maxlen=MAX_EARLY)
        self._known = asyncio.Event()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._channel: WebRtcChannel | None = None
        self._opening: asyncio.Task[WebRtcChannel] | None = None
        self._closed = False

    # -- descriptions ---------------------------------------------------------------------------

    async def create_offer(self, *, restart: bool = False) -> str:
        """Our SDP as an offer. ``restart``: with an ICE restart (RFC 8445 section 9), once the
        session has connected.

        Raises RestartRefused at the wrong time, and the errors of gathering.
        """
        connection = self._begin(controlling=True)
        if self._remote is None and not self._offered:
            await _host_candidates(connection)
        if restart:
            connection.restart()
            await connection.addresses_known(addresses_within(fresh_sockets=False))
        self._offered = True
        return await self._describe(Setup.ACTPASS)

    async def set_answer(self, answer: str) -> None:
        """The peer's answer to the last offer.

        Raises InvalidDescription for one without a data channel, or that does not fit what was
        agreed on before; RestartRefused if there is no offer to answer.
        """
        if not self._offered:
            raise RestartRefused("there is no offer that this could answer")
        remote = self._checked(answer)
        assert remote.setup is not None
        self._agree(dtls_role(Setup.ACTPASS, remote.setup))
        self._offered = False
        self._take(remote)

    async def create_answer(self, offer: str) -> str:
        """Take an offer of the peer's: the first, one that restarts ICE, or one that changes
        nothing. Our SDP as the answer to it.

        Raises InvalidDescription as ``set_answer``, RestartRefused while an offer of ours waits
        for its answer, and the errors of gathering.
        """
        if self._offered:
            raise RestartRefused("an offer of this side waits for its answer")
        remote = self._checked(offer)
        assert remote.setup is not None
        first = self._role is None
        if first:
            self._setup = answer_setup(remote.setup)
            if remote.tls_id is None:
                self._tls_id = None  # RFC 8842 section 5.3
        connection = self._begin(controlling=False)
        if first:
            self._agree(dtls_role(self._setup, remote.setup))
            await _host_candidates(connection)
        elif self._remote is not None and remote.is_ice_restart(self._remote):
            if not connection.restarting:
                connection.restart(asked=True)
            await connection.addresses_known(addresses_within(fresh_sockets=False))
        self._shape = remote
        sdp = await self._describe(self._setup)
        self._take(remote)
        return sdp

    def _begin(self, *, controlling: bool) -> IceConnection:
        if self._closed:
            raise RestartRefused("this peer is closed")
        if self._connection is None:
            self._connection = IceConnection(
                controlling=controlling,
                options=self._options,
                receive_queue=self._receive_queue,
            )
            self._tasks = [
                asyncio.ensure_future(self._collect(self._connection)),
                asyncio.ensure_future(self._observe(self._connection)),
            ]
            self._known.set()
        return self._connection

    async def _describe(self, setup: Setup) -> str:
        connection = self._connection
        assert connection is not None
        if not self._trickle_wanted:
            await self._gathered(connection)
        description = connection.describe(
            setup=setup, fingerprints=self._certificate.fingerprints(), tls_id=self._tls_id
        )
        description = replace(description, max_message_size=MAX_MESSAGE_SIZE)
        if self._shape is not None:
            description = description.in_place_of(self._shape)
        self._news.set()
        return description.to_sdp()

    async def _gathered(self, connection: IceConnection) -> None:
        async def wait() -> None:
            async for _ in connection.gather():
                pass

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHERING_TIME):
                await wait()

    def _checked(self, sdp: str) -> Description:
        remote = Description.parse(sdp)
        SctpParameters.of(remote)
        if self._remote is not None and remote.fingerprints != self._remote.fingerprints:
            raise InvalidDescription("an ICE restart leaves DTLS as it is, certificates too")
        return remote

    def _agree(self, role: DtlsRole) -> None:
        if self._role is not None and role is not self._role:
            raise InvalidDescription("an ICE restart leaves DTLS as it is, roles too")
        self._role = role
        self._setup = Setup.ACTIVE if role is DtlsRole.CLIENT else Setup.PASSIVE

    def _take(self, remote: Description) -> None:
        assert self._connection is not None
        self._remote = remote
        self._connection.set_remote_description(remote)
        early, self._early = self._early, deque(maxlen=MAX_EARLY)
        for ufrag, candidate in early:
            self._add(ufrag, candidate)
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open(remote))
            self._opening.add_done_callback(_retrieved)

    # -- candidates -----------------------------------------------------------------------------

    async def candidates(self) -> AsyncIterator[TrickledCandidate]:
        """Our candidates as they are found, of every generation; an empty one when all of the
        first are there. Ends when the peer is closed. For one reader at a time."""
        told: set[str] = set()
        ufrag = ""
        while not self._closed:
            await self._known.wait()
            await self._news.wait()
            self._news.clear()
            if self._connection is None or self._closed:
                continue
            now = self._connection.describe()
            if now.ufrag != ufrag:
                told, ufrag = set(), now.ufrag
            lines = [format_candidate(candidate) for candidate in now.candidates]
            for line in lines + [""] * now.end_of_candidates:
                if line not in told:
                    told.add(line)
                    mid, index = self._place(now)
                    yield TrickledCandidate(line, mid, index, ufrag)

    def _place(self, described: Description) -> tuple[str, int]:
        """The mid of our media section, and how many are before it."""
        shape = self._shape or described
        return shape.mid, len(shape.before)

    def add_candidate(
        self, candidate: str | Mapping[str, object] | None, username_fragment: str | None = None
    ) -> None:
        """A candidate of the peer's: a ``candidate:`` line, or a dict as browsers make it; None or
        an empty line says that no more come. Those of another generation are kept until its
        description is set.

        Raises InvalidDescription for a line that breaks the grammar of RFC 8839.
        """
        if isinstance(candidate, Mapping):
            fragment = candidate.get("usernameFragment")
            username_fragment = fragment if isinstance(fragment, str) else username_fragment
            line = candidate.get("candidate")
            if line is not None and not isinstance(line, str):
                raise InvalidDescription("a candidate is a line of text")
        else:
            line = candidate
        parsed = None
        if line:
            parsed = parse_candidate(line.removeprefix("a="))
            if parsed is None:
                return
        self._add(username_fragment, parsed)

    def _add(self, ufrag: str | None, candidate: Candidate | None) -> None:
        remote = self._remote
        if remote is None or (ufrag and ufrag != remote.ufrag):
            self._early.append((ufrag, candidate))
            return
        assert self._connection is not None
        self._connection.add_remote_candidate(candidate)

    async def _collect(self, connection: IceConnection) -> None:
        with contextlib.suppress(IcePunchError):  # connect() raises it too
            async for _ in connection.gather():
                self._news.set()
        self._news.set()

    async def _observe(self, connection: IceConnection) -> None:
        async for _ in connection.events():
            self._news.set()

    # -- the session ----------------------------------------------------------------------------

    @property
    def connection(self) -> IceConnection | None:
        """The ICE session below; None before the first description is made."""
        return self._connection

    async def connect(self, timeout: float | None = None) -> WebRtcChannel:
        """Wait until data channels can be used; both descriptions must be there.

        Raises NoRoute, PeerSilent, HandshakeFailed, FingerprintMismatch or an error of gathering;
        TimeoutError after ``timeout`` s; RestartRefused before both descriptions are there.
        """
        if self._opening is None:
            raise RestartRefused("both descriptions are needed to connect")
        async with asyncio.timeout(timeout):
            return await asyncio.shield(self._opening)

    async def _open(self, remote: Description) -> WebRtcChannel:
        connection = self._connection
        assert connection is not None
        assert self._role is not None
        await connection.connect()
        path = connection.path
        machine = DtlsMachine(
            self._certificate,
            self._role,
            remote.fingerprints,
            mtu=connection.max_datagram_size,
            rtt=None if path is None else path.rtt,
            srtp=True,
        )
        self._channel = WebRtcChannel(
            connection,
            machine,
            SctpParameters.of(remote),
            negotiated=self._negotiated,
            receive_queue=self._receive_queue,
            send_queue=self._send_queue,
            newest_wins=self._newest_wins,
        )
        await self._channel.open()
        return self._channel

    async def close(self) -> None:
        """Tell the peer, and free everything. May be called again."""
        self._closed = True
        self._known.set()
        self._news.set()
        if self._channel is not None:
            await self._channel.close()
        if self._opening is not None:
            self._opening.cancel()
        for task in self._tasks:
            task.cancel()
        if self._connection is not None:
            await self._connection.close()

    async def __aenter__(self) -> WebRtcPeer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _host_candidates(connection: IceConnection) -> None:
    """They are there after a few turns of the event loop; the others trickle."""
    connection.start_gathering()
    for _ in range(TURNS):
        if connection.local_candidates:
            return
        await asyncio.sleep(0)


def _retrieved(task: asyncio.Task[WebRtcChannel]) -> None:
    """``connect`` raises what went wrong; nobody waiting is no fault."""
    if not task.cancelled():
        task.exception()
