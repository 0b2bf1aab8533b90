"""How OpenSSL is set up. The only module that reaches below pyOpenSSL's public interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL, _util
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate

from ice_punch.dtls.certificate import Certificate
from ice_punch.dtls.records import split_records

DTLS_1_2, DTLS_1_3 = 0xFEFD, 0xFEFC

# RFC 8122 section 7: no NULL ciphers; forward secrecy and AEAD only. RSA certificates are taken
# too: several DTLS servers have nothing else.
CIPHERS = b":".join(
    b"ECDHE-%s-%s" % (certificate, cipher)
    for cipher in (b"AES128-GCM-SHA256", b"AES256-GCM-SHA384", b"CHACHA20-POLY1305")
    for certificate in (b"ECDSA", b"RSA")
)
_GROUPS = b"X25519:P-256:P-384"

_binding: Any = _util.lib
_ffi: Any = _util.ffi


def _has_dtls_1_3() -> bool:
    try:
        SSL.Context(SSL.DTLS_METHOD).set_max_proto_version(DTLS_1_3)
    except SSL.Error:
        return False
    return True


HAS_DTLS_1_3 = _has_dtls_1_3()


def make_context(certificate: Certificate, accept: Callable[[X509], bool]) -> SSL.Context:
    """A context that shows ``certificate`` and asks ``accept`` about the peer's own.

    DTLS 1.2 is the least; the highest that the library knows is the most.
    """
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(DTLS_1_2)
    context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(CIPHERS)
    # Older releases of cryptography have no such call; OpenSSL's own list then holds these too.
    set_groups = getattr(_binding, "SSL_CTX_set1_curves_list", None)
    if set_groups is not None:
        set_groups(context._context, _GROUPS)
    context.use_certificate(certificate.x509)
    context.use_privatekey(certificate.private_key)

    def verify(_: SSL.Connection, shown: X509, error: int, depth: int, ok: int) -> bool:
        # Chains, names and dates mean nothing here (RFC 8122 section 6.1): the fingerprint of the
        # end entity certificate does.
        return depth > 0 or accept(shown)

    # RFC 8122 section 6.2: the server requests a certificate, and both must show one
    mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(mode, verify)
    _reject_with_bad_certificate(context, mode)
    return context


def _reject_with_bad_certificate(context: SSL.Context, mode: int) -> None:
    """Name the reason of a rejection, from which OpenSSL derives the alert.

    Left alone it would send unknown_ca or internal_error; RFC 8122 section 6.2 requires
    bad_certificate.
    """
    private: Any = context
    inner = private._verify_callback

    @_ffi.callback("int (*)(int, X509_STORE_CTX *)")  # type: ignore[untyped-decorator]
    def verify(ok: int, store: Any) -> int:
        accepted: int = inner(ok, store)
        if not accepted:
            _binding.X509_STORE_CTX_set_error(store, _binding.X509_V_ERR_CERT_REJECTED)
        return accepted

    # Connections keep this attribute of their context alive as long as they live.
    private._verify_callback = verify
    _binding.SSL_CTX_set_verify(private._context, mode, verify)


def make_connection(context: SSL.Context, is_client: bool, mtu: int) -> SSL.Connection:
    """An association between two memory buffers, its datagrams at most ``mtu`` bytes."""
    connection = SSL.Connection(context)
    connection.set_ciphertext_mtu(mtu)
    if is_client:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    return connection


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
