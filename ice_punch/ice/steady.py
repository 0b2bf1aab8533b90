"""The short way of a session that has concluded: consent, and nothing else to do.

Nearly all packets of an agent's life are four: a consent check of ours and its answer, and the
same of the peer's. Once the search is over they come every few seconds with the same bytes but for
the transaction id, and change times and counts alone. Everything here does what the general way
would do; what it does not know it leaves to that.
"""

from __future__ import annotations

from hmac import compare_digest
from struct import Struct
from typing import Final
from zlib import crc32

from ice_punch.datagram import Address
from ice_punch.ice.advice import Advice
from ice_punch.ice.consent import Consent
from ice_punch.ice.events import IceState
from ice_punch.ice.generation import Generation
from ice_punch.ice.lineage import Lineage
from ice_punch.ice.liveness import ANSWER_WITHIN, ASK_EVERY, STANDBY_INTERVAL
from ice_punch.ice.pair import CandidatePair, PairState
from ice_punch.ice.pulse import Pulse
from ice_punch.ice.server_queries import ServerQueries
from ice_punch.ice.slots import Slots
from ice_punch.stun import (
    COOKIE,
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    PRIORITY,
    USE_CANDIDATE,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    Integrity,
    Message,
    encode_attribute,
)
from ice_punch.stun.integrity import authentication_code
from ice_punch.stun.message import FINGERPRINT_XOR, HEADER_SIZE, TRANSACTION_ID_SIZE

_REQUEST: Final = b"\x00\x01"
_SUCCESS: Final = b"\x01\x01"
_INTEGRITY: Final = b"\x00\x08\x00\x14"
_FINGERPRINT: Final = b"\x80\x28\x00\x04"
_TAIL: Final = 24 + 8
"""Bytes of MESSAGE-INTEGRITY and FINGERPRINT."""
_NEVER: Final = float("inf")
_pack_crc: Final = Struct("!I").pack


class _Shape:
    """A message all of whose bytes are known but transaction id, HMAC and CRC."""

    __slots__ = ("_attributes", "_begins", "_key", "_masked", "_signed_as", "_size", "_until")

    def __init__(self, message_type: bytes, attributes: bytes, key: bytes) -> None:
        size = len(attributes) + _TAIL
        self._attributes = attributes
        self._size = HEADER_SIZE + size
        self._until = HEADER_SIZE + len(attributes)
        self._begins = message_type + size.to_bytes(2, "big") + COOKIE
        # RFC 8489 section 14.5: the length is that of a message without FINGERPRINT
        self._signed_as = message_type + (size - 8).to_bytes(2, "big") + COOKIE
        self._key = key
        self._masked: int | None = None

    @classmethod
    def of_answer(cls, mapped: Address, key: bytes) -> _Shape:
        """A success response that holds XOR-MAPPED-ADDRESS and nothing else."""
        attributes = encode_attribute(XOR_MAPPED_ADDRESS, mapped, bytes(TRANSACTION_ID_SIZE))
        shape = cls(_SUCCESS, attributes, key)
        if ":" in mapped[0]:
            # RFC 8489 section 14.2: the transaction id masks the rest of an IPv6 address
            shape._attributes = attributes[:-TRANSACTION_ID_SIZE]
            shape._masked = int.from_bytes(attributes[-TRANSACTION_ID_SIZE:], "big")
        return shape

    def _attributes_of(self, transaction_id: bytes) -> bytes:
        if self._masked is None:
            return self._attributes
        rest = self._masked ^ int.from_bytes(transaction_id, "big")
        return self._attributes + rest.to_bytes(TRANSACTION_ID_SIZE, "big")

    def make(self, transaction_id: bytes) -> bytes:
        rest = transaction_id + self._attributes_of(transaction_id)
        code = authentication_code(self._key, Integrity.SHA1, self._signed_as + rest)
        data = b"".join((self._begins, rest, _INTEGRITY, code))
        return data + _FINGERPRINT + _pack_crc(crc32(data) ^ FINGERPRINT_XOR)

    def fits(self, data: bytes) -> bool:
        """Whether ``data`` is such a message, and whole, and signed with the key."""
        until = self._until
        if (
            len(data) != self._size
            or not data.startswith(self._begins)
            or data[HEADER_SIZE:until] != self._attributes_of(data[8:HEADER_SIZE])
            or data[until : until + 4] != _INTEGRITY
            or data[-8:-4] != _FINGERPRINT
            or data[-4:] != _pack_crc(crc32(data[:-8]) ^ FINGERPRINT_XOR)
        ):
            return False
        code = authentication_code(self._key, Integrity.SHA1, self._signed_as + data[8:until])
        return compare_digest(code, data[until + 4 : until + 24])


