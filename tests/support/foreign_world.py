"""Networks in which sessions with other ICE stacks take place, and their servers."""

from __future__ import annotations

import contextlib
import ctypes.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ice_punch.lab.kernel import KernelInternet
from ice_punch.lab.scenario import Ip, Scenario, peer
from ice_punch.net.ice_server import IceServer
from support.coturn import Coturn
from support.netns import NETNS, ROOT

PEERS = ROOT / "tests" / "integration" / "peers"
LIBNICE = [sys.executable, str(PEERS / "libnice_peer.py")]
NEEDS_LIBNICE = [
    *NETNS,
    pytest.mark.skipif(ctypes.util.find_library("nice") is None, reason="libnice is not installed"),
]
HOST, PORT = "203.0.113.10", 3478
"""Of coturn, which is both servers and the relay."""
STUN = (HOST, PORT)
TURN = (HOST, PORT, "robot", "correct horse")
OUR_STUN = IceServer.parse(f"stun:{HOST}:{PORT}")
OUR_TURN = IceServer.parse(f"turn:{HOST}:{PORT}", username="robot", password="correct horse")
RTT = 0.04
HIGHEST, LOWEST = 2**64 - 1, 0
"""Tie-breakers."""


@contextlib.contextmanager
def behind_nats(**nats: Any) -> Iterator[KernelInternet]:
    """With coturn. The NATs are port-restricted unless ``nat_a`` or ``nat_b`` says otherwise."""
    with (
        KernelInternet(rtt=RTT, **nats) as net,
        Coturn(HOST, PORT, command_prefix=net.public.command([])),
    ):
        yield net


def dual_stack() -> KernelInternet:
    """Without NAT and firewall."""
    both = peer("none", ip=Ip.DUAL)
    return KernelInternet.of(Scenario(a=both, b=both, rtt=RTT))


def ipv6_behind_firewalls() -> KernelInternet:
    both = peer(ip=Ip.V6)
    return KernelInternet.of(Scenario(a=both, b=both, rtt=RTT))


def public_peer() -> KernelInternet:
    """The other stack is in public, as lite agents have to be, and we are behind a NAT."""
    return KernelInternet(nat_b="none", rtt=RTT)


def we_in_public() -> KernelInternet:
    """The other way round."""
    return KernelInternet(nat_a="none", rtt=RTT)
