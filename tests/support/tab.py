"""The other side of a link as a browser's page is one: stock aiortc, and the page's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from ice_punch.peer.post import Candidates, Envelope, Goodbye, Offer, Post, Restart
from ice_punch.sdp import Fragment
from signaling.client import SignalingClient
from signaling.events import PeerJoined, SignalReceived, Welcomed
from signaling.link import Link
from signaling.randomness import base64url
from signaling.sealing import Sealer


@contextlib.contextmanager
def aiortc_on_loopback() -> Iterator[None]:
    """Stock aiortc has no candidates on the loopback interface."""
    with mock.patch("aioice.ice.get_host_addresses", return_value=["127.0.0.1"]):
        yield


def stock_connection() -> RTCPeerConnection:
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


class Messages:
    """What comes on a channel of aiortc's, to be awaited."""

    def __init__(self, channel: RTCDataChannel) -> None:
        self.channel = channel
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.opened, self.closed = asyncio.Event(), asyncio.Event()
        channel.on("message", self._queue.put_nowait)
        channel.on("open", self.opened.set)
        channel.on("close", self.closed.set)
        if channel.readyState == "open":
            self.opened.set()

    def send(self, message: Any) -> None:
        self.channel.send(message)

    async def next(self, timeout: float = 5) -> Any:
        return await asyncio.wait_for(self._queue.get(), timeout)


class Tab:
    """One page with the link open; ``transports`` is what it says it can do."""

    def __init__(self, link: str, *, transports: tuple[str, ...] = ("sctp",)) -> None:
        self._link = Link.parse(link)
        self._transports = transports
        self.pc = stock_connection()
        self.client = SignalingClient(
            self._link.websocket_url, self._link.wire_room, meta=json.dumps({"role": "connect"})
        )
        self.datagrams = Messages(
            self.pc.createDataChannel(
                "datagrams", ordered=False, maxRetransmits=0, negotiated=True, id=0
            )
        )
        self.messages = Messages(self.pc.createDataChannel("messages", negotiated=True, id=2))
        self.channels: asyncio.Queue[RTCDataChannel] = asyncio.Queue()
        self.pc.on("datachannel", self.channels.put_nowait)
        self.goodbyes: asyncio.Queue[tuple[str, Goodbye]] = asyncio.Queue()
        self.answered: list[tuple[str, ...] | None] = []
        self.sdp: list[str] = []
        """Descriptions of the other side, as they came."""
        self.spoil: Any = None
        """Changes our own SDP before it is sent."""
        self.post: Post | None = None
        self._offers = True
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Tab:
        await self.client.connect(5)
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        await self.pc.close()
        await self.client.close()

    async def connected(self) -> None:
        await asyncio.wait_for(self.datagrams.opened.wait(), 10)
        await asyncio.wait_for(self.messages.opened.wait(), 10)

    async def goodbye(self) -> tuple[str, Goodbye]:
        return await asyncio.wait_for(self.goodbyes.get(), 10)

    async def _read(self) -> None:
        welcome: Welcomed | None = None
        async for event in self.client:
            match event:
                case Welcomed():
                    welcome = event
                    for peer in event.peers:
                        if self.post is None and "listen" in peer.meta:
                            await self._begin(event.self_id, peer.id, event.order > peer.order)
                case PeerJoined() if self.post is None and "listen" in event.peer.meta:
                    assert welcome is not None
                    await self._begin(
                        welcome.self_id, event.peer.id, welcome.order > event.peer.order
                    )
                case SignalReceived():
                    await self._take(event)

    async def _begin(self, self_id: str, peer_id: str, offers: bool) -> None:
        envelope = Envelope(self_id, peer_id, base64url(random.randbytes(12)))
        sealer = Sealer(self._link.secret, self._link.room)
        self.post, self._offers = Post(envelope, sealer, self.client.send), offers
        if offers:
            await self._describe("offer")
        else:
            await self.post.send("restart", Restart())

    async def _describe(self, kind: Any) -> None:
        make = self.pc.createOffer if kind == "offer" else self.pc.createAnswer
        await self.pc.setLocalDescription(await make())
        sdp = self.pc.localDescription.sdp
        sdp = self.spoil(sdp) if self.spoil else sdp
        assert self.post is not None
        names = self._transports
        await self.post.send(kind, Offer(sdp, transports=names if kind == "offer" else names[:1]))

    async def _take(self, event: SignalReceived) -> None:
        assert self.post is not None
        letter = self.post.open(event.kind, event.generation, event.data)
        if isinstance(letter, Offer):
            self.answered.append(letter.transports)
            self.sdp.append(letter.sdp)
            await self.pc.setRemoteDescription(RTCSessionDescription(letter.sdp, event.kind))
            if event.kind == "offer":
                await self._describe("answer")
        elif isinstance(letter, Candidates):
            for candidate in Fragment.parse(letter.sdpfrag).candidates:
                await self._add(candidate)
        elif isinstance(letter, Goodbye):
            self.goodbyes.put_nowait((event.kind, letter))

    async def _add(self, candidate: Any) -> None:
        from ice_punch.sdp import format_candidate

        line = candidate_from_sdp(format_candidate(candidate).removeprefix("candidate:"))
        line.sdpMid = "0"
        with contextlib.suppress(Exception):  # before the description: it has them too
            await self.pc.addIceCandidate(line)


@contextlib.asynccontextmanager
async def tab(link: str, **options: Any) -> AsyncIterator[Tab]:
    with aiortc_on_loopback():
        async with Tab(link, **options) as opened:
            yield opened
