"""Many records at a time: the same datagrams as one by one, by either codec."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from dtls_support import ALICE, BOB, Pair, connected_pair, events_of, header_sizes, received
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ice_punch.dtls import DtlsMachine, DtlsRole, HandshakeCompleted, PeerClosed, Segments, codec
from ice_punch.errors import ChannelClosed, DatagramRefused, DatagramTooLarge


@pytest.fixture(params=["bindings", "public"])
def _codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"bindings": codec.BindingsCodec, "public": codec.PublicCodec}[request.param]
    monkeypatch.setattr(codec, "CODEC", chosen)


pytestmark = pytest.mark.usefixtures("_codec")


def numbered(count: int, size: int) -> list[bytes]:
    return [i.to_bytes(4) + bytes(size - 4) for i in range(count)]


def pieces(segments: Segments) -> Iterator[bytes]:
    for start in range(0, len(segments.buffer), segments.size):
        yield bytes(segments.buffer[start : start + segments.size])


def records_of(machine: DtlsMachine, datagrams: list[bytes], now: float) -> list[bytes]:
    return [one for run in machine.encrypt_many(datagrams, now) for one in pieces(run)]


def lost(machine: DtlsMachine) -> int:
    return machine.counters.malformed + machine.counters.discarded


# -- out --------------------------------------------------------------------------------------


def test_datagrams_of_one_size_become_one_buffer() -> None:
    pair = connected_pair()
    datagrams = numbered(52, 1000)
    (run,) = pair.client.encrypt_many(datagrams, pair.now)
    assert run.size == 1037
    assert header_sizes(bytes(run.buffer)) == [(23, 1024)] * 52
    assert pair.server.decrypt_segments(bytearray(run.buffer), len(run.buffer), run.size, 0) == (
        datagrams
    )
    assert pair.client.counters.application_sent == 52
    assert pair.client.counters.datagrams_sent == pair.server.counters.datagrams_received
    assert pair.client.datagrams_to_send(pair.now) == []


def test_a_shorter_datagram_ends_a_run_and_a_longer_one_begins_another() -> None:
    pair = connected_pair()
    sizes = (500, 500, 100, 500, 600, 600, 600, 20, 20)
    runs = pair.client.encrypt_many([bytes(size) for size in sizes], pair.now)
    assert [[len(one) - 37 for one in pieces(run)] for run in runs] == [
        [500, 500, 100],
        [500],
        [600, 600, 600, 20],
        [20],
    ]


@given(st.lists(st.sampled_from((1, 2, 50, 51, 400, 1163)), max_size=60), st.booleans())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_mix_of_sizes_arrives_in_order(sizes: list[int], whole: bool) -> None:
    pair = PAIRS.setdefault(codec.CODEC, connected_pair())
    before = pair.server.counters.application_bytes
    datagrams = [bytes((n % 256,)) * size for n, size in enumerate(sizes)]
    runs = pair.client.encrypt_many(datagrams, pair.now)
    arrived: list[bytes] = []
    if whole:
        for run in runs:
            buffer = bytearray(run.buffer) + b"what was here before"
            arrived += pair.server.decrypt_segments(buffer, len(run.buffer), run.size, pair.now)
    else:
        arrived = pair.server.decrypt_many([one for run in runs for one in pieces(run)], pair.now)
    assert arrived == datagrams
    assert lost(pair.server) == 0
    assert pair.server.counters.application_bytes - before == sum(sizes)


PAIRS: dict[type[codec.Codec], Pair] = {}


def test_batches_and_single_datagrams_are_the_same_on_the_wire() -> None:
    pair = connected_pair()
    datagrams = numbered(100, 300)
    for record in records_of(pair.client, datagrams, pair.now):
        pair.server.receive_datagram(record, pair.now)
    assert received(events_of(pair.server)) == datagrams
    for datagram in datagrams:
        pair.server.send(datagram, pair.now)
    singles = pair.server.datagrams_to_send(pair.now)
    assert pair.client.decrypt_many(singles, pair.now) == datagrams


def test_every_buffer_of_the_application_is_taken() -> None:
    pair = connected_pair()
    data = bytearray(b"abcdefgh")
    batch = [bytes(data), data, memoryview(data)[2:], memoryview(data).cast("H")]
    records = [one for run in pair.client.encrypt_many(batch, pair.now) for one in pieces(run)]
    views = [memoryview(record) for record in records]
    arrived = pair.server.decrypt_many([records[0], bytearray(records[1]), *views[2:]], pair.now)
    assert arrived == [b"abcdefgh", b"abcdefgh", b"cdefgh", b"abcdefgh"]


def test_buffers_may_be_kept_and_used_again() -> None:
    """What was encrypted stays as it is, and nothing that was delivered is in a shared buffer."""
    pair = connected_pair()
    first = pair.client.encrypt_many(numbered(10, 100), pair.now)
    before = bytes(first[0].buffer)
    second = pair.client.encrypt_many([b"x" * 100] * 10, pair.now)
    assert bytes(first[0].buffer) == before
    buffer = bytearray(before)
    arrived = pair.server.decrypt_segments(buffer, len(buffer), first[0].size, pair.now)
    buffer[:] = bytes(len(buffer))
    assert pair.server.decrypt_many(list(pieces(second[0])), pair.now) == [b"x" * 100] * 10
    assert arrived == numbered(10, 100)


@pytest.mark.parametrize("size", [16384, 9000, 3])
def test_batches_larger_than_openssl_takes_at_once_lose_nothing(size: int) -> None:
    pair = connected_pair(mtu=17000)
    count = 3_000_000 // (size * 10) if size > 3 else 5000
    datagrams = [random.Random(n).randbytes(size) for n in range(count)]
    for run in pair.client.encrypt_many(datagrams, pair.now):
        buffer = bytearray(run.buffer)
        arrived = pair.server.decrypt_segments(buffer, len(buffer), run.size, pair.now)
        assert arrived == datagrams
    assert lost(pair.server) == 0


@pytest.mark.parametrize(
    ("bad", "error"), [(b"", DatagramRefused), (b"x" * 2000, DatagramTooLarge)]
)
def test_a_batch_with_a_datagram_that_can_not_be_sent_is_not_sent_at_all(
    bad: bytes, error: type[Exception]
) -> None:
    pair = connected_pair()
    with pytest.raises(error):
        pair.client.encrypt_many([b"good", bad, b"good"], pair.now)
    assert pair.client.counters.application_sent == 0
    assert pair.client.encrypt_many([], pair.now) == []
    (record,) = records_of(pair.client, [b"next"], pair.now)
    assert int.from_bytes(record[5:11]) == 1  # after Finished
    assert pair.server.decrypt_many([record], pair.now) == [b"next"]


def test_nothing_is_encrypted_before_the_handshake_or_after_the_end() -> None:
    machine = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    with pytest.raises(ChannelClosed, match="not complete"):
        machine.encrypt_many([b"early"], 0.0)
    pair = connected_pair()
    pair.client.close(pair.now)
    with pytest.raises(ChannelClosed, match="closed"):
        pair.client.encrypt_many([b"late"], pair.now)


@pytest.mark.parametrize("room", [None, 600, 4096])
def test_a_datagram_alone_is_what_it_is_in_a_batch(room: int | None) -> None:
    pair = connected_pair()
    into = None if room is None else bytearray(room)
    for number in range(5):
        data = bytes((number,)) * 500
        record = pair.client.encrypt_one(memoryview(data), into)
        arrived = bytes(record)
        assert data not in arrived
        assert header_sizes(arrived) == [(23, 524)]
        assert pair.server.decrypt_segments(bytearray(arrived), len(arrived), len(arrived), 0) == (
            [data]
        )
    assert pair.client.datagrams_to_send(pair.now) == []
    assert pair.client.counters.application_sent == pair.server.counters.application_received == 5
    assert pair.client.counters.datagrams_sent == pair.server.counters.datagrams_received


@pytest.mark.parametrize(
    ("bad", "error"), [(b"", DatagramRefused), (b"x" * 2000, DatagramTooLarge)]
)
def test_a_datagram_alone_that_can_not_be_sent_is_refused(
    bad: bytes, error: type[Exception]
) -> None:
    pair = connected_pair()
    before = pair.client.counters.datagrams_sent
    with pytest.raises(error):
        pair.client.encrypt_one(bad)
    assert pair.client.counters.application_sent == 0
    assert pair.client.counters.datagrams_sent == before
    pair.client.close(pair.now)
    with pytest.raises(ChannelClosed, match="closed"):
        pair.client.encrypt_one(b"late")


# -- in ---------------------------------------------------------------------------------------


def test_a_replayed_batch_is_counted_and_not_delivered() -> None:
    """RFC 6347 section 4.1.2.6."""
    pair = connected_pair()
    datagrams = numbered(52, 1000)
    (run,) = pair.client.encrypt_many(datagrams, pair.now)
    buffer = bytearray(run.buffer)
    assert pair.server.decrypt_segments(buffer, len(buffer), run.size, pair.now) == datagrams
    for _ in range(2):
        assert pair.server.decrypt_segments(buffer, len(buffer), run.size, pair.now) == []
        assert pair.server.decrypt_many(list(pieces(run)), pair.now) == []
    assert pair.server.counters.discarded == 4 * 52
    assert pair.server.counters.application_received == 52
    assert pair.server.counters.application_bytes == sum(map(len, datagrams))


def test_a_datagram_alone_that_is_replayed_cut_or_damaged_is_counted_and_not_delivered() -> None:
    pair = connected_pair()
    record = bytes(pair.client.encrypt_one(b"once" * 100))
    spoiled = (record[:-1] + bytes((record[-1] ^ 1,)), record[:-1], record[:40], record[:12])
    for data in spoiled:
        assert pair.server.decrypt_segments(bytearray(data), len(data), len(data), pair.now) == []
    assert lost(pair.server) == len(spoiled)
    whole = bytearray(record)
    assert pair.server.decrypt_segments(whole, len(whole), len(whole), pair.now) == [b"once" * 100]
    for _ in range(3):
        assert pair.server.decrypt_segments(whole, len(whole), len(whole), pair.now) == []
    assert lost(pair.server) == len(spoiled) + 3
    assert pair.server.counters.application_received == 1


def test_a_lone_record_is_read_where_it_lies_and_what_is_none_is_left_alone() -> None:
    pair = connected_pair()
    buffer = bytearray(4096)
    for number in range(3):
        data = b"%d" % number * 300
        record = bytes(pair.client.encrypt_one(data))
        for other in (record[:40], b"", b"\x17", b"\x16" + record[1:], record + b"more"):
            buffer[: len(other)] = other
            before = pair.server.counters.datagrams_received
            assert pair.server.decrypt_alone(buffer, len(other), pair.now) is None
            assert pair.server.counters.datagrams_received == before, "nothing was done"
        buffer[: len(record)] = record
        assert pair.server.decrypt_alone(buffer, len(record), pair.now) == data
        assert pair.server.decrypt_alone(buffer, len(record), pair.now) == b"", "a replay"
        damaged = record[:-1] + bytes((record[-1] ^ 1,))
        buffer[: len(record)] = damaged
        assert pair.server.decrypt_alone(buffer, len(record), pair.now) == b""
    assert pair.server.counters.application_received == 3
    assert lost(pair.server) == 6
    record = bytes(pair.client.encrypt_one(b"late"))
    pair.server.close(pair.now)
    assert pair.server.decrypt_alone(bytearray(record), len(record), pair.now) is None


def test_a_batch_out_of_order_within_the_window_arrives_whole() -> None:
    """RFC 6347 section 4.1.2.6: a window of at least 32, of 64 here."""
    pair = connected_pair()
    records = records_of(pair.client, numbered(60, 100), pair.now)
    arrived = pair.server.decrypt_many(records[::-1], pair.now)
    assert arrived == numbered(60, 100)[::-1]


LIES = {
    "damaged": lambda record: record[:-1] + bytes((record[-1] ^ 1,)),
    "of another epoch": lambda record: record[:3] + b"\x00\x02" + record[5:],
    "of epoch 0": lambda record: record[:3] + b"\x00\x00" + record[5:],
    "of another version": lambda record: record[:1] + b"\xfe\xff" + record[3:],
    "of DTLS 1.3": lambda record: b"\x2e\x00\x01" + (len(record) - 5).to_bytes(2) + record[5:],
    "longer than it is": lambda record: record[:11] + b"\x08\x00" + record[13:],
    "shorter than it is": lambda record: record[:11] + b"\x00\x20" + record[13:],
    "without content": lambda record: record[:11] + b"\x00\x00" + record[13:],
    "of unknown type": lambda record: b"\x63" + record[1:],
    "an alert": lambda record: b"\x15" + record[1:],
    "a handshake message": lambda record: b"\x16" + record[1:],
    "noise": lambda record: random.Random(7).randbytes(len(record)),
    "zeros": lambda record: bytes(len(record)),
}


@pytest.mark.parametrize("whole", [True, False], ids=["segments", "datagrams"])
@pytest.mark.parametrize("lie", LIES)
def test_a_bad_record_costs_nothing_but_itself(lie: str, whole: bool) -> None:
    """RFC 6347 section 4.1.2.7. Of the same size, so that it passes for one of a batch.

    A handshake message before any data may be the peer's repeated flight, and has it answered.
    """
    pair = connected_pair()
    datagrams = numbered(40, 700)
    records = records_of(pair.client, datagrams, pair.now)
    bad = {7, 8, 21, 22, 39} if "handshake" in lie else {0, 7, 8, 21, 22, 39}
    for index in bad:
        records[index] = LIES[lie](records[index])
        assert len(records[index]) == 737
    if whole:
        joined = b"".join(records)
        arrived = pair.server.decrypt_segments(joined, len(joined), 737, pair.now)
    else:
        arrived = pair.server.decrypt_many(records, pair.now)
    assert arrived == [d for n, d in enumerate(datagrams) if n not in bad]
    assert lost(pair.server) >= len(bad)
    assert pair.server.counters.datagrams_received >= 40
    assert events_of(pair.server) == []
    assert pair.server.datagrams_to_send(pair.now) == []


@pytest.mark.parametrize("whole", [True, False], ids=["segments", "datagrams"])
def test_truncated_records_are_counted_and_not_delivered(whole: bool) -> None:
    pair = connected_pair()
    records = records_of(pair.client, [b"x" * 63] * 100, pair.now)
    for size in range(100):
        batch = [records[size], records[size][:size]]
        if whole:
            joined = b"".join(batch)
            arrived = pair.server.decrypt_segments(joined, len(joined), 100, pair.now)
        else:
            arrived = pair.server.decrypt_many(batch, pair.now)
        assert arrived == [b"x" * 63]
    # A last segment of no bytes is none.
    assert lost(pair.server) == 99 if whole else 100


@given(st.lists(st.binary(max_size=90), max_size=20), st.integers(0, 90), st.randoms())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_garbage_among_genuine_records_delivers_the_genuine(
    garbage: list[bytes], size: int, rng: random.Random
) -> None:
    pair = connected_pair() if codec.CODEC not in PAIRS else PAIRS[codec.CODEC]
    genuine = numbered(10, 20)
    records = records_of(pair.client, genuine, pair.now)
    batch: list[tuple[int, bytes]] = [*enumerate(records), *((-1, g) for g in garbage)]
    rng.shuffle(batch)
    before = lost(pair.server)
    arrived = pair.server.decrypt_many([data for _, data in batch], pair.now)
    assert arrived == [genuine[index] for index, _ in batch if index >= 0]
    assert lost(pair.server) - before >= len(garbage)
    noise = b"".join(garbage)
    assert pair.server.decrypt_segments(noise, len(noise), size, pair.now) == []
    assert events_of(pair.server) == []


# -- beside the handshake and the end ---------------------------------------------------------


def test_a_batch_may_hold_the_end_of_the_handshake_and_data() -> None:
    pair = connected_pair()
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    for machine in (client, server):
        machine.start(0.0)
    for _ in range(2):
        assert server.decrypt_many(client.datagrams_to_send(0.0), 0.0) == []
        batch = server.datagrams_to_send(0.0)
        if server.counters.application_sent == 0 and isinstance(
            server.next_event(), HandshakeCompleted
        ):
            batch += [bytes(server.encrypt_many([b"data"], 0.0)[0].buffer)]
        arrived = client.decrypt_many(batch, 0.0)
    assert arrived == [b"data"]
    (event,) = events_of(client)
    assert isinstance(event, HandshakeCompleted)
    assert pair.client.counters.discarded == 0


def test_a_batch_before_the_handshake_delivers_nothing() -> None:
    pair = connected_pair()
    records = records_of(pair.client, numbered(10, 100), pair.now)
    stranger = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    assert stranger.decrypt_many(records, 0.0) == []
    joined = b"".join(records)
    assert stranger.decrypt_segments(joined, len(joined), 137, 0.0) == []
    assert stranger.decrypt_segments(b"", 0, 0, 0.0) == []
    assert stranger.counters.datagrams_received == 20
    assert lost(stranger) == 20


@pytest.mark.parametrize("whole", [True, False], ids=["segments", "datagrams"])
def test_nothing_in_a_batch_is_delivered_after_close_notify(whole: bool) -> None:
    """RFC 5246 section 7.2.1."""
    pair = connected_pair()
    before = records_of(pair.client, [b"xx"] * 20, pair.now)
    after = records_of(pair.client, [b"yy"] * 20, pair.now)
    pair.client.close(pair.now)
    batch = [*before, *pair.client.datagrams_to_send(pair.now), *after]
    assert {len(record) for record in batch} == {39}
    if whole:
        joined = b"".join(batch)
        arrived = pair.server.decrypt_segments(joined, len(joined), 39, pair.now)
    else:
        arrived = pair.server.decrypt_many(batch, pair.now)
    assert arrived == [b"xx"] * 20
    assert events_of(pair.server) == [PeerClosed("close_notify")]
    assert pair.server.counters.late == 20
