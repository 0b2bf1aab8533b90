"""What a packet of the laboratory says, in words."""

from __future__ import annotations

from dataclasses import dataclass

from ice_punch.lab.timeline import Kind
from ice_punch.lab.trace import PacketRecord
from ice_punch.stun import (
    DATA,
    ERROR_CODE,
    NOMINATION,
    USE_CANDIDATE,
    Message,
    MessageClass,
    Method,
    StunParseError,
    looks_like_stun,
    parse_message,
)
from ice_punch.turn.channel_data import decode_channel_data, is_channel_data

_TURN_METHODS = {
    Method.ALLOCATE: "Allocate",
    Method.REFRESH: "Refresh",
    Method.CREATE_PERMISSION: "CreatePermission",
    Method.CHANNEL_BIND: "ChannelBind",
}
_CLASSES = {
    MessageClass.REQUEST: "request",
    MessageClass.SUCCESS: "success",
    MessageClass.ERROR: "error",
    MessageClass.INDICATION: "indication",
}


@dataclass(frozen=True, slots=True)
class Description:
    kind: Kind
    text: str
    transaction: str = ""


def describe(packet: PacketRecord) -> Description:
    """What the packet is for whoever looks at the wire."""
    if packet.error is not None:
        return Description(Kind.ICMP, f"ICMP {packet.error.kind}")
    if packet.segment is not None:
        return _describe_segment(packet)
    return describe_datagram(packet.data)


def describe_datagram(data: bytes) -> Description:
    """What a UDP payload is."""
    if is_channel_data(data):
        inner = decode_channel_data(data)
        return _relayed(inner if inner is not None else b"")
    if not looks_like_stun(data):
        return Description(Kind.DATA, f"data, {len(data)} bytes")
    try:
        message = parse_message(data)
    except StunParseError:
        return Description(Kind.DATA, f"malformed STUN, {len(data)} bytes")
    if message.method in (Method.SEND, Method.DATA):
        return _relayed(message.get(DATA) or b"")
    return _describe_message(message)


def _relayed(inner: bytes) -> Description:
    told = describe_datagram(inner)
    return Description(told.kind, f"relayed {told.text}", told.transaction)


def _describe_message(message: Message) -> Description:
    transaction = message.transaction_id.hex()
    error = message.get(ERROR_CODE)
    said = f" {error.code}" if error is not None else ""
    if message.method != Method.BINDING:
        name = _TURN_METHODS.get(Method(message.method), "") if _is_method(message) else ""
        text = f"{name or f'method {message.method:#x}'} {_CLASSES[message.message_class]}{said}"
        return Description(Kind.TURN, text, transaction)
    match message.message_class:
        case MessageClass.REQUEST if message.get(USE_CANDIDATE):
            number = message.get(NOMINATION)
            again = f" and NOMINATION {number}" if number else ""
            return Description(Kind.NOMINATION, f"check with USE-CANDIDATE{again}", transaction)
        case MessageClass.REQUEST:
            return Description(Kind.CHECK, "check", transaction)
        case MessageClass.SUCCESS:
            return Description(Kind.ANSWER, "answer", transaction)
        case MessageClass.ERROR:
            return Description(Kind.ERROR, f"error{said}", transaction)
        case _:
            return Description(Kind.INDICATION, "Binding indication", transaction)


def _is_method(message: Message) -> bool:
    return message.method in set(Method)


def _describe_segment(packet: PacketRecord) -> Description:
    segment = packet.segment
    assert segment is not None
    flags = [name for name in ("syn", "fin", "rst") if getattr(segment, name)]
    if not flags and not segment.payload:
        flags = ["ack"]
    text = " ".join(["TCP", *flags])
    if segment.payload:
        text = f"{text} {len(segment.payload)} bytes"
    return Description(Kind.STREAM, text)
