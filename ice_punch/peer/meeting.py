"""The signaling room as both peers use it: join, read, tell the errors apart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

import msgspec

from ice_punch.channel import Channel
from ice_punch.errors import InvalidConfiguration, InvalidLink, NoRoute
from ice_punch.net.ice_server import IceServer
from ice_punch.peer.attempt import Attempt
from signaling import errors as signaling_errors
from signaling.client import SignalingClient
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


async def run_and_report(attempt: Attempt, client: SignalingClient) -> Channel:
    """Run an attempt, and tell the statistics of the signaling server how it ended. Only the side
    that offers does: an attempt counts once."""
    began = asyncio.get_running_loop().time()
    try:
        channel = await attempt.run()
    except NoRoute:
        if attempt.negotiation.offers:
            client.report_outcome("failed")
        raise
    if attempt.negotiation.offers:
        relayed = channel.path is not None and channel.path.kind == "relayed"
        seconds = asyncio.get_running_loop().time() - began
        client.report_outcome("relay" if relayed else "direct", seconds)
    return channel
