"""The generations of an agent: the one that works, and the one before it, RFC 8445 section 9."""

from __future__ import annotations

from collections import Counter

from ice_punch.datagram import RandomSource
from ice_punch.ice.binding import Credentials
from ice_punch.ice.candidates import LocalCandidates
from ice_punch.ice.events import Event, FailureCause, IceState, StateChanged
from ice_punch.ice.generation import Generation
from ice_punch.ice.policy import NominationPolicy
from ice_punch.ice.server_queries import ServerQueries
from ice_punch.ice.session import ENDED, AgentConfig, Session

HEARD_WITHIN = 5.0
"""Seconds after the start in which the peer should be heard."""


class Lineage:
    """Which generation is the current one, which carries data, and what state that makes."""

    def __init__(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        random: RandomSource,
        config: AgentConfig,
        policy: NominationPolicy,
        queries: ServerQueries,
        counters: Counter[str],
        events: list[Event],
    ) -> None:
        self._random = random
        self._config = config
        self._policy = policy
        self._queries = queries
        self._counters = counters
        self._events = events
        self.shown = IceState.NEW
        """The state as it was last told."""
        self.restarted_at: float | None = None
        self.previous: Generation | None = None
        """What carried data when the current generation began, and does until it can."""
        self.current = self._begin(
            controlling=controlling, credentials=credentials, tie_breaker=random.getrandbits(64)
        )

    def _begin(
        self,
        *,
        controlling: bool,
        credentials: Credentials,
        tie_breaker: int,
        local: LocalCandidates | None = None,
    ) -> Generation:
        session = Session(
            controlling=controlling,
            credentials=credentials,
            tie_breaker=tie_breaker,
            random=self._random,
            config=self._config,
            counters=self._counters,
            events=self._events,
            on_state=self._on_state,
            local=local,
        )
        return Generation(session, self._policy, self._queries.mapping_varies)

    # -- what there is to see -----------------------------------------------------------------

    @property
    def all(self) -> list[Generation]:
        """The old one first."""
        return [self.current] if self.previous is None else [self.previous, self.current]

    @property
    def session(self) -> Session:
        """Of the current generation."""
        return self.current.session

    @property
    def carrier(self) -> Session:
        """The session that data takes: during a restart the old one until the new one has selected
        its pairs (RFC 8445 section 9), or can do what the old one can not."""
        current, previous = self.current, self.previous
        if previous is None or not previous.carries:
            return current.session
        if previous.session.state is IceState.DISCONNECTED and current.carries:
            return current.session
        return previous.session

    @property
    def state(self) -> IceState:
        state = self.carrier.state
        waiting = state is IceState.NEW and self.restarted_at is not None
        return IceState.DISCONNECTED if waiting else state

    @property
    def over(self) -> bool:
        return self.shown in ENDED

    @property
    def restarting(self) -> bool:
        """Whether a restart of ours waits for the peer's new credentials."""
        return self.restarted_at is not None and self.session.remote_credentials is None

    @property
    def restart_blocked_until(self) -> float:
        """Until when another restart would help nothing: one is under way that may come to
        something. One in which the peer is not heard at all is given a few seconds."""
        session = self.session
        if session.remote_credentials is None:
            return float("inf")
        if session.state is not IceState.CHECKING or session.started_at is None:
            return float("-inf")
        return float("inf") if session.peer_heard else session.started_at + HEARD_WITHIN

    def get_timer(self) -> float | None:
        """When the peer's answer to a restart is not waited for any more."""
        if self.restarted_at is None or not self.restarting:
            return None
        return self.restarted_at + self._config.restart_timeout

    def _on_state(self, reason: str, cause: FailureCause | None) -> None:
        state = self.state
        if state is not self.shown:
            self.shown = state
            self._events.append(StateChanged(state, reason, cause if state in ENDED else None))

    # -- from one to the next -----------------------------------------------------------------

    def restart(self, credentials: Credentials, now: float, *, fresh_sockets: bool) -> None:
        """Raises ValueError as ``Agent.restart`` does."""
        session = self.session
        if session.state is IceState.CLOSED:
            raise ValueError("the session is closed")
        if session.remote_credentials is None:
            why = "an ICE restart is under way" if self.restarting else "nothing has begun yet"
            raise ValueError(f"no ICE restart: {why}")
        old = session.credentials
        if credentials.ufrag == old.ufrag or credentials.pwd == old.pwd:
            raise ValueError("an ICE restart changes both ufrag and pwd")
        if self.previous is not None and self.previous.carries:
            self.current.fall_silent()
        else:
            if self.previous is not None:
                self.previous.fall_silent()
            self.previous = self.current
            self.previous.conclusion.stop_asking()
            if not self.previous.carries:
                self.previous.retire(now)
        self.current = self._begin(
            controlling=session.controlling,
            credentials=credentials,
            tie_breaker=session.tie_breaker,
            local=session.local.carried_over(only_relays=fresh_sockets),
        )
        self.current.session.direct_lost = session.direct_lost
        self.current.session.proven = session.proven
        self.restarted_at = now
        self._counters["restarts"] += 1
        self._on_state("an ICE restart has begun", None)

    def tend(self, now: float) -> None:
        """Let the old generation go once the new one can do what it did, and return to it if the
        new one comes to nothing."""
        session, previous, over_at = self.session, self.previous, self.get_timer()
        if over_at is not None and now >= over_at:
            why = "the peer has not answered an ICE restart"
            session.set_state(IceState.FAILED, why, FailureCause.PEER_SILENT)
        if previous is None:
            return
        if previous.retirement_over(now) or (
            previous.retired_at is None and previous.session.ended
        ):
            previous.fall_silent()
            self.previous = None
        elif previous.retired_at is None and (
            session.state is IceState.COMPLETED or not previous.carries
        ):
            previous.retire(now)
            self._on_state("the ICE restart is done", None)
        elif previous.carries and session.state is IceState.FAILED:
            # Nothing is worse than before: what carries data still does.
            self._counters["restarts_failed"] += 1
            self.current.fall_silent()
            self.current, self.previous = previous, None

    def close(self) -> None:
        for generation in self.all:
            generation.session.set_state(IceState.CLOSED, "closed by this side")

    def fall_silent(self) -> None:
        for generation in self.all:
            generation.fall_silent()
