"""STUN and TURN servers of the virtual internet: our own, on a virtual host."""

from __future__ import annotations

from collections.abc import Mapping

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.trace import DropReason
from ice_punch.lab.virtual.host import VirtualHost
from ice_punch.lab.virtual.stream import (
    Closed,
    Connected,
    DataReceived,
    StreamEndpoint,
    StreamEvent,
)
from ice_punch.stun.server import BindingServer
from ice_punch.turn import StreamFraming, TurnServer


def serve_stun(host: VirtualHost, port: int = 3478) -> BindingServer:
    """Attach a Binding server to ``port`` of a host, for both IP versions.

    On a host with two IPv4 addresses it has ``port + 1`` too and speaks RFC 5780. Returns the
    IPv4 server.
    """
    first: BindingServer | None = None
    for version in (4, 6):
        ips = [ip for ip in host.addresses if (":" in ip) == (version == 6)]
        if not ips:
            continue
        alternate = (ips[1], port + 1) if len(ips) > 1 else None
        server = BindingServer((ips[0], port), alternate)
        first = first or server
        host.internet.attach(host, server, ports={port, port + 1}, ips=ips)
    assert first is not None
    return first


class VirtualTurnServer:
    """A TURN server on a host: UDP at every port, relayed addresses among them, and TCP at one."""

    def __init__(self, host: VirtualHost, users: Mapping[str, str], tcp_port: int | None) -> None:
        internet = host.internet
        v4 = [ip for ip in host.addresses if ":" not in ip]
        v6 = [ip for ip in host.addresses if ":" in ip]
        self.host = host
        self.server = TurnServer(
            (*v4[:1], *v6[:1]), users, internet.random(f"{host.name} server"), realm="lab"
        )
        self._framings: dict[StreamEndpoint, StreamFraming] = {}
        self._refused: DropReason | None = None
        if tcp_port is not None:
            for ip in host.addresses:
                host.streams.listen((ip, tcp_port))
        host.stream_users.append(self._on_stream)
        internet.attach(host, self)

    # -- the sans-IO contract -----------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        dropped = self.server.counters.dropped
        before, unasked = dropped.total(), dropped["no-permission"]
        self.server.receive_datagram(data, source, local, now)
        self._refused = None
        if dropped.total() > before:
            no_permission = dropped["no-permission"] > unasked
            self._refused = DropReason.NO_PERMISSION if no_permission else DropReason.NO_LISTENER
        self._write(now)

    def handle_timer(self, now: float) -> None:
        self.server.handle_timer(now)

    def get_timer(self) -> float | None:
        return self.server.get_timer()

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return self.server.datagrams_to_send(now)

    def why_refused(self) -> DropReason | None:
        """Why the server made nothing of the last datagram; for the trace."""
        return self._refused

    # -- streams ------------------------------------------------------------------------------

    def _on_stream(self, event: StreamEvent, now: float) -> None:
        connection = event.connection
        local, client = connection.local, connection.remote
        match event:
            case Connected():
                self._framings[connection] = StreamFraming()
            case DataReceived(data=data):
                framing = self._framings[connection]
                for message in framing.receive_data(data):
                    self.server.receive_datagram(message, client, local, now, transport="tcp")
                if framing.broken:
                    connection.abort()
                self._write(now)
            case Closed() if connection in self._framings:
                del self._framings[connection]
                self.server.client_gone(client, local, now)

    def _write(self, now: float) -> None:
        by_ends = {(c.local, c.remote): c for c in self._framings}
        for message, local, client in self.server.streams_to_send(now):
            connection = by_ends.get((local, client))
            if connection is not None:
                connection.send(StreamFraming.frame(message))
        self.host.wake_streams()
        # What came over a stream may leave from a relayed address.
        for transmit in self.server.datagrams_to_send(now):
            self.host.send(transmit)


def serve_turn(
    host: VirtualHost,
    users: Mapping[str, str],
    *,
    tcp_port: int | None = None,
) -> VirtualTurnServer:
    """Let a host be a TURN server, over TCP too if there is a ``tcp_port``."""
    return VirtualTurnServer(host, users, tcp_port)
