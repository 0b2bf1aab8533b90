"""A relayed candidate's transport: an allocation on a TURN server, RFC 8656."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial

from ice_punch.datagram import Address
from ice_punch.errors import (
    AuthenticationRejected,
    IcePunchError,
    InvalidConfiguration,
    RelayDenied,
    ServerUnreachable,
)
from ice_punch.net import turn_path
from ice_punch.net.host_socket import HostSocket
from ice_punch.net.ice_server import IceServer
from ice_punch.net.srv import resolve_server
from ice_punch.net.turn_session import Elsewhere, NoAllocation, TurnSession, TurnTarget
from ice_punch.net.udp import DatagramHandler, ErrorHandler
from ice_punch.turn import (
    Allocated,
    AllocationLost,
    Family,
    PeerRefused,
    PeerUnreachable,
    TurnClientStats,
    TurnEvent,
)

DEFAULT_TIMEOUT = 10.0
ATTEMPT_DELAY = 0.25
"""Seconds between attempts at a server's several addresses (RFC 8305 section 5)."""
MAX_LOCAL_ADDRESSES = 3
"""Sockets tried where the server says that ours has an allocation (RFC 8656 section 7.4)."""

_INSTEAD: dict[Family, Family | None] = {"dual": 4, 4: 6, 6: None}
"""What may be had of a server that answers 440: a request for something else is no repetition (RFC
8656 section 7.4)."""

_HARD_ICMP = frozenset(((4, 3, 2), (4, 3, 3), (6, 1, 4)))
"""IP version, type and code: protocol or port unreachable (RFC 1122 section 3.2.2.1, RFC 4443)."""


