"""A :class:`Scenario` in the virtual internet."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.lab.link import IDEAL, LinkProfile
from ice_punch.lab.scenario import NatKind, Scenario
from ice_punch.lab.virtual import VirtualHost, VirtualInternet, VirtualNat

SERVER_IPS = ("203.0.113.10", "203.0.113.11")
NAT_IPS = ("198.51.100.1", "198.51.100.2")
PEER_IPS = ("10.1.0.2", "10.2.0.2")


@dataclass(frozen=True, slots=True)
class TwoPeers:
    """Two hosts, their NATs (``None`` for a public host) and a public host with two addresses."""

    internet: VirtualInternet
    peer_a: VirtualHost
    peer_b: VirtualHost
    nat_a: VirtualNat | None
    nat_b: VirtualNat | None
    server: VirtualHost

    @property
    def server_address(self) -> Address:
        """Where a STUN server on the public host is expected."""
        return (self.server.address, 3478)


def build(scenario: Scenario, seed: int = 0, *, start: float = 0.0) -> TwoPeers:
    """The virtual internet of ``scenario``.

    The server is half way between the peers, so its round trip is half of theirs.
    """
    net = VirtualInternet(seed, start=start)
    link = LinkProfile(delay=scenario.rtt / 4, loss=scenario.loss)
    server = net.host("server", *SERVER_IPS)
    peers: list[VirtualHost] = []
    nats: list[VirtualNat | None] = []
    for index, kind in enumerate((scenario.nat_a, scenario.nat_b)):
        letter = "ab"[index]
        if kind is NatKind.NONE:
            nats.append(None)
            peers.append(net.host(letter, NAT_IPS[index], link=link))
        else:
            nat = net.nat(f"nat-{letter}", NAT_IPS[index], kind, link=link)
            nats.append(nat)
            peers.append(net.host(letter, PEER_IPS[index], behind=nat, link=IDEAL))
    return TwoPeers(net, peers[0], peers[1], nats[0], nats[1], server)
