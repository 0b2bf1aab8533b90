"""The wire protocol ``icepunch.v1``: one JSON object per WebSocket text frame, tagged by ``type``.

Both ends import this module; ``docs/reference/signaling-protocol.md`` says the same in words.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal, TypeVar

import msgspec

from signaling.errors import InvalidMessage
from signaling.limits import GENERATION_MAX, LINK_MAX_LENGTH

SUBPROTOCOL = "icepunch.v1"
VERSION = 1

Kind = Literal["offer", "answer", "cand", "restart", "reject", "bye"]
KINDS: tuple[Kind, ...] = ("offer", "answer", "cand", "restart", "reject", "bye")
Outcome = Literal["direct", "relay", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("direct", "relay", "failed")


class ErrorCode(StrEnum):
    """The ``code`` of an ``error`` message."""

    BAD_JSON = "bad_json"
    BAD_TYPE = "bad_type"
    BAD_FIELD = "bad_field"
    BAD_ORDER = "bad_order"
    BAD_ROOM = "bad_room"
    UNAUTHORIZED = "unauthorized"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    FORBIDDEN_ORIGIN = "forbidden_origin"
    VERSION = "version"
    HELLO_TIMEOUT = "hello_timeout"
    TOO_LARGE = "too_large"
    TOO_MANY_CANDIDATES = "too_many_candidates"
    PEER_UNAVAILABLE = "peer_unavailable"
    QUEUE_FULL = "queue_full"
    ROOM_FULL = "room_full"
    ROOM_CLOSED = "room_closed"
    BUSY = "busy"
    RATE_LIMITED = "rate_limited"
    ABUSE = "abuse"


class CloseCode(IntEnum):
    """WebSocket close codes: after 4000 to 4499 come back and resume, after 4500 to 4999 stop."""

    NORMAL = 1000
    TOO_BIG = 1009

    DRAIN = 4000
    SLOW = 4001
    IDLE = 4002
    BUS_LOST = 4003
    BUSY = 4004
    HELLO_TIMEOUT = 4005
    OUTLIVED = 4006

    BAD_REQUEST = 4500
    UNAUTHORIZED = 4501
    TOKEN_EXPIRED = 4502
    REPLACED = 4503
    ROOM_FULL = 4504
    ABUSE = 4505
    VERSION = 4506
    BAD_ROOM = 4507
    ROOM_CLOSED = 4508


# Integers stay where a browser's Number is exact.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
LinkName = Annotated[str, msgspec.Meta(min_length=1, max_length=LINK_MAX_LENGTH)]
Generation = Annotated[int, msgspec.Meta(ge=0, le=GENERATION_MAX)]


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    pass


class _Message(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="type"):
    pass


# Client to server


class Resume(_Part, frozen=True):
    """The claim to a session that lost its connection; ``seq`` is the last one processed."""

    sid: Identifier
    key: Identifier
    seq: Count

    def __repr__(self) -> str:
        return f"Resume(seq={self.seq})"


class Hello(_Message, frozen=True, tag="hello"):
    """The first frame of every connection."""

    v: int
    room: str
    token: str = ""
    meta: str = ""
    max_peers: Annotated[int, msgspec.Meta(ge=2, le=2**31)] | None = None
    resume: Resume | None = None

    def __repr__(self) -> str:
        return f"Hello(v={self.v}, resume={self.resume})"


class SendSignal(_Message, frozen=True, tag="signal"):
    """A payload for one peer. ``id`` counts 1, 2, 3, ... within the session."""

    id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    to: Identifier
    link: LinkName
    gen: Generation
    kind: Kind
    data: str

    def __repr__(self) -> str:
        return f"SendSignal(id={self.id}, kind={self.kind!r})"


class SeqAck(_Message, frozen=True, tag="ack"):
    """Everything up to ``seq`` was processed and need not be kept for replay."""

    seq: Count


class AskIce(_Message, frozen=True, tag="ice"):
    """Fresh ICE servers, please."""


class ReportOutcome(_Message, frozen=True, tag="outcome"):
    """How an attempt ended, for the server's statistics; ``ms`` until there was a path."""

    outcome: Outcome
    ms: Count | None = None


class Leave(_Message, frozen=True, tag="leave"):
    """The end of the session, at once; with ``close`` that of the room, once it is empty."""

    close: bool = False


class Ping(_Message, frozen=True, tag="ping"):
    n: Count = 0


# Server to client


class PeerInfo(_Part, frozen=True):
    """A peer of the room as a snapshot shows it."""

    id: str
    order: int
    meta: str = ""
    away: bool = False


