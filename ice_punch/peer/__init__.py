"""Two peers, one link: signaling, ICE and DTLS brought together into a Channel."""

from __future__ import annotations

from ice_punch.peer.connector import Connector
from ice_punch.peer.listener import Listener
from ice_punch.peer.options import (
    PeerEvent,
    PeerOptions,
    RemoteCandidateFound,
    SignalingChanged,
)

__all__ = [
    "Connector",
    "Listener",
    "PeerEvent",
    "PeerOptions",
    "RemoteCandidateFound",
    "SignalingChanged",
    "connect",
    "listen",
]


def listen(server: str, options: PeerOptions | None = None, *, max_peers: int = 16) -> Listener:
    """Make a link on the signaling server at ``server`` (``http://host:port``) and wait there.

    ::

        async with ice_punch.listen("https://signal.example.org") as listener:
            print(listener.link)
            async with listener.accept() as channel:
                await channel.send(b"hello")

    ``max_peers`` is how many the room holds, this side included. Raises InvalidConfiguration at
    once, SignalingFailed on entering; ``accept`` says what it raises.
    """
    return Listener(server, options, max_peers=max_peers)


def connect(link: str, options: PeerOptions | None = None) -> Connector:
    """Reach the peer that made ``link``.

    ::

        async with ice_punch.connect(link) as channel:
            async for datagram in channel:
                ...

    Raises InvalidLink and InvalidConfiguration at once; on entering SignalingFailed, PeerSilent,
    WrongSecret, NoRoute, GatheringFailed, AuthenticationRejected, RelayDenied, HandshakeFailed or
    FingerprintMismatch.
    """
    return Connector(link, options)
