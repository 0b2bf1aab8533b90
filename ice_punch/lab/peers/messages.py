"""The messages of checks, RFC 8445 section 7, for peers that share nothing with our agent."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.ice import Credentials
from ice_punch.stun import (
    ERROR_CODE,
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    PRIORITY,
    USE_CANDIDATE,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    ErrorCode,
    Message,
    MessageClass,
    Method,
    response_to,
)

REASONS = {400: "Bad Request", 401: "Unauthenticated", 487: "Role Conflict"}


@dataclass(frozen=True, slots=True)
class Check:
    """A check that the peer sent, authenticated."""

    source: Address
    local: Address
    priority: int
    controlling: bool
    """Whether the peer believes so of itself."""
    tie_breaker: int
    use_candidate: bool


def write_check(
    transaction_id: bytes,
    ours: Credentials,
    theirs: Credentials,
    *,
    priority: int,
    controlling: bool,
    tie_breaker: int,
    use_candidate: bool,
) -> bytes:
    request = Message(Method.BINDING, MessageClass.REQUEST, transaction_id)
    request.add(USERNAME, f"{theirs.ufrag}:{ours.ufrag}")
    request.add(PRIORITY, priority)
    request.add(ICE_CONTROLLING if controlling else ICE_CONTROLLED, tie_breaker)
    if use_candidate:
        request.add(USE_CANDIDATE, True)
    return request.to_bytes(key=theirs.key)


def read_check(request: Message, source: Address, local: Address, ours: Credentials) -> Check | int:
    """The check, or the code of the error to answer with."""
    username, priority = request.get(USERNAME), request.get(PRIORITY)
    controlling, controlled = request.get(ICE_CONTROLLING), request.get(ICE_CONTROLLED)
    if username is None or not request.integrity:
        return 400
    if username.partition(":")[0] != ours.ufrag or not request.verify(ours.key):
        return 401
    tie_breaker = controlled if controlling is None else controlling
    if priority is None or tie_breaker is None:
        return 400
    return Check(
        source,
        local,
        priority,
        controlling=controlling is not None,
        tie_breaker=tie_breaker,
        use_candidate=request.get(USE_CANDIDATE) is not None,
    )


def write_success(request: Message, source: Address, ours: Credentials) -> bytes:
    response = response_to(request, MessageClass.SUCCESS)
    response.add(XOR_MAPPED_ADDRESS, source)
    return response.to_bytes(key=ours.key)


def write_error(request: Message, code: int, ours: Credentials) -> bytes:
    """400 and 401 are not protected (RFC 8489 section 9.1.3)."""
    response = response_to(request, MessageClass.ERROR)
    response.add(ERROR_CODE, ErrorCode(code, REASONS[code]))
    return response.to_bytes(key=ours.key if code == 487 else None)


def write_keepalive(transaction_id: bytes) -> bytes:
    """A Binding indication, RFC 8445 section 11."""
    return Message(Method.BINDING, MessageClass.INDICATION, transaction_id).to_bytes()
