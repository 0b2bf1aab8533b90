from __future__ import annotations

import ipaddress

import pytest

from ice_punch.errors import InterfaceNotFound, InvalidConfiguration
from ice_punch.net import interfaces
from ice_punch.net.interfaces import (
    AddressFlag,
    InterfaceAddress,
    default_filter,
    local_addresses,
    only_interface,
    parse_if_inet6,
    select_addresses,
)

STABLE = InterfaceAddress("eth0", "2001:db8:1::1", 64)
TEMPORARY = InterfaceAddress("eth0", "2001:db8:1::aaaa", 64)
OTHER_PREFIX = InterfaceAddress("eth0", "2001:db8:2::1", 64)
OTHER_INTERFACE = InterfaceAddress("eth1", "2001:db8:1::2", 64)
V4 = InterfaceAddress("eth0", "198.51.100.7", 24)


@pytest.mark.parametrize(
    "name",
    ["docker0", "br-0a1b2c", "veth12ab", "virbr0", "vnet3", "lxcbr0", "cni0", "lo"],
)
def test_container_and_virtual_machine_interfaces_are_left_out(name):
    assert not default_filter(InterfaceAddress(name, "198.51.100.7", 24))


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "wlan0", "tun0", "wg0", "Wi-Fi", "bridge0"])
def test_other_interfaces_are_kept(name):
    assert default_filter(InterfaceAddress(name, "198.51.100.7", 24))


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "fec0::1"])
def test_loopback_and_link_local_addresses_are_left_out_by_default(ip):
    assert not default_filter(InterfaceAddress("eth0", ip, 64))


def test_flags_are_read_as_linux_prints_them():
    text = (
        "fd000000000000000000000000000002 04 40 00 82     eth0\n"
        "20010db800010000000000000000aaaa 02 40 00 01     eth0\n"
        "20010db80001000000000000000000cc 02 40 00 21 veryverylongname\n"
        "nonsense\n"
    )
    flags = parse_if_inet6(text)
    assert flags["2001:db8:1::aaaa"] == AddressFlag.TEMPORARY
    assert flags["2001:db8:1::cc"] == AddressFlag.TEMPORARY | AddressFlag.DEPRECATED
    assert not flags["fd00::2"] & AddressFlag.TEMPORARY
    assert len(flags) == 3


def test_a_temporary_address_drives_out_trackable_ones_of_its_prefix_and_interface_only():
    found = [STABLE, OTHER_PREFIX, TEMPORARY, OTHER_INTERFACE, V4]
    chosen = select_addresses(found, {TEMPORARY.ip: AddressFlag.TEMPORARY})
    assert STABLE not in chosen
    assert set(chosen) == {TEMPORARY, OTHER_PREFIX, OTHER_INTERFACE, V4}
    assert chosen.index(TEMPORARY) < chosen.index(OTHER_PREFIX)


@pytest.mark.parametrize("flag", [AddressFlag.TENTATIVE, AddressFlag.DAD_FAILED])
def test_addresses_that_cannot_be_bound_yet_are_left_out(flag):
    assert select_addresses([STABLE, V4], {STABLE.ip: flag}) == [V4]


def test_a_deprecated_address_is_used_only_when_nothing_else_is_there():
    flags = {STABLE.ip: AddressFlag.DEPRECATED}
    assert select_addresses([STABLE, OTHER_PREFIX], flags) == [OTHER_PREFIX]
    assert set(select_addresses([STABLE, V4], flags)) == {STABLE, V4}


def test_a_deprecated_temporary_address_does_not_drive_out_the_stable_one():
    flags = {TEMPORARY.ip: AddressFlag.TEMPORARY | AddressFlag.DEPRECATED}
    assert select_addresses([STABLE, TEMPORARY], flags) == [STABLE]


def test_the_default_routes_source_comes_first_then_its_interface():
    first = InterfaceAddress("wlan0", "192.0.2.9", 24)
    sibling = InterfaceAddress("wlan0", "192.0.2.10", 24)
    chosen = select_addresses([V4, sibling, first], {}, preferred=["192.0.2.9"])
    assert chosen == [first, sibling, V4]


def test_order_without_preference_is_the_systems():
    found = [
        V4,
        InterfaceAddress("eth1", "192.0.2.1", 24),
        InterfaceAddress("eth2", "192.0.2.2", 24),
    ]
    assert select_addresses(found, {}) == found


@pytest.fixture
def host(monkeypatch):
    addresses = [
        InterfaceAddress("lo", "127.0.0.1", 8),
        InterfaceAddress("lo", "::1", 128),
        InterfaceAddress("eth0", "198.51.100.7", 24),
        InterfaceAddress("eth0:1", "198.51.100.8", 24),
        InterfaceAddress("eth0", "fe80::1", 64),
        InterfaceAddress("eth0", "::ffff:1.2.3.4", 96),
        InterfaceAddress("eth0", "2001:db8::5", 64),
        InterfaceAddress("usb0", "fe80::2", 64),
        InterfaceAddress("docker0", "172.17.0.1", 16),
    ]
    monkeypatch.setattr(interfaces, "_enumerate", lambda: addresses)
    monkeypatch.setattr(interfaces, "_ipv6_flags", dict)
    monkeypatch.setattr(interfaces, "_preferred_sources", list)


def ips(found):
    return [a.ip for a in found]


@pytest.mark.usefixtures("host")
def test_families_can_be_switched_off():
    assert ips(local_addresses()) == ["198.51.100.7", "198.51.100.8", "2001:db8::5"]
    assert ips(local_addresses(ipv6=False)) == ["198.51.100.7", "198.51.100.8"]
    assert ips(local_addresses(ipv4=False)) == ["2001:db8::5"]


@pytest.mark.usefixtures("host")
def test_a_filter_replaces_the_default_but_admits_nothing_impossible():
    everything = ips(local_addresses(lambda address: True))
    assert "172.17.0.1" in everything
    assert "127.0.0.1" in everything
    assert not {"fe80::1", "fe80::2", "::ffff:1.2.3.4"} & set(everything)


@pytest.mark.usefixtures("host")
def test_one_interface_is_taken_whatever_its_kind():
    assert ips(local_addresses(only_interface("docker0"))) == ["172.17.0.1"]
    assert ips(local_addresses(only_interface("lo"))) == ["127.0.0.1", "::1"]
    assert "198.51.100.8" in ips(local_addresses(only_interface("eth0")))


@pytest.mark.usefixtures("host")
def test_an_interface_that_does_not_exist_is_one_clear_error():
    with pytest.raises(
        InterfaceNotFound, match=r"no interface 'eth9'.*there is: lo, eth0"
    ) as error:
        only_interface("eth9")
    assert isinstance(error.value, InvalidConfiguration)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("host")
def test_an_interface_without_a_usable_address_says_so():
    with pytest.raises(InterfaceNotFound, match="no usable address"):
        only_interface("usb0")


def test_this_host_gives_canonical_unique_addresses():
    found = local_addresses(lambda address: True)
    assert len(set(found)) == len(found)
    for address in found:
        assert str(ipaddress.ip_address(address.ip)) == address.ip
        assert ipaddress.ip_network(f"{address.ip}/{address.prefix_length}", strict=False)
