"""aiortc's SCTP transport with our halves of sending and acknowledging."""

from __future__ import annotations

from ice_punch.webrtc.acknowledging import AcknowledgingHalf
from ice_punch.webrtc.sending import SendingHalf


class SctpTransport(AcknowledgingHalf, SendingHalf):
    """What `peer_connection` has for its ``sctp``: aiortc's in everything else."""
