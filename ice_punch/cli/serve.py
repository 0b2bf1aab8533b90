"""``ice-punch serve``: a signaling server, and a STUN server beside it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from ice_punch.cli.output import Output
from ice_punch.cli.run import Interrupted, run
from ice_punch.datagram import Address, format_address
from ice_punch.errors import IcePunchError, InvalidConfiguration, PortRangeExhausted
from ice_punch.net.interfaces import local_addresses
from signaling.errors import ListenFailed
from signaling.server import SignalingServer

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True, slots=True)
class ServeArguments:
    host: str
    port: int
    stun_port: int | None
    """None: no STUN server."""
    public_host: str | None
    tls_cert: str | None
    tls_key: str | None
    verbose: bool


class CannotServe(IcePunchError):
    """A port is taken, an address is not ours, or a certificate can not be used."""


def run_serve(arguments: ServeArguments, output: Output, *, quiet: bool) -> int:
    if arguments.verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        return run(_serve(arguments, output, quiet), _loop_factory())
    except Interrupted:
        return 0  # the way to stop a server


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(arguments: ServeArguments, output: Output, quiet: bool) -> int:
    context = _tls(arguments)
    async with AsyncExitStack() as stack:
        stun: list[Address] = []
        if arguments.stun_port is not None:
            from ice_punch.net.stun_server import StunServer

            # Two ports of one address show a peer whether its NAT's mapping varies.
            for port in (arguments.stun_port, arguments.stun_port and arguments.stun_port + 1):
                try:
                    stun_server = await StunServer.start(arguments.host, port)
                except (IcePunchError, OSError) as error:
                    raise CannotServe(_about_stun(arguments.host, port, error)) from None
                stack.push_async_callback(stun_server.close)
                stun += stun_server.addresses
        host = "{host}" if arguments.public_host is None else _bracketed(arguments.public_host)
        ports = list(dict.fromkeys(port for _, port in stun))
        try:
            server = await SignalingServer.start(
                arguments.host,
                arguments.port,
                ssl=context,
                ice_servers=[f"stun:{host}:{port}" for port in ports],
            )
        except ListenFailed as error:
            remedy = "; --port takes another" if "in use" in str(error) else ""
            raise CannotServe(f"{error}{remedy}") from None
        stack.push_async_callback(server.close)
        hosts = _hosts(arguments)
        scheme = "http" if context is None else "https"
        urls = [f"{scheme}://{_bracketed(name)}:{server.port}" for name in hosts]
        reachable = [format_address((name, port)) for name in hosts for port in ports]
        output.event("serving", url=urls[0], urls=urls, stun=reachable)
        if not quiet:
            _announce(urls, reachable)
        await asyncio.get_running_loop().create_future()
    return 0


def _about_stun(host: str, port: int, error: IcePunchError | OSError) -> str:
    if isinstance(error, PortRangeExhausted):
        why, remedy = "the port is taken", "--stun-port takes another, --no-stun none"
    else:
        why, remedy = getattr(error, "strerror", None) or str(error), "--no-stun goes without"
    return f"can not answer STUN on {host or '*'} port {port} (UDP): {why}; {remedy}"


def _tls(arguments: ServeArguments) -> ssl.SSLContext | None:
    if arguments.tls_cert is None and arguments.tls_key is None:
        return None
    if arguments.tls_cert is None or arguments.tls_key is None:
        raise InvalidConfiguration("--tls-cert and --tls-key belong together")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password here OpenSSL asks for it at the terminal.
        context.load_cert_chain(arguments.tls_cert, arguments.tls_key, password="")
    except ssl.SSLError:
        why = "they are not a PEM certificate and its unencrypted key"
        raise CannotServe(_about_tls(arguments, why)) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CannotServe(_about_tls(arguments, why)) from None
    return context


def _about_tls(arguments: ServeArguments, why: str) -> str:
    return f"can not use {arguments.tls_cert} with {arguments.tls_key}: {why}"


def _hosts(arguments: ServeArguments) -> list[str]:
    """The names and addresses to reach this host by, best first."""
    if arguments.public_host is not None:
        return [arguments.public_host]
    if arguments.host not in WILDCARDS:
        return [arguments.host]
    versions = {"0.0.0.0": (4,), "::": (6,), "": (4, 6)}[arguments.host]  # noqa: S104
    found = [a.ip for a in local_addresses(ipv4=4 in versions, ipv6=6 in versions)]
    return [*found, *(LOOPBACK[version] for version in versions)]


def _bracketed(host: str) -> str:
    try:
        is_ipv6 = isinstance(ip_address(host), IPv6Address)
    except ValueError:
        return host
    return f"[{host}]" if is_ipv6 else host


def _announce(urls: list[str], stun: list[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)

    def show(title: str, rows: list[str]) -> None:
        for row in rows:
            console.print(Text.assemble((f"{title:<12}", "dim"), row), soft_wrap=True)
            title = ""

    show("signaling", urls)
    show("STUN (UDP)", stun)
    show("next", [f"ice-punch listen --server {urls[0]}"])
