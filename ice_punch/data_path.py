"""The way of application data below a connection: which socket, to where, how much fits."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ice_punch.datagram import Address, Buffer, RandomSource
from ice_punch.ice import Agent, CandidatePair, IceState
from ice_punch.net.gatherer import Path
from ice_punch.net.route_mtu import route_mtu
from ice_punch.net.udp import AloneHandler, UdpSocket
from ice_punch.path import PATH_MTU, headers
from ice_punch.path_loss import LossMeter
from ice_punch.path_mtu import MIN_PLPMTU, PathMtuSearch
from ice_punch.path_probe import PathProbes

PATHS_REMEMBERED = 8
"""Paths whose MTU is kept in mind when another one carries data."""

LARGE = 576
"""Bytes from which a datagram may need the path MTU that was found, over IPv4."""
METER = -1
"""In place of a probe's size: a small check that tells of loss."""
FEWEST_SAMPLES = 4
"""Checks after which they tell more of loss than those of consent."""
TELL_EVERY = 0.05
"""Seconds between words to the agent that data is sent and received."""


@dataclass(slots=True)
class SendLosses:
    """Datagrams of the application that this host did not send, by reason."""

    by_host: int = 0
    """A full queue or buffer of the kernel's, or a packet filter."""
    too_large: int = 0
    """Larger than the path carries, which nobody knew when they were taken."""
    unroutable: int = 0
    """No route, or no path any more."""

    @property
    def total(self) -> int:
        return self.by_host + self.too_large + self.unroutable


