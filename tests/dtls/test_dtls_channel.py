"""Application data and the end of the association."""

from __future__ import annotations

import pytest
from dtls_support import (
    ALICE,
    BOB,
    bare_connection,
    connected_pair,
    drive,
    events_of,
    header_sizes,
    make_pair,
    received,
    rsa_certificate,
)

from ice_punch.dtls import DtlsMachine, DtlsRole, HandshakeCompleted, PeerClosed, openssl
from ice_punch.errors import (
    ChannelClosed,
    DatagramRefused,
    DatagramTooLarge,
    InvalidConfiguration,
)

CIPHERS = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")


def test_datagrams_arrive_whole_in_both_directions() -> None:
    pair = connected_pair()
    sizes = (1, 2, 100, pair.client.max_datagram_size)
    for size in sizes:
        pair.client.send(b"c" * size, pair.now)
        pair.server.send(b"s" * size, pair.now)
    pair.run()
    assert received(events_of(pair.server)) == [b"c" * size for size in sizes]
    assert received(events_of(pair.client)) == [b"s" * size for size in sizes]
    for machine in (pair.client, pair.server):
        assert machine.counters.application_sent == len(sizes)
        assert machine.counters.application_received == len(sizes)
        assert machine.counters.application_bytes == sum(sizes)
        assert machine.counters.discarded == machine.counters.malformed == 0


def test_every_datagram_is_a_datagram_of_one_record() -> None:
    pair = connected_pair()
    for _ in range(5):
        pair.client.send(b"x", pair.now)
    datagrams = pair.client.datagrams_to_send(pair.now)
    assert [len(header_sizes(d)) for d in datagrams] == [1] * 5
    assert all(d[0] == 23 for d in datagrams)


def test_memoryviews_and_bytearrays_are_sent_too() -> None:
    pair = connected_pair()
    pair.client.send(memoryview(b"view"), pair.now)
    pair.client.send(bytearray(b"array"), pair.now)
    pair.run()
    assert received(events_of(pair.server)) == [b"view", b"array"]


@pytest.mark.parametrize("mtu", [256, 1200, 1472, 9000])
@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_the_largest_datagram_fits_the_mtu_exactly(
    monkeypatch: pytest.MonkeyPatch, kind: str, cipher: str, mtu: int
) -> None:
    monkeypatch.setattr(openssl, "CIPHERS", f"ECDHE-{kind}-{cipher}".encode())
    certificate = {"ECDSA": BOB, "RSA": RSA}[kind]
    pair = connected_pair(server_certificate=certificate, mtu=mtu)
    assert pair.client.max_datagram_size == mtu - (29 if "CHACHA" in cipher else 37)
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        largest = b"x" * sender.max_datagram_size
        sender.send(largest, pair.now)
        (datagram,) = sender.datagrams_to_send(pair.now)
        assert len(datagram) == mtu
        receiver.receive_datagram(datagram, pair.now)
        assert received(events_of(receiver)) == [largest]
        with pytest.raises(DatagramTooLarge) as refusal:
            sender.send(largest + b"x", pair.now)
        assert (refusal.value.size, refusal.value.limit) == (len(largest) + 1, len(largest))
        assert sender.datagrams_to_send(pair.now) == []


RSA = rsa_certificate()


@pytest.mark.parametrize("mtu", [256, 600, 1472, 9000, 20000])
def test_a_path_that_carries_more_or_less_changes_what_fits(mtu: int) -> None:
    pair = connected_pair(mtu=1200)
    pair.client.set_mtu(mtu)
    assert pair.client.mtu == mtu
    assert pair.client.max_datagram_size == min(mtu - 37, 16384)
    largest = b"x" * pair.client.max_datagram_size
    with pytest.raises(DatagramTooLarge):
        pair.client.send(largest + b"x", pair.now)
    with pytest.raises(DatagramTooLarge):
        pair.client.encrypt_many([b"x", largest + b"x"], pair.now)
    pair.client.send(largest, pair.now)
    (datagram,) = pair.client.datagrams_to_send(pair.now)
    assert len(datagram) == min(mtu, 16384 + 37)
    assert pair.server.decrypt_many([datagram], pair.now) == [largest]


