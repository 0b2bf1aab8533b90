"""The thin shell around an agent: its sockets, its clock, its events. No decisions."""

from __future__ import annotations

import asyncio
import math
import random
import weakref
from collections.abc import Callable, Sequence

from ice_punch.batches import may_hold_stun
from ice_punch.data_path import TELL_EVERY, DataPath
from ice_punch.datagram import Address
from ice_punch.ice import MINIMUM_TA, Agent, DataReceived, Event, Pacer, resembles_stun
from ice_punch.ice.pulse import QUIET_RECEIVING
from ice_punch.net.clock import clock_of
from ice_punch.net.gatherer import Gatherer, GatheringOptions
from ice_punch.net.ticks import Ticks
from ice_punch.net.udp import split
from ice_punch.stun import MAGIC_COOKIE

_common_pacers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pacer]
_common_pacers = weakref.WeakKeyDictionary()
SYSTEM_RANDOM = random.SystemRandom()
"""It has no state, and weighs 2.5 kB all the same: one for all connections."""
CLOCK_SLACK = 0.001
"""Seconds by which an event loop may call a timer too early."""
_COOKIE_BEGINS = MAGIC_COOKIE >> 24

TICK = 0.05
"""Seconds: what consent of several connections is due within one of these is done in one turn."""
NEAR = 1.0
"""Seconds within which a timer is set exactly."""

AloneHandler = Callable[[bytearray, int, float], object]
"""A buffer, how many of its bytes are a datagram, and the time."""
DatagramsHandler = Callable[[Sequence[bytes], int], object]
"""Datagrams, and how many bytes they have together."""
SegmentsHandler = Callable[[bytes | bytearray, int, int], None]
"""A buffer, how many of its bytes are datagrams back to back, and the bytes of each; the last may
be shorter."""


def common_pacer() -> Pacer:
    """The pacer that all agents of an event loop share: no more than one new transaction every
    5 ms over all of them (RFC 8445 section 14.2)."""
    return _common_pacers.setdefault(asyncio.get_running_loop(), Pacer(MINIMUM_TA))


