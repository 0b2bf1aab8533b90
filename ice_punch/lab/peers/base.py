"""What all these peers share: candidates, the peer's parameters, answers, state and the way out.

One component is all that they have.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import ClassVar, Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice import (
    Candidate,
    CandidatePair,
    CandidateType,
    Credentials,
    DataReceived,
    Event,
    FailureCause,
    IceState,
    LocalCandidateFound,
    SelectedPairChanged,
    ServerQueryEnded,
    StateChanged,
    resembles_stun,
)
from ice_punch.ice.candidate import Foundations, candidate_priority
from ice_punch.lab.peers.messages import (
    Check,
    read_check,
    write_error,
    write_keepalive,
    write_success,
)
from ice_punch.report import ServerReport
from ice_punch.stun import Message, MessageClass, Method, StunParseError, parse_message

KEEPALIVE_INTERVAL: Final = 15.0
"""Seconds between indications on the selected pair: Tr of RFC 8445 section 11."""
MAX_CANDIDATES: Final = 100
MAX_EARLY_CHECKS: Final = 32

MAX_PATHS: Final = 1000

_OVER: Final = (IceState.FAILED, IceState.CLOSED)


def may_pair(local: Candidate, remote: Candidate) -> bool:
    """RFC 8445 section 6.1.2.2: the same family, link-local addresses with their like."""
    return local.ip_version == remote.ip_version and (
        local.is_link_local and local.ip_version == 6
    ) == (remote.is_link_local and remote.ip_version == 6)


@dataclass(frozen=True, slots=True)
class RemoteParameters:
    credentials: Credentials
    lite: bool
    ta: float | None


class BaseMachine:
    """An :class:`IceMachine` that answers checks and does nothing else."""

    lite: ClassVar[bool] = False
    """What has to be signalled with its credentials."""

    def __init__(
        self, *, controlling: bool, credentials: Credentials, random: RandomSource
    ) -> None:
        self.credentials = credentials
        self.controlling = controlling
        self.state = IceState.NEW
        self.counters: Counter[str] = Counter()
        self.remote: RemoteParameters | None = None
        self.remote_candidates: list[Candidate] = []
        self.local_candidates: list[Candidate] = []
        self.selected: CandidatePair | None = None
        self._random = random
        self._tie_breaker = random.getrandbits(64)
        self._bases: dict[Address, Candidate] = {}
        self._foundations = Foundations()
        self._remote_ended = False
        self._validated: set[tuple[Address, Address]] = set()
        """Paths, our base and the peer's address, on which the peer has proven itself."""
        self._early: deque[Check] = deque(maxlen=MAX_EARLY_CHECKS)
        self._keepalive_at: float | None = None
        self._outbox: list[Transmit] = []
        self._events: deque[Event] = deque()

    @property
    def over(self) -> bool:
        return self.state in _OVER

    # -- candidates ---------------------------------------------------------------------------

    def add_host_candidate(
        self, address: Address, now: float, *, local_preference: int = 65535, component: int = 1
    ) -> Candidate | None:
        """A socket is bound to ``address``. None if that is known already."""
        return self._add_local(CandidateType.HOST, address, address, local_preference)

    def add_relayed_candidate(
        self,
        address: Address,
        now: float,
        *,
        server: str,
        mapped: Address | None = None,
        local_preference: int = 65535,
        component: int = 1,
    ) -> Candidate | None:
        """None: of such a peer only sockets are candidates."""
        return None

    def query_server(
        self, server: str, address: Address, base: Address, now: float, *, component: int = 1
    ) -> None:
        """Nothing is asked, and ``ServerQueryEnded`` says so."""
        report = ServerReport(server, "rejected", "this peer asks no server")
        self._events.append(ServerQueryEnded(base, report))

    @property
    def queries_busy(self) -> bool:
        return False

    def _add_local(
        self,
        type_: CandidateType,
        address: Address,
        base: Address,
        local_preference: int,
        *,
        related: Address | None = None,
        server: str | None = None,
        priority: int | None = None,
    ) -> Candidate | None:
        known = any((c.address, c.base) == (address, base) for c in self.local_candidates)
        if known or len(self.local_candidates) >= MAX_CANDIDATES:
            return None
        if priority is None:
            priority = candidate_priority(type_, local_preference, 1)
        candidate = Candidate(
            foundation=self._foundations.get(type_, base[0], server, "udp"),
            component=1,
            transport="udp",
            priority=priority,
            host=address[0],
            port=address[1],
            type=type_,
            related_address=related,
            base=base,
            server=server,
        )
        self.local_candidates.append(candidate)
        if address == base:
            self._bases[base] = candidate
        self._events.append(LocalCandidateFound(candidate))
        return candidate

    # -- the peer -----------------------------------------------------------------------------

    def set_remote_parameters(
        self, credentials: Credentials, now: float, *, lite: bool = False, ta: float | None = None
    ) -> None:
        if self.remote is not None or self.over:
            return
        self.remote = RemoteParameters(credentials, lite, ta)
        self._set_state(IceState.CHECKING, "the peer's parameters are known")
        self._begin(now)
        while self._early:
            self._receive_check(self._early.popleft(), now)
        self._advance(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        usable = candidate.transport == "udp" and candidate.component == 1 and not candidate.is_mdns
        if not usable or self.over:
            return
        known = self._find_remote(candidate.address)
        if known is None and len(self.remote_candidates) < MAX_CANDIDATES:
            self.remote_candidates.append(candidate)
            self._remote_added(candidate, now)
        elif known is not None and known.type is CandidateType.PRFLX:
            self.remote_candidates[self.remote_candidates.index(known)] = candidate
            self._remote_known(known, candidate)
        self._advance(now)

    def end_of_remote_candidates(self, now: float) -> None:
        self._remote_ended = True
        self._advance(now)

    def _find_remote(self, address: Address) -> Candidate | None:
        return next((c for c in self.remote_candidates if c.address == address), None)

    def _learn_remote(self, check: Check) -> Candidate:
        """The candidate that a check came from, peer-reflexive if nobody has signalled it (RFC
        8445 section 7.3.1.3)."""
        known = self._find_remote(check.source)
        if known is not None:
            return known
        learned = Candidate(
            foundation=f"learned{len(self.remote_candidates)}",
            component=1,
            transport="udp",
            priority=check.priority,
            host=check.source[0],
            port=check.source[1],
            type=CandidateType.PRFLX,
        )
        if len(self.remote_candidates) < MAX_CANDIDATES:
            self.remote_candidates.append(learned)
        return learned

    # -- pairs --------------------------------------------------------------------------------

    def selected_pair(self, component: int = 1) -> CandidatePair | None:
        return self.selected if component == 1 else None

    def data_pair(self, component: int = 1) -> CandidatePair | None:
        return None if self.over else self.selected_pair(component)

    def _select(self, pair: CandidatePair, now: float) -> bool:
        """``pair`` is nominated. Of several the one of highest priority counts (RFC 5245 section
        8.1.1.2)."""
        pair.nominated = True
        if self.selected is not None and self.selected.valid_priority >= pair.valid_priority:
            return False
        self.selected = pair
        self._keepalive_at = now + KEEPALIVE_INTERVAL
        self._events.append(SelectedPairChanged(pair))
        who = "this side" if self.controlling else "the peer"
        self._set_state(IceState.COMPLETED, f"{who} nominated {pair.remote}")
        return True

    # -- the sans-IO contract -----------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        if self.over:
            return
        if not resembles_stun(data):
            if (local, source) in self._validated:
                self._events.append(DataReceived(data, local, source))
            return
        try:
            message = parse_message(data)
        except StunParseError:
            self.counters["malformed"] += 1
            return
        if message.method != Method.BINDING:
            self.counters["unexpected"] += 1
        elif message.message_class is MessageClass.REQUEST:
            self._receive_request(message, source, local, now)
        elif message.message_class is not MessageClass.INDICATION:
            self._receive_response(message, source, local, now)
        self._advance(now)

    def handle_timer(self, now: float) -> None:
        if self.over:
            return
        if self._keepalive_at is not None and now >= self._keepalive_at:
            assert self.selected is not None
            self._keepalive_at = now + KEEPALIVE_INTERVAL
            keepalive = write_keepalive(self._random.randbytes(12))
            self._send(keepalive, self.selected.base, self.selected.remote.address)
        self._advance(now)

    def get_timer(self) -> float | None:
        return None if self.over else self._keepalive_at

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        outbox, self._outbox = self._outbox, []
        return outbox

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def close(self, now: float) -> None:
        """Fall silent for good."""
        self._set_state(IceState.CLOSED, "closed by this side")
        self._outbox.clear()

    # -- inside -------------------------------------------------------------------------------

    def _receive_request(
        self, request: Message, source: Address, local: Address, now: float
    ) -> None:
        """RFC 8445 section 7.3: answered at once, whatever becomes of it."""
        if local not in self._bases:
            return
        check = read_check(request, source, local, self.credentials)
        if isinstance(check, int):
            self._send(write_error(request, check, self.credentials), local, source)
        elif self._conflicts(check):
            self._send(write_error(request, 487, self.credentials), local, source)
        else:
            self._send(write_success(request, source, self.credentials), local, source)
            if len(self._validated) < MAX_PATHS:
                self._validated.add((local, source))
            if self.remote is None:
                self._early.append(check)
            else:
                self._receive_check(check, now)

    def _conflicts(self, check: Check) -> bool:
        """Whether the peer has to change its role."""
        return False

    def _send(self, data: bytes, local: Address, destination: Address) -> None:
        self._outbox.append(Transmit(data, local, destination))

    def _set_state(self, state: IceState, reason: str, cause: FailureCause | None = None) -> None:
        if state is not self.state and not self.over:
            self.state = state
            self._events.append(StateChanged(state, reason, cause))

    # -- what makes them differ ---------------------------------------------------------------

    def _begin(self, now: float) -> None:
        """The peer's parameters are known."""

    def _remote_added(self, candidate: Candidate, now: float) -> None:
        """The peer has signalled a candidate."""

    def _remote_known(self, learned: Candidate, signalled: Candidate) -> None:
        """The peer has signalled a candidate that a check had come from before."""

    def _receive_check(self, check: Check, now: float) -> None:
        """The peer has sent a check, which is answered already."""

    def _receive_response(
        self, response: Message, source: Address, local: Address, now: float
    ) -> None:
        """A success or an error, to be authenticated."""

    def _advance(self, now: float) -> None:
        """Do what follows from whatever has just happened."""
