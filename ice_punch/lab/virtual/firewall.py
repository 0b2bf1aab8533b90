"""A stateful firewall that translates nothing, as homes have it for IPv6 (RFC 6092)."""

from __future__ import annotations

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import Blocking, Filtering
from ice_punch.lab.trace import DropReason, Protocol
from ice_punch.lab.virtual.contacts import ContactFilter
from ice_punch.lab.virtual.translation import blocks


class StatefulFirewall:
    """Lets out what is not blocked, and in what answers it."""

    def __init__(
        self,
        filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT,
        *,
        blocking: Blocking = Blocking.NOTHING,
        lifetime: float | None = None,
    ) -> None:
        self.blocking = blocking
        self._filter = ContactFilter(filtering, lifetime)

    def outbound(
        self, protocol: Protocol, source: Address, destination: Address, now: float
    ) -> DropReason | None:
        """Why the packet may not leave; ``None`` if it may."""
        blocked = blocks(self.blocking, protocol, destination)
        if blocked is None:
            self._filter.contact(protocol, source, destination, now)
        return blocked

    def inbound(
        self, protocol: Protocol, source: Address, destination: Address, now: float
    ) -> DropReason | None:
        """Why the packet may not enter; ``None`` if it may."""
        contacts = self._filter
        # A host that never said anything has opened nothing, whatever the filter.
        admitted = contacts.has_contacts(protocol, destination, now) and contacts.admits(
            protocol, destination, source, now
        )
        return None if admitted else DropReason.FILTERED

    def knows(self, protocol: Protocol, internal: Address, remote: Address, now: float) -> bool:
        """Whether such a packet has left: else no ICMP error about it enters (section 3.2.1)."""
        return self._filter.has_contact(protocol, internal, remote, now)

    def forget(self) -> None:
        self._filter.forget()