class Steady:
    """Of one generation, as long as nothing happens to it.

    `Agent` asks for one after whatever was not done here, with `of`, and has what follows done
    where a call here says False.
    """

    __slots__ = (
        "_answers",
        "_checks",
        "_consents",
        "_generation",
        "_marks",
        "_requests",
        "_session",
        "_timeout",
        "alone",
    )

    def __init__(self, generation: Generation, marks: tuple[object, ...]) -> None:
        session = generation.session
        remote = session.remote_credentials
        assert remote is not None
        self._marks = marks
        self._generation = generation
        self._session = session
        self._consents = generation.liveness.consents
        self._timeout = session.config.consent_timeout
        self.alone = len(session.check_list.valid_list) == 1
        """Whether there is one valid pair: with more of them they are compared again and again."""
        self._answers = {
            pair: _Shape.of_answer((pair.mapped or pair.local).address, remote.key)
            for pair in self._consents
        }
        self._checks: dict[CandidatePair, _Shape] = {}
        self._requests: dict[tuple[Address, Address], tuple[_Shape, _Shape, CandidatePair]] = {}

    @staticmethod
    def of(
        lineage: Lineage,
        queries: ServerQueries,
        advice: Advice,
        slots: Slots,
        before: Steady | None,
    ) -> Steady | None:
        """The short way of an agent of these parts, or None if it has anything else to do. What was
        known ``before`` is kept where it still holds."""
        generation = lineage.current
        if generation.session.state is not IceState.COMPLETED or not _idle(
            lineage, queries, advice, slots
        ):
            return None
        marks = _marks(generation)
        if before is not None and before._marks == marks:
            return before
        return Steady(generation, marks)

    def _expired(self, now: float) -> bool:
        timeout = self._timeout
        for pair in self._consents:
            last = pair.last_response_at
            if last is None or now >= last + timeout:
                return True
        return False

    # -- what comes in ------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, local: Address, now: float) -> bool:
        """Whether ``data`` was a check or an answer as they always are; else nothing was done."""
        message_type = data[:2]
        if message_type == _SUCCESS:
            transaction_id = data[8:20]
            for pair, consent in self._consents.items():
                if consent.owns(transaction_id):
                    if source != pair.remote.address or local != pair.base:
                        return False
                    return self._answered(pair, consent, data, now)
            return False
        known = self._requests.get((source, local)) if message_type == _REQUEST else None
        if known is None:
            return False
        request, answer, pair = known
        if self._expired(now) or not request.fits(data):
            return False
        session = self._session
        session.heard(now)
        pair.requests_received += 1
        pair.heard(now)
        session.counters["checks_answered"] += 1
        session.send(answer.make(data[8:20]), local, source)
        return True

    def _answered(self, pair: CandidatePair, consent: Consent, data: bytes, now: float) -> bool:
        transaction_id = data[8:20]
        if (
            self._generation.checks.owns(transaction_id)
            or self._expired(now)
            or not self._answers[pair].fits(data)
        ):
            return False
        pair.responses_received += 1
        pair.round_trip.answered(consent.answered(transaction_id, now))
        self._session.heard(now)
        pair.heard(now)
        pair.last_response_at = now
        return True

    def learn(self, message: Message, data: bytes, source: Address, local: Address) -> None:
        """``data`` has just been answered the general way. If it was a check of consent, the next
        ones will be like it."""
        session = self._session
        pair = session.check_list.find(local, source)
        remote = session.remote_credentials
        role = ICE_CONTROLLED if session.controlling else ICE_CONTROLLING
        if (
            pair is None
            or remote is None
            or pair not in self._consents
            or pair.state is not PairState.SUCCEEDED
            or (local, source) not in session.validated
            or message.integrity != {Integrity.SHA1}
            or not message.has_fingerprint
            or message.unknown_required
            or message.get(USERNAME) != f"{session.credentials.ufrag}:{remote.ufrag}"
            or message.get(PRIORITY) != pair.peer_priority
            or message.get(USE_CANDIDATE) is not None
            or message.get(role) is None
            or data[-_TAIL : 4 - _TAIL] != _INTEGRITY
        ):
            return
        key = session.credentials.key
        request = _Shape(_REQUEST, data[HEADER_SIZE:-_TAIL], key)
        self._requests[source, local] = request, _Shape.of_answer(source, key), pair

    # -- time ---------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """`Agent.get_timer`."""
        session, config = self._session, self._session.config
        pulses = self._generation.liveness.pulses
        due = _NEVER
        for pair, consent in self._consents.items():
            last = pair.last_response_at
            if last is None:
                return due
            due = min(due, consent.next_check_at, last + self._timeout)
            pulse = pulses.get(pair)
            if pulse is not None:
                due = min(
                    due,
                    pulse.next_try_at(session.data_sent_at, session.data_received_at),
                    last + config.unanswered_for,
                    max(last + ANSWER_WITHIN, consent.last_sent_at + ASK_EVERY),
                )
        return due

    @property
    def latest(self) -> float:
        """Until when what `get_timer` tells of may wait for the sake of others."""
        return min([consent.latest_check_at for consent in self._consents.values()], default=0.0)

    def handle_timer(self, now: float) -> bool:
        """`Agent.handle_timer`. False if a consent is over, and then nothing was done."""
        if self._expired(now):
            return False
        session, liveness = self._session, self._generation.liveness
        pulses = liveness.pulses
        for pair, consent in self._consents.items():
            if now >= consent.next_check_at:
                pulse = pulses.get(pair)
                self._check(pair, consent, pulse, now)
                consent.schedule(now, rarer=1.0 if pulse is not None else STANDBY_INTERVAL)
        for pair, pulse in pulses.items():
            consent, last = self._consents[pair], pair.last_response_at
            if (
                last is None
                or now >= pulse.next_try_at(session.data_sent_at, session.data_received_at)
                or now >= last + min(ANSWER_WITHIN, session.config.unanswered_for)
            ):
                liveness.feel(now)
                break
        return True

    @property
    def over(self) -> bool:
        """Whether what was done by `handle_timer` has consequences."""
        return self._session.state is not IceState.COMPLETED or not self.alone

    def _check(
        self, pair: CandidatePair, consent: Consent, pulse: Pulse | None, now: float
    ) -> None:
        """As every consent check: fresh transaction id, the same bytes otherwise (RFC 7675 section
        5.1)."""
        session = self._session
        shape = self._checks.get(pair)
        if shape is None:
            transaction_id, request = session.check_on(pair)
            remote = session.remote_credentials
            assert remote is not None
            self._checks[pair] = _Shape(_REQUEST, request[HEADER_SIZE:-_TAIL], remote.key)
        else:
            transaction_id = session.random.randbytes(TRANSACTION_ID_SIZE)
            request = shape.make(transaction_id)
        consent.check_sent(transaction_id, now)
        if pulse is not None:
            pulse.tried(now)
        pair.requests_sent += 1
        session.send(request, pair.base, pair.remote.address)


