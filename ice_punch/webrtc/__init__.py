"""WebRTC on this ICE and this DTLS: data channels with browsers and other stacks (RFC 8831).

Needs aiortc, for its SCTP: ``pip install 'ice-punch[webrtc]'``. Importing it without raises
ExtraMissing.
"""

from __future__ import annotations

from ice_punch.errors import ExtraMissing

try:
    import aiortc.rtcsctptransport  # noqa: F401
except ImportError as error:
    raise ExtraMissing("ice_punch.webrtc needs aiortc: pip install 'ice-punch[webrtc]'") from error

from ice_punch.webrtc.aioice_connection import AioiceConnection
from ice_punch.webrtc.channel import WebRtcChannel
from ice_punch.webrtc.data_channel import DataChannel, DataChannelStats
from ice_punch.webrtc.files import FileArrived, FileReceiver, FileSent, send_file
from ice_punch.webrtc.ice_gatherer import IceGatherer
from ice_punch.webrtc.parameters import SctpParameters
from ice_punch.webrtc.peer import TrickledCandidate, WebRtcPeer
from ice_punch.webrtc.peer_connection import PeerConnection, peer_connection

__all__ = [
    "AioiceConnection",
    "DataChannel",
    "DataChannelStats",
    "FileArrived",
    "FileReceiver",
    "FileSent",
    "IceGatherer",
    "PeerConnection",
    "SctpParameters",
    "TrickledCandidate",
    "WebRtcChannel",
    "WebRtcPeer",
    "peer_connection",
    "send_file",
]
