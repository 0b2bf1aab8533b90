"""What a piece of asynchronous work leaves behind: tasks, sockets, and errors nobody saw."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator

from ice_punch.net.udp import UdpSocket


def open_sockets() -> int:
    """UDP sockets of this process that were not closed."""
    gc.collect()
    found = [o for o in gc.get_objects() if type(o) is UdpSocket]  # isinstance asks dead proxies
    return sum(not socket.closed for socket in found)


@contextlib.asynccontextmanager
async def nothing_left_behind(within: float = 2.0) -> AsyncIterator[None]:
    """Fail if the body leaves tasks or UDP sockets for longer than ``within`` seconds, or if
    anything is reported to the event loop's exception handler or warned of."""
    loop = asyncio.get_running_loop()
    before, sockets = asyncio.all_tasks(), open_sockets()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        warnings.simplefilter("always", RuntimeWarning)
        try:
            yield
            deadline = loop.time() + within
            while (left := asyncio.all_tasks() - before) or open_sockets() > sockets:
                if loop.time() > deadline:
                    break
                await asyncio.sleep(0.01)
            assert not left, f"tasks were left: {left}"
            assert open_sockets() == sockets, "UDP sockets were left"
        finally:
            loop.set_exception_handler(None)
    assert not complaints, complaints
    # asyncio's happy eyeballs forget a TCP socket that is cancelled; it is closed when collected.
    seen = [str(warning.message) for warning in caught]
    assert not [text for text in seen if "type=1," not in text], seen
