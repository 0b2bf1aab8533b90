"""Names ending in ``.local`` that a peer gave in place of its addresses."""

from __future__ import annotations

import asyncio

from ice_punch.datagram import Address
from ice_punch.ice.candidate import is_usable_address
from ice_punch.net.interfaces import InterfaceAddress, is_running, present_addresses

DEFAULT_TIMEOUT = 3.0
QUERY_INTERVAL = 1.0
"""Seconds. A query is a multicast datagram and may be lost (RFC 6762 section 5.2)."""


async def resolve_mdns(name: str, *, timeout: float = DEFAULT_TIMEOUT) -> str | None:
    """The IP address of one ``<label>.local``, or None: unknown, invalid, more than one, or no
    multicast here. Asked for on every link of this host.

    Takes no longer than ``timeout`` seconds and raises nothing.
    """
    from ice_punch.net.mdns import links, messages  # slow to import, and rarely needed

    if not messages.is_candidate_name(name):
        return None
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()
    wanted = name.lower()

    def on_packet(link: links.Link, data: bytes, source: Address) -> None:
        packet = messages.parse(data) if messages.mentions(data, [wanted]) else None
        if packet is None or answer.done():
            return
        found = [ip for owner, ip in packet.addresses if owner == wanted]
        if found:
            # Draft section 3.2.2: a name of several addresses is ignored.
            one = found[0] if len(found) == 1 and is_usable_address(found[0]) else None
            answer.set_result(one)

    here = links.Links(on_packet)
    try:
        here.open(_links_here())
        if not here:
            return None
        async with asyncio.timeout(timeout):
            while not answer.done():
                for link in here:
                    link.multicast(messages.query(wanted))
                await asyncio.wait([answer], timeout=QUERY_INTERVAL)
        return answer.result()
    except TimeoutError:
        return None
    finally:
        here.close()


def _links_here() -> list[InterfaceAddress]:
    """An address or more of every interface that runs, but loopback."""
    return [
        address
        for address in present_addresses()
        if is_usable_address(address.ip, link_local=True) and is_running(address.interface)
    ]
