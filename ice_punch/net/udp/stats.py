"""What a UDP socket counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class UdpStats:
    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    dropped: int = 0
    """Sends given up: a full queue or buffer, or a packet filter of this host."""
    too_large: int = 0
    """Sends refused because the path carries no datagram of that size (EMSGSIZE)."""
    refused: int = 0
    """Sends refused for another reason: no route, or an address that nothing can be sent to."""
    icmp_errors: int = 0
    """Hard ICMP errors."""
    icmp_ignored: int = 0
    """Soft ICMP errors, RFC 1122 section 3.2.2.1: they may pass."""
