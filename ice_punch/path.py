"""The way datagrams take, for people, and how large they may be on it."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address, format_address
from ice_punch.ice import CandidatePair

PATH_MTU = 1280
"""Bytes of an IP packet that every path carries (RFC 8200 section 5)."""
UDP_HEADER = 8
IP_HEADER = {4: 20, 6: 40}
RELAY_OVERHEAD = 4
"""Bytes of a ChannelData header (RFC 8656 section 12.4)."""


@dataclass(frozen=True, slots=True)
class Path:
    """The way datagrams take."""

    kind: str
    """``direct`` or ``relayed``."""
    local: Address
    """Our address as the peer sees it."""
    remote: Address
    local_type: str
    remote_type: str
    rtt: float | None
    """Seconds, the latest measured round trip."""

    @classmethod
    def of(cls, pair: CandidatePair) -> Path:
        local = pair.mapped or pair.local
        return cls(
            kind="relayed" if pair.relayed else "direct",
            local=local.address,
            remote=pair.remote.address,
            local_type=local.type.value,
            remote_type=pair.remote.type.value,
            rtt=pair.rtt,
        )

    def __str__(self) -> str:
        rtt = "?" if self.rtt is None else f"{self.rtt * 1000:.0f}"
        return f"{self.kind} {format_address(self.remote)} rtt {rtt} ms"


def headers(pair: CandidatePair | None) -> int:
    """Bytes that an IP packet on a path of this kind has besides the datagram."""
    version = 4 if pair is None else pair.remote.ip_version
    overhead = RELAY_OVERHEAD if pair is not None and pair.relayed else 0
    return IP_HEADER[version] + UDP_HEADER + overhead
