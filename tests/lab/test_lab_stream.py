"""The virtual internet's TCP: handshakes, loss, ends, and everything that goes wrong between."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.datagram import Address
from ice_punch.lab.virtual.stream import (
    Closed,
    Connected,
    DataReceived,
    Segment,
    StreamEndpoint,
    StreamEvent,
    StreamStack,
    StreamState,
)
from ice_punch.lab.virtual.stream_control import RetransmissionTimeout
from ice_punch.lab.virtual.stream_endpoint import SEND_BUFFER

CLIENT: Address = ("10.0.0.2", 40000)
SERVER: Address = ("192.0.2.1", 443)
DELAY = 0.05

Fate = tuple[float, ...]
"""How much later than usual each copy arrives; empty: lost."""
Fates = Callable[[int, Segment], Fate]


class Wire:
    """Two hosts, 50 ms apart. ``fates`` decides about every segment, by its number."""

    def __init__(self, *, seed: int = 1, fates: Fates = lambda number, segment: (0.0,)) -> None:
        self.now = 0.0
        self.fates = fates
        self.seed = seed
        self.stacks = {
            CLIENT[0]: StreamStack(random.Random(f"{seed}/client")),
            SERVER[0]: StreamStack(random.Random(f"{seed}/server")),
        }
        self.sent: list[tuple[float, str, Segment]] = []
        self.events: dict[str, list[StreamEvent]] = {CLIENT[0]: [], SERVER[0]: []}
        self.on_event: Callable[[str, StreamEvent], None] = lambda ip, event: None
        self._queue: list[tuple[float, int, Segment, Address, Address]] = []
        self._order = 0

    @property
    def client(self) -> StreamStack:
        return self.stacks[CLIENT[0]]

    @property
    def server(self) -> StreamStack:
        return self.stacks[SERVER[0]]

    def restart(self, ip: str) -> None:
        """The host loses everything that it knows."""
        self.stacks[ip] = StreamStack(random.Random(f"{self.seed}/{ip} again"))

    def inject(self, segment: Segment, source: Address, destination: Address) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now, self._order, segment, source, destination))

    def flush(self) -> None:
        for ip, stack in self.stacks.items():
            while (event := stack.next_event()) is not None:
                self.events[ip].append(event)
                self.on_event(ip, event)
            for segment, local, destination in stack.segments_to_send(self.now):
                number = len(self.sent)
                self.sent.append((self.now, ip, segment))
                for late in self.fates(number, segment):
                    self._order += 1
                    arrival = self.now + DELAY + late
                    entry = (arrival, self._order, segment, local, destination)
                    heapq.heappush(self._queue, entry)

    def run(self, until: float) -> None:
        self.flush()
        for _ in range(200_000):
            times = [t for stack in self.stacks.values() if (t := stack.get_timer()) is not None]
            times += [self._queue[0][0]] if self._queue else []
            if not times or min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            while self._queue and self._queue[0][0] <= self.now:
                _, _, segment, source, destination = heapq.heappop(self._queue)
                self.stacks[destination[0]].receive_segment(segment, source, destination, self.now)
                self.flush()
            for stack in self.stacks.values():
                due = stack.get_timer()
                if due is not None and due <= self.now:
                    stack.handle_timer(self.now)
            self.flush()
        raise AssertionError("this never comes to rest")

    def data(self, ip: str) -> bytes:
        return b"".join(e.data for e in self.events[ip] if isinstance(e, DataReceived))

    def end(self, ip: str) -> str | None:
        """Why the host's connection ended; None while it has not."""
        ends = [e.reason for e in self.events[ip] if isinstance(e, Closed)]
        assert len(ends) <= 1
        return ends[0] if ends else None

    def accepted(self) -> StreamEndpoint:
        return next(e.connection for e in self.events[SERVER[0]] if isinstance(e, Connected))

    def words(self) -> list[str]:
        """What was sent by whom, in order."""
        names = {CLIENT[0]: "client", SERVER[0]: "server"}
        return [f"{names[ip]}: {segment}" for _, ip, segment in self.sent]


def connected(fates: Fates = lambda number, segment: (0.0,)) -> tuple[Wire, StreamEndpoint]:
    wire = Wire(fates=fates)
    wire.server.listen(SERVER)
    connection = wire.client.connect(CLIENT, SERVER, wire.now)
    wire.run(wire.now + 0.5)
    assert connection.state is StreamState.ESTABLISHED
    return wire, connection


