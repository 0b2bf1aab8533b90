"""The datagrams of a connection, for what is built on top of it: encryption, channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ice_punch.channel_stats import PathFigures
from ice_punch.data_path import SendLosses
from ice_punch.datagram import Buffer
from ice_punch.driver import AgentDriver, AloneHandler
from ice_punch.ice import CandidatePair
from ice_punch.inbox import Inbox
from ice_punch.outbox import Outbox
from ice_punch.path import PATH_MTU, headers


class Carrier:
    """The queues of a connection, and the path below them."""

    def __init__(
        self,
        driver: AgentDriver,
        inbox: Inbox,
        raise_end: Callable[[], None],
        *,
        send_queue: int,
        newest_wins: bool,
    ) -> None:
        """``raise_end`` raises what there is to raise where nothing can be sent."""
        self._driver = driver
        self.data = driver.data
        self._raise_end = raise_end
        self.inbox = inbox
        self.outbox = Outbox(
            self.data.send_many,
            raise_end,
            capacity=send_queue,
            newest_wins=newest_wins,
            sink_one=self.data.send_one,
            sink_alike=self.data.send_alike,
        )
        """What ``send`` fills."""
        self._on_path_changed: Callable[[], None] | None = None
        self._on_room: Callable[[], None] | None = None

    @property
    def max_datagram_size(self) -> int:
        """As of the connection."""
        limit = self.data.limit
        return limit if limit >= 0 else PATH_MTU - headers(None)

    @property
    def pair(self) -> CandidatePair | None:
        """The pair that data takes now."""
        return self.data.pair

    @property
    def figures(self) -> PathFigures:
        """Round trips, loss and MTU of the path that data takes now."""
        pair = self.data.pair
        if pair is None:
            return PathFigures()
        trip, loss = pair.round_trip, self.data.loss
        return PathFigures(
            rtt=trip.latest,
            rtt_smoothed=trip.smoothed,
            rtt_min=trip.minimum,
            loss=trip.loss if loss is None else loss,
            path_mtu=self.data.mtu,
        )

    @property
    def losses(self) -> SendLosses:
        """Datagrams that this host did not send."""
        return self.data.losses

    def set_batch_handler(
        self,
        handler: Callable[[Sequence[bytes], int], object],
        alone: AloneHandler | None = None,
    ) -> None:
        """Give datagrams, and how many bytes they have together, to ``handler`` instead of
        ``recv``; one that comes alone in its turn of the event loop may go to ``alone``, as of
        `set_segments_handler`."""
        self._driver.on_datagrams, self._driver.on_alone = handler, alone
        self.inbox.drain(lambda data: handler((data,), len(data)))

    def set_segments_handler(
        self,
        handler: Callable[[bytes | bytearray, int, int], None],
        alone: AloneHandler | None = None,
    ) -> None:
        """Give what is received to ``handler`` as it comes from the kernel: a buffer, how many of
        its bytes are datagrams back to back, and the bytes of each, of which the last may be
        shorter. The buffer is valid only during the call. STUN is not among them.

        ``alone`` gets a buffer, the bytes of a datagram in it, and the time, where that is the only
        one of a turn of the event loop, which called it, and which does nothing else after it."""
        self._driver.on_segments, self._driver.on_alone = handler, alone
        self.inbox.drain(lambda data: handler(data, len(data), len(data)))

    def set_path_handler(
        self, on_path: Callable[[], None], on_writable: Callable[[], None]
    ) -> None:
        """``on_path`` is called when `max_datagram_size` has changed, or there is no path any more;
        ``on_writable`` when it is no more `congested`."""
        self._on_path_changed, self._on_room = on_path, on_writable

    def set_kernel_pacing(self, rate: float | None) -> None:
        """Have the kernel spread packets too, where its queueing does that."""
        self.data.set_pacing_rate(rate)

    @property
    def joins(self) -> bool:
        """Whether datagrams of one size leave best back to back."""
        return self.data.joins

    @property
    def congested(self) -> bool:
        """Whether no datagram can leave now; those of ``send_record`` and ``send_segments`` are
        then held up to a bound, or dropped, and counted."""
        return self.data.congested

    def send_record(self, data: Buffer) -> None:
        """Send what a protocol above has made to fit; raises ChannelClosed or what ended the
        session."""
        if self.data.limit < 0:
            self._raise_end()
        if not self.data.send_one(data):
            self.data.send_whatever((data,))

    def send_segments(self, buffer: Buffer, size: int) -> None:
        """``send_record`` for datagrams of ``size`` bytes that lie back to back in ``buffer``; the
        last may be shorter. ``buffer`` may be used again once this returns. With UDP segmentation
        offload it goes to the kernel as it is."""
        if self.data.limit < 0:
            self._raise_end()
        done = self.data.send_segments(buffer, size)
        if done < len(buffer):
            rest = memoryview(buffer)[done:]
            self.data.send_whatever([rest[n : n + size] for n in range(0, len(rest), size)])

    def path_changed(self) -> None:
        """Another path takes the datagrams, another size fits it, or there is none any more."""
        self.outbox.set_limit(self.data.limit)
        if self.data.limit < 0:
            self.outbox.wake()
        if self._on_path_changed is not None:
            self._on_path_changed()

    def path_writable(self) -> None:
        """Datagrams can leave again."""
        self.outbox.resume()
        if self._on_room is not None:
            self._on_room()
