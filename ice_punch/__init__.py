"""Direct datagram channels between two programs behind NATs: ICE without WebRTC.

``listen`` and ``connect`` are all that most programs need; ``IceConnection`` is for those that
bring their own signaling. Every name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ice_punch.version import __version__

_HOME = {
    "Cause": "ice_punch.diagnosis",
    "Channel": "ice_punch.channel",
    "ChannelStats": "ice_punch.channel_stats",
    "DetachedSocket": "ice_punch.detached",
    "Diagnosis": "ice_punch.diagnosis",
    "GatheringOptions": "ice_punch.net.gatherer",
    "IceConnection": "ice_punch.connection",
    "IceServer": "ice_punch.net.ice_server",
    "NetworkChanged": "ice_punch.net.monitor",
    "Path": "ice_punch.path",
    "PeerOptions": "ice_punch.peer",
    "Recording": "ice_punch.recording",
    "RecordingFiles": "ice_punch.net.recording_file",
    "Replay": "ice_punch.recording",
    "connect": "ice_punch.peer",
    "diagnose": "ice_punch.diagnosis",
    "listen": "ice_punch.peer",
    "replay": "ice_punch.recording",
    **dict.fromkeys(
        (
            "AuthenticationRejected",
            "ChannelClosed",
            "ConsentLost",
            "DatagramRefused",
            "DatagramTooLarge",
            "DetachFailed",
            "ExtraMissing",
            "FingerprintMismatch",
            "GatheringFailed",
            "HandshakeFailed",
            "IcePunchError",
            "InterfaceNotFound",
            "InvalidConfiguration",
            "InvalidDescription",
            "InvalidLink",
            "InvalidRecording",
            "MessageTooLarge",
            "NoRoute",
            "PeerSilent",
            "PortRangeExhausted",
            "RecordingAltered",
            "RecordingCutShort",
            "RecordingVersionMismatch",
            "RelayDenied",
            "RestartRefused",
            "ServerUnreachable",
            "SignalingFailed",
            "TransferFailed",
            "WrongSecret",
        ),
        "ice_punch.errors",
    ),
}

if TYPE_CHECKING:
    from ice_punch.channel import Channel
    from ice_punch.channel_stats import ChannelStats
    from ice_punch.connection import IceConnection
    from ice_punch.detached import DetachedSocket
    from ice_punch.diagnosis import Cause, Diagnosis, diagnose
    from ice_punch.errors import (
        AuthenticationRejected,
        ChannelClosed,
        ConsentLost,
        DatagramRefused,
        DatagramTooLarge,
        DetachFailed,
        ExtraMissing,
        FingerprintMismatch,
        GatheringFailed,
        HandshakeFailed,
        IcePunchError,
        InterfaceNotFound,
        InvalidConfiguration,
        InvalidDescription,
        InvalidLink,
        InvalidRecording,
        MessageTooLarge,
        NoRoute,
        PeerSilent,
        PortRangeExhausted,
        RecordingAltered,
        RecordingCutShort,
        RecordingVersionMismatch,
        RelayDenied,
        RestartRefused,
        ServerUnreachable,
        SignalingFailed,
        TransferFailed,
        WrongSecret,
    )
    from ice_punch.net.gatherer import GatheringOptions
    from ice_punch.net.ice_server import IceServer
    from ice_punch.net.monitor import NetworkChanged
    from ice_punch.net.recording_file import RecordingFiles
    from ice_punch.path import Path
    from ice_punch.peer import PeerOptions, connect, listen
    from ice_punch.recording import Recording, Replay, replay

__all__ = [
    "AuthenticationRejected",
    "Cause",
    "Channel",
    "ChannelClosed",
    "ChannelStats",
    "ConsentLost",
    "DatagramRefused",
    "DatagramTooLarge",
    "DetachFailed",
    "DetachedSocket",
    "Diagnosis",
    "ExtraMissing",
    "FingerprintMismatch",
    "GatheringFailed",
    "GatheringOptions",
    "HandshakeFailed",
    "IceConnection",
    "IcePunchError",
    "IceServer",
    "InterfaceNotFound",
    "InvalidConfiguration",
    "InvalidDescription",
    "InvalidLink",
    "InvalidRecording",
    "MessageTooLarge",
    "NetworkChanged",
    "NoRoute",
    "Path",
    "PeerOptions",
    "PeerSilent",
    "PortRangeExhausted",
    "Recording",
    "RecordingAltered",
    "RecordingCutShort",
    "RecordingFiles",
    "RecordingVersionMismatch",
    "RelayDenied",
    "Replay",
    "RestartRefused",
    "ServerUnreachable",
    "SignalingFailed",
    "TransferFailed",
    "WrongSecret",
    "__version__",
    "connect",
    "diagnose",
    "listen",
    "replay",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
