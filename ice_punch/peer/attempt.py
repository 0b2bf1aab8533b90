"""One attempt of two peers to reach each other: descriptions, trickled candidates, ICE, DTLS."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from ice_punch.channel import Channel
from ice_punch.connection import IceConnection
from ice_punch.diagnosis import Cause, Diagnosis, Side
from ice_punch.dtls import Certificate, DtlsMachine, answer_setup, dtls_role
from ice_punch.errors import (
    HandshakeFailed,
    IcePunchError,
    InvalidDescription,
    NoRoute,
    PeerSilent,
    SignalingFailed,
    WrongSecret,
)
from ice_punch.ice import Candidate, IceState, LocalCandidateFound, RestartAdvised
from ice_punch.net.ice_server import IceServer
from ice_punch.peer.options import PeerOptions, RemoteCandidateFound, SignalingChanged
from ice_punch.peer.post import Candidates, Goodbye, Offer, Post, Restart
from ice_punch.peer.restarting import Restarts, way_of_a_letter
from ice_punch.peer.transports import TransportChoice
from ice_punch.report import Report, Told
from ice_punch.sdp import Description, Fragment, Setup, make_tls_id
from signaling.errors import SealBroken, SignalingError
from signaling.events import Unavailable
from signaling.messages import ErrorCode, Kind
from signaling.negotiation import AskForOffer, MakeOffer, Negotiation

MAX_EARLY_FRAGMENTS = 32
WRONG_SECRET = (
    "the peer does not have this link's secret (the part after '#'), or the signaling server "  # noqa: S105
    "alters what it passes on"
)


class Attempt:
    """Runs from an offer, ours or the peer's, to an open channel or a typed error.

    ``offerer`` is the peer with the larger order in the room; the other ``asks`` for the offer if
    the attempt is of its making.
    """

    def __init__(
        self,
        post: Post,
        options: PeerOptions,
        *,
        offerer: bool,
        asks: bool = False,
        ice_servers: tuple[IceServer, ...] = (),
        signaling_host: str = "",
        server_rtt: float | None = None,
        began: float | None = None,
    ) -> None:
        self.post = post
        self.channel: Channel | None = None
        self._options = options
        self._asks = asks
        # RFC 8840 section 4.4: each fragment repeats those before it, so the newest are kept.
        self.negotiation = Negotiation[Fragment](offers=offerer, max_waiting=MAX_EARLY_FRAGMENTS)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time() if began is None else began
        self._connection = IceConnection(
            controlling=offerer,
            options=options.gathering(ice_servers),
            receive_queue=options.receive_queue,
            send_queue=options.send_queue,
            newest_wins=options.newest_wins,
            record=options.record,
        )
        if signaling_host:
            self._connection.note_tcp(signaling_host)
        self._certificate = Certificate.generate() if options.encrypt else None
        self._tls_id = make_tls_id(random.SystemRandom()) if options.encrypt else None
        self._setup = Setup.ACTPASS  # RFC 8842 section 5.2
        self._server_rtt = server_rtt
        self._letter: Offer | None = None
        self._transport = TransportChoice(options.transports, encrypt=options.encrypt)
        self._restarts = Restarts(
            self._connection,
            self.negotiation,
            describe=self._describe_restart,
            ask=self._ask_for_restart,
            take=self._take_description,
            way=self._way,
        )
        self._remote: asyncio.Future[Description] = self._loop.create_future()
        self._current_remote: Description | None = None
        """The peer's description of the current generation."""
        self._remote_candidates: set[Candidate] = set()
        self._trickling: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._steps: set[asyncio.Task[None]] = set()
        """Of restarts that are under way."""
        self._goodbye: asyncio.Task[None] | None = None
        self._opened = False
        self._refusal = ""

    @property
    def _offerer(self) -> bool:
        return self.negotiation.offers

    # -- from offer to channel ----------------------------------------------------------------

    async def run(self) -> Channel:
        """Raises every error of gathering, ICE, DTLS and signaling, each as its own type."""
        try:
            async with asyncio.timeout(self._options.timeout):
                return await self._run()
        except TimeoutError:
            error = self._timed_out()
            self._connection.note_failure(error)
            await self._abandon("reject", _goodbye(error))
            raise error from None
        except SignalingError as error:
            await self._abandon("bye", Goodbye())
            raise SignalingFailed(str(error)) from error
        except IcePunchError as error:
            self._connection.note_failure(error)
            no = Goodbye(self._refusal) if self._refusal else _goodbye(error)
            await self._abandon("reject", no)
            raise
        except BaseException:
            await self._abandon("bye", Goodbye())
            raise

    async def _run(self) -> Channel:
        self._tasks.append(asyncio.ensure_future(self._observe()))
        self._tasks.append(asyncio.ensure_future(self._collect()))
        await asyncio.sleep(0)  # host candidates are there after one turn of the loop
        if self._offerer or self._asks:
            await self._begin()
            remote = await self._answer()
        else:
            remote = await self._remote
        if self._offerer:
            self._check_encryption(remote)
            await self._settle_transport(remote)
        else:
            if remote.setup is not None:
                self._setup = answer_setup(remote.setup)
            if remote.tls_id is None:
                self._tls_id = None  # RFC 8842 section 5.3
            self._check_encryption(remote)
            await self._settle_transport(remote)
            await self._describe("answer")
        signaling_time = self._loop.time() - self._began
        self._options.observe(SignalingChanged("answered"))
        # The peer that answers waits until the other one has its answer: checks that reach a router
        # before its own host has sent anything may spoil the port for it.
        start_at = self._loop.time() + (0.0 if self._offerer else self._way())
        self._take_description(remote, self.negotiation.generation, start_at)
        await self._reach()
        self.channel = self._transport.make_channel(
            self._connection,
            self._dtls(remote),
            remote,
            receive_queue=self._options.receive_queue,
            send_queue=self._options.send_queue,
            newest_wins=self._options.newest_wins,
        )
        self.channel.on_closed(self._channel_closed)
        self.channel.set_restart(
            lambda: self._restarts.advised(RestartAdvised("the application wants it"))
        )
        await self.channel.open(signaling_time)
        self._opened = True
        return self.channel

    async def _settle_transport(self, remote: Description) -> None:
        letter = self._letter
        try:
            await self._transport.settle(None if letter is None else letter.transports, remote)
        finally:
            self._refusal = self._transport.refusal

    async def _begin(self) -> None:
        match self.negotiation.begin(self._loop.time()):
            case MakeOffer():
                await self._describe("offer")
            case AskForOffer(generation=generation):
                await self.post.send("restart", Restart(), generation)

    async def _reach(self) -> None:
        try:
            await self._connection.connect()
        except PeerSilent as error:
            if self._connection.state is not IceState.FAILED:
                raise
            # It was not silent in signaling: there is no way to it.
            raise NoRoute(str(error), error.report, diagnosis=error.diagnosis) from None

    async def _describe(self, kind: Kind) -> None:
        certificate = self._certificate
        description = self._connection.describe(
            setup=self._setup if certificate else None,
            fingerprints=certificate.fingerprints() if certificate else (),
            tls_id=self._tls_id,
        )
        size = self._transport.max_message_size if certificate else None
        description = replace(description, max_message_size=size)
        if kind == "answer":
            description = description.in_place_of(self._current_remote or self._remote.result())
        sdp = description.to_sdp()
        offer = Offer(sdp, self._server_rtt, self._transport.names)
        await self.post.send(kind, offer, self.negotiation.generation)
        if kind == "answer":
            self.negotiation.answered()
        elif not self.negotiation.generation:
            self._options.observe(SignalingChanged("offered"))
        self._trickle_on()

    # -- restarts -----------------------------------------------------------------------------

    async def _describe_restart(self, offer: bool) -> None:
        # RFC 8842 section 5.5: the DTLS association stays, and so do roles and fingerprints.
        await self._describe("offer" if offer else "answer")

    async def _ask_for_restart(self, generation: int, reason: str) -> None:
        await self.post.send("restart", Restart(reason), generation)

    def _take_description(
        self, remote: Description, generation: int, start_at: float | None
    ) -> None:
        self._current_remote = remote
        self._observe_remote(remote.candidates)
        self._connection.set_remote_description(remote, start_at=start_at)
        now = self._loop.time()
        for fragment in self.negotiation.description_set(generation, remote.ufrag, now):
            self._take_fragment(fragment, remote)

    def _way(self) -> float:
        theirs = None if self._letter is None else self._letter.server_rtt
        return way_of_a_letter(self._server_rtt, theirs)

    def _restart(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a step of a restart. What goes wrong with it leaves the session as it was."""
        step = asyncio.ensure_future(self._carefully(work))
        self._steps.add(step)
        step.add_done_callback(self._steps.discard)

    async def _carefully(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(IcePunchError, SignalingError):
            await work

    async def _answer(self) -> Description:
        """What the peer answers to our first word, unless gathering fails before it comes."""
        failing = asyncio.ensure_future(self._connection.connect())
        try:
            waited: set[asyncio.Future[Any]] = {self._remote, failing}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()
            return await self._remote
        finally:
            failing.cancel()

    def _check_encryption(self, remote: Description) -> None:
        if self._certificate is not None and not remote.fingerprints:
            self._refusal = "it insists on encryption"
            raise HandshakeFailed("the peer does not encrypt and this side insists on it")
        if self._certificate is not None and remote.setup is None:
            raise InvalidDescription("the peer's description has a fingerprint but no setup")
        if self._certificate is None and remote.fingerprints:
            self._refusal = "it was told not to encrypt"
            raise HandshakeFailed("the peer insists on encryption and this side was told not to")

    def _dtls(self, remote: Description) -> DtlsMachine | None:
        if self._certificate is None:
            return None
        assert remote.setup is not None
        path = self._connection.path
        return DtlsMachine(
            self._certificate,
            dtls_role(self._setup, remote.setup),
            remote.fingerprints,
            mtu=self._connection.max_datagram_size,
            rtt=None if path is None else path.rtt,
            srtp=self._transport.is_webrtc,
        )

    # -- our candidates -----------------------------------------------------------------------

    async def _collect(self) -> None:
        with contextlib.suppress(IcePunchError):  # connect() raises it too
            async for _ in self._connection.gather():
                self._news.set()
        self._news.set()

    def _trickle_on(self) -> None:
        """One task tells of candidates, of whatever generation they are."""
        if self._trickling is None or self._trickling.done():
            self._trickling = asyncio.ensure_future(self._trickle())
            self._tasks.append(self._trickling)
        self._news.set()

    async def _trickle(self) -> None:
        """Send fragments (RFC 8840 section 4.4: each repeats what was sent) as candidates come."""
        ended = False
        while not ended:
            await self._news.wait()
            self._news.clear()
            description = self._connection.describe()
            ended = description.end_of_candidates
            theirs = None if self._offerer else self._current_remote
            fragment = Fragment(
                ufrag=description.ufrag,
                pwd=description.pwd,
                mid=(theirs or description).mid,
                candidates=description.candidates,
                end_of_candidates=ended,
            )
            with contextlib.suppress(SignalingError):
                await self.post.send(
                    "cand", Candidates(fragment.to_sdp()), self.negotiation.generation
                )

    async def _observe(self) -> None:
        async for event in self._connection.events():
            self._options.observe(event)
            if isinstance(event, RestartAdvised):
                self._restart(self._restarts.advised(event))
            elif isinstance(event, LocalCandidateFound):
                self._news.set()

    # -- what the peer says -------------------------------------------------------------------

    def receive(self, kind: str, generation: int, data: str) -> None:
        """A signal of this attempt. Whatever it holds, nothing is raised."""
        if kind == "reject" and not data:
            self._fail(WrongSecret(WRONG_SECRET))
            return
        try:
            message = self.post.open(kind, generation, data)
            if isinstance(message, Offer):
                self._receive_description(kind, generation, message)
            elif isinstance(message, Restart):
                if self._remote.done():
                    self._restart(self._restarts.asked(generation))
            elif isinstance(message, Candidates):
                fragment = Fragment.parse(message.sdpfrag)
                now = self._loop.time()
                due = self.negotiation.receive_candidates(generation, fragment.ufrag, fragment, now)
                if due is not None:
                    self._take_fragment(due, self._current_remote)
            elif isinstance(message, Goodbye):
                self._peer_ended(kind, message)
        except SealBroken:
            self._fail(WrongSecret(WRONG_SECRET))
        except InvalidDescription as error:
            self._fail(error)

    def _receive_description(self, kind: str, generation: int, letter: Offer) -> None:
        if not self._remote.done():
            if self._is_next(kind, generation):
                self._letter = letter
                self._remote.set_result(Description.parse(letter.sdp))
            return
        if self._current_remote is None or not self._is_next(kind, generation):
            return
        try:
            remote = Description.parse(letter.sdp)
            if remote.fingerprints != self._current_remote.fingerprints:
                raise InvalidDescription("an ICE restart leaves DTLS as it is")
            self._letter = letter
            if kind == "answer":
                self._restarts.answered(remote, generation)
            else:
                self._restart(self._restarts.offered(remote, generation))
        except InvalidDescription:
            return  # the session goes on as it was

    def _is_next(self, kind: str, generation: int) -> bool:
        if kind == "answer":
            return self.negotiation.receive_answer(generation)
        return self.negotiation.receive_offer(generation)

    def _take_fragment(self, fragment: Fragment, remote: Description | None) -> None:
        if remote is None or fragment.pwd != remote.pwd:
            return  # RFC 8840 section 4.4: of another generation
        self._observe_remote(fragment.candidates)
        for candidate in fragment.candidates:
            self._connection.add_remote_candidate(candidate)
        if fragment.end_of_candidates:
            self._connection.add_remote_candidate(None)

    def _observe_remote(self, candidates: tuple[Candidate, ...]) -> None:
        for candidate in candidates:
            if candidate not in self._remote_candidates and len(self._remote_candidates) < 256:
                self._remote_candidates.add(candidate)
                self._options.observe(RemoteCandidateFound(candidate))

    def _peer_ended(self, kind: str, message: Goodbye) -> None:
        shown = "".join(c if c.isprintable() else "?" for c in message.reason[:200])
        if self.channel is not None:
            self.channel.peer_closed(shown or "it gave up")
        else:
            verb = "refused" if kind == "reject" else "gave up"
            report = self._connection.report()
            told = _told(message, shown)
            if told is not None:
                error = NoRoute.explained(replace(report, told=told), "the peer gave up")
            else:
                why = f": {shown}" if shown else ""
                error = NoRoute(f"the peer {verb}{why}", report)
            self._fail(error)

    def peer_left(self) -> None:
        """The peer left the room. A channel that is open lives on without signaling."""
        if self.channel is None:
            why = "the peer left before a path was found"
            self._fail(nobody_there(why, self._connection.report()))
        elif not self._opened:
            self.channel.peer_closed("it left")

    def undelivered(self, event: Unavailable) -> None:
        """The signaling server could not pass on something of ours."""
        if event.code == ErrorCode.PEER_UNAVAILABLE:
            self.peer_left()
        elif event.code != ErrorCode.TOO_MANY_CANDIDATES:
            self.signaling_failed(SignalingFailed(f"the peer can not be told: {event.message}"))

    def signaling_failed(self, error: IcePunchError) -> None:
        """Signaling is gone for good. A channel that is open lives on without it."""
        if self.channel is None:
            self._fail(error)

    # -- the end ------------------------------------------------------------------------------

    def _fail(self, error: IcePunchError) -> None:
        if self._opened:
            return
        if not self._remote.done():
            self._remote.set_exception(error)
            self._remote.exception()
        self._connection.fail(error)

    def _timed_out(self) -> IcePunchError:
        seconds = f"{self._options.timeout:g} s"
        if not self._remote.done():
            return nobody_there(f"the peer did not answer within {seconds}")
        if self.channel is not None:
            return HandshakeFailed(f"a path was found, but no DTLS handshake within {seconds}")
        report = self._connection.report()
        return NoRoute.explained(report, f"no path to the peer was found in {seconds}")

    def _channel_closed(self) -> asyncio.Task[None] | None:
        self._stop_tasks()
        # A goodbye would end the peer's session before it could detach as well.
        if self._opened and self._goodbye is None and not self._connection.detached:
            self._goodbye = asyncio.ensure_future(self._say_goodbye("bye", Goodbye("closed")))
        return self._goodbye

    async def said_goodbye(self) -> None:
        """Wait until a goodbye that is under way has been handed to signaling."""
        if self._goodbye is not None:
            await asyncio.wait([self._goodbye])

    async def _say_goodbye(self, kind: Kind, message: Goodbye) -> None:
        with contextlib.suppress(SignalingError, TimeoutError):
            async with asyncio.timeout(0.5):
                await self.post.send(kind, message)

    async def _abandon(self, kind: Kind, message: Goodbye) -> None:
        """Free everything, even if whoever waits for it is cancelled once more."""
        if self._goodbye is None:
            self._goodbye = asyncio.ensure_future(self._say_goodbye(kind, message))
        await asyncio.shield(asyncio.ensure_future(self._free(self._goodbye)))

    async def _free(self, goodbye: asyncio.Task[None]) -> None:
        await asyncio.sleep(0)  # whoever observes is still to be told of the state that ended this
        self._stop_tasks()
        if self.channel is not None:
            await self.channel.close()
        await self._connection.close()
        await asyncio.wait([goodbye])

    def _stop_tasks(self) -> None:
        for task in (*self._tasks, *self._steps):
            task.cancel()
        self._tasks.clear()


def nobody_there(sentence: str, report: Report | None = None) -> PeerSilent:
    """Signaling brought no answer of the peer's."""
    diagnosis = Diagnosis(
        Cause.NOBODY_THERE, Side.THERE, sentence, "see that the other side runs, with this link"
    )
    return PeerSilent(str(diagnosis), report, diagnosis=diagnosis)


def _goodbye(error: IcePunchError) -> Goodbye:
    """What the peer is told. It makes sentences of its own from the cause: in ours "this side" is
    not its own."""
    diagnosis = error.diagnosis
    if diagnosis is None:
        return Goodbye(str(error))
    if diagnosis.cause is Cause.NOBODY_THERE:
        return Goodbye("no answer came from this side in time")
    names_sides = re.search(r"\b(this|here|the peer)\b", diagnosis.sentence)
    reason = "" if names_sides else diagnosis.sentence
    return Goodbye(reason, diagnosis.cause, diagnosis.side)


def _told(message: Goodbye, reason: str) -> Told | None:
    """The peer's diagnosis, seen from here. None for what no peer of this version says."""
    try:
        return Told(Cause(message.cause), Side(message.side).mirrored, reason)
    except ValueError:
        return None
