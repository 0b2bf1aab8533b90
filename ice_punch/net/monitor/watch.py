"""Something of this host's links or addresses may have changed: told by the kernel, or found by
looking again every two seconds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import sys
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ice_punch.net.monitor.netlink import (
    GROUPS,
    AddressNews,
    LinkNews,
    NetlinkError,
    Overrun,
    parse_news,
)

POLL_INTERVAL = 2.0
"""Seconds, where the kernel does not tell."""
RECEIVE_BUFFER = 1024 * 1024
MESSAGE_SIZE = 65536
MAX_LINKS = 4096
"""Whose state is remembered. Of a link that is not, every message counts as news."""
DRAIN_LIMIT = 256
"""Messages read before other work of the event loop gets its turn."""


@dataclass(slots=True)
class WatchStats:
    messages: int = 0
    malformed: int = 0
    lost: int = 0
    """Times that the kernel had more to tell than there was room for (ENOBUFS)."""
    polls: int = 0


class NetworkWatch:
    """Tells its subscribers that something may have changed. ``network_watch`` gives the event
    loop's own: everybody on it shares one socket, open as long as anyone subscribes."""

    def __init__(
        self,
        look: Callable[[], Hashable],
        *,
        netlink: bool = sys.platform == "linux",
        interval: float = POLL_INTERVAL,
    ) -> None:
        """``look`` is what there is to see, compared with what there was, where the kernel does
        not tell (``netlink`` false, or refused). Needs a running event loop."""
        self.stats = WatchStats()
        self._look = look
        self._wants_netlink = netlink
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._subscribers: list[Callable[[], None]] = []
        self._socket: socket.socket | None = None
        self._epoll: select.epoll | None = None
        self._links: dict[int, bool] = {}
        self._seen: Hashable = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def told_by_kernel(self) -> bool:
        """Whether the kernel tells, while anyone subscribes."""
        return self._socket is not None

    def subscribe(self, on_news: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_news`` from the event loop whenever something may have changed, until what is
        returned is called."""
        self._subscribers.append(on_news)
        if len(self._subscribers) == 1:
            self._open()

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):  # called again
                self._subscribers.remove(on_news)
                if not self._subscribers:
                    self._close()

        return unsubscribe

    def _tell(self) -> None:
        for on_news in tuple(self._subscribers):
            on_news()

    def _open(self) -> None:
        if self._wants_netlink and self._open_netlink():
            return
        self._seen = self._look()
        self._timer = self._loop.call_later(self._interval, self._poll)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._reader())
            if self._epoll is not None:
                self._epoll.close()
                self._epoll = None
            self._socket.close()
            self._socket = None
        self._links.clear()

    # -- looking ------------------------------------------------------------------------------

    def _poll(self) -> None:
        self.stats.polls += 1
        self._timer = self._loop.call_later(self._interval, self._poll)
        now = self._look()
        if now != self._seen:
            self._seen = now
            self._tell()

    # -- the kernel ---------------------------------------------------------------------------

    def _reader(self) -> int:
        assert self._socket is not None
        return self._socket.fileno() if self._epoll is None else self._epoll.fileno()

    def _open_netlink(self) -> bool:
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except (AttributeError, OSError):  # no Linux, or a sandbox that lets nobody ask
            return False
        try:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind((0, GROUPS))
            if not isinstance(self._loop, asyncio.SelectorEventLoop):
                # libuv stops polling a descriptor for good once it reports an error, which is
                # how lost messages show. Around the socket, an epoll descriptor is readable.
                self._epoll = select.epoll()
                self._epoll.register(sock.fileno(), select.EPOLLIN)
            self._socket = sock
            self._loop.add_reader(self._reader(), self._on_readable)
        except (OSError, NotImplementedError):
            sock.close()
            self._socket = None
            if self._epoll is not None:
                self._epoll.close()
                self._epoll = None
            return False
        return True

    def _on_readable(self) -> None:
        news = False
        for _ in range(DRAIN_LIMIT):
            if self._socket is None:
                return
            try:
                data, sender = self._socket.recvfrom(MESSAGE_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                # ENOBUFS: messages were lost, and what they said only a new look can tell.
                self.stats.lost += 1
                self._links.clear()
                news = True
                continue
            if sender[0] != 0:
                continue  # not from the kernel: any process may send to any other
            news |= self._is_news(data)
        if news:
            self._tell()

    def _is_news(self, data: bytes) -> bool:
        self.stats.messages += 1
        try:
            told = parse_news(data)
        except NetlinkError:
            self.stats.malformed += 1
            return True
        matters = [self._matters(one) for one in told]  # every one is remembered
        return any(matters)

    def _matters(self, news: AddressNews | LinkNews | Overrun) -> bool:
        if not isinstance(news, LinkNews):
            return True
        # Links tell much that is none of our business: statistics, names of access points.
        before = self._links.get(news.index)
        if news.gone:
            self._links.pop(news.index, None)
            return True
        if before is not None or len(self._links) < MAX_LINKS:
            self._links[news.index] = news.running
        return before is not news.running


_watches: weakref.WeakValueDictionary[int, NetworkWatch] = weakref.WeakValueDictionary()
"""By the id of the event loop, which lives as long as its watch."""


def network_watch(look: Callable[[], Hashable]) -> NetworkWatch:
    """The watch that all connections of the running event loop share. ``look`` counts for the
    first of them."""
    loop = id(asyncio.get_running_loop())
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = NetworkWatch(look)
    return watch
