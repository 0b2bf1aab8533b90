"""The IP addresses of this host that host candidates may use, RFC 8445 section 5.1.1.1."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from fnmatch import fnmatchcase
from pathlib import Path

import ifaddr

from ice_punch.datagram import Address
from ice_punch.errors import InterfaceNotFound
from ice_punch.ice.candidate import is_usable_address


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One address of one interface."""

    interface: str
    """The system's name, ``eth0``; on Windows the name shown to people."""
    ip: str
    """In canonical form, without a zone."""
    prefix_length: int


InterfaceFilter = Callable[[InterfaceAddress], bool]

VIRTUAL_INTERFACES = (
    "docker*",
    "br-*",
    "podman*",
    "veth*",
    "virbr*",
    "vnet*",
    "lxc*",
    "lxdbr*",
    "cni*",
    "cali*",
    "flannel*",
    "vmnet*",
    "vboxnet*",
)
"""Interfaces to containers and virtual machines of this host: no peer elsewhere is behind them."""


_GET_FLAGS = 0x8913
"""SIOCGIFFLAGS of netdevice(7)."""
_NAME_SIZE = 15
_UP, _RUNNING = 0x1, 0x40


class AddressFlag(IntFlag):
    """What Linux tells of an IPv6 address in ``/proc/net/if_inet6``."""

    TEMPORARY = 0x01
    OPTIMISTIC = 0x04
    DAD_FAILED = 0x08
    DEPRECATED = 0x20
    TENTATIVE = 0x40


def default_filter(address: InterfaceAddress) -> bool:
    """Leave out loopback and link-local addresses, containers and virtual machines."""
    if address.interface in ("lo", "lo0"):
        return False
    if any(fnmatchcase(address.interface, pattern) for pattern in VIRTUAL_INTERFACES):
        return False
    return is_usable_address(address.ip)


def only_interface(name: str) -> InterfaceFilter:
    """A filter that keeps the addresses of one interface, whatever kind it is.

    Raises InterfaceNotFound when there is no such interface, or none of its addresses is usable.
    """
    found = _enumerate()
    if not any(_is_named(a, name) for a in found):
        known = ", ".join(dict.fromkeys(a.interface for a in found)) or "none"
        raise InterfaceNotFound(
            f"there is no interface {name!r} with an address (there is: {known})"
        )
    if not any(_is_named(a, name) and _is_possible(a) for a in found):
        raise InterfaceNotFound(f"interface {name!r} has no usable address")
    return lambda address: _is_named(address, name)


def local_addresses(
    filter: InterfaceFilter = default_filter,
    *,
    ipv4: bool = True,
    ipv6: bool = True,
) -> list[InterfaceAddress]:
    """The addresses to gather host candidates on, most preferred first.

    The addresses that the system itself would send from come first, then the others of the same
    interfaces, then the rest in the system's order. The filter decides everything but what no
    filter can admit: multicast, unspecified, site-local, IPv4-mapped and IPv4-compatible
    addresses, and IPv6 link-local ones, which mean nothing without their zone.
    """
    wanted = [
        a for a in _enumerate() if (ipv6 if ":" in a.ip else ipv4) and _is_possible(a) and filter(a)
    ]
    return select_addresses(wanted, _ipv6_flags(), _preferred_sources())


def present_addresses() -> list[InterfaceAddress]:
    """Every address that this host has, of use or not."""
    return _enumerate()


def is_running(interface: str) -> bool:
    """Whether an interface is up and has a carrier. Where the system is not asked (not Linux) it
    counts as running."""
    if sys.platform != "linux":
        return True
    import fcntl  # there is none on Windows

    name = interface.partition(":")[0].encode()[:_NAME_SIZE]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _GET_FLAGS, struct.pack("16sh14x", name, 0))
    except OSError:
        return False  # it went meanwhile
    flags: int = struct.unpack_from("16xh", answer)[0]
    return bool(flags & _UP) and bool(flags & _RUNNING)


