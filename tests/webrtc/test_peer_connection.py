"""peer_connection: an ordinary RTCPeerConnection of aiortc's whose ICE is ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

import aioice
from aiortc import (
    RTCConfiguration,
    RTCIceCandidate,
    RTCIceServer,
    RTCIceTransport,
    RTCPeerConnection,
    RTCSessionDescription,
    sdp,
)

from ice_punch import InvalidConfiguration, PeerSilent, PortRangeExhausted, RestartRefused
from ice_punch.ice import AgentConfig
from ice_punch.net.ice_server import IceServer
from ice_punch.stun import (
    XOR_MAPPED_ADDRESS,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)
from ice_punch.webrtc import AioiceConnection, IceGatherer, PeerConnection, peer_connection
from support.loopback import GATHERING
from support.tab import Messages, aiortc_on_loopback, stock_connection
from support.turn_through_nat import TurnThroughNat

GATHERING = replace(GATHERING, follow_network=False, timeout=2.0)
Maker = Callable[[], RTCPeerConnection]


def ours() -> PeerConnection:
    return peer_connection(options=GATHERING)


def in_loop(story: Callable[[], object]) -> None:
    async def main() -> None:
        with aiortc_on_loopback():
            async with asyncio.timeout(30):
                await story()  # type: ignore[misc]

    asyncio.run(main())


async def negotiate(offerer: RTCPeerConnection, answerer: RTCPeerConnection) -> None:
    await offerer.setLocalDescription(await offerer.createOffer())
    await answerer.setRemoteDescription(offerer.localDescription)
    await answerer.setLocalDescription(await answerer.createAnswer())
    await offerer.setRemoteDescription(answerer.localDescription)


@contextlib.asynccontextmanager
async def channel_between(
    offerer: RTCPeerConnection, answerer: RTCPeerConnection
) -> AsyncIterator[tuple[Messages, Messages]]:
    arrived: asyncio.Queue = asyncio.Queue()
    answerer.on("datachannel", arrived.put_nowait)
    here = Messages(offerer.createDataChannel("both ways"))
    try:
        await negotiate(offerer, answerer)
        await asyncio.wait_for(here.opened.wait(), 10)
        yield here, Messages(await asyncio.wait_for(arrived.get(), 5))
    finally:
        await offerer.close()
        await answerer.close()


async def exchange(here: Messages, there: Messages) -> None:
    for message in ("text", b"\x00binary", "a" * 100_000):
        here.send(message)
        assert await there.next() == message
        there.send(message)
        assert await here.next() == message


@pytest.mark.parametrize(
    ("offerer", "answerer"),
    [(ours, ours), (ours, stock_connection), (stock_connection, ours)],
    ids=["ours to ours", "ours to stock", "stock to ours"],
)
def test_data_channels_with_ours_and_with_stock_aiortc(offerer: Maker, answerer: Maker) -> None:
    async def story() -> None:
        a, b = offerer(), answerer()
        assert isinstance(a, RTCPeerConnection)
        async with channel_between(a, b) as (here, there):
            await exchange(here, there)
            assert (a.iceConnectionState, a.connectionState) == ("completed", "connected")
        assert a.connectionState == "closed"

    in_loop(story)


def test_stock_connections_of_the_same_process_are_as_they_were() -> None:
    async def story() -> None:
        us = ours()
        async with channel_between(stock_connection(), stock_connection()) as (here, there):
            await exchange(here, there)
            us.createDataChannel("x")
            await us.setLocalDescription(await us.createOffer())
            assert type(us.sctp.transport.transport.iceGatherer).__module__.startswith("ice_punch.")
            other = stock_connection()
            other.createDataChannel("x")
            gatherer = other.sctp.transport.transport.iceGatherer
            assert type(gatherer).__module__ == "aiortc.rtcicetransport"
            assert type(gatherer._connection).__module__ == "aioice.ice"
            await other.close()
        await us.close()

    in_loop(story)


@contextlib.contextmanager
def silent_server() -> object:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"stun:127.0.0.1:{sock.getsockname()[1]}"


def test_candidates_trickle_to_who_listens_and_no_silent_server_holds_the_offer_back() -> None:
    async def story() -> None:
        with silent_server() as uri:
            a = peer_connection(ice_servers=[uri], options=GATHERING)
            b = peer_connection(options=GATHERING)
            for pc, other in ((a, b), (b, a)):
                pc.found = asyncio.Queue()
                pc.on("icecandidate", pc.found.put_nowait)
                pc.other = other
            here = Messages(a.createDataChannel("x"))
            began = asyncio.get_running_loop().time()
            await a.setLocalDescription(await a.createOffer())
            assert asyncio.get_running_loop().time() - began < 1.0
            assert a.iceGatheringState == "gathering"
            offer = a.localDescription.sdp
            assert "a=end-of-candidates" not in offer
            assert "a=ice-options:trickle" in offer
            # As if the offer had left before any candidate was there.
            bare = "".join(
                line for line in offer.splitlines(keepends=True) if "a=candidate" not in line
            )
            await b.setRemoteDescription(RTCSessionDescription(bare, "offer"))
            await b.setLocalDescription(await b.createAnswer())
            await a.setRemoteDescription(b.localDescription)
            candidate = await asyncio.wait_for(a.found.get(), 5)
            assert isinstance(candidate, RTCIceCandidate)
            assert (candidate.sdpMid, candidate.sdpMLineIndex, candidate.type) == ("0", 0, "host")
            assert sdp.candidate_to_sdp(candidate) in offer
            await b.addIceCandidate(candidate)
            await asyncio.wait_for(here.opened.wait(), 10)
            assert await asyncio.wait_for(a.found.get(), 5) is None
            assert a.iceGatheringState == "complete"
            assert "a=end-of-candidates" in a.localDescription.sdp
            await a.close()
            await b.close()

    in_loop(story)


def test_without_a_listener_the_description_is_complete() -> None:
    async def story() -> None:
        async with TurnThroughNat() as nat:
            pc = peer_connection(ice_servers=[nat.ice_server], options=GATHERING)
            pc.createDataChannel("x")
            await pc.setLocalDescription()
            assert pc.iceGatheringState == "complete"
            for kind in ("host", "srflx", "relay", "end-of-candidates"):
                assert kind in pc.localDescription.sdp
            await pc.close()

    in_loop(story)


def test_all_stun_and_turn_servers_are_used() -> None:
    """aiortc takes the first of each kind and passes over the others in silence."""

    async def story() -> None:
        elsewhere = TurnThroughNat(relay_ips=["203.0.113.20"])
        async with TurnThroughNat() as one, elsewhere as two, TurnThroughNat() as three:
            first, second, third = (n.ice_server for n in (one, two, three))
            pc = peer_connection(
                RTCConfiguration(
                    iceServers=[
                        RTCIceServer(
                            [first.uri, second.uri],
                            username=first.username,
                            credential=first.password,
                        ),
                        RTCIceServer(f"stun:{third.host}:{third.port}"),
                    ]
                ),
                options=GATHERING,
            )
            pc.createDataChannel("x")
            await pc.setLocalDescription()
            outcomes = {
                (s.uri, s.purpose, s.outcome) for s in pc.ice_connections[0].report().servers
            }
            assert {
                (first.uri, "relay", "ok"),
                (second.uri, "relay", "ok"),
                (f"stun:{third.host}:{third.port}", "address", "ok"),
            } <= outcomes
            media = sdp.SessionDescription.parse(pc.localDescription.sdp).media[0]
            relays = {c.ip for c in media.ice_candidates if c.type == "relay"}
            assert relays == {"203.0.113.10", "203.0.113.20"}
            await pc.close()

    in_loop(story)


class StunServerElsewhere(asyncio.DatagramProtocol):
    """Sees whoever asks at another IPv6 address, as behind a translator of prefixes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        with contextlib.suppress(StunParseError):
            request = parse_message(data)
            answer = Message(Method.BINDING, MessageClass.SUCCESS, request.transaction_id)
            answer.add(XOR_MAPPED_ADDRESS, ("2001:db8::77", addr[1]))
            self.transport.sendto(answer.to_bytes(), addr)  # type: ignore[attr-defined]


