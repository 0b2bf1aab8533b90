"""A generation: everything of an agent that an ICE restart makes anew, RFC 8445 section 9."""

from __future__ import annotations

from collections.abc import Callable

from ice_punch.datagram import Address
from ice_punch.ice.checks import Checks
from ice_punch.ice.conclusion import Conclusion
from ice_punch.ice.early_hole import EarlyHole
from ice_punch.ice.knocking import Knocking
from ice_punch.ice.lite import Lite
from ice_punch.ice.liveness import Liveness
from ice_punch.ice.paths import Paths
from ice_punch.ice.policy import NominationPolicy
from ice_punch.ice.requests import Requests
from ice_punch.ice.session import LIVE, Session
from ice_punch.ice.trickle import Trickle
from ice_punch.stun import Message, MessageClass

RETIRED_FOR = 10.0
"""Seconds for which an old generation still answers and takes data in: what the peer sent on the
old pair before it learned of the new one is not lost."""


class Generation:
    """One pair of credentials, its check list, and the machinery that works on it."""

    def __init__(
        self,
        session: Session,
        policy: NominationPolicy,
        mapping_varies: Callable[[], bool],
    ) -> None:
        self.session = session
        self.retired_at: float | None = None
        """When another generation took over."""
        self.paths = Paths(session)
        self.conclusion = Conclusion(
            session,
            policy,
            self.paths,
            on_concluded=lambda pairs: self.checks.cancel(pairs),
            mapping_varies=mapping_varies,
        )
        self.checks = Checks(session, self.conclusion)
        self.early_hole = EarlyHole(session)
        self.lite = Lite(session, self.conclusion) if session.config.lite else None
        self.requests = Requests(session, self.conclusion, self.lite)
        self.knocking = Knocking(session, self.checks, mapping_varies)
        self.liveness = Liveness(session, self.conclusion, self.checks)
        self.trickle = Trickle(session, self.paths, self.checks.forget)

    @property
    def carries(self) -> bool:
        """Whether data can take a path of this generation, as far as anybody knows."""
        return self.retired_at is None and self.session.state in LIVE

    def receive(self, message: Message, source: Address, local: Address, now: float) -> bool:
        """A check of the peer's, or an answer. False for an answer to nothing of ours."""
        if message.message_class is MessageClass.REQUEST:
            self.requests.receive(message, source, local, now)
        elif self.checks.owns(message.transaction_id):
            self.checks.receive_response(message, source, local, now)
        else:
            return self.liveness.receive_response(message, source, local, now)
        return True

    def handle_timer(self, now: float) -> None:
        if self.lite is not None:
            return
        self.checks.handle_timer(now)
        self.paths.handle_timer(now)
        self.liveness.handle_timer(now)

    def timers(self) -> list[float]:
        if self.session.ended:
            return []
        if self.retired_at is not None:
            return [self.retired_at + RETIRED_FOR]
        alive = self.liveness.timers() if self.lite is None else self.lite.timers()
        return self.checks.timers() + alive + self.conclusion.timers()

    def expire(self, now: float) -> None:
        """Whether consent is over is decided before anything else."""
        if self.retired_at is not None:
            return
        if self.lite is None:
            self.liveness.expire(now)
        else:
            self.lite.expire(now)

    def follow_pairs(self, now: float) -> None:
        """Look after the pairs that have become valid or selected."""
        if self.retired_at is not None:
            return
        if self.lite is None:
            self.paths.follow_pairs(now)
            self.liveness.follow_pairs(now)
        else:
            self.lite.pair_up(now)

    def remove_base(self, base: Address, now: float) -> None:
        """An address of ours is gone, and with it every pair that leaves from there."""
        session = self.session
        session.local.remove_base(base)
        session.validated = {key for key in session.validated if key[0] != base}
        for pair in [p for p in session.check_list if p.base == base]:
            self.checks.forget(pair)
            session.check_list.remove(pair)
            pair.invalidate()
            session.base_gone(pair, now)

    def note_data(self, source: Address, local: Address, now: float) -> bool:
        """Data came on this path. False if the peer has not proven to be there."""
        session = self.session
        if (local, source) not in session.validated:
            return False
        session.data_received_at = now
        pair = session.check_list.find(local, source)
        if pair is not None:
            pair.heard(now)
            self.paths.data_came(pair, now)
        return True

    def retire(self, now: float) -> None:
        """Another generation has a selected pair: this one answers, and does nothing else."""
        self.retired_at = now
        self.checks.stop()
        self.knocking.stop()
        self.liveness.stop()

    def retirement_over(self, now: float) -> bool:
        return self.retired_at is not None and now >= self.retired_at + RETIRED_FOR

    def fall_silent(self) -> None:
        self.checks.stop()
        self.knocking.stop()
        self.liveness.stop()
        self.session.outbox.clear()