# -- the usual life -------------------------------------------------------------------------------


def test_handshake_and_one_message_are_five_segments_and_two_round_trips() -> None:
    wire, connection = connected()
    assert connection.send(b"x" * 100)
    wire.run(2.0)
    assert wire.words() == [
        "client: SYN",
        "server: SYN ACK",
        "client: ACK",
        "client: ACK 100 bytes",
        "server: ACK",
    ]
    assert wire.data(SERVER[0]) == b"x" * 100
    assert [segment.size for _, _, segment in wire.sent] == [40, 40, 40, 140, 40]


def test_a_message_that_waits_for_the_connection_goes_with_the_last_ack_of_the_handshake() -> None:
    wire = Wire()
    wire.server.listen(SERVER)
    wire.client.connect(CLIENT, SERVER, 0.0).send(b"hello")
    wire.run(1.0)
    assert wire.words() == [
        "client: SYN",
        "server: SYN ACK",
        "client: ACK 5 bytes",
        "server: ACK",
    ]
    assert wire.data(SERVER[0]) == b"hello"


def test_an_answer_carries_the_acknowledgement_of_what_it_answers() -> None:
    wire, connection = connected()
    before = len(wire.sent)

    def echo(ip: str, event: StreamEvent) -> None:
        if ip == SERVER[0] and isinstance(event, DataReceived):
            event.connection.send(event.data)

    wire.on_event = echo
    connection.send(b"ping")
    wire.run(2.0)
    assert wire.words()[before:] == [
        "client: ACK 4 bytes",
        "server: ACK 4 bytes",
        "client: ACK",
    ]
    assert wire.data(CLIENT[0]) == b"ping"


def test_both_sides_part_with_three_segments_and_are_told_once() -> None:
    wire, connection = connected()
    before = len(wire.sent)
    connection.close()
    wire.run(1.0)
    assert wire.words()[before:] == [
        "client: ACK FIN",
        "server: ACK FIN",
        "client: ACK",
    ]
    assert (wire.end(CLIENT[0]), wire.end(SERVER[0])) == ("closed", "closed")
    assert wire.server.connections == ()
    assert connection.state is StreamState.TIME_WAIT
    assert not connection.send(b"late")
    wire.run(100.0)
    assert wire.client.connections == ()
    assert wire.client.get_timer() is None


def test_what_is_queued_leaves_before_the_fin_on_both_sides() -> None:
    wire, connection = connected()
    wire.accepted().send(b"s" * 50_000)
    connection.send(b"c" * 50_000)
    wire.accepted().close()
    wire.run(20.0)
    assert wire.data(CLIENT[0]) == b"s" * 50_000
    assert (wire.end(CLIENT[0]), wire.end(SERVER[0])) == ("closed", "closed")


def test_both_may_close_at_the_same_moment() -> None:
    wire, connection = connected()
    connection.close()
    wire.accepted().close()
    wire.run(100.0)
    assert (wire.end(CLIENT[0]), wire.end(SERVER[0])) == ("closed", "closed")
    assert wire.client.connections == wire.server.connections == ()


def test_a_connection_can_be_opened_by_both_sides_at_once_rfc9293_3_5() -> None:
    wire = Wire()
    a = wire.client.connect(CLIENT, SERVER, 0.0)
    b = wire.server.connect(SERVER, CLIENT, 0.0)
    a.send(b"from a")
    b.send(b"from b")
    wire.run(5.0)
    assert a.state is b.state is StreamState.ESTABLISHED
    assert (wire.data(CLIENT[0]), wire.data(SERVER[0])) == (b"from b", b"from a")


def test_the_send_buffer_takes_256_kib_and_not_a_byte_more() -> None:
    wire, connection = connected()
    assert connection.send(bytes(SEND_BUFFER))
    assert not connection.send(b"x")
    assert connection.unacknowledged == SEND_BUFFER
    wire.run(30.0)
    assert connection.unacknowledged == 0
    assert len(wire.data(SERVER[0])) == SEND_BUFFER
    assert connection.send(b"x")


def test_no_more_is_out_than_the_window_that_never_changes() -> None:
    wire, connection = connected()
    connection.send(bytes(SEND_BUFFER))
    out = highest = 0
    first = wire.sent[2][2].seq
    for _ in range(100):
        wire.run(wire.now + 0.01)
        sent = max(s.seq - first + len(s.payload) for _, ip, s in wire.sent if ip == CLIENT[0])
        acked = max(s.ack_number - first for _, ip, s in wire.sent if ip == SERVER[0])
        out = sent - acked
        highest = max(highest, out)
    assert 30_000 < highest <= Segment.window + 2 * 1200 * 10


