"""A socket that another program takes over once the hole is punched."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import socket
from dataclasses import dataclass

from ice_punch.datagram import Address
from ice_punch.errors import InvalidConfiguration
from ice_punch.path import Path
from ice_punch.stun import Message, MessageClass, Method

KEEP_ALIVE = 15.0
"""Seconds, RFC 8445 section 11."""
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)
"""Another program that has the socket too may have made it block."""


@dataclass(frozen=True, slots=True)
class DetachedSocket:
    """A UDP socket that is connected to the peer, without any of this package behind it.

    It does not block, never fragments, and belongs to whoever has it: close it, or hand its
    descriptor on.
    """

    socket: socket.socket
    local: Address
    """Ours, as this host sees it."""
    remote: Address
    """The peer's, as this host sees it."""
    path: Path
    """The way datagrams took at last."""
    max_datagram_size: int
    """Bytes: what the path is known to carry. Nobody looks after it any more."""

    def fileno(self) -> int:
        return self.socket.fileno()

    def keep_alive(self, interval: float = KEEP_ALIVE) -> asyncio.Task[None]:
        """Keep the NATs on the way from forgetting it: a STUN Binding indication every
        ``interval`` seconds, until the task is cancelled or the socket closed.

        The peer's program sees these 28 bytes: what expects STUN ignores them, what does not has to
        be able to (WireGuard and QUIC are). Nothing is read: another program that has the socket
        too gets every datagram. Raises InvalidConfiguration for an ``interval`` that is none.
        """
        if not 0 < interval < math.inf:
            raise InvalidConfiguration(f"no keep-alive can be sent every {interval} s")
        return asyncio.get_running_loop().create_task(self._keep_alive(interval))

    async def _keep_alive(self, interval: float) -> None:
        while self.socket.fileno() >= 0:
            indication = Message(Method.BINDING, MessageClass.INDICATION, secrets.token_bytes(12))
            # A full buffer, or a peer whose program has yet to begin: the next one may arrive.
            with contextlib.suppress(OSError):
                self.socket.send(indication.to_bytes(), _DONT_WAIT)
            await asyncio.sleep(interval)

    def close(self) -> None:
        """May be called twice."""
        self.socket.close()
