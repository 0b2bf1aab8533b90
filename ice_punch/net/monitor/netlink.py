"""What Linux's routing socket tells of links and addresses: rtnetlink(7), RFC 3549. Bytes in, facts
out."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

GROUPS: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR."""

_NLMSG_NOOP, _NLMSG_ERROR, _NLMSG_DONE, _NLMSG_OVERRUN = 1, 2, 3, 4
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _DELETE_ADDRESS = 16, 17, 20, 21
_IFLA_IFNAME = 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_FAMILIES: Final = {2: 4, 10: 16}
"""AF_INET and AF_INET6, and the bytes of an address."""

# The kernel speaks its own byte order.
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")


class NetlinkError(ValueError):
    """Bytes that no kernel writes."""


@dataclass(frozen=True, slots=True)
class AddressNews:
    """An address came, changed or went."""

    ip: str
    index: int
    """The interface's."""
    flags: int
    """IFA_F_*, of ``linux/if_addr.h``."""
    gone: bool


@dataclass(frozen=True, slots=True)
class LinkNews:
    """An interface came, changed or went."""

    index: int
    name: str
    running: bool
    """Up, and with a carrier."""
    gone: bool


@dataclass(frozen=True, slots=True)
class Overrun:
    """The kernel had more to tell than there was room for: only a new look tells what is so now."""


News = AddressNews | LinkNews | Overrun


def parse_news(data: bytes) -> list[News]:
    """What one datagram of a routing socket says; messages of other kinds say nothing.

    Raises NetlinkError for bytes that are no whole messages.
    """
    news: list[News] = []
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise NetlinkError("a header is cut short")
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise NetlinkError(f"a message of {length} bytes, where {len(data) - offset} are left")
        body = data[offset + _HEADER.size : offset + length]
        if kind in (_NEW_ADDRESS, _DELETE_ADDRESS):
            address = _address(body, gone=kind == _DELETE_ADDRESS)
            if address is not None:
                news.append(address)
        elif kind in (_NEW_LINK, _DELETE_LINK):
            news.append(_link(body, gone=kind == _DELETE_LINK))
        elif kind == _NLMSG_OVERRUN:
            news.append(Overrun())
        offset += _aligned(length)
    return news


def _address(body: bytes, *, gone: bool) -> AddressNews | None:
    if len(body) < _ADDRESS.size:
        raise NetlinkError("an address message is cut short")
    family, _, flags, _, index = _ADDRESS.unpack_from(body)
    size = _FAMILIES.get(family)
    if size is None:
        return None
    address = local = None
    for kind, value in _attributes(body[_ADDRESS.size :]):
        if kind in (_IFA_ADDRESS, _IFA_LOCAL):
            if len(value) != size:
                raise NetlinkError(f"an address of {len(value)} bytes")
            if kind == _IFA_LOCAL:
                local = value
            else:
                address = value
        elif kind == _IFA_FLAGS:
            if len(value) != 4:
                raise NetlinkError(f"flags of {len(value)} bytes")
            flags = struct.unpack("=I", value)[0]  # the header's field has room for eight only
    own = local or address  # on a point-to-point link the other one is the far end's
    if own is None:
        raise NetlinkError("an address message without an address")
    return AddressNews(str(ipaddress.ip_address(own)), index, flags, gone)


def _link(body: bytes, *, gone: bool) -> LinkNews:
    if len(body) < _LINK.size:
        raise NetlinkError("a link message is cut short")
    _, _, index, flags, _ = _LINK.unpack_from(body)
    name = ""
    for kind, value in _attributes(body[_LINK.size :]):
        if kind == _IFLA_IFNAME:
            name = value.split(b"\0", 1)[0].decode("utf-8", "replace")
    running = flags & _IFF_UP and flags & _IFF_RUNNING
    return LinkNews(index, name, bool(running) and not gone, gone)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        if len(data) - offset < _ATTRIBUTE.size:
            raise NetlinkError("an attribute is cut short")
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= len(data) - offset:
            raise NetlinkError(f"an attribute of {length} bytes")
        # The two highest bits tell how the value is made, NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
