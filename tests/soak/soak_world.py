"""Two agents, their NATs, their signaling and a STUN server, on a network that does whatever a test
wants.

What is in flight arrives when it is due, or when the test says so, or never, or twice. Timers are
served when they are due, or late by ``lag``. Signaling keeps the order: what one side says of its
credentials the other hears one after the other, whenever the test wants.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

import pytest

from ice_punch.datagram import Address
from ice_punch.ice import (
    Agent,
    AgentConfig,
    Candidate,
    CandidateType,
    Credentials,
    DataReceived,
    IceState,
    LocalCandidateFound,
    resembles_stun,
)
from ice_punch.ice.session import ENDED
from ice_punch.lab.behaviour import Mapping, NatBehaviour
from ice_punch.lab.trace import DropReason
from ice_punch.lab.virtual.translation import TranslationTable
from ice_punch.stun import BindingServer
from support.watch import Watch

SERVERS = (("198.51.100.1", 3478), ("198.51.100.2", 3478))
"""Two, so that a side can know that its NAT maps by destination."""
SPIN = 60
MOST_IN_FLIGHT = 400
REMEMBERED = 100
SOON, LATER = 1.0, 10.0
"""Seconds after which signaling is looked after again, once everything is to end well: for a
while, and afterwards."""
MOST_ROUNDS = 60
"""Pairs of one foundation may be checked one after another, each for 40 s and more (RFC 8445
section 6.1.4.2)."""
DONE = (IceState.COMPLETED, IceState.FAILED, IceState.CLOSED)


class Weather(Enum):
    KIND = "every datagram arrives after 20 ms"
    STORM = "lost, late, early, twice"
    STILL = "nothing moves by itself"
    DEAD = "everything is lost"


@dataclass(frozen=True)
class Home:
    """How a side is connected."""

    nat: NatBehaviour | None = None
    bases: int = 1
    """For each component."""
    relay: bool = False

    @property
    def is_predictable(self) -> bool:
        return self.nat is None or self.nat.mapping is Mapping.ENDPOINT_INDEPENDENT


@dataclass(frozen=True, eq=False)
class Flight:
    data: bytes
    source: Address
    destination: Address
    due: float = math.inf


@dataclass
class Side:
    """One agent and where it lives."""

    name: str
    agent: Agent
    watch: Watch
    home: Home
    number: int
    nat: TranslationTable | None = None
    up: bool = True
    bases: dict[Address, int] = field(default_factory=dict)
    """The component of each."""
    told: list[Candidate] = field(default_factory=list)
    """What this side would signal of its current generation."""
    generations: dict[Credentials, int] = field(default_factory=dict)
    """The number of each."""
    said: list[Credentials] = field(default_factory=list)
    """Its credentials, one after the other; the other side may not have heard all of them."""
    heard: int = 0
    """How many of those that the other side said."""
    given_up: int = 0
    """Restarts that came to nothing."""
    ports: int = 5000
    received: list[bytes] = field(default_factory=list)
    timer: float | None = None
    """What ``get_timer`` said after the last call to the agent."""
    last_turn: float = -1.0
    turns: int = 0

    @property
    def private(self) -> bool:
        return self.nat is not None

    @property
    def generation(self) -> int:
        """Of its current credentials: those of a restart that came to nothing are not current."""
        return self.generations[self.agent.credentials]

    @property
    def latest(self) -> int:
        return max(self.generations.values())

    def base(self, component: int, index: int) -> Address:
        ip = f"10.0.{self.number}.{index + 1}" if self.private else f"192.0.2.{self.number}{index}"
        return (ip, self.ports + component)

    def begins(self, credentials: Credentials, generation: int) -> None:
        self.generations[credentials] = generation
        self.said.append(credentials)
        self.tells_again()

    def tells_again(self) -> None:
        found = self.agent.local_candidates
        self.told = [c for c in found if c.type is not CandidateType.PRFLX]


def credentials_of(number: int, generation: int) -> Credentials:
    return Credentials(f"ufrag{number}-{generation}", f"password-{generation}-of-24-chars-{number}")


class World:
    def __init__(
        self,
        seed: int,
        homes: tuple[Home, Home],
        *,
        roles: tuple[bool, bool],
        configs: tuple[AgentConfig, AgentConfig],
        renomination: tuple[bool, bool] = (True, True),
        counts_data: bool = False,
    ) -> None:
        """``renomination``: what each side announces. ``counts_data``: the driver looks at data
        itself, and tells the agent of it."""
        self.now = 100.0
        self.renomination = renomination
        self.counts_data = counts_data
        self.datagrams = 0
        self.lag = 0.0
        self.weather = Weather.KIND
        self.random = random.Random(seed)
        self.flights: list[Flight] = []
        self.history: deque[Flight] = deque(maxlen=REMEMBERED)
        self.server = BindingServer()
        self.sides = [
            self._side(number, home, role, config, seed)
            for number, (home, role, config) in enumerate(
                zip(homes, roles, configs, strict=True), 1
            )
        ]
        self.a, self.b = self.sides
        for side in self.sides:
            for component in side.agent.config.components:
                for index in range(side.home.bases):
                    self.add_base(side, component, index)
                if side.home.relay:
                    address = (f"203.0.113.10{side.number}", 40000 + component)
                    side.bases[address] = component
                    side.agent.add_relayed_candidate(
                        address, self.now, server="turn", component=component
                    )
            self.flush(side)

    def _side(self, number: int, home: Home, role: bool, config: AgentConfig, seed: int) -> Side:
        agent = Agent(
            controlling=role,
            credentials=credentials_of(number, 0),
            random=random.Random(f"{seed}/{number}"),
            config=config,
        )
        side = Side("ab"[number - 1], agent, Watch(agent, servers=SERVERS), home, number)
        side.begins(agent.credentials, 0)
        if home.nat is not None:
            table_random = random.Random(f"{seed}/nat {number}")
            side.nat = TranslationTable(f"203.0.113.{number}", home.nat, source=table_random)
        return side

    def other(self, side: Side) -> Side:
        return self.b if side is self.a else self.a

    # -- what sides do -------------------------------------------------------------------------

    def add_base(self, side: Side, component: int, index: int) -> None:
        base = side.base(component, index)
        side.bases[base] = component
        side.agent.add_host_candidate(
            base, self.now, local_preference=65535 - index, component=component
        )
        self.flush(side)

    def gather(self, side: Side) -> None:
        for base, component in side.bases.items():
            if side.agent._lineage.session.local.at_base(base) is None:
                continue  # of an old generation
            for server in SERVERS:
                if side.agent._queries.all[60:]:
                    return
                if not base[0].startswith("203"):
                    side.agent.query_server("stun", server, base, self.now, component=component)
        self.flush(side)

    def remove_base(self, side: Side, base: Address) -> None:
        """The interface, or the relay, is gone."""
        del side.bases[base]
        side.agent.remove_local_candidate(base, self.now)
        side.watch.base_gone(base)
        self.flush(side)

    def send_data(self, side: Side, component: int) -> bytes | None:
        """A datagram of the application's; None where there is no way."""
        if self.lag:
            self.serve(side)
        pair = side.agent.data_pair(component)
        if pair is None:
            return None
        side.watch.data_may_go(side.watch.era_of_data(), pair.key, self.now)
        self.datagrams += 1
        data = b"\x80" + self.datagrams.to_bytes(8, "big")
        side.agent.data_sent(self.now)
        self._launch(side, data, pair.base, pair.remote.address)
        self.flush(side)
        return data

    # -- signaling -----------------------------------------------------------------------------

    def restart(self, side: Side, *, fresh_sockets: bool = False) -> None:
        """Raises ValueError where the agent does."""
        self._begin_again(side, side.latest + 1, fresh_sockets=fresh_sockets)

    def _begin_again(self, side: Side, generation: int, *, fresh_sockets: bool = False) -> None:
        credentials = credentials_of(side.number, generation)
        side.agent.restart(credentials, self.now, fresh_sockets=fresh_sockets)
        side.begins(credentials, generation)
        if fresh_sockets:
            side.ports += 10
            for component in side.agent.config.components:
                for index in range(side.home.bases):
                    self.add_base(side, component, index)
            self.gather(side)
        self.flush(side)

    def meet(self, side: Side) -> None:
        """``side`` hears the next of what the other said of its credentials, or the last again.
        Those of a restart are answered by a restart (RFC 8839 section 4.4.1.1.1)."""
        other = self.other(side)
        side.heard = min(side.heard + 1, len(other.said))
        credentials = other.said[side.heard - 1]
        generation = other.generations[credentials]
        closed = side.agent.state is IceState.CLOSED
        if generation > side.latest and side.agent.remote_credentials is not None and not closed:
            self._begin_again(side, generation)
        known = side.agent.remote_credentials
        if generation == side.generation:
            renomination = self.renomination[other.number - 1]
            side.agent.set_remote_parameters(
                credentials, self.now, ta=0.02, renomination=renomination
            )
        elif known not in (None, credentials):
            with pytest.raises(ValueError, match="restart"):
                side.agent.set_remote_parameters(credentials, self.now)
        self.flush(side)

    def signal(self, side: Side, candidate: Candidate) -> None:
        """Signaling takes no candidate of a generation that is gone (RFC 8840 section 4.4)."""
        if side.generation != self.other(side).generation:
            return
        side.watch.signalled.add(candidate.address)
        side.agent.add_remote_candidate(candidate, self.now)
        self.flush(side)

    def flush(self, side: Side) -> None:
        """Take what the agent has to say, and hold it against the rules."""
        sent = side.agent.datagrams_to_send(self.now)
        side.watch.sends(sent, self.now)
        for data, local, destination in sent:
            assert local in side.bases
            self._launch(side, data, local, destination)
        while (event := side.agent.next_event()) is not None:
            side.watch.happens(event)
            if isinstance(event, LocalCandidateFound):
                candidate = event.candidate
                if candidate.type is not CandidateType.PRFLX:
                    side.told.append(candidate)
            elif isinstance(event, DataReceived):
                side.received.append(event.data)
        if side.agent.counters["restarts_failed"] > side.given_up:
            side.given_up += 1
            side.tells_again()
        side.timer = side.agent.get_timer()
        if side.timer is None or side.timer > self.now:
            side.watch.check(self.now)

    # -- the network ---------------------------------------------------------------------------

    def outside(self, side: Side, base: Address, destination: Address) -> Address | None:
        """Where a datagram seems to come from; None if it does not get out."""
        if side.nat is None or base[0].startswith("203"):
            return base
        external = side.nat.outbound(base, destination, self.now)
        return None if isinstance(external, DropReason) else external

    def inside(self, source: Address, destination: Address) -> tuple[Side, Address] | None:
        """Whom a datagram reaches, and at which base."""
        for side in self.sides:
            if destination in side.bases and (not side.private or destination[0].startswith("203")):
                return side, destination
            if side.nat is not None and destination[0] in side.nat.external_ips:
                internal = side.nat.inbound(source, destination, self.now)
                if not isinstance(internal, DropReason) and internal in side.bases:
                    return side, internal
        return None

    def _launch(self, side: Side, data: bytes, local: Address, destination: Address) -> None:
        source = self.outside(side, local, destination)
        if source is None or not side.up:
            return
        self.put(data, source, destination)

    def put(self, data: bytes, source: Address, destination: Address) -> None:
        """Into the air, as the weather has it."""
        draw = self.random.random
        self.history.append(Flight(data, source, destination))
        match self.weather:
            case Weather.KIND:
                delays = [0.02]
            case Weather.STORM:
                copies = 0 if draw() < 0.2 else 2 if draw() < 0.2 else 1
                delays = [draw() ** 4 * 3.0 for _ in range(copies)]
            case Weather.STILL:
                delays = [math.inf]
            case Weather.DEAD:
                delays = []
        self.flights += [Flight(data, source, destination, self.now + delay) for delay in delays]
        del self.flights[:-MOST_IN_FLIGHT]

    def arrive(self, flight: Flight) -> None:
        """Now, whatever was to become of it."""
        if flight in self.flights:
            self.flights.remove(flight)
        if flight.destination in SERVERS:
            self.server.receive_datagram(flight.data, flight.source, flight.destination, self.now)
            for data, local, destination in self.server.datagrams_to_send(self.now):
                self.put(data, local, destination)
            return
        reached = self.inside(flight.source, flight.destination)
        if reached is not None and reached[0].up:
            self.deliver(reached[0], flight.data, flight.source, reached[1])

    def deliver(self, side: Side, data: bytes, source: Address, base: Address) -> None:
        side.watch.receives(data, source, base, self.now)
        if resembles_stun(data):
            side.agent.receive_datagram(data, source, base, self.now)
            self.flush(side)
            return
        before = self._seen(side)
        if not self.counts_data:
            side.agent.receive_datagram(data, source, base, self.now)
        elif side.agent.accepts_data(source, base):
            side.agent.data_received(source, base, self.now)
            side.received.append(data)
        else:
            side.agent.counters["data_from_strangers"] += 1
            side.agent.data_from_stranger(source, base, self.now)
        self.flush(side)
        assert self._seen(side) == before + 1, "a datagram is neither delivered nor counted"

    def _seen(self, side: Side) -> int:
        counters = side.agent.counters
        return len(side.received) + counters["data_from_strangers"] + counters["after_end"]

    # -- time ----------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """A timer that stands still is a mistake."""
        until = self.now + seconds
        while True:
            arrival = min(self.flights, key=lambda flight: flight.due, default=None)
            timers = [
                (side.timer + self.lag, side.number, side)
                for side in self.sides
                if side.timer is not None
            ]
            first = min(timers, default=None)
            arrives_at = math.inf if arrival is None else arrival.due
            due = min(arrives_at, math.inf if first is None else first[0])
            if due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            if arrival is not None and arrives_at <= due:
                self.arrive(arrival)
            else:
                assert first is not None
                self._wake(first[2])

    def serve(self, side: Side) -> None:
        """What is due, late or not."""
        while side.timer is not None and side.timer <= self.now:
            self._wake(side)

    def _wake(self, side: Side) -> None:
        side.turns = side.turns + 1 if side.last_turn == self.now else 0
        side.last_turn = self.now
        assert side.turns < SPIN, f"the timer of {side.name} stands still"
        side.agent.handle_timer(self.now)
        self.flush(side)

    def settle(self) -> None:
        """From now on everything is as good as it can be, until both are done."""
        self.lag = 0.0
        self.weather = Weather.KIND
        for flight in list(self.flights):
            if flight.due == math.inf:
                self.arrive(flight)
        for side in self.sides:
            side.up = True
            for component in side.agent.config.components:
                if component not in side.bases.values():
                    self.add_base(side, component, 0)
            self.gather(side)
        self.run(1.0)
        self.talk()
        if not any(side.latest for side in self.sides):
            for side in self.sides:
                side.agent.end_of_remote_candidates(self.now)
                self.flush(side)
        # patience, and then the consent of the one that had a path
        for pause in (*[SOON] * 30, *[LATER] * 10):
            self.run(pause)
            if not self.talk() and self.is_well():
                return
        for _ in range(MOST_ROUNDS):
            if all(side.agent.state in DONE for side in self.sides) and not self.talk():
                return
            self.run(40.0)

    def is_well(self) -> bool:
        """Both are done, and what each sends on its selected pairs reaches the other there."""
        for side in self.sides:
            agent = side.agent
            if agent.state is not IceState.COMPLETED or agent.restarting:
                return False
            for component in agent.config.components:
                path, back = self.path(side, component), self.path(self.other(side), component)
                if path is None or back is None or path != back[::-1]:
                    return False
                data = self.send_data(side, component)
                self.run(0.1)
                if data not in self.other(side).received:
                    return False
        return all(side.agent.state is IceState.COMPLETED for side in self.sides)

    def talk(self) -> bool:
        """Signaling does all that is left for it to do; False if there was nothing."""
        busy = False
        for side in self.sides:
            busy |= self.follow_advice(side)
        while any(side.heard < len(self.other(side).said) for side in self.sides):
            busy = True
            for side in self.sides:
                if side.heard < len(self.other(side).said):
                    self.meet(side)
        for side in self.sides:
            for candidate in list(self.other(side).told):
                busy |= candidate.address not in side.watch.signalled
                self.signal(side, candidate)
        return busy

    def follow_advice(self, side: Side) -> bool:
        """Restart where the agent says so, as long as there is somebody on the other side."""
        advice = side.watch.advised
        gone = any(one.agent.state in ENDED for one in self.sides)
        if advice is None or gone or side.agent.restarting:
            return False
        self.restart(side, fresh_sockets=advice.fresh_sockets)
        return True

    # -- what there is to see ------------------------------------------------------------------

    def path(self, side: Side, component: int) -> tuple[Address, Address] | None:
        """The two bases that the selected pair of ``side`` joins, its own first; None if what is
        sent on it reaches nobody, or is not where the other side expects it from."""
        pair = side.agent.selected_pair(component)
        if pair is None:
            return None
        source = self.outside(side, pair.base, pair.remote.address)
        reached = None if source is None else self.inside(source, pair.remote.address)
        if source is None or reached is None or reached[0] is side:
            return None
        if not reached[0].agent.accepts_data(source, reached[1]):
            return None
        return pair.base, reached[1]

    @property
    def can_meet(self) -> bool:
        """Whether some path works for sure, of NATs left alone."""
        homes = [side.home for side in self.sides]
        return any(home.relay for home in homes) or all(home.is_predictable for home in homes)

    def states(self) -> set[IceState]:
        return {side.agent.state for side in self.sides}
