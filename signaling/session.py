"""The client's side of a session: counters, replay, keep-alive. Sans-IO.

One :class:`ClientSession` outlives its connections. Two counters make that exact. Signals are
numbered and kept until the server says it processed them; what the server sends is numbered too,
taken once and in order, and everything after the last number taken is replayed on a new connection.
"""

from __future__ import annotations

from collections import deque

from signaling.errors import ClientClosed, InvalidMessage, MessageTooLarge
from signaling.events import (
    Acknowledged,
    Event,
    IceServersChanged,
    Peer,
    PeerAway,
    PeerBack,
    PeerJoined,
    PeerLeft,
    Resumed,
    SignalReceived,
    Unavailable,
    Welcomed,
)
from signaling.messages import (
    VERSION,
    AskIce,
    Drain,
    Error,
    FreshIce,
    Hello,
    Kind,
    Leave,
    Outcome,
    PeerInfo,
    PeerNotice,
    Ping,
    Pong,
    Relayed,
    ReportOutcome,
    Resume,
    SendSignal,
    SeqAck,
    SignalAck,
    Welcome,
    byte_length,
    decode_server_message,
    encode,
)
from signaling.messages import Resumed as ResumedMessage

WINDOW = 64
"""Signals the server has not yet confirmed."""
ACK_EVERY = 16
ANSWER_TIMEOUT = 10.0
"""Seconds without a word from the server while a signal waits for its confirmation."""
SILENT_PINGS = 2.5
"""Ping intervals without a word from the server."""


