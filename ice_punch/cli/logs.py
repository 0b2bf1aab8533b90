"""The server's log on standard error: lines for people, or JSON objects for programs."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """One object a line: ``event`` is ``log``, and what the record's ``signaling`` fields say.

    ``worker`` is the number of the process, where there are several.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "event": "log",
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._worker is not None:
            told["worker"] = self._worker
        fields = getattr(record, "signaling", None)
        if isinstance(fields, dict):
            told["fields"] = fields
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def show_log(*, as_json: bool, worker: int | None = None) -> None:
    """Send what is logged from INFO on to standard error."""
    handler = logging.StreamHandler()
    who = "" if worker is None else f" worker={worker}"
    handler.setFormatter(
        JsonLines(worker)
        if as_json
        else logging.Formatter(f"%(asctime)s %(levelname)s %(name)s{who} %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
