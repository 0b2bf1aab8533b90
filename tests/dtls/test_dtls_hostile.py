"""Hostile datagrams: counted, dropped, never raised, never delivered (RFC 6347 section 4.1.2.7)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from dtls_support import ALICE, BOB, Pair, connected_pair, events_of, make_pair, received
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.dtls import (
    DtlsMachine,
    DtlsRole,
    HandshakeCompleted,
    HandshakeFailedEvent,
)


def record(kind: int, body: bytes, epoch: int, sequence: int = 1 << 20) -> bytes:
    return (
        bytes((kind,))
        + b"\xfe\xfd"
        + epoch.to_bytes(2)
        + sequence.to_bytes(6)
        + len(body).to_bytes(2)
        + body
    )


def dropped(machine: DtlsMachine) -> int:
    return machine.counters.malformed + machine.counters.discarded


def assert_alive(pair: Pair) -> None:
    """Nothing happened so far, and data flows both ways."""
    for machine in (pair.client, pair.server):
        assert machine.datagrams_to_send(pair.now) == []
        assert events_of(machine) == []
        assert machine.get_timer() is None
    pair.client.send(b"to server", pair.now)
    pair.server.send(b"to client", pair.now)
    pair.run(0.0)
    assert received(events_of(pair.server)) == [b"to server"]
    assert received(events_of(pair.client)) == [b"to client"]


def live_pair() -> Pair:
    """Beyond the time in which a repeated Finished is answered: data has come both ways."""
    pair = connected_pair()
    assert_alive(pair)
    return pair


LIVE = live_pair()
LIVE.client.send(b"a datagram of some length to be damaged", LIVE.now)
(GENUINE,) = LIVE.client.datagrams_to_send(LIVE.now)


@given(st.binary(max_size=1500))
@settings(max_examples=2000, deadline=None)
def test_random_bytes_do_nothing_to_a_live_session(data: bytes) -> None:
    for machine in (LIVE.client, LIVE.server):
        before = dropped(machine)
        machine.receive_datagram(data, LIVE.now)
        assert dropped(machine) > before
    assert_alive(LIVE)


@given(
    st.integers(20, 26),
    st.integers(0, 3),
    st.integers(0, (1 << 48) - 1),
    st.binary(max_size=200),
)
@settings(max_examples=2000, deadline=None)
def test_well_formed_forged_records_do_nothing_to_a_live_session(
    kind: int, epoch: int, sequence: int, body: bytes
) -> None:
    for machine in (LIVE.client, LIVE.server):
        before = dropped(machine)
        machine.receive_datagram(record(kind, body, epoch, sequence), LIVE.now)
        assert dropped(machine) > before
    assert_alive(LIVE)


@given(st.data())
@settings(max_examples=2000, deadline=None)
def test_damaged_datagrams_are_dropped_and_counted(data: st.DataObject) -> None:
    damaged = bytearray(GENUINE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    before = dropped(LIVE.server)
    if bytes(damaged) != GENUINE:
        LIVE.server.receive_datagram(bytes(damaged), LIVE.now)
        assert dropped(LIVE.server) > before
    assert_alive(LIVE)


def test_every_truncation_is_dropped_and_the_whole_still_arrives() -> None:
    pair = connected_pair()
    pair.client.send(b"whole", pair.now)
    (datagram,) = pair.client.datagrams_to_send(pair.now)
    for size in range(len(datagram)):
        pair.server.receive_datagram(datagram[:size], pair.now)
    assert pair.server.counters.malformed == len(datagram)
    pair.server.receive_datagram(datagram, pair.now)
    assert received(events_of(pair.server)) == [b"whole"]
    assert_alive(pair)


def test_replayed_records_are_delivered_once() -> None:
    """RFC 6347 section 4.1.2.6."""
    pair = connected_pair()
    for i in range(100):
        pair.client.send(bytes((i,)), pair.now)
    datagrams = pair.client.datagrams_to_send(pair.now)
    for _ in range(3):
        for datagram in datagrams:
            pair.server.receive_datagram(datagram, pair.now)
    assert received(events_of(pair.server)) == [bytes((i,)) for i in range(100)]
    assert pair.server.counters.discarded == 200
    assert_alive(pair)


def test_the_handshake_itself_can_not_be_replayed_into_the_session() -> None:
    """RFC 8842 section 5.1: another association needs another transport address."""
    pair = make_pair().start().run()
    for machine in (pair.client, pair.server):
        assert isinstance(events_of(machine)[0], HandshakeCompleted)
    for sender, datagram in list(pair.sent):
        receiver = pair.server if sender == "client" else pair.client
        receiver.receive_datagram(datagram, pair.now)
    pair.run(1.0)
    assert_alive(pair)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_unauthenticated_alerts_do_not_end_a_session(epoch: int, level: int) -> None:
    """RFC 6347 section 4.1.2.7."""
    pair = connected_pair()
    for description in range(256):
        for machine in (pair.client, pair.server):
            machine.receive_datagram(record(21, bytes((level, description)), epoch), pair.now)
    assert pair.client.counters.discarded == pair.server.counters.discarded == 256
    assert_alive(pair)


@pytest.mark.parametrize("size", range(30))
def test_a_record_without_room_for_its_tag_does_not_end_a_session(size: int) -> None:
    """RFC 6347 section 4.1.2.7. Not with any OpenSSL: up to 4.0.0 it took one such datagram."""
    pair = live_pair()
    for kind in range(20, 27):
        for machine in (pair.client, pair.server):
            machine.receive_datagram(record(kind, bytes(size), 1), pair.now)
    assert pair.client.counters.discarded == pair.server.counters.discarded == 7
    assert_alive(pair)


def test_a_new_client_hello_does_not_disturb_a_session() -> None:
    """RFC 6347 section 4.2.8: it MUST NOT destroy the existing association."""
    pair = connected_pair()
    stranger = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    stranger.start(0.0)
    for datagram in stranger.datagrams_to_send(0.0):
        pair.server.receive_datagram(datagram, pair.now)
        pair.client.receive_datagram(datagram, pair.now)
    assert_alive(pair)


def test_a_datagram_with_genuine_and_forged_records_yields_the_genuine() -> None:
    pair = connected_pair()
    pair.client.send(b"one", pair.now)
    pair.client.send(b"two", pair.now)
    one, two = pair.client.datagrams_to_send(pair.now)
    forged = record(23, bytes(40), 1)
    pair.server.receive_datagram(forged + one + forged + two + b"junk", pair.now)
    assert received(events_of(pair.server)) == [b"one", b"two"]
    assert pair.server.counters.discarded == 2
    assert pair.server.counters.malformed == 1


JUNK: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "random bytes": lambda rng, _: rng.randbytes(rng.randrange(200)),
    "random handshake records": lambda rng, _: record(22, rng.randbytes(rng.randrange(60)), 0),
    "records of any kind": lambda rng, _: record(
        rng.randrange(18, 30), rng.randbytes(rng.randrange(40)), rng.choice((0, 1, 1, 2))
    ),
    "warnings": lambda rng, _: record(21, bytes((1, rng.randrange(1, 256))), 0),
    "truncated datagrams": lambda rng, genuine: genuine[: rng.randrange(len(genuine))],
    "change cipher specs": lambda _, __: record(20, b"\x01", 1),
}


@pytest.mark.parametrize("junk", JUNK)
def test_junk_between_the_flights_does_not_prevent_a_handshake(junk: str) -> None:
    """RFC 6347 section 4.1.2.7: invalid records preserve the association."""
    rng = random.Random(junk)
    for _ in range(30):
        pair = make_pair(rtt=0.1)

        def wire(datagram: bytes) -> list[bytes]:
            noise = [JUNK[junk](rng, datagram) for _ in range(10)]
            return [*noise[:5], datagram, *noise[5:]]

        pair.to_server = pair.to_client = wire
        pair.start().run(5.0)
        for machine in (pair.client, pair.server):
            assert [type(e) for e in events_of(machine)] == [HandshakeCompleted], rng
            assert dropped(machine) >= 5


def test_damaged_client_hellos_do_not_stop_a_server() -> None:
    """RFC 6347 section 4.1.2.7: nothing exists yet that they could end."""
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    client.start(0.0)
    (hello,) = client.datagrams_to_send(0.0)
    bodies = [b"", bytes(2), bytes(40), b"\xfe\xfd" + bytes(60), hello[25:80]]
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    server.start(0.0)
    for body in bodies:
        size = len(body).to_bytes(3)
        message = b"\x01" + size + b"\x00\x00" + bytes(3) + size + body
        server.receive_datagram(record(22, message, 0, 0), 0.0)
        assert server.next_event() is None
        assert server.datagrams_to_send(0.0) == []
    assert server.counters.discarded == len(bodies)
    server.receive_datagram(hello, 0.0)
    for datagram in server.datagrams_to_send(0.0):
        client.receive_datagram(datagram, 0.0)
    for datagram in client.datagrams_to_send(0.0):
        server.receive_datagram(datagram, 0.0)
    assert isinstance(server.next_event(), HandshakeCompleted)


@pytest.mark.parametrize("seed", range(150))
def test_a_damaged_handshake_completes_or_fails_cleanly(seed: int) -> None:
    """Damage that passes for a message is TLS's to detect; nobody is let in by it."""
    rng = random.Random(seed)
    pair = make_pair(rtt=0.1)

    def damage(datagram: bytes) -> list[bytes]:
        if rng.random() < 0.4:
            changed = bytearray(datagram)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return [bytes(changed)]
        return [datagram]

    pair.to_server = pair.to_client = damage
    pair.start().run(40.0)
    for machine in (pair.client, pair.server):
        first, *rest = events_of(machine)
        assert isinstance(first, HandshakeCompleted | HandshakeFailedEvent)
        assert received(rest) == []


def test_memory_stays_bounded_under_a_flood_of_forged_early_records() -> None:
    server = DtlsMachine(BOB, DtlsRole.SERVER, None)
    server.start(0.0)
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    client.start(0.0)
    server.receive_datagram(client.datagrams_to_send(0.0)[0], 0.0)
    for i in range(3000):
        server.receive_datagram(record(22, bytes(1000), 1, i), 0.0)
    assert server.counters.held_dropped > 2900
    assert events_of(server) == []
