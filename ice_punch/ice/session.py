"""What all parts of an agent share: role, credentials, candidates, pairs, and the way out."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice.binding import Credentials
from ice_punch.ice.candidate import Candidate
from ice_punch.ice.candidates import LocalCandidates, RemoteCandidates
from ice_punch.ice.check_list import CheckList, may_pair
from ice_punch.ice.consent import CONSENT_INTERVAL, CONSENT_TIMEOUT
from ice_punch.ice.events import Event, FailureCause, IceState, StateChanged
from ice_punch.ice.pair import CandidatePair

ENDED = (IceState.FAILED, IceState.CLOSED)
LIVE = (IceState.CONNECTED, IceState.COMPLETED, IceState.DISCONNECTED)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The numbers an agent runs by. Times in seconds."""

    ta: float = 0.02
    """RFC 8445 section 14.2; announced to the peer as ``a=ice-pacing``."""
    rto: float = 0.5
    """The least retransmission timeout (section 14.3)."""
    rc: int = 7
    rm: int = 16
    patience: float = 39.5
    """RFC 8863 section 3.3: no failure before this time has passed."""
    give_up_after: float | None = None
    """With a value: fail after so long without a new remote candidate or any sign of the peer,
    although checks are still out. A deviation from RFC 8863 that only direct-only sessions use."""
    max_pairs: int = 100
    """RFC 8445 section 6.1.2.5."""
    max_remote_candidates: int = 100
    max_early_checks: int = 64
    consent_interval: float = CONSENT_INTERVAL
    consent_timeout: float = CONSENT_TIMEOUT
    disconnected_after: float = 13.0
    """Without an answer for so long the session is ``disconnected``: two consent checks went
    unanswered, the second for a second at least. One lost packet is no news."""
    components: tuple[int, ...] = (1,)
    direct_only: bool = False
    """Never pair with a relayed candidate of the peer."""
    software: str | None = "ice-punch"


class Session:
    """The state of one ICE session, without behaviour beyond keeping itself consistent."""

    def __init__(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        random: RandomSource,
        config: AgentConfig,
    ) -> None:
        self.config = config
        self.controlling = controlling
        self.credentials = credentials
        self.random = random
        self.tie_breaker = random.getrandbits(64)
        self.state = IceState.NEW
        self.counters: Counter[str] = Counter()
        self.remote_credentials: Credentials | None = None
        self.remote_lite = False
        self.check_list = CheckList(config.max_pairs)
        self.local = LocalCandidates()
        self.remote = RemoteCandidates(config.max_remote_candidates)
        self.refused_remote: set[Address] = set()
        self.validated: set[tuple[Address, Address]] = set()
        """Paths (our base, the peer's address) on which the peer has authenticated itself."""
        self.remote_ended = False
        """The peer has said that no more candidates come (RFC 8838 section 14)."""
        self.selected: dict[int, CandidatePair] = {}
        self.nominating: dict[int, CandidatePair] = {}
        self.started_at: float | None = None
        self.last_sign_at = 0.0
        """When the peer was last heard, on the wire or through signaling."""
        self.peer_heard = False
        self.outbox: list[Transmit] = []
        self.events: deque[Event] = deque()

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def set_state(self, state: IceState, reason: str, cause: FailureCause | None = None) -> None:
        if state is not self.state and not self.ended:
            self.state = state
            self.events.append(StateChanged(state, reason, cause))

    def send(self, data: bytes, local: Address, destination: Address) -> None:
        self.outbox.append(Transmit(data, local, destination))

    def switch_role(self, *, controlling: bool) -> None:
        """RFC 8445 sections 7.2.5.1 and 7.3.1.1: priorities are computed anew."""
        self.controlling = controlling
        self.nominating.clear()
        self.check_list.update_priorities(controlling=controlling)
        self.counters["role_switches"] += 1

    def pair_local(self, local: Candidate) -> None:
        """Pair a base of ours with everything the peer has (RFC 8838 section 10)."""
        if local.base == local.address and local.component not in self.selected:
            for remote in self.remote.all:
                self.form_pair(local, remote)

    def pair_remote(self, remote: Candidate) -> None:
        """Pair a candidate of the peer's with every base of ours (RFC 8838 section 11)."""
        if remote.component not in self.selected:
            for local in self.local.all:
                if local.base == local.address:
                    self.form_pair(local, remote)

    def form_pair(self, local: Candidate, remote: Candidate) -> CandidatePair | None:
        """Pair a base with a remote candidate; None if they do not go together."""
        if not may_pair(local, remote):
            return None
        pair = CandidatePair(local, remote, controlling=self.controlling)
        return pair if self.check_list.add(pair) else None

    def best_pair(self, component: int) -> CandidatePair | None:
        """The selected pair, or the best valid one before nomination (RFC 8445 section 12.1)."""
        if self.ended:
            return None
        selected = self.selected.get(component)
        if selected is not None:
            return selected
        return next((p for p in self.check_list if p.valid and p.component == component), None)

    @property
    def all_components_valid(self) -> bool:
        return all(self.best_pair(c) is not None for c in self.config.components)

    def data_pair(self, component: int) -> CandidatePair | None:
        """Where data goes; None until every component has a pair (RFC 8445 section 12.1)."""
        pair = self.best_pair(component)
        if len(self.config.components) > 1 and not self.all_components_valid:
            return None
        return pair

    def heard(self, now: float) -> None:
        """The peer has authenticated itself on the wire."""
        self.peer_heard = True
        self.last_sign_at = now

    def answered(self, pair: CandidatePair, now: float) -> None:
        """A valid response came on a valid pair: this, and nothing else, renews consent (RFC 7675
        section 5.1)."""
        self.heard(now)
        pair.last_response_at = now
        if self.state is IceState.DISCONNECTED and pair is self.best_pair(pair.component):
            completed = all(c in self.selected for c in self.config.components)
            state = IceState.COMPLETED if completed else IceState.CONNECTED
            self.set_state(state, "the peer answers again")

    def lost_pair(self, pair: CandidatePair, why: str) -> None:
        """A pair is valid no more; without another one the search goes on."""
        for table in (self.selected, self.nominating):
            if table.get(pair.component) is pair:
                del table[pair.component]
        if self.state in LIVE and self.best_pair(pair.component) is None:
            self.set_state(IceState.CHECKING, why)
        elif self.state is IceState.COMPLETED and pair.component not in self.selected:
            self.set_state(IceState.CONNECTED, f"{why}; another valid pair carries data")
