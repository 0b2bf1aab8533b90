"""What a host's TCP tells its user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ice_punch.lab.virtual.stream_endpoint import StreamEndpoint


@dataclass(frozen=True, slots=True)
class Connected:
    connection: StreamEndpoint


@dataclass(frozen=True, slots=True)
class DataReceived:
    connection: StreamEndpoint
    data: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Told once for every connection that was opened here or told as ``Connected``."""

    connection: StreamEndpoint
    reason: str
    """``closed``, ``refused``, ``reset``, ``timeout`` or ``unreachable``."""


StreamEvent = Connected | DataReceived | Closed
