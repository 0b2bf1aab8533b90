"""A peer that is slow: a busy machine, or a person's radio that sleeps."""

from __future__ import annotations

from collections import deque
from typing import Final

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import Candidate, CandidatePair, Credentials, Event, IceState
from ice_punch.lab.peers.machine import IceMachine

MAX_HELD: Final = 4096
"""Datagrams; what the machine makes beyond that is lost."""


class SlowMachine:
    """Any machine, whose datagrams leave ``delay`` seconds after it has made them."""

    def __init__(self, inner: IceMachine, delay: float = 2.0) -> None:
        self.inner = inner
        self.delay = delay
        self._held: deque[tuple[float, Transmit]] = deque()

    @property
    def lite(self) -> bool:
        return bool(getattr(self.inner, "lite", False))

    @property
    def credentials(self) -> Credentials:
        return self.inner.credentials

    @property
    def state(self) -> IceState:
        return self.inner.state

    @property
    def controlling(self) -> bool:
        return self.inner.controlling

    @property
    def queries_busy(self) -> bool:
        return self.inner.queries_busy

    def add_host_candidate(
        self, address: Address, now: float, *, local_preference: int = 65535, component: int = 1
    ) -> Candidate | None:
        return self.inner.add_host_candidate(
            address, now, local_preference=local_preference, component=component
        )

    def add_relayed_candidate(
        self,
        address: Address,
        now: float,
        *,
        server: str,
        mapped: Address | None = None,
        local_preference: int = 65535,
        component: int = 1,
    ) -> Candidate | None:
        return self.inner.add_relayed_candidate(
            address,
            now,
            server=server,
            mapped=mapped,
            local_preference=local_preference,
            component=component,
        )

    def query_server(
        self, server: str, address: Address, base: Address, now: float, *, component: int = 1
    ) -> None:
        self.inner.query_server(server, address, base, now, component=component)

    def set_remote_parameters(
        self, credentials: Credentials, now: float, *, lite: bool = False, ta: float | None = None
    ) -> None:
        self.inner.set_remote_parameters(credentials, now, lite=lite, ta=ta)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        self.inner.add_remote_candidate(candidate, now)

    def end_of_remote_candidates(self, now: float) -> None:
        self.inner.end_of_remote_candidates(now)

    def selected_pair(self, component: int = 1) -> CandidatePair | None:
        return self.inner.selected_pair(component)

    def data_pair(self, component: int = 1) -> CandidatePair | None:
        return self.inner.data_pair(component)

    def close(self, now: float) -> None:
        self.inner.close(now)
        self._held.clear()

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        self.inner.receive_datagram(data, source, local, now)
        self._hold(now)

    def receive_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """For machines that care."""
        receive = getattr(self.inner, "receive_icmp_error", None)
        if receive is not None:
            receive(local, destination, now)
            self._hold(now)

    def handle_timer(self, now: float) -> None:
        due = self.inner.get_timer()
        if due is not None and now >= due:
            self.inner.handle_timer(now)
        self._hold(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        self._hold(now)
        due: list[Transmit] = []
        while self._held and self._held[0][0] <= now:
            due.append(self._held.popleft()[1])
        return due

    def next_event(self) -> Event | None:
        return self.inner.next_event()

    def get_timer(self) -> float | None:
        timers = [self._held[0][0] if self._held else None, self.inner.get_timer()]
        return min((timer for timer in timers if timer is not None), default=None)

    def _hold(self, now: float) -> None:
        for transmit in self.inner.datagrams_to_send(now):
            if len(self._held) < MAX_HELD:
                self._held.append((now + self.delay, transmit))
