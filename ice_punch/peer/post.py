"""The sealed post between two peers: what an attempt says, and how it is wrapped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from ice_punch.errors import InvalidDescription
from signaling.messages import Kind
from signaling.sealing import Sealer


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """An offer or an answer: SDP, RFC 8839."""

    sdp: str
    server_rtt: float | None = None
    """Seconds from the sender to the signaling server and back: half of it and half of the
    receiver's are what a letter takes."""
    transports: tuple[str, ...] | None = None
    """What may run above ICE, best first; in an answer, what will. None: `DATAGRAM`."""


class Candidates(msgspec.Struct, frozen=True):
    """A fragment of RFC 8840 section 4.4."""

    sdpfrag: str


class Goodbye(msgspec.Struct, frozen=True):
    """Why a peer ends or refuses an attempt."""

    reason: str = ""
    cause: str = ""
    """A ``Cause``, where its diagnosis is the reason."""
    side: str = ""
    """A ``Side``, as the peer sees it."""


class Restart(msgspec.Struct, frozen=True):
    """The wish for an offer, from the peer that does not make them."""

    reason: str = ""


Letter = Offer | Candidates | Goodbye | Restart


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who writes to whom in which attempt: bound into every seal."""

    self_id: str
    peer_id: str
    link: str

    def is_from(self, sender: str, link: str) -> bool:
        return (sender, link) == (self.peer_id, self.link)


class Post:
    """Seals what goes to one peer, opens what comes from it."""

    def __init__(
        self,
        envelope: Envelope,
        sealer: Sealer,
        send: Callable[[str, str, int, Kind, str], Awaitable[object]],
    ) -> None:
        self.envelope = envelope
        self._sealer = sealer
        self._send = send

    async def send(self, kind: Kind, message: Letter, generation: int = 0) -> None:
        """Raises the errors of the signaling client."""
        e = self.envelope
        sealed = self._sealer.seal(
            msgspec.json.encode(message).decode(),
            sender=e.self_id,
            to=e.peer_id,
            link=e.link,
            generation=generation,
            kind=kind,
        )
        await self._send(e.peer_id, e.link, generation, kind, sealed)

    async def refuse_unread(self) -> None:
        """Say that a letter could not be opened; there is nothing to seal that with."""
        await self._send(self.envelope.peer_id, self.envelope.link, 0, "reject", "")

    def open(self, kind: str, generation: int, data: str) -> Letter | None:
        """What the peer wrote; None for a kind that this version does not know.

        Raises SealBroken if it was not sealed with our secret for this attempt, and
        InvalidDescription if what was sealed makes no sense.
        """
        e = self.envelope
        text = self._sealer.open(
            data, sender=e.peer_id, to=e.self_id, link=e.link, generation=generation, kind=kind
        )
        types: dict[str, type[Letter]] = {
            "offer": Offer,
            "answer": Offer,
            "cand": Candidates,
            "restart": Restart,
            "bye": Goodbye,
            "reject": Goodbye,
        }
        if kind not in types:
            return None
        try:
            return msgspec.json.decode(text, type=types[kind])
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            raise InvalidDescription(f"the peer's {kind} makes no sense") from None
