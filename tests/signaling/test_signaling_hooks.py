"""What the server asks others: who may enter, which ICE servers, where to count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest
from signaling_support import ROOM, Shell

from signaling.hooks import Denied, Grant, IceRequest
from signaling.limits import Limits
from signaling.messages import ErrorCode, Hello, IceInfo, IceServerInfo, Outcome

TURN = IceServerInfo(urls=["turn:h"], username="u", credential="c")
STUN = IceServerInfo(urls=["stun:{host}"])


class Doorkeeper:
    def __init__(self, answer: Grant | Denied) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str, str | None]] = []

    def authorize(self, hello: Hello, address: str, origin: str | None) -> Grant | Denied:
        self.asked.append((hello.room, hello.token, address, origin))
        return self.answer


class Mint:
    """Credentials that say for whom they are and which they are."""

    def __init__(self, ttl: int | None = 100, *, later: bool = False) -> None:
        self.ttl = ttl
        self.later = later
        self.requests: list[IceRequest] = []

    def ice_servers(self, request: IceRequest) -> IceInfo | Awaitable[IceInfo]:
        self.requests.append(request)
        if self.later:
            return self._promise()
        return self.make()

    def make(self) -> IceInfo:
        name = str(len(self.requests))
        return IceInfo(
            servers=[IceServerInfo(urls=["turn:h"], username=name, credential="c")], ttl=self.ttl
        )

    class _promise:  # noqa: N801
        def __await__(self) -> Any:
            raise AssertionError("the rooms await nothing themselves")


def test_the_authorizer_sees_room_token_address_and_origin() -> None:
    door = Doorkeeper(Grant())
    shell = Shell(authorizer=door)
    connection = shell.open("192.0.2.7", origin="https://app.example")
    welcome = shell.hello(connection, room="lobby", token="the token")
    assert welcome["type"] == "welcome"
    assert door.asked == [("lobby", "the token", "192.0.2.7", "https://app.example")]


@pytest.mark.parametrize(
    ("denied", "close_code"),
    [
        (Denied(ErrorCode.UNAUTHORIZED, "no token"), 4501),
        (Denied(ErrorCode.FORBIDDEN_ORIGIN, "not from there"), 4501),
        (Denied(ErrorCode.TOKEN_EXPIRED, "too late"), 4502),
        (Denied(ErrorCode.BAD_ROOM, "no such room"), 4507),
        (Denied(ErrorCode.BUSY, "later", 7.0), 4004),
    ],
)
def test_who_is_denied_hears_why_and_is_closed(denied: Denied, close_code: int) -> None:
    shell = Shell(authorizer=Doorkeeper(denied))
    connection = shell.open()
    error = shell.hello(connection)
    assert (error["code"], error["message"]) == (denied.code, denied.text)
    assert error["fatal"] is True
    assert error.get("retry_after") == denied.retry_after
    assert shell.closed[connection] == close_code
    assert shell.rooms.sizes["sessions"] == 0


def test_a_resume_is_let_in_by_its_key_alone() -> None:
    door = Doorkeeper(Grant())
    shell = Shell(authorizer=door)
    connection, welcome = shell.join()
    shell.drop(connection)
    door.answer = Denied(ErrorCode.TOKEN_EXPIRED, "too late")
    again = shell.resume(welcome, 0)
    assert shell.sent[again][0]["type"] == "resumed"


def test_who_may_not_call_sees_and_is_heard_of_and_sends_nothing() -> None:
    shell = Shell(authorizer=Doorkeeper(Grant(call=False)))
    a, first = shell.join()
    b, second = shell.join()
    assert second["peers"][0]["id"] == first["self"]
    error = shell.signal(b, 1, first["self"])[-1]
    assert (error["code"], error["ref"]) == ("unauthorized", 1)
    assert shell.heard(a, "signal") == []


def test_a_grant_can_lower_the_seats_of_a_room_and_not_raise_them() -> None:
    shell = Shell(authorizer=Doorkeeper(Grant(max_peers=3)))
    assert shell.join()[1]["limits"]["peers"] == 3
    assert shell.join("x" * 22, max_peers=2)[1]["limits"]["peers"] == 2
    shell = Shell(authorizer=Doorkeeper(Grant(max_peers=300)))
    assert shell.join()[1]["limits"]["peers"] == 16


def test_every_session_has_ice_servers_of_its_own_and_fresh_ones_at_80_percent() -> None:
    mint = Mint(ttl=100)
    shell = Shell(ice=mint, authorizer=Doorkeeper(Grant(subject="ann", relay=False)))
    connection = shell.open("192.0.2.7", host="signal.example")
    welcome = shell.hello(connection)
    assert welcome["ice"]["servers"][0]["username"] == "1"
    assert welcome["ice"]["ttl"] == 100
    assert mint.requests == [
        IceRequest(welcome["self"], "ann", False, "signal.example", "192.0.2.7")
    ]
    for _ in range(3):
        shell.advance(20)
        shell.say(connection, "ping", n=1)
    shell.advance(19.9)
    assert shell.heard(connection, "ice") == []
    shell.advance(0.2)
    (fresh,) = shell.heard(connection, "ice")
    assert (fresh["servers"][0]["username"], fresh["ttl"]) == ("2", 100)


def test_servers_that_need_no_credentials_are_never_refreshed() -> None:
    shell = Shell(ice=IceInfo(servers=[STUN, TURN]))
    connection = shell.open(host="signal.example")
    welcome = shell.hello(connection)
    assert [server["urls"] for server in welcome["ice"]["servers"]] == [
        ["stun:signal.example"],
        ["turn:h"],
    ]
    shell.advance(70)
    assert shell.heard(connection, "ice") == []


def test_who_was_away_gets_fresh_servers_with_its_resume() -> None:
    shell = Shell(Limits(resume_window=300.0), ice=Mint(ttl=10))
    connection, welcome = shell.join()
    shell.drop(connection)
    shell.advance(60)
    again = shell.resume(welcome, 0)
    assert [frame["type"] for frame in shell.sent[again]] == ["resumed", "ice"]


def test_fresh_servers_can_be_asked_for_every_10_seconds() -> None:
    shell = Shell(ice=Mint(ttl=None))
    connection, _ = shell.join()
    assert shell.say(connection, "ice")[0]["servers"][0]["username"] == "2"
    shell.advance(4)
    (error,) = shell.say(connection, "ice")
    assert (error["code"], error["retry_after"]) == ("rate_limited", 6.0)
    shell.advance(6)
    assert shell.say(connection, "ice")[0]["type"] == "ice"


def test_nobody_waits_in_the_room_for_ice_servers_and_nobody_is_missed() -> None:
    mint = Mint(later=True)
    shell = Shell(ice=mint)
    a, b = shell.open(), shell.open()
    for connection in (a, b):
        assert shell.say(connection, "hello", v=1, room=ROOM) == []
    assert shell.awaited == [a, b]
    assert shell.rooms.sizes["sessions"] == 0
    shell.apply(shell.rooms.on_ice_servers(b, mint.make(), shell.now))
    shell.apply(shell.rooms.on_ice_servers(a, mint.make(), shell.now))
    assert shell.sent[b][0]["peers"] == []
    assert [peer["id"] for peer in shell.sent[a][0]["peers"]] == [shell.sent[b][0]["self"]]
    assert shell.sent[b][1]["event"] == "join"


def test_without_an_answer_the_welcome_comes_all_the_same_and_it_is_asked_again() -> None:
    mint = Mint(later=True)
    shell = Shell(ice=mint)
    connection = shell.open()
    shell.say(connection, "hello", v=1, room=ROOM)
    shell.advance(20)
    assert connection not in shell.closed
    shell.apply(shell.rooms.on_ice_servers(connection, None, shell.now))
    assert shell.sent[connection][0]["type"] == "welcome"
    assert shell.sent[connection][0]["ice"]["servers"] == []
    assert shell.rooms.counters["ice_failed"] == 1
    shell.advance(8.1)
    shell.apply(shell.rooms.on_ice_servers(connection, mint.make(), shell.now))
    assert shell.heard(connection, "ice")[0]["servers"][0]["credential"] == "c"


def test_nothing_may_follow_a_hello_before_its_welcome() -> None:
    shell = Shell(ice=Mint(later=True))
    connection = shell.open()
    shell.say(connection, "hello", v=1, room=ROOM)
    (error,) = shell.say(connection, "ping", n=1)
    assert error["code"] == "bad_order"
    assert shell.closed[connection] == 4500
    shell.apply(shell.rooms.on_ice_servers(connection, None, shell.now))
    assert shell.rooms.sizes["sessions"] == 0


def test_outcomes_that_peers_report_reach_the_metrics() -> None:
    class Ledger:
        def __init__(self) -> None:
            self.counters: Counter[str] = Counter()
            self.outcomes: list[tuple[Outcome, float | None]] = []

        def outcome(self, outcome: Outcome, seconds: float | None) -> None:
            self.outcomes.append((outcome, seconds))

    ledger = Ledger()
    shell = Shell(metrics=ledger)
    connection, _ = shell.join()
    shell.say(connection, "outcome", outcome="direct", ms=250)
    shell.say(connection, "outcome", outcome="failed")
    (error,) = shell.say(connection, "outcome", outcome="happy")
    assert error["code"] == "bad_field"
    assert ledger.outcomes == [("direct", 0.25), ("failed", None)]
    assert ledger.counters["sessions_opened"] == 1
