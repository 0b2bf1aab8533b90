"""What runs above ICE between two peers: our datagrams, or the data channels of WebRTC."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util

from ice_punch.channel import Channel
from ice_punch.connection import IceConnection
from ice_punch.dtls import DtlsMachine
from ice_punch.errors import (
    ExtraMissing,
    HandshakeFailed,
    InvalidConfiguration,
    InvalidDescription,
)
from ice_punch.sdp import Description

DATAGRAM = "datagram"
"""DTLS, or none, with nothing above it."""
SCTP = "sctp"
"""Data channels, RFC 8831: what browsers have."""
TRANSPORTS = (DATAGRAM, SCTP)
MAX_MESSAGE_SIZE = 262144
"""Bytes of the largest message that `ice_punch.webrtc` takes."""
_WORDS = {DATAGRAM: "datagrams", SCTP: "data channels"}
HOW_TO_INSTALL = "pip install 'ice-punch[webrtc]'"


def has_webrtc() -> bool:
    """Whether the extra is installed; it is not imported before a peer wants it."""
    return importlib.util.find_spec("aiortc") is not None


def check_transports(wanted: tuple[str, ...], *, encrypt: bool) -> None:
    """Raises InvalidConfiguration for names that are none, and for nothing but what can not be;
    ExtraMissing where all that is wanted needs the extra."""
    if not wanted or not set(wanted) <= set(TRANSPORTS):
        raise InvalidConfiguration(f"transports are {' and '.join(TRANSPORTS)}")
    if set(wanted) == {SCTP} and not encrypt:
        raise InvalidConfiguration("data channels are always encrypted")
    if set(wanted) == {SCTP} and not has_webrtc():
        raise ExtraMissing(f"data channels need aiortc: {HOW_TO_INSTALL}")


class TransportChoice:
    """What this side can do, and from the first answer on what both do."""

    def __init__(self, wanted: tuple[str, ...], *, encrypt: bool) -> None:
        can_sctp = encrypt and has_webrtc()
        self._lacks_extra = SCTP in wanted and encrypt and not can_sctp
        self.names = tuple(name for name in wanted if name != SCTP or can_sctp)
        """As they are told to the peer: best first, or the one that was chosen."""
        self.refusal = ""
        """What the peer is told where there is nothing in common, after ``the peer refused: ``."""

    async def settle(self, theirs: tuple[str, ...] | None, remote: Description) -> None:
        """The peer offers ``theirs``, or has chosen it; None is what says nothing of it.

        Raises ExtraMissing, HandshakeFailed where there is nothing in common, and
        InvalidDescription where data channels are meant and not described.
        """
        offered = (DATAGRAM,) if theirs is None else theirs
        chosen = next((name for name in offered if name in self.names), None)
        if chosen is None:
            raise self._refused(offered)
        if chosen == SCTP:
            try:  # beside the event loop: it takes a while
                await asyncio.to_thread(importlib.import_module, "ice_punch.webrtc")
            except ExtraMissing:
                raise self._refused(offered) from None
            from ice_punch.webrtc import SctpParameters

            try:
                SctpParameters.of(remote)
            except InvalidDescription as error:
                self.refusal = str(error).replace("the peer's description", "what it was offered")
                raise
        self.names = (chosen,)

    @property
    def is_webrtc(self) -> bool:
        """Whether data channels were chosen."""
        return self.names == (SCTP,)

    def _refused(self, offered: tuple[str, ...]) -> ExtraMissing | HandshakeFailed:
        if SCTP in offered and (self._lacks_extra or SCTP in self.names):
            self.refusal = f"it lacks what data channels need: {HOW_TO_INSTALL} there"
            return ExtraMissing(f"a peer with data channels came, and they need {HOW_TO_INSTALL}")
        ours = " or ".join(_WORDS[name] for name in self.names)
        self.refusal = f"it takes {ours} only"
        if self.names == (SCTP,):
            self.refusal += f", which need {HOW_TO_INSTALL} here"
        return HandshakeFailed(f"this side takes {ours} only, and the peer has no such thing")

    @property
    def max_message_size(self) -> int | None:
        """Of our description, RFC 8841 section 6."""
        return MAX_MESSAGE_SIZE if SCTP in self.names else None

    def make_channel(
        self,
        connection: IceConnection,
        dtls: DtlsMachine | None,
        remote: Description,
        *,
        receive_queue: int,
        send_queue: int,
        newest_wins: bool,
    ) -> Channel:
        """The channel of what was chosen."""
        if self.is_webrtc:
            from ice_punch.webrtc import SctpParameters, WebRtcChannel

            assert dtls is not None
            return WebRtcChannel(
                connection,
                dtls,
                SctpParameters.of(remote),
                receive_queue=receive_queue,
                send_queue=send_queue,
                newest_wins=newest_wins,
            )
        return Channel(
            connection,
            dtls,
            receive_queue=receive_queue,
            send_queue=send_queue,
            newest_wins=newest_wins,
        )
