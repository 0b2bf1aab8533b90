"""The side that was given the link."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Generator
from types import TracebackType

import msgspec

from ice_punch.channel import Channel
from ice_punch.errors import IcePunchError, SignalingFailed
from ice_punch.peer.attempt import Attempt, nobody_there
from ice_punch.peer.following import SignalingFollower
from ice_punch.peer.meeting import (
    Meta,
    offered_servers,
    parse_link,
    role_of,
    run_and_report,
)
from ice_punch.peer.options import PeerOptions, SignalingChanged
from ice_punch.peer.post import Envelope, Post
from signaling.client import SignalingClient
from signaling.errors import RoomClosed, SignalingError
from signaling.events import (
    Disconnected,
    Peer,
    PeerJoined,
    PeerLeft,
    Rejected,
    Resumed,
    SignalReceived,
    Unavailable,
    Welcomed,
)
from signaling.randomness import base64url
from signaling.sealing import Sealer

USED_UP = "this link is used up: whoever made it has ended; ask for a new one"


class Connector:
    """``await`` it for the channel, or ``async with`` it to have the channel closed at the end.

    ``connect`` makes it.
    """

    def __init__(
        self, link: str, options: PeerOptions | None = None, *, connect_timeout: float = 10.0
    ) -> None:
        """Raises InvalidLink, and InvalidConfiguration for contradictory options."""
        self._options = options or PeerOptions()
        self._options.gathering()
        self._link = parse_link(link)
        self._connect_timeout = connect_timeout
        self._client: SignalingClient | None = None
        self._welcome: Welcomed | None = None
        self._listener: asyncio.Future[Peer] | None = None
        self._attempt: Attempt | None = None
        self._reader: asyncio.Task[None] | None = None
        self._channel: Channel | None = None
        self._leaving: asyncio.Task[None] | None = None

    def __await__(self) -> Generator[object, None, Channel]:
        return self._connect().__await__()

    async def __aenter__(self) -> Channel:
        return await self._connect()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._channel is not None:
            await self._channel.close()
        await asyncio.shield(self._leave())

    async def _connect(self) -> Channel:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._options.observe(SignalingChanged("connecting", str(self._link.server)))
        self._listener = loop.create_future()
        self._client = SignalingClient(
            self._link.websocket_url,
            self._link.wire_room,
            token=self._options.token,
            ssl=self._options.ssl,
            meta=msgspec.json.encode(Meta("connect")).decode(),
        )
        try:
            await self._client.connect(self._connect_timeout)
            self._reader = asyncio.ensure_future(self._read(self._client))
            waiting_since = loop.time()
            listener = await self._find_listener()
            began += loop.time() - waiting_since
            self._channel = await self._meet(listener, began)
        except SignalingError as error:
            await asyncio.shield(self._leave())
            raise _failed(error) from error
        except BaseException:
            await asyncio.shield(self._leave())
            raise
        self._channel.on_closed(self._leave)
        return self._channel

    async def _find_listener(self) -> Peer:
        assert self._listener is not None
        try:
            async with asyncio.timeout(self._options.timeout):
                return await self._listener
        except TimeoutError:
            raise nobody_there(
                f"nobody listened on this link for {self._options.timeout:g} s"
            ) from None

    async def _meet(self, listener: Peer, began: float) -> Channel:
        assert self._client is not None
        assert self._welcome is not None
        envelope = Envelope(
            self._welcome.self_id, listener.id, base64url(random.SystemRandom().randbytes(12))
        )
        self._attempt = Attempt(
            Post(envelope, Sealer(self._link.secret, self._link.room), self._client.send),
            self._options,
            offerer=self._welcome.order > listener.order,
            asks=self._welcome.order < listener.order,
            ice_servers=offered_servers(self._welcome.ice_servers),
            signaling_host=self._link.server.host,
            server_rtt=self._client.round_trip,
            began=began,
        )
        return await run_and_report(self._attempt, self._client)

    # -- inside -------------------------------------------------------------------------------

    async def _read(self, client: SignalingClient) -> None:
        try:
            with SignalingFollower(client, self._options.gathering()):
                async for event in client:
                    self._take(event)
        except SignalingError as error:
            self._signaling_failed(_failed(error))

    def _take(self, event: object) -> None:
        attempt = self._attempt
        match event:
            case Welcomed():
                self._welcome = event
                self._options.observe(SignalingChanged("joined"))
                if attempt is not None:  # under the id that we had, nothing arrives any more
                    attempt.signaling_failed(SignalingFailed("the signaling session was lost"))
                for peer in sorted(event.peers, key=lambda peer: peer.order):
                    self._notice(peer)
                if self._listener is not None and not self._listener.done():
                    self._options.observe(SignalingChanged("waiting", "nobody listens yet"))
            case PeerJoined():
                self._notice(event.peer)
            case SignalReceived():
                if attempt is not None and attempt.post.envelope.is_from(event.sender, event.link):
                    attempt.receive(event.kind, event.generation, event.data)
            case PeerLeft():
                if attempt is not None and attempt.post.envelope.peer_id == event.peer_id:
                    attempt.peer_left()
            case Unavailable():
                if attempt is not None and attempt.post.envelope.peer_id == event.to:
                    attempt.undelivered(event)
            case Disconnected():
                self._options.observe(SignalingChanged("disconnected", event.reason))
            case Resumed():
                self._options.observe(SignalingChanged("resumed"))
            case Rejected():
                self._signaling_failed(_failed(event.error))

    def _notice(self, peer: Peer) -> None:
        waiting = self._listener is not None and not self._listener.done()
        if waiting and role_of(peer.meta) == "listen":
            assert self._listener is not None
            self._listener.set_result(peer)

    def _signaling_failed(self, error: IcePunchError) -> None:
        if self._listener is not None and not self._listener.done():
            self._listener.set_exception(error)
            self._listener.exception()
        elif self._attempt is not None:
            self._attempt.signaling_failed(error)

    def _leave(self) -> asyncio.Task[None]:
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave_room())
        return self._leaving

    async def _leave_room(self) -> None:
        if self._attempt is not None:
            await self._attempt.said_goodbye()
        if self._reader is not None:
            self._reader.cancel()
        if self._client is not None:
            with contextlib.suppress(SignalingError):
                await self._client.close()


def _failed(error: SignalingError) -> SignalingFailed:
    if isinstance(error, RoomClosed):
        return SignalingFailed(USED_UP)
    return SignalingFailed(str(error))
