"""Secrets come from files: arguments and environments are seen by others."""

from __future__ import annotations

from pathlib import Path

from ice_punch.errors import InvalidConfiguration

_MAX = 64 * 1024


def read_secret(path: str, switch: str) -> bytes:
    """What is in the file, white space around it left out. Raises InvalidConfiguration."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidConfiguration(f"{switch} {path}: {why}") from None
    if len(data) > _MAX:
        raise InvalidConfiguration(f"{switch} {path}: more than {_MAX} bytes is no secret")
    return data.strip()
