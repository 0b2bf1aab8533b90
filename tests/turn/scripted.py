"""A TURN client whose server is played by hand, message by message."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from turn_world import CLIENT, SERVER

from ice_punch.datagram import Address
from ice_punch.stun import (
    ERROR_CODE,
    LIFETIME,
    NONCE,
    PASSWORD_ALGORITHMS,
    REALM,
    XOR_MAPPED_ADDRESS,
    XOR_RELAYED_ADDRESS,
    AlgorithmParameters,
    ErrorCode,
    Integrity,
    Message,
    MessageClass,
    Method,
    PasswordAlgorithm,
    SecurityFeature,
    long_term_key,
    make_nonce,
    parse_message,
    response_to,
)
from ice_punch.turn import TurnClient
from ice_punch.turn.channel_data import is_channel_data

REALM_TEXT = "test"
KEY = long_term_key("robot", REALM_TEXT, "correct horse")
KEY_SHA256 = long_term_key("robot", REALM_TEXT, "correct horse", PasswordAlgorithm.SHA256)
RELAYED: Address = ("203.0.113.10", 51234)
MAPPED: Address = ("198.51.100.77", 61000)
SHA256 = AlgorithmParameters(PasswordAlgorithm.SHA256)
MD5 = AlgorithmParameters(PasswordAlgorithm.MD5)
BOTH = SecurityFeature.PASSWORD_ALGORITHMS | SecurityFeature.USERNAME_ANONYMITY

Attributes = Sequence[tuple[Any, Any]]


class Script:
    """``now`` is for the test to move."""

    def __init__(
        self, username: str | None = "robot", password: str | None = "correct horse", **options: Any
    ) -> None:
        self.now = 0.0
        self.client = TurnClient(
            SERVER, CLIENT, username, password, random.Random(5), self.now, **options
        )
        self.server = SERVER

    def sent(self) -> list[Message]:
        """The STUN messages that leave now."""
        transmits = self.client.datagrams_to_send(self.now)
        assert {t.local for t in transmits} <= {CLIENT}
        assert {t.destination for t in transmits} <= {self.client.server}
        return [parse_message(t.data) for t in transmits if not is_channel_data(t.data)]

    def request(self, method: Method = Method.ALLOCATE) -> Message:
        """The one request that leaves now."""
        (request,) = self.sent()
        assert (request.method, request.message_class) == (method, MessageClass.REQUEST)
        return request

    def feed(self, data: bytes, source: Address | None = None) -> None:
        self.client.receive_datagram(data, source or self.client.server, CLIENT, self.now)

    def answer(
        self,
        request: Message,
        attributes: Attributes = (),
        *,
        error: int | None = None,
        reason: str = "",
        key: bytes | None = KEY,
        integrity: Integrity = Integrity.SHA1,
    ) -> None:
        kind = MessageClass.SUCCESS if error is None else MessageClass.ERROR
        response = response_to(request, kind)
        if error is not None:
            response.add(ERROR_CODE, ErrorCode(error, reason))
        for attribute, value in attributes:
            response.add(attribute, value)
        self.feed(response.to_bytes(key=key, algorithms=(integrity,)))

    def challenge(
        self,
        request: Message,
        *,
        code: int = 401,
        nonce: str = "first",
        features: SecurityFeature | None = None,
        offered: Sequence[AlgorithmParameters] | None = None,
        realm: str = REALM_TEXT,
    ) -> None:
        """A 401 or 438; ``features`` puts a nonce cookie in front of the nonce."""
        full = nonce if features is None else make_nonce(features, nonce)
        attributes: list[tuple[Any, Any]] = [(REALM, realm), (NONCE, full)]
        if offered is not None:
            attributes.append((PASSWORD_ALGORITHMS, tuple(offered)))
        self.answer(request, attributes, error=code, key=None)

    def grant(
        self, request: Message, *, relayed: Sequence[Address] = (RELAYED,), lifetime: int = 600
    ) -> None:
        addresses = [(XOR_RELAYED_ADDRESS, address) for address in relayed]
        self.answer(request, [*addresses, (LIFETIME, lifetime), (XOR_MAPPED_ADDRESS, MAPPED)])

    def allocate(self, **grant: Any) -> None:
        """As far as ``Allocated``."""
        self.challenge(self.request())
        self.grant(self.request(), **grant)

    def events(self) -> list[Any]:
        found = []
        while (event := self.client.next_event()) is not None:
            found.append(event)
        return found

    def wait(self, seconds: float) -> list[Message]:
        """What leaves while the client is left alone."""
        end = self.now + seconds
        found = self.sent()
        while (due := self.client.get_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.client.handle_timer(self.now)
            found += self.sent()
        self.now = end
        return found
