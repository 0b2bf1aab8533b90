"""The data of an association beside the calls of its contract: many at a time, or in few steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from OpenSSL import SSL

from ice_punch.datagram import Buffer
from ice_punch.dtls.events import DtlsCounters
from ice_punch.dtls.segments import Segments
from ice_punch.dtls.traffic import Traffic, cut_apart
from ice_punch.errors import ChannelClosed


class Bulk(ABC):
    """What an association does with data where that is not told as events, nor held until it is
    asked for."""

    counters: DtlsCounters
    _traffic: Traffic | None
    """None unless the association is open."""

    @abstractmethod
    def _not_open(self) -> ChannelClosed:
        """Why there is no traffic."""

    @abstractmethod
    def _broken(self, error: SSL.Error) -> ChannelClosed:
        """Close after an error of OpenSSL's in the middle of sending."""

    @abstractmethod
    def _receive_other(self, datagram: bytes, now: float) -> list[bytes]:
        """Take a datagram of any kind; what of it is for the application."""

    def encrypt_one(self, data: Buffer, into: bytearray | None = None) -> Buffer:
        """`encrypt_many` for one datagram. The record is valid until ``into`` is used again."""
        traffic = self._traffic
        if traffic is None:
            raise self._not_open()
        try:
            record = traffic.encrypt_one(data, into)
        except SSL.Error as error:
            raise self._broken(error) from error
        self.counters.datagrams_sent += 1
        return record

    def decrypt_alone(self, buffer: bytearray, size: int, now: float) -> bytes | None:
        """`decrypt_many` for one datagram, the first ``size`` bytes of ``buffer``, where it may be
        a whole record of data: its content, or b"" if it has none for the application. Else None,
        and nothing was done."""
        traffic = self._traffic
        return None if traffic is None else traffic.decrypt_alone(buffer, size, now)

    def encrypt_many(
        self,
        datagrams: Sequence[Buffer],
        now: float,
        into: bytearray | None = None,
        *,
        each: int = 0,
    ) -> list[Segments]:
        """Encrypt datagrams and return what must go to the peer, in order, in place of `send`.

        Datagrams of one size in a row make one buffer, fit for UDP segmentation offload: a part of
        ``into``, if that has room for all and 256 bytes more, to be used again once they are sent,
        or else memory of their own. Whoever knows that they are all bytes objects of ``each`` bytes
        spares them being looked at. Raises what `send` raises, and then nothing is sent of any.
        """
        if not datagrams:
            return []
        traffic = self._traffic
        if traffic is None:
            raise self._not_open()
        try:
            if each:
                segments = traffic.encrypt_alike(datagrams, each, into)
            else:
                segments = traffic.encrypt(datagrams, into)
        except SSL.Error as error:
            raise self._broken(error) from error
        self.counters.datagrams_sent += len(datagrams)
        return segments

    def decrypt_many(self, datagrams: Sequence[Buffer], now: float) -> list[bytes]:
        """`receive_datagram` for many: what the application gets of them, in order.

        What else came of them `next_event` tells. It may take the application's datagrams to be
        older: they opened nothing, and after the end there are none.
        """
        if self._traffic is None or not datagrams:
            return [data for d in datagrams for data in self._receive_other(bytes(d), now)]
        return self._traffic.decrypt(datagrams, now)

    def decrypt_segments(self, buffer: Buffer, end: int, size: int, now: float) -> list[bytes]:
        """`decrypt_many` for datagrams of ``size`` bytes in the first ``end`` bytes of a buffer.

        The last may be shorter: as UDP receive offload hands them in.
        """
        if self._traffic is None or size <= 0:
            return self.decrypt_many(cut_apart(buffer, end, size), now)
        return self._traffic.decrypt_segments(buffer, end, size, now)
