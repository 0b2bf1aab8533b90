"""Networks that hosts and routers are plugged into: the internet itself, and a router's inside.

Every neighbour is known beforehand, so that no address resolution adds a round trip to the first
packet or takes part in a link's lottery.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ice_punch.lab.kernel.nat_rules import LAN
from ice_punch.lab.links import AccessLink, LinkProfile

GATEWAY = "198.51.100.254"
GATEWAY_V6, NEXT_HOP_V6 = "fe80::1", "fe80::2"
"""Nobody has these addresses; neighbour entries take packets for them to the right device."""
NOWHERE, NOWHERE_V6, NOWHERE_MAC = "203.0.113.254", "2001:db8:f::ffff", "02:00:00:00:00:ff"


@dataclass(slots=True)
class Namespace:
    role: str
    forwards: bool = False
    setup: list[str] = field(default_factory=list)
    """Lines for ``ip -batch``, once the devices are there."""
    rules: list[str] = field(default_factory=list)
    """For ``nft -f``."""


@dataclass(frozen=True, slots=True)
class End:
    role: str
    device: str
    mac: str


@dataclass(frozen=True, slots=True)
class Wire:
    """Two devices and what lies between them; ``inner`` is the one farther from the internet."""

    inner: End
    outer: End
    access: AccessLink
    name: str
    """What the virtual internet calls the node whose link it is; it seeds the link's lottery."""

    @property
    def needs_cable(self) -> bool:
        return any(_does_something(carried(p)) for p in (self.access.up, self.access.down))


@dataclass(frozen=True, slots=True)
class Plug:
    """What a host or router brings to the network outside of it."""

    node: Namespace
    device: str
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    """Addresses of a host, or the prefix behind a router."""
    access: AccessLink
    name: str
    table: int | None = None
    """The routing table for its default route, where that is not the main one."""


class Segment:
    """What internet and local networks have in common: one router, its hosts and their routes."""

    gateway: str
    lengths: tuple[int, int]
    """Of the prefixes that a host's addresses are in."""

    def __init__(self, node: Namespace, macs: Iterator[str]) -> None:
        self._node = node
        self._macs = macs
        self._ports = itertools.count()

    def plug(self, plug: Plug) -> Wire:
        outer, router_mac, device = self._port()
        inner = End(plug.node.role, plug.device, next(self._macs))
        self._node.setup += self._way_in(plug, inner, device)
        plug.node.setup += self._way_out(plug, inner, router_mac)
        return Wire(inner, outer, plug.access, plug.name)

    def _port(self) -> tuple[End, str, str]:
        """The router's end of a new wire, the hardware address that hosts send to, and the device
        that the router sends to them through."""
        raise NotImplementedError

    def _way_in(self, plug: Plug, inner: End, device: str) -> list[str]:
        raise NotImplementedError

    def _way_out(self, plug: Plug, inner: End, router_mac: str) -> list[str]:
        device = plug.device
        lines = [f"link set {device} address {inner.mac} up"]
        lines += [f"address add {ip}/{self.lengths[0]} dev {device}" for ip in plug.ipv4]
        lines += [
            f"address add {ip}/{self.lengths[1]} dev {device} nodad"
            for ip in plug.ipv6
            if "/" not in ip
        ]
        if plug.ipv4:
            lines += _default(plug, self.gateway, router_mac, plug.ipv4)
        if plug.ipv6:
            lines += _default(plug, GATEWAY_V6, router_mac, plug.ipv6)
        return lines


class Internet(Segment):
    """Point-to-point links to one router, which is the servers' host too."""

    gateway = GATEWAY
    lengths = (32, 128)

    def settle(self, ipv4: Sequence[str], ipv6: Sequence[str]) -> None:
        """Give the servers' host its addresses."""
        # What is addressed to nowhere vanishes, as on the internet. Without any route sendto
        # fails, and coturn closes the session of whoever asked for a private peer address.
        self._node.setup += [
            "link add net0 type veth peer name net1",
            "link set net0 up",
            "link set net1 up",
            *(f"address add {ip}/24 dev net0" for ip in (*ipv4, GATEWAY)),
            neighbour(NOWHERE, NOWHERE_MAC, "net0"),
            f"route add default via {NOWHERE} dev net0",
        ]
        if ipv6:
            self._node.setup += [
                *(f"address add {ip}/64 dev net0 nodad" for ip in ipv6),
                neighbour(NOWHERE_V6, NOWHERE_MAC, "net0"),
                f"route add default via {NOWHERE_V6} dev net0",
            ]

    def _port(self) -> tuple[End, str, str]:
        outer = End(self._node.role, f"port{next(self._ports)}", next(self._macs))
        self._node.setup.append(f"link set {outer.device} address {outer.mac} up")
        return outer, outer.mac, outer.device

    def _way_in(self, plug: Plug, inner: End, device: str) -> list[str]:
        mtu = _mtu(plug.access.down)
        lines = [neighbour(ip, inner.mac, device) for ip in plug.ipv4]
        lines += [f"route add {ip}/32 dev {device}{mtu}" for ip in plug.ipv4]
        if plug.ipv6:
            lines.append(neighbour(NEXT_HOP_V6, inner.mac, device))
        lines += [f"route add {to} via {NEXT_HOP_V6} dev {device}{mtu}" for to in plug.ipv6]
        return lines


