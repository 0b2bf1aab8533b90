"""Signaling for ``ice_punch``: rooms in which peers exchange sealed payloads.

Names are imported when they are first used, so that a link can be parsed without a web server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signaling.auth import AuthMode, Door, Origins, TrustedProxies
    from signaling.backends.redis import RedisBackend
    from signaling.client import ClientState, SignalingClient
    from signaling.codes import SpokenCode
    from signaling.errors import (
        BadRoom,
        BusUnreachable,
        ClientClosed,
        CodeNotFound,
        CodeSpent,
        EngineMissing,
        HookFailed,
        InvalidCode,
        InvalidIceServer,
        InvalidKey,
        InvalidLink,
        InvalidMessage,
        InvalidPolicy,
        InvalidRedisUrl,
        InvalidServerUrl,
        InvalidToken,
        ListenFailed,
        MessageTooLarge,
        ProtocolRefused,
        RoomClosed,
        RoomFull,
        SealBroken,
        ServerRefused,
        ServerUnreachable,
        SessionLost,
        SessionReplaced,
        SignalingError,
        TokenExpired,
        Unauthorized,
        VersionRefused,
        WrongCode,
    )
    from signaling.events import (
        Acknowledged,
        Disconnected,
        Event,
        IceServersChanged,
        Peer,
        PeerAway,
        PeerBack,
        PeerJoined,
        PeerLeft,
        Rejected,
        Resumed,
        SignalReceived,
        Unavailable,
        Welcomed,
    )
    from signaling.hooks import Authorizer, Denied, Grant, IceRequest, IceServerSource, Metrics
    from signaling.ice_hook import HookRequest, IceHook
    from signaling.limits import Limits
    from signaling.link import Link, ServerUrl
    from signaling.messages import IceInfo, IceServerInfo, Kind
    from signaling.metrics import ServerMetrics
    from signaling.negotiation import AskForOffer, MakeOffer, Negotiation
    from signaling.randomness import RandomSource
    from signaling.rooms import Rooms
    from signaling.sealing import Sealer
    from signaling.server import SignalingServer
    from signaling.spoken import CodeOffer, fetch_link
    from signaling.tokens import TokenKey, TokenVerifier, mint_token
    from signaling.turn_credentials import AllIceServers, TurnCredentials, TurnServer

_HOMES = {
    "backends.redis": ("RedisBackend",),
    "metrics": ("ServerMetrics",),
    "ice_hook": ("HookRequest", "IceHook"),
    "turn_credentials": ("AllIceServers", "TurnCredentials", "TurnServer"),
    "tokens": ("TokenKey", "TokenVerifier", "mint_token"),
    "auth": ("AuthMode", "Door", "Origins", "TrustedProxies"),
    "client": ("ClientState", "SignalingClient"),
    "codes": ("SpokenCode",),
    "errors": (
        "InvalidKey",
        "InvalidToken",
        "InvalidPolicy",
        "InvalidIceServer",
        "HookFailed",
        "InvalidRedisUrl",
        "BusUnreachable",
        "BadRoom",
        "ClientClosed",
        "CodeNotFound",
        "CodeSpent",
        "EngineMissing",
        "InvalidCode",
        "InvalidLink",
        "InvalidMessage",
        "InvalidServerUrl",
        "ListenFailed",
        "MessageTooLarge",
        "ProtocolRefused",
        "RoomClosed",
        "RoomFull",
        "SealBroken",
        "ServerRefused",
        "ServerUnreachable",
        "SessionLost",
        "SessionReplaced",
        "SignalingError",
        "TokenExpired",
        "Unauthorized",
        "VersionRefused",
        "WrongCode",
    ),
    "events": (
        "Acknowledged",
        "Disconnected",
        "Event",
        "IceServersChanged",
        "Peer",
        "PeerAway",
        "PeerBack",
        "PeerJoined",
        "PeerLeft",
        "Rejected",
        "Resumed",
        "SignalReceived",
        "Unavailable",
        "Welcomed",
    ),
    "hooks": ("Authorizer", "Denied", "Grant", "IceRequest", "IceServerSource", "Metrics"),
    "limits": ("Limits",),
    "link": ("Link", "ServerUrl"),
    "messages": ("IceInfo", "IceServerInfo", "Kind"),
    "negotiation": ("AskForOffer", "MakeOffer", "Negotiation"),
    "randomness": ("RandomSource",),
    "rooms": ("Rooms",),
    "sealing": ("Sealer",),
    "server": ("SignalingServer",),
    "spoken": ("CodeOffer", "fetch_link"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})


__all__ = [
    "Acknowledged",
    "AllIceServers",
    "AskForOffer",
    "AuthMode",
    "Authorizer",
    "BadRoom",
    "BusUnreachable",
    "ClientClosed",
    "ClientState",
    "CodeNotFound",
    "CodeOffer",
    "CodeSpent",
    "Denied",
    "Disconnected",
    "Door",
    "EngineMissing",
    "Event",
    "Grant",
    "HookFailed",
    "HookRequest",
    "IceHook",
    "IceInfo",
    "IceRequest",
    "IceServerInfo",
    "IceServerSource",
    "IceServersChanged",
    "InvalidCode",
    "InvalidIceServer",
    "InvalidKey",
    "InvalidLink",
    "InvalidMessage",
    "InvalidPolicy",
    "InvalidRedisUrl",
    "InvalidServerUrl",
    "InvalidToken",
    "Kind",
    "Limits",
    "Link",
    "ListenFailed",
    "MakeOffer",
    "MessageTooLarge",
    "Metrics",
    "Negotiation",
    "Origins",
    "Peer",
    "PeerAway",
    "PeerBack",
    "PeerJoined",
    "PeerLeft",
    "ProtocolRefused",
    "RandomSource",
    "RedisBackend",
    "Rejected",
    "Resumed",
    "RoomClosed",
    "RoomFull",
    "Rooms",
    "SealBroken",
    "Sealer",
    "ServerMetrics",
    "ServerRefused",
    "ServerUnreachable",
    "ServerUrl",
    "SessionLost",
    "SessionReplaced",
    "SignalReceived",
    "SignalingClient",
    "SignalingError",
    "SignalingServer",
    "SpokenCode",
    "TokenExpired",
    "TokenKey",
    "TokenVerifier",
    "TrustedProxies",
    "TurnCredentials",
    "TurnServer",
    "Unauthorized",
    "Unavailable",
    "VersionRefused",
    "Welcomed",
    "WrongCode",
    "fetch_link",
    "mint_token",
]
