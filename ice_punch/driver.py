"""The thin shell around an agent: its sockets, its clock, its events. No decisions."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

from ice_punch.datagram import Address
from ice_punch.ice import (
    MINIMUM_TA,
    Agent,
    CandidatePair,
    DataReceived,
    Event,
    Pacer,
    resembles_stun,
)
from ice_punch.net.gatherer import Gatherer, GatheringOptions

_common_pacers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pacer]
_common_pacers = weakref.WeakKeyDictionary()


def common_pacer() -> Pacer:
    """The pacer that all agents of an event loop share: no more than one new transaction every
    5 ms over all of them (RFC 8445 section 14.2)."""
    return _common_pacers.setdefault(asyncio.get_running_loop(), Pacer(MINIMUM_TA))


NOTE_INTERVAL = 0.05
"""Seconds between notes to the agent that application data flows: for many datagrams one."""


class AgentDriver:
    """Runs an agent on the event loop. After every call to the agent comes ``pump``."""

    def __init__(
        self,
        agent: Agent,
        options: GatheringOptions,
        *,
        on_data: Callable[[bytes], None],
        on_event: Callable[[Event], None],
    ) -> None:
        """``on_event`` gets every event of the agent but data, which goes to ``on_data``."""
        self.agent = agent
        self.on_data = on_data
        self.on_segments: Callable[[memoryview, int], None] | None = None
        """Where data goes instead of ``on_data``: see ``IceConnection.set_segments_handler``."""
        self.gatherer = Gatherer(
            agent,
            options,
            on_datagram=self._on_datagram,
            on_icmp_error=self._on_icmp_error,
            on_change=self.pump,
        )
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._pumping = False
        self._stopped = False
        self._note_sent_after = self._note_received_after = 0.0

    def now(self) -> float:
        return self._loop.time()

    def send(self, data: bytes, pair: CandidatePair) -> bool:
        """Send application data on a pair; False if its socket is gone."""
        path = self.gatherer.paths.get(pair.base)
        if path is None:
            return False
        path.send(data, pair.remote.address)
        self.note_sent()
        return True

    def note_sent(self) -> None:
        """Application data has left, one datagram or many: silence means more from now on."""
        now = self.now()
        if now >= self._note_sent_after:
            self._note_sent_after = now + NOTE_INTERVAL
            self.agent.data_sent(now)
            self.pump()

    def note_received(self, source: Address, local: Address) -> None:
        """Application data came from the peer, one datagram or many."""
        now = self.now()
        if now >= self._note_received_after:
            self._note_received_after = now + NOTE_INTERVAL
            self.agent.data_received(source, local, now)
            self.pump()

    def pump(self) -> None:
        """Carry out what the agent wants: datagrams, events, the next timer."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                # RFC 8838 section 10: a candidate is told of before its first check leaves.
                while (event := self.agent.next_event()) is not None:
                    if isinstance(event, DataReceived):
                        self.on_data(event.data)
                    else:
                        self._on_event(event)
                transmits = self.agent.datagrams_to_send(self.now())
                if not transmits:
                    break
                for data, local, destination in transmits:
                    path = self.gatherer.paths.get(local)
                    if path is not None:
                        path.send(data, destination)
        finally:
            self._pumping = False
        due = None if self._stopped else self.agent.get_timer()
        if due != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if due is None else self._loop.call_at(due, self._on_timer)
            self._timer_at = due

    def stop(self) -> None:
        """Fall silent now; ``gatherer.close`` frees the sockets."""
        self.agent.close(self.now())
        self._stopped = True
        self.pump()

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        self.agent.handle_timer(self.now())
        self.pump()

    def _on_datagram(self, data: bytes, source: Address, local: Address) -> None:
        if self._stopped:
            return
        if not resembles_stun(data):
            if self.agent.accepts_data(source, local):
                self.agent.counters["data_received"] += 1
                self.note_received(source, local)
                if self.on_segments is not None:
                    self.on_segments(memoryview(data), len(data))
                else:
                    self.on_data(data)
            else:
                self.agent.counters["data_from_strangers"] += 1
                self.agent.data_from_stranger(source, local, self.now())
                self.pump()
            return
        self.agent.receive_datagram(data, source, local, self.now())
        self.pump()

    def _on_icmp_error(self, local: Address, destination: Address) -> None:
        self.agent.receive_icmp_error(local, destination, self.now())
        self.pump()
