"""What a Linux kernel said on a routing socket, captured, and what no kernel says."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_punch.net.monitor.netlink import (
    AddressNews,
    LinkNews,
    NetlinkError,
    Overrun,
    parse_news,
)

# Linux 6.18, little-endian: a veth named lan got an IPv4 and an IPv6 address, and lost them.
NEW_IPV4 = bytes.fromhex(
    "4c000000140000009a2e076bc90b0000021880000300000008000100c633644d08000200c633644d080003006c616e"
    "00080008008000000014000600ffffffffffffffffa8241200a8241200"
)
TENTATIVE_IPV6 = bytes.fromhex(
    "480000001400000000000000000000000a40c000030000001400010020010db8007700000000000000000001140006"
    "00ffffffffffffffffa8241200a824120008000800c0000000"
)
READY_IPV6 = bytes.fromhex(
    "480000001400000000000000000000000a408000030000001400010020010db8007700000000000000000001140006"
    "00ffffffffffffffffa8241200a82412000800080080000000"
)
LOST_IPV4 = bytes.fromhex(
    "4c000000150000009c2e076bd60b0000021880000300000008000100c633644d08000200c633644d080003006c616e"
    "00080008008000000014000600ffffffffffffffffa8241200a8241200"
)
LOST_IPV6 = bytes.fromhex(
    "480000001500000000000000000000000a408000030000001400010020010db8007700000000000000000001140006"
    "00ffffffffffffffffa8241200a82412000800080080000000"
)
CAPTURED = [NEW_IPV4, TENTATIVE_IPV6, READY_IPV6, LOST_IPV4, LOST_IPV6]
TENTATIVE, PERMANENT = 0x40, 0x80


def link(index: int, name: str, flags: int, kind: int = 16) -> bytes:
    """As the kernel writes it: a name, and what else there is."""
    label = name.encode() + b"\0"
    attributes = struct.pack("=HH", 4 + len(label), 3) + label + b"\0" * (-len(label) % 4)
    attributes += struct.pack("=HHI", 8, 13, 1000)  # IFLA_TXQLEN
    body = struct.pack("=BxHiII", 0, 1, index, flags, 0xFFFFFFFF) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("data", "news"),
    [
        (NEW_IPV4, AddressNews("198.51.100.77", 3, PERMANENT, gone=False)),
        (TENTATIVE_IPV6, AddressNews("2001:db8:77::1", 3, PERMANENT | TENTATIVE, gone=False)),
        (READY_IPV6, AddressNews("2001:db8:77::1", 3, PERMANENT, gone=False)),
        (LOST_IPV4, AddressNews("198.51.100.77", 3, PERMANENT, gone=True)),
        (LOST_IPV6, AddressNews("2001:db8:77::1", 3, PERMANENT, gone=True)),
    ],
)
def test_a_kernels_messages_about_addresses_are_understood(data, news) -> None:
    assert parse_news(data) == [news]


def test_a_link_runs_when_it_is_up_and_has_a_carrier() -> None:
    up_and_running, no_carrier, down = 0x11043, 0x1003, 0x1002
    data = link(3, "lan", up_and_running) + link(3, "lan", no_carrier) + link(3, "lan", down)
    assert parse_news(data) == [
        LinkNews(3, "lan", running=True, gone=False),
        LinkNews(3, "lan", running=False, gone=False),
        LinkNews(3, "lan", running=False, gone=False),
    ]


def test_a_link_that_is_deleted_runs_no_more_whatever_its_flags() -> None:
    assert parse_news(link(3, "lan", 0x11043, kind=17)) == [
        LinkNews(3, "lan", running=False, gone=True)
    ]


def test_one_datagram_holds_many_messages() -> None:
    news = parse_news(b"".join(CAPTURED))
    assert [one.gone for one in news] == [False, False, False, True, True]


def test_on_a_point_to_point_link_the_address_is_ours_and_not_the_far_ends() -> None:
    local = struct.pack("=HH", 8, 2) + bytes([10, 0, 0, 1])
    far = struct.pack("=HH", 8, 1) + bytes([10, 0, 0, 2])
    body = struct.pack("=BBBBI", 2, 32, 0, 0, 7) + far + local
    data = struct.pack("=IHHII", 16 + len(body), 20, 0, 0, 0) + body
    assert parse_news(data) == [AddressNews("10.0.0.1", 7, 0, gone=False)]


def test_messages_of_other_kinds_and_families_say_nothing() -> None:
    route = struct.pack("=IHHII", 20, 24, 0, 0, 0) + bytes(4)
    done = struct.pack("=IHHII", 16, 3, 0, 0, 0)
    other_family = bytearray(NEW_IPV4)
    other_family[16] = 28  # AF_MPLS
    assert parse_news(route + done + bytes(other_family)) == []
    assert parse_news(b"") == []


def test_an_overrun_is_told() -> None:
    assert parse_news(struct.pack("=IHHII", 16, 4, 0, 0, 0)) == [Overrun()]


@pytest.mark.parametrize("data", CAPTURED)
def test_a_message_cut_short_anywhere_is_an_error(data) -> None:
    for length in range(1, len(data)):
        with pytest.raises(NetlinkError):
            parse_news(data[:length])


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("length of nothing", struct.pack("=IHHII", 0, 20, 0, 0, 0)),
        ("length of more than there is", struct.pack("=IHHII", 1 << 31, 20, 0, 0, 0)),
        ("no address", NEW_IPV4[:4].replace(b"\x4c", b"\x18") + NEW_IPV4[4:24]),
        ("an IPv6 address of 4 bytes", NEW_IPV4[:16] + b"\x0a" + NEW_IPV4[17:]),
        ("an attribute of no bytes", NEW_IPV4[:24] + b"\0\0\1\0" + NEW_IPV4[28:]),
        ("an attribute that overruns", NEW_IPV4[:24] + b"\xff\xff\1\0" + NEW_IPV4[28:]),
    ],
)
def test_what_no_kernel_writes_is_an_error(why, data) -> None:
    with pytest.raises(NetlinkError):
        parse_news(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_news_or_an_error(data) -> None:
    with contextlib.suppress(NetlinkError):
        parse_news(data)


@given(st.sampled_from([*CAPTURED, link(3, "lan", 0x11043)]), st.randoms(use_true_random=False))
def test_a_damaged_message_is_news_or_an_error(data, rng: random.Random) -> None:
    damaged = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    with contextlib.suppress(NetlinkError):
        parse_news(bytes(damaged))
