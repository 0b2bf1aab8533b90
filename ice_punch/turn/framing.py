"""STUN messages and ChannelData on a byte stream: RFC 8656 sections 3.1 and 12.5."""

from __future__ import annotations

from typing import Final

from ice_punch.stun import COOKIE
from ice_punch.turn.channel_data import is_channel_data

MAX_MESSAGE: Final = 20 + 0xFFFC
"""Bytes: the longest STUN message, longer than any ChannelData message."""

_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


class StreamFraming:
    """Splits what a TCP or TLS connection delivers into messages.

    A stream that holds anything else can not be read on: ``broken`` is then set, and the
    connection has to be closed. No more than an unfinished message is kept.
    """

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        """``max_message`` is in bytes; a longer message breaks the stream."""
        self.broken = False
        self._max_message = max_message
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, in order, ChannelData without its padding."""
        if self.broken:
            return []
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        start, size = 0, len(buffer)
        while size - start >= 4:
            length = int.from_bytes(buffer[start + 2 : start + 4], "big")
            first = buffer[start]
            if first < 0x40:
                # The cookie and the length tell early that this is no STUN (RFC 8489 section 6.3).
                if length & 3 or not COOKIE.startswith(bytes(buffer[start + 4 : start + 8])):
                    return self._break(messages)
                end = padded = start + 20 + length
            elif first & 0xF0 == 0x40:
                end = start + 4 + length
                padded = end + (-length & 3)
            else:
                return self._break(messages)
            if padded - start > self._max_message:
                return self._break(messages)
            if padded > size:
                break
            messages.append(bytes(buffer[start:end]))
            start = padded
        del buffer[:start]
        return messages

    @staticmethod
    def frame(message: bytes) -> bytes:
        """A message as it is written to the stream: ChannelData is padded to 4 bytes."""
        if not len(message) & 3 or not is_channel_data(message):
            return message
        return message + _PADDING[len(message) & 3]

    def _break(self, messages: list[bytes]) -> list[bytes]:
        self.broken = True
        self._buffer.clear()
        return messages
