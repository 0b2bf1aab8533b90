"""How OpenSSL is set up."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate

from ice_punch.dtls import bindings, ciphers
from ice_punch.dtls.certificate import Certificate
from ice_punch.dtls.records import split_records

DTLS_1_2, DTLS_1_3 = 0xFEFD, 0xFEFC

_CPU_INFO = 9
_PRIORITIZE_CHACHA = 1 << 21
_GROUPS = b"X25519:P-256:P-384"
_SRTP_PROFILES = b"SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80"

HAS_AES = ciphers.has_aes(SSL.OpenSSL_version(_CPU_INFO).decode("ascii", "replace"))
CIPHERS = ciphers.suites(HAS_AES)
CIPHERS_1_3 = ciphers.suites_1_3(HAS_AES)


def _has_dtls_1_3() -> bool:
    try:
        SSL.Context(SSL.DTLS_METHOD).set_max_proto_version(DTLS_1_3)
    except SSL.Error:
        return False
    return True


HAS_DTLS_1_3 = _has_dtls_1_3()


@cache
def _context(suites: bytes, suites_1_3: bytes, srtp: bool) -> SSL.Context:
    """What all associations share: everything but certificates and whom they accept.

    DTLS 1.2 is the least; the highest that the library knows is the most.
    """
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(DTLS_1_2)
    context.set_options(
        SSL.OP_NO_QUERY_MTU
        | SSL.OP_NO_TICKET
        | SSL.OP_NO_RENEGOTIATION
        # A side without AES in hardware names ChaCha20 first, whichever side that is.
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | _PRIORITIZE_CHACHA
    )
    # A buffer of 16 KB less for each direction in which nothing is under way.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(suites)
    if HAS_DTLS_1_3:
        context.set_tls13_ciphersuites(suites_1_3)
    bindings.set_groups(context, _GROUPS)
    if srtp:
        context.set_tlsext_use_srtp(_SRTP_PROFILES)
    # RFC 8122 section 6.2: the server requests a certificate, and both must show one
    mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(mode, _verify)
    bindings.reject_with_bad_certificate(context, mode)
    return context


def _verify(connection: SSL.Connection, shown: X509, error: int, depth: int, ok: int) -> bool:
    # Chains, names and dates mean nothing here (RFC 8122 section 6.1): the fingerprint of the end
    # entity certificate does.
    accept: Callable[[X509], bool] = connection.get_app_data()
    return depth > 0 or accept(shown)


def make_connection(
    certificate: Certificate,
    accept: Callable[[X509], bool],
    is_client: bool,
    mtu: int,
    *,
    srtp: bool = False,
) -> SSL.Connection:
    """An association between two memory buffers, its datagrams at most ``mtu`` bytes.

    ``srtp``: profiles of SRTP are agreed on (RFC 5764 section 4.1).

    It shows ``certificate`` and asks ``accept``, which raises nothing, about the peer's own.
    """
    connection = SSL.Connection(_context(CIPHERS, CIPHERS_1_3, srtp))
    connection.use_certificate(certificate.x509)
    connection.use_privatekey(certificate.private_key)
    connection.set_app_data(accept)
    connection.set_ciphertext_mtu(mtu)
    if is_client:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    return connection


@cache
def _bare_context() -> SSL.Context:
    return SSL.Context(SSL.DTLS_METHOD)


def forget_handshake(connection: SSL.Connection) -> None:
    """Let go of what only handshakes need, of which there is no other: 6 kB of certificate and key
    in OpenSSL's form, and whom to accept. From now on nobody is."""
    connection.set_app_data(_nobody)
    connection.set_context(_bare_context())


def _nobody(_: X509) -> bool:
    return False


def read_records(connection: SSL.Connection) -> list[bytes]:
    """All that OpenSSL has written and nobody has read yet."""
    output = b""
    while True:
        try:
            output += connection.bio_read(65536)
        except SSL.WantReadError:
            return split_records(output)[0]


def der_of(certificate: X509) -> bytes:
    """The DER form, over which fingerprints are made."""
    return dump_certificate(FILETYPE_ASN1, certificate)


def reason_of(error: SSL.Error) -> str:
    """OpenSSL's words for an error, such as ``no shared cipher``."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return str(queue[-1][-1]) or "unknown error"
    return "unknown error"
