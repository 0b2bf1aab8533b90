"""Records that arrived before they may be looked at."""

from __future__ import annotations

MAX_RECORDS = 64
MAX_BYTES = 64 * 1024


class HeldRecords:
    """A bounded queue: the peer repeats what does not fit, so the oldest stay."""

    __slots__ = ("_bytes", "_records")

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._records)

    def add(self, record: bytes) -> bool:
        """Keep a record; False when there is no room."""
        if len(self._records) >= MAX_RECORDS or self._bytes + len(record) > MAX_BYTES:
            return False
        self._records.append(record)
        self._bytes += len(record)
        return True

    def take(self) -> list[bytes]:
        """All of them, which are then no longer held."""
        taken, self._records, self._bytes = self._records, [], 0
        return taken
