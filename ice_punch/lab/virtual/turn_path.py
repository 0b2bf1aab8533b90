"""A TURN client on a virtual host, over UDP or over the host's TCP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.virtual.host import VirtualHost
from ice_punch.lab.virtual.stream import (
    Closed,
    DataReceived,
    StreamEndpoint,
    StreamEvent,
)
from ice_punch.turn import StreamFraming, TurnClient

if TYPE_CHECKING:
    from ice_punch.lab.virtual.peer import TurnServerAt


class TurnPath:
    """One allocation on its way to a server."""

    def __init__(self, client: TurnClient, server: TurnServerAt) -> None:
        self.client = client
        self.server = server
        self.pending = True
        """Whether it has yet to say what came of the allocation."""

    def permit(self, peer: Address, now: float) -> None:
        """Have the server take what this peer sends, if it is of the relayed address's family."""
        self.client.permit(peer, now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        return self.client.datagrams_to_send(now)


class StreamTurnPath(TurnPath):
    """The same over TCP: what the client sends goes into a connection, framed."""

    def __init__(
        self,
        host: VirtualHost,
        client: TurnClient,
        server: TurnServerAt,
        on_activity: Callable[[], None],
    ) -> None:
        """``on_activity`` is called when something came that the client may have to tell."""
        super().__init__(client, server)
        self._host = host
        self._framing = StreamFraming()
        self._on_activity = on_activity
        self._local: Address | None = None
        self._stream: StreamEndpoint | None = None
        host.stream_users.append(self._on_stream)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        sent = self.client.datagrams_to_send(now)
        if sent and self._stream is None:
            # The first request names the address that the connection comes from.
            self._local = sent[0].local
            self._stream = self._host.streams.connect(self._local, self.server.address, now)
        for transmit in sent:
            assert self._stream is not None
            self._stream.send(self._framing.frame(transmit.data))
        if sent:
            self._host.wake_streams()
        return []

    def _on_stream(self, event: StreamEvent, now: float) -> None:
        if event.connection is not self._stream:
            return
        assert self._local is not None
        match event:
            case DataReceived(data=data):
                for message in self._framing.receive_data(data):
                    self.client.receive_datagram(message, self.server.address, self._local, now)
                if self._framing.broken:
                    self._stream.abort()
            case Closed(reason=reason):
                self.client.unreachable(f"the connection was {reason}", now)
        self._on_activity()
