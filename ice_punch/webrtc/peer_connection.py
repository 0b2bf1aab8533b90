"""aiortc's RTCPeerConnection on our agent: the same class above ICE, another ICE below."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from types import FunctionType
from typing import Any

from aiortc import RTCConfiguration, RTCIceCandidate, RTCPeerConnection, RTCSessionDescription
from aiortc import sdp as aiortc_sdp
from aiortc.rtcconfiguration import RTCIceServer
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.stats import RTCStatsReport

from ice_punch.connection import IceConnection
from ice_punch.errors import ExtraMissing, IcePunchError, InvalidConfiguration
from ice_punch.ice import AgentConfig
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.sdp.attributes import OPTION
from ice_punch.webrtc.ice_gatherer import IceGatherer, servers_of
from ice_punch.webrtc.path_stats import path_stats
from ice_punch.webrtc.sctp_transport import SctpTransport

Ports = tuple[int, int]

_MAKE_TRANSPORT = "_RTCPeerConnection__createDtlsTransport"
_MAKE_SCTP = "_RTCPeerConnection__createSctpTransport"
"""The methods of aiortc's class that make gatherers, and SCTP transports. Everything else of it is
as it is."""


class PeerConnection(RTCPeerConnection):
    """An ``RTCPeerConnection`` whose ICE is ours; `peer_connection` makes one.

    What it has besides: the event ``icecandidate`` (an ``RTCIceCandidate``, or None when all are
    there), ``restartIce``, ``ice_connections``, ``ice_failure``, and the path in ``getStats``.
    """

    def __init__(
        self,
        configuration: RTCConfiguration | None = None,
        *,
        ice_servers: Sequence[IceServer],
        options: GatheringOptions,
        agent_config: AgentConfig | None,
        trickle: bool | None,
    ) -> None:
        configured = None if configuration is None else configuration.iceServers
        servers = (*options.ice_servers, *ice_servers, *servers_of(configured or ()))
        self._options = replace(options, ice_servers=servers)
        self._agent_config = agent_config
        self._trickle = trickle
        self._found: list[tuple[IceGatherer, RTCIceCandidate | None]] = []
        self._holding = False
        super().__init__(configuration)

    # -- other gatherers in aiortc's place --------------------------------------------------------

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802
        ours = _with_name(_MAKE_TRANSPORT, "RTCIceGatherer", self._make_gatherer)
        transport: RTCDtlsTransport = ours(self)
        return transport

    def _RTCPeerConnection__createSctpTransport(self) -> None:  # noqa: N802
        _with_name(_MAKE_SCTP, "RTCSctpTransport", SctpTransport)(self)

    def _make_gatherer(self, iceServers: list[RTCIceServer] | None = None, **more: Any) -> object:  # noqa: N803
        # The configuration's servers are among the options already.
        gatherer = IceGatherer(
            options=self._options,
            agent_config=self._agent_config,
            trickles=self._trickles,
            **more,
        )
        gatherer.on("icecandidate", partial(self._candidate_found, gatherer))
        return gatherer

    def _trickles(self) -> bool:
        listened = bool(self.listeners("icecandidate"))
        return listened if self._trickle is None else self._trickle

    # -- candidates as they come ------------------------------------------------------------------

    async def setLocalDescription(  # noqa: N802
        self,
        sessionDescription: RTCSessionDescription | None = None,  # noqa: N803
    ) -> None:
        """As of aiortc. While candidates trickle it returns with the first of them; otherwise when
        all are there. The ``icecandidate`` events come after it, in either case. Raises the errors
        of `IceConnection.gather` where there are none."""
        self._holding = True
        try:
            await super().setLocalDescription(sessionDescription)
        finally:
            self._holding = False
            asyncio.get_running_loop().call_soon(self._tell)

    def _candidate_found(self, gatherer: IceGatherer, candidate: RTCIceCandidate | None) -> None:
        self._found.append((gatherer, candidate))
        if not self._holding:
            self._tell()

    def _tell(self) -> None:
        """Hand on what was found, once it is known which media it is for."""
        description: RTCSessionDescription | None = super().localDescription
        if self._holding or description is None:
            return
        found, self._found = self._found, []
        places: dict[IceGatherer, tuple[str, int]] = {}
        gatherers = self._gatherers_by_mid()
        for index, media in enumerate(aiortc_sdp.SessionDescription.parse(description.sdp).media):
            mid = media.rtp.muxId
            if mid in gatherers:
                places.setdefault(gatherers[mid], (mid, index))
        for gatherer, candidate in found:
            if gatherer not in places:
                continue  # its media was bundled with another's
            if candidate is not None:
                candidate.sdpMid, candidate.sdpMLineIndex = places[gatherer]
                self.emit("icecandidate", candidate)
            elif all(each.state == "completed" for each in places):
                self.emit("icecandidate", None)

    @property
    def localDescription(self) -> RTCSessionDescription:  # noqa: N802
        """As of aiortc, with the candidates that were found since it was set."""
        description: RTCSessionDescription | None = super().localDescription
        if description is None:
            return None  # type: ignore[return-value]  # aiortc's own annotation
        session = aiortc_sdp.SessionDescription.parse(description.sdp)
        gatherers = self._gatherers_by_mid()
        for media in session.media:
            gatherer = gatherers.get(media.rtp.muxId)
            if gatherer is None or not gatherer.connection.begun:
                continue
            ours = gatherer.connection.ice.describe(candidates=False)
            media.ice_options = " ".join(ours.options)
            if media.ice is not None and media.ice.usernameFragment == ours.ufrag:
                media.ice_candidates = gatherer.getLocalCandidates()
                media.ice_candidates_complete = gatherer.state == "completed"
        return RTCSessionDescription(sdp=str(session), type=description.type)

    # -- the peer's description, and restarts -----------------------------------------------------

    async def setRemoteDescription(self, sessionDescription: RTCSessionDescription) -> None:  # noqa: N802, N803
        """As of aiortc; other ICE parameters than before are the peer's restart, or its answer to
        ours. Raises InvalidDescription if it changes only one of ufrag and password."""
        kind = sessionDescription.type
        expected = {"offer": ("stable", "have-remote-offer"), "answer": ("have-local-offer",)}
        media_of = aiortc_sdp.SessionDescription.parse(sessionDescription.sdp).media
        if self.signalingState in expected.get(kind, ()):
            gatherers = self._gatherers_by_mid()
            restarted: set[IceGatherer] = set()
            for media in media_of:
                gatherer = gatherers.get(media.rtp.muxId)
                if gatherer is None or gatherer in restarted or media.ice is None:
                    continue
                name, password = media.ice.usernameFragment, media.ice.password
                if name and password and gatherer.connection.remote_restarts(name, password):
                    restarted.add(gatherer)
                    gatherer.connection.remote_options = _options(media.ice_options)
                    gatherer.restart_remote(name, password)
        await super().setRemoteDescription(sessionDescription)
        # The checks begin in a task that has yet to run.
        gatherers = self._gatherers_by_mid()
        for media in media_of:
            gatherer = gatherers.get(media.rtp.muxId)
            if gatherer is not None:
                gatherer.connection.remote_options = _options(media.ice_options)

    def restartIce(self) -> None:  # noqa: N802
        """Begin an ICE restart (RFC 8445 section 9): the next offer carries the new parameters.
        Data goes on where it goes until the new path is selected. Raises RestartRefused before the
        first path, and while another restart waits for the peer."""
        for gatherer in self._gatherers():
            gatherer.restart()

    # -- what there is to see ---------------------------------------------------------------------

    @property
    def ice_connections(self) -> tuple[IceConnection, ...]:
        """The ICE sessions, one for each transport; with bundled media it is one. Their events,
        path, figures and reports are there for reading."""
        return tuple(g.connection.ice for g in self._gatherers() if g.connection.begun)

    @property
    def ice_failure(self) -> IcePunchError | None:
        """Why ``iceConnectionState`` is ``failed``; None before."""
        return next((g.connection.failure for g in self._gatherers() if g.connection.failure), None)

    async def getStats(self) -> RTCStatsReport:  # noqa: N802
        """As of aiortc, with the transport of data channels too, and for every transport the pair
        that carries data and its candidates."""
        report = await super().getStats()
        for transport in dict.fromkeys(self._transports_by_mid().values()):
            report.update(transport._get_stats())
            gatherer = transport.transport.iceGatherer
            if isinstance(gatherer, IceGatherer) and gatherer.connection.begun:
                for entry in path_stats(gatherer.connection, transport._stats_id):
                    report.add(entry)
        return report

    def _transports_by_mid(self) -> dict[str, RTCDtlsTransport]:
        found = {t.mid: t.receiver.transport for t in self.getTransceivers()}
        if self.sctp is not None:
            found[self.sctp.mid] = self.sctp.transport
        return {mid: transport for mid, transport in found.items() if mid is not None}

    def _gatherers_by_mid(self) -> dict[str, IceGatherer]:
        gatherers = {m: t.transport.iceGatherer for m, t in self._transports_by_mid().items()}
        return {mid: g for mid, g in gatherers.items() if isinstance(g, IceGatherer)}

    def _gatherers(self) -> list[IceGatherer]:
        return list(dict.fromkeys(self._gatherers_by_mid().values()))


def peer_connection(
    configuration: RTCConfiguration | None = None,
    *,
    ice_servers: Iterable[IceServer | str] = (),
    options: GatheringOptions | None = None,
    port_range: Ports | None = None,
    agent_config: AgentConfig | None = None,
    trickle: bool | None = None,
) -> PeerConnection:
    """An ordinary ``aiortc.RTCPeerConnection`` that runs on our agent.

    All ``ice_servers``, and all of ``configuration.iceServers``, are used; where neither names any
    none is asked. ``port_range`` is the first and last UDP port to bind, in place of that of
    ``options``; ``agent_config`` is as of `IceConnection`. ``trickle``: ``setLocalDescription``
    returns before all candidates are there, and the others come as ``icecandidate`` events; by
    default it does so where somebody listens for that event. Raises InvalidConfiguration for a bad
    URI or port range.
    """
    if not (hasattr(RTCPeerConnection, _MAKE_TRANSPORT) and hasattr(RTCPeerConnection, _MAKE_SCTP)):
        raise ExtraMissing(
            f"ice_punch.webrtc.peer_connection does not know aiortc {version('aiortc')}: "
            "pip install 'ice-punch[webrtc]'"
        )
    given = options or GatheringOptions()
    if port_range is not None:
        first, last = port_range
        if not 1 <= first <= last <= 65535:
            raise InvalidConfiguration(f"{first}-{last} is no range of ports from 1 to 65535")
        given = replace(given, port_range=port_range)
    servers = [s if isinstance(s, IceServer) else IceServer.parse(s) for s in ice_servers]
    return PeerConnection(
        configuration,
        ice_servers=servers,
        options=given,
        agent_config=agent_config,
        trickle=trickle,
    )


def _with_name(method: str, name: str, value: object) -> FunctionType:
    """A method of aiortc's class in whose globals a name is another's."""
    theirs = getattr(RTCPeerConnection, method)
    names = {**theirs.__globals__, name: value}
    return FunctionType(theirs.__code__, names, closure=theirs.__closure__)


def _options(ice_options: str | None) -> tuple[str, ...]:
    return tuple(re.findall(OPTION, ice_options or ""))
