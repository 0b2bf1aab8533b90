"""What an agent tells its driver."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ice_punch.datagram import Address
from ice_punch.ice.candidate import Candidate
from ice_punch.ice.pair import CandidatePair
from ice_punch.report import ServerReport


class IceState(StrEnum):
    """The session, in the words of RFC 8445 and of a browser's ``iceConnectionState``."""

    NEW = "new"
    CHECKING = "checking"
    CONNECTED = "connected"
    """A valid pair carries data; nomination is still to come (RFC 8445 section 12.1)."""
    COMPLETED = "completed"
    DISCONNECTED = "disconnected"
    """Answers stopped coming; they may come again."""
    FAILED = "failed"
    CLOSED = "closed"


class FailureCause(StrEnum):
    NO_ROUTE = "no-route"
    PEER_SILENT = "peer-silent"
    CONSENT_LOST = "consent-lost"


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: IceState
    reason: str
    cause: FailureCause | None = None


@dataclass(frozen=True, slots=True)
class LocalCandidateFound:
    """A candidate to be told to the peer, except a peer-reflexive one, which the peer knows."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class ServerQueryEnded:
    """A server-reflexive query came to its end, good or bad."""

    base: Address
    report: ServerReport


@dataclass(frozen=True, slots=True)
class SelectedPairChanged:
    """Datagrams take ``pair`` from now on: for the first time, or instead of another one."""

    pair: CandidatePair
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RestartAdvised:
    """An ICE restart is the way on (RFC 8445 section 9): the agent can not do it without the
    signaling that carries the new credentials."""

    reason: str
    fresh_sockets: bool = False
    """Whether the old ports are spoiled for this peer."""


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Application data on an address that the peer has proven to own."""

    data: bytes
    local: Address
    source: Address


Event = (
    StateChanged
    | LocalCandidateFound
    | ServerQueryEnded
    | SelectedPairChanged
    | RestartAdvised
    | DataReceived
)
