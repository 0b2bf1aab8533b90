"""Answering the peer's checks: RFC 8445 section 7.3, RFC 8489 sections 6.3.1 and 9.1.3."""

from __future__ import annotations

import pytest

from ice_punch.ice import AgentConfig
from ice_punch.stun import (
    ALTERNATE_SERVER,
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    PRIORITY,
    UNKNOWN_ATTRIBUTES,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    Integrity,
    Message,
    MessageClass,
    Method,
    parse_message,
)
from support.bench import LOCAL, OURS, PEER, REMOTE, Bench, Sent

STRANGER = ("203.0.113.99", 1)


def only_response(bench: Bench) -> Sent:
    (response,) = bench.responses
    return response


def test_a_check_is_answered_from_where_it_came_to() -> None:
    second = ("192.0.2.2", 5000)
    bench = Bench(bases=[LOCAL, second])
    data = bench.request()
    bench.receive(data, REMOTE, second)
    response = only_response(bench)
    assert (response.local, response.destination) == (second, REMOTE)
    assert response.message.get(XOR_MAPPED_ADDRESS) == REMOTE
    assert response.message.transaction_id == data[8:20]
    assert response.message.get(ALTERNATE_SERVER) is None
    assert response.message.has_fingerprint


@pytest.mark.parametrize("algorithm", Integrity)
def test_the_answer_is_protected_as_the_request_was(algorithm: Integrity) -> None:
    bench = Bench()
    bench.receive(bench.request(algorithm=algorithm))
    response = only_response(bench)
    assert response.message.integrity == {algorithm}
    assert response.message.verify(OURS.key, algorithm)


def test_the_user_name_is_ours_and_anything_after_the_colon() -> None:
    bench = Bench()
    bench.receive(bench.request(username=f"{OURS.ufrag}:whoever"))
    assert only_response(bench).message.message_class is MessageClass.SUCCESS
    assert len(bench.agent.check_list) == 0


@pytest.mark.parametrize(
    ("changes", "code", "counter"),
    [
        ({"key": None}, 400, "requests_unauthenticated"),
        ({"username": None}, 400, "requests_unauthenticated"),
        ({"username": "nobody:peerfrag"}, 401, "requests_unauthenticated"),
        ({"username": f"{OURS.ufrag}"}, 401, "requests_unauthenticated"),
        ({"username": f"{PEER.ufrag}:{OURS.ufrag}"}, 401, "requests_unauthenticated"),
        ({"key": PEER.key}, 401, "requests_unauthenticated"),
        ({"priority": None}, 400, "requests_incomplete"),
        ({"priority": 0}, 400, "requests_incomplete"),
    ],
)
def test_what_is_no_check_is_refused_and_changes_nothing(
    changes: dict[str, object], code: int, counter: str
) -> None:
    bench = Bench()
    bench.receive(bench.request(**changes))  # type: ignore[arg-type]
    response = only_response(bench)
    assert response.error == code
    assert bool(response.message.integrity) is (counter == "requests_incomplete")
    assert bench.agent.counters[counter] == 1
    assert bench.agent.remote_candidates == ()
    assert not bench.agent.accepts_data(REMOTE, LOCAL)


def test_a_request_without_fingerprint_is_none_of_ours() -> None:
    bench = Bench()
    bench.receive(bench.request(fingerprint=False))
    assert bench.sent == []
    assert bench.agent.counters["requests_without_fingerprint"] == 1


def test_a_request_without_the_cookie_is_no_stun() -> None:
    """RFC 8445 section 7.3: no support for what RFC 3489 did."""
    bench = Bench()
    data = bytearray(bench.request(fingerprint=False))
    data[4:8] = b"\1\2\3\4"
    bench.receive(bytes(data))
    assert bench.sent == []
    assert bench.agent.counters["data_from_strangers"] == 1


def test_an_unknown_comprehension_required_attribute_is_named_in_a_420() -> None:
    bench = Bench()
    message = Message(Method.BINDING, MessageClass.REQUEST, bytes(12))
    message.add(USERNAME, f"{OURS.ufrag}:{PEER.ufrag}")
    message.add(PRIORITY, 1)
    message.add(ICE_CONTROLLED, 1)
    data = bytearray(message.to_bytes())[:-8]
    data += b"\x7f\xfe\0\0"
    data[2:4] = (len(data) - 20).to_bytes(2, "big")
    bench.receive(parse_message(bytes(data)).to_bytes(key=OURS.key))
    response = only_response(bench)
    assert response.error == 420
    assert response.message.get(UNKNOWN_ATTRIBUTES) == (0x7FFE,)
    assert response.message.verify(OURS.key)