def test_sequence_numbers_go_on_past_32_bits() -> None:
    class AlmostOver(random.Random):
        def getrandbits(self, k: int, /) -> int:
            return (1 << k) - 1000

    wire = Wire()
    wire.stacks = {ip: StreamStack(AlmostOver()) for ip in wire.stacks}
    wire.server.listen(SERVER)
    message = random.Random(1).randbytes(20_000)
    wire.client.connect(CLIENT, SERVER, 0.0).send(message)
    wire.run(10.0)
    assert wire.data(SERVER[0]) == message
    assert all(0 <= segment.seq < 1 << 32 for _, _, segment in wire.sent)
    assert min(s.seq for _, ip, s in wire.sent if ip == CLIENT[0]) < 20_000


# -- loss, reordering, duplication ----------------------------------------------------------------


def test_after_a_lost_syn_the_timeout_of_data_is_three_seconds_rfc6298_5_7() -> None:
    wire = Wire(fates=lambda number, segment: () if number in (0, 3) else (0.0,))
    wire.server.listen(SERVER)
    wire.client.connect(CLIENT, SERVER, 0.0).send(b"hello")
    wire.run(10.0)
    times = [round(at, 3) for at, ip, s in wire.sent if ip == CLIENT[0] and s.length]
    assert times == [0.0, 1.0, 1.1, 4.1]
    assert wire.data(SERVER[0]) == b"hello"


def test_a_lost_syn_ack_is_sent_again_as_soon_as_the_syn_comes_again() -> None:
    wire = Wire(fates=lambda number, segment: () if number == 1 else (0.0,))
    wire.server.listen(SERVER)
    wire.client.connect(CLIENT, SERVER, 0.0)
    wire.run(1.2)
    assert isinstance(wire.events[CLIENT[0]][0], Connected)


def test_one_loss_among_many_is_mended_within_a_round_trip_and_without_a_timeout() -> None:
    lost: list[Segment] = []

    def lose_the_third(number: int, segment: Segment) -> Fate:
        if number == 5:
            lost.append(segment)
            return ()
        return (0.0,)

    wire, connection = connected(fates=lose_the_third)
    begun = wire.now
    connection.send(bytes(12_000))
    wire.run(begun + 10)
    again = [at for at, _, s in wire.sent if s.payload and s.seq == lost[0].seq]
    assert [round(at - begun, 3) for at in again] == [0.0, 0.1]
    assert connection.retransmissions == 1
    assert len(wire.data(SERVER[0])) == 12_000


def test_reordering_by_one_place_causes_no_retransmission() -> None:
    places = {4: (0.001,), 5: (0.0,)}
    wire, connection = connected(fates=lambda number, segment: places.get(number, (0.002,)))
    message = random.Random(1).randbytes(6_000)
    connection.send(message)
    wire.run(5.0)
    assert wire.data(SERVER[0]) == message
    assert connection.retransmissions == 0


def test_duplicates_arrive_once() -> None:
    wire, connection = connected(fates=lambda number, segment: (0.0, 0.02))
    message = random.Random(1).randbytes(20_000)
    connection.send(message)
    wire.run(5.0)
    connection.close()
    wire.run(90.0)
    assert wire.data(SERVER[0]) == message
    assert (wire.end(CLIENT[0]), wire.end(SERVER[0])) == ("closed", "closed")


def test_timeouts_double_and_an_answer_brings_them_back() -> None:
    wire, connection = connected()
    wire.fates = lambda number, segment: ()
    connection.send(b"x")
    wire.run(7.0)
    times = [at - 0.5 for at, ip, s in wire.sent if ip == CLIENT[0] and s.payload]
    gaps = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert gaps == [0.3, 0.6, 1.2, 2.4]  # SRTT 0.1, RTTVAR 0.05, after one sample
    wire.fates = lambda number, segment: (0.0,)
    wire.run(20.0)
    assert wire.data(SERVER[0]) == b"x"


def test_what_was_sent_twice_measures_no_round_trip_rfc6298_3() -> None:
    timeout = RetransmissionTimeout()
    timeout.sent(1000, 0.0)
    timeout.sent_again(0)
    timeout.acknowledged(1000, 5.0)
    assert timeout.seconds == 1.0
    timeout.sent(2000, 5.0)
    timeout.sent(3000, 5.1)
    timeout.acknowledged(3000, 5.2)
    assert timeout.seconds == pytest.approx(0.2 + 4 * 0.1)


