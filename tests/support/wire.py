"""Two agents on a wire that loses, delays, reorders and duplicates, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import (
    Agent,
    AgentConfig,
    Candidate,
    CandidateType,
    Credentials,
    IceState,
    LocalCandidateFound,
    SelectedPairChanged,
    StateChanged,
)
from ice_punch.stun import USE_CANDIDATE, MessageClass, parse_message

SPIN = 60


@dataclass(frozen=True)
class Weather:
    """What happens to each datagram. Delays in seconds, shares from 0 to 1."""

    delay: float = 0.05
    jitter: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0


@dataclass
class End:
    name: str
    agent: Agent
    bases: tuple[Address, ...]
    events: list[tuple[float, object]] = field(default_factory=list)
    sent: list[tuple[float, Transmit]] = field(default_factory=list)
    met: bool = False
    last_turn: float = -1.0
    turns: int = 0

    @property
    def candidates(self) -> list[Candidate]:
        found = [e.candidate for _, e in self.events if isinstance(e, LocalCandidateFound)]
        return [c for c in found if c.type is not CandidateType.PRFLX]

    @property
    def nominations(self) -> set[bytes]:
        """Transaction ids of the checks with USE-CANDIDATE."""
        messages = [parse_message(t.data) for _, t in self.sent]
        return {
            m.transaction_id
            for m in messages
            if m.message_class is MessageClass.REQUEST and m.get(USE_CANDIDATE)
        }

    @property
    def selections(self) -> int:
        return sum(isinstance(e, SelectedPairChanged) for _, e in self.events)

    def when(self, state: IceState) -> float | None:
        for at, event in self.events:
            if isinstance(event, StateChanged) and event.state is state:
                return at
        return None


class Wire:
    def __init__(
        self,
        seed: int,
        weather: Weather,
        *,
        bases: tuple[int, int] = (1, 1),
        roles: tuple[bool, bool] = (True, False),
        config: AgentConfig | None = None,
        make_agent: Callable[..., Agent] = Agent,
    ) -> None:
        self.now = 0.0
        self.weather = weather
        self.dead_from = float("inf")
        self._random = random.Random(seed)
        self._queue: list[tuple[float, int, End, bytes, Address, Address]] = []
        self._order = 0
        self.ends: list[End] = []
        for n, (count, role) in enumerate(zip(bases, roles, strict=True)):
            addresses = tuple((f"192.0.2.{10 * n + i + 1}", 5000) for i in range(count))
            agent = make_agent(
                controlling=role,
                credentials=Credentials(f"ufrag{n}", f"password-of-24-characters{n}"),
                random=random.Random(seed * 2 + n),
                config=config,
            )
            end = End("ab"[n], agent, addresses)
            for index, address in enumerate(addresses):
                agent.add_host_candidate(address, 0.0, local_preference=65535 - index)
            self.ends.append(end)
            self._flush(end)
        self.a, self.b = self.ends

    def meet(self, end: End, *, trickle: bool = False) -> None:
        """``end`` learns the other's parameters and, unless they trickle, its candidates."""
        other = self.b if end is self.a else self.a
        end.agent.set_remote_parameters(other.agent.credentials, self.now, ta=0.02)
        if not trickle:
            for candidate in other.candidates:
                end.agent.add_remote_candidate(candidate, self.now)
        self._flush(end)

    def signal(self, end: End, candidate: Candidate) -> None:
        end.agent.add_remote_candidate(candidate, self.now)
        self._flush(end)

    def _flush(self, end: End) -> None:
        for transmit in end.agent.datagrams_to_send(self.now):
            end.sent.append((self.now, transmit))
            copies = 2 if self._random.random() < self.weather.duplication else 1
            for _ in range(copies):
                if self._random.random() >= self.weather.loss and self.now < self.dead_from:
                    self._launch(transmit)
        while (event := end.agent.next_event()) is not None:
            end.events.append((self.now, event))

    def _launch(self, transmit: Transmit) -> None:
        for end in self.ends:
            if transmit.destination in end.bases:
                delay = self.weather.delay + self._random.random() * self.weather.jitter
                self._order += 1
                item = (self.now + delay, self._order, end, transmit.data)
                heapq.heappush(self._queue, (*item, transmit.local, transmit.destination))

    def run(self, until: float) -> None:
        while True:
            timers = [(t, end) for end in self.ends if (t := end.agent.get_timer()) is not None]
            first = min(timers, key=lambda pair: pair[0], default=None)
            arrival = self._queue[0][0] if self._queue else float("inf")
            due = max(self.now, min(arrival, first[0] if first else float("inf")))
            if due > until:
                self.now = until
                return
            self.now = due
            if arrival <= due:
                _, _, end, data, source, local = heapq.heappop(self._queue)
                end.agent.receive_datagram(data, source, local, self.now)
            else:
                assert first is not None
                end = first[1]
                end.turns = end.turns + 1 if end.last_turn == self.now else 0
                end.last_turn = self.now
                assert end.turns < SPIN, f"the timer of {end.name} stands still at {self.now}"
                end.agent.handle_timer(self.now)
            self._flush(end)
