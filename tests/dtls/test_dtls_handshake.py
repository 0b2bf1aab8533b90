"""Making an association: flights, versions, ciphers, alerts (RFC 6347 section 4.2, RFC 8842)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from dtls_support import (
    ALICE,
    BOB,
    Pair,
    bare_connection,
    drive,
    events_of,
    header_sizes,
    make_pair,
    rsa_certificate,
)
from OpenSSL import SSL

from ice_punch.dtls import (
    Certificate,
    DtlsMachine,
    DtlsRole,
    HandshakeCompleted,
    HandshakeFailedEvent,
    openssl,
)
from ice_punch.errors import ChannelClosed, FingerprintMismatch, InvalidConfiguration

RSA = rsa_certificate()
BAD_CERTIFICATE = b"\x02\x2a"


def test_a_handshake_takes_four_datagrams() -> None:
    """RFC 6347 section 4.2.4: four flights without a cookie; 4.1.1: records share datagrams."""
    pair = make_pair().start().run()
    assert [sender for sender, _ in pair.sent] == ["client", "server", "client", "server"]
    assert sum(len(datagram) for _, datagram in pair.sent) < 1600
    for machine, peer in ((pair.client, BOB), (pair.server, ALICE)):
        (event,) = events_of(machine)
        assert event == HandshakeCompleted(
            "DTLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", peer.fingerprint()
        )
        assert machine.get_timer() is None
        assert machine.counters.retransmitted == 0


def test_the_client_speaks_first_and_the_server_waits() -> None:
    """RFC 8842 section 5.3 and 5.4."""
    pair = make_pair()
    assert pair.client.datagrams_to_send(100.0) == []
    pair.start()
    assert pair.server.datagrams_to_send(100.0) == []
    (client_hello,) = pair.client.datagrams_to_send(100.0)
    assert header_sizes(client_hello)[0][0] == 22
    assert client_hello[13] == 1


@pytest.mark.parametrize("mtu", [256, 300, 576, 1200, 9000])
def test_flights_are_split_into_datagrams_within_the_mtu(mtu: int) -> None:
    """RFC 6347 section 4.1.1.1, 4.2.3."""
    pair = make_pair(ALICE, RSA, mtu=mtu).start().run()
    assert isinstance(events_of(pair.client)[0], HandshakeCompleted)
    assert isinstance(events_of(pair.server)[0], HandshakeCompleted)
    for _, datagram in pair.sent:
        assert len(datagram) <= mtu
        assert header_sizes(datagram)
    # No more datagrams than the bytes need, but for the remainder of each of the four flights.
    size = sum(len(datagram) for _, datagram in pair.sent)
    assert len(pair.sent) <= size // (mtu - 64) + 4


def test_an_mtu_that_no_flight_fits_is_refused() -> None:
    with pytest.raises(InvalidConfiguration):
        DtlsMachine(ALICE, DtlsRole.CLIENT, mtu=200)


@pytest.mark.parametrize(("client", "server"), [(ALICE, RSA), (RSA, ALICE), (RSA, RSA)])
def test_rsa_certificates_are_accepted_on_both_sides(
    client: Certificate, server: Certificate
) -> None:
    """RFC 8122 section 6.1: the kind of certificate is its owner's choice."""
    pair = make_pair(client, server).start().run()
    (event,) = events_of(pair.client)
    assert isinstance(event, HandshakeCompleted)
    assert event.cipher.startswith("ECDHE-RSA" if server is RSA else "ECDHE-ECDSA")


def test_no_null_and_no_anonymous_cipher_is_offered() -> None:
    """RFC 8122 section 7; forward secrecy and authenticated encryption throughout."""
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    client.start(0.0)
    (hello,) = client.datagrams_to_send(0.0)
    body = hello[25:]
    session_id = 34
    cookie = session_id + 1 + body[session_id]
    suites_at = cookie + 1 + body[cookie]
    size = int.from_bytes(body[suites_at : suites_at + 2])
    suites = {
        int.from_bytes(body[i : i + 2]) for i in range(suites_at + 2, suites_at + 2 + size, 2)
    }
    signalling = {0x00FF}
    assert suites - signalling == {0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8}


def test_a_version_below_dtls_1_2_is_refused() -> None:
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    client.start(0.0)
    (hello,) = client.datagrams_to_send(0.0)
    old = hello[:25] + b"\xfe\xff" + hello[27:]
    server.start(0.0)
    server.receive_datagram(old, 0.0)
    (event,) = events_of(server)
    assert isinstance(event, HandshakeFailedEvent)
    # protocol_version, RFC 5246 section 7.2.2
    assert server.datagrams_to_send(0.0)[0].endswith(b"\x02\x46")


def test_no_common_cipher_fails_at_once_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssl, "CIPHERS", b"ECDHE-ECDSA-AES128-GCM-SHA256")
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, RSA.fingerprints())
    monkeypatch.undo()
    server = DtlsMachine(RSA, DtlsRole.SERVER, ALICE.fingerprints())
    pair = Pair(client, server).start().run()
    for machine in (client, server):
        (event,) = events_of(machine)
        assert isinstance(event, HandshakeFailedEvent)
        assert not isinstance(event.error, FingerprintMismatch)
        assert machine.get_timer() is None
    assert pair.now == 100.0


