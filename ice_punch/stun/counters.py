"""What a Binding server counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ServerCounters:
    received: int = 0
    answered: int = 0
    """Responses made, error responses included."""
    errors: Counter[int] = field(default_factory=Counter)
    """Error responses, by code."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Datagrams that got no answer, by reason: ``not-stun``, ``no-cookie``, ``malformed``,
    ``indication``, ``response``, ``unsupported-method``, ``source-port``, ``overload``."""
