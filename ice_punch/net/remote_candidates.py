"""The peer's candidates as they can be reached from here: names of its network resolved, IPv4
addresses through NAT64."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

from ice_punch.ice import Candidate
from ice_punch.ice.facts import is_public
from ice_punch.net.gatherer import Gatherer
from ice_punch.net.mdns import resolve_mdns
from ice_punch.net.servers import is_ipv4

MAX_NAMES = 16
"""mDNS names of the peer's that are resolved."""
MAX_TRANSLATED = 100
"""IPv4 candidates that wait until it is known whether there is NAT64."""


class RemoteCandidates:
    """Takes what the peer signals, and hands on what an agent can use."""

    def __init__(
        self,
        gatherer: Gatherer,
        *,
        relay_only: bool,
        on_candidate: Callable[[Candidate], None],
        on_end: Callable[[], None],
    ) -> None:
        """``on_candidate`` gets each, at once or once it is resolved; ``on_end`` is called after
        the last one. With ``relay_only`` names are ignored, as the draft wants."""
        self._gatherer = gatherer
        self._relay_only = relay_only
        self._on_candidate = on_candidate
        self._on_end = on_end
        self._names: list[Candidate] = []
        self._translated = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self._closed = False

    def add(self, candidate: Candidate) -> None:
        if candidate.is_mdns:
            # draft-ietf-mmusic-mdns-ice-candidates section 3.2: relay-only ignores names of a LAN.
            if not self._relay_only:
                self._resolve_later(candidate)
            return
        self._gatherer.hide_from_relays(candidate.host, hide=False)
        self._on_candidate(candidate)
        if self._gatherer.servers.may_translate and is_ipv4(candidate.host):
            self._translate_later(candidate)

    def end(self) -> None:
        """The peer has said that no more come."""
        self._ended = True
        self._end_if_all_are_known()

    def restart(self) -> None:
        """Another generation of candidates begins."""
        self._names.clear()
        self._translated = 0
        self._ended = False
        for task in self._tasks:
            task.cancel()

    def close(self) -> list[asyncio.Task[None]]:
        """The tasks that have yet to stop."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        return list(self._tasks)

    # -- names --------------------------------------------------------------------------------

    def _resolve_later(self, candidate: Candidate) -> None:
        # RFC 8840 section 4.4: a fragment repeats what was said before; a name is asked for once.
        if candidate in self._names or len(self._names) >= MAX_NAMES:
            return
        if not self._ended and not self._closed:
            self._names.append(candidate)
            self._start(self._resolve(candidate))

    async def _resolve(self, candidate: Candidate) -> None:
        ip = await resolve_mdns(candidate.host)
        if ip is not None and not self._closed:
            known = any(remote.host == ip for remote in self._gatherer.remote_candidates)
            if not known:
                self._gatherer.hide_from_relays(ip)
            self._on_candidate(candidate.with_host(ip))

    # -- NAT64 --------------------------------------------------------------------------------

    def _translate_later(self, candidate: Candidate) -> None:
        # RFC 6052 section 3.1: private addresses are not translated.
        if self._ended or self._translated >= MAX_TRANSLATED or not is_public(candidate.host):
            return
        self._translated += 1
        self._start(self._translate(candidate))

    async def _translate(self, candidate: Candidate) -> None:
        ip = await self._gatherer.servers.translated(candidate.host)
        if ip is not None and not self._closed:
            self._on_candidate(replace(candidate, host=ip))

    # -- the end ------------------------------------------------------------------------------

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        self._end_if_all_are_known()

    def _end_if_all_are_known(self) -> None:
        if self._ended and not self._tasks and not self._closed:
            self._on_end()
