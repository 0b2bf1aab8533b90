"""Whatever an agent receives, in any order with whatever happens besides, it raises nothing and
breaks none of the rules of ``support.watch``.

An input is a script: a byte of flags, then records of five bytes and a payload. Byte 0 is what
happens, byte 1 where, byte 2 how much later, bytes 3 and 4 how long the payload is. Checks and
answers of the peer are signed after the mutation, so that a peer that means ill is among those who
try.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from stun_repair import fingerprinted, repaired, signed

from ice_punch.datagram import Address
from ice_punch.errors import InvalidDescription
from ice_punch.ice import Agent, AgentConfig, Credentials
from ice_punch.sdp import parse_candidate
from ice_punch.stun import MessageClass, parse_message
from support.watch import Watch

OURS = Credentials("ourfrag1", "our-password-of-24-chars!")
PEER = Credentials("peerfrag", "peer-password-of-24-chars")
GENERATIONS = [
    (OURS, PEER),
    (
        Credentials("ourfrag2", "our-second-password-of-24"),
        Credentials("peerfrg2", "peer-second-password-of-24"),
    ),
    (
        Credentials("ourfrag3", "our-third-password-of-24!"),
        Credentials("peerfrg3", "peer-third-password-of-24!"),
    ),
]
"""Ours and the peer's; more restarts than this are not tried."""
SERVER = ("198.51.100.100", 3478)
LOCALS = (("192.0.2.1", 5000), ("2001:db8::1", 5000))
SOURCES = (
    ("198.51.100.1", 6000),
    ("198.51.100.1", 6001),
    ("203.0.113.9", 1024),
    ("2001:db8:1::1", 6000),
    ("192.0.2.2", 5000),
    SERVER,
    ("198.51.100.2", 7000),
    ("0.0.0.0", 0),
)
MOST_RECORDS = 200
SPIN = 100
REMEMBERED = 64


class Kind(IntEnum):
    DATAGRAM = 0
    """The payload as it is."""
    CHECK = 1
    """The payload as a check of the peer's, signed."""
    ANSWER = 2
    """The payload as the peer's answer to one of our latest requests, signed."""
    FORGED_ANSWER = 3
    """The same without integrity: what a STUN server sends."""
    TIME = 4
    CANDIDATE = 5
    """The payload is a candidate line."""
    PARAMETERS = 6
    END_OF_CANDIDATES = 7
    ICMP_ERROR = 8
    QUERY = 9
    RELAY = 10
    CLOSE = 11
    RESTART = 12
    DATA = 13
    """The payload came past the agent, or left."""
    REMOVE_BASE = 14
    ADD_BASE = 15
    MAPPED = 16
    """A TURN server has told our reflexive address."""


class Record(NamedTuple):
    kind: int
    where: int = 0
    wait: int = 0
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        head = bytes([self.kind, self.where, self.wait])
        return head + len(self.payload).to_bytes(2, "big") + self.payload


def records(data: bytes) -> Iterator[Record]:
    offset = 0
    for _ in range(MOST_RECORDS):
        if offset + 5 > len(data):
            return
        kind, where, wait = data[offset : offset + 3]
        size = int.from_bytes(data[offset + 3 : offset + 5], "big")
        offset += 5
        yield Record(kind % len(Kind), where, wait, data[offset : offset + size])
        offset += size


def check(data: bytes) -> None:
    """The first byte is the role and the limits; the script follows."""
    play = Play(data[0] if data else 0)
    for record in records(data[1:]):
        play.perform(record)
    play.run(60.0)


