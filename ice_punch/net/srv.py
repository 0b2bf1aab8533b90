"""Servers whose port is left to DNS: the SRV records of RFC 8489 section 8.1, by RFC 2782."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ice_punch.datagram import Address
from ice_punch.errors import ServerUnreachable
from ice_punch.net import dns as names
from ice_punch.net.ice_server import IceServer

PATIENCE = 0.1
"""Seconds that SRV records are waited for once the name itself has an address: there are networks
where their queries go nowhere, and few servers have any."""
MOST_TARGETS = 8

Target = tuple[str, int]
_imported: set[str] = set()

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver


async def resolve_server(
    server: IceServer,
    *,
    ipv4: bool = True,
    ipv6: bool = True,
    timeout: float = names.DEFAULT_TIMEOUT,
) -> list[Address]:
    """The transport addresses of a server, best first.

    For a name without a port, SRV records and addresses are asked for at the same time. Where there
    are records, the addresses are those of their targets, in the order of RFC 2782; otherwise they
    are the name's, at the default port. Raises ServerUnreachable, outcome ``unresolved``.
    """
    if not server.leaves_port_to_dns:
        return await names.resolve(server.host, server.port, ipv4=ipv4, ipv6=ipv6, timeout=timeout)
    direct = asyncio.ensure_future(
        names.resolve(server.host, server.port, ipv4=ipv4, ipv6=ipv6, timeout=timeout)
    )
    seeking = asyncio.ensure_future(find_targets(server, timeout))
    try:
        await asyncio.wait({direct, seeking}, return_when=asyncio.FIRST_COMPLETED)
        if not seeking.done():
            await _load()
            failed = direct.exception() is not None
            await asyncio.wait({seeking}, timeout=timeout if failed else PATIENCE)
        targets = seeking.result() if seeking.done() else None
        if not targets:
            return await direct
        return await _resolve_all(server, targets, ipv4, ipv6, timeout)
    finally:
        for task in (direct, seeking):
            task.cancel()
        await asyncio.gather(direct, seeking, return_exceptions=True)


async def _resolve_all(
    server: IceServer, targets: Sequence[Target], ipv4: bool, ipv6: bool, timeout: float
) -> list[Address]:
    answers = await asyncio.gather(
        *(
            names.resolve(host, port, ipv4=ipv4, ipv6=ipv6, timeout=timeout)
            for host, port in targets
        ),
        return_exceptions=True,
    )
    found: list[Address] = []
    for answer in answers:
        if isinstance(answer, ServerUnreachable):
            continue
        if isinstance(answer, BaseException):
            raise answer
        found += answer
    if not found:
        raise ServerUnreachable(
            f"{server.host} names servers in DNS (SRV), and none of them has an address",
            outcome="unresolved",
        )
    return list(dict.fromkeys(found))


async def find_targets(server: IceServer, timeout: float) -> list[Target]:
    """Host names and ports of the service, in the order to try them; none where there are no
    records. Raises ServerUnreachable where they say that the service is not offered."""
    host = server.host.removesuffix(".")
    if "." not in host or host.endswith((".local", ".localhost")):  # no name of the DNS
        return []
    await _load()
    from dns.exception import DNSException
    from dns.rdtypes.IN.SRV import SRV

    name = f"_{server.scheme}._{server.transport}.{host}."
    try:
        answer = await make_resolver().resolve(name, "SRV", lifetime=timeout)
    except (DNSException, OSError, ValueError):
        return []
    assert answer.rrset is not None
    targets: list[Target] = []
    for record in answer.rrset.processing_order():
        assert isinstance(record, SRV)
        target = record.target.to_text(omit_final_dot=True)
        if target == ".":  # RFC 2782: decidedly not available
            raise ServerUnreachable(
                f"{server.host} offers no {server.scheme} over {server.transport} (SRV)",
                outcome="unresolved",
            )
        if record.port:
            targets.append((target, record.port))
    return targets[:MOST_TARGETS]


def make_resolver() -> Resolver:
    """One for every question: the name servers are those of the network that the host is in now.
    Raises DNSException where the system names none."""
    from dns.asyncresolver import Resolver

    return Resolver()


async def _load() -> None:
    """Import what is slow to import beside the event loop: a twentieth of a second, and much more
    where dnspython finds libraries for DNS over HTTPS and QUIC."""
    loop = asyncio.get_running_loop()
    for name in ("dns.asyncresolver", "dns.rdtypes.IN.SRV"):
        if name not in _imported:
            await loop.run_in_executor(None, importlib.import_module, name)
            _imported.add(name)
