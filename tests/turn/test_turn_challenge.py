"""How a client proves its password (RFC 8489 sections 9.2.3 and 9.2.5), and to whom it does not."""

from __future__ import annotations

import random

import pytest
from scripted import BOTH, KEY, KEY_SHA256, MD5, SHA256, Script
from turn_world import CLIENT, SERVER, World

from ice_punch.stun import (
    ALTERNATE_SERVER,
    LIFETIME,
    NONCE,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    REALM,
    USERHASH,
    USERNAME,
    XOR_RELAYED_ADDRESS,
    AlgorithmParameters,
    Integrity,
    Method,
    SecurityFeature,
    long_term_key,
    make_nonce,
    userhash,
)
from ice_punch.turn import Allocated, AllocationFailed, TurnClient, TurnState

NO_FEATURES = SecurityFeature(0)
ALGORITHMS = SecurityFeature.PASSWORD_ALGORITHMS
ANONYMITY = SecurityFeature.USERNAME_ANONYMITY
RELAYED = ("203.0.113.10", 51234)
GRANT = [(XOR_RELAYED_ADDRESS, RELAYED), (LIFETIME, 600)]
SHA256_ONLY = {"key": KEY_SHA256, "integrity": Integrity.SHA256}


def failure(script: Script) -> AllocationFailed:
    (event,) = script.events()
    assert isinstance(event, AllocationFailed)
    return event


def test_a_server_of_rfc5389_gets_md5_and_message_integrity() -> None:
    script = Script()
    first = script.request()
    script.challenge(first, nonce="plain nonce")
    request = script.request()
    assert request.transaction_id != first.transaction_id
    assert request.get(USERNAME) == "robot"
    assert request.get(REALM) == "test"
    assert request.get(NONCE) == "plain nonce"
    assert request.get(PASSWORD_ALGORITHM) is None
    assert request.integrity == {Integrity.SHA1}
    assert request.verify(KEY)


@pytest.mark.parametrize("offered", [[SHA256, MD5], [MD5, SHA256], [SHA256]])
def test_rfc8656_6_3_sha256_is_chosen_wherever_it_stands_in_the_list(offered) -> None:
    script = Script()
    script.challenge(script.request(), features=ALGORITHMS, offered=offered)
    request = script.request()
    assert request.get(PASSWORD_ALGORITHM) == SHA256
    assert request.get(PASSWORD_ALGORITHMS) == tuple(offered)  # RFC 8489 section 9.2.5
    assert request.integrity == {Integrity.SHA256}
    assert request.verify(KEY_SHA256, Integrity.SHA256)


def test_rfc8489_9_2_5_19_after_password_algorithms_only_sha256_protects_messages() -> None:
    script = Script()
    script.challenge(script.request(), features=ALGORITHMS, offered=[MD5])
    request = script.request()
    assert request.get(PASSWORD_ALGORITHM) == MD5
    assert request.integrity == {Integrity.SHA256}
    assert request.verify(KEY, Integrity.SHA256)
    script.answer(request, GRANT, key=KEY, integrity=Integrity.SHA1)
    assert script.events() == []  # the weaker protection does not count
    script.answer(request, GRANT, key=KEY, integrity=Integrity.SHA256)
    assert isinstance(script.events()[0], Allocated)


def test_rfc8489_9_2_5_9_unknown_algorithms_are_passed_over() -> None:
    script = Script()
    strange = AlgorithmParameters(77, b"salt")
    script.challenge(script.request(), features=ALGORITHMS, offered=[strange, MD5])
    request = script.request()
    assert request.get(PASSWORD_ALGORITHM) == MD5
    assert request.get(PASSWORD_ALGORITHMS) == (strange, MD5)


@pytest.mark.parametrize("offered", [[], [AlgorithmParameters(77)]])
def test_rfc8489_9_2_5_10_no_algorithm_in_common_is_the_end(offered) -> None:
    script = Script()
    script.challenge(script.request(), features=ALGORITHMS, offered=offered)
    assert failure(script).code == 401
    assert script.wait(60) == []


@pytest.mark.parametrize("code", [401, 438])
def test_rfc8489_9_2_5_2_a_nonce_that_announces_algorithms_without_any_is_no_offer(code) -> None:
    """Someone on the way took them out, to have the weaker key."""
    script = Script()
    if code == 438:
        script.challenge(script.request())
    script.challenge(script.request(), code=code, features=ALGORITHMS, nonce="n")
    assert failure(script).code == code
    assert script.wait(60) == []


