"""The Binding messages of connectivity and consent checks, RFC 8445 section 7 and RFC 7675."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ice_punch.datagram import Address
from ice_punch.stun import (
    ERROR_CODE,
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    NOMINATION,
    PRIORITY,
    UNKNOWN_ATTRIBUTES,
    USE_CANDIDATE,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    ErrorCode,
    Integrity,
    Message,
    MessageClass,
    Method,
    encode_attribute,
    encode_message,
    encode_message_type,
    response_to,
    short_term_key,
)

SESSIONS_REMEMBERED: Final = 1024
"""Those of whose checks the attributes that never change are kept encoded; they are no secret."""

_REQUEST: Final = encode_message_type(Method.BINDING, MessageClass.REQUEST)
_SUCCESS: Final = encode_message_type(Method.BINDING, MessageClass.SUCCESS)
_NOMINATES: Final = encode_attribute(USE_CANDIDATE, True)
_SHA1: Final = (Integrity.SHA1,)
_SHA256: Final = (Integrity.SHA256,)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A side's user name fragment and password (RFC 8445 section 5.3)."""

    ufrag: str
    pwd: str

    @property
    def key(self) -> bytes:
        return short_term_key(self.pwd)

    def __repr__(self) -> str:
        return f"Credentials(ufrag={self.ufrag!r})"


def check_request(
    transaction_id: bytes,
    *,
    local_ufrag: str,
    remote: Credentials,
    priority: int,
    controlling: bool,
    tie_breaker: int,
    nominate: bool,
    nomination: int = 0,
) -> bytes:
    """A check, RFC 8445 section 7.2.2; ``nomination`` numbers one that replaces another."""
    attributes = (
        _username(f"{remote.ufrag}:{local_ufrag}")
        + encode_attribute(PRIORITY, priority)
        + _role(controlling, tie_breaker)
    )
    if nominate:
        attributes += _NOMINATES
    if nomination:
        attributes += encode_attribute(NOMINATION, nomination)
    return encode_message(_REQUEST, transaction_id, attributes, key=remote.key)


@lru_cache(maxsize=SESSIONS_REMEMBERED)
def _username(username: str) -> bytes:
    return encode_attribute(USERNAME, username)


@lru_cache(maxsize=SESSIONS_REMEMBERED)
def _role(controlling: bool, tie_breaker: int) -> bytes:
    return encode_attribute(ICE_CONTROLLING if controlling else ICE_CONTROLLED, tie_breaker)


def success_response(request: Message, source: Address, key: bytes) -> bytes:
    """The answer to a check, RFC 8445 section 7.3.1.2."""
    transaction_id = request.transaction_id
    return encode_message(
        _SUCCESS,
        transaction_id,
        encode_attribute(XOR_MAPPED_ADDRESS, source, transaction_id),
        key=key,
        algorithms=response_algorithms(request),
    )


def error_response(
    request: Message,
    code: int,
    reason: str,
    *,
    key: bytes | None = None,
    unknown: tuple[int, ...] = (),
) -> bytes:
    """An error response. 400 and 401 go out without integrity (RFC 8489 section 9.1.3)."""
    response = response_to(request, MessageClass.ERROR)
    response.add(ERROR_CODE, ErrorCode(code, reason))
    if unknown:
        response.add(UNKNOWN_ATTRIBUTES, unknown)
    if key is None:
        return response.to_bytes()
    return response.to_bytes(key=key, algorithms=response_algorithms(request))


def response_algorithms(request: Message) -> tuple[Integrity, ...]:
    """RFC 8489 section 9.1.3: MESSAGE-INTEGRITY-SHA256 answers its like."""
    return _SHA256 if Integrity.SHA256 in request.integrity else _SHA1


@dataclass(frozen=True, slots=True)
class CheckReceived:
    """An authenticated check from the peer."""

    request: Message
    source: Address
    local: Address
    remote_ufrag: str
    priority: int
    controlling: int | None
    """The sender's tie-breaker, when it believes it is controlling."""
    controlled: int | None
    use_candidate: bool
    nomination: int = 0
    """The number of a nomination that replaces another; 0 for one of RFC 8445."""


@dataclass(frozen=True, slots=True)
class CheckRefused:
    """What to answer to a request that is no valid check; ``response`` None drops it."""

    counter: str
    response: bytes | None


def examine_request(
    request: Message, source: Address, local: Address, credentials: Credentials
) -> CheckReceived | CheckRefused:
    """RFC 8445 section 7.3 and RFC 8489 sections 9.1.3 and 6.3.1."""
    username = request.get(USERNAME)
    if not request.integrity or username is None:
        return CheckRefused("requests_unauthenticated", error_response(request, 400, "Bad Request"))
    ours, separator, theirs = username.partition(":")
    algorithm = Integrity.SHA256 if Integrity.SHA256 in request.integrity else Integrity.SHA1
    if not separator or ours != credentials.ufrag or not request.verify(credentials.key, algorithm):
        return CheckRefused(
            "requests_unauthenticated", error_response(request, 401, "Unauthenticated")
        )
    key = credentials.key
    if request.unknown_required:
        return CheckRefused(
            "requests_with_unknown_attributes",
            error_response(
                request, 420, "Unknown Attribute", key=key, unknown=request.unknown_required
            ),
        )
    priority = request.get(PRIORITY)
    controlling, controlled = request.get(ICE_CONTROLLING), request.get(ICE_CONTROLLED)
    if not priority or (controlling is None) == (controlled is None):
        # RFC 8445 sections 7.1.1 to 7.1.3 demand PRIORITY and exactly one role.
        return CheckRefused(
            "requests_incomplete", error_response(request, 400, "Bad Request", key=key)
        )
    return CheckReceived(
        request=request,
        source=source,
        local=local,
        remote_ufrag=theirs,
        priority=priority,
        controlling=controlling,
        controlled=controlled,
        use_candidate=request.get(USE_CANDIDATE) is not None,
        nomination=request.get(NOMINATION) or 0,
    )
