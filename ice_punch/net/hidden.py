"""Our addresses behind names: what the peer is told in place of them,
draft-ietf-mmusic-mdns-ice-candidates section 3.1."""

from __future__ import annotations

import random
from dataclasses import replace

from ice_punch.datagram import Address, format_address
from ice_punch.ice import Candidate, CandidateType, ServerQueryEnded
from ice_punch.ice.candidate import candidate_priority
from ice_punch.net.interfaces import InterfaceAddress
from ice_punch.net.mdns.responder import MdnsResponder

DISCARD_PORT = 9


class HiddenAddresses:
    """Gives every address of a host candidate a name, and candidates the form that may be told."""

    def __init__(self) -> None:
        """Needs a running event loop."""
        self.responder = MdnsResponder(random.SystemRandom())
        self._public: dict[Address, Candidate] = {}
        """By base: server-reflexive candidates equal to their host candidates."""

    def publish(self, address: InterfaceAddress) -> None:
        self.responder.publish(address)

    def withdraw(self, ip: str) -> None:
        self.responder.withdraw(ip)
        self._public = {base: c for base, c in self._public.items() if base[0] != ip}

    def close(self) -> None:
        self.responder.close()

    def shown(self, candidate: Candidate) -> Candidate:
        """What the peer is told of a candidate of ours: a name for its address, nothing of its
        base."""
        if candidate.type is CandidateType.HOST:
            name = self.responder.name_of(candidate.host)
            return replace(candidate, host=name, base=None)
        # Section 3.1.2.2. A relayed candidate's related address is a reflexive one, told anyway or
        # equal to a host candidate's.
        hidden = "::" if candidate.ip_version == 6 else "0.0.0.0"  # noqa: S104
        return replace(candidate, related_address=(hidden, DISCARD_PORT), base=None)

    def public_candidate(
        self, event: ServerQueryEnded, candidates: tuple[Candidate, ...]
    ) -> Candidate | None:
        """A server saw one of our ``candidates`` where it is: it has a public address. To the agent
        a server-reflexive candidate of that is redundant; to the peer, who knows a name only, it
        is not (section 3.1.2.2). None for any other answer."""
        if event.report.mapped != format_address(event.base) or event.base in self._public:
            return None
        host = next((c for c in candidates if c.address == event.base), None)
        if host is None:
            return None
        preference = (host.priority >> 8) & 0xFFFF
        found = replace(
            host,
            type=CandidateType.SRFLX,
            foundation=f"{host.foundation}r",
            priority=candidate_priority(CandidateType.SRFLX, preference, host.component),
            server=event.report.uri,
        )
        self._public[event.base] = found
        return found

    def all_shown(self, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """What the peer is told of all ``candidates`` of ours."""
        shown: list[Candidate] = []
        for candidate in candidates:
            shown.append(self.shown(candidate))
            public = self._public.get(candidate.address)
            if public is not None and candidate.type is CandidateType.HOST:
                shown.append(self.shown(public))
        return tuple(shown)
