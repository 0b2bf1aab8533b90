"""A DTLS association as a state machine: OpenSSL between two memory buffers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from enum import Enum

from OpenSSL import SSL

from ice_punch.datagram import Buffer
from ice_punch.dtls import openssl, records
from ice_punch.dtls.bindings import GREATEST_CONTENT
from ice_punch.dtls.bulk import Bulk
from ice_punch.dtls.certificate import Certificate
from ice_punch.dtls.events import (
    DatagramReceived,
    DtlsCounters,
    Event,
    HandshakeCompleted,
    HandshakeFailedEvent,
    PeerClosed,
)
from ice_punch.dtls.handshake import Handshake
from ice_punch.dtls.repetition import Repetition
from ice_punch.dtls.roles import DtlsRole
from ice_punch.dtls.traffic import Traffic
from ice_punch.errors import (
    ChannelClosed,
    FingerprintMismatch,
    HandshakeFailed,
    InvalidConfiguration,
)
from ice_punch.sdp import Fingerprint

HANDSHAKE_TIMEOUT = 30.0
MIN_MTU = 256

# What a DTLS 1.2 AEAD record adds to its content at most: explicit nonce 8, tag 16.
_GREATEST_EXPANSION = 24
# OpenSSL calls a timer due 15 ms early; asking again sooner than this would only spin.
_LEAST_WAIT = 0.01


class State(Enum):
    NEW = "new"
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"


class DtlsMachine(Bulk):
    """One DTLS association with the peer at the other end of an ICE candidate pair.

    ``remote_fingerprints`` may be given later with `set_remote_fingerprints`. Until then the
    handshake rests where the peer would show its certificate: a bounded number of its records are
    held, so that nothing can complete, and nothing be delivered, unverified (RFC 8842 section 5.2,
    RFC 8122 section 6.2).

    ``mtu`` is the largest datagram to send, in bytes of UDP payload; ``handshake_timeout`` and
    ``rtt``, the round trip time that ICE measured, are in seconds. Raises `InvalidConfiguration`
    for an MTU below 256.

    ``srtp`` has profiles of SRTP agreed on, which nothing here uses: WebRTC stacks end the
    handshake where the peer knows of none, even for data channels alone.

    There is no cookie exchange: ICE has shown that the peer receives at its address.

    OpenSSL reads its own clock. Its retransmissions (RFC 6347 section 4.2.4) happen when
    ``handle_timer`` is called and real time has passed too; the repetitions of `Repetition` follow
    ``now`` alone.
    """

    def __init__(
        self,
        certificate: Certificate,
        role: DtlsRole,
        remote_fingerprints: Iterable[Fingerprint] | None = None,
        *,
        mtu: int = 1200,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        rtt: float | None = None,
        srtp: bool = False,
    ) -> None:
        _check_mtu(mtu)
        self.role = role
        self.counters = DtlsCounters()
        self._mtu = mtu
        self._expansion = _GREATEST_EXPANSION
        self._handshake_timeout = handshake_timeout
        self._repetition = Repetition(rtt)
        self._handshake: Handshake | None = Handshake(
            certificate,
            role,
            remote_fingerprints,
            mtu,
            self._repetition,
            self.counters,
            srtp=srtp,
        )
        self._connection = self._handshake.connection
        self._traffic: Traffic | None = None
        self._state = State.NEW
        self._outgoing: list[bytes] = []
        self._events: list[Event] = []
        self._handshake_deadline: float | None = None
        self._openssl_timer: float | None = None

    # Calls from above

    def start(self, now: float) -> None:
        """Begin: the client sends its ClientHello, the server waits (RFC 8842 section 5.3, 5.4).

        What arrived earlier is processed now. Does nothing when called again.
        """
        if self._state is not State.NEW:
            return
        self._state = State.HANDSHAKE
        self._handshake_deadline = now + self._handshake_timeout
        self._step(now)
        self._release_held(now)

    def set_remote_fingerprints(
        self, remote_fingerprints: Iterable[Fingerprint], now: float
    ) -> None:
        """Give the fingerprints of the peer's description; a waiting handshake goes on.

        Without effect once the handshake has ended: other fingerprints then mean another
        association (RFC 8842 section 4).
        """
        if self._handshake is not None:
            self._handshake.set_remote_fingerprints(remote_fingerprints)
            self._release_held(now)

    def send(self, data: Buffer, now: float) -> None:
        """Encrypt one datagram.

        Raises `ChannelClosed` unless the handshake is complete and neither side has closed,
        `DatagramTooLarge` above `max_datagram_size`, and `DatagramRefused` for an empty datagram,
        which receivers of DTLS do not deliver.
        """
        if self._traffic is None:
            raise self._not_open()
        try:
            self._outgoing.append(bytes(self._traffic.encrypt_one(data, None)))
        except SSL.Error as error:
            raise self._broken(error) from error

    def close(self, now: float) -> None:
        """End the association; the peer is told by close_notify if it was open."""
        if self._state is State.OPEN:
            self._send_close_notify()
        self._close(None)

    @property
    def mtu(self) -> int:
        """The largest datagram to send, in bytes of UDP payload."""
        return self._mtu

    def set_mtu(self, mtu: int) -> None:
        """The path carries datagrams of ``mtu`` bytes now, more or less than before.

        Raises `InvalidConfiguration` below 256.
        """
        _check_mtu(mtu)
        self._mtu = mtu
        if self._handshake is not None:
            self._handshake.set_mtu(mtu)
        else:
            self._connection.set_ciphertext_mtu(mtu)
        if self._traffic is not None:
            self._traffic.set_mtu(mtu)

    @property
    def max_datagram_size(self) -> int:
        """The largest datagram `send` takes, in bytes: it fits the MTU once encrypted.

        Exact once the handshake has completed; never too large before.
        """
        if self._traffic is not None:
            return self._traffic.max_datagram_size
        return min(self._mtu - records.HEADER_SIZE - self._expansion, GREATEST_CONTENT)

    # The sans-IO contract

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Take a datagram from the peer. Whatever it is, nothing is raised."""
        if self._traffic is not None and self._traffic.is_data(data):
            self._events += map(DatagramReceived, self._traffic.decrypt_one(data, now))
            return
        self.counters.datagrams_received += 1
        if self._state is State.CLOSED:
            self.counters.late += 1
            self._outgoing += self._repetition.alert_again(data, now)
            return
        arrived, whole = records.split_records(data)
        if not whole:
            self.counters.malformed += 1
        self._receive_records(arrived, now)

    def handle_timer(self, now: float) -> None:
        """Do what has come due at `get_timer`."""
        if self._handshake_deadline is not None and now >= self._handshake_deadline:
            self._fail(
                HandshakeFailed(f"no DTLS handshake within {self._handshake_timeout:g} seconds")
            )
            return
        if not self._is_waiting_for_peer():
            return
        if self._openssl_timer is not None and now >= self._openssl_timer:
            self._handle_openssl_timer(now)
        self._send_again(self._repetition.handle_timer(now))

    def get_timer(self) -> float | None:
        """When to call `handle_timer`; None while nothing is awaited."""
        if self._state is State.OPEN and self._openssl_timer is None:
            return self._repetition.get_timer()
        timers = [self._handshake_deadline]
        if self._is_waiting_for_peer():
            timers += (self._openssl_timer, self._repetition.get_timer())
        return min((t for t in timers if t is not None), default=None)

    @property
    def quiet(self) -> bool:
        """Whether there is neither anything to send nor any event."""
        return not (self._outgoing or self._events)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """What must go to the peer now, in order."""
        datagrams, self._outgoing = self._outgoing, []
        self.counters.datagrams_sent += len(datagrams)
        return datagrams

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""
        return self._events.pop(0) if self._events else None

    def _receive_records(self, arrived: list[bytes], now: float) -> None:
        # OpenSSL gets one record at a time: it drops one that its buffer of 16 KB cuts.
        for record in arrived:
            # OpenSSL up to 4.0.0 ends the association over a record without room for its tag,
            # which anybody can forge (RFC 6347 section 4.1.2.7).
            if self._state is State.CLOSED or records.is_cut_short(record, self._expansion):
                self.counters.discarded += 1
            elif self._state is State.OPEN:
                self._receive_open(record, now)
            else:
                self._receive_early(record, now)

    # The handshake

    def _is_waiting_for_peer(self) -> bool:
        """Whether retransmission timers run: not while it is we who hold the peer's records."""
        return self._state in (State.HANDSHAKE, State.OPEN) and not (
            self._handshake is not None and self._handshake.holds
        )

    def _receive_early(self, record: bytes, now: float) -> None:
        """One record before the end of the handshake."""
        assert self._handshake is not None
        if self._handshake.feed(record, started=self._state is not State.NEW):
            self._step(now)

    def _release_held(self, now: float) -> None:
        if self._state is not State.NEW and self._handshake is not None:
            self._receive_records(self._handshake.take_held(), now)

    def _step(self, now: float) -> None:
        """Let OpenSSL go as far as it can with what it has been fed."""
        assert self._handshake is not None
        try:
            fingerprint = self._handshake.step()
        except SSL.Error as error:
            self._handshake_error(self._handshake, error)
        except FingerprintMismatch as error:
            self._fail(error)
        else:
            self._take_flight(now)
            if fingerprint is None:
                self._set_openssl_timer(now)
            else:
                self._handshake_done(fingerprint, now)

    def _take_output(self) -> list[bytes]:
        return records.pack(openssl.read_records(self._connection), self._mtu)

    def _take_flight(self, now: float) -> None:
        """RFC 6347 section 4.2.4: what OpenSSL writes in one step is a flight, or part of one."""
        if flight := self._take_output():
            self._outgoing += flight
            self._repetition.start(flight, now)

    def _handshake_error(self, handshake: Handshake, error: SSL.Error) -> None:
        failure, output = handshake.failure(error, self._take_output())
        if failure is None:
            self._connection = handshake.connection
            return
        self._outgoing += output
        self._repetition.keep_alert(output)
        self._fail(failure)

    def _handshake_done(self, fingerprint: Fingerprint, now: float) -> None:
        connection, handshake = self._connection, self._handshake
        assert handshake is not None
        self._repetition.finish(self.role is DtlsRole.SERVER)
        self._state = State.OPEN
        self._handshake_deadline = self._handshake = None
        self._traffic = Traffic(
            connection,
            self._mtu,
            self.counters,
            greatest=handshake.greatest,
            on_data=self._repetition.forget,
            on_other=self._receive_other,
            on_dropped=self._on_dropped,
        )
        self._expansion = self._traffic.expansion
        self._set_openssl_timer(now)
        self._events.append(
            HandshakeCompleted(
                version=connection.get_protocol_version_name(),
                cipher=connection.get_cipher_name() or "unknown",
                peer_fingerprint=fingerprint,
            )
        )
        # RFC 6347 section 4.1.2.1: OpenSSL kept what overtook the last message of the handshake. A
        # read in vain would have it keep a read buffer of 16 KB too, until the next record.
        while handshake.overtaken and self._deliver_one(GREATEST_CONTENT):
            pass
        openssl.forget_handshake(connection)

    def _fail(self, error: HandshakeFailed) -> None:
        self._events.append(HandshakeFailedEvent(error))
        self._close(None)

    # Timers

    def _set_openssl_timer(self, now: float) -> None:
        wait = self._connection.DTLSv1_get_timeout()
        self._openssl_timer = None if wait is None else now + max(wait, _LEAST_WAIT)

    def _handle_openssl_timer(self, now: float) -> None:
        """RFC 6347 section 4.2.4.1: OpenSSL sends its flight again if its own clock agrees."""
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            if self._handshake is not None:
                self._handshake_error(self._handshake, error)
            return
        if flight := self._take_output():
            self._send_again(flight)
            self._repetition.renew(flight, now)
        self._set_openssl_timer(now)

    def _send_again(self, flight: list[bytes]) -> None:
        self._outgoing += flight
        self.counters.retransmitted += len(flight)

    # The open association

    def _not_open(self) -> ChannelClosed:
        return ChannelClosed(
            "the DTLS association is closed"
            if self._state is State.CLOSED
            else "the DTLS handshake is not complete"
        )

    def _broken(self, error: SSL.Error) -> ChannelClosed:
        self._close(PeerClosed(openssl.reason_of(error)))
        return ChannelClosed("the DTLS association is closed")

    def _receive_other(self, datagram: bytes, now: float) -> list[bytes]:
        """Take a datagram of any kind; what of it is for the application."""
        self.receive_datagram(datagram, now)
        received = [e.data for e in self._events if isinstance(e, DatagramReceived)]
        if received:
            self._events = [e for e in self._events if not isinstance(e, DatagramReceived)]
        return received

    def _on_dropped(self, count: int, error: SSL.Error | None, now: float) -> None:
        if error is not None:
            self.counters.discarded += count - 1
            self._end(error)
        elif output := self._take_output():
            # Only DTLS 1.3 answers what looks like data from outside.
            self._send_again(output)
            self._set_openssl_timer(now)
        else:
            self.counters.discarded += count

    def _receive_open(self, record: bytes, now: float) -> None:
        if self._is_out_of_place(record):
            self.counters.discarded += 1
            return
        self._connection.bio_write(record)
        if self._deliver_one(len(record)) or self._state is not State.OPEN:
            return
        if output := self._take_output():
            self._send_again(output)
        elif again := self._repetition.last_flight_again(record, now):
            self._send_again(again)
        else:
            self.counters.discarded += 1
        self._set_openssl_timer(now)

    def _is_out_of_place(self, record: bytes) -> bool:
        # Nothing unprotected means anything any more, alerts least of all. A ClientHello neither:
        # another association needs another transport address (RFC 8842 section 5.1).
        if records.epoch(record) == 0:
            return True
        # OpenSSL answers a repeated Finished in both roles, and two of them would never end.
        # RFC 6347 section 4.2.4: only the side that sent the last flight repeats it.
        return record[0] == records.HANDSHAKE and self.role is DtlsRole.CLIENT

    def _deliver_one(self, size: int) -> bool:
        """Whether there was one more datagram of at most ``size`` bytes to deliver."""
        try:
            data = self._connection.recv(size)
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            self._end(error)
            return False
        self.counters.application_received += 1
        self.counters.application_bytes += len(data)
        self._repetition.forget()
        self._events.append(DatagramReceived(data))
        return True

    # The end

    def _end(self, error: SSL.Error) -> None:
        """OpenSSL has come to the end of the association."""
        if isinstance(error, SSL.ZeroReturnError):
            # RFC 5246 section 7.2.1: answered with our own close_notify, then over
            self._send_close_notify()
            self._close(PeerClosed("close_notify"))
        else:
            self._outgoing += self._take_output()
            self._close(PeerClosed(openssl.reason_of(error)))

    def _send_close_notify(self) -> None:
        with suppress(SSL.Error):
            self._connection.shutdown()
        output = self._take_output()
        self._outgoing += output
        self._repetition.keep_alert(output)

    def _close(self, event: Event | None) -> None:
        self._state = State.CLOSED
        self._handshake_deadline = self._openssl_timer = self._handshake = None
        if self._traffic is not None:
            self._traffic.end()
            self._traffic = None
        if event is not None:
            self._events.append(event)


def _check_mtu(mtu: int) -> None:
    if mtu < MIN_MTU:
        raise InvalidConfiguration(f"an MTU of {mtu} bytes is below {MIN_MTU}")
