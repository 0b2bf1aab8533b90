"""The handshake of an association: what OpenSSL hears of it, and whom it believes."""

from __future__ import annotations

from collections.abc import Iterable

from OpenSSL import SSL
from OpenSSL.crypto import X509

from ice_punch.dtls import admission, fingerprints, openssl, records
from ice_punch.dtls.bindings import GREATEST_CONTENT
from ice_punch.dtls.certificate import Certificate
from ice_punch.dtls.events import DtlsCounters
from ice_punch.dtls.hold import HeldRecords
from ice_punch.dtls.repetition import Repetition
from ice_punch.dtls.roles import DtlsRole
from ice_punch.errors import FingerprintMismatch, HandshakeFailed
from ice_punch.sdp import Fingerprint

_MISMATCH = "the peer's DTLS certificate is not the one its description announced"
_CLIENT_HELLO = 1
_BAD_CERTIFICATE = 42
# RFC 5246 section 7.2.2: alerts over a ClientHello that was understood, and can not be served:
# handshake_failure, bad_certificate .. certificate_unknown, protocol_version,
# insufficient_security. Any other is about bytes that no client would send.
_REFUSALS = frozenset((40, 42, 43, 44, 45, 46, 70, 71))


class Handshake:
    """OpenSSL up to the moment when both sides have keys and have shown their certificates.

    Until there are ``remote_fingerprints`` it rests where the peer would show its certificate.
    """

    def __init__(
        self,
        certificate: Certificate,
        role: DtlsRole,
        remote_fingerprints: Iterable[Fingerprint] | None,
        mtu: int,
        repetition: Repetition,
        counters: DtlsCounters,
        *,
        srtp: bool,
    ) -> None:
        self.overtaken = False
        """Whether a protected record came before the end of the handshake, which OpenSSL keeps."""
        self.greatest = GREATEST_CONTENT
        """Bytes that a record may have in it, by what the peer has asked for."""
        self._certificate = certificate
        self._role = role
        self._fingerprints = None if remote_fingerprints is None else tuple(remote_fingerprints)
        self._mtu = mtu
        self._srtp = srtp
        self._repetition = repetition
        self._counters = counters
        self._matched: Fingerprint | None = None
        self._mismatch = False
        self._plaintext_records = 0
        self._held = HeldRecords()
        self.connection = self._make_connection()

    def _make_connection(self) -> SSL.Connection:
        is_client = self._role is DtlsRole.CLIENT
        return openssl.make_connection(
            self._certificate, self._accept, is_client, self._mtu, srtp=self._srtp
        )

    def set_mtu(self, mtu: int) -> None:
        """As of the machine."""
        self._mtu = mtu
        self.connection.set_ciphertext_mtu(mtu)

    def set_remote_fingerprints(self, remote_fingerprints: Iterable[Fingerprint]) -> None:
        """Whom to believe; ``take_held`` gives what has waited for it."""
        self._fingerprints = tuple(remote_fingerprints)

    # The peer's records

    @property
    def holds(self) -> bool:
        """Whether records of the peer's wait here."""
        return bool(self._held)

    def take_held(self) -> list[bytes]:
        """The records that have waited, in order."""
        return self._held.take()

    def feed(self, record: bytes, *, started: bool) -> bool:
        """One record from the peer. Whether OpenSSL has it, and should be let go on."""
        from_server = self._role is DtlsRole.CLIENT
        begun = from_server or self._repetition.has_flight
        if not admission.is_in_place(record, from_server=from_server, begun=begun):
            self._counters.discarded += 1
            return False
        # Without fingerprints only the hellos: what follows them carries the certificate.
        if not started or (self._fingerprints is None and not admission.is_hello(record)):
            if not self._held.add(record):
                self._counters.held_dropped += 1
            return False
        # Before there are keys the replay window protects nothing (RFC 6347 section 4.1.2.6), and
        # harms: one forged number moves it past all that is genuine, and it drops the repetition
        # of a record that came out of turn. DTLS 1.3 acknowledges records by their numbers.
        if not openssl.HAS_DTLS_1_3 and records.epoch(record) == 0:
            record = records.renumbered(record, self._plaintext_records)
            self._plaintext_records += 1
        elif record[0] != records.HANDSHAKE:
            self.overtaken = True
        if not from_server and records.handshake_type(record) == _CLIENT_HELLO:
            self.greatest = min(self.greatest, records.max_fragment_length(record))
        self.connection.bio_write(record)
        return True

    # The outcome

    def step(self) -> Fingerprint | None:
        """Let OpenSSL go as far as it can: the peer's fingerprint once all is done, None while more
        is to come. Raises SSL.Error where OpenSSL does, for `failure`, and FingerprintMismatch."""
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return None
        shown = self.connection.get_peer_certificate()
        # OpenSSL has asked already. This is the one place that opens the association, so it looks
        # for itself (RFC 8842 section 5.1).
        if shown is None or not self._accept(shown) or self._matched is None:
            raise FingerprintMismatch(_MISMATCH)
        return self._matched

    def _accept(self, shown: X509) -> bool:
        """OpenSSL asks; it sends the alert and ends the handshake if the answer is no."""
        der = openssl.der_of(shown)
        self._matched = fingerprints.match(der, self._fingerprints or ())
        self._mismatch = self._matched is None
        return not self._mismatch

    def failure(
        self, error: SSL.Error, output: list[bytes]
    ) -> tuple[HandshakeFailed | None, list[bytes]]:
        """What OpenSSL's error means, and what to tell the peer of its ``output``. None: nothing,
        and all begins anew."""
        if isinstance(error, SSL.ZeroReturnError):
            return HandshakeFailed("the peer closed the association during the handshake"), []
        reason = openssl.reason_of(error)
        alert = records.plain_alert(output[-1]) if output else None
        if (
            self._role is DtlsRole.SERVER
            and not self._repetition.has_flight
            and alert not in _REFUSALS
        ):
            # RFC 6347 section 4.1.2.7: no association exists yet that this could be the end of.
            # The client's own ClientHello is still to come.
            self._counters.discarded += 1
            self.connection = self._make_connection()
            return None, []
        if reason == "peer did not return a certificate":
            # RFC 8122 section 6.2 wants bad_certificate where OpenSSL says handshake_failure.
            output = [records.with_alert(d, _BAD_CERTIFICATE) for d in output]
        if self._mismatch:
            return FingerprintMismatch(_MISMATCH), output
        if "alert" in reason:
            return HandshakeFailed(f"the peer refused the DTLS handshake: {reason}"), output
        return HandshakeFailed(f"the DTLS handshake failed: {reason}"), output
