"""A NAT in a few lines, a server behind it, and a loop that lets a discovery run between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ice_punch.datagram import Address, Transmit
from ice_punch.stun import BindingServer, Message, parse_message

PRIMARY = ("192.0.2.1", 3478)
ALTERNATE = ("192.0.2.2", 3479)
PUBLIC_IP = "203.0.113.5"
DELAY = 0.01


@dataclass
class Entry:
    local: Address
    mapped: Address
    used_at: float
    contacted: set[Address] = field(default_factory=set)


@dataclass
class SmallNat:
    """Maps endpoint-independently, filters by address and port."""

    port: Callable[[Address, int], int] = lambda local, number: 50_000 + 7 * number
    """The external port of a socket, from the number of mappings there were before."""
    ip: Callable[[int], str] = lambda number: PUBLIC_IP
    hairpin: str = "none"
    lifetime: float = float("inf")
    refreshed_by: tuple[str, ...] = ("out",)
    filters: bool = True
    maps_by_destination: bool = False
    entries: list[Entry] = field(default_factory=list)
    made: int = 0

    def _lives(self, entry: Entry, now: float) -> bool:
        return now < entry.used_at + self.lifetime

    def out(self, local: Address, remote: Address, now: float) -> Address:
        for entry in self.entries:
            same = not self.maps_by_destination or remote in entry.contacted
            if entry.local == local and same and self._lives(entry, now):
                entry.contacted.add(remote)
                if "out" in self.refreshed_by:
                    entry.used_at = now
                return entry.mapped
        mapped = (self.ip(self.made), self.port(local, self.made))
        self.made += 1
        self.entries.append(Entry(local, mapped, now, {remote}))
        return mapped

    def inward(self, mapped: Address, remote: Address, now: float) -> Address | None:
        for entry in self.entries:
            if entry.mapped == mapped and self._lives(entry, now):
                if self.filters and remote not in entry.contacted:
                    return None
                if "in" in self.refreshed_by:
                    entry.used_at = now
                return entry.local
        return None

    def is_own(self, ip: str) -> bool:
        return any(entry.mapped[0] == ip for entry in self.entries)


class NoNat(SmallNat):
    def out(self, local: Address, remote: Address, now: float) -> Address:
        return local

    def inward(self, mapped: Address, remote: Address, now: float) -> Address | None:
        return mapped


class Bench:
    """10 ms each way. ``lose`` sees the number of each datagram that leaves the host."""

    def __init__(
        self,
        nat: SmallNat,
        *,
        server: BindingServer | None = None,
        lose: Callable[[int], bool] = lambda number: False,
        tamper: Callable[[Transmit], Transmit | None] = lambda answer: answer,
    ) -> None:
        self.nat = nat
        self.server = server or BindingServer(PRIMARY, ALTERNATE)
        self.lose = lose
        self.tamper = tamper
        self.sent: list[tuple[float, Address, Address, Message]] = []
        self._arriving: list[tuple[float, bytes, Address, Address]] = []

    def _leave(self, transmit: Transmit, now: float) -> None:
        data, local, destination = transmit
        self.sent.append((now, local, destination, parse_message(data)))
        if self.lose(len(self.sent)):
            return
        mapped = self.nat.out(local, destination, now)
        if destination in self.server.addresses:
            self.server.receive_datagram(data, mapped, destination, now)
            for answer in self.server.datagrams_to_send(now):
                changed = self.tamper(answer)
                if changed is None:
                    continue
                arrival = now + 2 * DELAY
                inside = self.nat.inward(changed.destination, changed.local, arrival)
                if inside is not None:
                    self._arriving.append((arrival, changed.data, changed.local, inside))
        elif self.nat.is_own(destination[0]) and self.nat.hairpin != "none":
            inside = self.nat.inward(destination, mapped, now)
            if inside is not None:
                source = local if self.nat.hairpin == "internal" else mapped
                self._arriving.append((now + DELAY, data, source, inside))

    def run(self, discovery: Any) -> tuple[Any, float]:
        """The event of a discovery, and when it came."""
        now = 0.0
        for _ in range(5000):
            for transmit in discovery.datagrams_to_send(now):
                self._leave(transmit, now)
            event = discovery.next_event()
            if event is not None:
                assert discovery.done
                assert discovery.get_timer() is None
                return event, now
            timer = discovery.get_timer()
            times = [arrival[0] for arrival in self._arriving]
            times += [] if timer is None else [timer]
            now = max(now, min(times))
            due = [arrival for arrival in self._arriving if arrival[0] <= now]
            self._arriving = [arrival for arrival in self._arriving if arrival[0] > now]
            for _, data, source, local in due:
                discovery.receive_datagram(data, source, local, now)
            discovery.handle_timer(now)
        raise AssertionError("the discovery does not end")
