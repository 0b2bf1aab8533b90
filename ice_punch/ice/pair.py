"""Candidate pairs and the checks made on them, RFC 8445 section 6.1.2."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from ice_punch.datagram import Address, format_address
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.report import PairReport
from ice_punch.stun import Retransmission

CHECKS_REMEMBERED = 8
"""Per pair: the checks whose late answers still count."""


class PairState(StrEnum):
    """RFC 8445 section 6.1.2.6."""

    FROZEN = "frozen"
    WAITING = "waiting"
    IN_PROGRESS = "in-progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


def pair_priority(controlling: int, controlled: int) -> int:
    """RFC 8445 section 6.1.2.3, from the priorities of both sides' candidates."""
    return (
        (min(controlling, controlled) << 32)
        + 2 * max(controlling, controlled)
        + (1 if controlling > controlled else 0)
    )


@dataclass(slots=True)
class Check:
    """One check: retransmission, round trip, liveness and late 487s are all read from it."""

    transaction_id: bytes
    request: bytes
    retransmission: Retransmission
    nominating: bool
    controlling: bool
    answered_at: float | None = None


class CandidatePair:
    """A local base and a remote candidate, and everything that happened between them."""

    def __init__(self, local: Candidate, remote: Candidate, *, controlling: bool) -> None:
        self.local = local
        self.remote = remote
        self.state = PairState.FROZEN
        self.priority = 0
        self.nominated = False
        self.mapped: Candidate | None = None
        """The local candidate the peer saw; set when the pair becomes valid (section 7.2.5.3.2)."""
        self.valid_since: float | None = None
        self.last_response_at: float | None = None
        self.nominate_on_success = False
        self.checks: deque[Check] = deque()
        self.rtt: float | None = None
        self.requests_sent = 0
        self.responses_received = 0
        self.requests_received = 0
        self.responses_sent = 0
        self.update_priority(controlling=controlling)

    @property
    def component(self) -> int:
        return self.local.component

    @property
    def foundation(self) -> tuple[str, str]:
        return (self.local.foundation, self.remote.foundation)

    @property
    def base(self) -> Address:
        return self.local.base or self.local.address

    @property
    def key(self) -> tuple[Address, Address]:
        return (self.base, self.remote.address)

    @property
    def valid(self) -> bool:
        """Whether the pair is on the valid list (section 7.2.5.3.2)."""
        return self.mapped is not None

    @property
    def relayed(self) -> bool:
        return CandidateType.RELAY in (self.local.type, self.remote.type)

    @property
    def current_check(self) -> Check | None:
        return self.checks[-1] if self.checks else None

    def update_priority(self, *, controlling: bool) -> None:
        local, remote = self.local.priority, self.remote.priority
        self.priority = (
            pair_priority(local, remote) if controlling else pair_priority(remote, local)
        )

    def measured(self, sample: float, now: float) -> None:
        """A response came ``sample`` seconds after the only time its request was sent."""
        self.rtt = sample
        self.last_response_at = now

    def invalidate(self) -> None:
        """Off the valid list and Failed (section 7.2.5.3.4)."""
        self.mapped = None
        self.valid_since = None
        self.nominated = False
        self.state = PairState.FAILED

    def report(self) -> PairReport:
        shown = self.mapped or self.local
        return PairReport(
            local=format_address(shown.address),
            remote=format_address(self.remote.address),
            local_type=shown.type.value,
            remote_type=self.remote.type.value,
            state=self.state.value,
            requests_sent=self.requests_sent,
            responses_received=self.responses_received,
            requests_received=self.requests_received,
            rtt=self.rtt,
            nominated=self.nominated,
        )

    def __repr__(self) -> str:
        return f"<CandidatePair {self.base} -> {self.remote.address} {self.state}>"