class Relay:
    """An open allocation.

    ``on_closed`` is told, once and in one sentence, when the allocation is lost: the connection
    broke or the server would not renew it. A ``close`` of ours is not told.
    """

    def __init__(
        self, server: IceServer, session: TurnSession, allocated: Allocated, asked: Family
    ) -> None:
        """``Relay.open`` makes one."""
        self.server = server
        self.relayed_addresses = allocated.relayed
        """One, or one of each family."""
        self.relayed_address = allocated.relayed[0]
        self.may_give_ipv6 = (
            asked == "dual" and len(allocated.relayed) == 1 and not allocated.refused
        )
        """Both families were asked for, one came, and the server did not say that there is no
        other. Those from before RFC 8656 give it in an allocation of its own."""
        self.mapped_address = allocated.mapped
        """Our address as the server sees it, from the Allocate response (RFC 8656 section 7.3);
        a server-reflexive candidate if it was asked from a host candidate's socket."""
        self.base = session.local if session.shared else None
        """The host candidate from whose socket the server was asked; None for a socket of the
        relay's own."""
        self.local_ip = session.local[0]
        """Where we are, towards the server."""
        self.server_address = session.server
        self.on_closed: Callable[[str], None] | None = None
        self.on_error: ErrorHandler | None = None
        """Told of peers that the server refuses to relay to, or that ICMP says are not there."""
        self._relayed_ips = [ip for ip, _ in allocated.relayed]
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._hidden: set[str] = set()
        session.on_event = self._on_event

    @classmethod
    async def open(
        cls,
        server: IceServer,
        *,
        on_datagram: DatagramHandler,
        on_error: ErrorHandler | None = None,
        on_closed: Callable[[str], None] | None = None,
        local_ip: str | None = None,
        port_range: tuple[int, int] | None = None,
        ipv4: bool = True,
        ipv6: bool = True,
        timeout: float = DEFAULT_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        cafile: str | None = None,
        family: Family = 4,
        addresses: Sequence[Address] = (),
        host_towards: Callable[[Address], HostSocket | None] = lambda server: None,
    ) -> Relay:
        """Ask a ``turn`` or ``turns`` server for an allocation, within ``timeout`` seconds.

        ``on_datagram`` gets what peers send: data, the peer, the relayed address. ``local_ip`` and
        ``port_range`` bind the socket towards the server; ``ipv4`` and ``ipv6`` tell which of its
        addresses to use, and ``addresses`` what its name was resolved to already. Over UDP the
        socket of ``host_towards(server)`` is used where it gives one. ``family`` is that of the
        relayed address, ``dual`` one of each, or one of them where the server can no more. A
        ``turns`` server's certificate has to be valid for its name: by the system's authorities,
        those of ``cafile`` (PEM), or ``ssl_context``.

        Raises AuthenticationRejected, RelayDenied, ServerUnreachable, and InvalidConfiguration for
        a ``stun`` server or a bad range; PortRangeExhausted, InterfaceNotFound.
        """
        if not server.is_relay:
            raise InvalidConfiguration(f"{server.uri} is no TURN server")
        tls = (ssl_context or _tls_context(cafile)) if server.is_tls else None
        try:
            async with asyncio.timeout(timeout):
                addresses = addresses or await resolve_server(
                    server,
                    ipv4=ipv4 and (local_ip is None or ":" not in local_ip),
                    ipv6=ipv6 and (local_ip is None or ":" in local_ip),
                    timeout=timeout,
                )
                targets = [
                    TurnTarget(
                        address,
                        server.host,
                        "tls" if server.is_tls else "tcp" if server.transport == "tcp" else "udp",
                        server.username,
                        server.password,
                        local_ip,
                        port_range,
                        tls,
                        family,
                        host_towards(address),
                    )
                    for address in addresses
                ]
                relay = await _first(
                    [partial(cls._open_at, server, target, on_datagram) for target in targets]
                )
        except TimeoutError:
            raise ServerUnreachable(
                f"{server.uri} did not answer within {timeout:g} s", outcome="silent"
            ) from None
        relay.on_error = on_error
        relay.on_closed = on_closed
        return relay

    @classmethod
    async def _open_at(
        cls, server: IceServer, target: TurnTarget, on_datagram: DatagramHandler
    ) -> Relay:
        """At one address, or where the server there sends us."""
        tried: dict[Address, float] = {}
        mismatches = 0
        wanted = target.family
        while True:
            try:
                session, allocated = await TurnSession.open(target, on_datagram, tried)
                return cls(server, session, allocated, target.family)
            except Elsewhere as there:
                # The client refuses to go in circles (RFC 8489 section 10).
                target = replace(target, address=there.server, name=there.domain or target.name)
                tried = there.tried
            except NoAllocation as failed:
                instead = _INSTEAD[target.family]
                if failed.code == 440 and wanted == "dual" and instead is not None:
                    target = replace(target, family=instead)
                    continue
                mismatches += failed.code == 437
                target = replace(target, host=None)
                if failed.code != 437 or mismatches == MAX_LOCAL_ADDRESSES:
                    raise _refused(server, failed.code, failed.reason) from None
            except IcePunchError:
                raise
            except ssl.SSLCertVerificationError as error:
                raise ServerUnreachable(
                    f"the certificate of {server.uri} is not accepted: {error.verify_message}"
                ) from None
            except OSError as error:
                raise ServerUnreachable(
                    f"{server.uri} can not be reached: {turn_path.why(error)}"
                ) from None

    @property
    def stats(self) -> TurnClientStats:
        return self._session.stats

    def send(self, data: bytes, destination: Address) -> bool:
        """Have the server send a datagram to a peer. Never blocks.

        False: it was dropped. While the peer's permission is asked for, the newest datagrams are
        kept. ``destination`` has an IP address, not a name.
        """
        if self._closed or destination[0] in self._hidden:
            return False
        taken = self._session.send(data, destination)
        if not taken and (refusal := self._session.refusal(destination)) is not None:
            self._loop.call_soon(self._report_refusal, destination, *refusal)
        return taken

    @property
    def congested(self) -> bool:
        """Whether data had better wait: the way to the server takes no more for now."""
        return self._session.congested

    def set_writable_handler(self, handler: Callable[[], None] | None) -> None:
        """Have ``handler`` called when what was `congested` is so no more."""
        self._session.set_writable_handler(handler)

    def permit(self, peer: Address) -> None:
        """Have the server take what comes from this peer's IP address before anything is sent
        there: what the peer sends first then arrives. Of another family than the relayed addresses
        it is left out."""
        if self._closed or peer[0] in self._hidden:
            return
        if any((":" in peer[0]) == (":" in ip) for ip in self._relayed_ips):
            self._session.permit(peer)

    async def close(self) -> None:
        """Give the allocation back (RFC 8656 section 8: a Refresh of lifetime 0) and disconnect,
        within a second. May be called twice."""
        if not self._closed:
            self._closed = True
            await self._session.close()

    def tells(self, base: Address) -> bool:
        """Whether ``mapped_address`` is that of this host candidate."""
        return self.base == base and self.mapped_address is not None

    def hide(self, ips: set[str]) -> None:
        """Tell the server nothing of peers at these addresses; what is added later counts too."""
        self._hidden = ips

    def drop(self) -> None:
        """Our address is gone, and with it every way to give the allocation back. Not told to
        ``on_closed``."""
        if not self._closed:
            self._closed = True
            self._session.disconnect()

    @property
    def closed(self) -> bool:
        return self._closed

    def _on_event(self, event: TurnEvent) -> None:
        if isinstance(event, PeerRefused):
            self._report_refusal(event.peer, event.code, event.reason)
        elif isinstance(event, PeerUnreachable):
            version = 6 if ":" in event.peer[0] else 4
            if (version, event.type, event.code) in _HARD_ICMP and event.peer[1] != 0:
                self._report(event.peer, errno.ECONNREFUSED, "the peer's host refused a datagram")
        elif isinstance(event, AllocationLost) and not self._closed:
            self._closed = True
            self._session.disconnect()
            if self.on_closed is not None:
                self.on_closed(f"the relay of {self.server.uri} was lost: {event.reason}")

    def _report_refusal(self, peer: Address, code: int, reason: str) -> None:
        self._report(peer, errno.EACCES, f"{code} {reason}")

    def _report(self, peer: Address, number: int, why: str) -> None:
        if self.on_error is not None and not self._closed:
            self.on_error(peer, OSError(number, f"{self.server.uri}: {why}"))


