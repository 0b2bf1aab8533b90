"""An end of a way for datagrams: what a plain connection and a channel have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from ice_punch.batches import as_sequence
from ice_punch.datagram import Buffer
from ice_punch.inbox import Inbox
from ice_punch.outbox import Outbox

LIKE_STUN = "a datagram that looks like STUN can not be told from it"


class DatagramEnd(ABC):
    """Sends and receives datagrams."""

    _inbox: Inbox
    _outbox: Outbox

    @abstractmethod
    def send_nowait(self, data: Buffer, *, expires_in: float | None = None) -> None:
        """Send one datagram, without waiting."""

    @abstractmethod
    def send_many_nowait(self, datagrams: Iterable[Buffer]) -> None:
        """``send_nowait`` for several, in order, or for none of them if one is refused."""

    @abstractmethod
    def _pace_kernel(self, rate: float | None) -> None:
        """Have the kernel spread packets too, where its queueing does that."""

    async def send(self, data: Buffer, *, expires_in: float | None = None) -> None:
        """``send_nowait``, once there is room: it waits while many datagrams are held, and every
        so often lets other tasks run. Raises the same."""
        if self._outbox.must_wait():
            await self._outbox.room(0)
        self.send_nowait(data, expires_in=expires_in)

    async def send_many(self, datagrams: Iterable[Buffer]) -> None:
        """``send_many_nowait``, a part at a time, each once there is room. Raises the same."""
        datagrams, outbox = as_sequence(datagrams), self._outbox
        size = outbox.part
        for start in range(0, len(datagrams), size):
            part = datagrams[start : start + size] if len(datagrams) > size else datagrams
            if not outbox.welcome(len(part)):
                await outbox.room(0)
            self.send_many_nowait(part)

    async def recv(self) -> bytes:
        """The next datagram.

        Raises ChannelClosed once the end has come, by whichever side, ConsentLost when the peer
        vanished, or another error that ended the session: each only after everything received
        before is read.
        """
        held = self._inbox.held
        return held.popleft() if held else await self._inbox.get()

    async def recv_many(self, limit: int | None = None) -> list[bytes]:
        """All datagrams that have come, at most ``limit``; waits for one. Raises as ``recv``."""
        return await self._inbox.get_many(limit)

    @property
    def pacing_rate(self) -> float | None:
        """Bytes of datagrams a second to spread what is sent to; None, as it begins, sends as fast
        as the kernel takes them. Raises InvalidConfiguration for a rate that is none."""
        return self._outbox.pacing_rate

    @pacing_rate.setter
    def pacing_rate(self, rate: float | None) -> None:
        self._outbox.pacing_rate = rate
        self._pace_kernel(rate)
