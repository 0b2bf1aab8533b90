"""Codes that people say to each other: ``7-orbit-guitar``. A number for the room, two words.

The number says where to meet; the words are the password of SPAKE2 (RFC 9382), which gives both
sides a key and whoever guesses wrong one try less. With 2048 words there are 4 million passwords.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

from signaling.errors import InvalidCode
from signaling.randomness import RandomSource, base64url

TRIES = 3
"""Wrong words after which a code is void."""
NUMBERS = (99, 999)
"""The largest numbers: short ones are tried first."""
_ROOM_PREFIX = b"icepunch.v1 code\0"
_CODE = re.compile(r"0*([1-9][0-9]{0,2})[\s-]+([a-z]+)[\s-]+([a-z]+)")


@cache
def words() -> tuple[str, ...]:
    """The 2048 words of BIP 39: no two begin with the same four letters."""
    from mnemonic import Mnemonic

    return tuple(Mnemonic("english").wordlist)


@cache
def _by_beginning() -> dict[str, str]:
    return {word[:4]: word for word in words()}


@dataclass(frozen=True, slots=True)
class SpokenCode:
    """What one person says and the other types."""

    number: int
    words: tuple[str, str] = field(repr=False)

    @classmethod
    def create(cls, number: int, random: RandomSource) -> SpokenCode:
        draw = int.from_bytes(random.randbytes(8), "big")
        count = len(words())
        return cls(number, (words()[draw % count], words()[draw // count % count]))

    @classmethod
    def parse(cls, text: str) -> SpokenCode:
        """The code in ``text``, as people type: any case, blanks or hyphens, and of each word four
        letters or more. Raises :class:`InvalidCode`, whose text does not show the words."""
        match = _CODE.fullmatch(text.strip().lower())
        if match is None:
            raise InvalidCode("a code is a number and two words, like 7-orbit-guitar")
        known = tuple(_known(word) for word in match.groups()[1:])
        for position, word in zip(("first", "second"), known, strict=True):
            if word is None:
                raise InvalidCode(f"the {position} word of the code is none that a code can have")
        first, second = known
        assert first is not None
        assert second is not None
        return cls(int(match.group(1)), (first, second))

    @property
    def room(self) -> str:
        """Where the two meet, as the server hears it."""
        return code_room(self.number)

    @property
    def password(self) -> bytes:
        return str(self).encode("ascii")

    def __str__(self) -> str:
        return "-".join((str(self.number), *self.words))


def code_room(number: int) -> str:
    return base64url(sha256(_ROOM_PREFIX + str(number).encode("ascii")).digest())


def _known(typed: str) -> str | None:
    word = _by_beginning().get(typed[:4])
    if word is None and typed in words():
        return typed
    return word if word is not None and word.startswith(typed) else None
