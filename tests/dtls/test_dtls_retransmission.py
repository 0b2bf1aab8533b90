"""Loss during the handshake: RFC 6347 section 4.2.4, RFC 9147 section 5.8.2."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from dtls_support import Pair, connected_pair, events_of, lose, make_pair, received

from ice_punch.dtls import HandshakeCompleted

RTT = 0.1


def lossy(to_server: tuple[int, ...], to_client: tuple[int, ...], **options: Any) -> Pair:
    pair = make_pair(**options)
    pair.to_server, pair.to_client, pair.delay = lose(*to_server), lose(*to_client), RTT / 2
    return pair.start().run(30.0)


def is_connected(pair: Pair) -> bool:
    return all(
        [type(e) for e in events_of(machine)] == [HandshakeCompleted]
        for machine in (pair.client, pair.server)
    )


def test_without_loss_nothing_is_repeated() -> None:
    """RFC 9147 section 5.8.2: 1.5 round trips leave room for the answer."""
    pair = lossy((), (), rtt=RTT)
    assert is_connected(pair)
    assert len(pair.sent) == 4
    assert pair.now == pytest.approx(100.0 + 2 * RTT)


@pytest.mark.parametrize(
    ("to_server", "to_client", "packets"),
    [
        ((0,), (), 5),  # the ClientHello
        ((), (0,), 7),  # the server's flight: both sides repeat
        ((1,), (), 7),  # the client's certificate and Finished: both sides repeat
        ((), (1,), 6),  # the server's Finished: asked for again by the client's repetition
    ],
)
def test_a_lost_flight_costs_one_and_a_half_round_trips(
    to_server: tuple[int, ...], to_client: tuple[int, ...], packets: int
) -> None:
    """RFC 9147 section 5.8.2: with ICE's round trip time, the timer is 1.5 times that."""
    pair = lossy(to_server, to_client, rtt=RTT)
    assert is_connected(pair)
    assert len(pair.sent) <= packets
    assert pair.now <= 100.0 + 2 * RTT + 1.5 * RTT + 1e-6


def test_without_a_round_trip_time_the_timer_is_one_second() -> None:
    """RFC 6347 section 4.2.4.1."""
    pair = make_pair()
    pair.to_server = lose(0)
    pair.start().run(0.99)
    assert len(pair.sent) == 1
    pair.run(0.02)
    assert is_connected(pair)


def test_the_timer_doubles() -> None:
    """RFC 6347 section 4.2.4.1."""
    pair = make_pair(rtt=RTT)
    times: list[float] = []

    def note(_: bytes) -> tuple[bytes, ...]:
        times.append(round(pair.now - 100.0, 3))
        return ()

    pair.to_server = note
    pair.start().run(5.0)
    # The one-second timer of OpenSSL reads its own clock, and is silent in virtual time.
    assert times == [0.0, 0.15, 0.45, 1.05, 2.25, 4.65]


@pytest.mark.parametrize("seed", range(40))
def test_heavy_loss_is_survived(seed: int) -> None:
    rng = random.Random(seed)
    pair = make_pair(rtt=RTT, mtu=400)
    pair.delay = RTT / 2
    pair.to_server = pair.to_client = lambda d: (d,) if rng.random() > 0.3 else ()
    pair.start().run(30.0)
    assert is_connected(pair), (pair.client.counters, pair.server.counters)
    assert pair.client.get_timer() is None
    assert pair.server.get_timer() is None
    assert len(pair.sent) < 120


@pytest.mark.parametrize("seed", range(20))
def test_duplicates_and_reordering_are_survived(seed: int) -> None:
    """RFC 6347 section 3.2.2."""
    rng = random.Random(seed)
    pair = make_pair(rtt=RTT, mtu=300)
    pair.delay = RTT / 2
    late: list[bytes] = []

    def shuffle(datagram: bytes) -> list[bytes]:
        late.append(datagram)
        rng.shuffle(late)
        out = [d for d in late for _ in range(rng.choice((1, 1, 2)))]
        kept = rng.random() < 0.3
        late[:] = out[-1:] if kept else []
        return out[:-1] if kept else out

    pair.to_client = shuffle
    pair.start().run(30.0)
    assert is_connected(pair)
    pair.client.send(b"hello", pair.now)
    pair.run(1.0)
    assert received(events_of(pair.server)) == [b"hello"]


