"""Messages come out whole and in order whatever the order of their pieces, and none costs more than
another: what is slow is slow for one message, not for all packets after it."""

from __future__ import annotations

import random
import time

import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")

from aiortc.rtcsctptransport import DataChunk

from ice_punch.webrtc.reassembly import Reassembly
from ice_punch.webrtc.received_tsns import ReceivedTsns
from ice_punch.webrtc.receiving import MAX_AHEAD, MAX_GAPS

FIRST, LAST, UNORDERED = 2, 1, 4


def piece(flags: int, data: bytes, *, stream: int = 1, sequence: int = 0) -> DataChunk:
    chunk = DataChunk(flags)
    chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = stream, sequence, 53, data
    return chunk


class Receiver:
    """Books and pieces together, as an association has them."""

    def __init__(self) -> None:
        self.tsns = ReceivedTsns(0)
        self.reassembly = Reassembly()
        self.messages: list[bytes] = []

    def take(self, position: int, chunk: DataChunk) -> None:
        assert not self.tsns.has(position)
        self.tsns.add(position)
        self.messages += [m.data for m in self.reassembly.add(position, chunk)]
        self.reassembly.passed(self.tsns.position)

    def skip(self, position: int, *streams: tuple[int, int]) -> None:
        self.tsns.skip(position)
        for stream, sequence in streams:
            self.messages += [m.data for m in self.reassembly.skip(stream, sequence)]
        self.reassembly.passed(self.tsns.position)


def cut(messages: list[bytes], size: int, flags: int = 0) -> list[DataChunk]:
    chunks = []
    for sequence, message in enumerate(messages):
        for at in range(0, len(message), size):
            edge = FIRST * (at == 0) | LAST * (at + size >= len(message))
            part = message[at : at + size]
            chunks.append(piece(flags | edge, part, sequence=sequence % 65536))
    return chunks


@pytest.mark.parametrize("seed", range(20))
def test_messages_in_any_order_of_pieces_come_out_in_their_order(seed: int) -> None:
    luck = random.Random(seed)
    messages = [luck.randbytes(luck.randint(1, 40)) for _ in range(60)]
    chunks = list(enumerate(cut(messages, 5), 1))
    for window in (1, 4, len(chunks)):
        receiver = Receiver()
        for begin in range(0, len(chunks), window):
            some = chunks[begin : begin + window]
            luck.shuffle(some)
            for position, chunk in some:
                receiver.take(position, chunk)
        assert receiver.messages == messages
        assert (receiver.reassembly.pieces, receiver.reassembly.size) == (0, 0)


def test_unordered_messages_wait_for_nothing_but_their_own_pieces() -> None:
    receiver = Receiver()
    chunks = cut([b"abcdef", b"ghijkl", b"mnopqr"], 2, UNORDERED)
    for position in (7, 8, 9, 4, 6, 5, 3, 2):
        receiver.take(position, chunks[position - 1])
    assert receiver.messages == [b"mnopqr", b"ghijkl"]
    receiver.take(1, chunks[0])
    assert receiver.messages[2:] == [b"abcdef"]


def test_sequence_numbers_wrap_around() -> None:
    receiver = Receiver()
    for number in range(66_000):
        receiver.take(
            number + 1, piece(FIRST | LAST, number.to_bytes(4, "big"), sequence=number % 65536)
        )
    assert len(receiver.messages) == 66_000
    receiver.take(66_002, piece(FIRST | LAST, b"later", sequence=66_001 % 65536))
    receiver.take(66_001, piece(FIRST | LAST, b"sooner", sequence=66_000 % 65536))
    assert receiver.messages[-2:] == [b"sooner", b"later"]


def test_what_the_peer_gives_up_is_forgotten_and_the_next_messages_are_handed_on() -> None:
    receiver = Receiver()
    chunks = cut([b"abcdef", b"ghijkl", b"mnopqr"], 2)
    for position in (1, 2, 4, 5, 6):  # the end of the first is lost
        receiver.take(position, chunks[position - 1])
    assert receiver.messages == []
    receiver.skip(3, (1, 0))
    assert receiver.messages == [b"ghijkl"]
    assert receiver.reassembly.pieces == 0
    receiver.take(7, chunks[6])
    receiver.skip(6)  # an older one
    receiver.take(8, chunks[7])
    receiver.take(9, chunks[8])
    assert receiver.messages == [b"ghijkl", b"mnopqr"]


