"""What a process asks of the rooms it shares, and what it hears of them. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from msgspec.structs import replace

from signaling.messages import Error, PeerNotice, Relayed, encode
from signaling.randomness import base64url

Reply = list[Any]


@dataclass(slots=True, eq=False)
class Call:
    """One run of the script.

    Exactly one of ``done``, with its reply, and ``lost`` is called: the connection broke before
    the reply, and whether the script ran nobody knows.
    """

    operation: str
    room: str
    """The name of the room."""
    arguments: dict[str, Any]
    done: Callable[[Reply, float], None]
    lost: Callable[[float], None]


class Frame(NamedTuple):
    """A numbered frame without its number: ``head``, the number and ``tail`` make its text.

    ``src`` and ``n`` say whose signal it is, and the how manieth of that sender: what was taken
    once is known by them. Of notices ``n`` is 0.
    """

    src: str
    n: int
    head: str
    tail: str

    def text(self, seq: int) -> str:
        return f"{self.head}{seq}{self.tail}"


def frame_of(message: PeerNotice | Relayed | Error, src: str = "", n: int = 0) -> Frame:
    text = encode(replace(message, seq=0))
    head, mark, tail = text.partition('"seq":0')
    return Frame(src, n, head + mark[:-1], tail)


def room_key(prefix: str, room: str) -> str:
    """The key of a room: its name, which is the right to enter it, is not to be read in a dump.

    What is in braces decides the slot in a cluster: all of a room is in one.
    """
    return f"{prefix}:{{{base64url(sha256(room.encode('utf-8')).digest()[:18])}}}"


def key_hash(key: str) -> str:
    """What is stored of a session's key."""
    return base64url(sha256(key.encode("utf-8")).digest())
