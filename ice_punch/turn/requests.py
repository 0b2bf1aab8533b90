"""A server's answers to Allocate, Refresh, CreatePermission and ChannelBind requests: RFC 8656
sections 7.2, 8.2, 10.2 and 12.2. Authentication is done before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ice_punch.datagram import Address
from ice_punch.stun import (
    ADDITIONAL_ADDRESS_FAMILY,
    ADDRESS_ERROR_CODE,
    CHANNEL_NUMBER,
    EVEN_PORT,
    LIFETIME,
    REQUESTED_ADDRESS_FAMILY,
    REQUESTED_TRANSPORT,
    RESERVATION_TOKEN,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    AddressErrorCode,
    ErrorCode,
    Message,
    MessageClass,
    StunParseError,
    response_to,
)
from ice_punch.turn.allocation import Allocation
from ice_punch.turn.allocations import INSUFFICIENT_CAPACITY, UNSUPPORTED_FAMILY, Allocations
from ice_punch.turn.authentication import BAD_REQUEST, Authenticated, FiveTuple
from ice_punch.turn.constants import (
    FIRST_CHANNEL,
    IPV4,
    IPV6,
    LAST_CHANNEL,
    UDP,
    family_of,
)
from ice_punch.turn.limits import TurnLimits
from ice_punch.turn.peer_filter import PeerFilter, is_tunneled

FORBIDDEN: Final = ErrorCode(403, "Forbidden")
ALLOCATION_MISMATCH: Final = ErrorCode(437, "Allocation Mismatch")
UNSUPPORTED_TRANSPORT: Final = ErrorCode(442, "Unsupported Transport Protocol")
PEER_FAMILY_MISMATCH: Final = ErrorCode(443, "Peer Address Family Mismatch")


class Requests:
    """Every method returns the response, or the error to respond with."""

    def __init__(
        self,
        allocations: Allocations,
        limits: TurnLimits,
        peer_filter: PeerFilter,
        owner: Callable[[str], str],
    ) -> None:
        self._allocations = allocations
        self._limits = limits
        self._peer_filter = peer_filter
        self._owner = owner

    def allocate(
        self, request: Message, five_tuple: FiveTuple, user: Authenticated, now: float
    ) -> Message | ErrorCode:
        existing = self._allocations.get(five_tuple, now)
        if existing is not None:
            # Section 7.2, the last note: a repetition of the request gets the same answer.
            if existing.transaction_id != request.transaction_id:
                return ALLOCATION_MISMATCH
            return self._allocated(request, existing, [], now)
        if is_tunneled(five_tuple.client[0]):
            return FORBIDDEN
        transport = request.get(REQUESTED_TRANSPORT)
        if transport is None:
            return BAD_REQUEST
        if transport != UDP:
            return UNSUPPORTED_TRANSPORT
        families = _families(request)
        if isinstance(families, ErrorCode):
            return families
        even = request.get(EVEN_PORT)
        made = self._allocations.create(
            five_tuple,
            request.transaction_id,
            user,
            self._owner(user.username),
            families,
            self._lifetime(request),
            now,
            even=even is not None,
            reserve_next=bool(even),
            token=request.get(RESERVATION_TOKEN),
        )
        if isinstance(made, ErrorCode):
            return made
        allocation, lacking = made
        return self._allocated(request, allocation, lacking, now)

    def _allocated(
        self,
        request: Message,
        allocation: Allocation,
        lacking: list[AddressErrorCode],
        now: float,
    ) -> Message:
        response = response_to(request, MessageClass.SUCCESS)
        for relayed in allocation.relayed.values():
            response.add(XOR_RELAYED_ADDRESS, relayed.address)
        response.add(LIFETIME, allocation.lifetime(now))
        response.add(XOR_MAPPED_ADDRESS, allocation.five_tuple.client)
        if allocation.token is not None:
            response.add(RESERVATION_TOKEN, allocation.token)
        for family in lacking:
            response.add(ADDRESS_ERROR_CODE, family)
        return response

    def _lifetime(self, request: Message) -> float:
        """Sections 7.2 and 8.2; a wanted lifetime of zero is the caller's matter."""
        wanted = request.get(LIFETIME) or 0
        return max(min(wanted, self._limits.max_lifetime), self._limits.default_lifetime)

    def refresh(self, request: Message, allocation: Allocation, now: float) -> Message | ErrorCode:
        family = request.get(REQUESTED_ADDRESS_FAMILY)
        if family is not None and family not in allocation.relayed:
            return PEER_FAMILY_MISMATCH
        families = tuple(allocation.relayed) if family is None else (family,)
        lifetime = 0.0 if request.get(LIFETIME) == 0 else self._lifetime(request)
        self._allocations.refresh(allocation, families, lifetime, now)
        response = response_to(request, MessageClass.SUCCESS)
        response.add(LIFETIME, round(lifetime))
        return response

    def create_permission(
        self, request: Message, allocation: Allocation, now: float
    ) -> Message | ErrorCode:
        try:
            peers = request.get_all(XOR_PEER_ADDRESS)
        except StunParseError:
            return BAD_REQUEST
        if not peers:
            return BAD_REQUEST
        for peer in peers:
            error = self._refusal(peer, allocation)
            if error is not None:
                return error
        for ip, _ in peers:
            if not allocation.permit(ip, now, self._limits.permissions):
                return INSUFFICIENT_CAPACITY
        return response_to(request, MessageClass.SUCCESS)

    def channel_bind(
        self, request: Message, allocation: Allocation, now: float
    ) -> Message | ErrorCode:
        number, peer = request.get(CHANNEL_NUMBER), request.get(XOR_PEER_ADDRESS)
        if number is None or peer is None or not FIRST_CHANNEL <= number <= LAST_CHANNEL:
            return BAD_REQUEST
        if peer[1] == 0 or not allocation.is_consistent(number, peer, now):
            return BAD_REQUEST
        error = self._refusal(peer, allocation)
        if error is not None:
            return error
        if not allocation.permit(peer[0], now, self._limits.permissions):
            return INSUFFICIENT_CAPACITY
        if not allocation.bind(number, peer, now, self._limits.channels):
            return INSUFFICIENT_CAPACITY
        return response_to(request, MessageClass.SUCCESS)

    def _refusal(self, peer: Address, allocation: Allocation) -> ErrorCode | None:
        if family_of(peer[0]) not in allocation.relayed:
            return PEER_FAMILY_MISMATCH
        if not self._peer_filter(peer[0]):
            return FORBIDDEN
        return None


def _families(request: Message) -> tuple[int, ...] | ErrorCode:
    """The families of relayed addresses asked for: RFC 8656 section 7.2, steps 5 to 9."""
    requested = request.get(REQUESTED_ADDRESS_FAMILY)
    additional = request.get(ADDITIONAL_ADDRESS_FAMILY)
    even = request.get(EVEN_PORT)
    if request.get(RESERVATION_TOKEN) is not None:
        others = (even, requested, additional)
        return BAD_REQUEST if any(value is not None for value in others) else ()
    if additional is not None:
        if requested is not None or even or additional != IPV6:
            return BAD_REQUEST
        return (IPV4, IPV6)
    if requested is None:
        return (IPV4,)
    return (requested,) if requested in (IPV4, IPV6) else UNSUPPORTED_FAMILY
