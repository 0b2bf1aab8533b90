"""What a DTLS association tells the shell around it."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.errors import HandshakeFailed
from ice_punch.sdp import Fingerprint


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """The association is up and the peer's certificate is one its description announced."""

    version: str
    """``DTLSv1.2`` or later."""
    cipher: str
    """OpenSSL's name of the cipher suite, such as ``ECDHE-ECDSA-AES128-GCM-SHA256``."""
    peer_fingerprint: Fingerprint
    """The announced fingerprint that the peer's certificate matched."""


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """One datagram of the application, decrypted and authenticated."""

    data: bytes


@dataclass(frozen=True, slots=True)
class HandshakeFailedEvent:
    """The association could not be made; nothing more will happen on this machine."""

    error: HandshakeFailed
    """`FingerprintMismatch` when the peer showed another certificate than the announced one."""


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer ended the association; nothing more will happen on this machine."""

    reason: str
    """``close_notify`` for an orderly end, else OpenSSL's words for what went wrong."""


Event = HandshakeCompleted | DatagramReceived | HandshakeFailedEvent | PeerClosed


@dataclass(slots=True)
class DtlsCounters:
    """What passed and what was dropped."""

    datagrams_received: int = 0
    datagrams_sent: int = 0
    application_received: int = 0
    """Application datagrams delivered as `DatagramReceived`."""
    application_bytes: int = 0
    """Bytes of those."""
    application_sent: int = 0
    retransmitted: int = 0
    """Handshake datagrams sent again (part of ``datagrams_sent``)."""
    malformed: int = 0
    """Datagrams, or the rest of one, that are no DTLS records."""
    discarded: int = 0
    """Records thrown away: not authentic, replayed, of another epoch, or out of place."""
    held_dropped: int = 0
    """Records dropped because too many were waiting for the start or the fingerprints."""
    late: int = 0
    """Datagrams that arrived after the end of the association."""
