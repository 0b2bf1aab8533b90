"""Who may enter: rooms that are capabilities, tokens, origins, and whom a proxy speaks for."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from signaling.auth import AuthMode, Door, Origins, TrustedProxies, is_local_page, is_same_origin
from signaling.errors import InvalidKey, InvalidPolicy, InvalidToken
from signaling.gates import Gates
from signaling.hooks import Denied, Grant
from signaling.messages import Hello
from signaling.tokens import (
    TokenKey,
    TokenVerifier,
    mint_token,
)

ROOM = "room-0123456789abcdefgh"
NOW = 1_800_000_000.0
SECRET = TokenKey.parse(b"current-secret-of-more-than-32-bytes")
PREVIOUS = TokenKey.parse(b"previous-secret-of-more-than-32-bytes")
STRANGER = TokenKey.parse(b"a-secret-that-the-server-never-heard-of")
OTHERS = "203.0.113.9"


def pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: Any) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def door(*, now: list[float] | None = None, origins: Origins | None = None) -> Door:
    clock = now if now is not None else [0.0]
    verifier = TokenVerifier(SECRET, [PREVIOUS])
    return Door(AuthMode.TOKEN, verifier, origins=origins, wall=lambda: NOW, clock=lambda: clock[0])


def hello(token: str = "", room: str = ROOM) -> Hello:
    return Hello(v=1, room=room, token=token)


def token(key: TokenKey = SECRET, rooms: tuple[str, ...] = (ROOM,), **changed: Any) -> str:
    return mint_token(key, rooms, **({"now": NOW} | changed))


def code(answer: Grant | Denied) -> str:
    return str(answer.code) if isinstance(answer, Denied) else "granted"


# -- rooms ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ("A" * 22, "granted"),
        ("A" * 128, "granted"),
        ("A" * 21, "bad_room"),
        ("A" * 129, "bad_room"),
        ("lobby", "bad_room"),
        ("A" * 21 + "!", "bad_room"),
        ("", "bad_room"),
    ],
)
def test_a_capability_has_128_bits(room: str, expected: str) -> None:
    assert code(Door().authorize(hello(room=room), OTHERS, None)) == expected


def test_open_rooms_have_any_plain_name() -> None:
    opened = Door(AuthMode.OPEN)
    assert opened.authorize(hello(room="lobby"), "127.0.0.1", None) == Grant()
    for name in ("", "a b", "x" * 129, "ä", "a/b", "a\n", "{room}"):
        assert code(opened.authorize(hello(room=name), "127.0.0.1", None)) == "bad_room"


def test_tokens_and_their_key_belong_together() -> None:
    with pytest.raises(InvalidPolicy):
        Door(AuthMode.TOKEN)
    with pytest.raises(InvalidPolicy):
        Door(AuthMode.CAPABILITY, TokenVerifier(SECRET))


# -- tokens -----------------------------------------------------------------------------------


def test_a_token_opens_the_rooms_it_names_and_says_what_for() -> None:
    entry = door()
    granted = entry.authorize(
        hello(token(relay=True, permissions=["join"], subject="robot", max_peers=3)), OTHERS, None
    )
    assert granted == Grant(subject="robot", call=False, relay=True, max_peers=3)
    assert entry.authorize(hello(token()), OTHERS, None) == Grant(relay=False)
    several = token(rooms=("lobby", "team-*"))
    for room, expected in (
        ("lobby", "granted"),
        ("team-", "granted"),
        ("team-red", "granted"),
        ("team", "unauthorized"),
        ("lobby2", "unauthorized"),
        (ROOM, "unauthorized"),
    ):
        assert code(entry.authorize(hello(several, room), OTHERS, None)) == expected
    assert code(entry.authorize(hello(), OTHERS, None)) == "unauthorized"
    watcher = token(permissions=["call"])
    assert code(entry.authorize(hello(watcher), OTHERS, None)) == "unauthorized"


def test_the_previous_key_is_good_until_it_is_taken_away() -> None:
    old = token(PREVIOUS)
    assert TokenVerifier(SECRET, [PREVIOUS]).verify(old, NOW).opens(ROOM)
    with pytest.raises(InvalidToken, match="key this server does not know"):
        TokenVerifier(SECRET).verify(old, NOW)
    with pytest.raises(InvalidToken, match="key this server does not know"):
        TokenVerifier(SECRET, [PREVIOUS]).verify(token(STRANGER), NOW)


def test_the_clocks_may_differ_by_half_a_minute() -> None:
    verifier = TokenVerifier(SECRET)
    brief = token(ttl=60)
    for at in (NOW - 30, NOW, NOW + 59, NOW + 89):
        verifier.verify(brief, at)
    with pytest.raises(InvalidToken) as expired:
        verifier.verify(brief, NOW + 90)
    assert expired.value.expired
    with pytest.raises(InvalidToken) as early:
        verifier.verify(brief, NOW - 31)
    assert not early.value.expired


def test_ed25519_keys_sign_and_only_check_where_they_are_public() -> None:
    pair = Ed25519PrivateKey.generate()
    private, public = TokenKey.parse(pem(pair)), TokenKey.parse(public_pem(pair))
    assert private.id == public.id
    assert public.signing is None
    assert TokenVerifier(public).verify(token(private), NOW).opens(ROOM)
    with pytest.raises(InvalidKey, match="public key"):
        token(public)
    with pytest.raises(InvalidKey, match="same kind"):
        TokenVerifier(public, [SECRET])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"short", "32 bytes"),
        (b"  " + b"x" * 31 + b"\n", "32 bytes"),
        (b"-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----", "PEM"),
        (pem(generate_private_key(SECP256R1())), "Ed25519"),
        (public_pem(generate_private_key(SECP256R1())), "Ed25519"),
    ],
)
def test_a_key_that_is_none(data: bytes, words: str) -> None:
    with pytest.raises(InvalidKey, match=words):
        TokenKey.parse(data)


def forged(header: dict[str, Any], payload: dict[str, Any], key: bytes = b"k" * 32) -> str:
    return jwt.encode(payload, key, algorithm="HS256", headers=header)


def signed(payload: dict[str, Any]) -> str:
    assert isinstance(SECRET.signing, bytes)
    return forged({"kid": SECRET.id}, payload, SECRET.signing)


GOOD: dict[str, Any] = {"aud": "icepunch.v1", "exp": NOW + 60, "room": ROOM}


def unsigned(header: dict[str, Any], payload: dict[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in (header, payload)]
    return ".".join([base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts] + [""])


def test_what_a_token_says_of_itself_is_not_believed() -> None:
    verifier = TokenVerifier(SECRET)
    verifier.verify(signed(GOOD), NOW)
    pair = Ed25519PrivateKey.generate()
    public = TokenVerifier(TokenKey.parse(public_pem(pair)))
    raw = public_pem(pair)
    head, body, signature = signed(GOOD).split(".")
    bad_signature = ("A" if signature[0] != "A" else "B") + signature[1:]
    for wrong in (
        unsigned({"alg": "none", "kid": SECRET.id}, GOOD),
        unsigned({"alg": "None", "kid": SECRET.id}, GOOD),
        unsigned({"alg": "HS256", "kid": SECRET.id}, GOOD),
        forged({"kid": SECRET.id}, GOOD),
        forged({}, GOOD, bytes(SECRET.signing)),
        jwt.encode(GOOD, bytes(SECRET.signing), algorithm="HS512", headers={"kid": SECRET.id}),
        f"{head}.{body}.{bad_signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "",
        "a.b.c",
        "\x00",
        "ü.ü.ü",
        "x" * 5000,
    ):
        with pytest.raises(InvalidToken) as refused:
            verifier.verify(wrong, NOW)
        assert not refused.value.expired
    # The public key as an HMAC secret: the oldest trick.
    unsigned_head = base64.urlsafe_b64encode(
        json.dumps({"alg": "HS256", "kid": next(iter(public._keys))}).encode()
    ).rstrip(b"=")
    payload = base64.urlsafe_b64encode(json.dumps(GOOD).encode()).rstrip(b"=")
    mac = base64.urlsafe_b64encode(hmac.digest(raw, unsigned_head + b"." + payload, "sha256"))
    trick = b".".join([unsigned_head, payload, mac.rstrip(b"=")]).decode()
    with pytest.raises(InvalidToken, match="not signed in this server's way"):
        public.verify(trick, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "something else"},
        {"aud": None},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": -1},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"room": None},
        {"room": []},
        {"room": ""},
        {"room": [1]},
        {"room": "r" * 129},
        {"relay": "yes"},
        {"perm": "join"},
        {"max_peers": 1},
        {"sub": 7},
        {"nbf": NOW + 60},
        {"iat": NOW + 60},
    ],
)
def test_claims_that_are_wrong_open_nothing(changes: dict[str, Any]) -> None:
    said = {name: value for name, value in (GOOD | changes).items() if value is not None}
    with pytest.raises(InvalidToken):
        TokenVerifier(SECRET).verify(signed(said), NOW)


def test_a_claim_not_known_here_is_ignored() -> None:
    TokenVerifier(SECRET).verify(signed(GOOD | {"name": "x", "perm": ["join", "fly"]}), NOW)


@given(st.text(max_size=200))
def test_no_text_makes_the_verifier_fail_otherwise(text: str) -> None:
    with pytest.raises(InvalidToken):
        TokenVerifier(SECRET).verify(text, NOW)


def test_what_no_server_would_accept_is_not_minted() -> None:
    for wrong in (
        {"rooms": ()},
        {"rooms": ("",)},
        {"rooms": ("r" * 129,)},
        {"ttl": 0},
        {"ttl": float("nan")},
        {"permissions": ["fly"]},
        {"subject": "s" * 129},
        {"max_peers": 1},
        {"rooms": tuple(f"{i}" * 60 for i in range(64))},
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            token(**wrong)


def test_keys_do_not_show_themselves() -> None:
    pair = Ed25519PrivateKey.generate()
    for key in (SECRET, TokenKey.parse(pem(pair))):
        assert "secret-of" not in repr(key)
        assert "PrivateKey" not in repr(key)


# -- guessing ---------------------------------------------------------------------------------


def test_who_guesses_has_to_wait_and_nobody_else() -> None:
    now = [100.0]
    entry = door(now=now)
    for _ in range(10):
        assert code(entry.authorize(hello("guess"), OTHERS, None)) == "unauthorized"
    refused = entry.authorize(hello("guess"), OTHERS, None)
    assert isinstance(refused, Denied)
    assert str(refused.code) == "busy"
    assert refused.retry_after == pytest.approx(6.0)
    assert code(entry.authorize(hello("guess"), "198.51.100.1", None)) == "unauthorized"
    # Whole offices share an address.
    assert code(entry.authorize(hello(token()), OTHERS, None)) == "granted"
    now[0] += 6.0
    assert code(entry.authorize(hello("guess"), OTHERS, None)) == "unauthorized"
    assert code(entry.authorize(hello("guess"), OTHERS, None)) == "busy"


def test_ipv6_guessers_are_told_apart_by_their_64() -> None:
    entry = door()
    for i in range(10):
        entry.authorize(hello("guess"), f"2001:db8:0:1::{i:x}", None)
    assert code(entry.authorize(hello("guess"), "2001:db8:0:1:ffff::1", None)) == "busy"
    assert code(entry.authorize(hello("guess"), "2001:db8:0:2::1", None)) == "unauthorized"


def test_an_expired_token_is_no_guess() -> None:
    entry = door()
    for _ in range(50):
        stale = entry.authorize(hello(token(now=NOW - 3600)), OTHERS, None)
        assert code(stale) == "token_expired"
    assert code(entry.authorize(hello(token()), OTHERS, None)) == "granted"


def test_guessers_fill_no_memory() -> None:
    gates = Gates(2, 10.0, keys=3)
    for key in "abcd":
        gates.count(key, 0.0)
        gates.count(key, 0.0)
    assert [gates.wait(key, 0.0) > 0 for key in "abcd"] == [False, True, True, True]
    assert len(gates._levels) == 3


@given(st.lists(st.floats(0, 5), max_size=60))
def test_a_gate_lets_no_more_through_than_its_rate(pauses: list[float]) -> None:
    gates, now, passed = Gates(3, 1.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += gates.take("key", now) == 0.0
    assert passed <= 3 + now


# -- origins ----------------------------------------------------------------------------------


def test_origins_are_compared_exactly() -> None:
    origins = Origins(["https://app.example.org", "http://localhost:3000", "https://[2001:db8::1]"])
    for good in (
        None,
        "https://app.example.org",
        "https://app.example.org:443",
        "HTTPS://APP.example.org",
        "http://localhost:3000",
        "https://[2001:db8::1]",
    ):
        assert origins.allow(good), good
    for bad in (
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://app.example.org.evil.example",
        "https://evil.example/https://app.example.org",
        "https://app.example.org@evil.example",
        "https://sub.app.example.org",
        "http://localhost",
        "null",
        "",
        "*",
        "file://",
        "https://",
        "https://app.example.org:99999",
    ):
        assert not origins.allow(bad), bad


def test_only_a_configured_star_is_one() -> None:
    assert Origins(["*"]).allow("https://evil.example")
    with pytest.raises(InvalidPolicy, match="name the origins"):
        Door(AuthMode.OPEN, origins=Origins(["*"]))
    for text in ("example.org", "https://example.org/", "ftp://example.org", "https://*.org/x"):
        with pytest.raises(InvalidPolicy):
            Origins([text])


def test_pages_of_this_server_are_its_own() -> None:
    for origin, host in (
        ("https://signal.example.org", "signal.example.org"),
        ("https://signal.example.org", "signal.example.org:443"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
    ):
        assert is_same_origin(origin, host)
    for origin, host in (
        ("https://signal.example.org", "signal.example.org.evil.example"),
        ("https://signal.example.org", "signal.example.org:8443"),
        ("null", "null"),
        ("https://evil.example", ""),
        ("https://a", "b@a"),
    ):
        assert not is_same_origin(origin, host)


def test_a_name_that_only_points_here_has_no_pages_of_this_machine() -> None:
    """DNS rebinding: the page of evil.example, whose address is 127.0.0.1 by now."""
    for host in ("127.0.0.1:8080", "localhost:8080", "app.localhost:8080", "[::1]:8080"):
        assert is_local_page(f"http://{host}", host)
    for host in ("evil.example:8080", "192.168.1.2:8080", "localhost.evil.example", "0.0.0.0:80"):
        assert is_same_origin(f"http://{host}", host)
        assert not is_local_page(f"http://{host}", host)
    assert not is_local_page("http://localhost:8080", "localhost:8081")


@pytest.mark.parametrize("mode", [AuthMode.OPEN, AuthMode.CAPABILITY, AuthMode.TOKEN])
def test_a_foreign_page_is_refused_in_every_mode(mode: AuthMode) -> None:
    verifier = TokenVerifier(SECRET) if mode is AuthMode.TOKEN else None
    entry = Door(mode, verifier, origins=Origins(["https://app.example.org"]), wall=lambda: NOW)
    greeting = hello(token())
    assert code(entry.authorize(greeting, OTHERS, "https://evil.example")) == "forbidden_origin"
    assert code(entry.authorize(greeting, OTHERS, "https://app.example.org")) == "granted"
    assert code(entry.authorize(greeting, OTHERS, None)) == "granted"


# -- proxies ----------------------------------------------------------------------------------


PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1"])


@pytest.mark.parametrize(
    ("ip", "headers", "client"),
    [
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("::ffff:10.1.2.3", ["203.0.113.7"], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("2001:db8:1::5", ["2001:db8::7"], "2001:db8::7"),
        ("fe80::1%eth0", ["203.0.113.7"], "fe80::1%eth0"),
        ("", ["203.0.113.7"], ""),
    ],
)
def test_only_a_trusted_proxy_speaks_for_others(ip: str, headers: list[str], client: str) -> None:
    assert PROXIES.client_of(ip, headers) == client


def test_without_proxies_no_header_counts() -> None:
    assert not TrustedProxies()
    assert TrustedProxies().client_of("127.0.0.1", ["203.0.113.7"]) == "127.0.0.1"
    with pytest.raises(InvalidPolicy):
        TrustedProxies(["proxy.example.org"])