def select_addresses(
    found: Iterable[InterfaceAddress],
    flags: Mapping[str, AddressFlag],
    preferred: Iterable[str] = (),
) -> list[InterfaceAddress]:
    """Drop what must not become a candidate and order the rest; ``flags`` by IPv6 address."""

    def flag(address: InterfaceAddress) -> AddressFlag:
        return flags.get(address.ip, AddressFlag(0))

    unready = AddressFlag.TENTATIVE | AddressFlag.DAD_FAILED
    usable = [
        a
        for a in dict.fromkeys(found)
        if not flag(a) & unready or flag(a) == flag(a) | AddressFlag.OPTIMISTIC
    ]
    # RFC 4862 section 5.5.4: a deprecated address starts no new communication where another
    # one of sufficient scope can.
    current = {_scope(a) for a in usable if not flag(a) & AddressFlag.DEPRECATED}
    usable = [a for a in usable if not flag(a) & AddressFlag.DEPRECATED or _scope(a) not in current]
    # RFC 8445 section 5.1.1.1: no address that allows tracking beside one that prevents it.
    private = {_network(a) for a in usable if flag(a) & AddressFlag.TEMPORARY}
    usable = [a for a in usable if flag(a) & AddressFlag.TEMPORARY or _network(a) not in private]

    first = list(preferred)
    first_interfaces = {a.interface for a in usable if a.ip in first}

    def rank(address: InterfaceAddress) -> tuple[bool, bool, bool]:
        return (
            address.ip not in first,
            address.interface not in first_interfaces,
            # RFC 6724 section 5 rule 7.
            ":" in address.ip and not flag(address) & AddressFlag.TEMPORARY,
        )

    return sorted(usable, key=rank)


def parse_if_inet6(text: str) -> dict[str, AddressFlag]:
    """The flags by address, from the text of ``/proc/net/if_inet6``."""
    flags: dict[str, AddressFlag] = {}
    for line in text.splitlines():
        match = re.match(r"([0-9a-f]{32}) [0-9a-f]+ [0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) ", line)
        if match:
            ip = str(ipaddress.IPv6Address(bytes.fromhex(match[1])))
            flags[ip] = AddressFlag(int(match[2], 16) & 0xFF)
    return flags


def _enumerate() -> list[InterfaceAddress]:
    addresses = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            raw = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            # Windows names adapters by GUID and shows `nice_name`; elsewhere both are equal.
            ip = str(ipaddress.ip_address(raw.partition("%")[0]))
            addresses.append(InterfaceAddress(entry.nice_name, ip, entry.network_prefix))
    return addresses


def _is_named(address: InterfaceAddress, name: str) -> bool:
    # An IPv4 alias of eth0 is listed as eth0:1.
    return name in (address.interface, address.interface.partition(":")[0])


def _is_possible(address: InterfaceAddress) -> bool:
    ipv4 = ":" not in address.ip
    return is_usable_address(address.ip, loopback=True, link_local=ipv4)


def _network(address: InterfaceAddress) -> tuple[str, str]:
    network = ipaddress.ip_network(f"{address.ip}/{address.prefix_length}", strict=False)
    return (address.interface, str(network) if network.version == 6 else address.ip)


def _scope(address: InterfaceAddress) -> tuple[str, int, bool]:
    ip = ipaddress.ip_address(address.ip)
    unique_local = ip.version == 6 and ip.packed[0] & 0xFE == 0xFC
    return (address.interface, ip.version, unique_local)


def _ipv6_flags() -> dict[str, AddressFlag]:
    try:
        # Of this thread: a thread may have its own network namespace.
        return parse_if_inet6(Path("/proc/thread-self/net/if_inet6").read_text("ascii"))
    except OSError:
        return {}


def source_towards(destination: Address) -> str | None:
    """The address that this host would send from (RFC 6724 section 5); None without a route.
    Nothing is sent."""
    family = socket.AF_INET6 if ":" in destination[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(destination)
            return str(ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]))
    except (OSError, OverflowError, ValueError):
        return None


def _preferred_sources() -> list[str]:
    """The addresses that the default routes leave from, RFC 6724."""
    # Documentation addresses (RFC 3849, 5737): looked up in the routing table, never reached.
    towards = (("2001:db8::1", 9), ("203.0.113.1", 9))
    return [source for source in map(source_towards, towards) if source is not None]
