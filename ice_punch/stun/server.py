"""A Binding server: RFC 8489 section 12, and RFC 5780 where it has two addresses and two ports."""

from __future__ import annotations

from typing import Any, Final

from ice_punch.datagram import Address, Transmit
from ice_punch.stun.attributes import (
    CHANGE_REQUEST,
    ERROR_CODE,
    MAPPED_ADDRESS,
    OTHER_ADDRESS,
    PADDING,
    RESPONSE_ORIGIN,
    RESPONSE_PORT,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    XOR_MAPPED_ADDRESS,
    AttributeType,
)
from ice_punch.stun.codecs import COOKIE, ErrorCode, StunParseError
from ice_punch.stun.counters import ServerCounters
from ice_punch.stun.message import (
    HEADER_SIZE,
    Message,
    MessageClass,
    Method,
    looks_like_stun,
    parse_message,
    response_to,
)
from ice_punch.stun.plain import PlainAnswers

BAD_REQUEST: Final = ErrorCode(400, "Bad Request")
UNKNOWN_ATTRIBUTE: Final = ErrorCode(420, "Unknown Attribute")

_IPV4_MAPPED: Final = "::ffff:"
_MAX_QUEUE: Final = 1024
_UNKNOWN_TO_RFC_3489: Final[tuple[AttributeType[Any], ...]] = (
    CHANGE_REQUEST,
    RESPONSE_PORT,
    PADDING,
)
"""With its clients: RFC 5389 section 12.2 has the first be unknown, the others came later."""


