"""What a session description says of data channels (RFC 8841)."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.errors import InvalidDescription
from ice_punch.sdp import Description

SCTP_PORT = 5000
DEFAULT_MAX_MESSAGE_SIZE = 65536
"""Bytes, where the peer says nothing (RFC 8841 section 6.1)."""


@dataclass(frozen=True, slots=True)
class SctpParameters:
    """How the peer's association is to be reached."""

    port: int = SCTP_PORT
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE
    """Bytes of the largest message it takes; 0 is without limit."""

    @classmethod
    def of(cls, description: Description) -> SctpParameters:
        """Raises InvalidDescription where there is no data channel, or nothing to secure it by."""
        formats = [name.lower() for name in description.formats]
        if (
            description.media != "application"
            or not description.protocol.upper().endswith("DTLS/SCTP")
            or "webrtc-datachannel" not in formats
        ):
            raise InvalidDescription(
                f"the peer's description has no data channel: its first media are "
                f"{description.media} {description.protocol}"
            )
        if not description.fingerprints:
            raise InvalidDescription("the peer's description has a data channel but no fingerprint")
        if description.setup is None:
            raise InvalidDescription("the peer's description has a fingerprint but no setup")
        size = description.max_message_size
        return cls(
            SCTP_PORT if description.sctp_port is None else description.sctp_port,
            DEFAULT_MAX_MESSAGE_SIZE if size is None else size,
        )