class Play:
    """One agent, its clock, and what it sent."""

    def __init__(self, flags: int) -> None:
        self.now = 1000.0
        small = flags & 2
        self.agent = Agent(
            controlling=bool(flags & 1),
            credentials=OURS,
            random=random.Random(0),
            config=AgentConfig(
                max_pairs=4 if small else 100,
                max_remote_candidates=4 if small else 100,
                max_early_checks=2 if small else 64,
                components=(1, 2) if flags & 4 else (1,),
                direct_only=bool(flags & 8),
            ),
        )
        self.watch = Watch(self.agent, servers=[SERVER])
        self._requests: list[tuple[bytes, Address, Address]] = []
        self._generation = 0
        for local in LOCALS:
            self.agent.add_host_candidate(local, self.now)
        if flags & 4:
            self.agent.add_host_candidate(("192.0.2.1", 5001), self.now, component=2)
        if flags & 16:
            self._meet(lite=False, renomination=bool(flags & 32))
        self._turn()

    def perform(self, record: Record) -> None:
        self.run(record.wait / 16 if record.wait < 200 else record.wait - 195.0)
        source = SOURCES[record.where % len(SOURCES)]
        local = LOCALS[record.where >> 3 & 1]
        agent, now, payload = self.agent, self.now, record.payload
        match record.kind:
            case Kind.DATAGRAM:
                self._deliver(payload, source, local)
            case Kind.CHECK:
                sha256 = bool(record.where & 16)
                ours, _ = self._credentials(record.where >> 5)
                check = fingerprinted(signed(repaired(payload), ours.key, sha256=sha256))
                self._deliver(check, source, local)
            case Kind.ANSWER | Kind.FORGED_ANSWER:
                self._answer(record)
            case Kind.CANDIDATE:
                try:
                    candidate = parse_candidate(payload.decode("utf-8", "replace"))
                except InvalidDescription:
                    candidate = None
                if candidate is not None:
                    self.watch.signalled.add(candidate.address)
                    agent.add_remote_candidate(candidate, now)
            case Kind.PARAMETERS:
                start_at = now + record.wait / 8 if record.where & 4 else None
                self._meet(
                    lite=bool(record.where & 1),
                    renomination=bool(record.where & 2),
                    start_at=start_at,
                )
            case Kind.END_OF_CANDIDATES:
                agent.end_of_remote_candidates(now)
            case Kind.ICMP_ERROR:
                agent.receive_icmp_error(local, source, now)
            case Kind.QUERY:
                try:
                    agent.query_server("stun:server", SERVER, local, now)
                except ValueError:
                    assert len(agent._queries.all) == 64
            case Kind.RELAY:
                address = ("203.0.113.100", 40000 + record.where)
                agent.add_relayed_candidate(address, now, server="turn:server")
            case Kind.CLOSE:
                agent.close(now)
            case Kind.RESTART:
                self._restart(fresh_sockets=bool(record.where & 1))
            case Kind.DATA:
                self._note_data(record, source, local)
            case Kind.REMOVE_BASE:
                agent.remove_local_candidate(local, now)
                self.watch.base_gone(local)
            case Kind.ADD_BASE:
                agent.add_host_candidate(local, now, local_preference=record.where)
            case Kind.MAPPED:
                self._learn_mapping(source, local)
        self._turn()

    def _meet(
        self, *, lite: bool, renomination: bool = False, start_at: float | None = None
    ) -> None:
        _, peer = GENERATIONS[self._generation]
        if self.agent.credentials != GENERATIONS[self._generation][0]:
            return  # the restart came to nothing
        self.agent.set_remote_parameters(
            peer, self.now, lite=lite, ta=0.02, renomination=renomination, start_at=start_at
        )

    def _credentials(self, back: int) -> tuple[Credentials, Credentials]:
        return GENERATIONS[max(self._generation - back, 0)]

    def _restart(self, *, fresh_sockets: bool) -> None:
        if self._generation + 1 == len(GENERATIONS):
            return
        before = self.agent.credentials
        ours, _ = GENERATIONS[self._generation + 1]
        try:
            self.agent.restart(ours, self.now, fresh_sockets=fresh_sockets)
        except ValueError:
            assert self.agent.credentials == before
        else:
            self._generation += 1

    def _note_data(self, record: Record, source: Address, local: Address) -> None:
        agent, now = self.agent, self.now
        if record.where & 16:
            agent.data_sent(now)
        elif agent.accepts_data(source, local):
            agent.data_received(source, local, now)
        else:
            self.watch.data_from_stranger(source, local)
            agent.data_from_stranger(source, local, now)

    def _learn_mapping(self, mapped: Address, local: Address) -> None:
        self.agent.add_server_reflexive_candidate(
            mapped, local, self.now, server="turn:server", server_address=SERVER
        )

    def _answer(self, record: Record) -> None:
        if not self._requests:
            return
        latest = self._requests[-1 - (record.where >> 5) % len(self._requests)]
        id_, local, source = latest
        if record.where & 16:
            source = SOURCES[record.where % len(SOURCES)]
        answer = repaired(record.payload, transaction_id=id_)
        if record.kind == Kind.ANSWER:
            answer = signed(answer, self._peer_of(id_).key)
        self._deliver(fingerprinted(answer), source, local)

    def _peer_of(self, transaction_id: bytes) -> Credentials:
        """Whose answer it is."""
        eras = [era for era in self.watch.eras if transaction_id in era.asked and era.peer]
        return (eras[0].peer if eras else None) or GENERATIONS[self._generation][1]

    def _deliver(self, data: bytes, source: Address, local: Address) -> None:
        self.watch.receives(data, source, local, self.now)
        self.agent.receive_datagram(data, source, local, self.now)

    def run(self, seconds: float) -> None:
        """Let time pass; a timer that stands still is a mistake."""
        end = self.now + seconds
        turns = 0
        while (timer := self.agent.get_timer()) is not None and timer <= end:
            turns = turns + 1 if timer <= self.now else 0
            assert turns < SPIN, "the timer stands still"
            self.now = max(self.now, timer)
            self.agent.handle_timer(self.now)
            self._turn()
        self.now = end

    def _turn(self) -> None:
        sent = self.agent.datagrams_to_send(self.now)
        for data, local, destination in sent:
            message = parse_message(data)
            if message.message_class is MessageClass.REQUEST:
                self._requests.append((message.transaction_id, local, destination))
        del self._requests[:-REMEMBERED]
        self.watch.sends(sent, self.now)
        while (event := self.agent.next_event()) is not None:
            self.watch.happens(event)
        timer = self.agent.get_timer()
        if timer is None or timer > self.now:
            self.watch.check(self.now)
