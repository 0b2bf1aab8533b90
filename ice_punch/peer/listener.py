"""The side that makes the link and waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Generator
from types import TracebackType

import msgspec

from ice_punch.channel import Channel
from ice_punch.errors import ChannelClosed, IcePunchError, InvalidConfiguration, SignalingFailed
from ice_punch.net.ice_server import IceServer
from ice_punch.peer.attempt import Attempt
from ice_punch.peer.meeting import Meta, offered_servers
from ice_punch.peer.options import PeerOptions, SignalingChanged
from ice_punch.peer.post import Envelope, Post
from signaling.client import SignalingClient
from signaling.errors import InvalidServerUrl, SealBroken, SignalingError
from signaling.events import (
    Disconnected,
    PeerLeft,
    Rejected,
    Resumed,
    SignalReceived,
    Welcomed,
)
from signaling.link import Link
from signaling.sealing import Sealer

MAX_ATTEMPTS = 32
"""Attempts and channels at once."""


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
            self._link.room,
            meta=msgspec.json.encode(Meta("listen")).decode(),
            max_peers=max_peers,
        )
        self._self_id = ""
        self._ice_servers: tuple[IceServer, ...] = ()
        self._attempts: dict[tuple[str, str], Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._results: asyncio.Queue[Channel | IcePunchError] = asyncio.Queue(MAX_ATTEMPTS * 2)
        self._reader: asyncio.Task[None] | None = None
        self._ended: IcePunchError | None = None

    @property
    def link(self) -> str:
        """What the other side needs. Whoever has it may connect."""
        return str(self._link)

    async def __aenter__(self) -> Listener:
        """Join the room. Raises SignalingFailed."""
        self._options.observe(SignalingChanged("connecting", str(self._link.server)))
        try:
            await self._client.connect(self._connect_timeout)
        except SignalingError as error:
            await self._client.close()
            raise SignalingFailed(str(error)) from error
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
        if self._ended is not None and self._results.empty():
            raise self._ended
        result = await self._results.get()
        if isinstance(result, IcePunchError):
            raise result
        return result

    async def close(self) -> None:
        """Leave the room. Channels that were accepted live on; attempts under way end."""
        self._end(ChannelClosed("the listener is closed"))
        if self._reader is not None:
            self._reader.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(
            *(a.said_goodbye() for a in self._attempts.values()), return_exceptions=True
        )
        while not self._results.empty():
            result = self._results.get_nowait()
            if isinstance(result, Channel):
                await result.close()
        await self._client.close()

    # -- inside -------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            async for event in self._client:
                match event:
                    case Welcomed():
                        self._self_id = event.self_id
                        self._ice_servers = offered_servers(event.ice_servers)
                        self._options.observe(SignalingChanged("joined"))
                    case SignalReceived():
                        self._receive(event)
                    case PeerLeft():
                        for (peer_id, _), attempt in list(self._attempts.items()):
                            if peer_id == event.peer_id:
                                attempt.peer_left()
                    case Disconnected():
                        self._options.observe(SignalingChanged("disconnected", event.reason))
                    case Resumed():
                        self._options.observe(SignalingChanged("resumed"))
                    case Rejected():
                        self._end(SignalingFailed(str(event.error)))
        except SignalingError as error:
            self._end(SignalingFailed(str(error)))

    def _end(self, error: IcePunchError) -> None:
        if self._ended is None:
            self._ended = error
            if not self._results.full():
                self._results.put_nowait(error)

    def _receive(self, signal: SignalReceived) -> None:
        key = (signal.sender, signal.link)
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.receive(signal.kind, signal.generation, signal.data)
            return
        if signal.kind != "offer" or len(self._attempts) >= MAX_ATTEMPTS:
            return
        post = Post(
            Envelope(self._self_id, signal.sender, signal.link), self._sealer, self._client.send
        )
        try:
            post.open("offer", signal.generation, signal.data)
        except SealBroken:
            self.refused += 1
            self._options.observe(SignalingChanged("refused", "a peer with a wrong secret"))
            self._spawn(self._refuse(post))
            return
        except IcePunchError:
            return
        try:
            attempt = Attempt(post, self._options, offerer=False, ice_servers=self._ice_servers)
        except IcePunchError as error:
            self._offer_result(error)
            return
        self._attempts[key] = attempt
        attempt.receive(signal.kind, signal.generation, signal.data)
        self._spawn(self._run(key, attempt))

    async def _refuse(self, post: Post) -> None:
        try:
            await post.refuse_unread()
        except SignalingError:
            return

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: tuple[str, str], attempt: Attempt) -> None:
        try:
            channel = await attempt.run()
        except IcePunchError as error:
            del self._attempts[key]
            self._offer_result(error)
            return
        channel.on_closed(lambda: self._attempts.pop(key, None))
        self._offer_result(channel)

    def _offer_result(self, result: Channel | IcePunchError) -> None:
        if self._results.full():
            oldest = self._results.get_nowait()
            if isinstance(oldest, Channel):
                self._spawn(oldest.close())
        self._results.put_nowait(result)


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