class AgentDriver:
    """Runs an agent on the event loop. After every call to the agent comes ``pump``."""

    def __init__(
        self,
        agent: Agent,
        options: GatheringOptions,
        *,
        on_datagrams: DatagramsHandler,
        on_event: Callable[[Event], None],
        on_path: Callable[[], None],
        on_writable: Callable[[], None],
    ) -> None:
        """``on_event`` gets every event of the agent but data, which goes to ``on_datagrams``;
        ``on_path`` is told when there is another path for data, or another limit of it, and
        ``on_writable`` when the kernel takes datagrams again."""
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = clock_of(self._loop)
        self.agent = agent
        self._counters = agent.counters
        self.on_datagrams = on_datagrams
        self.on_segments: SegmentsHandler | None = None
        """Where data goes instead of ``on_datagrams``: see ``set_segments_handler``."""
        self.on_alone: AloneHandler | None = None
        """Where a datagram goes that is the only one of its turn, if not the same way."""
        self.gatherer = Gatherer(
            agent,
            options,
            on_datagram=self._on_datagram,
            on_icmp_error=self._on_icmp_error,
            on_change=self._on_paths,
            on_segments=self._on_segments,
        )
        self.data = DataPath(
            agent,
            self.gatherer.paths,
            SYSTEM_RANDOM,
            on_limit=on_path,
            on_timer=self._pump_soon,
            on_writable=on_writable,
            on_alone=self._on_alone,
            clock=self.now,
        )
        self._on_event = on_event
        self._ticks = Ticks.of(self._loop)
        self._timer: asyncio.TimerHandle | None = None
        """None too while a tick is waited for."""
        self._timer_at: float | None = None
        self._agent_due: float | None = None
        self._put_off = False
        """Whether the agent may want its timer later than it is set, by what it was told since."""
        self._told_at = 0.0
        self._told_of: Address | None = None
        self._accepted: Address | None = None
        """From where data is accepted on the path that data is sent on, until the agent is told
        something new."""
        self._followed = -1
        """How much of the agent's changes the path of data has followed."""
        self._pumping = False
        self._stopped = False

    def pump(self) -> None:
        """Carry out what the agent wants: datagrams, events, the next timer."""
        if self._pumping:
            return
        self._pumping = True
        self._accepted = None
        agent = self.agent
        try:
            while True:
                # RFC 8838 section 10: a candidate is told of before its first check leaves.
                while (event := agent.next_event()) is not None:
                    self._tell(event)
                transmits = agent.datagrams_to_send(self.now())
                if not transmits:
                    break
                for data, local, destination in transmits:
                    path = self.gatherer.paths.get(local)
                    if path is not None:
                        path.send(data, destination)
                if agent.changes == self._followed:
                    break
            if agent.changes != self._followed:
                self._followed = agent.changes
                self.data.follow(self.now())
        finally:
            self._pumping = False
        self._set_timer()

    def _on_paths(self) -> None:
        self._followed = -1
        self.pump()

    def _tell(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self.on_datagrams((event.data,), len(event.data))
        else:
            self._on_event(event)

    def _set_timer(self) -> None:
        self._put_off = False
        due = self._agent_due = None if self._stopped else self.agent.get_timer()
        probe = None if self._stopped else self.data.get_timer()
        if probe is not None and (due is None or probe < due):
            due = probe
        shared = False
        if due is not None and self.agent.settled and due > self.now() + NEAR:
            tick = math.ceil(due / TICK) * TICK
            if tick <= self.agent.latest:
                due, shared = tick, True
        if due != self._timer_at:
            self._cancel_timer()
            self._timer_at = due
            if due is not None and shared:
                self._ticks.call_at(due, self._on_timer)
            elif due is not None:
                self._timer = self._loop.call_at(due, self._on_timer)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._timer_at is not None:
            self._ticks.cancel(self._timer_at, self._on_timer)

    def stop(self) -> None:
        """Fall silent now; ``gatherer.close`` frees the sockets."""
        self.agent.close(self.now())
        self._stopped = True
        self.pump()

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        now = self.now()
        due = self.agent.get_timer() if self._put_off else self._agent_due
        if due is not None and due <= now + CLOCK_SLACK:
            self.agent.handle_timer(now)
        self.data.handle_timer(now)
        self.pump()

    def _pump_soon(self) -> None:
        """Not from within a send: what sends must not be called by what it calls."""
        due, timer = self.data.get_timer(), self._timer_at
        earlier = due is not None and (timer is None or due < timer)
        if earlier or not self._looks_soon(self.now()):
            self._loop.call_soon(self.pump)

    def _looks_soon(self, now: float) -> bool:
        """Whether the agent's timer comes before data that was just sent or received could want it
        to: it is set anew then, and not for every word that the agent is told."""
        self._put_off = self._agent_due is not None and self._agent_due <= now + QUIET_RECEIVING
        return self._put_off

    # -- what comes in ------------------------------------------------------------------------

    def _on_segments(
        self, buffer: bytearray, size: int, segment: int, source: Address, local: Address
    ) -> None:
        """Datagrams of one size and source, as the kernel has them; nearly always data."""
        if self._stopped:
            return
        if size == segment > 4:
            perhaps_stun = buffer[4] == _COOKIE_BEGINS
        else:
            perhaps_stun = not size or may_hold_stun(buffer, size, segment)
        if perhaps_stun and size <= segment:
            data = bytes(buffer[:size])
            if resembles_stun(data):
                self._on_stun(data, source, local)
            else:
                self._on_data((data,), source, local)
        elif perhaps_stun:
            self._sort(split(buffer, size, segment), source, local)
        elif self._accepts(-(-size // segment), source, local):
            if self.on_segments is None:
                self.on_datagrams(split(buffer, size, segment), size)
            else:
                self.on_segments(buffer, size, segment)

    def _on_alone(self, buffer: bytearray, size: int, source: Address) -> bool:
        """`_on_segments` for a datagram that the path's socket received alone: few steps for what
        is data of the peer's, or STUN. False where it is something else."""
        handler = self.on_alone
        if handler is None or not size or self._stopped:
            return False
        if size > 4 and buffer[4] == _COOKIE_BEGINS:
            pair, data = self.data.pair, bytes(buffer[:size])
            if pair is None or not resembles_stun(data):
                return False
            self._on_stun(data, source, pair.base)
            return True
        now = self.now()
        if source == self._accepted and now < self._told_at + TELL_EVERY:
            self._counters["data_received"] += 1
        else:
            pair = self.data.pair
            if pair is None:
                return False
            # What the agent is told of may change that again.
            self._accepted = source if self.data.leads(pair.base, source) else None
            if not self._accepts(1, source, pair.base):
                self._accepted = None
                return True
        handler(buffer, size, now)
        return True

    def _sort(self, datagrams: Sequence[bytes], source: Address, local: Address) -> None:
        """One of these may be STUN."""
        data: list[bytes] = []
        for datagram in datagrams:
            if resembles_stun(datagram):
                self._on_data(data, source, local)
                data = []
                self._on_stun(datagram, source, local)
            else:
                data.append(datagram)
        self._on_data(data, source, local)

    def _on_datagram(self, data: bytes, source: Address, local: Address) -> None:
        self._sort((data,), source, local)

    def _on_data(self, datagrams: Sequence[bytes], source: Address, local: Address) -> None:
        if self._stopped or not datagrams or not self._accepts(len(datagrams), source, local):
            return
        if self.on_segments is None:
            self.on_datagrams(datagrams, sum(map(len, datagrams)))
            return
        for data in datagrams:
            self.on_segments(data, len(data), len(data))

    def _accepts(self, count: int, source: Address, local: Address) -> bool:
        agent = self.agent
        if not agent.accepts_data(source, local):
            self._counters["data_from_strangers"] += count
            agent.data_from_stranger(source, local, self.now())
            self.pump()
            return False
        self._counters["data_received"] += count
        now = self.now()
        if now >= self._told_at + TELL_EVERY or source != self._told_of:
            self._told_at, self._told_of = now, source
            agent.data_received(source, local, now)
            if (event := agent.next_event()) is not None:
                self._tell(event)
                self.pump()
            elif not self.data.leads(local, source) or not self._looks_soon(now):
                self.pump()
        return True

    def _on_stun(self, data: bytes, source: Address, local: Address) -> None:
        if self._stopped:
            return
        now = self.now()
        if not self.data.receive_stun(data, source, local, now):
            self.agent.receive_datagram(data, source, local, now)
        self.pump()

    def _on_icmp_error(self, local: Address, destination: Address) -> None:
        self.agent.receive_icmp_error(local, destination, self.now())
        self.pump()
