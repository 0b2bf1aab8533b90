"""Why a session connected the way it did, or did not: plain data that errors and events carry."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What one STUN or TURN server did for us."""

    uri: str
    outcome: str
    """``ok``, ``pending``, ``silent``, ``unreachable``, ``unresolved``, ``rejected`` or
    ``denied``."""
    detail: str = ""
    purpose: str = ""
    """What it was asked for: ``address``, the one it sees (RFC 8445 section 5.1.1.2), or
    ``relay``."""
    base: str = ""
    """The address of ours that it was asked from; empty for relays."""
    mapped: str = ""
    """The address that it saw instead."""


@dataclass(frozen=True, slots=True)
class SideReport:
    """What is known of one side's network."""

    ip_versions: tuple[int, ...] = ()
    """4, 6 or both: of its candidates but the relayed ones."""
    public_ip_versions: tuple[int, ...] = ()
    """Those with an address on the internet that was told: its own, or the one a server saw."""
    relay_ip_versions: tuple[int, ...] = ()
    """Of its relayed candidates."""
    mapping_varies: bool | None = None
    """Whether its NAT gives a new port for every destination (RFC 4787 section 4.1); None: not
    known."""


@dataclass(frozen=True, slots=True)
class PairReport:
    """What became of one candidate pair."""

    local: str
    remote: str
    local_type: str
    remote_type: str
    state: str
    requests_sent: int
    responses_received: int
    requests_received: int
    rtt: float | None
    """Seconds, the latest measured round trip."""
    nominated: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """Why the peer gave up, from this side's view."""

    cause: str
    """A ``Cause``."""
    side: str
    """``here``, ``there`` or ``both``."""
    detail: str = ""
    """In the peer's words; about servers that it asked, for example."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything known when a session ended or connected. ``diagnose`` reads it."""

    local_candidates: tuple[str, ...] = ()
    remote_candidates: tuple[str, ...] = ()
    pairs: tuple[PairReport, ...] = ()
    servers: tuple[ServerReport, ...] = ()
    notes: tuple[str, ...] = field(default=())
    local: SideReport = SideReport()
    remote: SideReport = SideReport()
    peer_heard: bool = False
    """Whether the peer has authenticated itself on any pair."""
    peer_told_all: bool = False
    """Whether the peer has said that no more candidates come."""
    same_nat: bool = False
    """Whether both sides have the same address on the internet."""
    udp_works: bool | None = None
    """Whether anything came over UDP from beyond the local network; None: too early to tell."""
    tcp_hosts: tuple[str, ...] = ()
    """Hosts that answered over TCP: of signaling, of TURN servers."""
    direct_only: bool = False
    relay_only: bool = False
    nothing_gathered: str = ""
    """Why there is no candidate of this side's, where there is none."""
    told: Told | None = None
