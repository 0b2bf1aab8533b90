"""Peers behind real kernel NATs, and a public internet between them, in network namespaces."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ice_punch.datagram import Address
from ice_punch.lab.behaviour import NatKind
from ice_punch.lab.kernel import namespaces
from ice_punch.lab.kernel.cables import Cable, to_line
from ice_punch.lab.kernel.layout import PUBLIC, STUN_IPS, Layout, Router
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
    exit_on_signals,
    signals_held,
)
from ice_punch.lab.kernel.segments import Namespace, Wire, carried
from ice_punch.lab.links import AccessLink, LinkProfile
from ice_punch.lab.scenario import Nats, Scenario, Side, peer

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

PUBLIC_IPS = STUN_IPS
READY_TIMEOUT = 20.0
CARRIER = "ice_punch.lab.kernel.cable"
ROOT = Path(__file__).resolve().parents[3]
"""Where ``ice_punch`` is imported from."""


def has_cable() -> bool:
    """Whether packets can be made to wait or get lost here, given that namespaces can be made."""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


class KernelHost:
    """One namespace that programs can run in."""

    def __init__(
        self,
        namespace: str,
        addresses: tuple[str, ...],
        public_addresses: tuple[str, ...],
        processes: ProcessGroup,
    ) -> None:
        self.namespace = namespace
        self.addresses = addresses
        """What the host itself sees as its addresses."""
        self.public_addresses = public_addresses
        self._processes = processes

    @property
    def address(self) -> str:
        """What the host itself sees as its (first) address."""
        return self.addresses[0]

    @property
    def lan_address(self) -> str:
        """The same."""
        return self.addresses[0]

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
    addresses 203.0.113.10 and 203.0.113.11 and is meant for servers. ``of`` builds the internet
    of any scenario.

    A round trip time, loss and the like need a process that carries the frames; without them the
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
        nat_a: Nats | str = NatKind.PORT_RESTRICTED,
        nat_b: Nats | str = NatKind.PORT_RESTRICTED,
        rtt: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        """NATs are given as in :func:`ice_punch.lab.scenario.peer`, kinds by name as well. Raises
        InvalidConfiguration for what is none."""
        link = AccessLink.both(LinkProfile(loss=loss))
        a, b = (peer(NatKind(nat) if isinstance(nat, str) else nat, link) for nat in (nat_a, nat_b))
        self._take(Scenario(a=a, b=b, rtt=rtt), seed)

    @classmethod
    def of(cls, scenario: Scenario, seed: int = 0) -> KernelInternet:
        """The internet of a scenario that :func:`can_run` has nothing against."""
        made = cls.__new__(cls)
        made._take(scenario, seed)
        return made

    def _take(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.layout = Layout(scenario, seed)
        self.namespaces: list[str] = []
        self._names: dict[str, str] = {}
        self._processes = ProcessGroup()
        self._signals = contextlib.ExitStack()
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._closed = False

    @property
    def server_address(self) -> Address:
        """Where a STUN server on the public host is expected."""
        return (PUBLIC_IPS[0], 3478)

    def host(self, role: str) -> KernelHost:
        """The namespace of a router or peer of the layout."""
        router = self.layout.routers.get(role)
        external = () if router is None else router.external
        return KernelHost(self._names[role], external, external, self._processes)

    def namespace(self, role: str) -> str:
        """The name of one of the layout's namespaces."""
        return self._names[role]

    def side(self, side: Side) -> KernelHost:
        return self.peer_a if side == "a" else self.peer_b

    def __enter__(self) -> KernelInternet:
        reason = available()
        if reason is not None:
            raise LaboratoryError(reason)
        self._owner = os.getpid()
        _open.add(self)
        try:
            self._signals.enter_context(exit_on_signals())
            with signals_held(), self._lock:
                if self._closed:
                    raise LaboratoryError("this laboratory has been closed")
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
        """End what was started, remove what was made, from any thread. Does nothing the second
        time."""
        if os.getpid() != self._owner:
            return
        with signals_held(), self._lock:
            self._closed = True
            self._processes.stop()
            namespaces.remove(*self.namespaces)
            self.namespaces.clear()
            _open.discard(self)
            self._signals.close()

    # -- building -----------------------------------------------------------------------------

    def _build(self) -> None:
        layout = self.layout
        self.namespaces = namespaces.new_names(*layout.namespaces)
        self._names = dict(zip(layout.namespaces, self.namespaces, strict=True))
        namespaces.make(*self.namespaces)
        for role, node in layout.namespaces.items():
            _set_kernel_parameters(
                self._names[role], _parameters(ipv6=layout.ipv6, forwards=node.forwards)
            )
        self._lay_wires(layout.wires)
        for role, node in layout.namespaces.items():
            self._configure(self._names[role], node)
        for role, router in layout.routers.items():
            timeout = str(router.udp_timeout)
            _set_kernel_parameters(
                self._names[role],
                {
                    "net/netfilter/nf_conntrack_udp_timeout": timeout,
                    "net/netfilter/nf_conntrack_udp_timeout_stream": timeout,
                },
            )
        self.public = KernelHost(self._names[PUBLIC], PUBLIC_IPS, PUBLIC_IPS, self._processes)
        self.peer_a, self.peer_b = (self._peer(index) for index in (0, 1))
        self.router_a, self.router_b = (
            self.host(seat.routers[0].role) if seat.routers else None for seat in layout.seats
        )

    def _peer(self, index: int) -> KernelHost:
        seat = self.layout.seats[index]
        outermost: tuple[Router, ...] = self.layout.shared[-1:] or seat.routers[-1:]
        seen = outermost[0].external if outermost else ()
        own = tuple(ip for ip in seat.addresses if ":" not in ip)
        return KernelHost(self._names[seat.node.role], seat.addresses, seen or own, self._processes)

    def _configure(self, namespace: str, node: Namespace) -> None:
        namespaces.run_tool(
            "ip", "-n", namespace, "-batch", "-", script="\n".join((*node.setup, ""))
        )
        if node.rules:
            load_rules(namespace, "".join(node.rules))

    def _lay_wires(self, wires: Iterable[Wire]) -> None:
        cables: list[Cable] = []
        veths: list[str] = []
        for wire in wires:
            inner, outer = (self._names[end.role] for end in (wire.inner, wire.outer))
            if wire.needs_cable:
                cables.append(
                    Cable(
                        (inner, wire.inner.device),
                        (outer, wire.outer.device),
                        carried(wire.access.up),
                        carried(wire.access.down),
                        (f"{self.seed}/{wire.name} up", f"{self.seed}/{wire.name} down"),
                    )
                )
            else:
                veths.append(
                    f"link add {wire.inner.device} netns {inner} type veth"
                    f" peer name {wire.outer.device} netns {outer}\n"
                )
        carrier = self._start_carrier(cables) if cables else None
        namespaces.run_tool("ip", "-batch", "-", script="".join(veths))
        if carrier is not None:
            _wait_until_ready(carrier)

    def _start_carrier(self, cables: list[Cable]) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = self._processes.popen(
            [sys.executable, "-m", CARRIER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=own_environment(),
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(to_line(cables).encode())
            process.stdin.flush()
        return process


def own_environment() -> dict[str, str]:
    """The environment of an interpreter that imports ``ice_punch`` from where we have it."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def load_rules(namespace: str, rules: str) -> None:
    """Raises :class:`LaboratoryError` with the words of ``nft``."""
    with enter(namespace):
        namespaces.run_tool("nft", "-f", "-", script=rules)


def _wait_until_ready(carrier: subprocess.Popen[bytes]) -> None:
    assert carrier.stdout is not None
    assert carrier.stderr is not None
    ready, _, _ = select.select([carrier.stdout], [], [], READY_TIMEOUT)
    if not ready or carrier.stdout.readline() != b"ready\n":
        carrier.kill()
        lines = carrier.stderr.read().decode(errors="replace").splitlines()
        raise LaboratoryError(f"no cable with delay: {lines[-1] if lines else 'no answer'}")


def _parameters(*, ipv6: bool, forwards: bool) -> dict[str, str]:
    parameters = {
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/default/rp_filter": "0",
        "net/bridge/bridge-nf-call-iptables": "0",
    }
    if ipv6:
        # No address of the system's own making, and nothing sent to get one.
        for name, value in (
            ("accept_dad", "0"),
            ("accept_ra", "0"),
            ("addr_gen_mode", "1"),
            ("autoconf", "0"),
            ("router_solicitations", "0"),
        ):
            parameters[f"net/ipv6/conf/default/{name}"] = value
    else:
        parameters["net/ipv6/conf/all/disable_ipv6"] = "1"
        parameters["net/ipv6/conf/default/disable_ipv6"] = "1"
    if forwards:
        for which in ("all", "default"):
            parameters[f"net/ipv4/conf/{which}/accept_local"] = "1"
            parameters[f"net/ipv4/conf/{which}/send_redirects"] = "0"
        parameters["net/ipv4/ip_forward"] = "1"
        parameters["net/ipv4/icmp_ratelimit"] = "0"
        if ipv6:
            parameters["net/ipv6/conf/all/forwarding"] = "1"
            parameters["net/ipv6/icmp/ratelimit"] = "0"
    return parameters


def _set_kernel_parameters(namespace: str, parameters: dict[str, str]) -> None:
    with enter(namespace):
        for name, value in parameters.items():
            with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{name}", "w") as file:
                file.write(value)


_open: set[KernelInternet] = set()


@atexit.register
def _close_all() -> None:
    for internet in list(_open):
        internet.close()
