"""Messages from their pieces (RFC 9260 section 6.9): a piece costs the same whatever the order."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import NamedTuple

from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    DataChunk,
)

SEQUENCES = 2**16
_WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG


class Whole(NamedTuple):
    stream_id: int
    protocol: int
    data: bytes


class InboundStream:
    """Which message of a stream is next, and those that have to wait for it."""

    __slots__ = ("_next", "_waiting")

    def __init__(self) -> None:
        self._next = 0
        """Its number, which does not wrap around."""
        self._waiting: list[tuple[int, int, Whole]] = []
        """A heap, by number, and of the same number by arrival."""

    def _number(self, sequence: int) -> int:
        ahead = (sequence - self._next) % SEQUENCES
        return self._next + (ahead if ahead < SEQUENCES // 2 else ahead - SEQUENCES)

    def put(self, sequence: int, position: int, message: Whole) -> list[Whole]:
        """What may be handed on now that this message is whole, in order."""
        number = self._number(sequence)
        if number > self._next:
            heappush(self._waiting, (number, position, message))
            return []
        if number == self._next:
            self._next += 1
            if self._waiting:
                return [message, *self._due()]
        return [message]

    def skip(self, sequence: int) -> list[Whole]:
        """What may be handed on when the peer gives up a message (RFC 3758 section 3.6)."""
        self._next = max(self._next, self._number(sequence) + 1)
        return self._due()

    def _due(self) -> list[Whole]:
        due: list[Whole] = []
        while self._waiting and self._waiting[0][0] <= self._next:
            number, _, message = heappop(self._waiting)
            due.append(message)
            self._next = max(self._next, number + 1)
        return due


class _Run:
    """Pieces of one message whose TSNs follow each other."""

    __slots__ = ("chunks", "first", "last")

    def __init__(self, position: int, chunk: DataChunk) -> None:
        self.first = self.last = position
        self.chunks = deque((chunk,))

    @property
    def begins(self) -> bool:
        return bool(self.chunks[0].flags & SCTP_DATA_FIRST_FRAG)

    @property
    def is_whole(self) -> bool:
        return self.begins and bool(self.chunks[-1].flags & SCTP_DATA_LAST_FRAG)


class Reassembly:
    """The pieces of all streams of an association, by their TSNs' positions.

    All pieces of a message have consecutive TSNs. So of those before the first gap at most one
    message is incomplete, the last; what else is left there never will be whole, and is dropped.
    """

    def __init__(self) -> None:
        self.streams: dict[int, InboundStream] = {}
        self.pieces = 0
        """How many are held, of messages that are not whole or have to wait for others."""
        self.size = 0
        """Bytes of these."""
        self._by_first: dict[int, _Run] = {}
        self._by_last: dict[int, _Run] = {}
        self._tail: _Run | None = None
        """The run that may go on after `_passed`."""
        self._passed = 0

    def add(self, position: int, chunk: DataChunk) -> list[Whole]:
        """Take a piece, of a TSN that had not come before; the messages to hand on."""
        if chunk.flags & _WHOLE == _WHOLE:
            message = Whole(chunk.stream_id, chunk.protocol, chunk.user_data)
            return self._hand_on(position, chunk, message, pieces=1, held=False)
        self.pieces += 1
        self.size += len(chunk.user_data)
        run = self._joined(position, chunk)
        if not run.is_whole:
            return []
        self._forget(run)
        message = Whole(chunk.stream_id, run.chunks[-1].protocol, _data(run))
        return self._hand_on(position, chunk, message, pieces=len(run.chunks), held=True)

    def passed(self, position: int) -> None:
        """All TSNs up to this one have come, or never will."""
        at = self._passed + 1
        if position < at:
            return
        tail, self._passed = self._tail, position
        if tail is not None and tail.last < position:
            self._drop(tail)  # what follows is no part of it
        if self._by_first:
            # A jump over many TSNs at once (RFC 3758) meets no more runs than there are.
            if position - at > len(self._by_first):
                runs = [run for run in self._by_first.values() if run.first <= position]
            else:
                runs = [self._by_first[n] for n in range(at, position + 1) if n in self._by_first]
            for run in runs:
                if run.last < position or not run.begins:
                    self._drop(run)
        self._tail = self._by_last.get(position)

    def skip(self, stream_id: int, sequence: int) -> list[Whole]:
        """The peer gives up messages of a stream up to this one; the messages to hand on."""
        due = self._stream(stream_id).skip(sequence)
        self._let_go(due)
        return due

    def _stream(self, stream_id: int) -> InboundStream:
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.streams[stream_id] = InboundStream()
        return stream

    def _hand_on(
        self, position: int, chunk: DataChunk, message: Whole, *, pieces: int, held: bool
    ) -> list[Whole]:
        if held:
            self.pieces -= pieces
            self.size -= len(message.data)
        if chunk.flags & SCTP_DATA_UNORDERED:
            return [message]
        due = self._stream(chunk.stream_id).put(chunk.stream_seq, position, message)
        if not due:
            self.pieces += 1
            self.size += len(message.data)
        elif len(due) > 1:
            self._let_go(due[1:])
        return due

    def _let_go(self, messages: list[Whole]) -> None:
        self.pieces -= len(messages)
        self.size -= sum(len(message.data) for message in messages)

    def _joined(self, position: int, chunk: DataChunk) -> _Run:
        """The run that a piece belongs to, or makes of two."""
        before = self._by_last.get(position - 1)
        if before is not None and _go_together(before.chunks[-1], chunk):
            del self._by_last[position - 1]
            before.chunks.append(chunk)
            run = before
        else:
            run = _Run(position, chunk)
            self._by_first[position] = run
        run.last = position
        after = self._by_first.get(position + 1)
        if after is not None and _go_together(chunk, after.chunks[0]):
            del self._by_first[position + 1]
            if len(after.chunks) > len(run.chunks):  # each piece is moved a few times at most
                after.chunks.extendleft(reversed(run.chunks))
                after.first = run.first
                self._by_first[run.first] = after
                if self._tail is run:
                    self._tail = after
                return after
            run.chunks.extend(after.chunks)
            run.last = after.last
        self._by_last[run.last] = run
        return run

    def _forget(self, run: _Run) -> None:
        del self._by_first[run.first], self._by_last[run.last]
        if run is self._tail:
            self._tail = None

    def _drop(self, run: _Run) -> None:
        self._forget(run)
        self.pieces -= len(run.chunks)
        self.size -= sum(len(chunk.user_data) for chunk in run.chunks)


def _data(run: _Run) -> bytes:
    return b"".join([chunk.user_data for chunk in run.chunks])


def _go_together(one: DataChunk, next_: DataChunk) -> bool:
    """Whether the second continues the message of the first."""
    return (
        not one.flags & SCTP_DATA_LAST_FRAG
        and not next_.flags & SCTP_DATA_FIRST_FRAG
        and one.stream_id == next_.stream_id
        and one.stream_seq == next_.stream_seq
        and (one.flags ^ next_.flags) & SCTP_DATA_UNORDERED == 0
    )
