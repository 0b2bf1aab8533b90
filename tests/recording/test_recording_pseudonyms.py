"""Addresses and names in place of the real ones: neither agent nor reader can tell."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.ice import Candidate, CandidateType
from ice_punch.ice.candidate import is_usable_address
from ice_punch.recording import pseudonyms
from ice_punch.recording.pseudonyms import Pseudonyms, TooManyPseudonyms, without_userinfo
from ice_punch.stun import XOR_MAPPED_ADDRESS

v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(str)
V4_NETWORKS = ("10.0.0", "10.128.0", "172.16.9", "192.168.1", "240.0.0")
V6_NETWORKS = ("fe80", "fd00", "fec0", "2001:db8", "3fff")
special = st.sampled_from(
    [
        *(f"{network}.{host}" for network in V4_NETWORKS for host in range(4)),
        *(f"100.64.{n}.1" for n in range(4)),
        *(f"169.254.{n}.1" for n in range(4)),
        *(f"{network}::{host}" for network in V6_NETWORKS for host in range(1, 4)),
        *("224.0.0.1", "239.255.255.250", "255.255.255.255", "ff02::1", "ff0e::5", "0.0.0.0", "::"),
        *("127.0.0.1", "127.1.2.3", "::1", "::5", "::7f00:1", "64:ff9b::a00:1", "64:ff9b::1"),
        *("::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:0.0.0.0"),
    ]
)
ips = st.one_of(v4, v6, special)
ADDRESSES = settings(max_examples=300, deadline=None, derandomize=True)


def as_sockets_write(ip: str) -> str:
    """And as a STUN message is read."""
    transaction = bytes(12)
    address = XOR_MAPPED_ADDRESS.decode(
        XOR_MAPPED_ADDRESS.encode((ip, 1), transaction), transaction
    )
    assert address is not None
    return address[0]


def kind(ip: str) -> tuple[object, ...]:
    """Everything that an agent asks of an address by itself."""
    address = ipaddress.ip_address(ip)
    return (
        address.version,
        is_usable_address(ip),
        is_usable_address(ip, loopback=True, link_local=True),
        address.is_link_local,
        address.is_loopback,
        ip in ("0.0.0.0", "::"),
    )


@ADDRESSES
@given(st.lists(ips, min_size=1, max_size=40))
def test_kinds_stay_and_different_addresses_stay_different(found: list[str]) -> None:
    given_ips = [as_sockets_write(ip) for ip in found]
    names = Pseudonyms()
    other = {ip: names.host(ip) for ip in given_ips}
    assert len(set(other.values())) == len(other)
    for ip, pseudonym in other.items():
        assert kind(pseudonym) == kind(ip), (ip, pseudonym)
        assert as_sockets_write(pseudonym) == pseudonym
        assert names.host(ip) == pseudonym
        assert names.address((ip, 4711)) == (pseudonym, 4711)


@ADDRESSES
@given(st.lists(st.one_of(v4, v6), min_size=1, max_size=40, unique=True))
def test_no_original_that_was_known_comes_out(found: list[str]) -> None:
    names = Pseudonyms()
    seen: set[str] = set()
    for ip in map(as_sockets_write, found):
        seen.add(ip)
        pseudonym = names.host(ip)
        if ipaddress.ip_address(ip).is_global and not ip.startswith("64:ff9b::"):
            assert pseudonym not in seen


@ADDRESSES
@given(v4, st.integers(0, 255), v6, st.integers(0, 2**64 - 1))
def test_networks_stay_together(ip4: str, host4: int, ip6: str, host6: int) -> None:
    def neighbour(ip: str, host: int, bits: int) -> str:
        address = ipaddress.ip_address(ip)
        return as_sockets_write(str(type(address)((int(address) >> bits << bits) + host)))

    names = Pseudonyms()
    for ip, host, bits in ((ip4, host4, 8), (ip6, host6, 64)):
        pair = {as_sockets_write(ip), neighbour(ip, host, bits)}
        around_v4 = any(one.startswith(("::", "64:ff9b:")) for one in pair)
        if len({kind(one) for one in pair}) == 1 and not around_v4:
            groups = {int(ipaddress.ip_address(names.host(one))) >> bits for one in pair}
            assert len(groups) == 1 or any(ipaddress.ip_address(o).is_loopback for o in pair)


def test_what_tells_nothing_stays() -> None:
    names = Pseudonyms()
    for ip in ("0.0.0.0", "::", "127.0.0.1", "127.9.9.9", "::1"):
        assert names.host(ip) == ip


def test_private_stays_private_and_public_gets_what_nobody_has() -> None:
    names = Pseudonyms()
    for ip in ("10.0.0.1", "172.20.1.1", "192.168.0.10"):
        assert ipaddress.ip_address(names.host(ip)) in ipaddress.ip_network("10.0.0.0/8")
    assert names.host("100.70.0.1").startswith("100.64.")
    assert ipaddress.ip_address(names.host("fd12:3456::1")) in ipaddress.ip_network("fc00::/7")
    assert names.host("93.184.216.34") == "240.0.0.1"
    assert names.host("93.184.216.35") == "240.0.0.2"
    assert names.host("2606:2800:220::1") == "3fff::1"
    assert names.host("64:ff9b::5db8:d822") == "64:ff9b::f000:1"  # the same host, through NAT64
    assert names.host("::ffff:93.184.216.34") == "::ffff:240.0.0.1"


def test_another_spelling_is_another_address_as_it_is_for_the_agent() -> None:
    names = Pseudonyms()
    assert names.host("2001:db8::a") != names.host("2001:DB8::A")
    assert names.host("fe80::1%eth0").startswith(names.host("fe80::1") + "%")
    assert names.host("fe80::1%eth0") != names.host("fe80::1%eth1")
    assert "eth" not in names.host("fe80::1%eth0")


def test_names_of_hosts_and_servers() -> None:
    names = Pseudonyms()
    mdns = names.host("7a1d6a4e-3f0b-4a0e-9c55-0d9f0c8f1d2e.local")
    assert Candidate("1", 1, "udp", 1, mdns, 1, CandidateType.HOST).is_mdns
    assert names.host("stun.example.org") == "name-2.invalid"
    assert names.server("stun:stun.example.org") == "stun:name-2.invalid"
    assert names.server("stun:stun.example.org:3479") == "stun:name-2.invalid:3479"
    turn = names.server("turns:relay.example.org:443?transport=tcp")
    assert turn == "turns:name-3.invalid:443?transport=tcp"
    assert names.server("stun:93.184.216.34:3478") == "stun:240.0.0.1:3478"
    assert names.server("stun:[2001:db8::5]") == f"stun:[{names.host('2001:db8::5')}]"
    assert names.server("the one in the cellar, 93.184.216.34") == "server-1"
    assert names.interface("enx00aabbccddee") == "interface-1"
    assert names.foundation("2bd17a9f") == "f1"
    assert names.foundation("prflx-3") == "prflx-3"


def test_credentials_in_a_uri_are_cut_out() -> None:
    assert without_userinfo("turn:robot:secret@relay.example.org") == "turn:relay.example.org"
    assert without_userinfo("turn:relay.example.org") == "turn:relay.example.org"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "a valid pair was found: srflx to host 93.184.216.34:5000",
            "a valid pair was found: srflx to host 240.0.0.1:5000",
        ),
        ("host [2606::7]:5000 priority 1", "host [3fff::1]:5000 priority 1"),
        ("none of 3 candidate pairs works after 39.5 s", None),
        ("2606::7: no route; at 12:30:45", "3fff::1: no route; at 12:30:45"),
        ("stun:93.184.216.34:3478", "stun:240.0.0.1:3478"),
        ("93.184.216.34.", "240.0.0.1."),
        ("version 1.2.3.4.5, 300.1.1.1, 1.2.3, dead:beef", None),
        ("[fe80::1%eth0]:9", "[fe80:0:0:1::1%1]:9"),
        ("::", None),
    ],
)
def test_addresses_in_texts(text: str, shown: str | None) -> None:
    assert Pseudonyms().text(text) == (text if shown is None else shown)


def test_names_in_prose() -> None:
    names = Pseudonyms()
    names.server("turn:cellar")
    told = names.prose("cellar and Relay.example.org say: 401 at 10.5 ms, e.g. my-mac.local.")
    assert told == "name-1.invalid and name-2.invalid say: 401 at 10.5 ms, e.g. name-3.local."


@ADDRESSES
@given(st.text(alphabet="0123456789abcf:.%[] x", max_size=80))
def test_no_text_is_too_odd(text: str) -> None:
    names = Pseudonyms()
    changed = names.text(text)
    assert names.text(text) == changed
    names.prose(text)


def test_a_long_run_of_colons_costs_no_time() -> None:
    for text in (":" * 100_000, f"{'a1' * 128}:{'b2' * 128}"):
        assert Pseudonyms().text(text) == text


def test_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudonyms, "MAX_PSEUDONYMS", 100)
    names = Pseudonyms()
    for number in range(100):
        names.host(f"198.51.{number}.1")
    with pytest.raises(TooManyPseudonyms):
        names.host("198.51.100.1")
    assert names.host("198.51.7.1") == "240.0.7.1"


def test_a_kind_with_few_networks_may_run_out_of_them() -> None:
    names = Pseudonyms()
    given_out = {names.host(f"169.254.{number}.1") for number in range(200, 256)}
    assert not given_out & {f"169.254.{number}.1" for number in range(200, 256)}
    for number in range(144):
        names.host(f"169.254.{number}.1")
    with pytest.raises(TooManyPseudonyms):
        names.host("169.254.144.1")
