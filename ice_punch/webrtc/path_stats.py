"""The path of a transport, in the words of W3C's webrtc-stats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiortc import clock
from aiortc.stats import RTCStats

from ice_punch.webrtc.aioice_connection import AioiceConnection


@dataclass
class RTCIceCandidateStats(RTCStats):
    """One end of the path: ``local-candidate`` or ``remote-candidate``."""

    transportId: str  # noqa: N815
    address: str
    port: int
    protocol: str
    candidateType: str  # noqa: N815
    priority: int
    foundation: str
    url: str | None = None
    """The STUN or TURN server that told it."""


@dataclass
class RTCIceCandidatePairStats(RTCStats):
    """The pair that carries data. Times in seconds."""

    transportId: str  # noqa: N815
    localCandidateId: str  # noqa: N815
    remoteCandidateId: str  # noqa: N815
    state: str
    nominated: bool
    packetsSent: int  # noqa: N815
    packetsReceived: int  # noqa: N815
    bytesSent: int  # noqa: N815
    bytesReceived: int  # noqa: N815
    packetsDiscardedOnSend: int  # noqa: N815
    currentRoundTripTime: float | None  # noqa: N815
    smoothedRoundTripTime: float | None  # noqa: N815
    minimumRoundTripTime: float | None  # noqa: N815
    packetLoss: float | None  # noqa: N815
    """The share of checks that go unanswered, 0 to 1."""
    pathMtu: int | None  # noqa: N815
    """Bytes of an IP packet (RFC 8899)."""
    relayed: bool


def path_stats(connection: AioiceConnection, transport_id: str) -> Iterator[RTCStats]:
    """The pair and its two candidates, where there is a path."""
    carrier = connection.ice.carrier
    pair = carrier.pair
    if pair is None:
        return
    now = clock.current_datetime()
    ends = []
    for kind, candidate in (
        ("local-candidate", pair.mapped or pair.local),
        ("remote-candidate", pair.remote),
    ):
        ends.append(f"{kind}_{transport_id}")
        yield RTCIceCandidateStats(
            timestamp=now,
            type=kind,
            id=ends[-1],
            transportId=transport_id,
            address=candidate.host,
            port=candidate.port,
            protocol=candidate.transport,
            candidateType=candidate.type.value,
            priority=candidate.priority,
            foundation=candidate.foundation,
            url=candidate.server,
        )
    figures = carrier.figures
    received, received_bytes = connection.datagrams_received
    sent, sent_bytes = connection.datagrams_sent
    yield RTCIceCandidatePairStats(
        timestamp=now,
        type="candidate-pair",
        id=f"candidate-pair_{transport_id}",
        transportId=transport_id,
        localCandidateId=ends[0],
        remoteCandidateId=ends[1],
        state="succeeded",
        nominated=pair is connection.ice.selected_pair,
        packetsSent=sent,
        packetsReceived=received,
        bytesSent=sent_bytes,
        bytesReceived=received_bytes,
        packetsDiscardedOnSend=carrier.losses.total,
        currentRoundTripTime=figures.rtt,
        smoothedRoundTripTime=figures.rtt_smoothed,
        minimumRoundTripTime=figures.rtt_min,
        packetLoss=figures.loss,
        pathMtu=figures.path_mtu,
        relayed=pair.relayed,
    )
