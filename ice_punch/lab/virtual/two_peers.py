"""A :class:`Scenario` in the virtual internet."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.lab.links import IDEAL, LinkProfile
from ice_punch.lab.scenario import NatKind, Scenario
from ice_punch.lab.virtual.internet import VirtualHost, VirtualInternet, VirtualNat
from ice_punch.stun.server import BindingServer

SERVER_IPS = ("203.0.113.10", "203.0.113.11")
NAT_IPS = ("198.51.100.1", "198.51.100.2")
STUN_PORT = 3478
PEER_IPS = ("10.1.0.2", "10.2.0.2")


@dataclass(frozen=True, slots=True)
class TwoPeers:
    """Two hosts, their NATs (``None`` for a public host), and a public host that serves STUN.

    The server has two addresses and answers NAT behaviour discovery (RFC 5780) as well.
    """

    internet: VirtualInternet
    peer_a: VirtualHost
    peer_b: VirtualHost
    nat_a: VirtualNat | None
    nat_b: VirtualNat | None
    server: VirtualHost
    binding_server: BindingServer

    @property
    def server_address(self) -> Address:
        return (self.server.address, STUN_PORT)


def serve_stun(host: VirtualHost, port: int = STUN_PORT) -> BindingServer:
    """Attach a Binding server to ``port`` of a host.

    On a host with two addresses it has ``port + 1`` too and speaks RFC 5780.
    """
    alternate = (host.addresses[1], port + 1) if len(host.addresses) > 1 else None
    server = BindingServer((host.address, port), alternate)
    host.internet.attach(host, server, ports={bound for _, bound in server.addresses})
    return server


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
    return TwoPeers(net, peers[0], peers[1], nats[0], nats[1], server, serve_stun(server))
