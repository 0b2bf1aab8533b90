from __future__ import annotations

import pytest

from ice_punch.errors import InvalidConfiguration
from ice_punch.net.ice_server import (
    IceServer,
    credentials_from_environment,
    parse_server_argument,
)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        # RFC 7064 and RFC 7065, appendix A
        ("stun:example.org", ("stun", "example.org", 3478, "udp")),
        ("stuns:example.org", ("stuns", "example.org", 5349, "tcp")),
        ("stun:example.org:8000", ("stun", "example.org", 8000, "udp")),
        ("turn:example.org", ("turn", "example.org", 3478, "udp")),
        ("turns:example.org", ("turns", "example.org", 5349, "tcp")),
        ("turn:example.org:8000", ("turn", "example.org", 8000, "udp")),
        ("turn:example.org?transport=udp", ("turn", "example.org", 3478, "udp")),
        ("turn:example.org?transport=tcp", ("turn", "example.org", 3478, "tcp")),
        ("turns:example.org?transport=tcp", ("turns", "example.org", 5349, "tcp")),
        ("TURN:Example.ORG:1?TRANSPORT=TCP", ("turn", "example.org", 1, "tcp")),
        ("stun:192.0.2.1", ("stun", "192.0.2.1", 3478, "udp")),
        ("stun:[2001:DB8:0::1]", ("stun", "2001:db8::1", 3478, "udp")),
        ("turn:[::1]:65535?transport=tcp", ("turn", "::1", 65535, "tcp")),
        ("stun:a-b.c_d.example.", ("stun", "a-b.c_d.example.", 3478, "udp")),
        ("stun:b%C3%BCcher.example", ("stun", "xn--bcher-kva.example", 3478, "udp")),
        ("stun:example.org:", ("stun", "example.org", 3478, "udp")),
    ],
)
def test_uris_of_the_grammar_are_read(uri, expected):
    server = IceServer.parse(uri)
    assert (server.scheme, server.host, server.port, server.transport) == expected
    assert IceServer.parse(server.uri) == server


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "STUN or TURN URI"),
        ("example.org", "stun:HOST"),
        ("http://example.org", "stun:HOST"),
        ("stunx:example.org", "stun:HOST"),
        ("stun://example.org", "slashes"),
        ("turn://example.org:3478", "slashes"),
        ("turn:user@example.org", "no credentials"),
        ("turn:user:secret@example.org", "no credentials"),
        ("stun:", "host is missing"),
        ("stun::3478", "host is missing"),
        ("stun:example.org:0", "port"),
        ("stun:example.org:65536", "port"),
        ("stun:example.org:99999999999999999999", "port"),
        ("stun:example.org:+80", "port"),
        ("stun:example.org:8x", "port"),
        ("stun:example.org:\u0663", "port"),
        ("stun:2001:db8::1", "brackets"),
        ("stun:[2001:db8::1", "IPV6"),
        ("stun:[2001:db8::1]3478", "IPV6"),
        ("stun:[192.0.2.1]", "no IPv6 address"),
        ("stun:[fe80::1%eth0]", "zone"),
        ("stun:[v1.x]", "no IPv6 address"),
        ("stun:192.0.2.256", "no IPv4 address"),
        ("stun:192.0.2", "no IPv4 address"),
        ("stun:a..b", "no host name"),
        ("stun:-a.example", "no host name"),
        ("stun:" + "a" * 64 + ".example", "no host name"),
        ("stun:exa mple.org", "no host name"),
        ("stun:b\u00fccher.example", "no host name"),
        ("stun:example.org/path", "no host name"),
        ("stun:example.org#x", "no host name"),
        ("stun:example.org?transport=udp", "only turn"),
        ("stuns:example.org?transport=tcp", "only turn"),
        ("turn:example.org?transport=sctp", "neither udp nor tcp"),
        ("turn:example.org?transport=", "transport"),
        ("turn:example.org?transport=udp&x=1", "transport"),
        ("turn:example.org?proto=udp", "transport"),
        ("turn:example.org?", "transport"),
        ("turns:example.org?transport=udp", "DTLS"),
        ("stuns:192.0.2.1", "names its server"),
        ("stuns:[2001:db8::1]:5349", "names its server"),
    ],
)
def test_everything_else_is_refused_in_one_line(uri, says):
    with pytest.raises(InvalidConfiguration, match=says) as error:
        IceServer.parse(uri)
    message = str(error.value)
    assert "\n" not in message
    assert "secret" not in message
    assert len(message) < 200


def test_the_password_is_never_shown():
    server = IceServer.parse("turn:example.org", "alice", "s3cret")
    assert server.password == "s3cret"
    assert "s3cret" not in repr(server) + str(server) + server.uri
    assert "s3cret" not in repr(server.with_credentials("bob", "s3cret"))


def test_stun_servers_carry_no_credentials():
    assert IceServer.parse("stun:example.org", "alice", "secret").username is None
    server = IceServer.parse("stun:example.org").with_credentials("alice", "secret")
    assert server.password is None


@pytest.mark.parametrize(
    ("username", "password", "says"),
    [
        ("", "secret", "user name is empty"),
        ("alice", "se\ncret", "password is empty or has characters"),
        ("a" * 509, "secret", "longer than 508"),
    ],
)
def test_credentials_that_stun_cannot_carry_are_refused(username, password, says):
    with pytest.raises(InvalidConfiguration, match=says) as error:
        IceServer.parse("turn:example.org", username, password)
    assert "cret" not in str(error.value)


@pytest.mark.parametrize(
    "arguments", [("http", "h", 1, "udp"), ("stun", "h", 0, "udp"), ("turn", "h", 1, "tls")]
)
def test_a_server_made_by_hand_is_checked_too(arguments):
    with pytest.raises(InvalidConfiguration):
        IceServer(*arguments)


def test_credentials_come_from_the_environment():
    both = {"ICE_PUNCH_TURN_USERNAME": "alice", "ICE_PUNCH_TURN_PASSWORD": "secret"}
    assert credentials_from_environment(both) == ("alice", "secret")
    assert credentials_from_environment({}) == (None, None)
    assert credentials_from_environment(dict.fromkeys(both, "")) == (None, None)


def test_half_of_the_credentials_is_a_mistake():
    with pytest.raises(InvalidConfiguration, match="ICE_PUNCH_TURN_PASSWORD is not set"):
        credentials_from_environment({"ICE_PUNCH_TURN_USERNAME": "alice"})
    with pytest.raises(InvalidConfiguration, match="ICE_PUNCH_TURN_USERNAME is not set") as error:
        credentials_from_environment({"ICE_PUNCH_TURN_PASSWORD": "secret"})
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("argument", "host", "port"),
    [
        ("example.org", "example.org", 3478),
        ("example.org:19302", "example.org", 19302),
        ("192.0.2.1:53", "192.0.2.1", 53),
        ("2001:db8::1", "2001:db8::1", 3478),
        ("[2001:db8::1]:53", "2001:db8::1", 53),
        ("stun:example.org:5", "example.org", 5),
        ("stun:5", "stun", 5),
        (" example.org ", "example.org", 3478),
    ],
)
def test_a_command_line_argument_may_leave_the_scheme_out(argument, host, port):
    server = parse_server_argument(argument)
    assert (server.scheme, server.host, server.port) == ("stun", host, port)


@pytest.mark.parametrize("argument", ["", "stun://example.org", "http://x", "a@b", "x:y", "[::1"])
def test_bad_command_line_arguments_are_refused(argument):
    with pytest.raises(InvalidConfiguration):
        parse_server_argument(argument)
