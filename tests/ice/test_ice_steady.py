"""The short way of a session that has concluded does what the general way does: the same runs with
and without it, datagram by datagram, timer by timer."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import Agent, AgentConfig, Credentials, IceState
from ice_punch.ice import agent as agent_module
from ice_punch.ice.steady import Steady
from ice_punch.stun import (
    MAGIC_COOKIE,
    Message,
    MessageClass,
    Method,
    encode_message,
    parse_message,
)

CREDENTIALS = [Credentials("abcd", "x" * 24), Credentials("efgh", "y" * 24)]
FRESH = [Credentials("ijkl", "z" * 24), Credentials("mnop", "w" * 24)]
IPV4 = [[("192.0.2.1", 1000)], [("198.51.100.2", 2000)]]
IPV6 = [[("2001:db8::1", 1000)], [("2001:db8:1::2", 2000)]]
TWO_INTERFACES = [[("192.0.2.1", 1000), ("192.0.2.129", 1001)], [("198.51.100.2", 2000)]]
DELAY = 0.02

Hazard = Callable[[Transmit, random.Random], list[Transmit]]


class World:
    """Two agents, what lies between them, and a word for everything that they do."""

    def __init__(
        self,
        seed: int,
        addresses: list[list[Address]],
        hazard: Hazard | None = None,
        config: AgentConfig | None = None,
    ) -> None:
        self.now = 0.0
        self.told: list[object] = []
        self.hazard = hazard
        self.random = random.Random(seed)
        self._under_way: list[tuple[float, int, int, Transmit]] = []
        self._count = itertools.count()
        self._addresses = addresses
        self.agents = [
            Agent(
                controlling=not n,
                credentials=CREDENTIALS[n],
                random=random.Random(seed + n),
                config=config,
            )
            for n in range(2)
        ]
        for n, agent in enumerate(self.agents):
            for preference, address in enumerate(addresses[n]):
                agent.add_host_candidate(address, 0.0, local_preference=65535 - preference)
        for n, agent in enumerate(self.agents):
            self.introduce(n, CREDENTIALS)
            agent.end_of_remote_candidates(0.0)

    def introduce(self, n: int, credentials: list[Credentials]) -> None:
        self.agents[n].set_remote_parameters(credentials[1 - n], self.now, renomination=True)
        for candidate in self.agents[1 - n].local_candidates:
            self.agents[n].add_remote_candidate(candidate, self.now)

    def restart(self) -> None:
        for n, agent in enumerate(self.agents):
            agent.restart(FRESH[n], self.now)
        for n in range(2):
            self.introduce(n, FRESH)

    def run(self, until: float) -> None:
        for n in range(2):
            self._take(n)
        while True:
            timers = [agent.get_timer() for agent in self.agents]
            due = min((t for t in timers if t is not None), default=float("inf"))
            arrives = self._under_way[0][0] if self._under_way else float("inf")
            if min(due, arrives) > until:
                self.now = until
                return
            if arrives <= due:
                self.now, _, n, packet = heapq.heappop(self._under_way)
                self.agents[n].receive_datagram(
                    packet.data, packet.local, packet.destination, self.now
                )
                self._take(n)
                continue
            self.now = due
            for n, timer in enumerate(timers):
                if timer is not None and timer <= due:
                    self.agents[n].handle_timer(due)
                    self._take(n)

    def _take(self, n: int) -> None:
        agent = self.agents[n]
        while (event := agent.next_event()) is not None:
            self.told.append((self.now, n, repr(event)))
        for packet in agent.datagrams_to_send(self.now):
            self.told.append((self.now, n, packet))
            arriving = [packet] if self.hazard is None else self.hazard(packet, self.random)
            for one in arriving:
                to = 1 - n if one.destination in self._addresses[1 - n] else n
                heapq.heappush(self._under_way, (self.now + DELAY, next(self._count), to, one))
        self.told.append((self.now, n, agent.get_timer(), agent.state, dict(agent.counters)))

    def outcome(self) -> list[object]:
        return [*self.told, *(repr(agent.report()) for agent in self.agents)]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the general way has read."""
    read: list[bytes] = []

    def parse(data: bytes) -> Message:
        read.append(data)
        return parse_message(data)

    monkeypatch.setattr(agent_module, "parse_message", parse)
    return read


def both_ways(monkeypatch: pytest.MonkeyPatch, run: Callable[[], World]) -> World:
    """The run with the short way, once it is shown to be that without it."""
    short = run()
    with monkeypatch.context() as patch:
        patch.setattr(Steady, "of", staticmethod(lambda *_: None))
        general = run()
    assert short.outcome() == general.outcome()
    return short


