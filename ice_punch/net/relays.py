"""The relays of one agent: opened, told to it, and forgotten when they are gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from ice_punch.datagram import Address
from ice_punch.errors import (
    AuthenticationRejected,
    IcePunchError,
    RelayDenied,
    ServerUnreachable,
)
from ice_punch.ice import Agent
from ice_punch.net.host_socket import HostSocket
from ice_punch.net.ice_server import IceServer
from ice_punch.net.udp import DatagramHandler

if TYPE_CHECKING:
    from ice_punch.net.relay import Relay
    from ice_punch.turn import Family

RELAY_PREFERENCE = {"udp": 32767, "tcp": 16383, "tls": 8191}
"""Local preferences: the nearer a relay's own transport is to datagrams, the better."""
MAX_RELAYS = 16
"""Open at a time; addresses that come and go may not add up to more."""


class Path(Protocol):
    """What datagrams leave through: a socket of ours, or a relay."""

    @property
    def congested(self) -> bool:
        """Whether data had better wait."""

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        """Have ``handler`` called when what was `congested` is so no more."""

    def send(self, data: bytes, destination: Address) -> object: ...


class Relays:
    """Feeds an agent with relayed candidates. ``paths`` gets each by its base."""

    def __init__(
        self,
        agent: Agent,
        paths: dict[Address, Path],
        *,
        on_datagram: DatagramHandler,
        on_icmp_error: Callable[[Address, Address], None],
        on_forget: Callable[[Address], None],
        on_change: Callable[[], None],
        report: Callable[[IceServer, str, str, str], None],
    ) -> None:
        """``on_forget`` is told a base that is gone, ``report`` what came of a server: outcome,
        detail and purpose as in ``ServerReport``."""
        self.open: list[Relay] = []
        self.errors: list[IcePunchError] = []
        self._agent = agent
        self._paths = paths
        self._on_datagram = on_datagram
        self._on_icmp_error = on_icmp_error
        self._on_forget = on_forget
        self._on_change = on_change
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._hidden: set[str] = set()
        self._closed = False

    async def add(
        self,
        server: IceServer,
        addresses: Sequence[Address],
        host_towards: Callable[[Address], HostSocket | None],
        *,
        local_ip: str | None,
        port_range: tuple[int, int] | None,
        family: Family,
        tells_mapped: bool,
        timeout: float,
    ) -> Relay | None:
        """Open a relay at one of the server's ``addresses``; None if it comes to nothing, which is
        reported. ``tells_mapped`` is whether the peer may know our address towards the server.

        RFC 8445 section 14: a relay request takes its slot of Ta like every other.
        """
        from ice_punch.net.relay import Relay  # for those who have a TURN server only

        if not addresses:
            why = f"{server.uri} has no address that can be reached from {local_ip or 'here'}"
            self.failed(server, "unreachable", IcePunchError(why))
            return None
        if len(self.open) >= MAX_RELAYS:
            self.failed(server, "unreachable", IcePunchError(f"{MAX_RELAYS} relays are open"))
            return None
        slot = self._agent.pacer.reserve(self._loop.time())
        await asyncio.sleep(max(0.0, slot - self._loop.time()))
        try:
            relay = await Relay.open(
                server,
                on_datagram=self._on_datagram,
                local_ip=local_ip,
                port_range=port_range,
                timeout=timeout,
                family=family,
                addresses=addresses,
                host_towards=host_towards,
            )
        except AuthenticationRejected as error:
            self.failed(server, "rejected", error)
            return None
        except RelayDenied as error:
            self.failed(server, "denied", error)
            return None
        except IcePunchError as error:
            outcome = error.outcome if isinstance(error, ServerUnreachable) else "unreachable"
            self.failed(server, outcome, error)
            return None
        if self._closed:
            await relay.close()
            return None
        self._opened(relay, tells_mapped=tells_mapped)
        return relay

    async def add_ipv6(
        self,
        beside: Relay,
        *,
        port_range: tuple[int, int] | None,
        tells_mapped: bool,
        timeout: float,
    ) -> None:
        """An IPv6 address from a server that gave an IPv4 one, and does not know of requests for
        both (RFC 8656 section 7.1): in an allocation of its own. If it has none, nothing is
        missing."""
        from ice_punch.net.relay import Relay

        if len(self.open) >= MAX_RELAYS or ":" in beside.relayed_address[0]:
            return
        slot = self._agent.pacer.reserve(self._loop.time())
        await asyncio.sleep(max(0.0, slot - self._loop.time()))
        with contextlib.suppress(IcePunchError):
            relay = await Relay.open(
                beside.server,
                on_datagram=self._on_datagram,
                local_ip=beside.local_ip,
                port_range=port_range,
                timeout=timeout,
                family=6,
                addresses=[beside.server_address],
            )
            if self._closed:
                await relay.close()
            else:
                self._opened(relay, tells_mapped=tells_mapped)

    def failed(self, server: IceServer, outcome: str, error: IcePunchError) -> None:
        """A relay came to nothing."""
        if len(self.errors) < MAX_RELAYS:
            self.errors.append(error)
        self._report(server, outcome, str(error), "relay")

    def _opened(self, relay: Relay, *, tells_mapped: bool) -> None:
        server = relay.server
        self.open.append(relay)
        relay.on_closed = lambda why: self._lost(relay, why)
        relay.on_error = lambda peer, _error: self._peer_failed(relay, peer)
        relay.hide(self._hidden)
        self._report(server, "ok", "", "relay")
        base = relay.base
        if base is not None and relay.mapped_address is not None and relay.tells(base):
            self._agent.add_server_reflexive_candidate(
                relay.mapped_address,
                base,
                self._loop.time(),
                server=server.uri,
                server_address=relay.server_address,
            )
        transport = "tls" if server.scheme == "turns" else server.transport
        for relayed in relay.relayed_addresses:
            self._paths[relayed] = relay
            self._agent.add_relayed_candidate(
                relayed,
                self._loop.time(),
                server=server.uri,
                mapped=relay.mapped_address if tells_mapped else None,
                local_preference=RELAY_PREFERENCE[transport],
            )
        self._permit_remote_candidates(relay)
        self._on_change()

    def _peer_failed(self, relay: Relay, peer: Address | None) -> None:
        if peer is None:
            return
        for relayed in relay.relayed_addresses:
            if (":" in relayed[0]) == (":" in peer[0]):
                self._on_icmp_error(relayed, peer)

    # -- what may pass ------------------------------------------------------------------------

    def hide(self, ip: str, *, hide: bool = True) -> None:
        """No relay is told this address of the peer's (mDNS draft section 3.3.2)."""
        if hide:
            self._hidden.add(ip)
        else:
            self._hidden.discard(ip)

    def permit_remote_candidates(self) -> None:
        """Have our relays take what comes from the peer's candidates, as soon as they are known:
        its first check then arrives, and need not be repeated (RFC 8656 section 9)."""
        for relay in self.open:
            self._permit_remote_candidates(relay)

    def _permit_remote_candidates(self, relay: Relay) -> None:
        for candidate in self._agent.remote_candidates:
            relay.permit(candidate.address)

    # -- their end ----------------------------------------------------------------------------

    def _lost(self, relay: Relay, why: str) -> None:
        """The server or the way to it went away."""
        self._report(relay.server, "unreachable", why, "relay")
        self._forget(relay)
        self._on_change()

    def drop(self, ips: Iterable[str]) -> list[IceServer]:
        """Our addresses ``ips`` are gone: so are the relays reached from there. The servers that
        have none left."""
        gone = set(ips)
        dropped = [relay for relay in self.open if relay.local_ip in gone]
        for relay in dropped:
            self._forget(relay)
            relay.drop()
        left = [relay.server for relay in self.open]
        servers = dict.fromkeys(relay.server for relay in dropped)
        return [server for server in servers if server not in left]

    def _forget(self, relay: Relay) -> None:
        self.open.remove(relay)
        for relayed in relay.relayed_addresses:
            self._on_forget(relayed)

    async def close(self) -> None:
        """Give every allocation back, within a second."""
        self._closed = True
        await asyncio.gather(*(relay.close() for relay in self.open), return_exceptions=True)