@pytest.mark.parametrize("both", [True, False])
def test_a_check_has_exactly_one_role(both: bool) -> None:
    bench = Bench()
    message = Message(Method.BINDING, MessageClass.REQUEST, bytes(12))
    message.add(USERNAME, f"{OURS.ufrag}:{PEER.ufrag}")
    message.add(PRIORITY, 1)
    if both:
        message.add(ICE_CONTROLLED, 1)
        message.add(ICE_CONTROLLING, 1)
    bench.receive(message.to_bytes(key=OURS.key))
    assert only_response(bench).error == 400
    assert bench.agent.controlling


def test_a_check_to_an_address_that_is_not_ours_is_ignored() -> None:
    bench = Bench()
    bench.receive(bench.request(), REMOTE, ("192.0.2.99", 1))
    assert bench.sent == []
    assert bench.agent.counters["requests_refused"] == 1


@pytest.mark.parametrize("method", [m for m in Method if m is not Method.BINDING])
def test_other_methods_are_counted_and_ignored(method: Method) -> None:
    bench = Bench()
    message = Message(method, MessageClass.REQUEST, bytes(12))
    message.add(USERNAME, f"{OURS.ufrag}:{PEER.ufrag}")
    bench.receive(message.to_bytes(key=OURS.key))
    assert bench.sent == []
    assert bench.agent.counters["stun_unexpected"] == 1


def test_an_indication_is_a_keepalive_and_nothing_else() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.take()
    bench.receive(Message(Method.BINDING, MessageClass.INDICATION, bytes(12)).to_bytes(), STRANGER)
    assert bench.sent == []
    assert bench.agent.counters["indications"] == 1
    assert not bench.agent.accepts_data(STRANGER, LOCAL)


def test_an_ended_session_answers_nobody() -> None:
    bench = Bench(remotes=[REMOTE])
    bench.take()
    bench.agent.close(bench.now)
    bench.receive(bench.request())
    bench.run(60.0)
    assert bench.sent == []
    assert bench.agent.get_timer() is None
    assert bench.agent.counters["after_end"] == 1
    assert bench.states[-1] == "closed"


def test_what_was_not_sent_yet_is_not_sent_after_the_end() -> None:
    bench = Bench()
    bench.agent.receive_datagram(bench.request(), REMOTE, LOCAL, bench.now)
    bench.agent.close(bench.now)
    assert bench.agent.datagrams_to_send(bench.now) == []


def test_checks_that_come_twice_are_answered_twice_and_count_as_one_pair() -> None:
    bench = Bench()
    data = bench.request()
    bench.receive(data)
    bench.receive(data)
    assert len(bench.responses) == 2
    assert len({s.data for s in bench.responses}) == 1
    assert len(bench.agent.check_list) == len(bench.requests) == 1
    bench.run(0.02)
    assert len(bench.requests) == 2  # each triggers, RFC 8445 section 7.3.1.4


def test_a_path_without_room_is_refused_so_that_the_peer_does_not_select_it() -> None:
    """A success would make the pair valid for the peer, and nominated it would be the end of the
    search there, and of nothing here."""
    bench = Bench(config=AgentConfig(max_remote_candidates=1), remotes=[REMOTE])
    for use_candidate in (False, True):
        bench.receive(bench.request(use_candidate=use_candidate), STRANGER)
        assert bench.responses[-1].error == 500
        assert bench.responses[-1].message.verify(OURS.key)
    assert bench.agent.check_list.find(LOCAL, STRANGER) is None
    assert bench.agent.counters["requests_refused"] == 2
    bench.receive(bench.request())
    assert bench.responses[-1].error is None


def test_a_path_that_no_pair_has_room_for_is_refused() -> None:
    bench = Bench(config=AgentConfig(max_pairs=1), remotes=[REMOTE])
    bench.receive(bench.answer(bench.requests[0]))
    bench.receive(bench.request(), STRANGER)
    assert bench.responses[-1].error == 500
    assert [pair.remote.address for pair in bench.agent.check_list] == [REMOTE]


def test_no_response_carries_a_user_name() -> None:
    # RFC 8489 section 9.1.3
    bench = Bench()
    bench.receive(bench.request())
    bench.receive(bench.request(key=b"a wrong password"))
    kinds = {s.message.message_class for s in bench.responses}
    assert kinds == {MessageClass.SUCCESS, MessageClass.ERROR}
    assert all(s.message.get(USERNAME) is None for s in bench.responses)


def test_every_message_of_a_check_fits_the_smallest_datagram() -> None:
    # RFC 8489 section 6.1: 576 bytes with IPv4 and UDP headers where the path MTU is not known
    bench = Bench(remotes=[REMOTE])
    bench.receive(bench.request())
    bench.run(1.0)
    assert bench.sent
    assert max(len(s.data) for s in bench.sent) <= 576 - 28
