"""The STUN server beside the signaling server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from ice_punch.cli.serve_policy import CannotServe
from ice_punch.datagram import Address
from ice_punch.errors import IcePunchError, InvalidConfiguration, PortRangeExhausted
from ice_punch.net.stun_server import StunServer


async def start_stun(
    hosts: Sequence[tuple[str, str | None]], port: int, stack: AsyncExitStack
) -> list[Address]:
    """Answer at two ports, ``port`` and the next, or any two; the addresses bound.

    Two ports of one address show a peer whether its NAT's mapping varies; a second address beside
    it, how the NAT maps and filters (RFC 5780). Raises CannotServe,
    InvalidConfiguration.
    """
    if not port and len(hosts) > 1:
        raise InvalidConfiguration("--stun-address of IPv4 and IPv6 needs a --stun-port for both")
    found: list[Address] = []
    for host, second in hosts:
        starts: list[tuple[int, Address | None]]
        if second is None:
            starts = [(port, None), (port and port + 1, None)]
        else:
            starts = [(port, (second, port and port + 1))]
        for number, alternate in starts:
            try:
                server = await StunServer.start(host, number, alternate=alternate)
            except (IcePunchError, OSError) as error:
                where = host if second is None else f"{host} and {second}"
                raise CannotServe(_about(where, number, error)) from None
            stack.push_async_callback(server.close)
            found += server.addresses
    return found


def _about(host: str, port: int, error: IcePunchError | OSError) -> str:
    if isinstance(error, PortRangeExhausted):
        why, remedy = "the port is taken", "--stun-port takes another, --no-stun none"
    else:
        why, remedy = getattr(error, "strerror", None) or str(error), "--no-stun goes without"
    return f"can not answer STUN on {host or '*'} port {port} (UDP): {why}; {remedy}"
