"""Names that a peer gives to files, made fit to be used here."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 255
"""Bytes of UTF-8: what file systems take."""
ROOM_FOR_NUMBER = 8
"""Bytes kept free for `` (123)``."""
NAMELESS = "file"

_SEPARATORS = re.compile(r"[/\\]")
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def safe_name(name: str) -> str:
    """The last part of ``name``, without what a file system or a terminal would take amiss: no
    control characters, no leading dot, at most 247 bytes. Never empty."""
    base = _SEPARATORS.split(unicodedata.normalize("NFC", name))[-1]
    base = "".join(c for c in base if c.isprintable())
    base = _NOT_ON_WINDOWS.sub("_", base).strip()
    if base.startswith("."):
        base = "_" + base.lstrip(".")
    base = base.rstrip(". ")
    if base in ("", "_"):
        return NAMELESS
    if _DEVICES.fullmatch(base):
        base = "_" + base
    return _shortened(base)


def numbered(name: str, number: int) -> str:
    """``name`` for the file that comes when ``number`` of that name are there already."""
    if not number:
        return name
    stem, dot, suffix = name.rpartition(".")
    return f"{stem} ({number}).{suffix}" if dot and stem else f"{name} ({number})"


def _shortened(name: str) -> str:
    most = MAX_NAME - ROOM_FOR_NUMBER
    if len(name.encode(errors="replace")) <= most:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 16:
        stem, dot, suffix = name, "", ""
    end = dot + suffix
    room = most - len(end.encode(errors="replace"))
    return stem.encode(errors="replace")[:room].decode(errors="ignore") + end
