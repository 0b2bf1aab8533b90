"""What a server logs: an event and its fields, as words for people and as data for programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping


def tell(
    log: logging.Logger, event: str, fields: Mapping[str, object], level: int = logging.INFO
) -> None:
    """Log ``event`` with ``name=value`` for every field; the record's ``signaling`` has them."""
    if log.isEnabledFor(level):
        words = [f"{name}={_word(value)}" for name, value in fields.items()]
        log.log(level, "%s", " ".join([event, *words]), extra={"signaling": dict(fields)})


def _word(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text or not text.isprintable() else text
