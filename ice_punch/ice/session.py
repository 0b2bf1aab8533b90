"""What all parts of an agent share: role, credentials, candidates, pairs, and the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.ice.binding import Credentials, check_request
from ice_punch.ice.candidate import Candidate, peer_reflexive_priority
from ice_punch.ice.candidates import LocalCandidates, RemoteCandidates
from ice_punch.ice.check_list import CheckList, may_pair
from ice_punch.ice.consent import CONSENT_INTERVAL, CONSENT_TIMEOUT
from ice_punch.ice.events import Event, FailureCause, IceState
from ice_punch.ice.pair import CandidatePair

StateHook = Callable[[str, FailureCause | None], None]
"""Told why the state has changed."""
MAX_PROVEN = 16
"""Addresses from which data is taken though no check of a generation came from there."""
NO_ADDRESSES: frozenset[Address] = frozenset()
"""One for all: each would weigh 0.2 kB."""
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
    unanswered_for: float = 13.0
    """Without an answer for so long a path counts as silent although the peer is heard on it: two
    consent checks went unanswered, the second for a second at least."""
    restart_timeout: float = 60.0
    """How long the peer's answer to an ICE restart is waited for."""
    components: tuple[int, ...] = (1,)
    direct_only: bool = False
    """Never pair with a relayed candidate of the peer."""
    early_hole: bool = True
    """Open our own filter by indications as soon as candidates of the peer's are known."""
    lite: bool = False
    """RFC 8445 section 2.5: for hosts that anybody can reach."""
    software: str | None = "ice-punch"


