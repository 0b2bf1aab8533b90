"""Gathering, RFC 8445 section 5.1.1: sockets, server-reflexive queries and relays, all at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from ice_punch.datagram import Address
from ice_punch.errors import (
    AuthenticationRejected,
    GatheringFailed,
    IcePunchError,
    PortRangeExhausted,
    RelayDenied,
    ServerUnreachable,
)
from ice_punch.ice import Agent
from ice_punch.ice.candidate import interleaved_local_preferences
from ice_punch.net.dns import resolve
from ice_punch.net.ice_server import IceServer
from ice_punch.net.interfaces import (
    InterfaceAddress,
    InterfaceFilter,
    default_filter,
    local_addresses,
    only_interface,
)
from ice_punch.net.udp import UdpSocket
from ice_punch.report import Report, ServerReport

if TYPE_CHECKING:
    from ice_punch.net.relay import Relay

RELAY_PREFERENCE = {"udp": 32767, "tcp": 16383, "tls": 8191}
"""Local preferences: the nearer a relay's own transport is to datagrams, the better."""


class Path(Protocol):
    """What datagrams leave through: a socket of ours, or a relay."""

    def send(self, data: bytes, destination: Address) -> object: ...


@dataclass(frozen=True, slots=True)
class GatheringOptions:
    """Where candidates come from. Times in seconds."""

    ice_servers: tuple[IceServer, ...] = ()
    interface: str | None = None
    """Only this interface."""
    interface_filter: InterfaceFilter = default_filter
    ipv4: bool = True
    ipv6: bool = True
    port_range: tuple[int, int] | None = None
    direct_only: bool = False
    relay_only: bool = False
    timeout: float = 5.0
    """After so long gathering is declared over; a server that is still silent is reported so."""

    def addresses(self) -> list[InterfaceAddress]:
        """The local addresses to use. Raises InterfaceNotFound for an unknown interface."""
        chosen = only_interface(self.interface) if self.interface else self.interface_filter
        return local_addresses(chosen, ipv4=self.ipv4, ipv6=self.ipv6)


@dataclass(slots=True)
class _Relays:
    open: list[Relay] = field(default_factory=list)
    errors: list[IcePunchError] = field(default_factory=list)


