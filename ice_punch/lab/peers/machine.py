"""What the laboratory asks of a peer, whichever way it goes about ICE."""

from __future__ import annotations

from typing import Protocol

from ice_punch.datagram import Address, Transmit
from ice_punch.ice import Candidate, CandidatePair, Credentials, Event, IceState


class IceMachine(Protocol):
    """The members of ``ice_punch.ice.Agent`` that every peer has, with the same meaning and the
    same events. Times are seconds."""

    @property
    def credentials(self) -> Credentials: ...

    @property
    def state(self) -> IceState: ...

    @property
    def controlling(self) -> bool: ...

    @property
    def queries_busy(self) -> bool: ...

    def add_host_candidate(
        self, address: Address, now: float, *, local_preference: int = 65535, component: int = 1
    ) -> Candidate | None: ...

    def add_relayed_candidate(
        self,
        address: Address,
        now: float,
        *,
        server: str,
        mapped: Address | None = None,
        local_preference: int = 65535,
        component: int = 1,
    ) -> Candidate | None: ...

    def query_server(
        self, server: str, address: Address, base: Address, now: float, *, component: int = 1
    ) -> None: ...

    def set_remote_parameters(
        self, credentials: Credentials, now: float, *, lite: bool = False, ta: float | None = None
    ) -> None: ...

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None: ...

    def end_of_remote_candidates(self, now: float) -> None: ...

    def selected_pair(self, component: int = 1) -> CandidatePair | None: ...

    def data_pair(self, component: int = 1) -> CandidatePair | None: ...

    def close(self, now: float) -> None: ...

    def receive_datagram(
        self, data: bytes, source: Address, local: Address, now: float
    ) -> None: ...

    def handle_timer(self, now: float) -> None: ...

    def datagrams_to_send(self, now: float) -> list[Transmit]: ...

    def next_event(self) -> Event | None: ...

    def get_timer(self) -> float | None: ...