def draw_fates(choices: list[Fate], seed: int) -> Fates:
    source = random.Random(seed)
    return lambda number, segment: source.choice(choices)


@pytest.mark.parametrize("seed", range(5))
def test_a_big_transfer_through_20_percent_loss_arrives_intact(seed: int) -> None:
    wire = Wire(seed=seed, fates=draw_fates([(0.0,)] * 4 + [()], seed))
    wire.server.listen(SERVER)
    message = random.Random(seed).randbytes(SEND_BUFFER)
    connection = wire.client.connect(CLIENT, SERVER, 0.0)
    assert connection.send(message)
    wire.run(600.0)
    assert wire.data(SERVER[0]) == message
    assert connection.retransmissions > 40


LATE = st.sampled_from([0.0, 0.001, 0.03, 0.2, 1.0])
FATE = st.one_of(
    st.just((0.0,)),
    st.just((0.0,)),
    st.just(()),
    st.tuples(LATE),
    st.tuples(LATE, LATE),
)


@settings(max_examples=300, deadline=None)
@given(
    schedule=st.lists(FATE, max_size=60),
    sizes=st.lists(st.integers(0, 5000), max_size=8),
    replies=st.lists(st.integers(0, 5000), max_size=8),
    closes=st.booleans(),
)
def test_whatever_happens_to_the_first_segments_both_streams_arrive_whole(
    schedule: list[Fate], sizes: list[int], replies: list[int], closes: bool
) -> None:
    """Any loss, delay and duplication, as long as it ends."""
    wire = Wire(fates=lambda number, _: schedule[number] if number < len(schedule) else (0.0,))
    wire.server.listen(SERVER)
    source = random.Random(0)
    there = [source.randbytes(size) for size in sizes]
    back = [source.randbytes(size) for size in replies]
    connection = wire.client.connect(CLIENT, SERVER, 0.0)
    for piece in there:
        assert connection.send(piece)

    def answer(ip: str, event: StreamEvent) -> None:
        if ip == SERVER[0] and isinstance(event, Connected):
            for piece in back:
                assert event.connection.send(piece)

    wire.on_event = answer
    wire.run(400.0)
    if wire.end(CLIENT[0]) == "timeout":
        assert sum(fate == () for fate in schedule) >= 6  # every SYN, or every answer
        return
    assert wire.data(SERVER[0]) == b"".join(there)
    assert wire.data(CLIENT[0]) == b"".join(back)
    if closes:
        connection.close()
        wire.run(800.0)
        assert (wire.end(CLIENT[0]), wire.end(SERVER[0])) == ("closed", "closed")
        assert wire.client.connections == wire.server.connections == ()


# -- the other ends -------------------------------------------------------------------------------


def test_a_port_that_nobody_listens_on_refuses_in_one_round_trip() -> None:
    wire = Wire()
    wire.client.connect(CLIENT, SERVER, 0.0)
    wire.run(1.0)
    assert wire.words() == ["client: SYN", "server: ACK RST"]
    assert wire.end(CLIENT[0]) == "refused"
    assert wire.client.connections == ()


def test_a_peer_that_never_answers_is_given_up_after_six_syns_and_63_seconds() -> None:
    wire = Wire(fates=lambda number, segment: ())
    wire.client.connect(CLIENT, SERVER, 0.0)
    wire.run(62.9)
    assert [at for at, _, _ in wire.sent] == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0]
    assert wire.end(CLIENT[0]) is None
    wire.run(63.0)
    assert wire.end(CLIENT[0]) == "timeout"
    assert wire.client.get_timer() is None


def test_a_listener_forgets_a_syn_that_nothing_follows_and_tells_nobody() -> None:
    wire = Wire(fates=lambda number, segment: () if segment.ack else (0.0,))
    wire.server.listen(SERVER)
    wire.inject(Segment(7, syn=True), CLIENT, SERVER)
    wire.run(62.9)
    assert len(wire.server.connections) == 1
    wire.run(64.0)
    assert wire.server.connections == ()
    assert wire.events[SERVER[0]] == []


def test_a_connection_whose_path_dies_is_given_up_after_100_seconds_without_progress() -> None:
    wire, connection = connected()
    wire.fates = lambda number, segment: ()
    connection.send(b"anybody there?")
    wire.run(100.4)
    assert wire.end(CLIENT[0]) is None
    wire.run(200.0)
    assert wire.end(CLIENT[0]) == "timeout"


