"""A bounded queue that can end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """What one task puts in and another takes out, in order; putting waits while it is full."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = asyncio.Event()
        self._ended = False

    async def put(self, item: T) -> None:
        """Add an item; after the end it is dropped."""
        while len(self._items) >= self._size and not self._ended:
            await self._change()
        if not self._ended:
            self._items.append(item)
            self._changed.set()

    async def get(self) -> T | None:
        """The next item, or ``None`` when the end is reached."""
        while not self._items:
            if self._ended:
                return None
            await self._change()
        item = self._items.popleft()
        self._changed.set()
        return item

    def end(self, *last: T) -> None:
        """Add ``last`` and take nothing more. What is inside can still be taken out."""
        if not self._ended:
            self._items.extend(last)
            self._ended = True
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
