"""The tests of RFC 5780 sections 4.3 and 4.4 against one server with two addresses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ice_punch.datagram import Address, RandomSource, Transmit
from ice_punch.nat.behaviour import (
    FilteringBehaviour,
    MappingBehaviour,
    is_usable_alternate,
)
from ice_punch.nat.transactions import describe
from ice_punch.stun import (
    CHANGE_REQUEST,
    OTHER_ADDRESS,
    SOFTWARE,
    ChangeRequest,
    ClientTransaction,
    FailureReason,
    Message,
    MessageClass,
    Method,
    StunParseError,
    TransactionFailed,
    TransactionSucceeded,
    mapped_address,
    parse_message,
)

HEAD_START: Final = 0.1
"""Seconds between the first requests of the two sockets. At most six transactions are begun, so
RFC 5780 section 5 (ten a second, resends not in step) is kept."""


@dataclass(frozen=True, slots=True)
class BehaviourDetermined:
    mapping: MappingBehaviour
    mapping_reason: str
    filtering: FilteringBehaviour
    filtering_reason: str
    mapped: Address | None
    """Where the server saw the mapping test's socket."""
    other: Address | None
    """The server's alternate address, OTHER-ADDRESS."""


class _Test(Enum):
    CONNECTIVITY = auto()
    ALTERNATE_IP = auto()
    ALTERNATE_IP_AND_PORT = auto()
    CHANGE_IP_AND_PORT = auto()
    CHANGE_PORT = auto()


@dataclass(slots=True)
class _Probe:
    test: _Test
    transaction: ClientTransaction
    expected_source: Address