def test_a_connection_that_one_side_forgot_is_reset_when_the_other_speaks() -> None:
    wire, connection = connected()
    wire.restart(SERVER[0])
    connection.send(b"are you still there?")
    wire.run(2.0)
    assert wire.words()[-2:] == ["client: ACK 20 bytes", "server: RST"]
    assert wire.end(CLIENT[0]) == "reset"


def test_a_client_that_restarts_gets_through_on_the_same_port_rfc9293_3_5_1() -> None:
    wire, _ = connected()
    wire.restart(CLIENT[0])
    again = wire.client.connect(CLIENT, SERVER, wire.now)
    again.send(b"me again")
    wire.run(5.0)
    assert wire.end(SERVER[0]) == "reset"
    assert again.state is StreamState.ESTABLISHED
    assert wire.data(SERVER[0]) == b"me again"


def test_a_middlebox_can_reset_an_attempt_and_a_connection() -> None:
    wire = Wire(fates=lambda number, segment: ())
    wire.server.listen(SERVER)
    wire.client.connect(CLIENT, SERVER, 0.0)
    wire.flush()
    reset = Segment.reset_for(wire.sent[0][2])
    assert reset is not None
    wire.inject(reset, SERVER, CLIENT)
    wire.run(0.5)
    assert wire.end(CLIENT[0]) == "refused"

    wire, connection = connected()
    wire.fates = lambda number, segment: ()
    connection.send(b"not through here")
    wire.flush()
    reset = Segment.reset_for(wire.sent[-1][2])
    assert reset is not None
    wire.inject(reset, SERVER, CLIENT)
    wire.run(1.0)
    assert wire.end(CLIENT[0]) == "reset"
    assert wire.end(SERVER[0]) is None


def test_a_reset_that_only_guesses_the_number_ends_nothing_rfc5961_3() -> None:
    wire, connection = connected()
    right = wire.sent[1][2].seq + 1
    for guess in (right + 1, right + 60_000, right - 1, right - 100_000):
        wire.inject(Segment(guess % (1 << 32), rst=True), SERVER, CLIENT)
    wire.run(2.0)
    assert connection.state is StreamState.ESTABLISHED
    wire.inject(Segment(right, rst=True), SERVER, CLIENT)
    wire.run(3.0)
    assert wire.end(CLIENT[0]) == "reset"


def test_two_ends_that_disagree_do_not_acknowledge_each_other_for_ever() -> None:
    wire, connection = connected()
    before = len(wire.sent)
    far = (wire.sent[1][2].seq + 1_000_000) % (1 << 32)
    for _ in range(100):
        wire.inject(Segment(far, connection._sent % (1 << 32), ack=True), SERVER, CLIENT)
    wire.run(1.0)
    assert len(wire.sent) - before <= 2
    assert connection.state is StreamState.ESTABLISHED


def test_aborting_resets_the_peer() -> None:
    wire, connection = connected()
    connection.abort()
    wire.run(1.0)
    assert (wire.end(CLIENT[0]), wire.end(SERVER[0])) == ("reset", "reset")
    assert wire.client.connections == wire.server.connections == ()


def test_unreachable_ends_an_attempt_and_is_a_mere_hint_later_rfc5927_6() -> None:
    wire = Wire(fates=lambda number, segment: ())
    wire.client.connect(CLIENT, SERVER, 0.0)
    wire.run(0.1)
    wire.client.receive_unreachable(CLIENT, SERVER, wire.now)
    wire.run(0.2)
    assert wire.end(CLIENT[0]) == "unreachable"

    wire, connection = connected()
    wire.client.receive_unreachable(CLIENT, SERVER, wire.now)
    connection.send(b"still there")
    wire.run(2.0)
    assert wire.data(SERVER[0]) == b"still there"


def test_a_link_that_carries_less_is_known_after_one_icmp_message() -> None:
    wire, connection = connected()
    mtu = 600

    def too_big(number: int, segment: Segment) -> Fate:
        if segment.size <= mtu:
            return (0.0,)
        wire.client.receive_too_big(CLIENT, SERVER, mtu, wire.now)
        return ()

    wire.fates = too_big
    begun = wire.now
    message = random.Random(1).randbytes(5_000)
    connection.send(message)
    wire.run(begun + 0.001)
    wire.run(begun + 2.0)
    assert wire.data(SERVER[0]) == message
    assert connection.mss == mtu - 40
    assert max(s.size for at, _, s in wire.sent if at > begun) == mtu


