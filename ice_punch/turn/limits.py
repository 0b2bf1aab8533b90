"""How much a TURN server gives."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.turn.constants import DEFAULT_LIFETIME


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """What is over a count is refused: 486 for a user's allocations, 508 for everything else."""

    allocations_per_user: int = 64
    allocations: int = 4096
    """Each holds a socket of the shell's."""
    permissions: int = 256
    """IP addresses, for each allocation."""
    channels: int = 256
    """For each allocation."""
    default_lifetime: float = DEFAULT_LIFETIME
    """Seconds; no allocation or refresh gets less."""
    max_lifetime: float = 3600.0
    """Seconds, RFC 8656 section 7.2."""
    bytes_per_second: float | None = None
    """What an allocation may relay, both directions together; what is over it is dropped (RFC 8656
    section 5). A second's worth may come at once."""