def test_an_mtu_may_change_before_the_handshake() -> None:
    pair = make_pair(RSA, RSA, mtu=1200)
    pair.server.set_mtu(400)
    assert pair.server.max_datagram_size == 400 - 37
    pair.start().run()
    assert isinstance(pair.client.next_event(), HandshakeCompleted)
    assert max(len(datagram) for sender, datagram in pair.sent if sender == "server") <= 400
    assert pair.server.max_datagram_size == 400 - 37
    with pytest.raises(InvalidConfiguration):
        pair.server.set_mtu(255)


def test_a_datagram_never_exceeds_what_a_record_holds() -> None:
    """RFC 6347 section 4.1: 2^14 bytes."""
    pair = connected_pair(mtu=60000)
    assert pair.client.max_datagram_size == 16384
    pair.client.send(bytes(16384), pair.now)
    pair.run()
    assert received(events_of(pair.server)) == [bytes(16384)]


def test_an_empty_datagram_is_refused() -> None:
    pair = connected_pair()
    with pytest.raises(DatagramRefused, match="empty"):
        pair.client.send(b"", pair.now)
    pair.client.send(b"unharmed", pair.now)
    pair.run()
    assert received(events_of(pair.server)) == [b"unharmed"]


def test_a_datagram_of_many_records_is_read_to_the_end() -> None:
    """RFC 6347 section 4.1.1; 60 KB is more than OpenSSL takes from its buffer at once."""
    pair = connected_pair()
    for i in range(50):
        pair.client.send(i.to_bytes(2) * 550, pair.now)
    pair.server.receive_datagram(b"".join(pair.client.datagrams_to_send(pair.now)), pair.now)
    assert received(events_of(pair.server)) == [i.to_bytes(2) * 550 for i in range(50)]


def test_reordered_and_lost_datagrams_are_the_applications_affair() -> None:
    pair = connected_pair()
    for i in range(10):
        pair.client.send(bytes((i,)), pair.now)
    for datagram in reversed(pair.client.datagrams_to_send(pair.now)[1:]):
        pair.server.receive_datagram(datagram, pair.now)
    assert received(events_of(pair.server)) == [bytes((i,)) for i in range(9, 0, -1)]


@pytest.mark.parametrize("closing", ["client", "server"])
def test_close_notify_goes_both_ways(closing: str) -> None:
    """RFC 5246 section 7.2.1: answered with a close_notify, and the association is over."""
    pair = connected_pair()
    closer, other = (
        (pair.client, pair.server) if closing == "client" else (pair.server, pair.client)
    )
    before = len(pair.sent)
    closer.close(pair.now)
    pair.run()
    assert [header_sizes(d)[0][0] for _, d in pair.sent[before:]] == [21, 21]
    assert events_of(other) == [PeerClosed("close_notify")]
    assert events_of(closer) == []
    for machine in (closer, other):
        assert machine.get_timer() is None
        with pytest.raises(ChannelClosed, match="closed"):
            machine.send(b"late", pair.now)
        machine.close(pair.now)
        assert machine.datagrams_to_send(pair.now) == []


def test_data_before_the_close_is_delivered_and_data_after_it_is_not() -> None:
    """RFC 5246 section 7.2.1."""
    pair = connected_pair()
    pair.client.send(b"last", pair.now)
    pair.client.close(pair.now)
    pair.server.send(b"too late", pair.now)
    pair.run()
    assert received(events_of(pair.server)) == [b"last"]
    assert events_of(pair.client) == []
    assert pair.client.counters.late == 2


def test_a_lost_close_notify_is_sent_again_to_a_peer_that_goes_on() -> None:
    """RFC 6347 section 4.2.7."""
    pair = connected_pair()
    pair.client.close(pair.now)
    assert len(pair.client.datagrams_to_send(pair.now)) == 1
    pair.server.send(b"anyone there?", pair.now)
    pair.run()
    assert events_of(pair.server) == [PeerClosed("close_notify")]


def test_a_fatal_alert_ends_the_association_and_says_why() -> None:
    """RFC 5246 section 7.2.2: an authenticated fatal alert closes at once."""
    client = bare_connection(ALICE, DtlsRole.CLIENT)
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    drive(client, server)
    assert isinstance(server.next_event(), HandshakeCompleted)
    # OpenSSL's client takes our refusal to renegotiate for a reason to break off.
    client.renegotiate()
    drive(client, server)
    (event,) = events_of(server)
    assert isinstance(event, PeerClosed)
    assert "handshake failure" in event.reason
    with pytest.raises(ChannelClosed):
        server.send(b"late", 0.0)