def test_a_client_without_a_certificate_gets_bad_certificate() -> None:
    """RFC 8122 section 6.2: the server MUST request one and end with bad_certificate."""
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    sent = drive(bare_connection(None, DtlsRole.CLIENT), server)
    # CertificateRequest is in the server's flight: RFC 5246 section 7.4.4
    flight, alert = sent
    assert b"\x0d" in {flight[at + 13 : at + 14] for at in _record_starts(flight)}
    assert alert.endswith(BAD_CERTIFICATE)
    (event,) = events_of(server)
    assert isinstance(event, HandshakeFailedEvent)


def test_both_sides_show_their_certificate() -> None:
    """RFC 8122 section 6.2: client and server MUST present one."""
    server = bare_connection(BOB, DtlsRole.SERVER)
    server.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    drive(server, client)
    assert isinstance(events_of(client)[0], HandshakeCompleted)
    shown = server.get_peer_certificate(as_cryptography=True)
    assert shown == ALICE.x509


def test_a_client_hello_before_the_start_is_kept() -> None:
    """RFC 8122 section 6.2: the offerer listens from the moment of its offer."""
    pair = make_pair()
    pair.client.start(100.0)
    pair.collect()
    pair.server.receive_datagram(pair.sent[0][1], 100.0)
    assert pair.server.datagrams_to_send(100.0) == []
    pair.start().run(0.5)
    assert isinstance(events_of(pair.server)[0], HandshakeCompleted)
    assert pair.client.counters.retransmitted == 0


def test_a_silent_peer_ends_the_handshake_in_time() -> None:
    pair = make_pair(handshake_timeout=12.0)
    pair.to_client = lambda _: ()
    pair.start().run()
    for machine in (pair.client, pair.server):
        (event,) = events_of(machine)
        assert isinstance(event, HandshakeFailedEvent)
        assert "12 seconds" in str(event.error)
        assert machine.get_timer() is None
        machine.handle_timer(1e6)
        assert events_of(machine) == []
    assert pair.now == 112.0


def test_sending_before_the_handshake_is_a_typed_error() -> None:
    pair = make_pair()
    with pytest.raises(ChannelClosed, match="not complete"):
        pair.client.send(b"early", 100.0)


def test_closing_during_the_handshake_is_quiet_and_final() -> None:
    pair = make_pair().start()
    pair.collect()
    pair.client.close(100.0)
    assert pair.client.get_timer() is None
    assert events_of(pair.client) == []
    with pytest.raises(ChannelClosed):
        pair.client.send(b"late", 100.0)


def test_a_close_notify_during_the_handshake_fails_it() -> None:
    """RFC 5246 section 7.2.1."""
    pair = make_pair().start()
    pair.client.receive_datagram(b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x01\x00", 100.0)
    (event,) = events_of(pair.client)
    assert isinstance(event, HandshakeFailedEvent)
    assert "closed" in str(event.error)


def test_a_cookie_exchange_is_answered() -> None:
    """RFC 6347 section 4.2.1: we ask for no cookie, and return one that is asked for."""
    context = SSL.Context(SSL.DTLS_METHOD)
    context.use_certificate(BOB.x509)
    context.use_privatekey(BOB.private_key)
    assert SSL.OP_COOKIE_EXCHANGE is not None
    context.set_options(SSL.OP_COOKIE_EXCHANGE)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.set_cookie_generate_callback(lambda _: b"cookie")
    context.set_cookie_verify_callback(lambda _, cookie: cookie == b"cookie")
    server = SSL.Connection(context)
    server.set_ciphertext_mtu(1200)
    server.set_accept_state()
    client = DtlsMachine(ALICE, DtlsRole.CLIENT, BOB.fingerprints())
    sent = drive(server, client)
    assert b"cookie" in sent[1]
    assert isinstance(events_of(client)[0], HandshakeCompleted)


def test_renegotiation_is_refused_and_the_session_lives() -> None:
    """RFC 5246 section 7.2.2: no_renegotiation is a warning."""
    client = bare_connection(ALICE, DtlsRole.CLIENT)
    server = DtlsMachine(BOB, DtlsRole.SERVER, ALICE.fingerprints())
    drive(client, server)
    assert isinstance(events_of(server)[0], HandshakeCompleted)
    client.renegotiate()
    with suppress(SSL.WantReadError):
        client.do_handshake()
    server.receive_datagram(client.bio_read(65536), 0.0)
    (answer,) = server.datagrams_to_send(0.0)
    assert header_sizes(answer)[0][0] == 21
    assert events_of(server) == []
    server.send(b"still here", 0.0)


def _record_starts(datagram: bytes) -> list[int]:
    starts, start = [], 0
    for _, size in header_sizes(datagram):
        starts.append(start)
        start += 13 + size
    return starts
