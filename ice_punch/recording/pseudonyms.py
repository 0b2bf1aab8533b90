"""Other addresses and names in place of the real ones, such that an agent can not tell.

What an agent looks at stays: which addresses are equal, their IP version and their kind, the port.
What a reader wants stays too: which IPv4 addresses share a /24 and which IPv6 addresses a /64.
Networks and hosts are numbered as they appear, so that nothing of the original is left to compute.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Hashable
from ipaddress import IPv4Address, IPv6Address

from ice_punch.datagram import Address

MAX_PSEUDONYMS = 16384
"""Of one recording: strangers can send from any address."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_KEPT = tuple(map(ipaddress.ip_network, ("0.0.0.0/32", "127.0.0.0/8", "::/128", "::1/128")))
_KINDS: tuple[tuple[Network, Network], ...] = tuple(
    (ipaddress.ip_network(kind), ipaddress.ip_network(pool))
    for kind, pool in (
        ("10.0.0.0/8", "10.128.0.0/9"),
        ("172.16.0.0/12", "10.128.0.0/9"),
        ("192.168.0.0/16", "10.128.0.0/9"),
        ("100.64.0.0/10", "100.64.0.0/10"),
        ("169.254.0.0/16", "169.254.0.0/16"),
        ("224.0.0.0/4", "239.128.0.0/9"),
        ("0.0.0.0/0", "240.0.0.0/4"),
        ("fe80::/10", "fe80::/10"),
        ("fec0::/10", "fec0::/10"),
        ("fc00::/7", "fd00::/8"),
        ("ff00::/8", "ff0e::/16"),
        ("::/0", "3fff::/20"),
    )
)
"""Kinds of addresses, and where their pseudonyms are from. What is public gets an address that
nobody has: RFC 1112 section 4 reserves 240.0.0.0/4, RFC 9637 keeps 3fff::/20 for examples."""
_AROUND_V4 = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))
"""An IPv4 address is inside: mapped, compatible (RFC 4291 section 2.5.5), NAT64 (RFC 6052)."""
_HOST_BITS = {4: 8, 6: 64}

_URI = re.compile(r"(stuns?|turns?):(\[[^]]*\]|[^:?\[\]@]+)(:\d+)?(\?transport=(?:udp|tcp))?")
_USERINFO = re.compile(r"(?<=:)[^@]*@")
_TOKEN = re.compile(r"[0-9A-Fa-f:.]{3,}(?:%[\w.-]+)?")
_LONGEST_TOKEN = 64
_V4_WITHIN = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)")
_WORD = re.compile(r"(?<![\w.-])[\w-]+(?:\.[\w-]+)*")
_DOMAIN = re.compile(r"[\w.-]+\.[A-Za-z][\w-]*")


class TooManyPseudonyms(Exception):
    """More of them than ``MAX_PSEUDONYMS``, or than there are addresses of a kind."""


