"""Nobody is believed before the certificate matched: RFC 8122 section 5.1 and 6.2, RFC 8842."""

from __future__ import annotations

import pytest
from dtls_support import (
    ALICE,
    BOB,
    MALLORY,
    Pair,
    events_of,
    make_pair,
    received,
)

from ice_punch.dtls import (
    DatagramReceived,
    DtlsMachine,
    DtlsRole,
    HandshakeCompleted,
    HandshakeFailedEvent,
    fingerprints,
    hold,
)
from ice_punch.errors import ChannelClosed, FingerprintMismatch, HandshakeFailed
from ice_punch.sdp import Fingerprint

BAD_CERTIFICATE = b"\x02\x2a"


def make(
    for_client: tuple[Fingerprint, ...] | None, for_server: tuple[Fingerprint, ...] | None
) -> Pair:
    """Alice is the client, Bob the server; each has been told the fingerprints given."""
    return Pair(
        DtlsMachine(ALICE, DtlsRole.CLIENT, for_client),
        DtlsMachine(BOB, DtlsRole.SERVER, for_server),
    )


@pytest.mark.parametrize("deceived", ["client", "server"])
def test_a_wrong_certificate_is_refused_with_bad_certificate(deceived: str) -> None:
    """RFC 8122 section 6.2, RFC 8842 section 5.1: torn down at once, with this alert."""
    wrong = MALLORY.fingerprints()
    pair = make(
        wrong if deceived == "client" else BOB.fingerprints(),
        wrong if deceived == "server" else ALICE.fingerprints(),
    )
    pair.start().run()
    refusing, refused = (
        (pair.client, pair.server) if deceived == "client" else (pair.server, pair.client)
    )
    (event,) = events_of(refusing)
    assert isinstance(event, HandshakeFailedEvent)
    assert isinstance(event.error, FingerprintMismatch)
    assert pair.sent[-1][0] == deceived
    assert pair.sent[-1][1].endswith(BAD_CERTIFICATE)
    (event,) = events_of(refused)
    assert isinstance(event, HandshakeFailedEvent)
    assert not isinstance(event.error, FingerprintMismatch)
    assert "bad certificate" in str(event.error)
    for machine in (refusing, refused):
        assert machine.get_timer() is None
        with pytest.raises(ChannelClosed):
            machine.send(b"secret", pair.now)
    assert pair.now == 100.0


def test_a_lost_alert_is_sent_again_when_its_cause_comes_again() -> None:
    """RFC 6347 section 4.2.7."""
    pair = make(BOB.fingerprints(), MALLORY.fingerprints())
    pair.to_client = lambda d: () if d.endswith(BAD_CERTIFICATE) and pair.now < 101 else (d,)
    pair.start().run()
    (event,) = events_of(pair.client)
    assert isinstance(event, HandshakeFailedEvent)
    assert "bad certificate" in str(event.error)
    assert pair.now < 102


def test_alerts_are_not_repeated_without_end() -> None:
    pair = make(BOB.fingerprints(), MALLORY.fingerprints()).start().run()
    provocation = next(d for sender, d in pair.sent if sender == "client")
    for i in range(100):
        pair.server.receive_datagram(provocation, pair.now + i)
    assert len(pair.server.datagrams_to_send(pair.now)) < 10
    assert pair.server.counters.late >= 100


@pytest.mark.parametrize("late", ["client", "server", "both"])
def test_the_handshake_waits_for_late_fingerprints(late: str) -> None:
    """RFC 8842 section 5.2: a ClientHello is taken before the answer; nothing is trusted."""
    pair = make(
        None if late in ("client", "both") else BOB.fingerprints(),
        None if late in ("server", "both") else ALICE.fingerprints(),
    )
    pair.start().run(5.0)
    assert all(
        not isinstance(e, HandshakeCompleted)
        for e in events_of(pair.client) + events_of(pair.server)
    )
    pair.server.set_remote_fingerprints(ALICE.fingerprints(), pair.now)
    pair.client.set_remote_fingerprints(BOB.fingerprints(), pair.now)
    told_at = pair.now
    pair.run(0.0)
    for machine in (pair.client, pair.server):
        assert [type(e) for e in events_of(machine)] == [HandshakeCompleted]
    assert pair.now == told_at


