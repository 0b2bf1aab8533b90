"""The first exchange of a connection: judging a ``hello``, composing a ``welcome``. Sans-IO."""

from __future__ import annotations

from typing import NamedTuple

from signaling.errors import InvalidMessage
from signaling.limits import ROOM_MAX_LENGTH, TOKEN_MAX_LENGTH, Limits
from signaling.member import Member
from signaling.messages import (
    VERSION,
    CloseCode,
    ErrorCode,
    Hello,
    IceInfo,
    LimitsInfo,
    Observed,
    PeerInfo,
    Welcome,
    byte_length,
    decode_client_message,
    version_of,
)


class Refusal(NamedTuple):
    """Why a connection is not let in."""

    code: ErrorCode
    close_code: CloseCode
    text: str


def read_hello(data: str, limits: Limits) -> Hello | Refusal:
    """The ``hello`` in the first frame of a connection, or what is wrong with it."""
    version = version_of(data)
    if version is not None and version != VERSION:
        text = f"this server speaks version {VERSION} of the protocol, not {version}"
        return Refusal(ErrorCode.VERSION, CloseCode.VERSION, text)
    try:
        hello = decode_client_message(data)
    except InvalidMessage as error:
        return Refusal(ErrorCode(error.code), CloseCode.BAD_REQUEST, str(error))
    if not isinstance(hello, Hello):
        text = "the first frame must be a hello"
        return Refusal(ErrorCode.BAD_ORDER, CloseCode.BAD_REQUEST, text)
    if not 1 <= len(hello.room) <= ROOM_MAX_LENGTH:
        text = f"a room's name has 1 to {ROOM_MAX_LENGTH} characters"
        return Refusal(ErrorCode.BAD_ROOM, CloseCode.BAD_ROOM, text)
    if len(hello.token) > TOKEN_MAX_LENGTH:
        text = f"token is over the limit of {TOKEN_MAX_LENGTH} characters"
        return Refusal(ErrorCode.TOO_LARGE, CloseCode.BAD_REQUEST, text)
    if byte_length(hello.meta) > limits.meta:
        text = f"meta is over the limit of {limits.meta} bytes"
        return Refusal(ErrorCode.TOO_LARGE, CloseCode.BAD_REQUEST, text)
    return hello


def welcome(
    member: Member,
    peers: list[PeerInfo],
    limits: Limits,
    ice: IceInfo,
    *,
    address: tuple[str, int],
) -> Welcome:
    """What a new session is told."""
    return Welcome(
        v=VERSION,
        self=member.id,
        order=member.order,
        sid=member.sid,
        key=member.key,
        peers=peers,
        ping=limits.ping,
        window=limits.resume_window,
        limits=LimitsInfo(
            frame=limits.frame,
            data=limits.data,
            meta=limits.meta,
            candidates=limits.candidates,
            peers=member.room.seats,
            rate=limits.message_rate,
            burst=limits.message_burst,
        ),
        ice=ice,
        you=Observed(ip=address[0], port=address[1]),
    )