class DataPath:
    """Follows the pair that has consent, and sends on it. ``follow`` comes after every call to the
    agent."""

    def __init__(
        self,
        agent: Agent,
        paths: Mapping[Address, Path],
        random: RandomSource,
        *,
        on_limit: Callable[[], None],
        on_timer: Callable[[], None],
        on_writable: Callable[[], None],
        on_alone: AloneHandler,
        clock: Callable[[], float],
    ) -> None:
        """``on_limit`` is told when `limit` is another, ``on_timer`` when a timer, ours or the
        agent's, may be due earlier, ``on_writable`` when datagrams can leave again. ``on_alone``
        gets what the path's socket receives alone."""
        self.losses = SendLosses()
        self.pair: CandidatePair | None = None
        """The pair that data is sent on. None: there is none with consent."""
        self._agent = agent
        self._paths = paths
        self._on_limit = on_limit
        self._on_timer = on_timer
        self._on_writable = on_writable
        self._on_alone = on_alone
        self._clock = clock
        self._probes = PathProbes(agent, random)
        self._path: Path | None = None
        self._socket: UdpSocket | None = None
        self._destination: Address = ("", 0)
        self._search: PathMtuSearch | None = None
        self._meter = LossMeter()
        self._searches: dict[tuple[Address, Address], PathMtuSearch] = {}
        self._told_at = -TELL_EVERY
        self._largest = 0
        """Bytes of the largest datagram since the agent was told, or one that is large."""
        self._large = LARGE
        """Bytes from which a datagram needs more than the path carries for sure."""
        self._pacing_rate: float | None = None
        self._limit = -1
        self._ever = False

    # -- the path -----------------------------------------------------------------------------

    @property
    def mtu(self) -> int:
        """Bytes of an IP packet that the path carries, as far as is known."""
        return PATH_MTU if self._search is None else self._search.mtu

    @property
    def limit(self) -> int:
        """Bytes: the largest datagram; below zero while nothing can be sent."""
        return self._limit

    @property
    def loss(self) -> float | None:
        """The share of checks on the path that go unanswered; None while too few were made."""
        return self._meter.loss if self._meter.samples >= FEWEST_SAMPLES else None

    def leads(self, local: Address, remote: Address) -> bool:
        """Whether data is sent from ``local`` to ``remote``."""
        return remote == self._destination and self.pair is not None and self.pair.base == local

    def follow(self, now: float) -> None:
        """Take the path that the agent has data on now."""
        pair = self._agent.data_pair()
        path = None if pair is None else self._paths.get(pair.base)
        other = pair is not self.pair or path is not self._path
        if other:
            self._leave()
            self._take(pair if path is not None else None, path)
        if self._search is None and pair is not None and self._agent.selected_pair() is pair:
            self._begin_search(pair, now)
        self._measure()
        if other and self.pair is not None:
            self._on_writable()

    def _leave(self) -> None:
        if self._path is not None:
            self._path.set_writable_handler(None)
        if self._socket is not None:
            self._socket.on_path_mtu = None
            self._socket.set_alone_handler(None)
            if self._pacing_rate is not None:
                self._socket.set_pacing_rate(None)
        self._probes.clear()

    def _take(self, pair: CandidatePair | None, path: Path | None) -> None:
        self.pair, self._path = pair, path
        self._socket = path if isinstance(path, UdpSocket) else None
        self._search = None
        self._meter = LossMeter()
        if pair is None:
            return
        self._destination = pair.remote.address
        if self._path is not None:
            self._path.set_writable_handler(self._on_writable)
        if self._socket is not None:
            self._socket.on_path_mtu = self._too_big
            self._socket.set_alone_handler(self._on_alone)
            if self._pacing_rate is not None:
                self._socket.set_pacing_rate(self._pacing_rate)

    def _measure(self) -> None:
        # Where the path was lost and may come back, datagrams are held for it.
        self._ever = self._ever or self.pair is not None
        none = not self._ever or self._agent.state in (IceState.FAILED, IceState.CLOSED)
        limit = -1 if none else max(0, self.mtu - headers(self.pair))
        if limit != self._limit:
            self._limit = limit
            self._on_limit()

    def set_pacing_rate(self, rate: float | None) -> None:
        """Have the kernel spread what leaves, where it can. Bytes a second."""
        self._pacing_rate = rate
        if self._socket is not None:
            self._socket.set_pacing_rate(rate)

    # -- sending ------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether nothing can leave for now."""
        return self._path is None or self._path.congested

    def send_many(self, datagrams: Sequence[Buffer], sizes: Sequence[int]) -> int:
        """Send datagrams in order. How many are dealt with: sent, or lost and counted. The rest may
        be given again once ``on_writable`` was called."""
        self._note_sending(sizes)
        sock = self._socket
        if sock is None:
            return self._send_each(datagrams)
        stats = sock.stats
        before = stats.sent, stats.dropped, stats.too_large
        done = sock.send_many(datagrams, self._destination, sizes)
        if stats.sent - before[0] != done:
            self._note_losses(done, before)
        return done

    @property
    def joins(self) -> bool:
        """Whether datagrams of one size leave best back to back."""
        return self._socket is not None and self._socket.segments

    def send_alike(self, datagrams: Sequence[Buffer], size: int, joined: bytes | None) -> int:
        """``send_many`` for datagrams of ``size`` bytes each, and the same back to back if the
        caller has them so."""
        if joined is None:
            return self.send_many(datagrams, [size] * len(datagrams))
        return self.send_segments(joined, size) // size

    def send_one(self, data: Buffer) -> bool:
        """``send_many`` for one datagram: whether it is dealt with."""
        size = len(data)
        if size > self._largest or self._clock() >= self._told_at + TELL_EVERY:
            self._note_sending((size,))
        sock = self._socket
        if sock is not None and sock.send_now(data, size, self._destination):
            return True
        return self.send_many((data,), (size,)) == 1

    def send_segments(self, buffer: Buffer, size: int) -> int:
        """``send_many`` for datagrams of ``size`` bytes back to back, of which the last may be
        shorter. How many bytes are dealt with."""
        if size > self._largest or self._clock() >= self._told_at + TELL_EVERY:
            self._note_sending((size,))
        sock = self._socket
        if sock is not None and sock.send_packet_now(buffer, size, self._destination):
            return len(buffer)
        if sock is None:
            view = memoryview(buffer)
            return size * self._send_each([view[n : n + size] for n in range(0, len(view), size)])
        stats = sock.stats
        before = stats.sent, stats.dropped, stats.too_large
        done = sock.send_segments(buffer, size, self._destination)
        count = -(-done // size)
        if stats.sent - before[0] != count:
            self._note_losses(count, before)
        return done

    def send_whatever(self, datagrams: Sequence[Buffer]) -> None:
        """``send_many`` that leaves nothing to the caller: what the kernel does not take now, the
        socket holds, up to a bound."""
        rest = datagrams[self.send_many(datagrams, list(map(len, datagrams))) :]
        if self._path is None:
            self.losses.unroutable += len(rest)
            return
        for data in rest:
            if not self._path.send(bytes(data), self._destination):
                self.losses.by_host += 1

    def _send_each(self, datagrams: Sequence[Buffer]) -> int:
        path = self._path
        if path is None:
            return 0
        for done, data in enumerate(datagrams):
            if path.congested:
                return done
            if path.send(bytes(data), self._destination) is False:
                self.losses.by_host += 1
        return len(datagrams)

    def _note_losses(self, done: int, before: tuple[int, int, int]) -> None:
        assert self._socket is not None
        stats = self._socket.stats
        sent, dropped, too_large = (
            now - then
            for now, then in zip((stats.sent, stats.dropped, stats.too_large), before, strict=True)
        )
        self.losses.by_host += dropped
        self.losses.too_large += too_large
        self.losses.unroutable += done - sent - dropped - too_large

    def _note_sending(self, sizes: Sequence[int]) -> None:
        # Any large datagram counts, and only one of many words to the agent is said.
        if self._largest < self._large:
            self._largest = max(self._largest, *sizes)
        now = self._clock()
        if now < self._told_at + TELL_EVERY:
            return
        self._told_at = now
        self._agent.data_sent(now)
        if self._search is not None and self.pair is not None:
            self._search.used(self._largest + headers(self.pair), now)
        self._largest = 0
        self._meter.used(now)
        self._on_timer()

    def release(self) -> socket.socket | None:
        """The socket of the path, connected to the peer and no more ours; None where there is none
        to give away: a relay's connection, or nothing at all. Raises OSError where the peer can not
        be reached any more."""
        owner = self._socket
        if owner is None:
            return None
        released = owner.release(self._destination)
        if released is not None:
            self._leave()
            released.setblocking(False)
            self._socket = self._path = None
        return released

    # -- the path MTU -------------------------------------------------------------------------

    def _begin_search(self, pair: CandidatePair, now: float) -> None:
        key = pair.base, pair.remote.address
        search = self._searches.pop(key, None)
        version = 6 if ":" in pair.base[0] else 4
        if search is None:
            ceiling = route_mtu(pair.base[0], pair.remote.address)
            search = PathMtuSearch(version, ceiling, now, pair.rtt)
        self._large = max(LARGE, MIN_PLPMTU[version] - headers(pair) + 1)
        self._searches[key] = self._search = search
        while len(self._searches) > PATHS_REMEMBERED:
            del self._searches[next(iter(self._searches))]

    def _too_big(self, destination: Address, mtu: int, is_local: bool) -> None:
        # A link of our own is known for the IP address, without a port.
        if self._search is not None and destination[0] == self._destination[0]:
            self._search.packet_too_big(mtu, self._clock(), is_local=is_local)
            self._measure()
            self._on_timer()

    def receive_stun(self, data: bytes, source: Address, local: Address, now: float) -> bool:
        """Whether a message answers a probe of ours; anything else is the agent's."""
        size = self._probes.answered(data, source, local)
        if size is None:
            return False
        if size == METER:
            self._meter.answered()
            return True
        if self._search is not None:
            self._search.answered(size, now)
        self._measure()
        return True

    def get_timer(self) -> float | None:
        if self._search is None or self.pair is None:
            return None
        probe, check = self._search.get_timer(), self._meter.get_timer()
        if probe is None or check is None:
            return check if probe is None else probe
        return min(probe, check)

    def handle_timer(self, now: float) -> None:
        """Send the probes that are due."""
        if self._search is None or self.pair is None or self._path is None:
            return
        due = self.get_timer()
        if due is None or now < due:
            return
        if self._meter.handle_timer(now, self.pair.rtt):
            self._send_probe(self.pair, self._path, 0, METER)
        if self._search.wants_ceiling(now):
            self._search.set_ceiling(route_mtu(self.pair.base[0], self._destination))
        for size in self._search.handle_timer(now):
            payload = size - headers(self.pair) if size else 0
            self._send_probe(self.pair, self._path, payload, size)
        self._measure()

    def _send_probe(self, pair: CandidatePair, path: Path, payload: int, size: int) -> None:
        probe = self._probes.make(pair, payload, size)
        if probe is not None:
            path.send(probe, self._destination)