@pytest.mark.parametrize("late", ["client", "server"])
def test_late_fingerprints_that_do_not_match_end_with_bad_certificate(late: str) -> None:
    """RFC 8122 section 6.2: "If the fingerprint, once it arrives, does not match ..."."""
    pair = make(
        None if late == "client" else BOB.fingerprints(),
        None if late == "server" else ALICE.fingerprints(),
    )
    pair.start().run(5.0)
    machine = pair.client if late == "client" else pair.server
    assert events_of(machine) == []
    machine.set_remote_fingerprints(MALLORY.fingerprints(), pair.now)
    pair.run(0.0)
    (event,) = events_of(machine)
    assert isinstance(event, HandshakeFailedEvent)
    assert isinstance(event.error, FingerprintMismatch)
    assert pair.sent[-1] == (late, pair.sent[-1][1])
    assert pair.sent[-1][1].endswith(BAD_CERTIFICATE)


def test_nothing_can_be_sent_before_the_fingerprint_has_matched() -> None:
    """RFC 8842 section 5.2, RFC 8122 section 6.2."""
    pair = make(BOB.fingerprints(), None).start().run(1.0)
    for machine in (pair.client, pair.server):
        with pytest.raises(ChannelClosed, match="not complete"):
            machine.send(b"secret", pair.now)


def test_waiting_without_fingerprints_ends_in_time() -> None:
    pair = make(BOB.fingerprints(), None).start().run()
    (event,) = events_of(pair.server)
    assert isinstance(event, HandshakeFailedEvent)
    assert isinstance(event.error, HandshakeFailed)
    assert pair.now == 130.0


def test_what_is_held_is_bounded_and_what_is_dropped_is_counted() -> None:
    pair = make(BOB.fingerprints(), None).start().run(0.0)
    client_flight = [d for sender, d in pair.sent if sender == "client"][1:]
    for _ in range(100):
        for datagram in client_flight:
            pair.server.receive_datagram(datagram, pair.now)
    assert pair.server.counters.held_dropped >= 100 * 5 - hold.MAX_RECORDS
    pair.server.set_remote_fingerprints(ALICE.fingerprints(), pair.now)
    pair.run(0.0)
    assert isinstance(events_of(pair.server)[0], HandshakeCompleted)


def test_held_bytes_are_bounded_too() -> None:
    held = hold.HeldRecords()
    assert sum(held.add(bytes(16000)) for _ in range(60)) == hold.MAX_BYTES // 16000
    assert len(held.take()) == hold.MAX_BYTES // 16000
    assert not held


def test_data_that_overtakes_the_handshake_is_delivered_after_it() -> None:
    """RFC 6347 section 4.1.2.1; RFC 8122 section 6.2: authenticated first."""
    pair = make_pair().start()
    for _ in range(3):
        pair.collect()
        for sender, datagram in pair.sent[-1:]:
            receiver = pair.server if sender == "client" else pair.client
            receiver.receive_datagram(datagram, pair.now)
    pair._in_flight.clear()
    (last_flight,) = pair.server.datagrams_to_send(pair.now)
    assert isinstance(events_of(pair.server)[0], HandshakeCompleted)
    pair.server.send(b"first", pair.now)
    pair.server.send(b"second", pair.now)
    for data in pair.server.datagrams_to_send(pair.now):
        pair.client.receive_datagram(data, pair.now)
    assert events_of(pair.client) == []
    pair.client.receive_datagram(last_flight, pair.now)
    completed, *rest = events_of(pair.client)
    assert isinstance(completed, HandshakeCompleted)
    assert received(rest) == [b"first", b"second"]


