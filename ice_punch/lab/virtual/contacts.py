"""Whom an internal endpoint has sent to, and who may therefore answer: RFC 4787 section 5."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import Filtering, Refresh
from ice_punch.lab.trace import Protocol


@dataclass(slots=True)
class _Contacts:
    addresses: dict[Address, float] = field(default_factory=dict)
    ips: dict[str, float] = field(default_factory=dict)


class ContactFilter:
    """The filter of a NAT or a stateful firewall.

    It belongs to the internal endpoint, by the letter of the section: whoever X:x has sent to may
    reach X:x, whichever of its mappings the packet comes through. A contact that is not refreshed
    for ``lifetime`` seconds is forgotten, a TCP one never.
    """

    def __init__(
        self,
        filtering: Filtering,
        lifetime: float | None = None,
        refresh: Refresh = Refresh.OUTBOUND,
    ) -> None:
        self.filtering = filtering
        self._lifetime = lifetime
        self._refresh = refresh
        self._contacts: dict[tuple[Protocol, Address], _Contacts] = {}

    def contact(
        self, protocol: Protocol, internal: Address, remote: Address, now: float = 0.0
    ) -> None:
        """``internal`` sends to ``remote``."""
        contacts = self._contacts.setdefault((protocol, internal), _Contacts())
        refreshes = self._refresh is not Refresh.INBOUND
        if refreshes or self._lapsed(protocol, contacts.addresses.get(remote), now):
            contacts.addresses[remote] = now
        if refreshes or self._lapsed(protocol, contacts.ips.get(remote[0]), now):
            contacts.ips[remote[0]] = now

    def admits(
        self, protocol: Protocol, internal: Address, remote: Address, now: float = 0.0
    ) -> bool:
        """Whether a packet from ``remote`` may reach ``internal``, whose mapping lives."""
        if self.filtering is Filtering.ENDPOINT_INDEPENDENT:
            return True
        contacts = self._contacts.get((protocol, internal))
        if contacts is None:
            return False
        since = (
            contacts.ips.get(remote[0])
            if self.filtering is Filtering.ADDRESS_DEPENDENT
            else contacts.addresses.get(remote)
        )
        if self._lapsed(protocol, since, now):
            return False
        if self._refresh is not Refresh.OUTBOUND:
            contacts.ips[remote[0]] = now
            if remote in contacts.addresses:
                contacts.addresses[remote] = now
        return True

    def has_contacts(self, protocol: Protocol, internal: Address, now: float = 0.0) -> bool:
        """Whether ``internal`` has sent to anyone, lately."""
        contacts = self._contacts.get((protocol, internal))
        if contacts is None:
            return False
        return any(not self._lapsed(protocol, since, now) for since in contacts.ips.values())

    def has_contact(
        self, protocol: Protocol, internal: Address, remote: Address, now: float = 0.0
    ) -> bool:
        """Whether ``internal`` has sent to that very address, lately."""
        contacts = self._contacts.get((protocol, internal))
        since = None if contacts is None else contacts.addresses.get(remote)
        return not self._lapsed(protocol, since, now)

    def forget(self) -> None:
        self._contacts.clear()

    def _lapsed(self, protocol: Protocol, since: float | None, now: float) -> bool:
        if since is None:
            return True
        lifetime = self._lifetime if protocol is Protocol.UDP else None
        return lifetime is not None and now >= since + lifetime