class BehaviourDiscovery:
    """Finds the mapping and the filtering behaviour of the NATs before one RFC 5780 server.

    The mapping test asks the server's addresses from ``mapping_local``. The filtering test asks
    the server, from ``filtering_local``, to answer from elsewhere; that socket must have sent
    nothing before (section 4.4), and without one there is no filtering test. The two run side by
    side. An answer that does not come is what some verdicts rest on, so ``rto``, ``rc`` and ``rm``
    (RFC 8489 section 6.2.1) set how long the whole takes: by default 5 s for each such answer.
    """

    def __init__(
        self,
        server: Address,
        mapping_local: Address,
        filtering_local: Address | None,
        random: RandomSource,
        now: float,
        *,
        software: str | None = "ice-punch",
        rto: float = 0.5,
        rc: int = 4,
        rm: int = 3,
    ) -> None:
        """Raises ValueError if both sockets are one."""
        if mapping_local == filtering_local:
            raise ValueError("the filtering test needs a socket of its own")
        self._server = server
        self._mapping_local = mapping_local
        self._filtering_local = filtering_local
        self._random = random
        self._software = software
        self._timing = (rto, rc, rm)
        self._outgoing: list[Transmit] = []
        self._probes: dict[Address, _Probe] = {}
        self._mapped: list[Address] = []
        self._other: Address | None = None
        self._filtering_other: Address | None = None
        self._mapping: tuple[MappingBehaviour, str] | None = None
        self._filtering: tuple[FilteringBehaviour, str] | None = None
        self._filtering_starts: float | None = now + HEAD_START
        if filtering_local is None:
            self._filtering_starts = None
            self._filtering = (FilteringBehaviour.UNKNOWN, "not tested")
        self._event: BehaviourDetermined | None = None
        self.done = False
        self._start(_Test.CONNECTIVITY, mapping_local, server, now)

    def receive_datagram(self, data: bytes, source: Address, local: Address, now: float) -> None:
        probe = self._probes.get(local)
        if probe is None:
            return
        try:
            message = parse_message(data)
        except StunParseError:
            return
        if message.transaction_id != probe.transaction.request.transaction_id:
            return
        if source != probe.expected_source:
            # RFC 5780 section 5: a server that does not support CHANGE-REQUEST says so, with 420,
            # from where it was asked. One that ignores it answers from there.
            if source != probe.transaction.destination:
                return
            if message.message_class is MessageClass.SUCCESS:
                self._end_filtering(
                    FilteringBehaviour.UNKNOWN, "the server ignores CHANGE-REQUEST", local
                )
                return
        probe.transaction.receive_message(message, source, now)
        self._advance(local, now)

    def handle_icmp_error(self, local: Address, destination: Address, now: float) -> None:
        """A hard ICMP error came back for what ``local`` sent to ``destination``."""
        probe = self._probes.get(local)
        if probe is not None and probe.transaction.destination == destination:
            probe.transaction.handle_icmp_error(now)
            self._advance(local, now)

    def handle_timer(self, now: float) -> None:
        starts, local = self._filtering_starts, self._filtering_local
        if starts is not None and local is not None and now >= starts:
            self._filtering_starts = None
            self._start(_Test.CONNECTIVITY, local, self._server, now)
        for local, probe in list(self._probes.items()):
            probe.transaction.handle_timer(now)
            self._advance(local, now)

    def get_timer(self) -> float | None:
        timers = [probe.transaction.get_timer() for probe in self._probes.values()]
        times = [time for time in (*timers, self._filtering_starts) if time is not None]
        return min(times, default=None)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_event(self) -> BehaviourDetermined | None:
        event, self._event = self._event, None
        return event

    def _start(
        self,
        test: _Test,
        local: Address,
        destination: Address,
        now: float,
        *,
        change: ChangeRequest | None = None,
        expected_source: Address | None = None,
    ) -> None:
        request = Message(Method.BINDING, MessageClass.REQUEST, self._random.randbytes(12))
        if self._software is not None:
            request.add(SOFTWARE, self._software)
        if change is not None:
            request.add(CHANGE_REQUEST, change)
        rto, rc, rm = self._timing
        transaction = ClientTransaction(request, local, destination, now, rto=rto, rc=rc, rm=rm)
        self._probes[local] = _Probe(test, transaction, expected_source or destination)
        self._outgoing += transaction.datagrams_to_send(now)

    def _advance(self, local: Address, now: float) -> None:
        """Takes what the probe of ``local`` has to send, and goes on when it has ended."""
        probe = self._probes.get(local)
        if probe is None:
            return
        self._outgoing += probe.transaction.datagrams_to_send(now)
        outcome = probe.transaction.next_event()
        if outcome is None:
            return
        del self._probes[local]
        if local == self._mapping_local:
            self._advance_mapping(probe.test, outcome, now)
        else:
            self._advance_filtering(probe.test, outcome, now)

    def _advance_mapping(
        self, test: _Test, outcome: TransactionSucceeded | TransactionFailed, now: float
    ) -> None:
        """RFC 5780 section 4.3."""
        if isinstance(outcome, TransactionFailed):
            self._end_mapping(MappingBehaviour.UNKNOWN, describe(outcome))
            return
        mapped = mapped_address(outcome.response)
        assert mapped is not None
        self._mapped.append(mapped)
        if test is _Test.CONNECTIVITY:
            self._other = outcome.response.get(OTHER_ADDRESS)
            if mapped == self._mapping_local:
                self._end_mapping(MappingBehaviour.OPEN, "the server sees the local address")
            elif not is_usable_alternate(self._server, self._other):
                self._end_mapping(MappingBehaviour.UNKNOWN, "the server has no alternate address")
            else:
                assert self._other is not None
                alternate = (self._other[0], self._server[1])
                self._start(_Test.ALTERNATE_IP, self._mapping_local, alternate, now)
        elif test is _Test.ALTERNATE_IP:
            if mapped == self._mapped[0]:
                self._end_mapping(
                    MappingBehaviour.ENDPOINT_INDEPENDENT, "both IP addresses see the same address"
                )
            else:
                assert self._other is not None
                self._start(_Test.ALTERNATE_IP_AND_PORT, self._mapping_local, self._other, now)
        elif mapped == self._mapped[1]:
            self._end_mapping(
                MappingBehaviour.ADDRESS_DEPENDENT, "both ports of an IP address see the same"
            )
        else:
            self._end_mapping(
                MappingBehaviour.ADDRESS_AND_PORT_DEPENDENT, "every port sees another address"
            )

    def _advance_filtering(
        self, test: _Test, outcome: TransactionSucceeded | TransactionFailed, now: float
    ) -> None:
        """RFC 5780 section 4.4."""
        local = self._filtering_local
        assert local is not None
        if isinstance(outcome, TransactionFailed):
            silent = outcome.reason is FailureReason.TIMEOUT
            if silent and test is _Test.CHANGE_IP_AND_PORT:
                assert self._filtering_other is not None
                self._start(
                    _Test.CHANGE_PORT,
                    local,
                    self._server,
                    now,
                    change=ChangeRequest(change_ip=False, change_port=True),
                    expected_source=(self._server[0], self._filtering_other[1]),
                )
            elif silent and test is _Test.CHANGE_PORT:
                self._end_filtering(
                    FilteringBehaviour.ADDRESS_AND_PORT_DEPENDENT,
                    "nothing came from the server's other port",
                    local,
                )
            else:
                self._end_filtering(FilteringBehaviour.UNKNOWN, describe(outcome), local)
        elif test is _Test.CONNECTIVITY:
            other = outcome.response.get(OTHER_ADDRESS)
            self._filtering_other = other
            if not is_usable_alternate(self._server, other):
                self._end_filtering(
                    FilteringBehaviour.UNKNOWN, "the server has no alternate address", local
                )
                return
            self._start(
                _Test.CHANGE_IP_AND_PORT,
                local,
                self._server,
                now,
                change=ChangeRequest(change_ip=True, change_port=True),
                expected_source=other,
            )
        elif test is _Test.CHANGE_IP_AND_PORT:
            self._end_filtering(
                FilteringBehaviour.ENDPOINT_INDEPENDENT,
                "an answer came from the other IP address",
                local,
            )
        else:
            self._end_filtering(
                FilteringBehaviour.ADDRESS_DEPENDENT, "an answer came from the other port", local
            )

    def _end_mapping(self, behaviour: MappingBehaviour, reason: str) -> None:
        self._mapping = (behaviour, reason)
        self._finish()

    def _end_filtering(self, behaviour: FilteringBehaviour, reason: str, local: Address) -> None:
        self._probes.pop(local, None)
        self._filtering = (behaviour, reason)
        self._finish()

    def _finish(self) -> None:
        if self._mapping is not None and self._filtering is not None:
            self.done = True
            self._event = BehaviourDetermined(
                *self._mapping,
                *self._filtering,
                mapped=self._mapped[0] if self._mapped else None,
                other=self._other,
            )
