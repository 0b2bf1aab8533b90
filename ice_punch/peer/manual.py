"""A channel without any server between the peers: they carry two blobs of text by hand."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import zlib
from itertools import islice, product
from types import TracebackType
from typing import Literal

from ice_punch.channel import Channel
from ice_punch.connection import IceConnection
from ice_punch.dtls import Certificate, DtlsMachine, answer_setup, dtls_role
from ice_punch.errors import (
    HandshakeFailed,
    InvalidDescription,
    NoRoute,
    PeerSilent,
)
from ice_punch.ice import AgentConfig
from ice_punch.peer.options import PeerOptions
from ice_punch.sdp import Description, Setup, make_tls_id
from ice_punch.stun import Message, MessageClass, Method
from signaling.randomness import base64url, from_base64url

HUMAN_PATIENCE = 900.0
"""Seconds that the answer may take to be carried to where the offer came from."""
GATHERING_TIME = 10.0
"""Seconds for candidates, all of which must be in the blob; it goes without those that are late."""
OPEN_EVERY = 5.0
"""Seconds between two datagrams that keep a NAT open towards a peer that has not begun yet."""
HEARD_EVERY = 0.05
OPEN_PATHS = 64
"""Pairs of addresses that are kept open."""
MAX_TEXT = 32 * 1024
_BLOB = re.compile(r"icepunch1-(offer|answer)\.([A-Za-z0-9_-]+)")

BlobKind = Literal["offer", "answer"]


def make_blob(kind: BlobKind, description: Description) -> str:
    """One word, fit to be pasted: ``icepunch1-offer.`` and the SDP, compressed, in base64url."""
    return f"icepunch1-{kind}.{base64url(zlib.compress(description.to_sdp().encode(), 9))}"


def read_blob(kind: BlobKind, text: str) -> Description:
    """The description in a blob that was pasted, whatever line breaks it caught on its way.

    Raises InvalidDescription with a sentence for the person who pasted it.
    """
    match = _BLOB.fullmatch("".join(text.split()))
    if match is None:
        raise InvalidDescription(f"this is no {kind}: it begins with icepunch1-{kind}.")
    if match.group(1) != kind:
        raise InvalidDescription(f"this is an {match.group(1)}; what is wanted here is the {kind}")
    unpack = zlib.decompressobj()
    try:
        sdp = unpack.decompress(from_base64url(match.group(2)), MAX_TEXT)
        if not unpack.eof:
            raise ValueError
        return Description.parse(sdp.decode("utf-8"))
    except (ValueError, zlib.error):
        raise InvalidDescription(
            f"the {kind} is cut off or garbled: copy the whole of it"
        ) from None


class ManualPeer:
    """One of two peers that exchange blobs. ::

        async with ManualPeer() as peer:                  async with ManualPeer() as peer:
            print(await peer.offer())                         print(await peer.answer(input()))
            channel = await peer.connect(input())             channel = await peer.connect()

    A blob holds what the connection is secured by: carry it where nobody else can change it.
    Leaving the block closes everything but the channel.
    """

    def __init__(self, options: PeerOptions | None = None) -> None:
        self._options = options or PeerOptions()
        self._certificate = Certificate.generate() if self._options.encrypt else None
        self._tls_id = make_tls_id(random.SystemRandom()) if self._options.encrypt else None
        self._setup = Setup.ACTPASS
        self._connection: IceConnection | None = None
        self._remote: Description | None = None
        self._channel: Channel | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> ManualPeer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        if self._channel is None and self._connection is not None:
            await self._connection.close()

    async def offer(self) -> str:
        """The blob of the side that begins. Raises the errors of gathering."""
        connection = self._begin(controlling=True)
        return make_blob("offer", await self._describe(connection))

    async def answer(self, offer: str) -> str:
        """The blob that answers ``offer``. Raises InvalidDescription, HandshakeFailed if one side
        insists on encryption and the other on none, and the errors of gathering."""
        remote = read_blob("offer", offer)
        self._check_encryption(remote)
        if remote.setup is not None:
            self._setup = answer_setup(remote.setup)
        if remote.tls_id is None:
            self._tls_id = None  # RFC 8842 section 5.3
        connection = self._begin(controlling=False)
        blob = make_blob("answer", await self._describe(connection))
        self._remote = remote
        return blob

    async def connect(self, answer: str | None = None) -> Channel:
        """The channel: with the ``answer`` to our offer, or without one after we answered.

        Raises InvalidDescription, after which it may be called again with another answer,
        HandshakeFailed, and the errors of ICE.
        """
        connection = self._connection
        if connection is None or (answer is None) != (self._remote is not None):
            raise InvalidDescription("first comes the offer, then its answer")
        if answer is not None:
            remote = read_blob("answer", answer)
            self._check_encryption(remote)
            self._remote = remote
            timeout = self._options.timeout
        else:
            timeout = HUMAN_PATIENCE
        assert self._remote is not None
        connection.set_remote_description(self._remote)
        self._tasks.append(asyncio.ensure_future(_keep_open(connection, self._remote)))
        try:
            async with asyncio.timeout(timeout):
                await connection.connect()
                await _heard(connection)
        except TimeoutError:
            text = f"no path to the peer was found in {timeout:g} s"
            raise NoRoute.explained(connection.report(), text) from None
        except PeerSilent as error:
            raise NoRoute(str(error), error.report, diagnosis=error.diagnosis) from None
        finally:
            self._stop()
        return await self._open(connection, self._remote)

    async def _open(self, connection: IceConnection, remote: Description) -> Channel:
        channel = Channel(
            connection,
            self._dtls(remote),
            receive_queue=self._options.receive_queue,
            send_queue=self._options.send_queue,
            newest_wins=self._options.newest_wins,
        )
        try:
            async with asyncio.timeout(self._options.timeout):
                await channel.open(0.0)
        except TimeoutError:
            await channel.close()
            raise HandshakeFailed("a path was found, but no DTLS handshake in time") from None
        except BaseException:
            await channel.close()
            raise
        self._channel = channel
        return channel

    def _begin(self, *, controlling: bool) -> IceConnection:
        if self._connection is not None:
            raise InvalidDescription("a manual peer makes one offer, or one answer")
        self._connection = IceConnection(
            controlling=controlling,
            options=self._options.gathering(),
            agent_config=AgentConfig(patience=HUMAN_PATIENCE),
            receive_queue=self._options.receive_queue,
            send_queue=self._options.send_queue,
            newest_wins=self._options.newest_wins,
            record=self._options.record,
        )
        self._tasks.append(asyncio.ensure_future(self._observe(self._connection)))
        return self._connection

    async def _describe(self, connection: IceConnection) -> Description:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHERING_TIME):
                async for _ in connection.gather():
                    pass
        certificate = self._certificate
        return connection.describe(
            setup=self._setup if certificate else None,
            fingerprints=certificate.fingerprints() if certificate else (),
            tls_id=self._tls_id,
        )

    async def _observe(self, connection: IceConnection) -> None:
        async for event in connection.events():
            self._options.observe(event)

    def _check_encryption(self, remote: Description) -> None:
        if self._certificate is not None and not remote.fingerprints:
            raise HandshakeFailed("the peer does not encrypt and this side insists on it")
        if self._certificate is not None and remote.setup is None:
            raise InvalidDescription("the peer's description has a fingerprint but no setup")
        if self._certificate is None and remote.fingerprints:
            raise HandshakeFailed("the peer insists on encryption and this side was told not to")

    def _dtls(self, remote: Description) -> DtlsMachine | None:
        if self._certificate is None:
            return None
        assert remote.setup is not None
        assert self._connection is not None
        path = self._connection.path
        return DtlsMachine(
            self._certificate,
            dtls_role(self._setup, remote.setup),
            remote.fingerprints,
            mtu=self._connection.max_datagram_size,
            rtt=None if path is None else path.rtt,
        )

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()


async def _heard(connection: IceConnection) -> None:
    """Wait for a check of the peer's. It answers ours before it has our answer, and only from its
    own on is there anybody to shake hands with."""
    while not any(pair.requests_received for pair in connection.report().pairs):  # noqa: ASYNC110
        await asyncio.sleep(HEARD_EVERY)


async def _keep_open(connection: IceConnection, remote: Description) -> None:
    """Let our NAT expect the peer for as long as a person needs to carry the answer.

    Checks alone would fall silent before the peer has begun; its first check then finds the way
    open, and triggers ours (RFC 8445 section 7.3.1.4).
    """
    source = random.SystemRandom()
    destinations = [c.address for c in remote.candidates if not c.is_mdns]
    while True:
        await asyncio.sleep(OPEN_EVERY)
        paths = connection._driver.gatherer.paths
        for (local, path), destination in islice(product(paths.items(), destinations), OPEN_PATHS):
            if (":" in local[0]) == (":" in destination[0]):
                indication = Message(Method.BINDING, MessageClass.INDICATION, source.randbytes(12))
                path.send(indication.to_bytes(), destination)
