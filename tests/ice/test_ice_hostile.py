"""Thousands of hostile datagrams at a live session: it survives, counters tell, nothing is
delivered, nothing is learned."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ice_punch.ice import DataReceived, IceState
from ice_punch.stun import (
    ICE_CONTROLLED,
    MAGIC_COOKIE,
    PRIORITY,
    USERNAME,
    Message,
    MessageClass,
    Method,
)
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, completed_bench

STRANGER = ("203.0.113.99", 1)
COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
SETTINGS = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PER_EXAMPLE = 20
"""Datagrams in each example: 80 x 20 for each of the tests below."""

seeds = st.integers(0, 2**63)


class Snapshot:
    """Everything about a live session that a hostile datagram must not change."""

    def __init__(self, bench: Bench) -> None:
        agent = bench.agent
        self.values = (
            agent.state,
            agent.controlling,
            agent.tie_breaker,
            agent.selected_pair(),
            agent.data_pair(),
            [(p.key, p.state, p.valid, p.last_response_at) for p in agent.check_list],
            agent.local_candidates,
            agent.remote_candidates,
            set(agent._session.validated),
            agent.get_timer(),
            sorted(agent._current.checks._out),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.values)


def throw(bench: Bench, datagrams: list[bytes], source: tuple[str, int]) -> None:
    """Each datagram is counted under exactly one reason; none is delivered or changes anything."""
    before = Snapshot(bench)
    events = len(bench.events)
    for datagram in datagrams:
        counters = Counter(bench.agent.counters)
        sent = len(bench.sent)
        bench.receive(datagram, source)
        assert sum((bench.agent.counters - counters).values()) == 1, datagram.hex()
        answers = bench.sent[sent:]
        assert len(answers) <= 1
        assert all(s.destination == source and s.error in (400, 401) for s in answers)
        assert all(len(s.data) <= len(datagram) + 48 for s in answers)
    assert Snapshot(bench) == before
    assert bench.events[events:] == []


def a_real_check(bench: Bench) -> bytes:
    return bench.request(priority=1845501695, tie_breaker=77)


def lives_on(bench: Bench) -> None:
    bench.answer_all(0.05)
    bench.receive(b"hello")
    assert bench.events[-1][1] == DataReceived(b"hello", LOCAL, REMOTE)
    bench.run(60.0)
    assert bench.agent.state is IceState.COMPLETED


@SETTINGS
@given(st.lists(st.binary(max_size=200), min_size=PER_EXAMPLE, max_size=PER_EXAMPLE))
def test_random_bytes_of_strangers(datagrams: list[bytes]) -> None:
    bench = completed_bench()
    throw(bench, datagrams, STRANGER)
    lives_on(bench)


@SETTINGS
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3]), st.binary(max_size=120)),
        min_size=PER_EXAMPLE,
        max_size=PER_EXAMPLE,
    )
)
@pytest.mark.parametrize("source", [STRANGER, REMOTE])
def test_random_bytes_behind_our_cookie(
    source: tuple[str, int], datagrams: list[tuple[int, bytes]]
) -> None:
    """Also from the address of the peer, which anybody may write on a datagram."""
    bench = completed_bench()
    throw(bench, [bytes([f, 1, 0, len(d) & 255]) + COOKIE + d for f, d in datagrams], source)
    lives_on(bench)


@SETTINGS
@given(seeds)
@pytest.mark.parametrize("source", [STRANGER, REMOTE])
def test_mutations_of_a_real_check(source: tuple[str, int], seed: int) -> None:
    bench = completed_bench()
    mutate = random.Random(seed)
    datagrams = []
    for _ in range(PER_EXAMPLE):
        real = a_real_check(bench)
        data = bytearray(real)
        for _ in range(mutate.randint(1, 4)):
            # not the cookie: without it this is no STUN, and that has its own test
            at = mutate.choice([*range(1, 4), *range(8, len(data))])
            data[at] ^= 1 << mutate.randrange(8)
        if bytes(data) != real:
            datagrams.append(bytes(data))
    throw(bench, datagrams, source)
    lives_on(bench)


@SETTINGS
@given(seeds)
def test_mutations_of_a_real_answer(seed: int) -> None:
    bench = completed_bench()
    bench.run(6.0)
    real = bench.answer(bench.requests[-1])
    mutate = random.Random(seed)
    datagrams = []
    for _ in range(PER_EXAMPLE):
        data = bytearray(real)
        # not the FINGERPRINT: what it says is worth nothing beside MESSAGE-INTEGRITY
        data[mutate.choice([*range(1, 4), *range(8, len(data) - 8)])] ^= 1 << mutate.randrange(8)
        datagrams.append(bytes(data))
    before = Snapshot(bench)
    for data in datagrams:
        bench.receive(data)
    assert Snapshot(bench) == before
    bench.receive(real)
    assert bench.pair().last_response_at == bench.now
    lives_on(bench)


def test_every_truncation_and_extension_of_a_real_check_and_answer() -> None:
    bench = completed_bench()
    bench.run(6.0)
    answer = bench.answer(bench.requests[-1])
    check = a_real_check(bench)
    for real in (check, answer):
        whole = [real[:n] for n in range(8, len(real))]
        whole += [real + bytes(n) for n in range(1, 60)]
        throw(bench, whole, REMOTE)
    throw(bench, [check[:n] for n in range(8)], STRANGER)
    lives_on(bench)


def _attribute(type_: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return type_.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + padding


def _raw(message_type: int, *attributes: bytes, cookie: bytes = COOKIE) -> bytes:
    body = b"".join(attributes)
    header = message_type.to_bytes(2, "big") + len(body).to_bytes(2, "big")
    return header + cookie + bytes(12) + body


@pytest.mark.parametrize(
    "datagram",
    [
        _raw(1, _attribute(0x24, b"\1\2")),  # PRIORITY of 2 bytes
        _raw(1, _attribute(0x24, b"")),
        _raw(1, _attribute(0x24, bytes(5))),
        _raw(1, _attribute(0x25, b"x")),  # USE-CANDIDATE with a value
        _raw(1, _attribute(0x8029, bytes(4))),  # ICE-CONTROLLED of 4 bytes
        _raw(1, _attribute(0x802A, bytes(12))),
        _raw(1, _attribute(0x0006, b"\xff\xfe\xfd")),  # USERNAME that is no UTF-8
        _raw(1, _attribute(0x0006, b"a:" + b"b" * 2000)),
        _raw(1, _attribute(0x0008, bytes(19))),  # MESSAGE-INTEGRITY of 19 bytes
        _raw(1, _attribute(0x8028, bytes(4))),  # a wrong FINGERPRINT
        _raw(1, _attribute(0x8028, bytes(4)), _attribute(0x24, bytes(4))),
        _raw(0x0101, _attribute(0x0020, b"\0\1")),  # XOR-MAPPED-ADDRESS of 2 bytes
        _raw(0x0101, _attribute(0x0020, b"\0\3\0\0\0\0\0\0")),  # of an unknown family
        _raw(0x0111, _attribute(0x0009, b"\0")),  # ERROR-CODE of 1 byte
        _raw(0x0111, _attribute(0x0009, b"\0\0\xff\xff")),
        _raw(1)[:-1],
        _raw(1) + b"\0",
        b"\0\1\0\4" + COOKIE + b"text text te" + b"\0\x24\0\2",
        b"\0\1\xff\xff" + COOKIE + bytes(12),
        b"\0\1\0\0" + COOKIE,
    ],
)
def test_malformed_messages_from_the_peers_own_address(datagram: bytes) -> None:
    bench = completed_bench()
    throw(bench, [datagram], REMOTE)
    lives_on(bench)


@pytest.mark.parametrize(
    "datagram",
    [
        b"\0\1\0\4" + b"text that is twenty.",
        _raw(1, _attribute(0x24, bytes(4)), cookie=b"\x21\x12\xa4\x43"),
        _raw(1, cookie=bytes(4)),
        b"",
        b"\0",
        bytes(1500),
    ],
)
def test_a_wrong_cookie_of_a_stranger(datagram: bytes) -> None:
    bench = completed_bench()
    throw(bench, [datagram], STRANGER)
    assert bench.agent.counters["data_from_strangers"] == 1
    lives_on(bench)


@pytest.mark.parametrize("when", ["new", "checking", "connected", "completed"])
def test_random_bytes_in_every_state(when: str) -> None:
    source = random.Random(when)
    bench = Bench(meet=False, controlling=False)
    bench.flush()
    if when != "new":
        bench.meet()
        bench.signal(REMOTE)
    if when in ("connected", "completed"):
        bench.receive(bench.answer(bench.requests[0]))
    if when == "completed":
        bench.receive(bench.request(use_candidate=True))
    assert bench.agent.state == when
    datagrams = [
        bytes([source.randrange(4), source.randrange(256), 0, source.randrange(64)])
        + COOKIE
        + source.randbytes(source.randrange(100))
        for _ in range(300)
    ]
    throw(bench, datagrams, STRANGER)


def test_every_method_and_class() -> None:
    bench = completed_bench()
    sent = []
    for method in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 0x80, 0xFFF):
        for class_ in MessageClass:
            sent.append(Message(method, class_, bytes(12)).to_bytes())
    throw(bench, sent, STRANGER)
    lives_on(bench)


def test_a_replayed_check_from_elsewhere_learns_no_more_than_bounds_allow() -> None:
    """An attacker on the path can replay what the peer sent, from any address; memory is bounded
    and the selected pair stays."""
    bench = completed_bench()
    real = a_real_check(bench)
    selected = bench.agent.selected_pair()
    for port in range(1, 3000):
        bench.receive(real, ("203.0.113.99", port))
    assert len(bench.agent.remote_candidates) == 100
    assert len(bench.agent._session.validated) <= 100
    assert len(bench.agent.check_list) == 1
    assert bench.agent.selected_pair() is selected
    lives_on(bench)


def test_a_flood_of_nominations_from_everywhere_is_bounded() -> None:
    """The peer itself may be hostile: it has the password."""
    bench = completed_bench()
    for port in range(1, 500):
        bench.receive(bench.request(use_candidate=True, priority=port), ("203.0.113.99", port))
    assert len(bench.agent.check_list) <= 100
    assert len(bench.agent._current.checks._out) <= 8 * 100
    bench.run(2.0)
    begun = {s.message.transaction_id for s in bench.requests}
    assert len(begun) <= 2.0 / 0.02 + 2
    bench.take()
    lives_on(bench)


def test_answers_to_the_checks_of_another_are_no_answers() -> None:
    bench = completed_bench()
    other = completed_bench(seed=99)
    other.run(6.0)
    bench.run(6.0)
    throw(bench, [other.answer(s) for s in other.requests], REMOTE)


def test_a_check_with_our_password_and_a_huge_user_name_part() -> None:
    bench = completed_bench()
    message = Message(Method.BINDING, MessageClass.REQUEST, bytes(12))
    message.add(USERNAME, f"{OURS.ufrag}:{'x' * 256}")
    message.add(PRIORITY, 1)
    message.add(ICE_CONTROLLED, 1)
    bench.receive(message.to_bytes(key=OURS.key), STRANGER)
    assert bench.agent.counters["requests_of_another_ufrag"] == 1
    assert len(bench.agent.remote_candidates) == 1
    assert PEER.ufrag != OURS.ufrag
