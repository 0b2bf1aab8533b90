"""What a process knows of the sessions whose connections it has, in rooms shared with others.

Sans-IO. While the bus is up, the script numbers every frame, and this is a copy. While it is down,
this is all there is: sessions of this process go on with it, and bring it back afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from signaling.backends.calls import Frame
from signaling.member import Member, Room

RETAINED_FOR = 30.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A signal for a peer whose connection another process has."""

    frame: Frame
    to: str
    at: float


class SharedMember(Member):
    """``base`` is the last number that came from the script, or was brought back to it."""

    def __init__(self, room: Room, **fields: Any) -> None:
        super().__init__(room, **fields)
        self.base = 0
        self.told = 0
        """The last number the script knows to have come here."""
        self.acknowledged = 0
        self.generation = 0
        self.seen: dict[str, int] = {}
        self.takeovers = 0
        self.syncing = 0
        self.reading = False
        self.early: list[tuple[int, int, Frame]] = []
        """Frames with their generation and number that came before they could be taken."""
        self.frames: deque[tuple[int, Frame]] = deque()
        """What is kept for replay, with whose it is."""
        self.outbox: deque[Outgoing] = deque()
        """Signals for others that wait for the bus."""
        self.outbox_bytes = 0
        self.retained_bytes = 0
        self.retained: deque[Outgoing] = deque()
        """Signals given to the bus lately: should it lose its memory, they are given again."""
        self.on_acknowledged: Callable[[SharedMember], None] = lambda member: None

    @property
    def first_kept(self) -> int:
        return self._kept[0][0] if self._kept else self.seq + 1

    def take(self, seq: int, frame: Frame) -> str:
        """Take the frame numbered ``seq``, which is the next one; its text."""
        self.seq = seq
        if frame.n:
            self.seen[frame.src] = frame.n
        text = frame.text(seq)
        self.frames.append((seq, frame))
        self.keep(text)
        return text

    def _drop_oldest(self) -> None:
        super()._drop_oldest()
        first = self.first_kept
        while self.frames and self.frames[0][0] < first:
            self.frames.popleft()

    def begin_again(self, seq: int) -> None:
        """Forget every frame: what is kept after ``seq`` comes from the script."""
        while self._kept:
            self._drop_oldest()
        self.frames.clear()
        self.early.clear()
        self.seq = seq

    def acknowledge(self, seq: int) -> None:
        super().acknowledge(seq)
        self.acknowledged = max(self.acknowledged, min(seq, self.seq))
        self.on_acknowledged(self)

    def can_wait(self, size: int) -> bool:
        """Whether another signal for a peer elsewhere fits the outbox."""
        return (
            len(self.outbox) < self._limits.resume_messages
            and self.outbox_bytes + size <= self._limits.resume_bytes
        )

    def put_out(self, signal: Outgoing) -> None:
        self.outbox.append(signal)
        self.outbox_bytes += len(signal.frame.tail)

    def take_outbox(self) -> list[Outgoing]:
        signals = list(self.outbox)
        self.outbox.clear()
        self.outbox_bytes = 0
        return signals

    def retain(self, signal: Outgoing, now: float) -> None:
        self.retained.append(signal)
        self.retained_bytes += len(signal.frame.tail)
        while self.retained and (
            len(self.retained) > self._limits.resume_messages
            or self.retained_bytes > self._limits.resume_bytes
            or self.retained[0].at < now - RETAINED_FOR
        ):
            self.retained_bytes -= len(self.retained.popleft().frame.tail)
