"""Certificates and what is announced of them: RFC 8122 section 5."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dtls_support import ALICE, BOB, rsa_certificate

from ice_punch.dtls import Certificate
from ice_punch.errors import InvalidConfiguration, InvalidDescription
from ice_punch.sdp import Fingerprint


def test_a_generated_certificate_is_self_signed_p256() -> None:
    certificate = ALICE.x509
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)


def test_generated_certificates_have_nothing_in_common() -> None:
    assert ALICE.x509.serial_number != BOB.x509.serial_number
    assert ALICE.x509.subject != BOB.x509.subject
    assert ALICE.fingerprint() != BOB.fingerprint()


def test_validity_is_wide_and_tells_nothing_of_our_clock() -> None:
    assert ALICE.x509.not_valid_before_utc == BOB.x509.not_valid_before_utc
    assert ALICE.x509.not_valid_before_utc.year == 2000
    assert ALICE.x509.not_valid_after_utc.year == 9999


def test_validity_can_be_asked_for() -> None:
    start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    certificate = Certificate.generate(start, end).x509
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (start, end)


@pytest.mark.parametrize("algorithm", ["sha-1", "sha-224", "sha-256", "sha-384", "sha-512"])
def test_a_fingerprint_is_the_hash_of_the_der_form(algorithm: str) -> None:
    """RFC 8122 section 5."""
    der = ALICE.x509.public_bytes(serialization.Encoding.DER)
    expected = hashlib.new(algorithm.replace("-", ""), der).digest()
    assert ALICE.fingerprint(algorithm.upper()) == Fingerprint(algorithm, expected)


@pytest.mark.parametrize("algorithm", ["md5", "md2", "crc32"])
def test_md5_and_md2_are_never_used(algorithm: str) -> None:
    """RFC 8122 section 5."""
    with pytest.raises(InvalidDescription):
        ALICE.fingerprint(algorithm)


def test_descriptions_carry_sha256_and_the_hash_of_the_signature() -> None:
    """RFC 8122 section 5.1."""
    assert ALICE.fingerprints() == (ALICE.fingerprint("sha-256"),)
    key = ec.generate_private_key(ec.SECP384R1())
    builder_certificate = rsa_certificate().x509
    with_sha384 = Certificate(_resigned(builder_certificate, key), key)
    assert [f.algorithm for f in with_sha384.fingerprints()] == ["sha-256", "sha-384"]


def test_a_certificate_survives_pem() -> None:
    for certificate in (ALICE, rsa_certificate()):
        again = Certificate.from_pem(certificate.to_pem())
        assert again.fingerprint() == certificate.fingerprint()


def test_unusable_pem_is_a_typed_error() -> None:
    certificate_only = ALICE.x509.public_bytes(serialization.Encoding.PEM)
    key_only = ALICE.to_pem().removeprefix(certificate_only)
    other_key = BOB.to_pem().removeprefix(BOB.x509.public_bytes(serialization.Encoding.PEM))
    for pem in (b"", b"nonsense", certificate_only, key_only, certificate_only + other_key):
        with pytest.raises(InvalidConfiguration):
            Certificate.from_pem(pem)


def test_the_private_key_is_not_in_the_representation() -> None:
    assert "private" not in repr(ALICE).lower()


def _resigned(template: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(template.subject)
        .issuer_name(template.subject)
        .public_key(key.public_key())
        .serial_number(2)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(key, hashes.SHA384())
    )
