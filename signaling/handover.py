"""Handing a link over under a spoken code: SPAKE2, one use, three tries. Sans-IO.

Both sides turn the code into a key without showing it to anybody (:class:`Handover`), the guest
proves first that it has the same one, and only then the host seals the link for it. ::

    guest -> host   offer  gen 0   its half of SPAKE2
    host -> guest   answer gen 0   its half
    guest -> host   offer  gen 1   sealed: its proof
    host -> guest   answer gen 1   sealed: room and secret of the link, once
               or   reject         "wrong" or "spent"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import msgspec

from signaling.codes import TRIES, SpokenCode
from signaling.errors import SealBroken
from signaling.messages import Kind
from signaling.randomness import RandomSource, base64url, from_base64url
from signaling.sealing import Sealer

MAX_EXCHANGES = 4 * TRIES
"""Exchanges a host begins for one code: each costs it some computing."""
_PROOF = "icepunch.v1 code"


class Reply(NamedTuple):
    """A signal to send."""

    kind: Kind
    generation: int
    data: str


class LinkPart(msgspec.Struct, frozen=True):
    """What is handed over. The server's address the guest has already."""

    room: str
    secret: str


@dataclass(frozen=True, slots=True)
class Names:
    """Who talks in which exchange: bound into every seal."""

    self_id: str
    peer_id: str
    link: str


class _Half:
    """One side of SPAKE2, and the seal under the key that it ends in."""

    def __init__(self, code: SpokenCode, names: Names, random: RandomSource, side: str) -> None:
        from spake2 import SPAKE2_A, SPAKE2_B  # type: ignore[import-untyped]

        make: Callable[..., Any] = SPAKE2_A if side == "guest" else SPAKE2_B
        ids = {"idA": b"icepunch.v1 guest", "idB": b"icepunch.v1 host"}
        self._machine = make(code.password, **ids, entropy_f=random.randbytes)
        self._names = names
        self._room = code.room
        self._random = random
        self._sealer: Sealer | None = None
        self.message: str = base64url(self._machine.start())

    def finish(self, message: str) -> bool:
        """Take the other half; ``False`` if it is none."""
        try:
            key = cast(bytes, self._machine.finish(from_base64url(message)))
        except Exception:  # the library raises many things on what a stranger may send
            return False
        self._sealer = Sealer(key, self._room, random=self._random)
        return True

    def seal(self, kind: Kind, text: str) -> Reply:
        assert self._sealer is not None
        names = self._names
        sealed = self._sealer.seal(
            text,
            sender=names.self_id,
            to=names.peer_id,
            link=names.link,
            generation=1,
            kind=kind,
        )
        return Reply(kind, 1, sealed)

    def open(self, kind: Kind, data: str) -> str | None:
        if self._sealer is None:
            return None
        names = self._names
        try:
            return self._sealer.open(
                data,
                sender=names.peer_id,
                to=names.self_id,
                link=names.link,
                generation=1,
                kind=kind,
            )
        except SealBroken:
            return None


class Host:
    """The side that has the link and says the code."""

    def __init__(self, code: SpokenCode, link: LinkPart, random: RandomSource) -> None:
        self.code = code
        self.state: Literal["open", "taken", "spent"] = "open"
        self.tries_left = TRIES
        self._link = link
        self._random = random
        self._exchanges: dict[tuple[str, str], _Half] = {}
        self._begun = 0

    def receive(self, names: Names, kind: str, generation: int, data: str) -> list[Reply]:
        """A signal of a guest; what to send back to it."""
        if kind != "offer" or generation not in (0, 1):
            return []
        if self.state != "open":
            return [Reply("reject", generation, "spent")]
        key = (names.peer_id, names.link)
        return self._begin(key, names, data) if generation == 0 else self._judge(key, data)

    def forget(self, peer_id: str) -> None:
        """A guest left the room."""
        for key in [key for key in self._exchanges if key[0] == peer_id]:
            del self._exchanges[key]

    def _begin(self, key: tuple[str, str], names: Names, data: str) -> list[Reply]:
        if key in self._exchanges:
            return []
        self._begun += 1
        if self._begun > MAX_EXCHANGES:
            return self._spend()
        half = _Half(self.code, names, self._random, "host")
        if not half.finish(data):
            return [Reply("reject", 0, "wrong")]
        self._exchanges[key] = half
        return [Reply("answer", 0, half.message)]

    def _judge(self, key: tuple[str, str], data: str) -> list[Reply]:
        half = self._exchanges.pop(key, None)
        if half is None:
            return []
        if half.open("offer", data) == _PROOF:
            self.state = "taken"
            self._exchanges.clear()
            return [half.seal("answer", msgspec.json.encode(self._link).decode())]
        self.tries_left -= 1
        if self.tries_left <= 0:
            return self._spend()
        return [Reply("reject", 1, "wrong")]

    def _spend(self) -> list[Reply]:
        self.state = "spent"
        self._exchanges.clear()
        return [Reply("reject", 1, "spent")]


class Guest:
    """The side that was told the code."""

    def __init__(self, code: SpokenCode, names: Names, random: RandomSource) -> None:
        self.link: LinkPart | None = None
        self.refusal: Literal["wrong", "spent"] | None = None
        """``wrong``: the two sides have different words, or someone between them plays tricks."""
        self._half = _Half(code, names, random, "guest")
        self._proved = False

    def begin(self) -> Reply:
        return Reply("offer", 0, self._half.message)

    def receive(self, kind: str, generation: int, data: str) -> list[Reply]:
        """A signal of the host; what to send back."""
        if self.link is not None or self.refusal is not None:
            return []
        if kind == "reject":
            self.refusal = "spent" if data == "spent" else "wrong"
        elif kind == "answer" and generation == 0 and not self._proved:
            if self._half.finish(data):
                self._proved = True
                return [self._half.seal("offer", _PROOF)]
            self.refusal = "wrong"
        elif kind == "answer" and generation == 1 and self._proved:
            self._take(data)
        return []

    def _take(self, data: str) -> None:
        text = self._half.open("answer", data)
        if text is None:
            self.refusal = "wrong"
            return
        try:
            self.link = msgspec.json.decode(text, type=LinkPart)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            self.refusal = "wrong"
