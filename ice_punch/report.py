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
class Report:
    """Everything known when a session ended or connected."""

    local_candidates: tuple[str, ...] = ()
    remote_candidates: tuple[str, ...] = ()
    pairs: tuple[PairReport, ...] = ()
    servers: tuple[ServerReport, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def remarks(self) -> list[str]:
        """What may have stood in the way, as half sentences for people."""
        return [
            *self.notes,
            *(
                f"{server.uri} is {server.outcome}"
                + (f" ({server.detail})" if server.detail else "")
                for server in self.servers
                if server.outcome not in ("ok", "pending")
            ),
        ]