def test_the_last_flight_is_repeated_only_until_the_peer_has_it() -> None:
    """RFC 6347 section 4.2.4: a repeated Finished is answered, data proves that it arrived."""
    pair = make_pair(rtt=RTT).start().run()
    assert is_connected(pair)
    flight = [d for sender, d in pair.sent if sender == "client"][1]
    for second in range(20):
        pair.server.receive_datagram(flight, pair.now + second)
        pair.server.receive_datagram(flight, pair.now + second)
    assert len(pair.server.datagrams_to_send(pair.now)) == 20
    pair.client.send(b"got it", pair.now)
    pair.run(0.0)
    pair.server.receive_datagram(flight, pair.now + 100)
    assert pair.server.datagrams_to_send(pair.now) == []
    assert received(events_of(pair.server)) == [b"got it"]


def test_a_client_never_answers_a_repeated_last_flight() -> None:
    """RFC 6347 section 4.2.4: two sides that both did would never stop."""
    pair = make_pair(rtt=RTT).start().run()
    assert is_connected(pair)
    flight = [d for sender, d in pair.sent if sender == "server"][1]
    for second in range(20):
        pair.client.receive_datagram(flight, pair.now + second)
    assert pair.client.datagrams_to_send(pair.now) == []


def test_an_early_call_does_nothing() -> None:
    pair = make_pair(rtt=RTT).start()
    pair.collect()
    for machine in (pair.client, pair.server):
        timer = machine.get_timer()
        assert timer is not None
        for _ in range(10):
            machine.handle_timer(timer - 0.01)
        assert machine.get_timer() == timer
        assert machine.datagrams_to_send(pair.now) == []


def test_timers_do_not_spin_in_virtual_time() -> None:
    pair = make_pair().start()
    calls = 0
    while (timer := pair.client.get_timer()) is not None:
        pair.client.handle_timer(timer)
        calls += 1
    assert calls < 100
    assert len(pair.client.datagrams_to_send(pair.now)) == 5


def test_no_timer_runs_on_an_open_association() -> None:
    pair = connected_pair()
    pair.client.send(b"x", pair.now)
    pair.run()
    assert pair.client.get_timer() is pair.server.get_timer() is None


def test_openssl_retransmits_in_new_records_by_its_own_clock() -> None:
    """RFC 6347 section 4.2.4: the real timer of one second, and the end of it.

    The server's last flight is lost. At the time that get_timer told, and no later, the client
    repeats its flight in records with new sequence numbers, and the server its own: once.
    """
    pair = make_pair()
    pair.now = time.monotonic()
    pair.to_client = lose(1)
    pair.start().run(0.0)
    assert isinstance(pair.server.next_event(), HandshakeCompleted)
    assert pair.client.next_event() is None
    lost, first = pair.sent[3][1], pair.sent[2][1]
    timer = pair.client.get_timer()
    assert timer is not None
    assert timer == pytest.approx(pair.now + 1.0, abs=0.05)
    time.sleep(max(0.0, timer - time.monotonic()))
    pair.now = timer
    pair.client.handle_timer(timer)
    pair.run(0.0)
    repeated, answer = pair.sent[4][1], pair.sent[5][1]
    assert isinstance(pair.client.next_event(), HandshakeCompleted)
    assert repeated != first
    assert len(repeated) in range(len(first) - 8, len(first) + 9)
    assert repeated[:5] == first[:5]
    assert int.from_bytes(repeated[5:11]) > int.from_bytes(first[5:11])
    assert answer != lost
    # What the network kept back must not start an exchange that never ends.
    pair.client.receive_datagram(lost, pair.now)
    pair.server.receive_datagram(repeated, pair.now + 5)
    pair.run(10.0)
    assert len(pair.sent) <= 8
    pair.client.send(b"works", pair.now)
    pair.run(0.0)
    assert received(events_of(pair.server)) == [b"works"]
