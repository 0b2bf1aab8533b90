"""aiortc's ICE gatherer on our agent: any number of servers, candidates as they come, restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from aioice import TransportPolicy
from aiortc.rtcconfiguration import RTCIceServer, RTCIceTransportPolicy
from aiortc.rtcicetransport import RTCIceGatherer, candidate_from_aioice

from ice_punch.connection import IceConnection
from ice_punch.errors import ChannelClosed, InvalidConfiguration
from ice_punch.ice import AgentConfig, Candidate, CandidateType, LocalCandidateFound
from ice_punch.ice.advice import addresses_within
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.webrtc.aioice_connection import AioiceConnection, to_aioice


class IceGatherer(RTCIceGatherer):
    """Takes the place of an ``RTCIceGatherer``, in aiortc's ``RTCIceTransport`` too.

    Emits ``icecandidate`` with each ``RTCIceCandidate`` of ours as it is found, and with None when
    all are there.
    """

    _connection: AioiceConnection  # type: ignore[assignment]

    def __init__(
        self,
        iceServers: list[RTCIceServer] | None = None,  # noqa: N803
        iceTransportPolicy: RTCIceTransportPolicy = RTCIceTransportPolicy.ALL,  # noqa: N803
        local_username: str | None = None,
        local_password: str | None = None,
        *,
        options: GatheringOptions | None = None,
        agent_config: AgentConfig | None = None,
        trickles: Callable[[], bool] = lambda: False,
    ) -> None:
        """No server is asked unless it is named. While ``trickles()``, ``gather`` returns with the
        first candidate. Raises InvalidConfiguration for a bad URI."""
        super().__init__([], iceTransportPolicy)
        relay_only = iceTransportPolicy is RTCIceTransportPolicy.RELAY
        self._connection = AioiceConnection(
            False,
            transport_policy=TransportPolicy.RELAY if relay_only else TransportPolicy.ALL,
            local_username=local_username,
            local_password=local_password,
            ice_servers=servers_of(iceServers or ()),
            options=options,
            agent_config=agent_config,
        )
        self._trickles = trickles
        self._state = "new"
        self._gathering: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._emitted: set[Candidate] = set()

    @property
    def state(self) -> str:
        """``new``, ``gathering`` or ``completed``."""
        return self._state

    @property
    def connection(self) -> AioiceConnection:
        return self._connection

    async def gather(self) -> None:
        """Gather: to the end, or to the first candidate. Raises the errors of
        `IceConnection.gather` where there is none."""
        if self._state == "new":
            self._begin(self._collect(self._connection.ice))
        gathering = self._gathering
        assert gathering is not None
        if self._trickles():
            await self._first.wait()
            if not gathering.done():
                return
        await asyncio.shield(gathering)

    def restart(self, *, fresh_sockets: bool = False) -> None:
        """Begin an ICE restart: other parameters, and candidates told anew. Raises
        RestartRefused."""
        self._connection.restart(fresh_sockets=fresh_sockets)
        self._gather_again(fresh_sockets=fresh_sockets)

    def restart_remote(self, username: str, password: str) -> None:
        """The peer's restart, or its answer to ours."""
        before = self._connection.local_username
        self._remote_candidates_end = False
        self._connection.restart_remote(username, password)
        if self._connection.local_username != before:
            self._gather_again(fresh_sockets=False)

    def _gather_again(self, *, fresh_sockets: bool) -> None:
        self._emitted.clear()
        within = addresses_within(fresh_sockets=fresh_sockets)
        self._begin(self._collect_again(self._connection.ice, within))

    def _begin(self, collecting: Coroutine[Any, Any, None]) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = asyncio.ensure_future(collecting)
        self._gathering.add_done_callback(_retrieved)
        self._set_state("gathering")

    async def _collect(self, ice: IceConnection) -> None:
        try:
            with contextlib.suppress(ChannelClosed):
                async for candidate in ice.gather():
                    self._found(candidate)
        finally:
            self._complete()

    async def _collect_again(self, ice: IceConnection, within: float) -> None:
        """Candidates stay, and the servers are asked anew."""
        watching = asyncio.ensure_future(self._watch(ice))
        for candidate in ice.local_candidates:
            self._found(candidate)
        try:
            await ice.addresses_known(within)
        finally:
            watching.cancel()
        self._complete()

    async def _watch(self, ice: IceConnection) -> None:
        async for event in ice.events():
            if isinstance(event, LocalCandidateFound):
                self._found(event.candidate)

    def _found(self, candidate: Candidate) -> None:
        if candidate.type is CandidateType.PRFLX or candidate in self._emitted:
            return
        self._emitted.add(candidate)
        self._first.set()
        self.emit("icecandidate", candidate_from_aioice(to_aioice(candidate)))

    def _complete(self) -> None:
        self._first.set()
        self._set_state("completed")
        self.emit("icecandidate", None)

    def _set_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self.emit("statechange")


def servers_of(servers: Iterable[RTCIceServer]) -> list[IceServer]:
    """All of them, of aiortc's configuration. Raises InvalidConfiguration."""
    found = []
    for server in servers:
        if server.credentialType != "password":
            raise InvalidConfiguration(
                f"the credential type {server.credentialType!r} is not known: only 'password' is"
            )
        for uri in [server.urls] if isinstance(server.urls, str) else server.urls:
            found.append(IceServer.parse(uri, server.username, server.credential))
    return found


def _retrieved(task: asyncio.Task[None]) -> None:
    """``gather`` raises what went wrong; nobody waiting is no fault."""
    if not task.cancelled():
        task.exception()
