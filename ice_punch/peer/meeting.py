"""The signaling room as both peers use it: join, read, tell the errors apart."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from ice_punch.errors import InvalidConfiguration, InvalidLink
from ice_punch.net.ice_server import IceServer
from signaling import errors as signaling_errors
from signaling.link import Link
from signaling.messages import IceServerInfo


class Meta(msgspec.Struct, frozen=True):
    """What a peer tells the room of itself."""

    role: str
    """``listen`` or ``connect``."""


def parse_link(text: str) -> Link:
    """Raises InvalidLink."""
    try:
        return Link.parse(text)
    except signaling_errors.InvalidLink as error:
        raise InvalidLink(str(error)) from None


def role_of(meta: str) -> str:
    try:
        return msgspec.json.decode(meta, type=Meta).role
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""


def offered_servers(infos: Iterable[IceServerInfo]) -> tuple[IceServer, ...]:
    """The ICE servers that the signaling server names; what is no URI of RFC 7064 or 7065 is
    left out."""
    servers = []
    for info in islice(infos, 16):
        for uri in info.urls[:8]:
            try:
                servers.append(IceServer.parse(uri, info.username, info.credential))
            except InvalidConfiguration:
                continue
    return tuple(servers)
