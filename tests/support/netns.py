"""Helpers for tests in network namespaces."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ice_punch.datagram import Address
from ice_punch.lab.kernel import KernelHost, KernelInternet, available, enter

ROOT = Path(__file__).resolve().parents[2]

_reason = available()


def needs_netns(test: Callable[..., object]) -> Callable[..., object]:
    """Marks a test that builds a :class:`KernelInternet`; it is skipped with the reason why not."""
    return pytest.mark.netns(pytest.mark.skipif(_reason is not None, reason=str(_reason))(test))


def python(*arguments: str) -> list[str]:
    """The command line of this interpreter."""
    return [sys.executable, *arguments]


class UdpProbe:
    """A UDP socket of the test process inside a host's namespace."""

    def __init__(self, host: KernelHost, ip: str | None = None, port: int = 0) -> None:
        ip = host.address if ip is None else ip
        with enter(host.namespace):
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((ip, port))

    @property
    def address(self) -> Address:
        ip, port = self.socket.getsockname()[:2]
        return (ip, port)

    def send(self, destination: Address, data: bytes = b"probe") -> None:
        self.socket.sendto(data, destination)

    def receive(self, timeout: float = 5.0) -> tuple[bytes, Address]:
        """Raises :class:`TimeoutError`."""
        self.socket.settimeout(timeout)
        data, source = self.socket.recvfrom(65536)
        return data, (source[0], source[1])

    def source_of_next(self, timeout: float = 5.0) -> Address:
        return self.receive(timeout)[1]

    def hears_nothing(self, seconds: float = 0.2) -> bool:
        try:
            self.receive(seconds)
        except TimeoutError:
            return True
        return False

    def seen_by(self, other: UdpProbe) -> Address:
        """Where the other sees this one. Raises :class:`TimeoutError`."""
        for _ in range(2):  # the first of a path may wait in vain for a neighbour's address
            self.send(other.address)
            with contextlib.suppress(TimeoutError):
                return other.source_of_next(2.0)
        self.send(other.address)
        return other.source_of_next()

    def reaches(self, other: UdpProbe, *, expected: bool) -> bool:
        """Whether a datagram arrives. One that is expected has time, and more than one try."""
        if not expected:
            self.send(other.address)
            return not other.hears_nothing(0.1)
        with contextlib.suppress(TimeoutError):
            self.seen_by(other)
            return True
        return False

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def udp_probes(*places: tuple[KernelHost, str | None]) -> Iterator[list[UdpProbe]]:
    """One probe per ``(host, ip)``, the host's own address for ``None``."""
    with contextlib.ExitStack() as stack:
        probes: list[UdpProbe] = []
        for host, ip in places:
            probe = UdpProbe(host, ip)
            stack.callback(probe.close)
            probes.append(probe)
        yield probes


def start_discovery_server(net: KernelInternet, directory: Path) -> None:
    """coturn as RFC 5780 wants it: two addresses with two ports each, and nothing but STUN."""
    one, two = net.public.addresses[:2]
    net.public.popen(
        f"turnserver -n -L {one} -L {two} --no-tls --no-dtls --no-cli --stun-only"
        f" --log-file stdout --pidfile {directory}/pid".split(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    request = bytes.fromhex("00010000 2112a442") + bytes(12)
    with udp_probes((net.public, None)) as (probe,):
        for _ in range(100):
            probe.send((one, 3478), request)
            if not probe.hears_nothing(0.1):
                return
    raise AssertionError("the STUN server never answered")


NETNS = [pytest.mark.netns, pytest.mark.skipif(_reason is not None, reason=str(_reason))]
"""The ``pytestmark`` of a module whose every test builds a :class:`KernelInternet`."""
