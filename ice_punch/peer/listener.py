"""The side that makes the link and waits."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import TracebackType

import msgspec

from ice_punch.channel import Channel
from ice_punch.errors import ChannelClosed, IcePunchError, InvalidConfiguration, SignalingFailed
from ice_punch.net.ice_server import IceServer
from ice_punch.peer.attempt import Attempt
from ice_punch.peer.following import SignalingFollower
from ice_punch.peer.meeting import Meta, offered_servers, run_and_report
from ice_punch.peer.options import PeerOptions, SignalingChanged
from ice_punch.peer.post import Envelope, Goodbye, Post
from signaling.client import SignalingClient
from signaling.errors import InvalidServerUrl, SealBroken, SignalingError
from signaling.events import (
    Disconnected,
    IceServersChanged,
    PeerJoined,
    PeerLeft,
    Rejected,
    Resumed,
    SignalReceived,
    Unavailable,
    Welcomed,
)
from signaling.link import Link
from signaling.sealing import Sealer
from signaling.spoken import CodeOffer

MAX_ATTEMPTS = 32
"""Attempts and channels at once."""
MAX_ATTEMPTS_PER_PEER = 4
MAX_REFUSALS = 16
"""Refusals that wait for signaling at once."""
MAX_RESULTS = 2 * MAX_ATTEMPTS
"""Channels and errors held until they are accepted; past that the oldest errors go."""
MAX_PEERS = 1024
"""Peers whose order is known; a server has far fewer in a room."""
OFFERS_REMEMBERED = 1024
"""Offers that can not be played to us again."""


class Listener:
    """Waits in a room for peers that have the link. ``listen`` makes it."""

    def __init__(
        self,
        server: str,
        options: PeerOptions | None = None,
        *,
        max_peers: int = 16,
        connect_timeout: float = 10.0,
    ) -> None:
        """Raises InvalidConfiguration for a bad URL or contradictory options."""
        self._options = options or PeerOptions()
        self._options.gathering()
        try:
            self._link = Link.create(server, random.SystemRandom())
        except InvalidServerUrl as error:
            raise InvalidConfiguration(str(error)) from None
        self.refused = 0
        """Peers that came with a wrong secret."""
        self._connect_timeout = connect_timeout
        self._sealer = Sealer(self._link.secret, self._link.room)
        self._client = SignalingClient(
            self._link.websocket_url,
            self._link.wire_room,
            token=self._options.token,
            ssl=self._options.ssl,
            meta=msgspec.json.encode(Meta("listen")).decode(),
            max_peers=max_peers,
        )
        self._self_id = ""
        self._self_order = 0
        self._orders: dict[str, int] = {}
        self._ice_servers: tuple[IceServer, ...] = ()
        self._attempts: dict[tuple[str, str], Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._offers_seen: deque[tuple[str, str]] = deque(maxlen=OFFERS_REMEMBERED)
        self._refused_peers: set[str] = set()
        self._refusals = 0
        self._results: deque[Channel | IcePunchError] = deque()
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._ended: IcePunchError | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def link(self) -> str:
        """What the other side needs. Whoever has it may connect."""
        return str(self._link)

    def offer_code(self) -> CodeOffer:
        """A short code that people can say, in place of the link: good once, for three tries.

        ``async with listener.offer_code() as offer`` draws ``offer.code``; ``connect`` on the other
        side takes what ``fetch_link`` makes of it. Raises the errors of signaling.
        """
        return CodeOffer(
            self._link,
            token=self._options.token,
            ssl=self._options.ssl,
            timeout=self._connect_timeout,
        )

    async def __aenter__(self) -> Listener:
        """Join the room. Raises SignalingFailed."""
        self._options.observe(SignalingChanged("connecting", str(self._link.server)))
        try:
            await self._client.connect(self._connect_timeout)
        except SignalingError as error:
            await self._client.close()
            raise SignalingFailed(str(error)) from error
        except BaseException:
            await self._client.close()
            raise
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def accept(self) -> Accepting:
        """The next peer, as ``async with listener.accept() as channel`` or ``await``.

        Raises what made the attempt of a peer fail (NoRoute, HandshakeFailed, ...), after which it
        may be called again, and SignalingFailed when no more peers can come. A peer with a wrong
        secret is refused and counted, and does not end the waiting.
        """
        return Accepting(self)

    async def next_channel(self) -> Channel:
        while not self._results:
            if self._ended is not None:
                raise self._ended.with_traceback(None)
            self._news.clear()
            await self._news.wait()
        result = self._results.popleft()
        if isinstance(result, IcePunchError):
            raise result
        return result

    async def close(self) -> None:
        """Leave the room, after which the link is used up.

        Channels that were accepted live on; attempts under way end, and so do channels that nobody
        accepted. May be called again.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._end(ChannelClosed("the listener is closed"))
        if self._reader is not None:
            self._reader.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        unclaimed = [result for result in self._results if isinstance(result, Channel)]
        self._results.clear()
        await asyncio.gather(*(c.close() for c in unclaimed), return_exceptions=True)
        await asyncio.gather(
            *(a.said_goodbye() for a in self._attempts.values()), return_exceptions=True
        )
        await self._client.close(close_room=True)

    # -- inside -------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            with SignalingFollower(self._client, self._options.gathering()):
                await self._take_events()
        except SignalingError as error:
            self._end(SignalingFailed(str(error)))

    async def _take_events(self) -> None:
        async for event in self._client:
            match event:
                case Welcomed():
                    # Under the id that we had, nothing arrives any more.
                    lost = SignalingFailed("the signaling session was lost")
                    self._fail_attempts(lost)
                    self._self_id = event.self_id
                    self._self_order = event.order
                    self._orders = {peer.id: peer.order for peer in event.peers}
                    self._ice_servers = offered_servers(event.ice_servers)
                    self._options.observe(SignalingChanged("joined"))
                case SignalReceived():
                    self._receive(event)
                case PeerJoined():
                    if len(self._orders) < MAX_PEERS:
                        self._orders[event.peer.id] = event.peer.order
                case IceServersChanged():
                    self._ice_servers = offered_servers(event.ice_servers)
                case PeerLeft():
                    self._orders.pop(event.peer_id, None)
                    self._refused_peers.discard(event.peer_id)
                    for attempt in self._attempts_of(event.peer_id):
                        attempt.peer_left()
                case Unavailable():
                    for attempt in self._attempts_of(event.to):
                        attempt.undelivered(event)
                case Disconnected():
                    self._options.observe(SignalingChanged("disconnected", event.reason))
                case Resumed():
                    self._options.observe(SignalingChanged("resumed"))
                case Rejected():
                    self._end(SignalingFailed(str(event.error)))

    def _end(self, error: IcePunchError) -> None:
        """No more peers can come."""
        if self._ended is None:
            self._ended = error
            self._fail_attempts(error)
            self._news.set()

    def _fail_attempts(self, error: IcePunchError) -> None:
        for attempt in list(self._attempts.values()):
            attempt.signaling_failed(error)

    def _attempts_of(self, peer_id: str) -> list[Attempt]:
        return [attempt for (owner, _), attempt in self._attempts.items() if owner == peer_id]

    def _receive(self, signal: SignalReceived) -> None:
        key = (signal.sender, signal.link)
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.receive(signal.kind, signal.generation, signal.data)
            return
        if signal.kind not in ("offer", "restart") or key in self._offers_seen:
            return
        post = Post(
            Envelope(self._self_id, signal.sender, signal.link), self._sealer, self._client.send
        )
        try:
            post.open(signal.kind, signal.generation, signal.data)
        except SealBroken:
            self._refuse(post)
            return
        except IcePunchError:
            return
        self._offers_seen.append(key)
        if (
            len(self._attempts) >= MAX_ATTEMPTS
            or len(self._attempts_of(signal.sender)) >= MAX_ATTEMPTS_PER_PEER
        ):
            no = Goodbye("it has as many peers as it can take")
            self._answer_no(partial(post.send, "reject", no))
            return
        # Whoever came later offers. Who was here before us asks for the offer.
        offerer = self._orders.get(signal.sender, self._self_order + 1) < self._self_order
        if offerer != (signal.kind == "restart"):
            no = Goodbye("the peer that came later makes the offers")
            self._answer_no(partial(post.send, "reject", no))
            return
        try:
            attempt = Attempt(
                post,
                self._options,
                offerer=offerer,
                ice_servers=self._ice_servers,
                signaling_host=self._link.server.host,
                server_rtt=self._client.round_trip,
            )
        except IcePunchError as error:
            self._offer_result(error)
            return
        self._attempts[key] = attempt
        if not offerer:
            attempt.receive(signal.kind, signal.generation, signal.data)
        self._spawn(self._run(key, attempt))

    def _refuse(self, post: Post) -> None:
        """A wrong secret: counted and told once to each peer, however much it sends."""
        peer_id = post.envelope.peer_id
        if peer_id in self._refused_peers:
            return
        self._refused_peers.add(peer_id)
        self.refused += 1
        self._options.observe(SignalingChanged("refused", "a peer with a wrong secret"))
        self._answer_no(post.refuse_unread)

    def _answer_no(self, send: Callable[[], Coroutine[None, None, None]]) -> None:
        if self._refusals < MAX_REFUSALS:
            self._refusals += 1
            self._spawn(self._send_refusal(send))

    async def _send_refusal(self, send: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await send()
        except SignalingError:
            return
        finally:
            self._refusals -= 1

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: tuple[str, str], attempt: Attempt) -> None:
        try:
            channel = await run_and_report(attempt, self._client)
        except IcePunchError as error:
            del self._attempts[key]
            self._offer_result(error)
            return
        except BaseException:
            del self._attempts[key]
            raise
        channel.on_closed(lambda: self._attempts.pop(key, None))
        self._offer_result(channel)

    def _offer_result(self, result: Channel | IcePunchError) -> None:
        if len(self._results) >= MAX_RESULTS:  # there are fewer channels, so there is an error
            self._results.remove(next(r for r in self._results if isinstance(r, IcePunchError)))
        self._results.append(result)
        self._news.set()


class Accepting:
    """``await`` it for the channel, or ``async with`` it to have the channel closed at the end."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._channel: Channel | None = None

    def __await__(self) -> Generator[object, None, Channel]:
        return self._listener.next_channel().__await__()

    async def __aenter__(self) -> Channel:
        self._channel = await self._listener.next_channel()
        return self._channel

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._channel is not None
        await self._channel.close()
