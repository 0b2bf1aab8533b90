"""A link as a QR code of half-block characters."""

from __future__ import annotations

import io
import sys

QUIET_ZONE = 2
"""Modules around the code. ISO/IEC 18004 wants 4; cameras do with less and lines are dear."""


def qr_code(text: str) -> str | None:
    """The code for a dark terminal; None where standard error can not show it."""
    import segno

    code = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(code, border=QUIET_ZONE, compact=True)
    shown = code.getvalue()
    try:
        shown.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return None
    return shown
