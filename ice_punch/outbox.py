"""Datagrams on their way out: what is sent in one turn of the event loop leaves together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from ice_punch.batches import as_bytes_of_views, size_of_each
from ice_punch.datagram import Buffer
from ice_punch.errors import DatagramTooLarge, InvalidConfiguration
from ice_punch.net.clock import clock_of
from ice_punch.net.udp.offload import MAX_BYTES, MAX_SEGMENTS
from ice_punch.pacing import TokenBucket

SEND_QUEUE = 1024
"""Datagrams held while the kernel or the pacing rate lets none go."""
LEAST_LIFE = 0.001
"""Seconds for which any datagram lives: those that are sent in one turn leave at its end."""
PART = 256
"""Datagrams that ``send_many`` takes in at a time, if the queue is not too short for that."""
SAME_TURN = 0.004
"""Seconds after which the event loop has come to another turn, as far as it matters here: where it
has not, a datagram leaves by itself that could have left with others."""
YIELD_AFTER = 256
"""Datagrams that ``send`` takes in a row before it lets other tasks run. What they cost in a batch
is a quarter of that."""

Sink = Callable[[Sequence[Buffer], Sequence[int]], int]
"""Sends datagrams, of so many bytes each, in order, and returns how many it has dealt with; the
rest waits for ``resume``."""


SinkAlike = Callable[[Sequence[Buffer], int, bytes | None], int]
"""The same for datagrams of so many bytes each; the last argument has them back to back, or None.
"""


class _Perishable(NamedTuple):
    data: bytes
    expires_at: float


def _data_of(entry: bytes | _Perishable) -> bytes:
    return entry.data if isinstance(entry, _Perishable) else entry


class Outbox:
    """Collects datagrams and gives them to a sink in as few calls as it can.

    The first datagram of a turn of the event loop leaves at once, those that follow in the same
    turn together: when there are as many as the kernel takes at a time, or at the end of the turn.
    What can not leave waits in a bounded queue.

    To learn of the end of a turn costs another one. So nobody asks for it after a datagram that
    seems to be alone: none was sent for a while, or this is a new turn because something came in.
    Only the next one that is sent at once after it is held until the end of the turn, which may be
    the same.
    """

    def __init__(
        self,
        sink: Sink,
        raise_end: Callable[[], None],
        *,
        capacity: int = SEND_QUEUE,
        newest_wins: bool = False,
        sink_one: Callable[[bytes], bool] | None = None,
        sink_alike: SinkAlike | None = None,
    ) -> None:
        """``raise_end`` raises what there is to raise where ``limit`` is below zero. ``sink_one``
        is ``sink`` for one datagram, with fewer steps: False where it has to wait; ``sink_alike``
        for many of one size."""
        if capacity < 1:
            raise InvalidConfiguration(f"a queue of {capacity} datagrams holds nothing")
        self.limit = -1
        """Bytes: the largest datagram taken. Below zero: none, for nothing can be sent."""
        self.new_turn = False
        """Set by whoever knows that nothing was sent in this turn of the event loop."""
        self.newest_wins = newest_wins
        """A full queue drops the oldest datagram in place of the newest."""
        self.sent = self.sent_bytes = 0
        """What the sink has dealt with."""
        self.expired = 0
        self.dropped_full = 0
        """Dropped because the queue was full: the newest, or with ``newest_wins`` the oldest."""
        self.too_large = 0
        """Dropped because the limit fell below them while they waited."""
        self.abandoned = 0
        """Still in the queue when the end came."""
        self._sink = sink
        self._sink_one = sink_one
        self._sink_alike = sink_alike
        self._raise_end = raise_end
        self._capacity = capacity
        self.part = max(1, min(PART, capacity // 2))
        """Datagrams that `room` has room for, once whoever waits for it goes on."""
        self._most_held = max(1, min(MAX_SEGMENTS, capacity // 2))
        """Datagrams held for the end of a turn. Past half of the queue nobody would know in time
        that it has to wait."""
        self._loop = asyncio.get_running_loop()
        self._clock = clock_of(self._loop)
        self._queue: list[bytes | _Perishable] = []
        self._perishable = 0
        self._narrowed = False
        """Whether the limit fell since the queue was empty."""
        self._full = 1
        """Datagrams in the queue with which something has to be done."""
        self._full_for = -1
        """Bytes of the datagrams that this was worked out for."""
        self._in_turn = False
        self._alone = False
        """Whether the last datagram was taken to be alone in its turn."""
        self._new_turn_at = float("-inf")
        """When it is another turn for sure, if none was sent until then."""
        self._blocked = False
        self._giving = False
        self._streak = 0
        self._bucket: TokenBucket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []

    # -- in -----------------------------------------------------------------------------------

    def put(self, data: Buffer) -> None:
        """Take one datagram. Raises DatagramTooLarge, or what ``raise_end`` raises."""
        if type(data) is not bytes:
            data = bytes(data)
        if len(data) > self.limit:
            self._refuse(data)
        if not self._in_turn:
            self._begin_turn(data)
            return
        queue = self._queue
        queue.append(data)
        if len(queue) >= self._full:
            self.flush()
            self._bound()

    def put_until(self, data: Buffer, expires_in: float) -> None:
        """``put`` for a datagram that is not worth sending later than ``expires_in`` s from now."""
        data = bytes(data)
        if len(data) > self.limit:
            self._refuse(data)
        if not expires_in >= 0:
            self.expired += 1
            return
        self._perishable += 1
        expires_at = self._loop.time() + max(expires_in, LEAST_LIFE)
        entry = _Perishable(data, expires_at)
        if not self._in_turn:
            self._begin_turn(entry)
            return
        self._queue.append(entry)
        if len(self._queue) >= self._full:
            self.flush()
            self._bound()

    def put_many(self, datagrams: Sequence[Buffer]) -> None:
        """Take datagrams in order, or none of them. Raises as ``put``."""
        size = size_of_each(datagrams)
        if size and self._sink_alike is not None:
            self.put_alike(datagrams, size)
            return
        datagrams = as_bytes_of_views(datagrams)
        sizes = list(map(len, datagrams))
        if not sizes:
            return
        largest = max(sizes)
        if largest > self.limit:
            self._refuse(datagrams[sizes.index(largest)])
        if not self._queue and not self._stuck and self._bucket is None:
            done = self._give(datagrams, sizes)
            if done == len(sizes):
                return
            datagrams = datagrams[done:]
        self._queue += [d if type(d) is bytes else bytes(d) for d in datagrams]
        self.flush()
        self._bound()

    def put_alike(
        self, datagrams: Sequence[Buffer], size: int, joined: bytes | None = None
    ) -> None:
        """``put_many`` for datagrams of ``size`` bytes each, one at least, and the same back to
        back if the caller has them so."""
        if size > self.limit:
            self._refuse(datagrams[0])
        if not self._queue and not self._stuck and self._bucket is None:
            done = self._give_alike(datagrams, size, joined)
            if done == len(datagrams):
                return
            datagrams = datagrams[done:]
        self._queue += cast(Sequence[bytes], datagrams)
        self.flush()
        self._bound()

    def _begin_turn(self, entry: bytes | _Perishable) -> None:
        now = self._clock()
        alone = now >= self._new_turn_at
        if self.new_turn:
            self.new_turn, self._streak, alone = False, 0, True
        perhaps_second = self._alone and not alone
        self._new_turn_at = now + SAME_TURN
        free = not self._queue and not self._blocked and self._bucket is None
        if free and not perhaps_second and type(entry) is bytes and self._give_one(entry):
            self._alone = alone
            if alone:
                # Whoever it woke may have had the processor since.
                self._new_turn_at = self._clock() + SAME_TURN
            else:
                self._in_turn = True
                self._loop.call_soon(self._end_turn)
            return
        self._alone = False
        self._in_turn = True
        self._loop.call_soon(self._end_turn)
        self._queue.append(entry)
        if len(self._queue) == 1 and (self._full == 1 or not perhaps_second):
            self.flush()
        self._bound()

    def _refuse(self, data: Buffer) -> None:
        if self.limit < 0:
            self._raise_end()
        raise DatagramTooLarge(len(data), max(0, self.limit))

    # -- out ----------------------------------------------------------------------------------

    def _end_turn(self) -> None:
        self._in_turn = False
        self._streak = 0
        if self._queue:
            self.flush()

    def flush(self) -> None:
        """Send what may be sent, without waiting for the end of the turn."""
        if self._blocked or self._giving or not self._queue:
            return
        if self._perishable:
            self._drop_expired()
        if self._narrowed and self.limit >= 0:
            self._drop_too_large()
        queue = self._queue
        if self._perishable:
            ready = [e.data if isinstance(e, _Perishable) else e for e in queue]
        else:
            ready = cast(list[bytes], queue)
        if self._bucket is not None:
            ready = ready[: self._affordable(ready, self._bucket)]
        done = self._give(ready, list(map(len, ready))) if ready else 0
        if self._perishable:
            self._perishable -= sum(isinstance(entry, _Perishable) for entry in queue[:done])
        del queue[:done]
        if queue and not self._blocked:
            self._wait_for_tokens()
        if self._waiting and not self.congested:
            self.wake()

    def _give(self, datagrams: Sequence[Buffer], sizes: Sequence[int]) -> int:
        """Have the sink deal with datagrams; how many it has."""
        if self._giving:
            return 0
        self._giving = True
        try:
            done = self._sink(datagrams, sizes)
        finally:
            self._giving = False
        self._blocked = done < len(sizes)
        size = sum(sizes[:done] if self._blocked else sizes)
        self.sent += done
        self.sent_bytes += size
        if self._bucket is not None:
            self._bucket.spend(size)
        # The next ones had better fit one packet of the kernel's with room for a record's header.
        self._full_for = sizes[0]
        self._full = max(1, min(self._most_held, MAX_BYTES // (sizes[0] + 40)))
        return done

    def _give_one(self, data: bytes) -> bool:
        """``_give`` for one datagram, while nothing paces."""
        size = len(data)
        if self._sink_one is None:
            return self._give((data,), (size,)) == 1
        if self._giving:
            return False
        self._giving = True
        try:
            taken = self._sink_one(data)
        finally:
            self._giving = False
        if not taken:
            self._blocked = True
            return False
        self.sent += 1
        self.sent_bytes += size
        if size != self._full_for:
            self._full_for = size
            self._full = max(1, min(self._most_held, MAX_BYTES // (size + 40)))
        return True

    def _give_alike(self, datagrams: Sequence[Buffer], size: int, joined: bytes | None) -> int:
        """``_give`` for datagrams of ``size`` bytes each."""
        if self._sink_alike is None:
            return self._give(datagrams, [size] * len(datagrams))
        if self._giving:
            return 0
        self._giving = True
        try:
            done = self._sink_alike(datagrams, size, joined)
        finally:
            self._giving = False
        self._blocked = done < len(datagrams)
        self.sent += done
        self.sent_bytes += done * size
        if self._bucket is not None:
            self._bucket.spend(done * size)
        if size != self._full_for:
            self._full_for = size
            self._full = max(1, min(self._most_held, MAX_BYTES // (size + 40)))
        return done

    def resume(self) -> None:
        """The sink takes datagrams again, or another one may."""
        self._blocked = False
        self.flush()

    def _bound(self) -> None:
        """Keep the queue within its capacity."""
        queue = self._queue
        if not self._stuck:
            return
        self._full, self._full_for = self._capacity + 1, -1
        if len(queue) > self._capacity and self._perishable:
            self._drop_expired()
            queue = self._queue
        excess = len(queue) - self._capacity
        if excess > 0:
            doomed = slice(0, excess) if self.newest_wins else slice(self._capacity, None)
            self._perishable -= sum(isinstance(entry, _Perishable) for entry in queue[doomed])
            del queue[doomed]
            self.dropped_full += excess

    def _drop_expired(self) -> None:
        now = self._loop.time()
        kept = [e for e in self._queue if not isinstance(e, _Perishable) or e.expires_at >= now]
        gone = len(self._queue) - len(kept)
        self.expired += gone
        self._perishable -= gone
        self._queue = kept

    def set_limit(self, limit: int) -> None:
        """Another `limit`. What waits and is larger is dropped when its turn to leave comes: until
        then the limit may have grown again."""
        if self._queue and 0 <= limit < self.limit:
            self._narrowed = True
        self.limit = limit

    def _drop_too_large(self) -> None:
        self._narrowed = False
        kept = [e for e in self._queue if len(_data_of(e)) <= self.limit]
        self.too_large += len(self._queue) - len(kept)
        self._perishable = sum(isinstance(entry, _Perishable) for entry in kept)
        self._queue = kept

    # -- pacing -------------------------------------------------------------------------------

    @property
    def pacing_rate(self) -> float | None:
        """Bytes a second that may leave; None: as fast as the kernel takes them."""
        return None if self._bucket is None else self._bucket.rate

    @pacing_rate.setter
    def pacing_rate(self, rate: float | None) -> None:
        if rate is not None and not 0 < rate <= sys.float_info.max:
            raise InvalidConfiguration(f"{rate} bytes a second is no rate")
        if rate is None:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = TokenBucket(rate, self._loop.time())
        else:
            self._bucket.change(rate, self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()

    def _affordable(self, datagrams: Sequence[Buffer], bucket: TokenBucket) -> int:
        """How many may leave by the pacing rate."""
        tokens = bucket.available(self._loop.time())
        for number, data in enumerate(datagrams):
            if tokens <= 0:
                return number
            tokens -= len(data)
        return len(datagrams)

    def _wait_for_tokens(self) -> None:
        if self._timer is None and self._bucket is not None:
            due = self._bucket.next_at(self._loop.time())
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    # -- waiting ------------------------------------------------------------------------------

    @property
    def _stuck(self) -> bool:
        return self._blocked or self._timer is not None

    @property
    def congested(self) -> bool:
        """Whether whoever can wait had better do so."""
        return self._stuck and not self.newest_wins and 2 * len(self._queue) >= self._capacity

    @property
    def queued(self) -> int:
        """Datagrams that have yet to leave."""
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        return sum(len(_data_of(entry)) for entry in self._queue)

    def must_wait(self) -> bool:
        """Whether it takes ``room(0)`` to take in one more datagram."""
        self._streak += 1
        return self._blocked or self._timer is not None or self._streak >= YIELD_AFTER

    def welcome(self, count: int) -> bool:
        """Whether a batch of ``count`` more datagrams may be put now; if not, `room` waits."""
        self._streak += -(-count // 4)
        return self._streak < YIELD_AFTER and not (self._queue and self.congested)

    async def room(self, count: int = 1) -> None:
        """Return when ``count`` more datagrams are welcome; every so often let other tasks run."""
        self._streak += count
        if self._streak >= YIELD_AFTER:
            self._streak = 0
            await asyncio.sleep(0)
        while self.congested and self.limit >= 0:
            await self._woken()

    async def drain(self) -> None:
        """Return when everything has left, or nothing can leave any more."""
        while self._queue and self.limit >= 0:
            if not self._stuck:
                await asyncio.sleep(0)
                continue
            await self._woken()

    async def _woken(self) -> None:
        waiting = self._loop.create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    def wake(self) -> None:
        """Let whoever waits for room look again."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Nothing can leave any more; what still waits is dropped and counted."""
        self.limit = -1
        self.abandoned += len(self._queue)
        self._queue.clear()
        self._perishable = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake()