class Gatherer:
    """Feeds an agent with candidates and owns the sockets and relays behind them."""

    def __init__(
        self,
        agent: Agent,
        options: GatheringOptions,
        *,
        on_datagram: Callable[[bytes, Address, Address], None],
        on_icmp_error: Callable[[Address, Address], None],
        on_change: Callable[[], None],
    ) -> None:
        self.paths: dict[Address, Path] = {}
        """By base."""
        self.reports: list[ServerReport] = []
        """What came of names and relays; the agent reports its own queries."""
        self._nothing_gathered = ""
        self._tcp_hosts: set[str] = set()
        self._agent = agent
        self._options = options
        self._on_datagram = on_datagram
        self._on_icmp_error = on_icmp_error
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._sockets: list[UdpSocket] = []
        self._relays = _Relays()
        self._under_way: list[IceServer] = []
        self._queries_over = asyncio.Event()
        self._closed = False

    async def run(self) -> None:
        """Gather everything there is, for at most ``options.timeout``.

        Raises GatheringFailed, PortRangeExhausted, InterfaceNotFound, AuthenticationRejected or
        RelayDenied when no candidate of any kind came of it.
        """
        addresses = self._options.addresses()
        if not self._options.relay_only:
            self._open_sockets(addresses)
        tasks = [asyncio.ensure_future(self._use(server)) for server in self._options.ice_servers]
        try:
            async with asyncio.timeout(self._options.timeout):
                await asyncio.gather(*tasks)
                while self._agent.queries_busy:
                    self._queries_over.clear()
                    await self._queries_over.wait()
        except TimeoutError:
            self._report_late()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self._agent.local_candidates:
            raise self._nothing(addresses)

    def _report_late(self) -> None:
        """Name the servers whose name or relay was still awaited at the end."""
        told = {report.uri for report in self.reports}
        for server in self._under_way:
            within = f"within {self._options.timeout:g} s"
            if server.uri in told:
                continue
            if server.is_relay:
                self._report(server, "silent", f"{server.uri} did not answer {within}", "relay")
            else:
                why = f"the name {server.host} was not resolved {within}"
                self._report(server, "unresolved", why, "address")

    def _report(self, server: IceServer, outcome: str, detail: str, purpose: str) -> None:
        self.reports.append(ServerReport(server.uri, outcome, detail, purpose))

    def note_tcp(self, host: str) -> None:
        """A host answered over TCP: if it does not over UDP, that tells something."""
        self._tcp_hosts.add(host)

    def _pending(self, report: Report) -> list[ServerReport]:
        """Of the servers that are under way, what is neither told nor asked by the agent."""
        told = {(server.uri, server.purpose) for server in (*report.servers, *self.reports)}
        wanted = [
            *(
                (s, "relay")
                for s in self._under_way
                if s.is_relay and not self._options.direct_only
            ),
            *((s, "address") for s in self._under_way if not s.is_relay),
        ]
        return [
            ServerReport(server.uri, "pending", "", purpose)
            for server, purpose in wanted
            if (server.uri, purpose) not in told
        ]

    def report(self) -> Report:
        """The agent's, and what became of names and relays."""
        report = self._agent.report()
        over_udp = any(relay.server.transport == "udp" for relay in self._relays.open)
        return replace(
            report,
            servers=(*report.servers, *self.reports, *self._pending(report)),
            udp_works=True if over_udp else report.udp_works,
            tcp_hosts=tuple(sorted(self._tcp_hosts)),
            direct_only=self._options.direct_only,
            relay_only=self._options.relay_only,
            nothing_gathered=self._nothing_gathered,
        )

    def queries_changed(self) -> None:
        """The agent told that a server query ended."""
        self._queries_over.set()

    def _nothing(self, addresses: list[InterfaceAddress]) -> IcePunchError:
        where = f" on {self._options.interface}" if self._options.interface else ""
        if not self._options.relay_only:
            what = "no socket could be opened" if addresses else "no usable address was found"
            self._nothing_gathered = f"{what}{where}"
        report = self.report()
        for error in self._relays.errors:
            if isinstance(error, AuthenticationRejected | RelayDenied):
                return type(error).explained(report)
        return GatheringFailed.explained(report)

    def _open_sockets(self, addresses: list[InterfaceAddress]) -> None:
        preferences = interleaved_local_preferences(a.ip for a in addresses)
        exhausted: PortRangeExhausted | None = None
        for address in addresses:
            try:
                socket = UdpSocket.open(
                    address.ip,
                    self._on_datagram,
                    on_error=None,
                    port_range=self._options.port_range,
                    loop=self._loop,
                )
            except PortRangeExhausted as error:
                exhausted = error
                continue
            except OSError:
                continue  # an address that went away between being listed and being bound
            base = socket.local
            socket.on_error = lambda destination, _error, base=base: (
                self._on_icmp_error(base, destination) if destination is not None else None
            )
            self._sockets.append(socket)
            self.paths[base] = socket
            self._agent.add_host_candidate(
                base, self._loop.time(), local_preference=preferences[address.ip]
            )
        if not self._sockets and exhausted is not None:
            raise exhausted
        self._on_change()

    async def _use(self, server: IceServer) -> None:
        relays = server.is_relay and not self._options.direct_only
        asks = server.transport == "udp" and server.scheme in ("stun", "turn")
        work = []
        if relays:
            work.append(self._open_relay(server))
        if not relays and not asks and server.scheme in ("stun", "stuns"):
            why = f"what {server.uri} sees of TCP or TLS tells nothing of UDP"
            self._report(server, "unresolved", why, "address")
        if asks and not self._options.relay_only:
            work.append(self._ask(server))
        self._under_way.append(server)
        await asyncio.gather(*work)
        self._under_way.remove(server)

    async def _ask(self, server: IceServer) -> None:
        """A Binding request from every base of the server's family."""
        try:
            addresses = await resolve(
                server.host, server.port, ipv4=self._options.ipv4, ipv6=self._options.ipv6
            )
        except IcePunchError as error:
            self._report(server, "unresolved", str(error), "address")
            return
        for version in (4, 6):
            address = next((a for a in addresses if (":" in a[0]) == (version == 6)), None)
            if address is None:
                continue
            for socket in self._sockets:
                if (":" in socket.local[0]) == (version == 6) and not self._closed:
                    with contextlib.suppress(ValueError):  # more servers than an agent may ask
                        self._agent.query_server(
                            server.uri, address, socket.local, self._loop.time()
                        )
        self._on_change()

    async def _open_relay(self, server: IceServer) -> None:
        """RFC 8445 section 14: a relay request takes its slot of Ta like every other."""
        from ice_punch.net.relay import Relay  # for those who have a TURN server only

        slot = self._agent.pacer.reserve(self._loop.time())
        await asyncio.sleep(max(0.0, slot - self._loop.time()))
        try:
            relay = await Relay.open(
                server,
                on_datagram=self._on_datagram,
                on_closed=lambda why: self._report(server, "unreachable", why, "relay"),
                local_ip=self._relay_source(),
                port_range=self._options.port_range,
                ipv4=self._options.ipv4,
                ipv6=self._options.ipv6,
                timeout=self._options.timeout,
            )
        except AuthenticationRejected as error:
            self._relay_failed(server, "rejected", error)
            return
        except RelayDenied as error:
            self._relay_failed(server, "denied", error)
            return
        except IcePunchError as error:
            outcome = error.outcome if isinstance(error, ServerUnreachable) else "unreachable"
            self._relay_failed(server, outcome, error)
            return
        if self._closed:
            await relay.close()
            return
        self._relays.open.append(relay)
        base = relay.relayed_address
        relay.on_error = lambda peer, _error: (
            self._on_icmp_error(base, peer) if peer is not None else None
        )
        self.paths[base] = relay
        self._report(server, "ok", "", "relay")
        if server.transport == "tcp":
            self.note_tcp(server.host)
        transport = "tls" if server.scheme == "turns" else server.transport
        self._agent.add_relayed_candidate(
            relay.relayed_address,
            self._loop.time(),
            server=server.uri,
            mapped=None if self._options.relay_only else relay.mapped_address,
            local_preference=RELAY_PREFERENCE[transport],
        )
        self._permit_remote_candidates(relay)
        self._on_change()

    def permit_remote_candidates(self) -> None:
        """Have our relays take what comes from the peer's candidates, as soon as they are known:
        its first check then arrives, and need not be repeated (RFC 8656 section 9)."""
        for relay in self._relays.open:
            self._permit_remote_candidates(relay)

    def _permit_remote_candidates(self, relay: Relay) -> None:
        for candidate in self._agent.remote_candidates:
            relay.permit(candidate.address)

    def _relay_source(self) -> str | None:
        """The address towards TURN servers, where the user named an interface."""
        if self._options.interface is None:
            return None
        own = [address.ip for address in self._options.addresses()]
        return next((ip for ip in own if ":" not in ip), own[0] if own else None)

    def _relay_failed(self, server: IceServer, outcome: str, error: IcePunchError) -> None:
        self._relays.errors.append(error)
        self._report(server, outcome, str(error), "relay")

    async def close(self) -> None:
        """Close every socket and give every allocation back, within a second."""
        self._closed = True
        self.paths.clear()
        for socket in self._sockets:
            socket.close()
        await asyncio.gather(
            *(relay.close() for relay in self._relays.open), return_exceptions=True
        )