def test_rfc8489_9_2_5_14_other_responses_of_that_kind_are_ignored() -> None:
    script = Script()
    script.challenge(script.request())
    request = script.request()
    nonce = make_nonce(ALGORITHMS, "n")
    script.answer(request, [*GRANT, (NONCE, nonce)])
    assert script.events() == []
    script.answer(request, [*GRANT, (NONCE, nonce), (PASSWORD_ALGORITHMS, (MD5,))])
    assert isinstance(script.events()[0], Allocated)


def test_rfc8489_9_2_5_5_the_name_is_hidden_where_the_server_can_do_without() -> None:
    script = Script()
    script.challenge(script.request(), features=BOTH, offered=[SHA256])
    request = script.request()
    assert request.get(USERNAME) is None
    assert request.get(USERHASH) == userhash("robot", "test")


def test_rfc8489_9_2_5_5_without_the_bit_the_name_is_sent() -> None:
    for features in (None, NO_FEATURES, ALGORITHMS):
        script = Script()
        offered = [SHA256] if features == ALGORITHMS else None
        script.challenge(script.request(), features=features, offered=offered)
        assert script.request().get(USERNAME) == "robot"


def test_rfc8489_9_2_3_2_later_requests_carry_what_the_first_was_proven_with() -> None:
    script = Script()
    script.challenge(script.request(), features=BOTH, offered=[SHA256, MD5])
    script.answer(script.request(), GRANT, **SHA256_ONLY)
    script.client.permit(("192.0.2.7", 7000), script.now)
    request = script.request(Method.CREATE_PERMISSION)
    assert request.get(USERHASH) is not None
    assert request.get(REALM) == "test"
    assert request.get(NONCE) == make_nonce(BOTH, "first")
    assert request.get(PASSWORD_ALGORITHM) == SHA256
    assert request.get(PASSWORD_ALGORITHMS) == (SHA256, MD5)
    assert request.verify(KEY_SHA256, Integrity.SHA256)


def test_rfc8489_9_2_5_11_a_rejected_password_is_not_tried_again() -> None:
    script = Script()
    script.challenge(script.request())
    script.challenge(script.request(), nonce="another")
    assert failure(script).code == 401
    assert script.wait(60) == []


def test_another_realm_is_another_chance_but_not_for_ever() -> None:
    script = Script()
    for number in range(10):
        script.challenge(script.request(), realm=f"realm {number}")
        if script.client.state is TurnState.ENDED:
            break
    assert number < 5
    assert failure(script).code == 401


@pytest.mark.parametrize(
    ("username", "password"), [(None, None), ("robot", None), (None, "secret")]
)
def test_without_credentials_a_challenge_is_the_end(username, password) -> None:
    script = Script(username, password)
    script.challenge(script.request())
    assert failure(script).code == 401


def test_without_credentials_a_server_that_asks_for_none_will_do() -> None:
    script = Script(None, None)
    script.answer(script.request(), GRANT, key=None)
    assert isinstance(script.events()[0], Allocated)


def test_rfc8489_9_2_5_12_a_stale_nonce_is_replaced_and_the_new_one_kept() -> None:
    script = Script()
    script.allocate()
    script.events()
    script.client.permit(("192.0.2.7", 7000), script.now)
    stale = script.request(Method.CREATE_PERMISSION)
    script.challenge(stale, code=438, nonce="second")
    request = script.request(Method.CREATE_PERMISSION)
    assert request.transaction_id != stale.transaction_id
    assert request.get(NONCE) == "second"
    assert request.verify(KEY)
    script.answer(request)
    script.client.permit(("192.0.2.8", 7000), script.now)
    assert script.request(Method.CREATE_PERMISSION).get(NONCE) == "second"


def test_a_server_whose_nonces_are_always_stale_is_not_asked_for_ever() -> None:
    script = Script()
    script.challenge(script.request())
    for number in range(10):
        script.challenge(script.request(), code=438, nonce=f"nonce {number}")
        if script.client.state is TurnState.ENDED:
            break
    assert number < 5
    assert failure(script).code == 438


