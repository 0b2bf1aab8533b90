"""Gathering, RFC 8445 section 5.1.1: sockets, server-reflexive queries and relays, all at once, and
again on every address that comes later."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ice_punch.datagram import Address
from ice_punch.errors import (
    AuthenticationRejected,
    GatheringFailed,
    IcePunchError,
    InterfaceNotFound,
    PortRangeExhausted,
    RelayDenied,
)
from ice_punch.ice import Agent, Candidate
from ice_punch.ice.candidate import interleaved_local_preferences
from ice_punch.net.gathering_notes import GatheringNotes
from ice_punch.net.gathering_options import GatheringOptions
from ice_punch.net.host_socket import HostSocket
from ice_punch.net.ice_server import IceServer
from ice_punch.net.interfaces import InterfaceAddress, source_towards
from ice_punch.net.monitor import NetworkChanged
from ice_punch.net.relays import Path, Relays
from ice_punch.net.servers import ServerAddresses
from ice_punch.net.udp import DatagramHandler, SegmentsHandler
from ice_punch.report import Report, ServerReport

_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104
TOLD_WITHIN = 0.5
"""Seconds in which an Allocate request has to tell the address of its base; after that a Binding
request asks too, which is half as long on its way, and needs no relay."""

if TYPE_CHECKING:
    from ice_punch.net.hidden import HiddenAddresses
    from ice_punch.turn import Family

__all__ = ["Gatherer", "GatheringOptions", "Path"]


class Gatherer:
    """Feeds an agent with candidates and owns the sockets and relays behind them."""

    def __init__(
        self,
        agent: Agent,
        options: GatheringOptions,
        *,
        on_datagram: DatagramHandler,
        on_icmp_error: Callable[[Address, Address], None],
        on_change: Callable[[], None],
        on_segments: SegmentsHandler | None = None,
    ) -> None:
        """``on_change`` is called after the agent was told something. ``on_segments`` is for the
        sockets of host candidates, as of ``UdpSocket``."""
        self.paths: dict[Address, Path] = {}
        """By base."""
        self.counters: Counter[str] = Counter()
        self.hidden: HiddenAddresses | None = None
        """What the peer is told instead of addresses."""
        if options.hide_addresses:
            from ice_punch.net.hidden import HiddenAddresses

            self.hidden = HiddenAddresses()
        self.servers = ServerAddresses(options)
        """The servers' addresses, and what stands for IPv4 addresses behind NAT64."""
        self.on_vanished: Callable[[], None] | None = None
        """Told that an address seems to be gone: a send from it failed."""
        self._notes = GatheringNotes(options)
        self._agent = agent
        self._options = options
        self._on_datagram = on_datagram
        self._on_segments = on_segments
        self._on_icmp_error = on_icmp_error
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, None] = {}
        """The addresses that were gathered on, with a socket or without."""
        self._sockets: dict[str, HostSocket] = {}
        """By IP address."""
        self._spoiled: list[HostSocket] = []
        """Those that fresh ones stand in for; relays may still use them."""
        self._relays = Relays(
            agent,
            self.paths,
            on_datagram=on_datagram,
            on_icmp_error=on_icmp_error,
            on_forget=self._forget,
            on_change=on_change,
            report=self._notes.add,
        )
        self._later: dict[asyncio.Task[None], Mapping[bool, str]] = {}
        """Rounds of gathering after the first, and the addresses that their relays are from."""
        self._queries_over: asyncio.Event | None = None
        """While somebody waits for the end of a server query."""
        self._closed = False

    async def run(self) -> None:
        """Gather everything there is, for at most ``options.timeout``.

        Raises GatheringFailed, PortRangeExhausted, InterfaceNotFound, AuthenticationRejected or
        RelayDenied when no candidate of any kind came of it.
        """
        addresses = self._options.addresses()
        self._known.update(dict.fromkeys(a.ip for a in addresses))
        self.servers.here(addresses)
        sockets: list[HostSocket] = []
        if not self._options.relay_only:
            sockets = self._open_sockets(addresses, addresses)
        await self._gather(self._options.ice_servers, sockets, self._relay_sources(addresses))
        if not self._agent.local_candidates:
            raise self._nothing(addresses)

    async def _gather(
        self,
        servers: Iterable[IceServer],
        sockets: Sequence[HostSocket],
        sources: Mapping[bool, str],
        *,
        relays: bool = True,
    ) -> None:
        """Ask every server from these sockets, and for one relay, from one of the ``sources`` (by
        whether they are IPv6) if there are any."""
        under_way = self._notes.begin()
        tasks = [
            asyncio.ensure_future(self._use(server, sockets, sources, under_way, relays=relays))
            for server in servers
        ]
        try:
            async with asyncio.timeout(self._options.timeout):
                await asyncio.gather(*tasks)
                while self._agent.queries_busy:
                    if self._queries_over is None:
                        self._queries_over = asyncio.Event()
                    await self._queries_over.wait()
        except TimeoutError:
            self._notes.report_late(under_way)
        finally:
            self._notes.end(under_way)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- addresses that come and go -----------------------------------------------------------

    def addresses_in_use(self) -> list[str]:
        """Those that were gathered on, and those that relays are reached from."""
        from_relays = [r.local_ip for r in self._relays.open if r.local_ip not in _UNSPECIFIED]
        return [*self._known, *from_relays]

    def change(self, change: NetworkChanged) -> None:
        """Forget what went, gather on what came: with the same servers and the same rules. New
        candidates are told by the agent as all are (RFC 8838 section 10)."""
        if self._closed:
            return
        for ip in change.removed:
            self._known.pop(ip, None)
        self._known.update(dict.fromkeys(a.ip for a in change.added))
        lost = self._drop(change.removed)
        addresses = self._options.snapshot().usable if change.added or lost else ()
        self.servers.here(addresses)
        sockets: list[HostSocket] = []
        if change.added and not self._options.relay_only:
            with contextlib.suppress(PortRangeExhausted):
                sockets = self._open_sockets(change.added, addresses, new=True)
        self._on_change()
        if change.added:
            self._gather_later(self._options.ice_servers, sockets, _by_family(change.added))
        elif lost and addresses:
            # Relays were reached from what is gone; another address may reach them as well.
            self._gather_later(lost, [], {})

    @property
    def busy(self) -> bool:
        """Whether a round of gathering after the first one is under way."""
        return bool(self._later)

    def open_fresh_sockets(self) -> None:
        """Another port for every host candidate, for an agent that restarts with fresh sockets. The
        old ones stay open: what carried data before still does."""
        if self._closed or self._options.relay_only:
            return
        addresses = self._options.snapshot().usable
        self._spoiled += self._sockets.values()
        self._sockets = {}
        with contextlib.suppress(PortRangeExhausted):
            sockets = self._open_sockets(addresses, addresses, new=True)
            self._gather_later(self._options.ice_servers, sockets, {}, relays=False)

    def _gather_later(
        self,
        servers: Iterable[IceServer],
        sockets: Sequence[HostSocket],
        sources: Mapping[bool, str],
        *,
        relays: bool = True,
    ) -> None:
        task = asyncio.ensure_future(self._gather(servers, sockets, sources, relays=relays))
        self._later[task] = sources
        task.add_done_callback(self._later.pop)

    def _drop(self, ips: Iterable[str]) -> list[IceServer]:
        """The servers whose relays went with the addresses. The agent is told before any socket is
        closed."""
        gone = set(ips)
        for task, sources in list(self._later.items()):
            left = {ipv6: ip for ipv6, ip in sources.items() if ip not in gone}
            if left != sources:
                task.cancel()
                if left:
                    sockets = [s for ip, s in self._sockets.items() if ip in left.values()]
                    self._gather_later(self._options.ice_servers, sockets, left)
        lost = self._relays.drop(gone)
        for ip in gone & self._sockets.keys():
            socket = self._sockets.pop(ip)
            self._forget(socket.local)
            socket.close()
            self.counters["addresses_gone"] += 1
            if self.hidden is not None:
                self.hidden.withdraw(ip)
        for socket in [socket for socket in self._spoiled if socket.ip in gone]:
            self._spoiled.remove(socket)
            self._forget(socket.local)
            socket.close()
        return lost

    def _forget(self, base: Address) -> None:
        """Pairs with this base end, and consent on them; another valid pair takes over."""
        remove = getattr(self._agent, "remove_local_candidate", None)
        if remove is not None:
            remove(base, self._loop.time())
        self.paths.pop(base, None)

    def _vanished(self) -> None:
        self.counters["sends_from_gone_address"] += 1
        if self.on_vanished is not None:
            self.on_vanished()

    # -- what came of it ----------------------------------------------------------------------

    def note_tcp(self, host: str) -> None:
        """A host answered over TCP: if it does not over UDP, that tells something."""
        self._notes.note_tcp(host)

    @property
    def reports(self) -> list[ServerReport]:
        """What came of names and relays; the agent reports its own queries."""
        return self._notes.reports

    def report(self) -> Report:
        """The agent's, and what became of names and relays."""
        over_udp = any(relay.server.transport == "udp" for relay in self._relays.open)
        return self._notes.complete(self._agent.report(), over_udp=over_udp)

    def queries_changed(self) -> None:
        """The agent told that a server query ended."""
        over, self._queries_over = self._queries_over, None
        if over is not None:
            over.set()

    def _nothing(self, addresses: list[InterfaceAddress]) -> IcePunchError:
        self._notes.nothing_gathered(addresses)
        report = self.report()
        for error in self._relays.errors:
            if isinstance(error, AuthenticationRejected | RelayDenied):
                return type(error).explained(report)
        return GatheringFailed.explained(report)

    # -- host candidates ----------------------------------------------------------------------

    def _open_sockets(
        self,
        addresses: Iterable[InterfaceAddress],
        ranked: Iterable[InterfaceAddress],
        *,
        new: bool = False,
    ) -> list[HostSocket]:
        """A socket on each address that has none; ``ranked`` are all there are, most preferred
        first. Raises PortRangeExhausted where that is why there is none."""
        preferences = interleaved_local_preferences(a.ip for a in ranked)
        opened: list[HostSocket] = []
        exhausted: PortRangeExhausted | None = None
        for address in addresses:
            if address.ip in self._sockets:
                continue
            try:
                socket = HostSocket(
                    address,
                    on_datagram=self._on_datagram,
                    on_icmp_error=self._on_icmp_error,
                    on_vanished=self._vanished,
                    on_segments=self._on_segments,
                    port_range=self._options.port_range,
                    new=new,
                )
            except PortRangeExhausted as error:
                exhausted = error
                continue
            except (OSError, InterfaceNotFound):
                continue  # an address that went away between being listed and being bound
            opened.append(socket)
            self._sockets[socket.ip] = socket
            self.paths[socket.local] = socket.socket
            if self.hidden is not None:
                self.hidden.publish(address)
            self._agent.add_host_candidate(
                socket.local,
                self._loop.time(),
                local_preference=preferences.get(address.ip, 0),
            )
        if not opened and exhausted is not None:
            raise exhausted
        self._on_change()
        return opened

    # -- servers ------------------------------------------------------------------------------

    async def _use(
        self,
        server: IceServer,
        sockets: Sequence[HostSocket],
        sources: Mapping[bool, str],
        under_way: list[IceServer],
        *,
        relays: bool,
    ) -> None:
        asks_only = not relays
        relays = relays and server.is_relay and not self._options.direct_only
        asks = server.transport == "udp" and server.scheme in ("stun", "turn")
        if asks_only and not asks:
            return
        if not relays and not asks and server.scheme in ("stun", "stuns"):
            why = f"what {server.uri} sees of TCP or TLS tells nothing of UDP"
            self._notes.add(server, "unresolved", why, "address")
        asks = asks and not self._options.relay_only
        if not relays and not asks:
            return
        under_way.append(server)
        await self._ask(server, sockets if asks else (), sources, relays=relays)
        under_way.remove(server)  # what is cancelled stays, to be told

    async def _ask(
        self,
        server: IceServer,
        sockets: Sequence[HostSocket],
        sources: Mapping[bool, str],
        *,
        relays: bool,
    ) -> None:
        """A Binding request from every base of the server's family, and a relay. What an Allocate
        request tells of its base need not be asked once more (RFC 8445 section 5.1.1.2)."""
        try:
            addresses = await self.servers.resolve(server)
        except IcePunchError as error:
            if relays:
                self._relays.failed(server, "unresolved", error)
            if sockets:
                self._notes.add(server, "unresolved", str(error), "address")
            return
        towards, local_ip = _reachable(addresses, sources)
        told: HostSocket | None = None
        if relays and towards and server.transport == "udp":
            told = self._host_towards(towards[0], local_ip)
            told = told if told in sockets else None
        self._query(server, addresses, [socket for socket in sockets if socket is not told])
        if not relays:
            return
        opening = asyncio.ensure_future(
            self._relays.add(
                server,
                towards,
                lambda at: self._host_towards(at, local_ip),
                local_ip=local_ip,
                port_range=self._options.port_range,
                family=self._relay_family(),
                tells_mapped=not self._options.relay_only,
                timeout=self._options.timeout,
            )
        )
        try:
            if told is not None:
                await asyncio.wait([opening], timeout=TOLD_WITHIN)
                if not opening.done():
                    self._query(server, addresses, [told])
                    told = None
            relay = await opening
        finally:
            opening.cancel()
        if relay is not None and server.transport == "tcp":
            self.note_tcp(server.host)
        if told is not None and not (relay is not None and relay.tells(told.local)):
            # Section 5.1.1.2: without a relay to be had, a Binding request tells the address.
            self._query(server, addresses, [told])
        if relay is not None and self._relay_family() == "dual" and relay.may_give_ipv6:
            await self._relays.add_ipv6(
                relay,
                port_range=self._options.port_range,
                tells_mapped=not self._options.relay_only,
                timeout=self._options.timeout,
            )

    def _query(
        self, server: IceServer, addresses: Sequence[Address], sockets: Sequence[HostSocket]
    ) -> None:
        for ipv6 in (False, True):
            address = next((a for a in addresses if (":" in a[0]) is ipv6), None)
            if address is None or self._closed:
                continue
            for socket in sockets:
                if (":" in socket.ip) is ipv6 and self._sockets.get(socket.ip) is socket:
                    with contextlib.suppress(ValueError):  # more servers than an agent may ask
                        self._agent.query_server(
                            server.uri, address, socket.local, self._loop.time()
                        )
        self._on_change()

    def _host_towards(self, server: Address, local_ip: str | None) -> HostSocket | None:
        """The host candidate that a TURN server is asked from; None for a socket of its own."""
        if self._options.relay_only:
            return None
        ip = source_towards(server) if local_ip is None else local_ip
        if ip is None or (":" in ip) != (":" in server[0]):
            return None
        return self._sockets.get(ip)

    def _relay_family(self) -> Family:
        if self._options.ipv4 and self._options.ipv6:
            return "dual"
        return 4 if self._options.ipv4 else 6

    def _relay_sources(self, addresses: Sequence[InterfaceAddress]) -> dict[bool, str]:
        """The addresses towards TURN servers, where the user named an interface."""
        return {} if self._options.interface is None else _by_family(addresses)

    def permit_remote_candidates(self) -> None:
        """Have our relays take what comes from the peer's candidates, as soon as they are known."""
        self._relays.permit_remote_candidates()

    @property
    def remote_candidates(self) -> tuple[Candidate, ...]:
        return self._agent.remote_candidates

    def hide_from_relays(self, ip: str, *, hide: bool = True) -> None:
        """An address of the peer's that no TURN server may learn (mDNS draft section 3.3.2), or
        not any more."""
        self._relays.hide(ip, hide=hide)

    async def close(self) -> None:
        """Give every allocation back and close every socket, within a second."""
        self._closed = True
        self.paths.clear()
        for task in self._later:
            task.cancel()
        self.servers.close()
        if self.hidden is not None:
            self.hidden.close()
        await self._relays.close()
        for socket in (*self._sockets.values(), *self._spoiled):
            socket.close()


def _by_family(addresses: Iterable[InterfaceAddress]) -> dict[bool, str]:
    """The first address of each family, by whether it is IPv6."""
    found: dict[bool, str] = {}
    for address in addresses:
        found.setdefault(":" in address.ip, address.ip)
    return found


def _reachable(
    addresses: Sequence[Address], sources: Mapping[bool, str]
) -> tuple[Sequence[Address], str | None]:
    """The server's addresses to try, and the one to try from; any without ``sources``."""
    if not sources:
        return addresses, None
    for ipv6, source in sorted(sources.items()):
        towards = [a for a in addresses if (":" in a[0]) is ipv6]
        if towards:
            return towards, source
    return [], None