class ClientSession:
    """A place in ``room``. ``meta`` is a note to the other peers, ``token`` the right to enter.

    ``max_peers`` is how many seats the room gets if we come first.

    The shell reports connections with :meth:`connection_made` and :meth:`connection_lost`, hands
    each frame to :meth:`receive`, sends what :meth:`frames_to_send` gives, and drops the connection
    when :attr:`fault` says why.
    """

    def __init__(
        self, room: str, *, meta: str = "", max_peers: int | None = None, token: str = ""
    ) -> None:
        self.room = room
        self.token = token
        self.meta = meta
        self.max_peers = max_peers
        self.established = False
        """Whether the server has greeted this connection."""
        self.fault: str | None = None
        """Why this connection must be dropped, if so."""
        self.refusal: Error | None = None
        """The fatal error the server sent on this connection."""
        self.drain: Drain | None = None
        """The server's notice that it goes away."""
        self.round_trip: float | None = None
        """Seconds from hello to welcome, the last time."""
        self._greeted_at = 0.0
        self.epoch = 0
        """How many identities this session has had."""
        self.self_id = ""
        self.duplicates = 0
        self._sid = ""
        self._key = ""
        self._ping = 25.0
        self._data_limit = 0
        self._last_id = 0
        self._unconfirmed: deque[tuple[int, str]] = deque()
        self._taken = 0
        self._acknowledged = 0
        self._outgoing: list[str] = []
        self._heard_at = 0.0
        self._waiting_since = 0.0
        self._ping_at: float | None = None
        self._pings = 0

    @property
    def can_send(self) -> bool:
        """Whether another signal fits the window."""
        return len(self._unconfirmed) < WINDOW

    @property
    def unconfirmed(self) -> int:
        return len(self._unconfirmed)

    def connection_made(self, now: float) -> None:
        """A connection is open: greet the server on it."""
        self.connection_lost()
        self.fault = self.refusal = self.drain = None
        self._heard_at = now
        resume = Resume(sid=self._sid, key=self._key, seq=self._taken) if self._sid else None
        hello = Hello(
            v=VERSION,
            room=self.room,
            token=self.token,
            meta=self.meta,
            max_peers=self.max_peers,
            resume=resume,
        )
        self._outgoing.append(encode(hello))
        self._greeted_at = now

    def connection_lost(self) -> None:
        self.established = False
        self._outgoing.clear()
        self._ping_at = None

    def send(self, to: str, link: str, generation: int, kind: Kind, data: str, now: float) -> int:
        """Number a signal and keep it until it is confirmed; the number.

        Raises :class:`MessageTooLarge`, and :class:`ClientClosed` before the first welcome. The
        caller looks at :attr:`can_send` first.
        """
        if not self._sid:
            raise ClientClosed("not connected to the signaling server yet")
        size = byte_length(data)
        if size > self._data_limit:
            raise MessageTooLarge(size, self._data_limit)
        self._last_id += 1
        frame = encode(
            SendSignal(id=self._last_id, to=to, link=link, gen=generation, kind=kind, data=data)
        )
        if not self._unconfirmed:
            self._waiting_since = now
        self._unconfirmed.append((self._last_id, frame))
        if self.established:
            self._outgoing.append(frame)
        return self._last_id

    def ask_for_ice_servers(self) -> None:
        """They come as an event; the server gives new ones at most every 10 s."""
        if self.established:
            self._outgoing.append(encode(AskIce()))

    def report_outcome(self, outcome: Outcome, seconds: float | None) -> None:
        """Tell the server's statistics how an attempt ended."""
        if self.established:
            ms = None if seconds is None else max(0, round(seconds * 1000))
            self._outgoing.append(encode(ReportOutcome(outcome=outcome, ms=ms)))

    def leave(self, *, close: bool = False) -> None:
        """End the session: the server forgets it at once. With ``close`` nobody can open the room
        again once it is empty."""
        if self.established:
            self._outgoing.append(encode(Leave(close=close)))

    def frames_to_send(self) -> list[str]:
        frames, self._outgoing = self._outgoing, []
        return frames

    def get_timer(self) -> float | None:
        if self._ping_at is None:
            return None
        return min(self._ping_at, self._deadline)

    def handle_timer(self, now: float) -> None:
        if self._ping_at is None:
            return
        if now >= self._deadline:
            self.fault = "the signaling server went silent"
            return
        if now >= self._ping_at:
            self._acknowledge(1)
            self._pings += 1
            self._outgoing.append(encode(Ping(n=self._pings)))
            self._ping_at = now + self._ping

    def receive(self, text: str, now: float) -> list[Event]:
        """Take a frame from the server."""
        self._heard_at = now
        try:
            message = decode_server_message(text)
        except InvalidMessage as error:
            self.fault = f"the server broke the protocol: {error}"
            return []
        match message:
            case Welcome():
                return self._welcomed(message, now)
            case ResumedMessage():
                return self._resumed(message, now)
            case PeerNotice() | Relayed():
                return self._numbered(message.seq, message)
            case Error():
                return self._refused(message)
            case SignalAck(id=id, status=status):
                self._confirm(id)
                if status != "unavailable":  # then an error says why
                    return [Acknowledged(id, status)]
            case FreshIce(servers=servers, ttl=ttl):
                return [IceServersChanged(tuple(servers), ttl)]
            case Drain():
                self.drain = message
            case Pong() | None:
                pass
        return []

    def _welcomed(self, welcome: Welcome, now: float) -> list[Event]:
        if self.established:
            self.fault = "the server broke the protocol: welcome came twice"
            return []
        if welcome.v != VERSION:
            self.fault = f"the server speaks version {welcome.v} of the protocol, not {VERSION}"
            return []
        self.established = True
        self.round_trip = now - self._greeted_at
        self.epoch += 1
        self.self_id = welcome.self
        self._sid = welcome.sid
        self._key = welcome.key
        self._data_limit = welcome.limits.data
        self._last_id = self._taken = self._acknowledged = 0
        self._unconfirmed.clear()
        self._begin_pings(welcome.ping, now)
        return [
            Welcomed(
                self_id=welcome.self,
                order=welcome.order,
                peers=_peers(welcome.peers),
                ice_servers=tuple(welcome.ice.servers),
                ice_ttl=welcome.ice.ttl,
                observed=(welcome.you.ip, welcome.you.port),
                seats=welcome.limits.peers,
            )
        ]

    def _resumed(self, resumed: ResumedMessage, now: float) -> list[Event]:
        if self.established or not self._sid or not 0 <= resumed.rx <= self._last_id:
            self.fault = "the server broke the protocol: it resumed what was not asked for"
            return []
        self.established = True
        self._confirm(resumed.rx)
        self._acknowledged = self._taken
        self._waiting_since = now
        self._outgoing.extend(frame for _, frame in self._unconfirmed)
        self._begin_pings(self._ping, now)
        return [Resumed(peers=_peers(resumed.peers))]

    def _refused(self, error: Error) -> list[Event]:
        if error.seq is not None:
            return self._numbered(error.seq, error)
        if error.fatal:
            self.refusal = error
        return []

    def _numbered(self, seq: int, message: PeerNotice | Relayed | Error) -> list[Event]:
        if seq <= self._taken:
            self.duplicates += 1
            return []
        if seq != self._taken + 1 or not self.established:
            self.fault = f"frame {seq} came after {self._taken}"
            return []
        self._taken = seq
        self._acknowledge(ACK_EVERY)
        match message:
            case Relayed():
                return [
                    SignalReceived(
                        sender=message.sender,
                        link=message.link,
                        generation=message.gen,
                        kind=message.kind,
                        data=message.data,
                    )
                ]
            case PeerNotice():
                return [_peer_event(message)]
            case Error(code=code, message=text, ref=ref, to=to):
                self._confirm(ref or 0)
                return [Unavailable(to=to or "", ref=ref or 0, code=code, message=text)]

    def _acknowledge(self, at_least: int) -> None:
        if self._taken - self._acknowledged >= at_least:
            self._acknowledged = self._taken
            self._outgoing.append(encode(SeqAck(seq=self._taken)))

    def _confirm(self, id: int) -> None:
        while self._unconfirmed and self._unconfirmed[0][0] <= id:
            self._unconfirmed.popleft()

    def _begin_pings(self, interval: float, now: float) -> None:
        self._ping = max(1.0, interval)
        self._ping_at = now + self._ping

    @property
    def _deadline(self) -> float:
        silent = self._heard_at + SILENT_PINGS * self._ping
        if not self._unconfirmed:
            return silent
        return min(silent, max(self._heard_at, self._waiting_since) + ANSWER_TIMEOUT)


def _peers(infos: list[PeerInfo]) -> tuple[Peer, ...]:
    return tuple(Peer(info.id, info.order, info.meta, info.away) for info in infos)


def _peer_event(notice: PeerNotice) -> Event:
    match notice.event:
        case "join":
            return PeerJoined(Peer(notice.id, notice.order, notice.meta))
        case "leave":
            return PeerLeft(notice.id, notice.reason)
        case "away":
            return PeerAway(notice.id)
        case "back":
            return PeerBack(notice.id)