class LocalNetwork(Segment):
    """The inside of a router; a bridge, if there is more than one host in it."""

    lengths = (24, 64)

    def __init__(
        self,
        node: Namespace,
        macs: Iterator[str],
        subnet: str,
        *,
        ipv6: str | None = None,
        hosts: int = 1,
    ) -> None:
        """``subnet`` is the first three numbers of the addresses, ``ipv6`` the router's own
        address where IPv6 is at home here."""
        super().__init__(node, macs)
        self.subnet = subnet
        self.gateway = f"{subnet}.1"
        self._bridge = hosts > 1
        self._mac = next(macs)
        self._members: list[tuple[Plug, End]] = []
        if self._bridge:
            node.setup.append(f"link add {LAN} type bridge")
        node.setup += [
            f"link set {LAN} address {self._mac} up",
            f"address add {self.gateway}/24 dev {LAN}",
        ]
        if ipv6 is not None:
            node.setup.append(f"address add {ipv6}/64 dev {LAN} nodad")

    def _port(self) -> tuple[End, str, str]:
        if not self._bridge:
            return End(self._node.role, LAN, self._mac), self._mac, LAN
        port = End(self._node.role, f"lan{1 + next(self._ports)}", next(self._macs))
        self._node.setup.append(f"link set {port.device} address {port.mac} master {LAN} up")
        return port, self._mac, LAN

    def _way_in(self, plug: Plug, inner: End, device: str) -> list[str]:
        mtu = _mtu(plug.access.down)
        lines = [neighbour(ip, inner.mac, device) for ip in plug.ipv4]
        if mtu:
            lines += [f"route add {ip}/32 dev {device}{mtu}" for ip in plug.ipv4]
        for to in plug.ipv6:
            behind = "/" in to
            lines.append(neighbour(NEXT_HOP_V6 if behind else to, inner.mac, device))
            if behind:
                lines.append(f"route add {to} via {NEXT_HOP_V6} dev {device}{mtu}")
        for other, end in self._members:
            other.node.setup += [neighbour(ip, inner.mac, end.device) for ip in plug.ipv4]
            plug.node.setup += [neighbour(ip, end.mac, inner.device) for ip in other.ipv4]
        self._members.append((plug, inner))
        return lines


def longer(access: AccessLink, way: float) -> AccessLink:
    """An access link with the way to the middle of the internet at its end, seconds."""
    return AccessLink(
        replace(access.up, delay=access.up.delay + way),
        replace(access.down, delay=access.down.delay + way),
    )


def carried(profile: LinkProfile) -> LinkProfile:
    """What a cable has to do of a link: all but what the kernel's routers do themselves, telling
    what is too large that it is."""
    return replace(profile, mtu=None) if profile.tells_mtu else profile


def neighbour(ip: str, mac: str, device: str) -> str:
    return f"neighbour replace {ip} lladdr {mac} dev {device} nud permanent"


def _default(plug: Plug, gateway: str, mac: str, own: Sequence[str]) -> list[str]:
    lines = [neighbour(gateway, mac, plug.device)]
    route = f"route add default via {gateway} dev {plug.device} onlink{_mtu(plug.access.up)}"
    if plug.table is None:
        return [*lines, route]
    lines.append(f"{route} table {plug.table}")
    # `ip -batch` tells the versions of rules apart by the address only.
    return lines + [f"rule add from {ip} lookup {plug.table}" for ip in own]


def _mtu(profile: LinkProfile) -> str:
    return f" mtu {profile.mtu}" if profile.mtu is not None and profile.tells_mtu else ""


def _does_something(profile: LinkProfile) -> bool:
    still = LinkProfile(
        reordering_gap=profile.reordering_gap, queue=profile.queue, tells_mtu=profile.tells_mtu
    )
    return profile != still