class Pseudonyms:
    """Hands them out, always the same for the same address or name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._counts: Counter[Hashable] = Counter()
        self._networks: dict[Network, int] = {}
        """The first address of the pseudonyms of a network."""

    def address(self, address: Address) -> Address:
        return (self.host(address[0]), address[1])

    def host(self, host: str) -> str:
        """Of an IP address or of a name. Raises TooManyPseudonyms."""
        return self._once("host", host, lambda: self._new_host(host))

    def foundation(self, foundation: str) -> str:
        """Other stacks compute theirs from addresses. What this side learned keeps its own."""
        if foundation.startswith("prflx-"):
            return foundation
        return self._once("foundation", foundation, lambda: f"f{self._next('foundation')}")

    def interface(self, name: str) -> str:
        """The name of an interface may hold its hardware address."""
        return self._once("interface", name, lambda: f"interface-{self._next('interface')}")

    def server(self, server: str) -> str:
        """Of a URI of RFC 7064 or RFC 7065, which keeps all but its host."""
        match = _URI.fullmatch(server)
        if match is None:
            return self._once("server", server, lambda: f"server-{self._next('server')}")
        scheme, host, port, transport = match.groups("")
        shown = self.host(host.strip("[]"))
        shown = f"[{shown}]" if ":" in shown else shown
        return f"{scheme}:{shown}{port}{transport}"

    def text(self, text: str) -> str:
        """``text`` with other addresses in it."""
        return _TOKEN.sub(lambda match: self._token(match[0]), text)

    def prose(self, text: str) -> str:
        """``text`` with other addresses and names of hosts in it."""
        return _WORD.sub(lambda match: self._word(match[0]), self.text(text))

    # -- inside -------------------------------------------------------------------------------

    def _once(self, kind: str, original: str, make: Callable[[], str]) -> str:
        known = self._known.get((kind, original))
        if known is None:
            if len(self._known) >= MAX_PSEUDONYMS:
                raise TooManyPseudonyms
            known = self._known[kind, original] = make()
        return known

    def _next(self, what: Hashable) -> int:
        self._counts[what] += 1
        return self._counts[what]

    def _new_host(self, host: str) -> str:
        bare, percent, zone = host.partition("%")
        try:
            ip = ipaddress.ip_address(bare)
        except ValueError:
            top = "local" if host.lower().endswith(".local") else "invalid"
            return f"name-{self._next('name')}.{top}"
        if percent:
            zone = self._once("zone", zone, lambda: str(self._next("zone")))
            return f"{self.host(bare)}%{zone}"
        if any(ip in network for network in _KEPT):
            return host
        if isinstance(ip, IPv6Address) and any(ip in network for network in _AROUND_V4):
            inner = int(IPv4Address(self.host(str(IPv4Address(int(ip) & 0xFFFFFFFF)))))
            if ip.ipv4_mapped is not None:  # as sockets write it (RFC 5952 section 5)
                return f"::ffff:{IPv4Address(inner)}"
            return str(IPv6Address(int(ip) >> 32 << 32 | inner))
        return self._number(ip)

    def _number(self, ip: IPv4Address | IPv6Address) -> str:
        """The next host of the network that stands for this one's."""
        host_bits = _HOST_BITS[ip.version]
        network = ipaddress.ip_network((ip, ip.max_prefixlen - host_bits), strict=False)
        first = self._networks.get(network)
        if first is None:
            first = self._networks[network] = self._new_network(ip, network)
        host = self._next(network) % 2**host_bits
        return str(type(ip)(first + host))

    def _new_network(self, ip: IPv4Address | IPv6Address, network: Network) -> int:
        """The next one of its kind that is no original itself, as far as is known."""
        pool = next(pool for kind, pool in _KINDS if ip in kind)
        while True:
            index = self._next(pool) - 1
            first = int(pool.network_address) + index * network.num_addresses
            if first > int(pool.broadcast_address):
                raise TooManyPseudonyms
            candidate = type(network)((first, network.prefixlen))
            if candidate != network and candidate not in self._networks:
                return first

    def _token(self, token: str) -> str:
        """A run of what addresses are written with."""
        bare, percent, _ = token.partition("%")
        if percent:
            return self.host(token) if _is_v6(bare) else self._token(bare) + token[len(bare) :]
        if ":" in token and len(token) <= _LONGEST_TOKEN:
            for begin in range(len(token) - len(token.lstrip(":.")) + 1):
                for end in range(len(token), len(token.rstrip(":.")) - 1, -1):
                    if _is_v6(token[begin:end]):
                        return token[:begin] + self.host(token[begin:end]) + token[end:]
        return _V4_WITHIN.sub(lambda match: self._v4_in_text(match[0]), token)

    def _v4_in_text(self, text: str) -> str:
        try:
            return self.host(str(IPv4Address(text)))
        except ValueError:
            return text

    def _word(self, word: str) -> str:
        name = word.lower()
        if ("host", name) in self._known or (_DOMAIN.fullmatch(name) and len(name) > 4):
            return self.host(name)
        return word


def without_userinfo(server: str) -> str:
    """RFC 7064 and 7065 have no place for credentials in a URI; somebody may find one."""
    return _USERINFO.sub("", server, count=1) if "@" in server else server


def _is_v6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
