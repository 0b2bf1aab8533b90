"""The allocations of a server: who has which relayed addresses, and for how long."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from ice_punch.datagram import Address, RandomSource
from ice_punch.stun import AddressErrorCode, ErrorCode
from ice_punch.turn.allocation import Allocation, Relayed
from ice_punch.turn.authentication import Authenticated, FiveTuple
from ice_punch.turn.constants import IPV4, IPV6, RESERVATION_LIFETIME, family_of
from ice_punch.turn.limits import TurnLimits
from ice_punch.turn.relay_ports import RelayPorts

UNSUPPORTED_FAMILY: Final = ErrorCode(440, "Address Family not Supported")
QUOTA_REACHED: Final = ErrorCode(486, "Allocation Quota Reached")
INSUFFICIENT_CAPACITY: Final = ErrorCode(508, "Insufficient Capacity")

MAX_EVENTS: Final = 1024
"""Events kept for whoever reads them; past that the oldest go."""


@dataclass(frozen=True, slots=True)
class AllocationOpened:
    five_tuple: FiveTuple
    username: str
    relayed: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class AllocationClosed:
    """One or all relayed addresses of an allocation are gone."""

    five_tuple: FiveTuple
    username: str
    relayed: tuple[Address, ...]
    reason: str


ServerEvent = AllocationOpened | AllocationClosed


class RelaySockets(Protocol):
    """What a shell over real sockets does for a server that gives out addresses."""

    def open(self, address: Address) -> bool:
        """Bind to a relayed address before it is given out; False if that can not be."""

    def close(self, address: Address) -> None:
        """It is not ours any more."""


class _NoSockets:
    def open(self, address: Address) -> bool:
        return True

    def close(self, address: Address) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Reservation:
    address: Address
    expires_at: float


class Allocations:
    def __init__(
        self,
        relay_ips: Iterable[str],
        random: RandomSource,
        ports: RelayPorts,
        limits: TurnLimits,
        sockets: RelaySockets | None,
    ) -> None:
        """Of each family the first of ``relay_ips`` counts. Raises ValueError for none at all."""
        self.events: deque[ServerEvent] = deque(maxlen=MAX_EVENTS)
        self._ips: dict[int, str] = {}
        for ip in relay_ips:
            self._ips.setdefault(family_of(ip), ip)
        if not self._ips:
            raise ValueError("a TURN server needs an IP address to relay at")
        self._random = random
        self._ports = ports
        self._limits = limits
        self._sockets = sockets or _NoSockets()
        self._by_five_tuple: dict[FiveTuple, Allocation] = {}
        self._by_relayed: dict[Address, Allocation] = {}
        self._reservations: dict[bytes, _Reservation] = {}
        self._reserved: set[Address] = set()
        self._of_owner: Counter[str] = Counter()
        self._next_expiry: float | None = None
        """No later than the first expiry there is."""

    def __len__(self) -> int:
        return len(self._by_five_tuple)

    def get(self, five_tuple: FiveTuple, now: float) -> Allocation | None:
        allocation = self._by_five_tuple.get(five_tuple)
        if allocation is not None and allocation.expires_at <= now:
            self.expire(now)
            return self._by_five_tuple.get(five_tuple)
        return allocation

    def at_relayed(self, address: Address, now: float) -> Allocation | None:
        allocation = self._by_relayed.get(address)
        if allocation is not None and allocation.expires_at <= now:
            self.expire(now)
            return self._by_relayed.get(address)
        return allocation

    def is_relayed(self, address: Address) -> bool:
        return address in self._by_relayed

    # -- making -------------------------------------------------------------------------------

    def create(
        self,
        five_tuple: FiveTuple,
        transaction_id: bytes,
        user: Authenticated,
        owner: str,
        families: Iterable[int],
        lifetime: float,
        now: float,
        *,
        even: bool = False,
        reserve_next: bool = False,
        token: bytes | None = None,
    ) -> tuple[Allocation, list[AddressErrorCode]] | ErrorCode:
        """A new allocation, and the families that it lacks of those asked for (RFC 8656 section
        7.2); an ErrorCode if none can be given."""
        self.expire(now)
        if self._of_owner.get(owner, 0) >= self._limits.allocations_per_user:
            return QUOTA_REACHED
        if len(self) >= self._limits.allocations:
            return INSUFFICIENT_CAPACITY
        found: dict[int, Relayed] = {}
        lacking: list[AddressErrorCode] = []
        if token is not None:
            address = self._redeem(token, now)
            if address is None:
                return INSUFFICIENT_CAPACITY
            found[family_of(address[0])] = Relayed(address, now + lifetime)
        else:
            for family in families:
                taken = self._take(family, even=even, pair=reserve_next)
                if isinstance(taken, ErrorCode):
                    lacking.append(AddressErrorCode(family, *taken))
                else:
                    found[family] = Relayed(taken, now + lifetime)
        if not found:
            every = {entry.code for entry in lacking}
            return UNSUPPORTED_FAMILY if every == {440} else INSUFFICIENT_CAPACITY
        allocation = Allocation(
            five_tuple, transaction_id, user.username, user.keys, owner, relayed=found
        )
        if reserve_next:
            allocation.token = self._reserve(next(iter(found.values())).address, now)
        self._by_five_tuple[five_tuple] = allocation
        self._of_owner[owner] += 1
        for relayed in found.values():
            self._by_relayed[relayed.address] = allocation
        self._wake_at(now + lifetime)
        addresses = tuple(relayed.address for relayed in found.values())
        self.events.append(AllocationOpened(five_tuple, user.username, addresses))
        return allocation, lacking

    def _take(self, family: int, *, even: bool, pair: bool) -> Address | ErrorCode:
        ip = self._ips.get(family)
        if ip is None:
            return UNSUPPORTED_FAMILY
        in_use = _Both(self._by_relayed, self._reserved)
        taken = self._ports.take(ip, in_use, self._sockets.open, even=even, pair=pair)
        return taken or INSUFFICIENT_CAPACITY

    def _reserve(self, address: Address, now: float) -> bytes:
        reserved = (address[0], address[1] + 1)
        token = self._random.randbytes(8)
        self._reservations[token] = _Reservation(reserved, now + RESERVATION_LIFETIME)
        self._reserved.add(reserved)
        self._wake_at(now + RESERVATION_LIFETIME)
        return token

    def _redeem(self, token: bytes, now: float) -> Address | None:
        reservation = self._reservations.get(token)
        if reservation is None or reservation.expires_at <= now:
            return None
        self._forget_reservation(token)
        return reservation.address if self._sockets.open(reservation.address) else None

    def _forget_reservation(self, token: bytes) -> None:
        self._reserved.discard(self._reservations.pop(token).address)

    # -- keeping and ending -------------------------------------------------------------------

    def refresh(
        self, allocation: Allocation, families: Iterable[int], lifetime: float, now: float
    ) -> None:
        """Sets the time-to-expiry; with a ``lifetime`` of 0 the addresses are given up at once
        (RFC 8656 section 8.2)."""
        if lifetime <= 0:
            self._drop(allocation, families, "given back by its client")
            return
        for family in families:
            allocation.relayed[family].expires_at = now + lifetime
        self._wake_at(now + lifetime)

    def remove(self, allocation: Allocation, reason: str) -> None:
        self._drop(allocation, (IPV4, IPV6), reason)

    def expire(self, now: float) -> None:
        if self._next_expiry is None or self._next_expiry > now:
            return
        for allocation in list(self._by_five_tuple.values()):
            over = [f for f, relayed in allocation.relayed.items() if relayed.expires_at <= now]
            if over:
                self._drop(allocation, over, "not refreshed in time")
        for token in [t for t, r in self._reservations.items() if r.expires_at <= now]:
            self._forget_reservation(token)
        times = [allocation.expires_at for allocation in self._by_five_tuple.values()]
        times += [reservation.expires_at for reservation in self._reservations.values()]
        self._next_expiry = min(times, default=None)

    def get_timer(self) -> float | None:
        return self._next_expiry

    def _wake_at(self, time: float) -> None:
        self._next_expiry = time if self._next_expiry is None else min(self._next_expiry, time)

    def _drop(self, allocation: Allocation, families: Iterable[int], reason: str) -> None:
        gone = [allocation.drop_family(f) for f in tuple(families) if f in allocation.relayed]
        for address in gone:
            del self._by_relayed[address]
            self._sockets.close(address)
        five_tuple = allocation.five_tuple
        if not allocation.relayed:
            del self._by_five_tuple[five_tuple]
            self._of_owner[allocation.owner] -= 1
            if not self._of_owner[allocation.owner]:
                del self._of_owner[allocation.owner]
        closed = AllocationClosed(five_tuple, allocation.username, tuple(gone), reason)
        self.events.append(closed)


class _Both:
    """Addresses in use, or reserved."""

    def __init__(self, used: dict[Address, Allocation], reserved: set[Address]) -> None:
        self._used, self._reserved = used, reserved

    def __contains__(self, address: object) -> bool:
        return address in self._used or address in self._reserved