class BindingServer:
    """Tells each client the address that its request came from.

    It demands no credentials (RFC 8489 section 12) and keeps no state: the answer to a resent
    request is computed anew and is the same (section 6.3.1). A request gets one datagram, sent to
    the IP address it came from; what is not a request gets none, so servers can not be made to
    talk to each other, and PADDING is never answered with more than came.
    """

    def __init__(
        self,
        primary: Address | None = None,
        alternate: Address | None = None,
        *,
        software: str | None = "ice-punch",
        mtu: int = 1500,
    ) -> None:
        """A server at any number of addresses needs neither ``primary`` nor ``alternate``.

        Given both, with different IP addresses and different ports, it offers NAT behaviour
        discovery (RFC 5780) to datagrams that arrive at the four combinations, ``addresses``; it
        needs all four. ``mtu`` is in bytes and bounds PADDING. Raises ValueError for an alternate
        that is none, and for a ``software`` that SOFTWARE can not carry.
        """
        self.addresses: tuple[Address, ...] = () if primary is None else (primary,)
        self._other: dict[Address, Address] = {}
        if alternate is not None:
            self._offer_discovery(primary, alternate)
        self._software = software
        self._mtu = mtu
        self._outgoing: list[Transmit] = []
        self.counters = ServerCounters()
        self.answer_plain = PlainAnswers(software, self._other, self.counters).answer
        """What a busy server calls first, with the data, the source and the local address: the
        response to a plain request, which skips the queue, or None for whatever
        ``receive_datagram`` is to have."""

    def _offer_discovery(self, primary: Address | None, alternate: Address) -> None:
        if (
            primary is None
            or primary[0] == alternate[0]
            or primary[1] == alternate[1]
            or (":" in primary[0]) != (":" in alternate[0])
        ):
            raise ValueError(
                "an alternate address has another IP address, of the same family, and another "
                "port than the primary one"
            )
        (a1, p1), (a2, p2) = primary, alternate
        self.addresses = ((a1, p1), (a1, p2), (a2, p1), (a2, p2))
        for ip, port in self.addresses:
            self._other[ip, port] = (a2 if ip == a1 else a1, p2 if port == p1 else p1)

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        """``local`` is the address that the datagram arrived at, where the answer leaves from."""
        if len(self._outgoing) < _MAX_QUEUE:
            answer = self.answer_plain(data, source, local)
            if answer is not None:
                self._outgoing.append(Transmit(answer, local, source))
                return
        counters = self.counters
        counters.received += 1
        request = self._accept(data, source)
        if isinstance(request, str):
            counters.dropped[request] += 1
            return
        cookie = data[4:8]
        if cookie == COOKIE:
            response, origin, destination = self._respond(request, source, local)
        else:
            response, origin, destination = self._respond_to_classic(request, source), local, source
        if self._software is not None:
            response.add(SOFTWARE, self._software)
        encoded = response.to_bytes(fingerprint=request.has_fingerprint)
        if cookie != COOKIE:
            encoded = encoded[:4] + cookie + encoded[8:]
        self._outgoing.append(Transmit(encoded, origin, destination))
        counters.answered += 1

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _accept(self, data: bytes, source: Address) -> Message | str:
        """The request, or why the datagram is dropped: RFC 8489 section 6.3."""
        if not looks_like_stun(data):
            if not _is_classic_request(data):
                return "no-cookie" if _looks_like_classic_stun(data) else "not-stun"
            data = data[:4] + COOKIE + data[8:]
        try:
            message = parse_message(data)
        except StunParseError:
            return "malformed"
        if message.message_class is MessageClass.INDICATION:
            return "indication"
        if message.message_class is not MessageClass.REQUEST:
            return "response"
        if message.method != Method.BINDING:
            return "unsupported-method"
        if source[1] == 0:
            return "source-port"
        if len(self._outgoing) >= _MAX_QUEUE:
            return "overload"
        return message

    def _respond(
        self, request: Message, source: Address, local: Address
    ) -> tuple[Message, Address, Address]:
        """The response, where it leaves from and where it goes to."""
        other = self._other.get(local)
        change = request.get(CHANGE_REQUEST)
        response_port = request.get(RESPONSE_PORT)
        padding = request.get(PADDING)

        unknown = request.unknown_required
        if change is not None and other is None:  # RFC 5780 section 6.1
            unknown = (*unknown, CHANGE_REQUEST.type)
        if unknown:  # RFC 8489 section 6.3.1
            response = self._error(request, UNKNOWN_ATTRIBUTE)
            response.add(UNKNOWN_ATTRIBUTES, unknown)
            return response, local, source
        # RFC 5780 section 7.5; port 0 is none that a response can go to
        if response_port is not None and (padding is not None or response_port == 0):
            return self._error(request, BAD_REQUEST), local, source

        mapped = _mapped(source)
        response = response_to(request, MessageClass.SUCCESS)
        response.add(XOR_MAPPED_ADDRESS, mapped)
        origin = local
        destination = source if response_port is None else (source[0], response_port)
        if other is not None:  # RFC 5780 section 6.1, table 1
            if change is not None:
                origin = (
                    other[0] if change.change_ip else local[0],
                    other[1] if change.change_port else local[1],
                )
            response.add(OTHER_ADDRESS, other)
        # RFC 5780 section 6.1. A server with one address is a plain one until it is asked for more.
        if other is not None or response_port is not None or padding is not None:
            response.add(MAPPED_ADDRESS, mapped)
            response.add(RESPONSE_ORIGIN, origin)
        if padding is not None:
            response.add(PADDING, bytes(-(-min(len(padding), self._mtu) // 4) * 4))
        return response, origin, destination

    def _respond_to_classic(self, request: Message, source: Address) -> Message:
        """To a client of RFC 3489, which knows no XOR-MAPPED-ADDRESS: RFC 5389 section 12.2."""
        new = tuple(a.type for a in _UNKNOWN_TO_RFC_3489 if request.get(a) is not None)
        unknown = (*request.unknown_required, *new)
        if unknown:
            response = self._error(request, UNKNOWN_ATTRIBUTE)
            response.add(UNKNOWN_ATTRIBUTES, unknown)
            return response
        response = response_to(request, MessageClass.SUCCESS)
        response.add(MAPPED_ADDRESS, _mapped(source))
        return response

    def _error(self, request: Message, error: ErrorCode) -> Message:
        self.counters.errors[error.code] += 1
        response = response_to(request, MessageClass.ERROR)
        response.add(ERROR_CODE, error)
        return response


def _mapped(source: Address) -> Address:
    """An IPv4 client that a dual-stack IPv6 socket heard is told its IPv4 address."""
    ip = source[0]
    if ip.startswith(_IPV4_MAPPED) and "." in ip:
        return (ip[len(_IPV4_MAPPED) :], source[1])
    return source


def _looks_like_classic_stun(data: bytes) -> bool:
    """A header of RFC 3489, which had no magic cookie."""
    return (
        len(data) >= HEADER_SIZE
        and data[0] < 0x40
        and int.from_bytes(data[2:4], "big") == len(data) - HEADER_SIZE
    )


def _is_classic_request(data: bytes) -> bool:
    """A Binding request of RFC 3489, whose clients are to be served (RFC 8489 section 12): libnice
    asks for its reflexive addresses by them."""
    return data[:2] == b"\0\1" and _looks_like_classic_stun(data)
