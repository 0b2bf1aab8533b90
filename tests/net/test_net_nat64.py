"""RFC 6052 addresses and RFC 7050 discovery."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_punch.net.nat64 import Nat64Prefix, prefixes


def prefix(text: str) -> Nat64Prefix:
    return Nat64Prefix(ipaddress.IPv6Network(text))


# RFC 6052 section 2.4, table 2, and section 2.1.
EMBEDDED = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
]


@pytest.mark.parametrize(("network", "expected"), EMBEDDED)
def test_rfc6052_2_4_an_ipv4_address_is_embedded_after_every_prefix(network, expected) -> None:
    embedded = prefix(network).embed("192.0.2.33")
    assert embedded == str(ipaddress.IPv6Address(expected))
    assert prefix(network).extract(embedded) == "192.0.2.33"


def test_an_address_of_another_prefix_stands_for_none() -> None:
    assert prefix("64:ff9b::/96").extract("2001:db8::1") is None


@pytest.mark.parametrize("network", [network for network, _ in EMBEDDED])
def test_rfc7050_3_the_prefix_is_found_from_what_dns64_makes_of_the_well_known_name(
    network,
) -> None:
    here = prefix(network)
    made_up = [here.embed("192.0.0.170"), here.embed("192.0.0.171")]
    assert prefixes(made_up) == (here,)


def test_rfc7050_3_without_dns64_there_is_no_prefix() -> None:
    assert prefixes([]) == ()
    assert prefixes(["192.0.0.170", "192.0.0.171"]) == ()
    assert prefixes(["2001:db8::1", "64:ff9b::192.0.2.1"]) == ()


def test_several_prefixes_are_found_in_the_order_of_the_answers() -> None:
    one, other = prefix("64:ff9b::/96"), prefix("2001:db8:64::/96")
    answers = [p.embed(ip) for ip in ("192.0.0.170", "192.0.0.171") for p in (one, other)]
    assert prefixes(answers) == (one, other)


@given(st.ip_addresses(v=4), st.sampled_from([network for network, _ in EMBEDDED]))
def test_what_is_embedded_is_extracted_again(address, network) -> None:
    here = prefix(network)
    embedded = ipaddress.IPv6Address(here.embed(str(address)))
    assert here.extract(str(embedded)) == str(address)
    assert embedded.packed[8] == 0 or here.network.prefixlen == 96
