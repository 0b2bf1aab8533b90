"""Two peers behind real kernel NATs, and a public internet between them, in network namespaces."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.kernel import namespaces
from ice_punch.lab.kernel.namespaces import (
    LaboratoryError,
    available,
    enter,
    leftovers,
    remove_leftovers,
    run_in,
)
from ice_punch.lab.kernel.processes import (
    ProcessGroup,
    end_processes,
    exit_on_signals,
    signals_held,
)
from ice_punch.lab.kernel.rules import ruleset

__all__ = [
    "KernelHost",
    "KernelInternet",
    "LaboratoryError",
    "available",
    "enter",
    "has_cable",
    "leftovers",
    "remove_leftovers",
    "run_in",
]

T = TypeVar("T")

PUBLIC_IPS = ("203.0.113.10", "203.0.113.11")
GATEWAY = "198.51.100.254"
NOWHERE, NOWHERE_MAC = "203.0.113.254", "02:00:00:00:00:ff"
OUTSIDE_IPS = ("198.51.100.1", "198.51.100.2")
LAN = ("10.1.0", "10.2.0")
BRIDGE_MAC = "02:00:00:00:00:fe"
OUTSIDE_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
READY_TIMEOUT = 20.0
CABLE = str(Path(__file__).with_name("cable.py"))

_QUIET = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/conf/all/rp_filter": "0",
}


def has_cable() -> bool:
    """Whether packets can be made to wait or get lost here, given that namespaces can be made."""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


class KernelHost:
    """One namespace that programs can run in."""

    def __init__(
        self,
        namespace: str,
        lan_address: str,
        public_addresses: tuple[str, ...],
        processes: ProcessGroup,
    ) -> None:
        self.namespace = namespace
        self.lan_address = lan_address
        """What the host itself sees as its address."""
        self.public_addresses = public_addresses
        self._processes = processes

    @property
    def address(self) -> str:
        """What the host itself sees as its (first) address."""
        return self.lan_address

    @property
    def public_address(self) -> str:
        """What others see: the NAT's outside address, or the host's own."""
        return self.public_addresses[0]

    def command(self, command: list[str]) -> list[str]:
        """The command line that runs ``command`` here, for whoever starts it himself."""
        return namespaces.command_in(self.namespace, command)

    def popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start ``command`` here, with the options of :class:`subprocess.Popen`; it ends with the
        laboratory at the latest."""
        return self._processes.popen(self.command(command), **options)

    def run(
        self, command: list[str], *, timeout: float = 30.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` here to its end and return what it printed, as text.

        Raises what :func:`subprocess.run` raises.
        """
        return subprocess.run(
            self.command(command), capture_output=True, text=True, timeout=timeout, check=check
        )

    def call(self, function: Callable[[], T], *, timeout: float = 30.0) -> T:
        """Call ``function`` in a forked process here, see :func:`run_in`."""
        return run_in(self.namespace, function, timeout=timeout)


class KernelInternet:
    """Two peers behind kernel NATs: a context manager that leaves nothing behind.

    ``peer_a`` and ``peer_b`` have one device, ``eth0``, behind the NATs ``router_a`` and
    ``router_b`` (``None`` for a peer without NAT, whose ``eth0`` is public). ``public`` has the
    addresses 203.0.113.10 and 203.0.113.11 and is meant for servers.

    A round trip time or loss needs a process per peer that delays its frames; without them the
    kernel does it all. SIGTERM and SIGHUP end the block like Ctrl-C does, unless the program has
    handlers of its own. Raises :class:`LaboratoryError` where :func:`available` has a reason.
    """

    peer_a: KernelHost
    peer_b: KernelHost
    public: KernelHost
    router_a: KernelHost | None
    router_b: KernelHost | None

    def __init__(
        self,
        *,
        nat_a: NatKind | str = NatKind.PORT_RESTRICTED,
        nat_b: NatKind | str = NatKind.PORT_RESTRICTED,
        rtt: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.nats = (NatKind(nat_a), NatKind(nat_b))
        self.rtt = rtt
        self.loss = loss
        self.seed = seed
        self.namespaces: list[str] = []
        self._processes = ProcessGroup()
        self._signals = contextlib.ExitStack()
        self._owner = os.getpid()

    @property
    def server_address(self) -> Address:
        """Where a STUN server on the public host is expected."""
        return (PUBLIC_IPS[0], 3478)

    def __enter__(self) -> KernelInternet:
        reason = available()
        if reason is not None:
            raise LaboratoryError(reason)
        self._owner = os.getpid()
        _open.add(self)
        try:
            self._signals.enter_context(exit_on_signals())
            with signals_held():
                self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what was started, remove what was made. Does nothing the second time."""
        if os.getpid() != self._owner:
            return
        with signals_held():
            self._processes.stop()
            for namespace in self.namespaces:
                end_processes(namespaces.pids_in(namespace))
            namespaces.remove(*self.namespaces)
            self.namespaces.clear()
            _open.discard(self)
            self._signals.close()

    def _build(self) -> None:
        kinds = self.nats
        public, peer_a, peer_b, nat_a, nat_b = namespaces.new_names(
            "public", "peer-a", "peer-b", "nat-a", "nat-b"
        )
        routers = [
            None if kind is NatKind.NONE else name
            for kind, name in zip(kinds, (nat_a, nat_b), strict=True)
        ]
        self.namespaces = [public, peer_a, peer_b, *(r for r in routers if r is not None)]
        namespaces.make(*self.namespaces)
        for name in self.namespaces:
            _set_kernel_parameters(name, forwards=name in routers)
        self._build_public(public)
        self.public = KernelHost(public, PUBLIC_IPS[0], PUBLIC_IPS, self._processes)
        peers: list[KernelHost] = []
        hosts: list[KernelHost | None] = []
        for index, peer in enumerate((peer_a, peer_b)):
            router = routers[index]
            outside = OUTSIDE_IPS[index]
            if router is None:
                self._connect(index, peer, "eth0", public)
                inside = outside
                hosts.append(None)
            else:
                self._connect(index, router, "wan0", public)
                inside = f"{LAN[index]}.2"
                self._build_lan(index, router, peer)
                _load_rules(router, ruleset(kinds[index], wan=outside, peer=inside))
                hosts.append(KernelHost(router, f"{LAN[index]}.1", (outside,), self._processes))
            peers.append(KernelHost(peer, inside, (outside,), self._processes))
        self.peer_a, self.peer_b = peers
        self.router_a, self.router_b = hosts

    def _build_public(self, public: str) -> None:
        _configure(
            public,
            "link set lo up",
            f"link add net0 address {BRIDGE_MAC} type bridge",
            *(f"address add {ip}/24 dev net0" for ip in PUBLIC_IPS),
            f"address add {GATEWAY}/24 dev net0",
            "link set net0 up",
            # What is addressed to nowhere vanishes, as on the internet. Without any route sendto
            # fails, and coturn closes the session of whoever asked for a private peer address.
            f"neighbour replace {NOWHERE} lladdr {NOWHERE_MAC} dev net0 nud permanent",
            f"route add default via {NOWHERE} dev net0",
            *_neighbours("net0", zip(OUTSIDE_IPS, OUTSIDE_MACS, strict=True)),
        )

    def _connect(self, index: int, namespace: str, device: str, public: str) -> None:
        """Give a namespace its place on the public internet."""
        port = f"port{index}"
        if self.rtt or self.loss:
            self._lay_cable(index, (namespace, device), (public, port))
        else:
            namespaces.run_tool(
                "ip", "-n", namespace,
                *f"link add {device} type veth peer name {port} netns {public}".split(),
            )  # fmt: skip
        _configure(public, f"link set {port} master net0 up")
        other = 1 - index
        neighbours = [(GATEWAY, BRIDGE_MAC), (OUTSIDE_IPS[other], OUTSIDE_MACS[other])]
        _configure(
            namespace,
            "link set lo up",
            f"link set {device} address {OUTSIDE_MACS[index]} up",
            f"address add {OUTSIDE_IPS[index]}/24 dev {device}",
            f"route add default via {GATEWAY}",
            *_neighbours(device, neighbours),
        )

    def _build_lan(self, index: int, router: str, peer: str) -> None:
        namespaces.run_tool(
            "ip", "-n", router, *f"link add lan0 type veth peer name eth0 netns {peer}".split()
        )
        _configure(router, f"address add {LAN[index]}.1/24 dev lan0", "link set lan0 up")
        _configure(
            peer,
            "link set lo up",
            f"address add {LAN[index]}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via {LAN[index]}.1",
        )

    def _lay_cable(self, index: int, end: tuple[str, str], other: tuple[str, str]) -> None:
        process = self._processes.popen(
            [
                sys.executable,
                "-I",
                CABLE,
                *end,
                *other,
                f"--delay={self.rtt / 4}",
                f"--loss={self.loss}",
                f"--seed={self.seed * 2 + index}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        ready, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT)
        if not ready or process.stdout.readline() != b"ready\n":
            process.kill()
            lines = process.stderr.read().decode(errors="replace").splitlines()
            raise LaboratoryError(f"no cable with delay: {lines[-1] if lines else 'no answer'}")


def _configure(namespace: str, *lines: str) -> None:
    namespaces.run_tool("ip", "-n", namespace, "-batch", "-", script="\n".join((*lines, "")))


def _neighbours(device: str, known: Any) -> list[str]:
    # Known beforehand, so that no address resolution adds a round trip to the first packet.
    return [f"neighbour replace {ip} lladdr {mac} dev {device} nud permanent" for ip, mac in known]


def _set_kernel_parameters(namespace: str, *, forwards: bool) -> None:
    with enter(namespace):
        for name, value in {**_QUIET, "net/ipv4/ip_forward": str(int(forwards))}.items():
            with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{name}", "w") as file:
                file.write(value)


def _load_rules(namespace: str, rules: str) -> None:
    with enter(namespace):
        namespaces.run_tool("nft", "-f", "-", script=rules)


_open: set[KernelInternet] = set()


@atexit.register
def _close_all() -> None:
    for internet in list(_open):
        internet.close()
