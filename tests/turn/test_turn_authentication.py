"""Whom a server believes (RFC 8489 section 9.2.4, RFC 8656 section 5)."""

from __future__ import annotations

import hashlib
import hmac
import random

import pytest
from server_support import KEY, REALM_TEXT, UDP, Asker, code_of
from turn_world import CLIENT, PEER, SERVER, USERS

from ice_punch.stun import (
    NONCE,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    REALM,
    USERHASH,
    USERNAME,
    XOR_PEER_ADDRESS,
    AlgorithmParameters,
    Integrity,
    Method,
    PasswordAlgorithm,
    SecurityFeature,
    long_term_key,
    make_nonce,
    parse_message,
    security_features,
    userhash,
)
from ice_punch.turn import SharedSecret, TurnClient, TurnLimits, TurnServer

SHA256 = AlgorithmParameters(PasswordAlgorithm.SHA256)
MD5 = AlgorithmParameters(PasswordAlgorithm.MD5)
KEY_SHA256 = long_term_key("robot", REALM_TEXT, "correct horse", PasswordAlgorithm.SHA256)
NAME = (USERNAME, "robot")
HERE = (REALM, REALM_TEXT)
BOTH = (PASSWORD_ALGORITHMS, (SHA256, MD5))


def ask(asker: Asker, attributes, **options):
    """An Allocate request with these and a right nonce."""
    nonce = (NONCE, asker.nonce())
    return asker.ask(Method.ALLOCATE, [UDP, *attributes, nonce], **options)


def test_rfc8489_9_2_4_1_a_request_without_proof_is_challenged() -> None:
    answer = Asker().ask(Method.ALLOCATE, [UDP])
    assert code_of(answer) == 401
    assert answer.get(REALM) == REALM_TEXT
    assert answer.get(PASSWORD_ALGORITHMS) == (SHA256, MD5)
    assert answer.get(USERNAME) is None
    assert not answer.integrity


def test_rfc8489_9_2_1_the_nonce_cookie_tells_what_the_server_can() -> None:
    both = SecurityFeature.PASSWORD_ALGORITHMS | SecurityFeature.USERNAME_ANONYMITY
    assert security_features(Asker().nonce()) == both
    # Names that are not known beforehand can not be found by their hash.
    unlisted = Asker(password_source=SharedSecret("s", lambda: 0.0))
    assert security_features(unlisted.nonce()) == SecurityFeature.PASSWORD_ALGORITHMS


def test_rfc8489_9_2_4_1_no_two_addresses_get_the_same_nonce() -> None:
    asker = Asker()
    where = [
        {},
        {"source": ("198.51.100.2", CLIENT[1])},
        {"source": (CLIENT[0], CLIENT[1] + 1)},
        {"local": ("203.0.113.10", 443)},
        {"transport": "tcp"},
    ]
    nonces = [asker.nonce(**place) for place in where]
    assert len(set(nonces)) == len(where)
    assert (
        len({Asker(TurnServer(["192.0.2.1"], {}, random.Random(n))).nonce() for n in range(9)}) == 9
    )


@pytest.mark.parametrize("missing", [USERNAME, REALM, NONCE])
def test_rfc8489_9_2_4_9_proof_that_lacks_something_is_a_400_without_a_challenge(missing) -> None:
    asker = Asker()
    parts = [NAME, HERE, (NONCE, asker.nonce())]
    given = [UDP, *(part for part in parts if part[0] is not missing)]
    answer = asker.ask(Method.ALLOCATE, given, key=KEY)
    assert code_of(answer) == 400
    assert answer.get(NONCE) is None
    assert answer.get(REALM) is None
    assert not answer.integrity


@pytest.mark.parametrize(
    "algorithms",
    [
        [BOTH],
        [(PASSWORD_ALGORITHM, SHA256)],
        [(PASSWORD_ALGORITHMS, (MD5,)), (PASSWORD_ALGORITHM, MD5)],
        [(PASSWORD_ALGORITHMS, (MD5, SHA256)), (PASSWORD_ALGORITHM, SHA256)],
        [BOTH, (PASSWORD_ALGORITHM, AlgorithmParameters(3))],
        [BOTH, (PASSWORD_ALGORITHM, AlgorithmParameters(2, b"salt"))],
    ],
)
def test_rfc8489_9_2_4_11_a_list_that_was_tampered_with_is_a_400(algorithms) -> None:
    answer = ask(Asker(), [NAME, HERE, *algorithms], key=KEY_SHA256, integrity=(Integrity.SHA256,))
    assert code_of(answer) == 400


@pytest.mark.parametrize(
    ("chosen", "key"), [(SHA256, KEY_SHA256), (MD5, KEY)], ids=["sha256", "md5"]
)
def test_rfc8489_9_2_4_23_a_request_that_names_its_algorithm_is_answered_with_sha256(
    chosen, key
) -> None:
    answer = ask(
        Asker(),
        [NAME, HERE, BOTH, (PASSWORD_ALGORITHM, chosen)],
        key=key,
        integrity=(Integrity.SHA256,),
    )
    assert code_of(answer) is None
    assert answer.integrity == {Integrity.SHA256}
    assert answer.verify(key, Integrity.SHA256)
    assert answer.get(NONCE) is None
    assert answer.get(USERNAME) is None


