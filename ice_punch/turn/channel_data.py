"""ChannelData messages: RFC 8656 sections 12.4 to 12.6."""

from __future__ import annotations

from typing import Final

HEADER_SIZE: Final = 4


def is_channel_data(message: bytes) -> bool:
    """By the first byte, 64 to 79: RFC 8656 section 12, table 3."""
    return len(message) >= HEADER_SIZE and message[0] & 0xF0 == 0x40


def encode_channel_data(channel: bytes, data: bytes) -> bytes:
    """Without padding, as over UDP (section 12.5). ``channel`` is the number, 2 bytes; ``data`` has
    at most 65,535."""
    return b"".join((channel, len(data).to_bytes(2, "big"), data))


def decode_channel_data(message: bytes) -> bytes | None:
    """The application data; None when the length is beyond the message (section 12.6). What
    follows the data is padding."""
    end = HEADER_SIZE + (message[2] << 8 | message[3])
    return None if end > len(message) else message[HEADER_SIZE:end]
