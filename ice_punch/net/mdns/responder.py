"""Answers for the names that stand for our addresses: RFC 6762 sections 6 to 10, draft section
3.1."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ice_punch.datagram import Address, RandomSource
from ice_punch.net.interfaces import InterfaceAddress, present_addresses

if TYPE_CHECKING:
    from ice_punch.net.mdns.links import Link, Links

ANNOUNCEMENTS = 2
ANNOUNCEMENT_INTERVAL = 1.0
"""Seconds, RFC 6762 section 8.3."""
ANSWER_INTERVAL = 0.25
"""Seconds between two answers for one name on one link. RFC 6762 section 6 has one second, which is
as long as others wait for the first one."""


@dataclass(slots=True)
class MdnsStats:
    answered: int = 0
    ignored: int = 0
    """What was no message, or came too fast."""


@dataclass(frozen=True, slots=True)
class _Record:
    name: str
    ip: str


def make_name(random: RandomSource) -> str:
    """Draft section 3.1.1: a version 4 UUID, so that nobody else has it and it tells nothing."""
    return f"{uuid.UUID(bytes=random.randbytes(16), version=4)}.local"


class MdnsResponder:
    """One name for each address, answered on the interface that has it and nowhere else.

    Where there is no multicast the names are made all the same: that they are tells nobody whether
    there is.
    """

    def __init__(self, random: RandomSource) -> None:
        """Needs a running event loop."""
        self.stats = MdnsStats()
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._links: Links | None = None
        self._names: dict[str, str] = {}
        """By IP address; kept as long as the responder, so that an address has one name."""
        self._published: dict[str, tuple[str, _Record]] = {}
        """Interface and record, by name."""
        self._answered_at: dict[tuple[Link, str], float] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def name_of(self, ip: str) -> str:
        """The name that stands for an address."""
        name = self._names.get(ip)
        if name is None:
            name = self._names[ip] = make_name(self._random)
        return name

    def publish(self, address: InterfaceAddress) -> str:
        """Answer for ``address`` from now on, and announce it; its name."""
        from ice_punch.net.mdns.links import Links

        name = self.name_of(address.ip)
        if name not in self._published:
            if self._links is None:
                self._links = Links(self._on_packet)
            # Whoever asks for an IPv6 address may do so over IPv4, and the other way round.
            beside = [a for a in present_addresses() if a.interface == address.interface]
            self._links.open([address, *beside])
            self._published[name] = (address.interface, _Record(name, address.ip))
            self._announce(name, ANNOUNCEMENTS)
        return name

    def withdraw(self, ip: str) -> None:
        """The address is gone: its name stands for nothing any more."""
        published = self._published.pop(self._names.get(ip, ""), None)
        if published is not None:
            self._say(*published, ttl=0)

    def close(self) -> None:
        """Say goodbye for every name, and close. May be called again."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for interface, record in self._published.values():
            self._say(interface, record, ttl=0)
        self._published.clear()
        self._answered_at.clear()
        if self._links is not None:
            self._links.close()
            self._links = None

    def _announce(self, name: str, times: int) -> None:
        published = self._published.get(name)
        if published is None:
            return
        self._say(*published)
        if times > 1:
            handle: asyncio.TimerHandle

            def again() -> None:
                self._timers.discard(handle)
                self._announce(name, times - 1)

            handle = self._loop.call_later(ANNOUNCEMENT_INTERVAL, again)
            self._timers.add(handle)

    def _say(self, interface: str, record: _Record, *, ttl: int | None = None) -> None:
        from ice_punch.net.mdns import messages

        data = messages.response(record.name, record.ip, ttl=messages.TTL if ttl is None else ttl)
        for link in () if self._links is None else self._links.on(interface):
            link.multicast(data)

    def _on_packet(self, link: Link, data: bytes, source: Address) -> None:
        from ice_punch.net.mdns import links, messages

        if not messages.mentions(data, self._published):
            return
        packet = messages.parse(data)
        if packet is None:
            self.stats.ignored += 1
            return
        for name in dict.fromkeys(question.name for question in packet.questions):
            interface, record = self._published.get(name, ("", None))
            if record is None or interface != link.interface:
                continue
            now = self._loop.time()
            if now - self._answered_at.get((link, name), float("-inf")) < ANSWER_INTERVAL:
                self.stats.ignored += 1
                continue
            self._answered_at[link, name] = now
            self.stats.answered += 1
            if source[1] == links.PORT:
                link.multicast(messages.response(record.name, record.ip))
            else:
                link.unicast(messages.unicast_response(record.name, record.ip, packet.id), source)
