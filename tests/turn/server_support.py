"""A client of a TURN server that can do everything wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from turn_world import CLIENT, SERVER, USERS

from ice_punch.datagram import Address
from ice_punch.stun import (
    ERROR_CODE,
    NONCE,
    REALM,
    REQUESTED_TRANSPORT,
    USERNAME,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    Integrity,
    Message,
    MessageClass,
    Method,
    long_term_key,
    parse_message,
)
from ice_punch.turn import TurnServer

REALM_TEXT = "ice-punch"
KEY = long_term_key("robot", REALM_TEXT, "correct horse")
UDP = (REQUESTED_TRANSPORT, 17)

Attributes = Sequence[tuple[Any, Any]]


class Asker:
    """Sends requests to a server of its own, from any address, and reads the answers."""

    def __init__(self, server: TurnServer | None = None, **options: Any) -> None:
        options.setdefault("relay_ips", ["203.0.113.10", "2001:db8::10"])
        options.setdefault("users", USERS)
        self.server = server or TurnServer(random=random.Random(7), **options)
        self.now = 0.0
        self.username = "robot"
        self.key = KEY
        self._ids = random.Random(8)
        self._nonces: dict[tuple[Address, str], str] = {}

    def raw(
        self, data: bytes, source: Address = CLIENT, local: Address = SERVER, transport: str = "udp"
    ) -> list[bytes]:
        """What comes back to ``source`` for these bytes."""
        self.server.receive_datagram(data, source, local, self.now, transport=transport)
        datagrams = self.server.datagrams_to_send(self.now)
        streams = self.server.streams_to_send(self.now)
        got, others = (datagrams, streams) if transport == "udp" else (streams, datagrams)
        self.relayed = [t for t in [*got, *others] if t.destination != source]
        return [t.data for t in got if t.destination == source and t.local == local]

    def ask(
        self,
        method: int,
        attributes: Attributes = (),
        *,
        key: bytes | None = None,
        integrity: Sequence[Integrity] = (Integrity.SHA1,),
        transaction_id: bytes | None = None,
        message_class: MessageClass = MessageClass.REQUEST,
        **where: Any,
    ) -> Message | None:
        """One message just as given; the answer, if there is one."""
        message = Message(method, message_class, transaction_id or self._ids.randbytes(12))
        for attribute, value in attributes:
            message.add(attribute, value)
        answers = self.raw(message.to_bytes(key=key, algorithms=integrity), **where)
        assert len(answers) <= 1
        return parse_message(answers[0]) if answers else None

    def nonce(self, source: Address = CLIENT, transport: str = "udp", **where: Any) -> str:
        """A fresh nonce for an address."""
        answer = self.ask(Method.ALLOCATE, [UDP], source=source, transport=transport, **where)
        assert answer is not None
        found = answer.get(NONCE)
        assert found is not None
        return found

    def proven(
        self,
        method: Method,
        attributes: Attributes = (),
        *,
        source: Address = CLIENT,
        transport: str = "udp",
        transaction_id: bytes | None = None,
    ) -> Message:
        """The answer to a request with the right credentials."""
        known = self._nonces.setdefault((source, transport), self.nonce(source, transport))
        proof = [(USERNAME, self.username), (REALM, REALM_TEXT), (NONCE, known)]
        answer = self.ask(
            method,
            [*attributes, *proof],
            key=self.key,
            source=source,
            transport=transport,
            transaction_id=transaction_id,
        )
        assert answer is not None
        return answer

    def code(self, *args: Any, **kwargs: Any) -> int | None:
        """The error code of ``proven``; None for success."""
        answer = self.proven(*args, **kwargs)
        error = answer.get(ERROR_CODE)
        assert (error is None) == (answer.message_class is MessageClass.SUCCESS)
        return None if error is None else error.code

    def allocate(self, attributes: Attributes = (), **where: Any) -> Address:
        """A relayed address."""
        answer = self.proven(Method.ALLOCATE, [UDP, *attributes], **where)
        relayed = answer.get(XOR_RELAYED_ADDRESS)
        assert relayed is not None, answer.get(ERROR_CODE)
        return relayed

    def permit(self, *peers: Address, **where: Any) -> int | None:
        attributes = [(XOR_PEER_ADDRESS, peer) for peer in peers]
        return self.code(Method.CREATE_PERMISSION, attributes, **where)

    def from_peer(self, data: bytes, peer: Address, relayed: Address) -> list[bytes]:
        """What a client gets for a peer's datagram."""
        self.server.receive_datagram(data, peer, relayed, self.now)
        sent = self.server.datagrams_to_send(self.now) + self.server.streams_to_send(self.now)
        return [t.data for t in sent]


def code_of(answer: Message | None) -> int | None:
    assert answer is not None
    error = answer.get(ERROR_CODE)
    return None if error is None else error.code
