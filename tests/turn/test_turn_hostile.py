"""What strangers, broken clients and broken servers send: it is counted and dropped, nothing is
raised, nothing grows, and what works goes on working."""

from __future__ import annotations

import gc
import hashlib
import hmac
import random
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import RELAYED, Script
from server_support import UDP, Asker, code_of
from turn_world import CLIENT, ONE_WAY, PEER, SERVER, World

from ice_punch.stun import (
    ATTRIBUTES,
    LIFETIME,
    NONCE,
    USERNAME,
    Message,
    MessageClass,
    Method,
    parse_message,
)
from ice_punch.turn import Allocated, RelayedData, TurnState

IDS = st.binary(min_size=12, max_size=12)
TYPES = st.one_of(st.sampled_from(sorted(ATTRIBUTES)), st.integers(0, 0xFFFF))
PLAUSIBLE = st.sampled_from(
    [
        *((0x0009, bytes([0, 0, code // 100, code % 100])) for code in (300, 401, 437, 438, 508)),
        (0x0014, b"test"),
        (0x0015, b"nonce"),
        (0x0015, b"obMatJos2wAAAnonce"),
        (0x8002, b"\0\2\0\0\0\1\0\0"),
        (0x0016, b"\0\1\x53\x12\x5e\x12\xa4\x42"),
        (0x0012, b"\0\1\x3a\x4a\xe1\x12\xa6\x45"),
        (0x000D, b"\0\0\2\x58"),
        (0x000D, b"\0\0\0\0"),
        (0x0019, b"\x11\0\0\0"),
        (0x8023, b"\0\1\x0d\x96\xcb\0\x71\x63"),
    ]
)
ATTRIBUTE = st.one_of(PLAUSIBLE, st.tuples(TYPES, st.binary(max_size=60)))
METHODS = st.one_of(st.sampled_from([int(m) for m in Method]), st.integers(0, 0xFFF))


def encoded(method: int, kind: int, id_: bytes, attributes: list[tuple[int, bytes]]) -> bytes:
    """A message whose values need not be what their types want."""
    body = b"".join(
        t.to_bytes(2, "big") + len(v).to_bytes(2, "big") + v + bytes(-len(v) % 4)
        for t, v in attributes
    )
    head = Message(method, MessageClass(kind), id_).to_bytes(fingerprint=False)
    return head[:2] + len(body).to_bytes(2, "big") + head[4:] + body


STUN = st.builds(encoded, METHODS, st.integers(0, 3), IDS, st.lists(ATTRIBUTE, max_size=6))
CHANNEL_DATA = st.builds(
    lambda first, rest: bytes([first]) + rest, st.integers(0x40, 0x4F), st.binary(max_size=40)
)
DATAGRAM = st.one_of(st.binary(max_size=80), STUN, CHANNEL_DATA)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def ready_client() -> Script:
    script = Script()
    script.allocate()
    script.client.send(b"x", PEER, script.now)
    for request in script.sent():
        script.answer(request)
    script.sent()
    script.events()
    return script


# -- a client -----------------------------------------------------------------------------------


@FUZZ
@given(st.lists(st.tuples(DATAGRAM, st.sampled_from([SERVER, PEER])), max_size=20))
def test_a_client_survives_anything_and_still_takes_data(datagrams) -> None:
    script = ready_client()
    for data, source in datagrams:
        script.feed(data, source)
        script.sent()
    script.events()
    script.feed(b"\x40\x00\x00\x05alive")
    assert script.events() == [RelayedData(b"alive", PEER, RELAYED)]


@FUZZ
@given(st.lists(st.tuples(METHODS, st.integers(2, 3), st.lists(ATTRIBUTE, max_size=5)), max_size=8))
def test_a_client_survives_any_answer_to_its_own_requests(answers) -> None:
    """With the right transaction id, from the right address: a server that has gone mad."""
    script = Script()
    ids = [m.transaction_id for m in script.sent()]
    for method, kind, attributes in answers:
        for method_ in (method, Method.ALLOCATE):
            script.feed(encoded(method_, kind, ids[-1], attributes))
        ids += [m.transaction_id for m in script.sent()]
    script.wait(100)
    for event in script.events():
        assert not isinstance(event, Allocated) or event.relayed
    assert script.client.state in (TurnState.ENDED, TurnState.ALLOCATED)


@FUZZ
@given(st.binary(max_size=200), st.integers(0, 400))
def test_every_change_to_a_servers_answer_is_survived(noise: bytes, at: int) -> None:
    world = World()
    changed = []

    def spoil(number, packet) -> bool:
        if packet.source == SERVER and number < 8:
            where = at % (len(packet.data) + 1)
            packet.data = packet.data[:where] + noise + packet.data[where + len(noise) :]
            changed.append(number)
        return False

    world.lose = spoil
    client = world.client()
    world.run(60)
    assert changed
    assert client.state is not TurnState.CLOSING


def test_answers_of_strangers_do_not_end_a_request() -> None:
    script = Script()
    request = script.request()
    error = encoded(Method.ALLOCATE, 3, request.transaction_id, [(0x0009, b"\0\0\4\x03")])
    for source in [("203.0.113.10", 3479), ("203.0.113.9", 3478)]:
        script.feed(error, source)
    assert script.events() == []
    assert script.client.stats.strangers == 2


def test_requests_to_a_client_are_not_answered() -> None:
    script = ready_client()
    for method in Method:
        script.feed(Message(method, MessageClass.REQUEST, bytes(12)).to_bytes())
    assert script.sent() == []


def test_a_flood_does_not_grow_a_client() -> None:
    script = ready_client()

    def flood() -> None:
        source = random.Random(1)
        for number in range(3000):
            peer = (f"192.0.{number % 7}.{number % 250}", 1 + number)
            script.client.send(b"x", peer, script.now)
            script.feed(encoded(number % 0xFFF, number % 4, source.randbytes(12), []))
            script.feed(b"\x40" + source.randbytes(5))
            script.sent()
            script.events()

    flood()
    assert len(script.client._relaying._peers.by_address) == 256
    before = _size(script.client)
    flood()
    assert _size(script.client) <= before * 1.1


# -- a server -----------------------------------------------------------------------------------


@FUZZ
@given(
    st.lists(
        st.tuples(DATAGRAM, st.sampled_from(["udp", "tcp"]), st.booleans()),
        max_size=20,
    )
)
def test_a_server_survives_anything_and_still_relays(datagrams) -> None:
    asker = Asker()
    relayed = asker.allocate()
    assert asker.permit(PEER) is None
    for data, transport, known in datagrams:
        source = CLIENT if known else ("198.51.100.99", 99)
        for answer in asker.raw(data, source=source, transport=transport):
            assert len(answer) < 600
        asker.server.receive_datagram(data, ("192.0.2.200", 1), relayed, asker.now)
        assert asker.server.datagrams_to_send(asker.now) == []
    assert asker.from_peer(b"alive", PEER, relayed)
    assert asker.server.allocations == 1


@FUZZ
@given(st.sampled_from(list(Method)), st.lists(ATTRIBUTE, max_size=6), st.integers(0, 20))
def test_a_server_survives_any_request_of_a_user(method, attributes, seed) -> None:
    """Rightly authenticated: whoever has an account can ask for anything."""
    asker = Asker()
    if seed % 2:
        asker.allocate()
    raw = _signed_by_a_user(asker, method, attributes)
    for answer in asker.raw(raw):
        assert answer[4:8] == b"\x21\x12\xa4\x42"
    assert asker.server.allocations <= 1


def _signed_by_a_user(asker: Asker, method: int, attributes: list[tuple[int, bytes]]) -> bytes:
    proof = [
        (0x0006, b"robot"),
        (0x0014, b"ice-punch"),
        (0x0015, asker.nonce().encode()),
    ]
    plain = encoded(method, 0, bytes(range(12)), [*attributes, *proof])
    size = int.from_bytes(plain[2:4], "big") + 24
    covered = plain[:2] + size.to_bytes(2, "big") + plain[4:]
    digest = hmac.new(asker.key, covered, hashlib.sha1).digest()
    return covered + b"\x00\x08\x00\x14" + digest


def test_strangers_cost_a_server_no_memory() -> None:
    asker = Asker()
    source = random.Random(1)

    def flood() -> None:
        for number in range(2000):
            where = (f"198.51.{number % 100}.{number % 200}", 1 + number % 60000)
            asker.ask(Method.ALLOCATE, [UDP], source=where)
            asker.ask(Method.REFRESH, [UDP, (NONCE, "x"), (USERNAME, "y")], key=b"z", source=where)
            asker.ask(Method.BINDING, source=where)
            asker.raw(source.randbytes(40), source=where)
            asker.raw(b"\x40\x00\x00\x01x", source=where)

    flood()
    before = _size(asker.server)
    flood()
    assert _size(asker.server) <= before * 1.01
    assert asker.server.allocations == 0


def test_a_challenge_is_no_great_amplifier() -> None:
    asker = Asker()
    smallest = Message(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)).to_bytes(fingerprint=False)
    (answer,) = asker.raw(smallest)
    assert len(answer) + 28 < 4 * (len(smallest) + 28)


def test_a_user_can_not_make_a_server_grow_for_ever() -> None:
    asker = Asker(nonce_lifetime=1e9)
    asker.allocate()

    def use() -> None:
        for number in range(1500):
            asker.now += 1
            asker.permit((f"192.0.{number % 8}.{number % 250}", 1 + number))
            asker.proven(Method.REFRESH, [(LIFETIME, 600 + number % 3000)])

    use()
    before = _size(asker.server)
    use()
    use()
    assert _size(asker.server) <= before * 1.01


def test_replies_nobody_fetches_are_bounded() -> None:
    asker = Asker()
    request = Message(Method.BINDING, MessageClass.REQUEST, bytes(12)).to_bytes()
    for _ in range(10_000):
        asker.server.receive_datagram(request, CLIENT, SERVER, 0.0)
        asker.server.receive_datagram(request, CLIENT, SERVER, 0.0, transport="tcp")
    assert len(asker.server.datagrams_to_send(0.0)) <= 4096
    assert len(asker.server.streams_to_send(0.0)) <= 4096
    assert asker.server.counters.dropped["overload"] > 10_000


@pytest.mark.parametrize("kind", [MessageClass.SUCCESS, MessageClass.ERROR])
def test_servers_can_not_be_made_to_talk_to_each_other(kind: MessageClass) -> None:
    asker = Asker()
    for method in Method:
        assert asker.ask(method, message_class=kind) is None
        assert asker.ask(method, message_class=MessageClass.INDICATION) is None


def test_a_request_from_port_zero_is_not_answered() -> None:
    assert Asker().ask(Method.ALLOCATE, [UDP], source=(CLIENT[0], 0)) is None


def test_a_replayed_request_from_elsewhere_is_worth_nothing() -> None:
    """A nonce is good for one address only: RFC 8489 section 9.2.4."""
    world = World()
    world.client()
    world.run(3 * ONE_WAY)
    proven = world.packets[2]
    asker = Asker(world.server)
    (answer,) = asker.raw(proven.data, source=("198.51.100.66", 6))
    assert code_of(parse_message(answer)) == 438
    assert world.server.allocations == 1


def test_two_clients_of_one_seed_send_the_same_bytes() -> None:
    def bytes_of() -> list[bytes]:
        world = World(seed=9)
        client = world.client()
        world.run(1)
        client.send(b"x", PEER, world.now)
        world.run(1000)
        return [packet.data for packet in world.packets]

    assert bytes_of() == bytes_of()


def _size(root: object) -> int:
    """Bytes of everything that hangs below ``root``."""
    gc.collect()
    seen: set[int] = set()
    queue = [root]
    total = 0
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, type) or (callable(thing) and thing is not root):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        if isinstance(thing, dict):
            queue += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset) or hasattr(thing, "popleft"):
            queue += list(thing)
        else:
            names = [*getattr(thing, "__dict__", {})]
            for kind in type(thing).__mro__:
                names += getattr(kind, "__slots__", ())
            queue += [getattr(thing, name) for name in names if hasattr(thing, name)]
    return total