def test_a_message_that_goes_on_where_the_peer_gave_up_to_is_kept() -> None:
    """RFC 3758 section 3.6."""
    receiver = Receiver()
    receiver.take(2, piece(FIRST | UNORDERED, b"ab"))
    receiver.take(3, piece(UNORDERED, b"cd"))
    receiver.skip(2)
    receiver.take(4, piece(LAST | UNORDERED, b"ef"))
    assert receiver.messages == [b"abcdef"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (piece(FIRST, b"a"), piece(LAST, b"b", stream=2)),
        (piece(FIRST, b"a"), piece(LAST, b"b", sequence=1)),
        (piece(FIRST, b"a"), piece(LAST | UNORDERED, b"b")),
        (piece(FIRST, b"a"), piece(FIRST, b"b")),
        (piece(LAST, b"a"), piece(LAST, b"b")),
    ],
    ids=["streams", "sequences", "kinds", "beginnings", "ends"],
)
def test_pieces_of_different_messages_are_never_put_together(
    one: DataChunk, other: DataChunk
) -> None:
    receiver = Receiver()
    receiver.take(1, one)
    receiver.take(2, other)
    receiver.take(3, piece(FIRST | LAST, b"whole", stream=3))
    assert receiver.messages == [b"whole"]
    assert receiver.reassembly.pieces == 0  # neither will ever be whole


def test_books_are_those_of_a_set() -> None:
    luck = random.Random(7)
    for _ in range(30):
        tsns, known = ReceivedTsns(2**32 - 50), {0}
        for _ in range(300):
            position = max(1, tsns.position + luck.randint(-3, 40))
            tsn = (2**32 - 50 + position) % 2**32
            assert tsns.place(tsn) == position
            assert tsns.has(position) == (position in known)
            if luck.random() < 0.03:
                tsns.skip(position)
                known |= set(range(position + 1))
            elif position not in known:
                tsns.add(position)
                known.add(position)
            last = next(n for n in range(10_000) if n + 1 not in known)
            assert tsns.position == last
            beyond = sorted(n - last for n in known if n > last)
            told = [n for first, end in tsns.gaps(1000) for n in range(first, end + 1)]
            assert told == beyond
            assert tsns.ahead == len(beyond)
            assert tsns.has_gaps == bool(beyond)


# -- an attacker chooses the order ------------------------------------------------------------

ALTERNATING = list(range(3, MAX_AHEAD, 2)) + list(range(2, MAX_AHEAD, 2))
ORDERS = {
    "backwards": list(range(MAX_AHEAD, 1, -1)),
    "every other": ALTERNATING,
    "every other backwards": ALTERNATING[::-1],
    "from both ends": [n for step in range(1023) for n in (2 + step, MAX_AHEAD - step)],
    "by chance": random.Random(1).sample(range(2, MAX_AHEAD + 1), MAX_AHEAD - 1),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("kind", ["one message", "ordered", "unordered", "no beginnings"])
def test_no_order_of_pieces_makes_a_packet_dear(order: list[int], kind: str) -> None:
    """0.2 ms of CPU time for a packet, with its acknowledgement; the median of blocks is a tenth
    of that."""
    flags = {"one message": 0, "ordered": FIRST, "unordered": 6, "no beginnings": UNORDERED}[kind]
    receiver = Receiver()
    costs = []
    for begin in range(0, len(order), 64):
        block = order[begin : begin + 64]
        began = time.process_time()
        for position in block:
            receiver.take(position, piece(flags, b"x"))
            receiver.tsns.gaps(MAX_GAPS)
        costs.append((time.process_time() - began) / len(block))
    assert sorted(costs)[len(costs) // 2] < 0.0002
    assert receiver.messages == []
    assert receiver.reassembly.pieces == len(order)


def test_giving_up_step_by_step_is_no_dearer() -> None:
    receiver = Receiver()
    for position in ALTERNATING:
        if position % 2:
            receiver.take(position, piece(FIRST, b"x"))
    began = time.process_time()
    for position in range(1, MAX_AHEAD):
        receiver.skip(position, *[(1, position)] * 4)
    assert (time.process_time() - began) / MAX_AHEAD < 0.0002
    assert receiver.reassembly.pieces <= 1