def test_data_in_the_datagram_of_the_last_flight_is_delivered_after_it() -> None:
    """RFC 6347 section 4.1.1: records of any kind may share a datagram."""
    pair = make_pair()
    together: list[bytes] = []

    def join(datagram: bytes) -> tuple[bytes, ...]:
        if datagram[0] != 20:
            return (datagram,)
        pair.server.send(b"eager", pair.now)
        together.append(datagram + pair.server.datagrams_to_send(pair.now)[0])
        return tuple(together)

    pair.to_client = join
    pair.start().run()
    assert together
    assert [type(e) for e in events_of(pair.client)] == [HandshakeCompleted, DatagramReceived]


def test_one_match_among_several_certificates_suffices() -> None:
    """RFC 8122 section 5.1."""
    several = (*MALLORY.fingerprints(), *BOB.fingerprints())
    pair = make(several, ALICE.fingerprints()).start().run()
    (event,) = events_of(pair.client)
    assert isinstance(event, HandshakeCompleted)
    assert event.peer_fingerprint == BOB.fingerprint()


def test_only_the_strongest_hash_offered_counts() -> None:
    """RFC 8122 section 5.1: the set of the most preferred hash function, and no other."""
    both = (BOB.fingerprint("sha-256"), BOB.fingerprint("sha-512"))
    pair = make(both, ALICE.fingerprints()).start().run()
    (event,) = events_of(pair.client)
    assert isinstance(event, HandshakeCompleted)
    assert event.peer_fingerprint.algorithm == "sha-512"
    downgrade = (MALLORY.fingerprint("sha-512"), BOB.fingerprint("sha-256"))
    pair = make(downgrade, ALICE.fingerprints()).start().run()
    (failure,) = events_of(pair.client)
    assert isinstance(failure, HandshakeFailedEvent)
    assert isinstance(failure.error, FingerprintMismatch)


@pytest.mark.parametrize("algorithm", ["sha-1", "sha-224", "sha-256", "sha-384", "sha-512"])
def test_every_hash_function_of_the_standard_is_verified(algorithm: str) -> None:
    """RFC 8842 section 5.1, RFC 8122 section 5."""
    pair = make((BOB.fingerprint(algorithm),), (ALICE.fingerprint(algorithm),)).start().run()
    assert isinstance(events_of(pair.client)[0], HandshakeCompleted)
    assert isinstance(events_of(pair.server)[0], HandshakeCompleted)


def test_no_fingerprint_at_all_matches_nobody() -> None:
    """RFC 8122 section 5.1: without a match the connection MUST NOT be established."""
    pair = make((), ALICE.fingerprints()).start().run()
    (event,) = events_of(pair.client)
    assert isinstance(event, HandshakeFailedEvent)
    assert isinstance(event.error, FingerprintMismatch)


def test_the_order_of_preference_is_by_strength() -> None:
    """RFC 8122 section 5.1."""
    names = ("sha-1", "sha-384", "sha-256", "sha-512", "sha-224")
    offered = [BOB.fingerprint(name) for name in names]
    for strongest in ("sha-512", "sha-384", "sha-256", "sha-224", "sha-1"):
        assert fingerprints.preferred(offered) == (BOB.fingerprint(strongest),)
        offered.remove(BOB.fingerprint(strongest))
    assert fingerprints.preferred(()) == ()


def test_the_association_is_checked_even_if_openssl_did_not_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 8842 section 5.1: what opens the association looks for itself."""
    from ice_punch.dtls import openssl

    original = openssl.make_connection
    monkeypatch.setattr(
        openssl,
        "make_connection",
        lambda certificate, _, *rest, **options: original(
            certificate, lambda _: True, *rest, **options
        ),
    )
    pair = make(MALLORY.fingerprints(), ALICE.fingerprints()).start().run()
    (event,) = events_of(pair.client)
    assert isinstance(event, HandshakeFailedEvent)
    assert isinstance(event.error, FingerprintMismatch)
