"""TCP of one virtual host, as much of RFC 9293 as TURN over TCP needs, without I/O."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from ice_punch.datagram import Address, RandomSource
from ice_punch.lab.virtual.segment import Segment
from ice_punch.lab.virtual.stream_endpoint import DEFAULT_MSS, StreamEndpoint, StreamState
from ice_punch.lab.virtual.stream_events import Closed, Connected, DataReceived, StreamEvent

__all__ = [
    "Closed",
    "Connected",
    "DataReceived",
    "Segment",
    "StreamEndpoint",
    "StreamEvent",
    "StreamStack",
    "StreamState",
]

MAX_CONNECTIONS: Final = 1024
"""Of one host. A SYN beyond that is ignored."""
MAX_RESETS: Final = 1024
"""That wait to be sent."""

Outgoing = tuple[Segment, Address, Address]
"""A segment, where it leaves from and where it goes to."""


class StreamStack:
    """The connections of one host, by their two addresses."""

    def __init__(self, random: RandomSource, *, mss: int = DEFAULT_MSS) -> None:
        """``mss`` is in bytes. Initial sequence numbers come from ``random``."""
        self._random = random
        self._mss = mss
        self._listening: set[Address] = set()
        self._connections: dict[tuple[Address, Address], StreamEndpoint] = {}
        self._outgoing: list[Outgoing] = []
        self._events: deque[StreamEvent] = deque()
        self.counters: Counter[str] = Counter()

    @property
    def connections(self) -> tuple[StreamEndpoint, ...]:
        """All that are not closed; TIME-WAIT is not."""
        return tuple(c for c in self._connections.values() if c.state is not StreamState.CLOSED)

    def listen(self, local: Address) -> None:
        """Accept every connection to ``local``."""
        self._listening.add(local)

    def connect(self, local: Address, remote: Address, now: float) -> StreamEndpoint:
        """Open a connection. Raises ValueError if there is one between the two addresses."""
        self._sweep(now)
        if (local, remote) in self._connections:
            raise ValueError(f"{local} is connected to {remote} already")
        return self._add(local, remote, None)

    def receive_segment(
        self, segment: Segment, source: Address, local: Address, now: float
    ) -> None:
        connection = self._connections.get((local, source))
        if connection is not None and connection.state is not StreamState.CLOSED:
            connection.receive_segment(segment, now)
            return
        opens = segment.syn and not segment.ack and not segment.rst
        if opens and local in self._listening:
            self._sweep(now)
            if len(self._connections) < MAX_CONNECTIONS:
                self._add(local, source, segment)
            else:
                self.counters["connections_surplus"] += 1
            return
        reset = Segment.reset_for(segment)
        self.counters["segments_unexpected"] += 1
        if reset is not None and len(self._outgoing) < MAX_RESETS:
            self._outgoing.append((reset, local, source))

    def receive_unreachable(self, local: Address, remote: Address, now: float) -> None:
        """An ICMP error came for a segment from ``local`` to ``remote``: unreachable."""
        connection = self._connections.get((local, remote))
        if connection is not None:
            connection.receive_unreachable()

    def receive_too_big(self, local: Address, remote: Address, mtu: int, now: float) -> None:
        """An ICMP error came for a segment from ``local`` to ``remote``: it was larger than
        ``mtu`` bytes, which is what some link carries."""
        connection = self._connections.get((local, remote))
        if connection is not None:
            connection.receive_too_big(mtu)

    def segments_to_send(self, now: float) -> list[Outgoing]:
        for connection in self._connections.values():
            self._collect(connection, now)
        self._sweep(now)
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_event(self) -> StreamEvent | None:
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        timers = [connection.get_timer() for connection in self._connections.values()]
        return min((timer for timer in timers if timer is not None), default=None)

    def handle_timer(self, now: float) -> None:
        for connection in self._connections.values():
            connection.handle_timer(now)

    def _add(self, local: Address, remote: Address, syn: Segment | None) -> StreamEndpoint:
        connection = StreamEndpoint(
            local, remote, self._random.getrandbits(32), self._events, syn=syn, mss=self._mss
        )
        self._connections[local, remote] = connection
        return connection

    def _collect(self, connection: StreamEndpoint, now: float) -> None:
        for segment in connection.segments_to_send(now):
            self._outgoing.append((segment, connection.local, connection.remote))

    def _sweep(self, now: float) -> None:
        closed = [c for c in self._connections.values() if c.state is StreamState.CLOSED]
        for connection in closed:
            self._collect(connection, now)
            del self._connections[connection.local, connection.remote]