def _idle(lineage: Lineage, queries: ServerQueries, advice: Advice, slots: Slots) -> bool:
    """Whether consent is all that there is to do, and nothing but the silence of a path or another
    input will change that."""
    generation, session = lineage.current, lineage.session
    if lineage.previous is not None or generation.lite is not None:
        return False
    if len(session.config.components) != 1 or not session.selected or session.remote_lite:
        return False
    if session.nominating or session.detours or session.direct_lost or session.stranded_at:
        return False
    liveness = generation.liveness
    selected = next(iter(session.selected.values()))
    if [*liveness.pulses] != [selected] or selected.relayed or selected.rtt is None:
        return False
    consents = liveness.consents
    if selected not in consents or any(p.last_response_at is None for p in consents):
        return False
    pairs = session.check_list
    if any(p.silent_since is not None or p.settled_at is not None for p in pairs):
        return False
    return (
        session.held_until is None
        and queries.stopped
        and queries.get_timer() is None
        and lineage.get_timer() is None
        and advice.get_timer(lineage.restart_blocked_until) is None
        and slots.get_timer(lineage.current) is None
        and not generation.checks.timers()
        and not generation.conclusion.timers()
        and not generation.paths.has_abandoned
    )


def _marks(generation: Generation) -> tuple[object, ...]:
    """What the short way depends on."""
    session, consents = generation.session, generation.liveness.consents
    return (
        generation,
        session.controlling,
        session.credentials,
        session.remote_credentials,
        session.tie_breaker,
        len(session.refused_remote),
        id(consents),
        *consents,
        None,
        *((pair, pair.mapped) for pair in session.check_list.valid_list),
    )
