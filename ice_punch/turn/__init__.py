"""TURN, RFC 8656: a client and a server, both without I/O."""

from ice_punch.turn.allocations import (
    AllocationClosed,
    AllocationOpened,
    RelaySockets,
    ServerEvent,
)
from ice_punch.turn.authentication import FiveTuple
from ice_punch.turn.client import Family, TurnClient, TurnState
from ice_punch.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    PeerRefused,
    PeerUnreachable,
    Redirected,
    RelayedData,
    TurnEvent,
)
from ice_punch.turn.framing import StreamFraming
from ice_punch.turn.limits import TurnLimits
from ice_punch.turn.peer_filter import PeerFilter, allow_every_peer, default_peer_filter
from ice_punch.turn.relaying import TurnClientStats
from ice_punch.turn.server import TurnServer, TurnServerCounters
from ice_punch.turn.users import PasswordSource, SharedSecret

__all__ = [
    "Allocated",
    "AllocationClosed",
    "AllocationFailed",
    "AllocationLost",
    "AllocationOpened",
    "Family",
    "FiveTuple",
    "PasswordSource",
    "PeerFilter",
    "PeerRefused",
    "PeerUnreachable",
    "Redirected",
    "RelaySockets",
    "RelayedData",
    "ServerEvent",
    "SharedSecret",
    "StreamFraming",
    "TurnClient",
    "TurnClientStats",
    "TurnEvent",
    "TurnLimits",
    "TurnServer",
    "TurnServerCounters",
    "TurnState",
    "allow_every_peer",
    "default_peer_filter",
]