def _refused(server: IceServer, code: int | None, reason: str) -> IcePunchError:
    if code == 401:
        if server.username is None or server.password is None:
            return AuthenticationRejected(f"{server.uri} wants a user name and a password")
        return AuthenticationRejected(f"{server.uri} rejected the user name or the password")
    if code is not None:
        return RelayDenied(f"{server.uri} refused to relay: {code} {reason}".rstrip())
    kind, _, detail = reason.partition(": ")
    if kind == "unreachable":
        return ServerUnreachable(f"{server.uri} can not be reached: {detail}")
    if kind == "silent":
        return ServerUnreachable(f"{server.uri} did not answer", outcome="silent")
    return ServerUnreachable(f"{server.uri} is of no use: {detail}")


def _tls_context(cafile: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise InvalidConfiguration(
            f"the certificate authorities in {cafile} can not be read: {error.strerror}"
        ) from None


async def _first(attempts: Iterable[Callable[[], Coroutine[object, object, Relay]]]) -> Relay:
    """The first relay that can be had, each attempt begun a little after the one before.

    A server's refusal is final: its other addresses would say the same.
    """
    running: set[asyncio.Future[Relay]] = set()
    errors: list[Exception] = []
    queue = list(attempts)
    try:
        while queue or running:
            if queue:
                running.add(asyncio.ensure_future(queue.pop(0)()))
            done, running = await asyncio.wait(
                running,
                timeout=ATTEMPT_DELAY if queue else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                if not isinstance(error, ServerUnreachable):
                    raise error
                errors.append(error)
        raise errors[0]
    finally:
        for attempt in running:
            attempt.add_done_callback(_give_back)
            attempt.cancel()


def _give_back(attempt: asyncio.Future[Relay]) -> None:
    """An allocation that came second."""
    if not attempt.cancelled() and attempt.exception() is None:
        relay = attempt.result()
        _closing.add(task := asyncio.ensure_future(relay.close()))
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
