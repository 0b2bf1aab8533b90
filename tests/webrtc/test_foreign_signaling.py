"""WebRtcPeer: data channels with other WebRTC stacks, over whatever signaling there is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ice_punch import (
    ChannelClosed,
    FingerprintMismatch,
    InvalidConfiguration,
    InvalidDescription,
    RestartRefused,
)
from ice_punch.dtls import Certificate
from ice_punch.errors import HandshakeFailed, MessageTooLarge
from ice_punch.sdp import Description, Fingerprint
from ice_punch.webrtc import WebRtcChannel, WebRtcPeer
from support.loopback import GATHERING
from support.tab import Messages, aiortc_on_loopback, stock_connection


@contextlib.asynccontextmanager
async def with_aiortc(*, we_offer: bool) -> AsyncIterator[tuple[WebRtcChannel, RTCPeerConnection]]:
    """A channel of ours, and stock aiortc at the other end, which has opened ``theirs``."""
    with aiortc_on_loopback():
        pc = stock_connection()
        pc.opened = Messages(pc.createDataChannel("theirs", protocol="chat"))
        async with WebRtcPeer(options=GATHERING, trickle=False) as peer:
            try:
                if we_offer:
                    offer = await peer.create_offer()
                    await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
                    await pc.setLocalDescription(await pc.createAnswer())
                    await peer.set_answer(pc.localDescription.sdp)
                else:
                    await pc.setLocalDescription(await pc.createOffer())
                    answer = await peer.create_answer(pc.localDescription.sdp)
                    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
                yield await peer.connect(10), pc
            finally:
                await pc.close()


@contextlib.asynccontextmanager
async def two_peers(**options: bool) -> AsyncIterator[tuple[WebRtcPeer, WebRtcPeer]]:
    """Both ours, connected; the first has offered."""
    async with (
        WebRtcPeer(options=GATHERING, trickle=False, **options) as a,
        WebRtcPeer(options=GATHERING, trickle=False, **options) as b,
    ):
        answer = await b.create_answer(await a.create_offer())
        await a.set_answer(answer)
        await asyncio.gather(a.connect(10), b.connect(10))
        yield a, b


@pytest.mark.parametrize("we_offer", [True, False], ids=["we offer", "aiortc offers"])
def test_messages_go_both_ways_on_channels_that_either_side_opens(we_offer: bool) -> None:
    async def run() -> None:
        async with with_aiortc(we_offer=we_offer) as (channel, pc):
            arrived: asyncio.Queue = asyncio.Queue()
            pc.on("datachannel", arrived.put_nowait)
            theirs = await asyncio.wait_for(channel.accept_channel(), 5)
            assert (theirs.label, theirs.protocol, theirs.ordered) == ("theirs", "chat", True)
            assert theirs.reliable
            await theirs.send("text")
            assert await pc.opened.next() == "text"
            for message in ("", b"", "grüße", b"\x00binary", "a" * 200_000):
                pc.opened.send(message)
                assert await asyncio.wait_for(theirs.recv(), 5) == message
            ours = await channel.open_channel("ours", ordered=False, max_retransmits=0)
            other = Messages(await asyncio.wait_for(arrived.get(), 5))
            assert (other.channel.label, other.channel.ordered) == ("ours", False)
            assert other.channel.maxRetransmits == 0
            assert not ours.reliable
            await ours.send(b"datagram")
            assert await other.next() == b"datagram"

    asyncio.run(run())


def test_a_channel_closes_on_both_sides_whoever_closes_it() -> None:
    async def run() -> None:
        async with with_aiortc(we_offer=True) as (channel, pc):
            theirs = await asyncio.wait_for(channel.accept_channel(), 5)
            pc.opened.send("last words")
            await asyncio.sleep(0.05)
            pc.opened.channel.close()
            await asyncio.wait_for(theirs.wait_closed(), 5)
            assert await theirs.recv() == "last words"
            with pytest.raises(ChannelClosed, match="the peer closed the data channel"):
                await theirs.recv()
            with pytest.raises(ChannelClosed):
                await theirs.send("too late")

            arrived: asyncio.Queue = asyncio.Queue()
            pc.on("datachannel", arrived.put_nowait)
            ours = await channel.open_channel("ours")
            other = Messages(await asyncio.wait_for(arrived.get(), 5))
            for number in range(50):
                await ours.send(str(number))
            ours.close()
            assert [await other.next() for _ in range(50)] == [str(n) for n in range(50)]
            await asyncio.wait_for(other.closed.wait(), 5)
            assert not channel.closed

    asyncio.run(run())


@pytest.mark.parametrize("we_offer", [True, False])
def test_closing_a_session_is_told_at_once(we_offer: bool) -> None:
    async def run() -> None:
        async with with_aiortc(we_offer=we_offer) as (channel, pc):
            await channel.close()
            await asyncio.wait_for(pc.opened.closed.wait(), 2)
        async with with_aiortc(we_offer=we_offer) as (channel, pc):
            theirs = await asyncio.wait_for(channel.accept_channel(), 5)
            await pc.close()
            with pytest.raises(ChannelClosed, match="the peer closed the channel"):
                await asyncio.wait_for(theirs.recv(), 2)
            with pytest.raises(ChannelClosed, match="the peer closed the channel"):
                await asyncio.wait_for(channel.open_channel("late"), 2)

    asyncio.run(run())


def test_the_description_has_what_browsers_expect() -> None:
    async def run() -> None:
        async with WebRtcPeer(options=GATHERING) as peer:
            lines = (await peer.create_offer()).split("\r\n")
            media = next(line for line in lines if line.startswith("m="))
            assert media.endswith(" UDP/DTLS/SCTP webrtc-datachannel")
            for line in (
                "a=group:BUNDLE 0",
                "a=mid:0",
                "a=setup:actpass",
                "a=sctp-port:5000",
                "a=max-message-size:262144",
            ):
                assert line in lines
            assert any(line.startswith("a=fingerprint:sha-256 ") for line in lines)
            assert any(line.startswith("a=candidate:") for line in lines)
        async with WebRtcPeer(options=GATHERING) as peer:
            foreign = "\r\n".join(lines).replace("BUNDLE 0", "BUNDLE data")
            answer = await peer.create_answer(foreign.replace("a=mid:0", "a=mid:data"))
            assert "a=mid:data\r\n" in answer
            assert "a=group:BUNDLE data\r\n" in answer
            assert "a=setup:active\r\n" in answer

    asyncio.run(run())


def test_candidates_trickle_and_their_end_is_told() -> None:
    async def run() -> None:
        async with WebRtcPeer(options=GATHERING) as a, WebRtcPeer(options=GATHERING) as b:

            async def trickle(source: WebRtcPeer, sink: WebRtcPeer) -> list[dict[str, str | int]]:
                told = []
                async for candidate in source.candidates():
                    told.append(candidate.to_json())
                    sink.add_candidate(told[-1])
                    if not candidate.candidate:
                        break
                return told

            def bare(sdp: str) -> str:
                kept = (line for line in sdp.split("\r\n") if "candidate" not in line)
                return "\r\n".join(kept)

            one, other = (asyncio.ensure_future(trickle(*pair)) for pair in ((a, b), (b, a)))
            answer = await b.create_answer(bare(await a.create_offer()))
            await a.set_answer(bare(answer))
            await asyncio.gather(a.connect(10), b.connect(10))
            for told in await asyncio.wait_for(asyncio.gather(one, other), 5):
                assert [str(c["candidate"])[:10] for c in told] == ["candidate:", ""]
                assert {(c["sdpMid"], c["sdpMLineIndex"]) for c in told} == {("0", 0)}
                assert len({c["usernameFragment"] for c in told}) == 1

    asyncio.run(run())


@pytest.mark.parametrize("restarts", ["the side that offered", "the side that answered"])
def test_ice_restarts_from_either_side_and_channels_live_on(restarts: str) -> None:
    async def run() -> None:
        async with two_peers() as (a, b):
            first, second = (a, b) if restarts == "the side that offered" else (b, a)
            here, there = await first.connect(), await second.connect()
            ours, theirs = await asyncio.gather(here.open_channel("x"), there.accept_channel())
            before = Description.parse(first.connection.local_description)
            offer = Description.parse(await first.create_offer(restart=True))
            assert offer.is_ice_restart(before)
            with pytest.raises(RestartRefused):
                await first.create_answer(offer.to_sdp())
            answer = await second.create_answer(offer.to_sdp())
            assert Description.parse(answer).setup.value in ("active", "passive")
            await first.set_answer(answer)
            await ours.send("during")
            assert await asyncio.wait_for(theirs.recv(), 5) == "during"
            async with asyncio.timeout(10):
                while first.connection.restarting or second.connection.restarting:
                    await asyncio.sleep(0.02)
            await theirs.send(b"after")
            assert await asyncio.wait_for(ours.recv(), 5) == b"after"

    asyncio.run(run())


def test_an_offer_that_changes_nothing_is_answered() -> None:
    async def run() -> None:
        async with two_peers(negotiated=True) as (a, b):
            answer = await b.create_answer(await a.create_offer())
            await a.set_answer(answer)
            channel, other = await a.connect(), await b.connect()
            await channel.send(b"on as before")
            assert await asyncio.wait_for(other.recv(), 5) == b"on as before"

    asyncio.run(run())


@pytest.mark.parametrize("we_offer", [True, False])
def test_a_peer_with_an_rsa_certificate_is_welcome(we_offer: bool) -> None:
    """GStreamer's webrtcbin has no other."""

    async def run() -> None:
        async with (
            WebRtcPeer(options=GATHERING, trickle=False, certificate=_rsa()) as a,
            WebRtcPeer(options=GATHERING, trickle=False) as b,
        ):
            first, second = (b, a) if we_offer else (a, b)
            await first.set_answer(await second.create_answer(await first.create_offer()))
            here, there = await asyncio.gather(a.connect(10), b.connect(10))
            ours, theirs = await asyncio.gather(here.open_channel("x"), there.accept_channel())
            await ours.send("hello")
            assert await asyncio.wait_for(theirs.recv(), 5) == "hello"

    asyncio.run(run())