@pytest.mark.parametrize("integrity", [(Integrity.SHA1,), (Integrity.SHA1, Integrity.SHA256)])
def test_rfc8489_9_2_4_23_a_client_of_rfc5389_gets_message_integrity(integrity) -> None:
    answer = ask(Asker(), [NAME, HERE], key=KEY, integrity=integrity)
    assert code_of(answer) is None
    assert answer.integrity == {Integrity.SHA1}
    assert answer.verify(KEY)


def test_a_userhash_stands_for_the_name() -> None:
    digest = (USERHASH, userhash("robot", REALM_TEXT))
    assert code_of(ask(Asker(), [digest, HERE], key=KEY)) is None
    stranger = (USERHASH, userhash("nobody", REALM_TEXT))
    assert code_of(ask(Asker(), [stranger, HERE], key=KEY)) == 401


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("nobody", KEY),
        ("robot", b"wrong"),
        ("", KEY),
        ("a\x00\u200b", KEY),
        ("robot", long_term_key("robot", "elsewhere", "correct horse")),
    ],
)
def test_rfc8489_9_2_4_12_and_17_strangers_and_wrong_passwords_are_challenged_anew(
    name, key
) -> None:
    asker = Asker()
    nonce = asker.nonce()
    asker.now += 1
    body = b"".join(
        _attribute(kind, value)
        for kind, value in (
            (0x0019, b"\x11\0\0\0"),
            (0x0006, name.encode()),
            (0x0014, REALM_TEXT.encode()),
            (0x0015, nonce.encode()),
        )
    )
    (raw,) = asker.raw(_signed(0x0003, body, key))
    answer = parse_message(raw)
    assert code_of(answer) == 401
    assert answer.get(REALM) == REALM_TEXT
    assert answer.get(NONCE) not in (None, nonce)
    assert answer.get(PASSWORD_ALGORITHMS) == (SHA256, MD5)
    assert not answer.integrity


def _attribute(kind: int, value: bytes) -> bytes:
    head = kind.to_bytes(2, "big") + len(value).to_bytes(2, "big")
    return head + value + bytes(-len(value) % 4)


def _signed(message_type: int, body: bytes, key: bytes) -> bytes:
    head = message_type.to_bytes(2, "big") + (len(body) + 24).to_bytes(2, "big")
    covered = head + b"\x21\x12\xa4\x42" + bytes(12) + body
    return covered + _attribute(0x0008, hmac.new(key, covered, hashlib.sha1).digest())


def test_rfc8489_9_2_4_20_an_old_nonce_is_replaced() -> None:
    asker = Asker(nonce_lifetime=600)
    proof = [UDP, NAME, HERE, (NONCE, asker.nonce())]
    asker.now += 599
    assert code_of(asker.ask(Method.ALLOCATE, proof, key=KEY)) is None
    asker.now += 2
    stale = asker.ask(Method.REFRESH, proof[1:], key=KEY)
    assert code_of(stale) == 438
    assert stale.get(REALM) == REALM_TEXT
    assert stale.get(PASSWORD_ALGORITHMS) == (SHA256, MD5)
    fresh = [NAME, HERE, (NONCE, stale.get(NONCE))]
    assert code_of(asker.ask(Method.REFRESH, fresh, key=KEY)) is None


def test_rfc8489_9_2_4_20_nonces_of_others_and_made_up_ones_are_stale() -> None:
    asker = Asker()
    theirs = asker.nonce(source=("198.51.100.2", 1))
    ours = asker.nonce()
    features = SecurityFeature.PASSWORD_ALGORITHMS | SecurityFeature.USERNAME_ANONYMITY
    bid_down = make_nonce(SecurityFeature(0), ours[13:])
    later = ours[:13] + "f" * 12 + ours[25:]
    for nonce in [
        theirs,
        bid_down,
        later,
        ours[:-1],
        ours + "0",
        make_nonce(features, ""),
        "x",
        "ü",
    ]:
        proof = [UDP, NAME, HERE, (NONCE, nonce)]
        assert code_of(asker.ask(Method.ALLOCATE, proof, key=KEY)) == 438
    assert code_of(asker.ask(Method.ALLOCATE, [UDP, NAME, HERE, (NONCE, ours)], key=KEY)) is None


def test_a_clock_that_starts_anywhere_makes_no_difference() -> None:
    for start in (-1e6, 0.0, 1.7e9):
        asker = Asker(nonce_lifetime=10)
        asker.now = start
        proof = [UDP, NAME, HERE, (NONCE, asker.nonce())]
        asker.now += 9
        assert code_of(asker.ask(Method.ALLOCATE, proof, key=KEY)) is None