def test_nonces_that_expire_are_no_trouble_for_hours() -> None:
    world = World(nonce_lifetime=100)
    client = world.client()
    world.run(1)
    client.send(b"x", ("192.0.2.7", 7000), world.now)
    world.run(7200)
    assert client.state is TurnState.ALLOCATED
    assert world.server.counters.errors[438] > 10
    assert world.server.counters.errors.keys() <= {401, 438}


def test_rfc8489_9_2_5_15_a_400_without_integrity_was_never_received() -> None:
    script = Script()
    first = script.request()
    script.answer(first, error=400, reason="Bad Request", key=None)
    assert script.events() == []
    script.wait(40)
    failed = failure(script)
    assert failed.code is None
    assert failed.reason == "silent: nothing but 400 Bad Request without proof"


def test_a_400_with_integrity_is_an_answer() -> None:
    script = Script()
    script.challenge(script.request())
    script.answer(script.request(), error=400, reason="Bad Request")
    assert failure(script).code == 400


def test_rfc8489_9_2_5_16_answers_with_a_wrong_key_are_discarded_and_told() -> None:
    script = Script()
    script.challenge(script.request())
    request = script.request()
    for key in (b"wrong", None):
        script.answer(request, GRANT, key=key)
        script.answer(request, error=486, key=key)
        script.answer(request, [(ALTERNATE_SERVER, SERVER)], error=300, key=key)
    assert script.events() == []
    assert len(script.wait(39)) == 6  # retransmission goes on
    script.wait(1)
    assert failure(script).reason.startswith("unauthenticated")


def test_rfc8489_9_2_5_16_over_a_stream_a_wrong_key_ends_it_at_once() -> None:
    script = Script(transport="tcp")
    script.challenge(script.request())
    script.answer(script.request(), GRANT, key=b"wrong")
    assert failure(script).reason.startswith("unauthenticated")


@pytest.mark.parametrize(
    ("realm", "nonce"),
    [("r" * 200, "n"), ("test", "n" * 200), ("re\x00alm", "n"), ("\u200b", "n")],
)
def test_a_challenge_that_can_not_be_repeated_is_the_end(realm: str, nonce: str) -> None:
    """As a parsed attribute may be longer, and hold more, than one that is sent."""
    script = Script()
    request = script.request()
    with pytest.raises(ValueError, match=r"characters|text|user name"):
        script.challenge(request, realm=realm, nonce=nonce)
    raw = _raw_challenge(request.transaction_id, realm, nonce)
    script.feed(raw)
    assert failure(script).code == 401


def _raw_challenge(transaction_id: bytes, realm: str, nonce: str) -> bytes:
    def attribute(kind: int, value: bytes) -> bytes:
        head = kind.to_bytes(2, "big") + len(value).to_bytes(2, "big")
        return head + value + bytes(-len(value) % 4)

    body = attribute(0x0009, b"\0\0\4\1") + attribute(0x0014, realm.encode())
    body += attribute(0x0015, nonce.encode())
    return b"\x01\x13" + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + transaction_id + body


def test_a_list_of_algorithms_that_is_a_burden_is_the_end() -> None:
    script = Script()
    offered = [SHA256, AlgorithmParameters(9, bytes(1000))]
    script.challenge(script.request(), features=ALGORITHMS, offered=offered)
    assert failure(script).code == 401


@pytest.mark.parametrize("credentials", [("", "x"), ("x", ""), ("a\x00b", "x"), ("n" * 600, "x")])
def test_credentials_that_can_not_be_are_refused_at_once(credentials) -> None:
    with pytest.raises(ValueError, match=r"user name|empty|text|characters"):
        TurnClient(SERVER, CLIENT, *credentials, random.Random(1), 0.0)


def test_names_and_passwords_are_prepared_as_opaque_strings() -> None:
    key = long_term_key("ro\u00a0bot", "test", "p\u00e4ss")
    script = Script("ro\u00a0bot", "pa\u0308ss")
    script.challenge(script.request())
    request = script.request()
    assert request.get(USERNAME) == "ro bot"
    assert request.verify(key)


def test_no_secret_shows_when_things_are_printed() -> None:
    script = Script()
    script.challenge(script.request())
    proof = script.client._credentials.proof
    assert "correct horse" not in f"{script.client!r} {vars(script.client)!r} {proof!r}"
    assert repr(proof.key) not in repr(proof)
