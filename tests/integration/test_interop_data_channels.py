"""Data channels with two stacks that are neither browsers nor Python: libdatachannel, by npm's
node-datachannel, and GStreamer's webrtcbin, which has libnice and RSA certificates. Whole sessions
at a link are in ``test_interop_link_*.py``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

from aiortc import RTCSessionDescription
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ice_punch.webrtc import WebRtcPeer, peer_connection
from support import foreign_stacks
from support.loopback import GATHERING
from support.tab import Messages


@pytest.fixture(scope="module")
def libdatachannel() -> list[str]:
    return foreign_stacks.libdatachannel()


@pytest.fixture(scope="module")
def webrtcbin() -> list[str]:
    return foreign_stacks.webrtcbin()


class Foreign:
    """The other stack, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._heard: list[dict[str, Any]] = []

    def tell(self, command: str, **argument: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, argument]).encode() + b"\n")

    async def hear(self, key: str, value: object = None) -> Any:
        """The next thing said of this kind, or with this value; others are kept."""
        assert self._process.stdout is not None
        async with asyncio.timeout(15):
            while True:
                for said in self._heard:
                    if key in said and value in (None, said[key]):
                        self._heard.remove(said)
                        return said[key] if value is None else said
                line = await self._process.stdout.readline()
                assert line, f"the peer ended before it said {key}"
                self._heard.append(json.loads(line))


@contextlib.asynccontextmanager
async def foreign(command: list[str]) -> AsyncIterator[Foreign]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 20,
    )
    try:
        yield Foreign(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


MESSAGES = ("text", "grüße", b"\x00\x01binary", b"a" * 60_000, "b" * 60_000)


async def echoes(
    send: Callable[[Any], Awaitable[None]], recv: Callable[[], Awaitable[Any]]
) -> None:
    """Every message comes back as it is, and in order."""
    for message in MESSAGES:
        await send(message)
        assert await asyncio.wait_for(recv(), 10) == message
    many = [b"%04d" % number * 250 for number in range(400)]
    sending = asyncio.ensure_future(_send_all(send, many))
    assert [await asyncio.wait_for(recv(), 10) for _ in many] == many
    await sending


async def _send_all(send: Callable[[Any], Awaitable[None]], messages: list[bytes]) -> None:
    for message in messages:
        await send(message)


def story(command: list[str], tell: Callable[[Foreign], Awaitable[None]]) -> None:
    async def main() -> None:
        async with foreign(command) as peer, asyncio.timeout(60):
            await tell(peer)

    asyncio.run(main())


STACKS = pytest.mark.parametrize("stack", ["libdatachannel", "webrtcbin"])
DIRECTIONS = pytest.mark.parametrize("we_offer", [True, False], ids=["we offer", "they offer"])


@STACKS
@DIRECTIONS
def test_channels_of_either_side_carry_messages_both_ways(
    stack: str, we_offer: bool, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue(stack)

    async def tell(other: Foreign) -> None:
        async with WebRtcPeer(options=GATHERING, trickle=False) as peer:
            if we_offer:
                other.tell("describe", type="offer", sdp=await peer.create_offer())
                answer = await other.hear("description")
                await peer.set_answer(answer["sdp"])
            else:
                other.tell("open", label="theirs", protocol="chat")
                offer = await other.hear("description")
                other.tell("describe", type="answer", sdp=await peer.create_answer(offer["sdp"]))
            channel = await peer.connect(20)
            ours = await channel.open_channel("ours", protocol="echo")
            assert (await other.hear("channel", "ours"))["protocol"] == "echo"
            await echoes(ours.send, ours.recv)
            if not we_offer:
                theirs = await asyncio.wait_for(channel.accept_channel(), 10)
                assert (theirs.label, theirs.protocol, theirs.ordered) == ("theirs", "chat", True)
                await other.hear("channel", "theirs")
                other.tell("send", label="theirs", text="from the other side")
                assert await asyncio.wait_for(theirs.recv(), 10) == "from the other side"
            ours.close()
            await other.hear("closed", "ours")

    story(command, tell)


@STACKS
def test_datagrams_go_both_ways_unordered_and_once(
    stack: str, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue(stack)

    async def tell(other: Foreign) -> None:
        async with WebRtcPeer(options=GATHERING, trickle=False) as peer:
            other.tell("describe", type="offer", sdp=await peer.create_offer())
            await peer.set_answer((await other.hear("description"))["sdp"])
            channel = await peer.connect(20)
            datagrams = await channel.open_channel("state", ordered=False, max_retransmits=0)
            await other.hear("channel", "state")
            sent = [b"%03d" % number for number in range(200)]
            came = set()
            for data in sent:  # 200 Hz
                await datagrams.send(data)
                await asyncio.sleep(0.005)
            with contextlib.suppress(TimeoutError):
                while len(came) < len(sent):
                    came.add(await asyncio.wait_for(datagrams.recv(), 1))
            assert came <= set(sent)
            assert len(came) >= 190

    story(command, tell)


@pytest.mark.parametrize(
    ("stack", "we_offer"),
    # An offerer is the DTLS server, and as a client aiortc has no ciphers for RSA certificates.
    [("libdatachannel", True), ("libdatachannel", False), ("webrtcbin", True)],
)
def test_aiortc_on_our_ice_talks_to_them_too(
    stack: str, we_offer: bool, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue(stack)

    async def tell(other: Foreign) -> None:
        pc = peer_connection(options=GATHERING)
        arrived: asyncio.Queue = asyncio.Queue()
        pc.on("datachannel", arrived.put_nowait)
        try:
            if we_offer:
                channel = Messages(pc.createDataChannel("ours"))
                await pc.setLocalDescription()
                other.tell("describe", type="offer", sdp=pc.localDescription.sdp)
                answer = await other.hear("description")
                await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
                await asyncio.wait_for(channel.opened.wait(), 20)
            else:
                other.tell("open", label="theirs")
                offer = await other.hear("description")
                await pc.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
                await pc.setLocalDescription()
                other.tell("describe", type="answer", sdp=pc.localDescription.sdp)
                channel = Messages(await asyncio.wait_for(arrived.get(), 20))
                await other.hear("channel", "theirs")

            async def send(message: Any) -> None:
                channel.send(message)
                while channel.channel.bufferedAmount > 65536:
                    await asyncio.sleep(0.01)

            await echoes(send, lambda: channel.next(10))
            assert pc.ice_connections[0].path is not None
            shown = pc.sctp.transport._ssl.get_peer_certificate(as_cryptography=True)
            assert isinstance(shown.public_key(), RSAPublicKey) is (stack == "webrtcbin")
        finally:
            await pc.close()

    story(command, tell)
