"""DTLS (RFC 6347) over OpenSSL as a state machine without input or output of its own.

The peers know each other by the certificate fingerprints of their session descriptions (RFC 8122);
no byte of the application is sent or delivered before the peer's certificate has matched.
"""

from ice_punch.dtls.certificate import Certificate
from ice_punch.dtls.events import (
    DatagramReceived,
    DtlsCounters,
    Event,
    HandshakeCompleted,
    HandshakeFailedEvent,
    PeerClosed,
)
from ice_punch.dtls.machine import MIN_MTU, DtlsMachine
from ice_punch.dtls.roles import DtlsRole, answer_setup, dtls_role
from ice_punch.dtls.segments import Segments

__all__ = [
    "MIN_MTU",
    "Certificate",
    "DatagramReceived",
    "DtlsCounters",
    "DtlsMachine",
    "DtlsRole",
    "Event",
    "HandshakeCompleted",
    "HandshakeFailedEvent",
    "PeerClosed",
    "Segments",
    "answer_setup",
    "dtls_role",
]
