"""Two DTLS machines and the wire between them, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from ice_punch.dtls import (
    Certificate,
    DatagramReceived,
    DtlsMachine,
    DtlsRole,
    Event,
    HandshakeCompleted,
)

ALICE, BOB, MALLORY = Certificate.generate(), Certificate.generate(), Certificate.generate()

Wire = Callable[[bytes], Iterable[bytes]]
"""What becomes of one datagram: itself, nothing, copies, pieces."""


def faithful(datagram: bytes) -> Iterable[bytes]:
    return (datagram,)


def lose(*indexes: int) -> Wire:
    """Lose the datagrams of the numbers given, counted from 0."""
    count = -1

    def wire(datagram: bytes) -> Iterable[bytes]:
        nonlocal count
        count += 1
        return () if count in indexes else (datagram,)

    return wire


def events_of(machine: DtlsMachine) -> list[Event]:
    events = []
    while (event := machine.next_event()) is not None:
        events.append(event)
    return events


def received(events: Iterable[Event]) -> list[bytes]:
    return [e.data for e in events if isinstance(e, DatagramReceived)]


def header_sizes(datagram: bytes) -> list[tuple[int, int]]:
    """Content type and length of each DTLS 1.2 record, or an assertion error."""
    records, start = [], 0
    while start < len(datagram):
        length = int.from_bytes(datagram[start + 11 : start + 13])
        records.append((datagram[start], length))
        start += 13 + length
    assert start == len(datagram)
    return records


@dataclass
class Pair:
    """A client and a server in virtual time, half a round trip apart."""

    client: DtlsMachine
    server: DtlsMachine
    to_server: Wire = faithful
    to_client: Wire = faithful
    delay: float = 0.0
    now: float = 100.0
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    _in_flight: list[tuple[float, DtlsMachine, bytes]] = field(default_factory=list)

    def start(self) -> Pair:
        self.client.start(self.now)
        self.server.start(self.now)
        return self

    def collect(self) -> None:
        for sender, receiver, wire, name in (
            (self.client, self.server, self.to_server, "client"),
            (self.server, self.client, self.to_client, "server"),
        ):
            for datagram in sender.datagrams_to_send(self.now):
                self.sent.append((name, datagram))
                for arriving in wire(datagram):
                    self._in_flight.append((self.now + self.delay, receiver, arriving))

    def run(self, seconds: float = 60.0) -> Pair:
        """Let traffic and timers go on, at most so long in virtual time; stop when all is quiet."""
        end = self.now + seconds
        while True:
            self.collect()
            if self._in_flight and self._in_flight[0][0] <= self.now:
                _, machine, datagram = self._in_flight.pop(0)
                machine.receive_datagram(datagram, self.now)
                continue
            due = [t for m in (self.client, self.server) if (t := m.get_timer()) is not None]
            if self._in_flight:
                due.append(self._in_flight[0][0])
            if not due:
                return self
            if min(due) > end:
                self.now = end
                return self
            self.now = max(self.now, min(due))
            for machine in (self.client, self.server):
                timer = machine.get_timer()
                if timer is not None and timer <= self.now:
                    machine.handle_timer(self.now)


def make_pair(
    client_certificate: Certificate = ALICE,
    server_certificate: Certificate = BOB,
    **options: Any,
) -> Pair:
    return Pair(
        DtlsMachine(
            client_certificate,
            DtlsRole.CLIENT,
            server_certificate.fingerprints(),
            **options,
        ),
        DtlsMachine(
            server_certificate,
            DtlsRole.SERVER,
            client_certificate.fingerprints(),
            **options,
        ),
    )


def connected_pair(**options: Any) -> Pair:
    """Both sides open, their events taken."""
    pair = make_pair(**options).start().run()
    for machine in (pair.client, pair.server):
        (event,) = events_of(machine)
        assert isinstance(event, HandshakeCompleted)
    return pair


def assert_data_flows(pair: Pair) -> None:
    """Both ways, and nothing else happens."""
    pair.client.send(b"to server", pair.now)
    pair.server.send(b"to client", pair.now)
    pair.run(0.0)
    assert events_of(pair.server) == [DatagramReceived(b"to server")]
    assert events_of(pair.client) == [DatagramReceived(b"to client")]


def rsa_certificate() -> Certificate:
    """As GStreamer makes them: RSA 2048, signed with SHA-256."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rsa")])
    dates = ALICE.x509.not_valid_before_utc, ALICE.x509.not_valid_after_utc
    return Certificate(
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
        .sign(key, hashes.SHA256()),
        key,
    )


def bare_connection(certificate: Certificate | None, role: DtlsRole) -> SSL.Connection:
    """OpenSSL as a stranger would set it up, for what our own machine refuses to do."""
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.set_verify(SSL.VERIFY_NONE, None)
    if certificate is not None:
        context.use_certificate(certificate.x509)
        context.use_privatekey(certificate.private_key)
    connection = SSL.Connection(context)
    connection.set_ciphertext_mtu(1200)
    if role is DtlsRole.CLIENT:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    return connection


def drive(connection: SSL.Connection, machine: DtlsMachine) -> list[bytes]:
    """Run a bare connection against a machine; what the machine sent."""
    machine.start(0.0)
    sent: list[bytes] = []
    for _ in range(6):
        with suppress(SSL.Error):
            connection.do_handshake()
        with suppress(SSL.WantReadError):
            machine.receive_datagram(connection.bio_read(65536), 0.0)
        for datagram in machine.datagrams_to_send(0.0):
            sent.append(datagram)
            connection.bio_write(datagram)
    return sent