@pytest.mark.parametrize("addresses", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_an_idle_session_is_kept_alive_by_the_short_way_alone(
    addresses: list[list[Address]], parsed: list[bytes]
) -> None:
    world = World(1, addresses)
    world.run(30)
    parsed.clear()
    before = [agent.counters["checks_answered"] for agent in world.agents]
    world.run(1000)
    assert parsed == []
    for agent, answered in zip(world.agents, before, strict=True):
        assert agent.state is IceState.COMPLETED
        assert 190 < agent.counters["checks_answered"] - answered < 220


@pytest.mark.parametrize("addresses", [IPV4, IPV6, TWO_INTERFACES], ids=["ipv4", "ipv6", "standby"])
def test_nothing_tells_it_from_the_general_way(
    addresses: list[list[Address]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> World:
        world = World(2, addresses)
        world.run(500)
        return world

    both_ways(monkeypatch, run)


def _lossy(packet: Transmit, chance: random.Random) -> list[Transmit]:
    return [] if chance.random() < 0.2 else [packet]


def _twice(packet: Transmit, chance: random.Random) -> list[Transmit]:
    return [packet] * (2 if chance.random() < 0.3 else 1)


def _damaged(packet: Transmit, chance: random.Random) -> list[Transmit]:
    """One bit, anywhere: header, attributes, integrity or fingerprint."""
    if chance.random() < 0.5:
        return [packet]
    data = bytearray(packet.data)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return [packet._replace(data=bytes(data)), packet]


def _changed(packet: Transmit, chance: random.Random, key: bytes | None) -> list[Transmit]:
    """One bit of the attributes, and what covers them made anew."""
    data = packet.data
    if chance.random() < 0.5 or data[4:8] != MAGIC_COOKIE.to_bytes(4, "big"):
        return [packet]
    if key is not None and data[-32:-28] != bytes.fromhex("00080014"):
        return [packet]
    attributes = bytearray(data[20:-32] if key else data[20:-8])
    attributes[chance.randrange(len(attributes))] ^= 1 << chance.randrange(8)
    type_, id_ = int.from_bytes(data[:2], "big"), data[8:20]
    changed = encode_message(type_, id_, bytes(attributes), key=key)
    return [packet._replace(data=changed), packet]


def _forged(packet: Transmit, chance: random.Random) -> list[Transmit]:
    """With a right FINGERPRINT."""
    return _changed(packet, chance, None)


def _signed(packet: Transmit, chance: random.Random) -> list[Transmit]:
    """By the peer, which has other things to say: a mapped address, a role, an attribute that
    nobody knows."""
    ours = packet.local in [address for some in (IPV4, IPV6, TWO_INTERFACES) for address in some[0]]
    answer = packet.data[0] == 1
    return _changed(packet, chance, CREDENTIALS[0 if ours == answer else 1].key)


def _cut(packet: Transmit, chance: random.Random) -> list[Transmit]:
    size = chance.randrange(len(packet.data))
    return [packet._replace(data=packet.data[:size]), packet]


def _from_elsewhere(packet: Transmit, chance: random.Random) -> list[Transmit]:
    if chance.random() < 0.7:
        return [packet]
    return [packet._replace(local=(packet.local[0], packet.local[1] + 1))]


def _with_strangers(packet: Transmit, chance: random.Random) -> list[Transmit]:
    """Data, indications and plain requests come in between."""
    request = Message(Method.BINDING, MessageClass.REQUEST, chance.randbytes(12)).to_bytes()
    keepalive = Message(Method.BINDING, MessageClass.INDICATION, chance.randbytes(12)).to_bytes()
    between = chance.choice([b"\x17data", request, keepalive, b""])
    port = packet.local[1] + chance.choice([0, 7])
    return [packet, packet._replace(data=between, local=(packet.local[0], port))]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("addresses", [IPV4, IPV6, TWO_INTERFACES], ids=["ipv4", "ipv6", "standby"])
@pytest.mark.parametrize(
    "hazard", [_lossy, _twice, _damaged, _forged, _signed, _cut, _from_elsewhere, _with_strangers]
)
def test_what_is_unusual_goes_the_general_way(
    hazard: Hazard, addresses: list[list[Address]], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> World:
        world = World(seed, addresses)
        world.run(20)
        world.hazard = hazard
        world.run(200)
        return world

    both_ways(monkeypatch, run)


@pytest.mark.parametrize("addresses", [IPV4, TWO_INTERFACES], ids=["alone", "standby"])
def test_a_path_that_dies_is_noticed_and_one_that_comes_back_too(
    addresses: list[list[Address]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> World:
        world = World(5, addresses)
        world.run(100)
        world.hazard = lambda packet, _: [] if packet.local in IPV4[0] else [packet]
        world.run(115)
        world.hazard = None
        world.run(200)
        world.hazard = lambda *_: []
        world.run(300)
        return world

    world = both_ways(monkeypatch, run)
    assert [agent.state for agent in world.agents] == [IceState.FAILED] * 2
    assert any("DISCONNECTED" in str(word) for word in world.told)


def test_a_restart_goes_on_with_other_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> World:
        world = World(6, IPV4)
        world.run(100)
        world.restart()
        world.run(200)
        return world

    world = both_ways(monkeypatch, run)
    assert [agent.credentials for agent in world.agents] == FRESH


def test_data_in_between_changes_when_a_path_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> World:
        world = World(7, IPV4)
        for second in range(20, 120):
            world.run(float(second))
            if second % 7 < 4:
                world.agents[0].data_sent(world.now)
                world.agents[1].data_received(IPV4[0][0], IPV4[1][0], world.now)
        return world

    both_ways(monkeypatch, run)


def test_times_that_the_user_chose_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AgentConfig(consent_interval=2.0, consent_timeout=6.0, unanswered_for=3.0)

    def run() -> World:
        world = World(8, IPV4, config=config)
        world.run(60)
        world.hazard = _lossy
        world.run(200)
        return world

    both_ways(monkeypatch, run)
