"""How a state machine lives on a virtual host: its datagrams, its timer, its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from ice_punch.datagram import Address, Transmit
from ice_punch.lab.trace import DropReason

if TYPE_CHECKING:
    from ice_punch.lab.virtual.host import VirtualHost

EventHandler = Callable[[float, object], None]

MAX_IDLE_TURNS = 1000
"""How often a timer may fire at one instant before the machine counts as stuck."""


class DatagramMachine(Protocol):
    """What can live on a host. ``handle_timer``, ``get_timer``, ``next_event`` are optional."""

    def receive_datagram(
        self, data: bytes, source: Address, local: Address, now: float, /
    ) -> object: ...

    def datagrams_to_send(self, now: float, /) -> Iterable[Transmit]: ...


class Attachment:
    """A machine on a host. :meth:`VirtualInternet.attach` makes it."""

    __slots__ = (
        "_get_timer",
        "_handle_timer",
        "_idle_turns",
        "_last_turn",
        "_next_event",
        "_receive_icmp_error",
        "_scheduled",
        "_why_refused",
        "host",
        "ips",
        "machine",
        "on_event",
        "ports",
    )

    def __init__(
        self,
        host: VirtualHost,
        machine: DatagramMachine,
        on_event: EventHandler | None,
        ports: frozenset[int] | None,
        ips: frozenset[str] | None = None,
    ) -> None:
        self.host = host
        self.machine = machine
        self.on_event = on_event
        self.ports = ports
        self.ips = ips
        self._get_timer: Callable[[], float | None] | None = getattr(machine, "get_timer", None)
        self._handle_timer: Callable[[float], object] | None = getattr(
            machine, "handle_timer", None
        )
        self._next_event: Callable[[], object] | None = getattr(machine, "next_event", None)
        self._receive_icmp_error: Callable[[Address, Address, float], object] | None = getattr(
            machine, "receive_icmp_error", None
        )
        self._why_refused: Callable[[], DropReason | None] | None = getattr(
            machine, "why_refused", None
        )
        self._scheduled: float | None = None
        self._last_turn = -1.0
        self._idle_turns = 0

    def listens_at(self, address: Address) -> bool:
        ip, port = address
        return (self.ips is None or ip in self.ips) and (self.ports is None or port in self.ports)

    def flush(self) -> None:
        """Take what the machine wants to send and to tell, and note when it wants to be called."""
        internet = self.host.internet
        now = internet.now
        for transmit in self.machine.datagrams_to_send(now):
            self.host.send(transmit)
        if self.on_event is not None and self._next_event is not None:
            while (event := self._next_event()) is not None:
                self.on_event(now, event)
            for transmit in self.machine.datagrams_to_send(now):
                self.host.send(transmit)
        due = self._get_timer() if self._get_timer is not None else None
        if due is None:
            self._scheduled = None
        elif due != self._scheduled:
            self._scheduled = due
            internet.at(max(due, now), lambda: self._timer(due), flush=False)

    def receive(self, data: bytes, source: Address, local: Address) -> DropReason | None:
        """Why the machine made nothing of it, if it is one that says so."""
        self.machine.receive_datagram(data, source, local, self.host.internet.now)
        refused = None if self._why_refused is None else self._why_refused()
        self.flush()
        return refused

    def receive_icmp_error(self, local: Address, destination: Address) -> None:
        """Something that ``local`` sent to ``destination`` can not arrive."""
        if self._receive_icmp_error is not None:
            self._receive_icmp_error(local, destination, self.host.internet.now)
            self.flush()

    def _timer(self, due: float) -> None:
        if due != self._scheduled or self._handle_timer is None:
            return
        now = self.host.internet.now
        self._idle_turns = self._idle_turns + 1 if now == self._last_turn else 0
        self._last_turn = now
        if self._idle_turns > MAX_IDLE_TURNS:
            raise RuntimeError(f"the timer of {self.machine!r} stands still at {now}")
        self._scheduled = None
        self._handle_timer(now)
        self.flush()
