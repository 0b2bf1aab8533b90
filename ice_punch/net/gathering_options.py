"""What a user says of gathering."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.errors import InterfaceNotFound
from ice_punch.net.ice_server import IceServer
from ice_punch.net.interfaces import (
    InterfaceAddress,
    InterfaceFilter,
    default_filter,
    is_running,
    local_addresses,
    only_interface,
    present_addresses,
)
from ice_punch.net.monitor import Snapshot


@dataclass(frozen=True, slots=True)
class GatheringOptions:
    """Where candidates come from. Times in seconds."""

    ice_servers: tuple[IceServer, ...] = ()
    interface: str | None = None
    """Only this interface."""
    interface_filter: InterfaceFilter = default_filter
    ipv4: bool = True
    ipv6: bool = True
    port_range: tuple[int, int] | None = None
    direct_only: bool = False
    relay_only: bool = False
    hide_addresses: bool = False
    """Tell the peer names of Multicast DNS instead of the addresses of this host."""
    follow_network: bool = True
    """Gather on addresses that come later, and give up those that go."""
    timeout: float = 5.0
    """After so long gathering is declared over; a server that is still silent is reported so."""

    def addresses(self) -> list[InterfaceAddress]:
        """The local addresses to use. Raises InterfaceNotFound for an unknown interface."""
        chosen = only_interface(self.interface) if self.interface else self.interface_filter
        return local_addresses(chosen, ipv4=self.ipv4, ipv6=self.ipv6)

    def snapshot(self) -> Snapshot:
        """The local addresses as they are now."""
        try:
            usable = self.addresses()
        except InterfaceNotFound:
            usable = []  # it may come back
        present = present_addresses()
        running = {name for name in {a.interface for a in present} if is_running(name)}
        return Snapshot(
            usable=tuple(usable),
            present=frozenset(a.ip for a in present),
            running=frozenset(a.ip for a in present if a.interface in running),
        )