class IceServerInfo(_Part, frozen=True):
    """A STUN or TURN server, with the field names of a browser's ``RTCIceServer``."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None

    def __repr__(self) -> str:
        return f"IceServerInfo(urls={self.urls!r})"


class IceInfo(_Part, frozen=True):
    """ICE servers, and for how many seconds their credentials are good (``None``: no end)."""

    servers: list[IceServerInfo]
    ttl: int | None = None


class LimitsInfo(_Part, frozen=True):
    """The limits a client must keep. Sizes in bytes, ``rate`` in messages per second."""

    frame: int
    data: int
    meta: int
    candidates: int
    peers: int
    rate: float
    burst: int


class Observed(_Part, frozen=True):
    """The transport address the server sees the client at."""

    ip: str
    port: int


class Welcome(_Message, frozen=True, tag="welcome"):
    """A fresh session: who you are and who is there, taken at one instant."""

    v: int
    self: str
    order: int
    sid: str
    key: str
    peers: list[PeerInfo]
    ping: float
    window: float
    limits: LimitsInfo
    ice: IceInfo
    you: Observed

    def __repr__(self) -> str:
        return f"Welcome(self={self.self!r}, order={self.order})"


class Resumed(_Message, frozen=True, tag="resumed"):
    """The session goes on: ``rx`` is the last id processed, ``seq`` the last one assigned."""

    seq: int
    rx: int
    peers: list[PeerInfo]


class PeerNotice(_Message, frozen=True, tag="peer"):
    """Something happened to a peer of the room."""

    seq: int
    event: Literal["join", "leave", "away", "back"]
    id: str
    order: int
    meta: str = ""
    reason: str = ""


class Relayed(_Message, frozen=True, tag="signal"):
    """A payload from a peer, as that peer sent it."""

    seq: int
    sender: str = msgspec.field(name="from")
    link: str
    gen: int
    kind: Kind
    data: str

    def __repr__(self) -> str:
        return f"Relayed(seq={self.seq}, sender={self.sender!r}, kind={self.kind!r})"


class SignalAck(_Message, frozen=True, tag="ack"):
    """What became of the signal ``id``; an ``error`` with ``ref`` says why it is unavailable."""

    id: int
    status: Literal["delivered", "queued", "unavailable"]


class FreshIce(_Message, frozen=True, tag="ice"):
    """New ICE servers, before the credentials of those before expire."""

    servers: list[IceServerInfo]
    ttl: int | None = None

    def __repr__(self) -> str:
        return f"FreshIce(servers={self.servers!r}, ttl={self.ttl})"


class Pong(_Message, frozen=True, tag="pong"):
    n: int


class Error(_Message, frozen=True, tag="error"):
    """A refusal. With ``ref`` it is about that signal and carries a ``seq``: it is replayed."""

    code: str
    message: str
    ref: int | None = None
    to: str | None = None
    seq: int | None = None
    retry_after: float | None = None
    fatal: bool = False


class Drain(_Message, frozen=True, tag="drain"):
    """The server goes away in ``in_s``; come back after a random part of ``jitter_s``."""

    in_s: float
    jitter_s: float


ClientMessage = Hello | SendSignal | SeqAck | AskIce | ReportOutcome | Leave | Ping
ServerMessage = (
    Welcome | Resumed | PeerNotice | Relayed | SignalAck | FreshIce | Pong | Error | Drain
)


class _Envelope(msgspec.Struct):
    type: str


class _Greeting(msgspec.Struct):
    type: str
    v: int


_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(_Envelope)
_greeting = msgspec.json.Decoder(_Greeting)
_from_client: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_from_server: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_CLIENT_TYPES = frozenset({"hello", "signal", "ack", "ice", "outcome", "leave", "ping"})
_SERVER_TYPES = frozenset(
    {"welcome", "resumed", "peer", "signal", "ack", "ice", "pong", "error", "drain"}
)

# msgspec has no depth limit of its own; Python's ends deep nesting. A lone surrogate has no UTF-8.
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeError)


def encode(message: ClientMessage | ServerMessage) -> str:
    """The text frame of ``message``."""
    return _encoder.encode(message).decode("utf-8")


def encode_relayed(message: Relayed) -> tuple[str, int]:
    """The text frame of ``message``, and its bytes in UTF-8."""
    data = _encoder.encode(message)
    return str(data, "utf-8"), len(data)


def encode_ack(id: int, status: str) -> str:
    """The text frame of a :class:`SignalAck`: the other half of what every signal costs."""
    return f'{{"type":"ack","id":{id},"status":"{status}"}}'


def decode_client_message(text: str) -> ClientMessage:
    """The message in a frame from a client.

    Unknown fields are ignored. Raises :class:`InvalidMessage` with code ``bad_json``, ``bad_type``
    or ``bad_field``, and nothing else.
    """
    try:
        return _from_client.decode(text)
    except _UNREADABLE:
        return _decode(_from_client, text, _CLIENT_TYPES)


def decode_server_message(text: str) -> ServerMessage | None:
    """The message in a frame from the server; ``None`` for a type this version does not know.

    Raises :class:`InvalidMessage` and nothing else.
    """
    try:
        return _decode(_from_server, text, _SERVER_TYPES)
    except InvalidMessage as error:
        if error.code == ErrorCode.BAD_TYPE:
            return None
        raise


def version_of(text: str) -> int | None:
    """The ``v`` of a frame that is a ``hello`` of any version, else ``None``."""
    try:
        greeting = _greeting.decode(text)
    except _UNREADABLE:
        return None
    return greeting.v if greeting.type == "hello" else None


_T = TypeVar("_T")


def _decode(decoder: msgspec.json.Decoder[_T], text: str, types: frozenset[str]) -> _T:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidMessage(str(error)[:200], _complaint(text, types)) from None
    except _UNREADABLE:
        raise InvalidMessage("the frame is not one JSON object", ErrorCode.BAD_JSON) from None


def _complaint(text: str, types: frozenset[str]) -> ErrorCode:
    if not text.lstrip().startswith("{"):
        return ErrorCode.BAD_JSON
    try:
        name = _envelope.decode(text).type
    except msgspec.ValidationError:
        return ErrorCode.BAD_TYPE
    except _UNREADABLE:
        return ErrorCode.BAD_JSON
    return ErrorCode.BAD_FIELD if name in types else ErrorCode.BAD_TYPE


def byte_length(text: str) -> int:
    """Bytes of ``text`` in UTF-8; a lone surrogate, which has none, counts as three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
