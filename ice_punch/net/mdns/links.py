"""Multicast DNS on every link of this host: a socket for each address family of each interface."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator

from ice_punch.datagram import Address
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.mdns.messages import MAX_SIZE

PORT = 5353
GROUP_V4, GROUP_V6 = "224.0.0.251", "ff02::fb"
DRAIN_LIMIT = 64
"""Datagrams read before other work of the event loop gets its turn."""
_MULTICAST_ALL = 49
"""IP_MULTICAST_ALL of Linux: whether groups that other sockets joined are heard as well."""

PacketHandler = Callable[["Link", bytes, Address], None]


class Link:
    """One interface, as one family sees it."""

    def __init__(self, interface: str, own: InterfaceAddress, on_packet: PacketHandler) -> None:
        """``own`` is an address of ours there. Raises OSError where there is no multicast."""
        self.interface = interface
        self.ipv6 = ":" in own.ip
        self.networks = [_network(own)]
        self._on_packet = on_packet
        self._loop = asyncio.get_running_loop()
        self._index = socket.if_nametoindex(interface.partition(":")[0]) if self.ipv6 else 0
        family = socket.AF_INET6 if self.ipv6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._configure(own.ip)
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
        except (OSError, NotImplementedError) as error:
            self._socket.close()
            raise OSError(str(error)) from None

    def _configure(self, ip: str) -> None:
        sock = self._socket
        sock.setblocking(False)
        # Others on this host answer for it as well, at the same port: RFC 6762 section 15.1.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::", PORT))
            index = struct.pack("@I", self._index)
            group = socket.inet_pton(socket.AF_INET6, GROUP_V6)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            return
        sock.bind(("", PORT))
        own = socket.inet_aton(ip)
        group = socket.inet_aton(GROUP_V4)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IP, _MULTICAST_ALL, 0)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + own)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)

    def multicast(self, data: bytes) -> None:
        """Lost where the link can not take it, as in the network."""
        with contextlib.suppress(OSError):
            if self.ipv6:
                self._socket.sendto(data, (GROUP_V6, PORT, 0, self._index))
            else:
                self._socket.sendto(data, (GROUP_V4, PORT))

    def unicast(self, data: bytes, destination: Address) -> None:
        with contextlib.suppress(OSError):
            if self.ipv6:
                self._socket.sendto(data, (*destination, 0, self._index))
            else:
                self._socket.sendto(data, destination)

    def is_local(self, ip: str) -> bool:
        """Whether an address is on this link (RFC 6762 section 11)."""
        address = ipaddress.ip_address(ip.partition("%")[0])
        return address.is_link_local or any(address in network for network in self.networks)

    def close(self) -> None:
        """May be called again."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _on_readable(self) -> None:
        for _ in range(DRAIN_LIMIT):
            if self._socket.fileno() < 0:
                return
            try:
                data, source = self._socket.recvfrom(MAX_SIZE + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for something sent earlier
            if self.is_local(source[0]):
                self._on_packet(self, data, source[:2])


class Links:
    """The links that were asked for, each once."""

    def __init__(self, on_packet: PacketHandler) -> None:
        self._on_packet = on_packet
        self._links: dict[tuple[str, bool], Link] = {}

    def __bool__(self) -> bool:
        return bool(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(tuple(self._links.values()))

    def on(self, interface: str) -> list[Link]:
        return [link for (name, _), link in self._links.items() if name == interface]

    def open(self, addresses: Iterable[InterfaceAddress]) -> None:
        """On the interfaces of these addresses, where there is multicast."""
        for address in addresses:
            key = (address.interface, ":" in address.ip)
            link = self._links.get(key)
            if link is not None:
                link.networks.append(_network(address))
                continue
            with contextlib.suppress(OSError):
                self._links[key] = Link(address.interface, address, self._on_packet)

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()


def _network(address: InterfaceAddress) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(f"{address.ip}/{address.prefix_length}", strict=False)
