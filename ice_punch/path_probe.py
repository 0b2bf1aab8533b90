"""Probes of a path MTU search: connectivity checks of a size (RFC 8899 section 6.2.2 does it so
with another protocol's)."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.datagram import Address, RandomSource
from ice_punch.ice import Agent, CandidatePair
from ice_punch.ice.candidate import peer_reflexive_priority
from ice_punch.stun import (
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    PRIORITY,
    USERNAME,
    AttributeType,
    Integrity,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)
from ice_punch.stun.codecs import octets

FILLER = AttributeType(0xC2FF, "FILLER", *octets())
"""Zeros. RFC 5780's PADDING is comprehension-required, and peers refuse what they do not know; of
a type above 0x8000 they take no notice (RFC 8489 section 14)."""
OUTSTANDING = 16
"""Probes whose answers still count."""


@dataclass(frozen=True, slots=True)
class _Outstanding:
    size: int
    key: bytes
    destination: Address
    base: Address


class PathProbes:
    """Makes probes and knows their answers."""

    def __init__(self, agent: Agent, random: RandomSource) -> None:
        self._agent = agent
        self._random = random
        self._outstanding: dict[bytes, _Outstanding] = {}

    def clear(self) -> None:
        """Another path: answers of the old one tell nothing."""
        self._outstanding.clear()

    def make(self, pair: CandidatePair, payload: int, size: int) -> bytes | None:
        """A check of ``payload`` bytes, or as small as checks are; ``size`` is what `answered`
        gives back. None while there is nobody to check."""
        agent = self._agent
        remote = agent.remote_credentials
        if remote is None:
            return None
        message = Message(Method.BINDING, MessageClass.REQUEST, self._random.randbytes(12))
        message.add(USERNAME, f"{remote.ufrag}:{agent.credentials.ufrag}")
        message.add(PRIORITY, peer_reflexive_priority(pair.local.priority))
        message.add(ICE_CONTROLLING if agent.controlling else ICE_CONTROLLED, agent.tie_breaker)
        filler = payload - len(message.to_bytes(key=remote.key)) - 4
        if filler >= 0:
            message.add(FILLER, bytes(filler))
        while len(self._outstanding) >= OUTSTANDING:
            del self._outstanding[next(iter(self._outstanding))]
        self._outstanding[message.transaction_id] = _Outstanding(
            size, remote.key, pair.remote.address, pair.base
        )
        return message.to_bytes(key=remote.key)

    def answered(self, data: bytes, source: Address, local: Address) -> int | None:
        """The size of the probe that a message answers; None if it is none of that."""
        probe = self._outstanding.get(data[8:20])
        if probe is None or (source, local) != (probe.destination, probe.base):
            return None
        try:
            message = parse_message(data)
        except StunParseError:
            return None
        # An error is an answer too: the request has arrived.
        if message.message_class not in (MessageClass.SUCCESS, MessageClass.ERROR):
            return None
        if not message.verify(probe.key, Integrity.SHA1):
            return None
        del self._outstanding[message.transaction_id]
        return probe.size
