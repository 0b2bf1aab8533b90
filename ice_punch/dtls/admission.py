"""Which records may reach OpenSSL while the handshake is on, and nothing is authenticated yet.

RFC 6347 section 4.1.2.7: an invalid record is dropped silently, and the association lives on.
OpenSSL would end it over nearly all that is turned away here.
"""

from __future__ import annotations

from ice_punch.dtls.records import (
    ALERT,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    HEADER_SIZE,
    epoch,
    handshake_type,
)

_CLIENT_HELLO, _HELLO_VERIFY_REQUEST = 1, 3
# RFC 5246 section 7.4, RFC 6347 section 4.3.2: what each side may send unprotected. HelloRequest
# is ignored during a handshake (RFC 5246 section 7.4.1.1), Finished is never unprotected.
_FROM_CLIENT = frozenset((_CLIENT_HELLO, 11, 15, 16))
_FROM_SERVER = frozenset((2, _HELLO_VERIFY_REQUEST, 4, 11, 12, 13, 14, 22))
_FATAL = 2
_CLOSE_NOTIFY = b"\x01\x00"
_FRAGMENT_HEADER_SIZE = 12
_MAX_MESSAGE_SIZE = 100 * 1024


def is_in_place(record: bytes, *, from_server: bool, begun: bool) -> bool:
    """Whether a record can be part of a handshake that has, or has not, begun."""
    kind = handshake_type(record)
    if epoch(record) == 0:
        expected = _FROM_SERVER if from_server else _FROM_CLIENT
        if not is_sane_plaintext(record) or kind not in (None, *expected):
            return False
    # Before a ClientHello there is no handshake that anything else could be about.
    return begun or kind == _CLIENT_HELLO


def is_hello(record: bytes) -> bool:
    """Whether a record comes before any certificate in a handshake."""
    return handshake_type(record) in (_CLIENT_HELLO, _HELLO_VERIFY_REQUEST)


def is_sane_plaintext(record: bytes) -> bool:
    """Whether an unprotected record can be part of a handshake at all."""
    kind, body = record[0], record[HEADER_SIZE:]
    if kind == CHANGE_CIPHER_SPEC:
        return body == b"\x01"
    if kind == ALERT:
        # Of warnings only close_notify means anything before the end of the handshake.
        return len(body) == 2 and (body[0] == _FATAL or body == _CLOSE_NOTIFY)
    return kind == HANDSHAKE and _are_sane_fragments(body)


def _are_sane_fragments(body: bytes) -> bool:
    """RFC 6347 section 4.2.2: fragments lie within their messages, and fill the record."""
    start = 0
    while start < len(body):
        length = int.from_bytes(body[start + 1 : start + 4])
        offset = int.from_bytes(body[start + 6 : start + 9])
        fragment = int.from_bytes(body[start + 9 : start + 12])
        if length > _MAX_MESSAGE_SIZE or offset + fragment > length:
            return False
        start += _FRAGMENT_HEADER_SIZE + fragment
    return start == len(body) > 0