class Session:
    """The state of one ICE session, without behaviour beyond keeping itself consistent."""

    __slots__ = (
        "_on_state",
        "check_list",
        "concluded",
        "config",
        "controlling",
        "counters",
        "credentials",
        "data_received_at",
        "data_sent_at",
        "detours",
        "direct_lost",
        "events",
        "exact_start",
        "held_until",
        "last_sign_at",
        "local",
        "nominating",
        "nomination",
        "nominations",
        "outbox",
        "peer_heard",
        "proven",
        "random",
        "refused",
        "refused_remote",
        "remote",
        "remote_credentials",
        "remote_ended",
        "remote_lite",
        "remote_renominates",
        "selected",
        "started_at",
        "state",
        "stranded_at",
        "tie_breaker",
        "validated",
    )

    def __init__(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        tie_breaker: int,
        random: RandomSource,
        config: AgentConfig,
        counters: Counter[str],
        events: list[Event],
        on_state: StateHook,
        local: LocalCandidates | None = None,
    ) -> None:
        """``local`` holds the candidates that an earlier session of the agent leaves to this
        one."""
        self.config = config
        self.controlling = controlling
        self.credentials = credentials
        self.random = random
        self.tie_breaker = tie_breaker
        self.state = IceState.NEW
        self.counters = counters
        self.remote_credentials: Credentials | None = None
        self.remote_lite = False
        self.remote_renominates = False
        """The peer has announced ``a=ice-options:renomination``."""
        self.check_list = CheckList(config.max_pairs, impatient=local is not None)
        self.local = local or LocalCandidates()
        self.remote = RemoteCandidates(config.max_remote_candidates)
        self.refused_remote = NO_ADDRESSES
        self.validated: set[tuple[Address, Address]] = set()
        """Paths (our base, the peer's address) on which the peer has authenticated itself."""
        self.proven: list[tuple[Address, Address]] = []
        """The same, by checks that belong to no generation: of a peer that restarts and does not
        wait for our new credentials. One for all generations."""
        self.remote_ended = False
        """The peer has said that no more candidates come (RFC 8838 section 14)."""
        self.selected: dict[int, CandidatePair] = {}
        self.concluded = False
        """Whether every component has had its nominated pair."""
        self.nominating: dict[int, CandidatePair] = {}
        self.nomination = 0
        """The number of the latest nomination, ours or the peer's, that replaces another."""
        self.nominations: dict[int, int] = {}
        """By component: the number of the peer's latest nomination."""
        self.direct_lost = False
        """Whether a relay carries data that took a direct path before."""
        self.detours: dict[int, CandidatePair] = {}
        """What carries data while the selected pair is silent."""
        self.stranded_at: float | None = None
        """Since when there is no pair left to ask on."""
        self.data_sent_at: float | None = None
        self.data_received_at: float | None = None
        self.started_at: float | None = None
        self.held_until: float | None = None
        """Checks wait for the instant that both sides have agreed on, or for a check of the
        peer's."""
        self.exact_start = False
        """Both sides begin at one instant, and the first check that matters has yet to leave."""
        self.refused = NO_ADDRESSES
        """Reflexive addresses of the peer's where a host answered a check with an ICMP error."""
        self.last_sign_at = 0.0
        """When the peer was last heard, on the wire or through signaling."""
        self.peer_heard = False
        self.outbox: list[Transmit] = []
        self.events = events
        self._on_state = on_state

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def set_state(self, state: IceState, reason: str, cause: FailureCause | None = None) -> None:
        if state is not self.state and not self.ended:
            self.state = state
            self._on_state(reason, cause)

    def send(self, data: bytes, local: Address, destination: Address) -> None:
        self.outbox.append(Transmit(data, local, destination))

    def check_on(self, pair: CandidatePair, *, nominate: bool = False) -> tuple[bytes, bytes]:
        """A new check of ``pair``, RFC 8445 section 7.2.2: its transaction id and its bytes. The
        peer's credentials must be known."""
        assert self.remote_credentials is not None
        transaction_id = self.random.randbytes(12)
        request = check_request(
            transaction_id,
            local_ufrag=self.credentials.ufrag,
            remote=self.remote_credentials,
            priority=peer_reflexive_priority(pair.local.priority),
            controlling=self.controlling,
            tie_breaker=self.tie_breaker,
            nominate=nominate,
            nomination=pair.nomination if nominate else 0,
        )
        return transaction_id, request

    def switch_role(self, *, controlling: bool) -> None:
        """RFC 8445 sections 7.2.5.1 and 7.3.1.1: priorities are computed anew."""
        self.controlling = controlling
        self.nominating.clear()
        self.check_list.update_priorities(controlling=controlling)
        self.counters["role_switches"] += 1

    def pair_local(self, local: Candidate) -> list[CandidatePair]:
        """Pair a base of ours with everything the peer has (RFC 8838 section 10)."""
        if local.base != local.address or not self._takes_pairs(local.component):
            return []
        formed = [self.form_pair(local, remote) for remote in self.remote.all]
        return [pair for pair in formed if pair is not None]

    def pair_remote(self, remote: Candidate) -> list[CandidatePair]:
        """Pair a candidate of the peer's with every base of ours (RFC 8838 section 11)."""
        if not self._takes_pairs(remote.component):
            return []
        bases = [local for local in self.local.all if local.base == local.address]
        formed = [self.form_pair(local, remote) for local in bases]
        return [pair for pair in formed if pair is not None]

    def _takes_pairs(self, component: int) -> bool:
        """RFC 8445 section 8.1.2 wants no more once a pair is nominated, unless another one may
        be nominated later."""
        return component not in self.selected or self.remote_renominates

    def form_pair(self, local: Candidate, remote: Candidate) -> CandidatePair | None:
        """Pair a base with a remote candidate; None if they do not go together."""
        if not may_pair(local, remote):
            return None
        pair = CandidatePair(local, remote, controlling=self.controlling)
        return pair if self.check_list.add(pair) else None

    def best_pair(self, component: int) -> CandidatePair | None:
        """The selected pair, unless it is silent and there is a way around it, or the best valid
        one before nomination (RFC 8445 section 12.1)."""
        if self.ended:
            return None
        selected = self.selected.get(component)
        if selected is not None:
            return self.detours.get(component, selected)
        valid = [p for p in self.check_list if p.valid and p.component == component]
        return next((p for p in valid if p.silent_since is None), valid[0] if valid else None)

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
        self.held_until = None
        self.last_sign_at = now

    def recovered(self, why: str) -> None:
        """Datagrams get through again, on the selected pairs or beside them: of all components, or
        nothing has changed."""
        ways = [self.best_pair(component) for component in self.config.components]
        if any(way is None or way.silent_since is not None for way in ways):
            return
        complete = all(c in self.selected for c in self.config.components)
        if complete and not self.detours:
            if self.state in LIVE:
                self.set_state(IceState.COMPLETED, why)
        elif self.state is IceState.DISCONNECTED:
            self.set_state(IceState.CONNECTED, why)

    def base_gone(self, pair: CandidatePair, now: float) -> None:
        """The interface of a pair is gone. Where that was the last way, a restart may find another
        one: the session waits for it as it waits for an answer."""
        detour = self._drop(pair)
        why = "the interface of the path is gone"
        if self.state in LIVE and self.best_pair(pair.component) is None:
            self.stranded_at = now
            self.set_state(IceState.DISCONNECTED, why)
        elif self.state is IceState.COMPLETED and pair.component not in self.selected:
            self.set_state(IceState.CONNECTED, f"{why}; another valid pair carries data")
        elif detour:
            self._back_on_selected(pair.component, why)

    def lost_pair(self, pair: CandidatePair, why: str) -> None:
        """A pair is valid no more; without another one the search goes on."""
        detour = self._drop(pair)
        if self.state in LIVE and self.best_pair(pair.component) is None:
            self.set_state(IceState.CHECKING, why)
        elif self.state is IceState.COMPLETED and pair.component not in self.selected:
            self.set_state(IceState.CONNECTED, f"{why}; another valid pair carries data")
        elif detour:
            self._back_on_selected(pair.component, why)

    def _drop(self, pair: CandidatePair) -> bool:
        """Whether it was a detour."""
        detour = self.detours.get(pair.component) is pair
        for table in (self.selected, self.nominating, self.detours):
            if table.get(pair.component) is pair:
                del table[pair.component]
        return detour

    def _back_on_selected(self, component: int, why: str) -> None:
        """There is no way around the selected pair any more."""
        selected = self.selected.get(component)
        if selected is not None and selected.silent_since is not None:
            self.set_state(IceState.DISCONNECTED, why)
        else:
            self.recovered(why)