def test_rfc8656_5_an_allocation_belongs_to_the_name_it_was_made_with() -> None:
    asker = Asker(users={**USERS, "other": "secret"})
    asker.allocate()
    asker.username, asker.key = "other", long_term_key("other", REALM_TEXT, "secret")
    peer = [(XOR_PEER_ADDRESS, PEER)]
    assert asker.code(Method.CREATE_PERMISSION, peer) == 441
    assert asker.code(Method.REFRESH) == 441
    assert asker.server.allocations == 1


def test_indications_and_binding_requests_need_no_proof() -> None:
    asker = Asker()
    answer = asker.ask(Method.BINDING)
    assert code_of(answer) is None


# -- time-limited names -------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_names_minted_with_the_shared_secret_are_good_until_they_expire() -> None:
    clock = Clock()
    asker = Asker(password_source=SharedSecret("north", clock))
    for seconds, expected in ((0, None), (3599, None), (3601, 401)):
        clock.now = 1_700_000_000.0
        asker.username, password = SharedSecret("north", clock).mint("alice", 3600)
        asker.key = long_term_key(asker.username, REALM_TEXT, password)
        clock.now += seconds
        source = ("198.51.100.9", 1000 + seconds)
        assert asker.code(Method.ALLOCATE, [UDP], source=source) == expected


def test_the_scheme_is_coturns() -> None:
    """As OpenSSL computes it: ``openssl dgst -sha1 -hmac north -binary | base64``."""
    secret = SharedSecret("north", lambda: 1_433_895_918.0 - 86_400)
    assert secret.mint("test", 86_400) == ("1433895918:test", "QWEnj0IYtIM4+Urq/nfK/B5TzT0=")


def test_an_allocation_outlives_the_name_it_was_made_with() -> None:
    clock = Clock()
    asker = Asker(password_source=SharedSecret("north", clock))
    asker.username, password = SharedSecret("north", clock).mint("alice", 60)
    asker.key = long_term_key(asker.username, REALM_TEXT, password)
    asker.allocate()
    clock.now += 100
    assert asker.code(Method.REFRESH) is None
    assert asker.code(Method.ALLOCATE, [UDP], source=("198.51.100.9", 1)) == 401


@pytest.mark.parametrize(
    "name", ["alice", ":alice", "-1:alice", "1e12:x", "\u0661\u0667:x", "9" * 300, "9" * 13 + ":x"]
)
def test_names_that_were_not_minted_are_strangers(name: str) -> None:
    assert SharedSecret("north", Clock()).password(name) is None


def test_listed_users_keep_their_place_beside_minted_ones() -> None:
    asker = Asker(password_source=SharedSecret("north", Clock()))
    assert asker.code(Method.ALLOCATE, [UDP]) is None


def test_quota_counts_a_person_not_her_names() -> None:
    clock = Clock()
    asker = Asker(
        password_source=SharedSecret("north", clock), limits=TurnLimits(allocations_per_user=2)
    )
    codes = []
    for number in range(3):
        asker.username, password = SharedSecret("north", clock).mint("alice", 60 + number)
        asker.key = long_term_key(asker.username, REALM_TEXT, password)
        codes.append(asker.code(Method.ALLOCATE, [UDP], source=("198.51.100.9", 1 + number)))
    assert codes == [None, None, 486]


# -- secrets ------------------------------------------------------------------------------------


def test_rfc8656_6_the_server_keeps_keys_and_no_passwords() -> None:
    server = TurnServer(["203.0.113.10"], USERS, random.Random(1))
    seen: set[int] = set()

    def reaches(thing: object) -> bool:
        if id(thing) in seen or isinstance(thing, type):
            return False
        seen.add(id(thing))
        if isinstance(thing, str | bytes):
            return b"correct horse" in (thing.encode() if isinstance(thing, str) else thing)
        if isinstance(thing, dict):
            return any(map(reaches, [*thing.keys(), *thing.values()]))
        if isinstance(thing, list | tuple | set | frozenset):
            return any(map(reaches, thing))
        names = [*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())]
        return any(reaches(getattr(thing, name, None)) for name in names)

    assert reaches([server.__dict__, {"probe": ["correct horse"]}])
    seen.clear()
    assert not reaches(server)


def test_our_client_and_server_agree_on_the_strongest_there_is() -> None:
    asker = Asker()
    client = TurnClient(SERVER, CLIENT, "robot", "correct horse", random.Random(3), 0.0)
    for _ in range(2):
        (request,) = client.datagrams_to_send(0.0)
        (answer,) = asker.raw(request.data)
        client.receive_datagram(answer, SERVER, CLIENT, 0.0)
    final = parse_message(request.data)
    assert final.integrity == {Integrity.SHA256}
    assert final.get(PASSWORD_ALGORITHM) == SHA256
    assert final.get(USERNAME) is None
    assert final.get(USERHASH) == userhash("robot", REALM_TEXT)
    assert asker.server.allocations == 1
