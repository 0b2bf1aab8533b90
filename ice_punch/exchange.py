"""What two sides tell each other: descriptions, candidates as they come, restarts."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ice_punch.driver import SYSTEM_RANDOM, AgentDriver
from ice_punch.errors import (
    GatheringFailed,
    IcePunchError,
    InvalidDescription,
    RestartRefused,
)
from ice_punch.ice import (
    Candidate,
    CandidateType,
    Credentials,
    LocalCandidateFound,
    ServerQueryEnded,
)
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.monitor import NetworkChanged
from ice_punch.net.remote_candidates import RemoteCandidates
from ice_punch.net.roaming import Roaming
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

ADDRESS_LOOKS = 0.005
"""Seconds."""


@dataclass(slots=True)
class Timings:
    """Where the time went, in seconds; None where it has not come to that."""

    gathering: float | None = None
    """From the start of gathering to its end or to the first valid pair, whichever was first."""
    checks: float | None = None
    """From knowing both sides' parameters to the first valid pair."""


class Exchange(ABC):
    """Our side of offer and answer (RFC 8839) over an agent and its sockets. `IceConnection` adds
    what comes of it."""

    def __init__(self, driver: AgentDriver, options: GatheringOptions) -> None:
        self._driver = driver
        self._agent = driver.agent
        self._options = options
        self._loop = asyncio.get_running_loop()
        self.timings = Timings()
        self._roaming = Roaming(driver.gatherer, options, on_change=self._publish)
        self._gathering: asyncio.Task[None] | None = None
        self._gathered: list[Candidate] = []
        self._gathered_more: asyncio.Event | None = None
        """While somebody waits for the next candidate."""
        self._gathering_started: float | None = None
        self._gathering_over = False
        self._remote: Description | None = None
        self._remote_since: float | None = None
        self._remote_candidates = RemoteCandidates(
            driver.gatherer,
            relay_only=options.relay_only,
            on_candidate=self._add_resolved,
            on_end=self._end_of_remote_candidates,
        )
        self._restarts = 0
        self._closed = False

    @abstractmethod
    def _publish(self, event: LocalCandidateFound | NetworkChanged) -> None:
        """Tell whoever listens."""

    @abstractmethod
    def _fail(self, error: IcePunchError) -> None:
        """The session has come to its end."""

    @abstractmethod
    def _raise_failure(self) -> None:
        """Raise what ended the session, if it has ended."""

    @property
    @abstractmethod
    def _may_restart(self) -> bool:
        """Whether there is anything to restart."""

    def report(self) -> Report:
        """Everything known about the session: candidates, pairs, servers, and what was noticed."""
        return self._driver.gatherer.report()

    # -- our candidates -----------------------------------------------------------------------

    def start_gathering(self) -> None:
        """Begin to gather, without waiting. ``gather`` and ``connect`` do it by themselves."""
        if self._gathering_started is None and not self._closed:
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
            self._gathering = None
            self._note_gathering_time()
            self._wake_gatherers()

    def _wake_gatherers(self) -> None:
        more, self._gathered_more = self._gathered_more, None
        if more is not None:
            more.set()

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
            if self._gathered_more is None:
                self._gathered_more = asyncio.Event()
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

    def _local_candidate_found(self, candidate: Candidate) -> None:
        hidden = self._driver.gatherer.hidden
        if hidden is not None and candidate.type is not CandidateType.PRFLX:
            candidate = hidden.shown(candidate)
        if candidate.type is not CandidateType.PRFLX and not self._gathering_over:
            self._gathered.append(candidate)
            self._wake_gatherers()
        self._publish(LocalCandidateFound(candidate))

    def _server_answered(self, event: ServerQueryEnded) -> None:
        gatherer = self._driver.gatherer
        gatherer.queries_changed()
        if gatherer.hidden is not None:
            public = gatherer.hidden.public_candidate(event, self._agent.local_candidates)
            if public is not None:
                self._local_candidate_found(public)

    def _stop_gathering(self) -> list[asyncio.Task[None]]:
        """The tasks that have yet to stop."""
        tasks = self._remote_candidates.close()
        if self._gathering is not None:
            self._gathering.cancel()
            tasks.append(self._gathering)
        self._wake_gatherers()
        return tasks

    # -- descriptions -------------------------------------------------------------------------

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

    @property
    def remote_description(self) -> Description | None:
        return self._remote

    # -- the peer's candidates ----------------------------------------------------------------

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

    # -- restarts -----------------------------------------------------------------------------

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
    def restarting(self) -> bool:
        """Whether a restart of ours waits for the peer's new description."""
        return self._agent.restarting

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
        credentials = Credentials(make_ufrag(SYSTEM_RANDOM), make_pwd(SYSTEM_RANDOM))
        try:
            self._agent.restart(credentials, self._loop.time(), fresh_sockets=fresh_sockets)
        except ValueError as error:
            raise RestartRefused(str(error)) from None
        self._restarts += 1
        if fresh_sockets:
            self._driver.gatherer.open_fresh_sockets()


def _ice_options(description: Description) -> tuple[object, ...]:
    return (frozenset(description.options), description.pacing, description.lite)