def _rsa() -> Certificate:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "webrtcbin")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    return Certificate(builder.sign(key, hashes.SHA256()), key)


# -- wrong use --------------------------------------------------------------------------------


AUDIO = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
a=ice-ufrag:abcd
a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa
a=setup:actpass
""".replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda sdp: AUDIO, "no data channel"),
        (lambda sdp: sdp.replace("UDP/DTLS/SCTP webrtc-datachannel", "UDP x"), "no data channel"),
        (lambda sdp: _without(sdp, "a=fingerprint"), "no fingerprint"),
        (lambda sdp: _without(sdp, "a=setup"), "no setup"),
        (lambda sdp: "hello", "line 1: not of the form"),
    ],
    ids=["audio", "plain datagrams", "no fingerprint", "no setup", "no SDP"],
)
def test_a_description_without_a_data_channel_is_refused(spoil, sentence: str) -> None:
    async def run() -> None:
        async with WebRtcPeer(options=GATHERING) as peer, WebRtcPeer(options=GATHERING) as other:
            offer = await other.create_offer()
            with pytest.raises(InvalidDescription, match=sentence):
                await peer.create_answer(spoil(offer))
            with pytest.raises(InvalidDescription, match=sentence):
                await other.set_answer(spoil(await peer.create_answer(offer)))

    asyncio.run(run())


def _without(sdp: str, start: str) -> str:
    return "\r\n".join(line for line in sdp.split("\r\n") if not line.startswith(start))


def test_a_fingerprint_that_does_not_match_ends_both_sides() -> None:
    async def run() -> None:
        async with WebRtcPeer(options=GATHERING) as a, WebRtcPeer(options=GATHERING) as b:
            offer = await a.create_offer()
            answer = Description.parse(await b.create_answer(offer))
            forged = Fingerprint("sha-256", bytes(32))
            await a.set_answer(replace(answer, fingerprints=(forged,)).to_sdp())
            ends = await asyncio.gather(a.connect(10), b.connect(10), return_exceptions=True)
            assert isinstance(ends[0], FingerprintMismatch)
            assert isinstance(ends[1], HandshakeFailed)
            assert "not the one its description announced" in str(ends[0])
            assert "refused" in str(ends[1])

    asyncio.run(run())


def test_the_wrong_order_is_one_clear_sentence() -> None:
    async def run() -> None:
        async with WebRtcPeer(options=GATHERING) as peer:
            with pytest.raises(RestartRefused, match="both descriptions"):
                await peer.connect()
            with pytest.raises(RestartRefused, match="no offer"):
                await peer.set_answer("v=0")
            await peer.create_offer()
            with pytest.raises(RestartRefused, match="never connected"):
                await peer.create_offer(restart=True)
            with pytest.raises(InvalidDescription):
                peer.add_candidate("candidate:nonsense")
            with pytest.raises(InvalidDescription):
                peer.add_candidate({"candidate": 7})
        with pytest.raises(RestartRefused, match="closed"):
            await peer.create_offer()

    asyncio.run(run())


def test_a_message_larger_than_the_peer_takes_is_refused_here() -> None:
    async def run() -> None:
        async with two_peers() as (a, b):
            here, there = await a.connect(), await b.connect()
            ours, theirs = await asyncio.gather(here.open_channel("x"), there.accept_channel())
            assert ours.max_message_size == 262144
            with pytest.raises(MessageTooLarge, match="limit 262144") as raised:
                await ours.send(bytes(262145))
            assert (raised.value.size, raised.value.limit) == (262145, 262144)
            with pytest.raises(MessageTooLarge):
                await ours.send("ä" * 131073)
            await ours.send(bytes(262144))
            assert await asyncio.wait_for(theirs.recv(), 5) == bytes(262144)

    asyncio.run(run())


def test_arguments_of_a_channel_are_checked() -> None:
    async def run() -> None:
        async with two_peers() as (a, _):
            channel = await a.connect()
            with pytest.raises(InvalidConfiguration, match="not both"):
                await channel.open_channel("x", max_retransmits=1, max_packet_life_time=1)
            with pytest.raises(InvalidConfiguration):
                await channel.open_channel("x", max_retransmits=-1)
            with pytest.raises(InvalidConfiguration, match="label"):
                await channel.open_channel("x" * 3000)
            with pytest.raises(InvalidConfiguration, match="no messages channel"):
                channel.messages
            with pytest.raises(InvalidConfiguration, match="no datagrams"):
                await channel.send(b"x")

    asyncio.run(run())
