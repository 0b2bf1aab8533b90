"""A TURN client, RFC 8656: one allocation at one server, without sockets or clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.stun import (
    ADDITIONAL_ADDRESS_FAMILY,
    ADDRESS_ERROR_CODE,
    ALTERNATE_DOMAIN,
    ALTERNATE_SERVER,
    LIFETIME,
    REQUESTED_ADDRESS_FAMILY,
    REQUESTED_TRANSPORT,
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
    XOR_RELAYED_ADDRESS,
    Message,
    MessageClass,
    Method,
    StunParseError,
    parse_message,
)
from ice_punch.turn.challenge import Credentials
from ice_punch.turn.channel_data import is_channel_data
from ice_punch.turn.constants import DEFAULT_LIFETIME, IPV4, IPV6, UDP, family_of
from ice_punch.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    Redirected,
    TurnEvent,
)
from ice_punch.turn.exchange import Attribute, Exchange, Failure, Outcome, Route
from ice_punch.turn.exchanges import Exchanges
from ice_punch.turn.relaying import Relaying, TurnClientStats

REFRESH_AHEAD: Final = 60.0
"""Seconds before its end that an allocation is refreshed (RFC 8656 section 8)."""
REFRESH_RETRY: Final = 10.0
"""Seconds between attempts, when a refresh came to nothing and there is time left."""
LONGEST_LIFETIME: Final = 3600.0
"""Seconds; an allocation is refreshed that often, whatever the server grants."""
REDIRECT_MEMORY: Final = 300.0
"""Seconds that a server which redirected us is not tried again, RFC 8489 section 10."""
MAX_REDIRECTS: Final = 5
MAX_EVENTS: Final = 4096
"""Events that nobody fetched; past that relayed datagrams are dropped."""

_FAMILIES: Final[dict[int | str, frozenset[int]]] = {
    4: frozenset((IPV4,)),
    6: frozenset((IPV6,)),
    "dual": frozenset((IPV4, IPV6)),
}

Family = Literal[4, 6, "dual"]


class TurnState(Enum):
    ALLOCATING = "allocating"
    ALLOCATED = "allocated"
    CLOSING = "closing"
    """The allocation is being given back."""
    ENDED = "ended"


class TurnClient:
    """One allocation, from the first Allocate request to its end.

    The request is made at once; ``Allocated`` or ``AllocationFailed`` tells what came of it.
    ``send`` then does what is needed for data to reach a peer, ``permit`` does so beforehand, and
    what peers send comes as ``RelayedData``. The allocation, permissions and the channels in use
    are renewed until ``close``.

    Over a stream each message goes in and out whole (``StreamFraming``).
    """

    def __init__(
        self,
        server: Address,
        local: Address,
        username: str | None,
        password: str | None,
        random: RandomSource,
        now: float,
        *,
        transport: Literal["udp", "tcp", "tls"] = "udp",
        family: Family = 4,
        lifetime: float = DEFAULT_LIFETIME,
        software: str | None = "ice-punch",
        rto: float = 0.5,
        tried: Mapping[Address, float] | None = None,
    ) -> None:
        """``family`` is that of the relayed address, or ``dual`` for one of each; ``lifetime`` is
        what the server is asked for, in seconds. ``tried`` is that of the client that was
        ``Redirected`` here. Raises ValueError for a user name or password that can not be used.
        """
        self.state = TurnState.ALLOCATING
        self.tried: dict[Address, float] = dict(tried or {})
        """Servers that were asked for an allocation, and when."""
        self._credentials = Credentials(username, password)
        self._route = Route(server, local, reliable=transport != "udp", rto=rto)
        self._family = family
        self._lifetime = lifetime
        self._software = software
        self._exchanges = Exchanges(self._route, self._credentials, random)
        self._relaying = Relaying(
            self._exchanges, self._route, random, emit=self._emit, on_mismatch=self._refresh
        )
        self._events: deque[TurnEvent] = deque()
        self._allocating: Exchange | None = None
        self._refreshing = False
        self._refresh_at: float | None = None
        self._expires_at: float | None = None
        self._trouble = "it was not refreshed in time"
        self._timer: float | None = None
        self._timer_is_known = False
        self._allocate(now)

    # -- what there is to see -----------------------------------------------------------------

    @property
    def server(self) -> Address:
        """Where the allocation is; over UDP another one after a redirection."""
        return self._route.server

    @property
    def stats(self) -> TurnClientStats:
        return self._relaying.stats

    def refusal(self, peer: Address, now: float) -> tuple[int, str] | None:
        """Code and reason, while the server is known not to relay to this peer."""
        return self._relaying.refusal(peer, now)

    # -- what its user wants ------------------------------------------------------------------

    def permit(self, peer: Address, now: float) -> bool:
        """Have the server take what this peer's IP address sends (RFC 8656 section 9), and keep it
        so. What is asked for in one go goes in one request, before the allocation stands as well.
        False: too many peers, or too late. Raises ValueError for what is no IP address."""
        if self.state in (TurnState.CLOSING, TurnState.ENDED):
            return False
        return self._relaying.permit(peer, now)

    def send(self, data: bytes, peer: Address, now: float) -> bool:
        """Send a datagram to a peer.

        To a new one a permission and a channel are asked for at the same time; data waits for the
        first answer, at most 32 datagrams, past which the oldest go. False: it was dropped, as
        ``stats`` counts. Raises ValueError for what is no IP address.
        """
        if self.state is not TurnState.ALLOCATED:
            self._relaying.stats.dropped += 1
            return False
        return self._relaying.send(data, peer, now)

    def close(self, now: float) -> None:
        """Give the allocation back (RFC 8656 section 8). ``state`` is ENDED once that is answered
        or given up. May be called again."""
        if self.state in (TurnState.CLOSING, TurnState.ENDED):
            return
        # An Allocate that is out may have been carried out already: then it is given back too.
        begun = self._allocating is not None and self._allocating.is_authenticated
        exists = self.state is TurnState.ALLOCATED or begun
        self._stop()
        self._events.clear()
        if exists:
            self.state = TurnState.CLOSING
            self._give_back(now)

    def unreachable(self, reason: str, now: float) -> None:
        """The path to the server is gone: a connection that ended, or an ICMP error. The latter
        counts only before there is an allocation: it proves nothing, and the allocation may
        outlive it."""
        if self.state is TurnState.ALLOCATING:
            self._fail(None, f"unreachable: {reason}")
        elif self.state is TurnState.CLOSING:
            self._stop()
        elif self.state is TurnState.ALLOCATED and self._route.reliable:
            self._lose(reason)

    # -- the sans-IO contract -----------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        """Whatever it holds, nothing is raised."""
        relaying = self._relaying
        if source != self._route.server or local != self._route.local:
            relaying.stats.strangers += 1
        elif is_channel_data(data):
            if len(self._events) < MAX_EVENTS:
                relaying.receive_channel_data(data, now)
        else:
            self._receive_message(data, source, now)

    def _receive_message(self, data: bytes, source: Address, now: float) -> None:
        stats = self._relaying.stats
        try:
            message = parse_message(data)
        except StunParseError:
            stats.malformed += 1
            return
        if message.message_class is MessageClass.INDICATION:
            if message.method == Method.DATA and len(self._events) < MAX_EVENTS:
                self._relaying.receive_indication(message, now)
        elif message.message_class is MessageClass.REQUEST:
            stats.malformed += 1
        elif self._exchanges.receive(message, source, now):
            self._timer_is_known = False

    def handle_timer(self, now: float) -> None:
        """The time told by ``get_timer`` has come."""
        self._timer_is_known = False
        self._exchanges.handle_timer(now)
        if self.state is not TurnState.ALLOCATED:
            return
        if self._expires_at is not None and now >= self._expires_at:
            self._lose(self._trouble)
            return
        if self._refresh_at is not None and now >= self._refresh_at:
            self._refresh(now)
        self._relaying.handle_timer(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        """What must leave now, in order."""
        relaying = self._relaying
        if relaying.flush(now):
            self._timer_is_known = False
        requests = self._exchanges.datagrams_to_send(now)
        outgoing, relaying.outbox = relaying.outbox, []
        return requests + outgoing if requests else outgoing

    def next_event(self) -> TurnEvent | None:
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``; None when nothing is pending."""
        if not self._timer_is_known:
            times = self._exchanges.timers()
            if self.state is TurnState.ALLOCATED:
                times += self._relaying.timers()
                times += [t for t in (self._refresh_at, self._expires_at) if t is not None]
            self._timer = min(times, default=None)
            self._timer_is_known = True
        return self._timer

    # -- the allocation -----------------------------------------------------------------------

    def _allocate(self, now: float) -> None:
        """RFC 8656 section 7.1."""
        self.tried[self._route.server] = now
        attributes: list[Attribute] = [(REQUESTED_TRANSPORT, UDP)]
        if self._lifetime != DEFAULT_LIFETIME:
            attributes.append((LIFETIME, round(self._lifetime)))
        if self._family == "dual":
            attributes.append((ADDITIONAL_ADDRESS_FAMILY, IPV6))
        elif self._family == 6:
            # IPv4 is what a server gives unasked, and older ones do not know the attribute.
            attributes.append((REQUESTED_ADDRESS_FAMILY, IPV6))
        self._allocating = Exchange(
            Method.ALLOCATE, attributes + self._software_attribute(), self._allocate_answered
        )
        self._exchanges.start(self._allocating, now)

    def _software_attribute(self) -> list[Attribute]:
        return [] if self._software is None else [(SOFTWARE, self._software)]

    def _allocate_answered(self, outcome: Outcome, asked_at: float, now: float) -> None:
        self._allocating = None
        if isinstance(outcome, Failure):
            if outcome.code == 300 and outcome.response is not None:
                self._redirect(outcome.response, now)
            else:
                self._fail(outcome.code, outcome.reason)
            return
        try:
            relayed = outcome.get_all(XOR_RELAYED_ADDRESS)
        except StunParseError:
            relayed = ()
        granted = outcome.get(LIFETIME)
        lifetime = self._lifetime if granted is None else float(granted)
        families = {family_of(ip) for ip, _ in relayed}
        if not families or not families <= _FAMILIES[self._family] or len(families) < len(relayed):
            self._refuse_answer("no relayed address of the family that was asked for", now)
        elif lifetime <= 0 or any(port == 0 for _, port in relayed):
            self._refuse_answer("an allocation that is none", now)
        else:
            self.state = TurnState.ALLOCATED
            self._keep_for(lifetime, asked_at)
            self._relaying.start(relayed)
            mapped = outcome.get(XOR_MAPPED_ADDRESS)
            self._emit(Allocated(relayed, mapped, lifetime, _refused(outcome)))

    def _refuse_answer(self, what: str, now: float) -> None:
        """RFC 8656 section 7.3: what we can not use is given back."""
        self._fail(None, f"unusable: the server gave {what}")
        self.state = TurnState.CLOSING
        self._give_back(now)

    def _redirect(self, response: Message, now: float) -> None:
        """RFC 8489 section 10."""
        try:
            servers = response.get_all(ALTERNATE_SERVER)
        except StunParseError:
            servers = ()
        family = family_of(self._route.server[0])
        server = next((s for s in servers if family_of(s[0]) == family and s[1] != 0), None)
        if server is None:
            self._fail(300, "the server names no other that can be used")
            return
        before = self.tried.get(server)
        recent = before is not None and now - before < REDIRECT_MEMORY
        if recent or len(self.tried) > MAX_REDIRECTS:
            self._fail(300, "the servers send us around in circles")
        elif self._route.reliable:
            self._stop()
            self._emit(Redirected(server, response.get(ALTERNATE_DOMAIN)))
        else:
            self._route.server = server
            self._credentials.forget()
            self._allocate(now)

    def _keep_for(self, lifetime: float, since: float) -> None:
        lifetime = min(lifetime, LONGEST_LIFETIME)
        ahead = REFRESH_AHEAD if lifetime >= 2 * REFRESH_AHEAD else lifetime / 2
        self._expires_at = since + lifetime
        self._refresh_at = self._expires_at - ahead

    def _refresh(self, now: float) -> None:
        """RFC 8656 section 8.1."""
        if self._refreshing or self.state is not TurnState.ALLOCATED:
            return
        self._refreshing = True
        self._refresh_at = None
        attributes: list[Attribute] = []
        if self._lifetime != DEFAULT_LIFETIME:
            attributes.append((LIFETIME, round(self._lifetime)))
        self._exchanges.start(
            Exchange(
                Method.REFRESH, attributes + self._software_attribute(), self._refresh_answered
            ),
            now,
        )

    def _refresh_answered(self, outcome: Outcome, asked_at: float, now: float) -> None:
        self._refreshing = False
        if isinstance(outcome, Message):
            granted = outcome.get(LIFETIME)
            lifetime = self._lifetime if granted is None else float(granted)
            if lifetime > 0:
                self._keep_for(lifetime, asked_at)
            else:
                self._lose("the server ended the allocation")
        elif outcome.code == 437:  # RFC 8656 section 8.3
            self._lose("the server has no such allocation any more")
        else:
            self._trouble = f"{outcome.code or ''} {outcome.reason}".strip()
            self._refresh_at = now + REFRESH_RETRY

    def _give_back(self, now: float) -> None:
        delete: list[Attribute] = [(LIFETIME, 0), *self._software_attribute()]
        self._exchanges.start(Exchange(Method.REFRESH, delete, self._given_back), now)
        self._timer_is_known = False

    def _given_back(self, outcome: Outcome, asked_at: float, now: float) -> None:
        """Whatever was answered: 437 says that it is gone already (RFC 8656 section 8.3)."""
        self._stop()

    # -- ends ---------------------------------------------------------------------------------

    def _stop(self) -> None:
        self.state = TurnState.ENDED
        self._allocating = None
        self._exchanges.clear()
        self._relaying.stop()
        self._timer_is_known = False

    def _fail(self, code: int | None, reason: str) -> None:
        self._stop()
        self._emit(AllocationFailed(code, reason))

    def _lose(self, reason: str) -> None:
        self._stop()
        self._emit(AllocationLost(reason))

    def _emit(self, event: TurnEvent) -> None:
        self._events.append(event)


def _refused(response: Message) -> tuple[int, ...]:
    try:
        return tuple(error.family for error in response.get_all(ADDRESS_ERROR_CODE))
    except StunParseError:
        return ()
