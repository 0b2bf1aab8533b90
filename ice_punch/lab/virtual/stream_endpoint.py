"""One end of a TCP connection, RFC 9293, without I/O.

There are no options: both ends send segments of the MSS they were made with. There is no half-close
either: when the peer has sent FIN, this end does so too as soon as its own data is out.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

from ice_punch.datagram import Address
from ice_punch.lab.links import MINIMUM_MTU
from ice_punch.lab.virtual.segment import HEADERS, SEQUENCE_SPACE, WINDOW, Segment, expand
from ice_punch.lab.virtual.stream_control import (
    RTO_AFTER_LOST_SYN,
    CongestionControl,
    RetransmissionTimeout,
)
from ice_punch.lab.virtual.stream_events import Closed, Connected, DataReceived, StreamEvent

DEFAULT_MSS: Final = 1200
SEND_BUFFER: Final = 256 * 1024
"""Bytes that the peer has yet to acknowledge."""

SYN_SENDS: Final = 6
"""At 0, 1, 3, 7, 15 and 31 s; at 63 s it is over."""
GIVE_UP_AFTER: Final = 100.0
"""Seconds without any progress: R2 of RFC 9293 section 3.8.3."""
TIME_WAIT: Final = 60.0
"""Seconds: two maximum segment lifetimes, and how long a FIN is waited for."""
CHALLENGE_INTERVAL: Final = 0.5
"""Seconds between two acknowledgements of empty segments that make no sense (RFC 5961 section 7),
lest two ends that disagree acknowledge each other for ever."""


class StreamState(StrEnum):
    """RFC 9293 section 3.3.2. ``ESTABLISHED`` includes the states in which FINs are exchanged."""

    SYN_SENT = "syn-sent"
    SYN_RECEIVED = "syn-received"
    ESTABLISHED = "established"
    TIME_WAIT = "time-wait"
    CLOSED = "closed"


_OPENING: Final = (StreamState.SYN_SENT, StreamState.SYN_RECEIVED)


class StreamEndpoint:
    """A connection as one of its ends sees it. ``StreamStack`` makes it.

    Sequence numbers are unbounded in here and cut to 32 bits on the wire.
    """

    def __init__(
        self,
        local: Address,
        remote: Address,
        initial_sequence: int,
        events: deque[StreamEvent],
        *,
        syn: Segment | None = None,
        mss: int = DEFAULT_MSS,
    ) -> None:
        """``syn`` is what the peer opened the connection with; without it this end opens it."""
        self.local = local
        self.remote = remote
        self.mss = mss
        self.accepted = syn is not None
        """Whether the peer opened it."""
        self.state = StreamState.SYN_RECEIVED if self.accepted else StreamState.SYN_SENT
        self.retransmissions = 0
        """Segments that held something which had been sent before."""
        self._events = events
        self._outgoing: list[Segment] = []
        self._closing = False
        self._told_end = False

        self._iss = self._una = self._nxt = self._sent = initial_sequence
        # SYN is at ISS. The buffer begins at SND.UNA, or right after SYN. FIN comes after it.
        # ``_sent`` is the end of what was ever sent; a timeout takes SND.NXT back.
        self._buffer = bytearray()
        self._fin: int | None = None

        self._rcv_nxt = 0 if syn is None else syn.seq + 1
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self._peer_fin: int | None = None
        self._peer_closed = False
        self._ack_due = False
        self._next_challenge_at = float("-inf")

        self._timer: float | None = None
        self._timeout = RetransmissionTimeout()
        self._timeouts = 0
        self._progress_at = 0.0
        self._congestion = CongestionControl(mss, initial_sequence)

    def __repr__(self) -> str:
        return f"<StreamEndpoint {self.local} -> {self.remote} {self.state}>"

    # -- its user -----------------------------------------------------------------------------

    @property
    def unacknowledged(self) -> int:
        """Bytes that are queued or out."""
        return len(self._buffer)

    def send(self, data: bytes) -> bool:
        """Queue all of ``data``, also before the connection stands. False, and nothing is queued,
        if the buffer has no room for it or the connection is at its end."""
        over = self._closing or self.state in (StreamState.TIME_WAIT, StreamState.CLOSED)
        if over or len(self._buffer) + len(data) > SEND_BUFFER:
            return False
        self._buffer += data
        return True

    def close(self) -> None:
        """Send what is queued, then FIN. What the peer still says is thrown away."""
        self._closing = True
        if self.state is StreamState.SYN_SENT:
            self._end("closed")

    def abort(self) -> None:
        """End with RST."""
        if self.state in (StreamState.SYN_RECEIVED, StreamState.ESTABLISHED):
            self._outgoing.append(self._segment(self._sent, rst=True))
        self._end("reset")

    # -- the network --------------------------------------------------------------------------

    def receive_segment(self, segment: Segment, now: float) -> None:
        """RFC 9293 section 3.10.7."""
        if self.state is StreamState.CLOSED:
            return
        if self.state is StreamState.SYN_SENT:
            self._receive_in_syn_sent(segment, now)
            return
        seq = expand(segment.seq, self._rcv_nxt)
        end = seq + segment.length
        crossed = (
            self.state is StreamState.SYN_RECEIVED and segment.syn and seq == self._rcv_nxt - 1
        )
        if crossed and not segment.ack:
            self._nxt = self._iss  # the peer has not heard our SYN: send it again
            return
        beyond = seq >= self._rcv_nxt + WINDOW
        before = end <= self._rcv_nxt if segment.length else seq < self._rcv_nxt
        if (beyond or before) and not crossed:
            if segment.length:
                self._ack_due = True
            elif not segment.rst:
                self._challenge(now)
        elif segment.rst:
            if seq == self._rcv_nxt:
                opened = self.state is StreamState.SYN_RECEIVED
                self._end("refused" if opened else "reset")
            else:
                self._challenge(now)  # RFC 5961 section 3
        elif segment.syn and not crossed:
            self._challenge(now)  # RFC 5961 section 4: a peer that has restarted will reset
        elif segment.ack and self._receive_ack(segment, now):
            self._receive_payload(seq + segment.syn, segment, now)

    def _receive_in_syn_sent(self, segment: Segment, now: float) -> None:
        """RFC 9293 section 3.10.7.3."""
        acknowledged = segment.ack and expand(segment.ack_number, self._iss) == self._iss + 1
        if segment.rst:
            if acknowledged:
                self._end("refused")
        elif segment.ack and not acknowledged:
            self._outgoing.append(Segment(segment.ack_number, rst=True))
        elif segment.syn:
            self._rcv_nxt = segment.seq + 1
            if acknowledged:
                self._ack_due = True
                self._receive_ack(segment, now)
                self._receive_payload(self._rcv_nxt, segment, now)
            else:  # both have opened: section 3.5, figure 7
                self.state = StreamState.SYN_RECEIVED
                self._nxt = self._iss

    def _receive_ack(self, segment: Segment, now: float) -> bool:
        """False if the rest of the segment is not to be looked at."""
        ack = expand(segment.ack_number, self._una)
        if self.state is StreamState.SYN_RECEIVED and not self._una < ack <= self._sent:
            self._outgoing.append(Segment(segment.ack_number, rst=True))
            return False
        if ack > self._sent:
            self._challenge(now)
            return False
        if ack > self._una:
            self._advance(ack, now)
        elif (
            ack == self._una < self._sent
            and not segment.length
            and self._congestion.duplicate_ack(ack, self._sent)
        ):
            self._resend_first(now)
        return True

    def _advance(self, ack: int, now: float) -> None:
        """More than before is acknowledged."""
        if self.state in _OPENING:
            self.state = StreamState.ESTABLISHED
            if self._timeouts:
                self._timeout.seconds = RTO_AFTER_LOST_SYN
            self._events.append(Connected(self))
        self._timeout.acknowledged(ack, now)
        newly = ack - self._una
        del self._buffer[: ack - max(self._una, self._iss + 1)]
        self._una = ack
        self._nxt = max(self._nxt, ack)
        self._timeouts = 0
        self._progress_at = now
        self._timer = now + self._timeout.seconds if self._sent > ack else None
        if self._congestion.acknowledged(ack, newly):
            self._resend_first(now)
        if self._fin is not None and ack > self._fin:
            self._timer = now + TIME_WAIT
            self._finish(now)

    def _receive_payload(self, seq: int, segment: Segment, now: float) -> None:
        if not segment.payload and not segment.fin:
            return
        if segment.fin:
            self._peer_fin = seq + len(segment.payload)
        if seq > self._rcv_nxt:
            # RFC 5681 section 4.2: at once, and one for each
            self._outgoing.append(self._segment(self._sent))
            self._keep(seq, segment.payload)
            return
        self._ack_due = True
        self._take(seq, segment.payload)
        while self._early and (first := min(self._early)) <= self._rcv_nxt:
            payload = self._early.pop(first)
            self._early_bytes -= len(payload)
            self._take(first, payload)
        if self._peer_fin == self._rcv_nxt:
            self._rcv_nxt += 1
            self._peer_closed = True
            if not self._closing:
                self._closing = True
                self._tell_end("closed")
            self._finish(now)

    def _take(self, seq: int, payload: bytes) -> None:
        fresh = payload[self._rcv_nxt - seq :]
        self._rcv_nxt += len(fresh)
        if fresh and not self._closing:
            self._events.append(DataReceived(self, fresh))

    def _keep(self, seq: int, payload: bytes) -> None:
        if payload and seq not in self._early and self._early_bytes + len(payload) <= WINDOW:
            self._early[seq] = payload
            self._early_bytes += len(payload)

    def receive_unreachable(self) -> None:
        """ICMP says that the peer can not be reached: the end of an attempt, and for a connection
        that stands no more than a hint (RFC 5927 section 6.1)."""
        if self.state in _OPENING:
            self._end("unreachable")

    def receive_too_big(self, mtu: int) -> None:
        """ICMP says that a link on the way carries packets of no more than ``mtu`` bytes: what is
        out is sent again in smaller segments (RFC 1191 section 6.5)."""
        headers = HEADERS + 20 if ":" in self.remote[0] else HEADERS
        if self.state is StreamState.ESTABLISHED and MINIMUM_MTU <= mtu < self.mss + headers:
            self.mss = mtu - headers
            self._nxt = self._una

    # -- time ---------------------------------------------------------------------------------

    def get_timer(self) -> float | None:
        return self._timer

    def handle_timer(self, now: float) -> None:
        if self._timer is None or now < self._timer:
            return
        self._timeouts += 1
        if self._fin is not None and self._una > self._fin:
            self._end("closed")
        elif self._tried_enough(now):
            self._end("timeout")
        else:
            if self.state in _OPENING:
                self._congestion.syn_timed_out()
            else:
                self._congestion.timed_out(self._una, self._sent)
            self._nxt = self._una
            self._timeout.back_off()
            self._timer = now + self._timeout.seconds

    def _tried_enough(self, now: float) -> bool:
        if self.state in _OPENING:
            return self._timeouts == SYN_SENDS
        return now >= self._progress_at + GIVE_UP_AFTER

    # -- what leaves --------------------------------------------------------------------------

    def segments_to_send(self, now: float) -> list[Segment]:
        if self.state in _OPENING and self._nxt == self._iss:
            self._emit(self._iss, b"", now, syn=True)
            self._nxt += 1
        elif self.state is StreamState.ESTABLISHED:
            self._send_data(now)
        if self._ack_due:
            self._outgoing.append(self._segment(self._sent))
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _send_data(self, now: float) -> None:
        if self._fin is not None and self._una > self._fin:
            return
        end = self._una + len(self._buffer)
        allowed = self._una + min(self._congestion.window, WINDOW)
        while self._nxt < end or (self._closing and self._nxt == end):
            wanted = min(self.mss, end - self._nxt)
            size = min(wanted, max(allowed - self._nxt, 0))
            if size < wanted and self._nxt > self._una:
                return  # no silly windows: RFC 9293 section 3.8.6.2.1
            fin = self._closing and self._nxt + size == end
            self._emit(self._nxt, self._unsent(self._nxt, size), now, fin=fin)
            self._nxt += size + fin

    def _resend_first(self, now: float) -> None:
        end = self._una + len(self._buffer)
        size = min(self.mss, len(self._buffer))
        fin = self._fin is not None and self._una + size == end
        self._emit(self._una, self._unsent(self._una, size), now, fin=fin)

    def _unsent(self, seq: int, size: int) -> bytes:
        offset = seq - self._una
        return bytes(self._buffer[offset : offset + size])

    def _emit(
        self, seq: int, payload: bytes, now: float, *, syn: bool = False, fin: bool = False
    ) -> None:
        segment = self._segment(seq, payload, syn=syn, fin=fin)
        end = seq + segment.length
        if fin:
            self._fin = end - 1
        if seq < self._sent:
            self.retransmissions += 1
            self._timeout.sent_again(seq)
        else:
            self._timeout.sent(end, now)
        self._sent = max(self._sent, end)
        if self._timer is None:
            self._timer = now + self._timeout.seconds
            self._progress_at = now
        self._outgoing.append(segment)

    def _segment(
        self,
        seq: int,
        payload: bytes = b"",
        *,
        syn: bool = False,
        fin: bool = False,
        rst: bool = False,
    ) -> Segment:
        if self.state is StreamState.SYN_SENT:
            return Segment(seq % SEQUENCE_SPACE, syn=syn)
        self._ack_due = False
        return Segment(
            seq % SEQUENCE_SPACE,
            self._rcv_nxt % SEQUENCE_SPACE,
            payload,
            syn=syn,
            ack=True,
            fin=fin,
            rst=rst,
        )

    def _challenge(self, now: float) -> None:
        if now >= self._next_challenge_at:
            self._next_challenge_at = now + CHALLENGE_INTERVAL
            self._ack_due = True

    # -- the end ------------------------------------------------------------------------------

    def _finish(self, now: float) -> None:
        """Once both FINs have arrived: TIME-WAIT for whoever did not wait for the other's."""
        if self._fin is None or self._una <= self._fin or not self._peer_closed:
            return
        if self._told_end:
            self._end("closed")
        else:
            self.state = StreamState.TIME_WAIT
            self._timer = now + TIME_WAIT
            self._tell_end("closed")

    def _tell_end(self, reason: str) -> None:
        unknown = self.accepted and self.state is StreamState.SYN_RECEIVED
        if not self._told_end and not unknown:
            self._told_end = True
            self._events.append(Closed(self, reason))

    def _end(self, reason: str) -> None:
        self._tell_end(reason)
        self.state = StreamState.CLOSED
        self._timer = None
        self._ack_due = False
        self._buffer.clear()
        self._early.clear()