def test_ipv6_has_server_reflexive_candidates_too() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            StunServerElsewhere, local_addr=("::1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        options = replace(GATHERING, ipv4=False, ipv6=True)
        pc = peer_connection(ice_servers=[f"stun:[::1]:{port}"], options=options)
        pc.createDataChannel("x")
        await pc.setLocalDescription()
        media = sdp.SessionDescription.parse(pc.localDescription.sdp).media[0]
        (found,) = (c for c in media.ice_candidates if c.type == "srflx")
        assert (found.ip, found.relatedAddress) == ("2001:db8::77", "::1")
        await pc.close()
        transport.close()

    in_loop(story)


def test_ports_come_from_the_range_and_none_left_is_told() -> None:
    async def story() -> None:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            full = peer_connection(port_range=(port, port), options=GATHERING)
            full.createDataChannel("x")
            with pytest.raises(PortRangeExhausted, match=str(port)):
                await full.setLocalDescription()
            await full.close()
        free = peer_connection(port_range=(port, port), options=GATHERING)
        free.createDataChannel("x")
        await free.setLocalDescription()
        media = sdp.SessionDescription.parse(free.localDescription.sdp).media[0]
        assert {c.port for c in media.ice_candidates} == {port}
        await free.close()

    in_loop(story)


@pytest.mark.parametrize("offerer_restarts", [True, False])
def test_either_side_restarts_ice_and_the_channel_goes_on(offerer_restarts: bool) -> None:
    async def story() -> None:
        a, b = ours(), ours()
        async with channel_between(a, b) as (here, there):
            await exchange(here, there)
            first, second = (a, b) if offerer_restarts else (b, a)
            before = first.localDescription.sdp, second.localDescription.sdp
            session = first.ice_connections[0]
            first.restartIce()
            await negotiate(first, second)
            assert first.iceGatheringState == "complete"
            after = first.localDescription.sdp, second.localDescription.sdp
            for old, new in zip(before, after, strict=True):
                for field in ("ice-ufrag:", "ice-pwd:"):
                    told = [next(x for x in text.splitlines() if field in x) for text in (old, new)]
                    assert told[0] != told[1]
                assert "a=candidate" in new
            assert not session.restarting
            await exchange(here, there)
            assert first.ice_connections == (session,)

    in_loop(story)


def test_a_restart_is_refused_before_the_first_path() -> None:
    async def story() -> None:
        pc = ours()
        pc.createDataChannel("x")
        await pc.setLocalDescription()
        with pytest.raises(RestartRefused):
            pc.restartIce()
        await pc.close()

    in_loop(story)


def test_statistics_tell_the_path() -> None:
    async def story() -> None:
        a, b = ours(), stock_connection()
        async with channel_between(a, b) as (here, there):
            await exchange(here, there)
            report = list((await a.getStats()).values())
            (pair,) = (s for s in report if s.type == "candidate-pair")
            ends = {s.id: s for s in report if s.type.endswith("-candidate")}
            assert (ends[pair.localCandidateId].address, pair.relayed) == ("127.0.0.1", False)
            assert ends[pair.remoteCandidateId].candidateType == "host"
            assert 0 < pair.minimumRoundTripTime <= pair.smoothedRoundTripTime < 1
            assert pair.pathMtu >= 1280
            (transport,) = (s for s in report if s.type == "transport")
            assert pair.transportId == transport.id
            assert pair.packetsReceived == transport.packetsReceived
            assert pair.bytesReceived == transport.bytesReceived > 100_000

    in_loop(story)


def test_a_peer_that_is_gone_makes_it_fail_and_says_why() -> None:
    async def story() -> None:
        impatient = AgentConfig(give_up_after=1.0)
        a, b = peer_connection(options=GATHERING, agent_config=impatient), ours()
        a.createDataChannel("x")
        failed = asyncio.Event()
        a.on("iceconnectionstatechange", lambda: a.iceConnectionState == "failed" and failed.set())
        await a.setLocalDescription()
        await b.setRemoteDescription(a.localDescription)
        await b.setLocalDescription()
        answer = b.localDescription
        await b.close()
        assert a.ice_failure is None
        await a.setRemoteDescription(answer)
        await asyncio.wait_for(failed.wait(), 10)
        assert isinstance(a.ice_failure, PeerSilent)
        assert "\n" not in str(a.ice_failure)
        await a.close()

    in_loop(story)


@pytest.mark.parametrize(
    "arguments",
    [
        {"ice_servers": ["http://example.org"]},
        {"ice_servers": [IceServer("stun", "127.0.0.1", 3478, "udp"), "stun://x"]},
        {"port_range": (6000, 5000)},
        {"port_range": (0, 10)},
    ],
)
def test_wrong_arguments_are_told_at_once(arguments: dict) -> None:
    with pytest.raises(InvalidConfiguration):
        peer_connection(**arguments)
    with pytest.raises(InvalidConfiguration):
        peer_connection(RTCConfiguration(iceServers=[RTCIceServer("turn:")]))


def test_aiortcs_ortc_classes_take_our_gatherer() -> None:
    async def story() -> None:
        gatherers = [IceGatherer(options=GATHERING) for _ in range(2)]
        assert [g.state for g in gatherers] == ["new", "new"]
        await asyncio.gather(*(g.gather() for g in gatherers))
        transports = [RTCIceTransport(g) for g in gatherers]
        for transport, other in zip(transports, reversed(gatherers), strict=True):
            for candidate in other.getLocalCandidates():
                await transport.addRemoteCandidate(candidate)
            await transport.addRemoteCandidate(None)
        await asyncio.gather(
            *(
                t.start(g.getLocalParameters())
                for t, g in zip(transports, reversed(gatherers), strict=True)
            )
        )
        assert [t.state for t in transports] == ["completed", "completed"]
        assert {t.role for t in transports} == {"controlling", "controlled"}
        await transports[0]._send(b"below DTLS")
        assert await transports[1]._recv() == b"below DTLS"
        await asyncio.gather(*(t.stop() for t in transports))
        with pytest.raises(ConnectionError):
            await transports[1]._recv()
        with pytest.raises(ConnectionError):
            await transports[1]._send(b"too late")

    in_loop(story)


def test_a_connection_in_aioices_place_judges_what_it_is_given() -> None:
    async def story() -> None:
        with pytest.raises(InvalidConfiguration):
            AioiceConnection(True, components=2)
        with pytest.raises(ValueError, match="ufrag"):
            AioiceConnection(True, local_username="a b")
        connection = AioiceConnection(True, options=GATHERING, local_username="mine")
        assert connection.local_username == "mine"
        with pytest.raises(ConnectionError):
            await connection.connect()
        with pytest.raises(ConnectionError):
            await connection.send(b"nowhere")
        with pytest.raises(ConnectionError):
            await connection.recv()
        for number in range(300):  # of another host, and of no use
            await connection.add_remote_candidate(
                aioice.Candidate("1", 1, "udp", 1, f"not an address {number}", 9, "host")
            )
        assert len(connection.remote_candidates) == 128
        connection.remote_username, connection.remote_password = "peer", "p" * 22
        connecting = asyncio.ensure_future(connection.connect())
        await asyncio.sleep(0.05)
        assert not connecting.done()
        event = asyncio.ensure_future(connection.get_event())
        await connection.close()
        with pytest.raises(ConnectionError):
            await connecting
        assert isinstance(await event, aioice.ConnectionClosed)
        assert await connection.get_event() is None
        await connection.add_remote_candidate(None)
        await connection.close()

    in_loop(story)
