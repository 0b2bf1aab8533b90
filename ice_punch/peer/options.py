"""How a peer wants to meet the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TYPE_CHECKING

from ice_punch.connection_events import ConnectionEvent
from ice_punch.errors import InvalidConfiguration
from ice_punch.ice import Candidate
from ice_punch.inbox import RECEIVE_QUEUE
from ice_punch.net.gatherer import GatheringOptions
from ice_punch.net.ice_server import IceServer
from ice_punch.outbox import SEND_QUEUE
from ice_punch.peer.transports import TRANSPORTS, check_transports

if TYPE_CHECKING:
    from ice_punch.net.recording_file import RecordingFiles


@dataclass(frozen=True, slots=True)
class SignalingChanged:
    """What signaling does: ``connecting``, ``joined``, ``waiting``, ``offered``, ``answered``,
    ``disconnected``, ``resumed``, ``refused``."""

    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RemoteCandidateFound:
    candidate: Candidate


PeerEvent = ConnectionEvent | SignalingChanged | RemoteCandidateFound


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Everything ``listen`` and ``connect`` can be told. Times in seconds."""

    ice_servers: tuple[IceServer | str, ...] = ()
    """RFC 7064 and 7065 URIs, asked beside those that the signaling server names."""
    encrypt: bool = True
    """DTLS; both sides must say the same."""
    transports: tuple[str, ...] = TRANSPORTS
    """What may run above ICE, best first: ``datagram``, and ``sctp`` for browsers and their like,
    which needs the extra ``webrtc`` and is left out without it."""
    direct_only: bool = False
    relay_only: bool = False
    hide_addresses: bool = False
    """Tell the peer names of Multicast DNS in place of the addresses of this host: who is not on
    its network learns none of them, unless a path to them is found."""
    interface: str | None = None
    ipv4: bool = True
    ipv6: bool = True
    port_range: tuple[int, int] | None = None
    timeout: float | None = 60.0
    """To connect, from knowing that the peer is there."""
    token: str | Callable[[], str] = field(default="", repr=False)
    """What the signaling server's authorization asks for, or what makes it."""
    ssl: SSLContext | None = None
    """Whom to trust for the signaling server, in place of the system's certificates."""
    receive_queue: int = RECEIVE_QUEUE
    """Datagrams held for a slow reader; past that the oldest go."""
    send_queue: int = SEND_QUEUE
    """Datagrams held while none can leave; past that the newest go."""
    newest_wins: bool = False
    """Past ``send_queue`` the oldest go."""
    observer: Callable[[PeerEvent], None] | None = None
    """Told of everything that happens on the way."""
    record: RecordingFiles | None = None
    """Record each attempt to reach a peer, to be replayed."""

    def gathering(self, more: tuple[IceServer, ...] = ()) -> GatheringOptions:
        """Raises InvalidConfiguration for a bad URI or contradictory options, ExtraMissing where
        only what needs the extra is wanted."""
        check_transports(self.transports, encrypt=self.encrypt)
        given = tuple(
            s if isinstance(s, IceServer) else IceServer.parse(s) for s in self.ice_servers
        )
        if self.direct_only and self.relay_only:
            raise InvalidConfiguration("direct-only and relay-only exclude each other")
        if not self.ipv4 and not self.ipv6:
            raise InvalidConfiguration("with neither IPv4 nor IPv6 nothing can be reached")
        if (least := min(self.receive_queue, self.send_queue)) < 1:
            raise InvalidConfiguration(f"a queue of {least} datagrams holds nothing")
        known = {server.uri for server in given}
        return GatheringOptions(
            ice_servers=given + tuple(s for s in more if s.uri not in known),
            interface=self.interface,
            ipv4=self.ipv4,
            ipv6=self.ipv6,
            port_range=self.port_range,
            direct_only=self.direct_only,
            relay_only=self.relay_only,
            hide_addresses=self.hide_addresses,
        )

    def observe(self, event: PeerEvent) -> None:
        """Tell the observer. What it raises goes to the event loop's exception handler: it must not
        stop whoever had something to tell."""
        if self.observer is None:
            return
        try:
            self.observer(event)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the observer of a peer failed", "exception": error}
            )
