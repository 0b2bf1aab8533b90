"""The certificate an endpoint shows, and its fingerprints (RFC 8122 section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ice_punch.dtls.fingerprints import PREFERENCE
from ice_punch.errors import InvalidConfiguration
from ice_punch.sdp import Fingerprint

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_NOT_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)
# RFC 5280 section 4.1.2.5: no well-defined expiration date
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate with its private key."""

    x509: x509.Certificate
    private_key: PrivateKey = field(repr=False)

    @classmethod
    def generate(
        cls, not_before: datetime = _NOT_BEFORE, not_after: datetime = _NOT_AFTER
    ) -> Certificate:
        """A fresh self-signed ECDSA P-256 certificate with a random serial number and subject.

        The validity says nothing unless asked to: trust comes from the fingerprint alone, and a
        date of issue would tell observers of the handshake about our clock.
        """
        private_key = ec.generate_private_key(ec.SECP256R1())
        serial_number = x509.random_serial_number()
        # A second random number: the subject is no place to repeat the first.
        common_name = f"{x509.random_serial_number():040x}"[:16]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private_key.public_key())
            .serial_number(serial_number)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .sign(private_key, hashes.SHA256())
        )
        return cls(certificate, private_key)

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None) -> Certificate:
        """Read a certificate and its private key (EC or RSA) from one PEM text.

        Raises `InvalidConfiguration` when either is missing, unreadable or not the other's.
        """
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            private_key = serialization.load_pem_private_key(_private_key_part(pem), password)
        except (ValueError, TypeError) as error:
            raise InvalidConfiguration(f"no usable certificate with a key: {error}") from error
        if not isinstance(private_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise InvalidConfiguration("the private key is neither EC nor RSA")
        if private_key.public_key() != certificate.public_key():
            raise InvalidConfiguration("the private key is not the certificate's")
        return cls(certificate, private_key)

    def to_pem(self) -> bytes:
        """Certificate and private key, unencrypted, as `from_pem` reads them."""
        return self.x509.public_bytes(serialization.Encoding.PEM) + self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def fingerprint(self, algorithm: str = "sha-256") -> Fingerprint:
        """The fingerprint under one hash function of RFC 8122 section 5.

        Raises `InvalidDescription` for an unknown hash, and for MD5 and MD2, which MUST NOT be
        used.
        """
        return Fingerprint.of(self.x509.public_bytes(serialization.Encoding.DER), algorithm)

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """What a description must carry: SHA-256, and the hash of the certificate's signature.

        RFC 8122 section 5.1; a signature by a hash that makes no fingerprints adds nothing.
        """
        signature_hash = self.x509.signature_hash_algorithm
        own = "" if signature_hash is None else signature_hash.name.replace("sha", "sha-")
        algorithms = dict.fromkeys(("sha-256", own if own in PREFERENCE else "sha-256"))
        return tuple(self.fingerprint(algorithm) for algorithm in algorithms)


def _private_key_part(pem: bytes) -> bytes:
    """From the private key's first line on: keys may follow certificates in one text."""
    for line in pem.splitlines():
        if line.startswith(b"-----BEGIN") and line.rstrip().endswith(b"PRIVATE KEY-----"):
            return pem[pem.index(line) :]
    raise ValueError("there is no private key")