def test_an_mtu_that_no_link_has_changes_nothing() -> None:
    wire, connection = connected()
    wire.client.receive_too_big(CLIENT, SERVER, 20, wire.now)
    wire.client.receive_too_big(CLIENT, SERVER, 9000, wire.now)
    assert connection.mss == 1200


def test_an_acknowledgement_of_what_was_never_sent_opens_nothing() -> None:
    wire = Wire()
    wire.server.listen(SERVER)
    wire.server.receive_segment(Segment(7, syn=True), CLIENT, SERVER, 0.0)
    wire.server.segments_to_send(0.0)
    wire.server.receive_segment(Segment(8, 12345, ack=True), CLIENT, SERVER, 0.1)
    (answer,) = wire.server.segments_to_send(0.1)
    assert (answer[0].rst, answer[0].seq) == (True, 12345)
    assert wire.server.next_event() is None

    wire, connection = connected()
    right = wire.sent[1][2].seq + 1
    beyond = (wire.sent[0][2].seq + 500_000) % (1 << 32)
    wire.inject(Segment(right, beyond, b"forged", ack=True), SERVER, CLIENT)
    wire.run(1.0)
    assert connection.state is StreamState.ESTABLISHED
    assert wire.data(CLIENT[0]) == b""


def test_closing_before_the_connection_stands_ends_the_attempt() -> None:
    wire = Wire()
    wire.server.listen(SERVER)
    connection = wire.client.connect(CLIENT, SERVER, 0.0)
    wire.run(0.01)
    connection.close()
    wire.run(5.0)
    assert wire.end(CLIENT[0]) == "closed"
    assert wire.client.connections == wire.server.connections == ()


# -- bounds ---------------------------------------------------------------------------------------


def test_a_flood_of_syns_fills_no_more_than_the_table() -> None:
    wire = Wire(fates=lambda number, segment: ())
    wire.server.listen(SERVER)
    for port in range(1, 3000):
        syn = Segment(port, syn=True)
        wire.server.receive_segment(syn, ("198.51.100.1", port), SERVER, 0.0)
    assert len(wire.server.connections) == 1024
    assert wire.server.counters["connections_surplus"] == 2999 - 1024


def test_what_comes_too_early_is_kept_up_to_a_window() -> None:
    wire, _ = connected()
    server = wire.accepted()
    base = wire.sent[2][2]
    for gap in range(1, 3000):
        seq = (base.seq + gap) % (1 << 32)
        segment = Segment(seq, base.ack_number, bytes(1200), ack=True)
        server.receive_segment(segment, wire.now)
    assert sum(map(len, server._early.values())) <= Segment.window


def test_connecting_twice_between_the_same_addresses_raises() -> None:
    wire, _ = connected()
    with pytest.raises(ValueError, match="connected"):
        wire.client.connect(CLIENT, SERVER, wire.now)


def test_the_same_seed_sends_the_same_segments() -> None:
    def run(seed: int) -> list[tuple[float, str, Segment]]:
        wire = Wire(seed=seed, fates=draw_fates([(0.0,), (0.01,), ()], seed))
        wire.server.listen(SERVER)
        wire.client.connect(CLIENT, SERVER, 0.0).send(bytes(30_000))
        wire.run(100.0)
        return wire.sent

    assert run(1) == run(1) != run(2)


def every_segment() -> Iterator[Segment]:
    flags = (False, True)
    for syn in flags:
        for ack in flags:
            for fin in flags:
                for rst in flags:
                    for seq in (0, 1, 77, 1 << 31, (1 << 32) - 1):
                        yield Segment(seq, 5, b"?", syn=syn, ack=ack, fin=fin, rst=rst)


@pytest.mark.parametrize("ours", ["nothing", "an attempt", "a connection", "a closed connection"])
def test_no_segment_whatsoever_raises(ours: str) -> None:
    wire = Wire()
    if ours != "nothing":
        wire.server.listen(SERVER)
        connection = wire.client.connect(CLIENT, SERVER, 0.0)
        if ours != "an attempt":
            wire.run(0.5)
        if ours == "a closed connection":
            connection.close()
            wire.run(1.0)
    for segment in every_segment():
        wire.client.receive_segment(segment, SERVER, CLIENT, wire.now)
    wire.run(wire.now + 1)
