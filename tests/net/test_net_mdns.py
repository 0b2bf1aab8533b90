from __future__ import annotations

import asyncio
import time

import pytest

from ice_punch.lab.kernel import namespaces
from ice_punch.net.mdns import resolve_mdns

WHY_NOT = namespaces.available()
pytestmark = [pytest.mark.netns, pytest.mark.skipif(bool(WHY_NOT), reason=str(WHY_NOT))]

NAME = "c5b8d4a2-6f6e-4b0e-9d3a-0123456789ab.local"


@pytest.fixture
def namespace():
    (name,) = namespaces.new_names("mdns")
    namespaces.make(name)
    try:
        yield name
    finally:
        namespaces.remove(name)


def resolve_in(namespace, name, *, published=None, late=0.0):
    """What a host in the namespace resolves, and the seconds it took."""

    async def main():
        from aioice.mdns import create_mdns_protocol

        async def publish():
            protocol = await create_mdns_protocol()
            await protocol.publish(name, published)
            return protocol

        protocol = await publish() if published is not None and not late else None
        started = time.monotonic()
        asking = asyncio.create_task(resolve_mdns(name))
        if late:
            await asyncio.sleep(late)
            protocol = await publish()
        ip = await asking
        took = time.monotonic() - started
        if protocol is not None:
            await protocol.close()
        return ip, took

    return namespaces.run_in(namespace, lambda: asyncio.run(main()))


def give_multicast(namespace):
    for arguments in (
        ["link", "add", "lan", "type", "veth", "peer", "name", "wire"],
        ["link", "set", "wire", "up"],
        ["addr", "add", "192.0.2.5/24", "dev", "lan"],
        ["link", "set", "lan", "up", "multicast", "on"],
        ["route", "add", "default", "dev", "lan"],
    ):
        namespaces.run_tool("ip", "-n", namespace, *arguments)


def test_a_name_published_on_the_link_is_resolved(namespace):
    give_multicast(namespace)
    ip, took = resolve_in(namespace, NAME, published="192.0.2.5")
    assert ip == "192.0.2.5"
    assert took < 1


def test_a_lost_query_is_asked_again(namespace):
    give_multicast(namespace)
    ip, took = resolve_in(namespace, NAME, published="192.0.2.6", late=0.5)
    assert ip == "192.0.2.6"
    assert took < 2


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "224.0.0.1", "0.0.0.0"])
def test_an_address_that_no_candidate_may_have_is_no_answer(namespace, address):
    give_multicast(namespace)
    assert resolve_in(namespace, NAME, published=address)[0] is None


def test_a_name_nobody_has_costs_three_seconds_at_most(namespace):
    give_multicast(namespace)
    ip, took = resolve_in(namespace, NAME)
    assert ip is None
    assert 2.5 < took < 3.5


def test_without_multicast_there_is_no_answer_and_no_error(namespace):
    ip, took = resolve_in(namespace, NAME)
    assert ip is None
    assert took < 1
