"""Which DATA chunks have come (RFC 9260 section 6.2), as an acknowledgement tells it."""

from __future__ import annotations

from bisect import bisect_right

TSN_MODULO = 2**32


class ReceivedTsns:
    """TSNs up to one have all come; beyond are gaps. A TSN costs the same whatever the order.

    Positions are how far a TSN is from where the count began, and never wrap around.
    """

    def __init__(self, cumulative: int) -> None:
        """``cumulative`` is the TSN before the peer's first (RFC 9260 section 3.3.2)."""
        self._begin = cumulative
        self.position = 0
        """Of the last TSN before the first gap."""
        self._firsts: list[int] = []
        """Of the blocks that came after a gap, as positions in order; ``_lasts`` are their ends."""
        self._lasts: list[int] = []

    @property
    def cumulative(self) -> int:
        """The last TSN before the first gap."""
        return (self._begin + self.position) % TSN_MODULO

    @property
    def ahead(self) -> int:
        """How many have come after a gap."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    @property
    def has_gaps(self) -> bool:
        return bool(self._firsts)

    def place(self, tsn: int) -> int:
        """The position of a TSN, which is not half the numbers away (RFC 9260 section 1.6)."""
        ahead = (tsn - self._begin - self.position) % TSN_MODULO
        if ahead >= TSN_MODULO // 2:
            ahead -= TSN_MODULO
        return self.position + ahead

    def has(self, position: int) -> bool:
        """Whether this one has come."""
        if position <= self.position:
            return True
        block = bisect_right(self._firsts, position) - 1
        return block >= 0 and position <= self._lasts[block]

    def add(self, position: int) -> None:
        """This one, which had not come yet, has."""
        firsts, lasts = self._firsts, self._lasts
        if position == self.position + 1:
            self.position = position
            if firsts and firsts[0] == position + 1:
                self.position = lasts.pop(0)
                del firsts[0]
            return
        block = bisect_right(firsts, position)
        grows = block > 0 and lasts[block - 1] == position - 1
        if block < len(firsts) and firsts[block] == position + 1:
            if grows:
                lasts[block - 1] = lasts[block]
                del firsts[block], lasts[block]
            else:
                firsts[block] = position
        elif grows:
            lasts[block - 1] = position
        else:
            firsts.insert(block, position)
            lasts.insert(block, position)

    def skip(self, position: int) -> None:
        """The peer will send nothing up to this one any more (RFC 3758 section 3.6)."""
        if position <= self.position:
            return
        passed = bisect_right(self._firsts, position + 1)
        self.position = position
        if passed:
            self.position = max(position, self._lasts[passed - 1])
            del self._firsts[:passed], self._lasts[:passed]

    def gaps(self, most: int) -> list[tuple[int, int]]:
        """The first blocks after a gap, as far from `cumulative` as their ends are."""
        at = self.position
        blocks = zip(self._firsts[:most], self._lasts[:most], strict=True)
        return [(first - at, last - at) for first, last in blocks]
