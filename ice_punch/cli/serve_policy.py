"""From the switches of ``serve`` to the objects that decide: who may enter, which ICE servers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from ice_punch.cli.secrets_file import read_secret
from ice_punch.cli.token import read_token_key
from ice_punch.errors import IcePunchError, InvalidConfiguration
from ice_punch.net.ice_server import IceServer
from signaling.auth import AuthMode, Door, Origins, TrustedProxies
from signaling.errors import InvalidIceServer, InvalidKey, InvalidPolicy
from signaling.hooks import IceServerSource, SameIceServers
from signaling.ice_hook import HookRequest, IceHook, parse_headers
from signaling.messages import IceInfo, IceServerInfo
from signaling.tokens import TokenVerifier
from signaling.turn_credentials import (
    AllIceServers,
    TurnCredentials,
    TurnServer,
)


class CannotServe(IcePunchError):
    """A port is taken, an address is not ours, or a certificate can not be used."""


@dataclass(frozen=True, slots=True)
class ServeArguments:
    host: str
    port: int
    stun_port: int | None
    """None: no STUN server."""
    stun_addresses: tuple[str, ...]
    public_host: str | None
    tls_cert: str | None
    tls_key: str | None
    auth: str
    token_key: str | None
    previous_token_keys: tuple[str, ...]
    origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    ice_servers: tuple[str, ...]
    turn: tuple[str, ...]
    turn_secret_files: tuple[str, ...]
    turn_ttl: int
    ice_hook: str | None
    ice_hook_headers: str | None
    engine: str
    redis: str | None
    workers: int
    metrics_port: int | None
    metrics_host: str
    metrics_token_file: str | None
    drain: float
    json: bool
    verbose: bool


def trusted_proxies(arguments: ServeArguments) -> TrustedProxies:
    """Raises InvalidConfiguration."""
    try:
        return TrustedProxies(arguments.trusted_proxies)
    except InvalidPolicy as error:
        raise InvalidConfiguration(f"--trusted-proxy: {error}") from None


def door(arguments: ServeArguments) -> Door:
    """Raises InvalidConfiguration."""
    try:
        mode = AuthMode(arguments.auth)
    except ValueError:
        modes = ", ".join(AuthMode)
        raise InvalidConfiguration(f"--auth is one of {modes}, not {arguments.auth!r}") from None
    if mode is AuthMode.OPEN:
        if not _is_loopback(arguments.host):
            raise InvalidConfiguration(
                "--auth open lets everybody in: it works on the loopback interface only "
                "(--host 127.0.0.1)"
            )
        if arguments.trusted_proxies:
            raise InvalidConfiguration("--auth open behind a proxy lets everybody in")
    if mode is AuthMode.TOKEN and arguments.token_key is None:
        raise InvalidConfiguration("--auth token needs --token-key FILE to check them with")
    if mode is not AuthMode.TOKEN and (arguments.token_key or arguments.previous_token_keys):
        raise InvalidConfiguration("--token-key is for --auth token")
    try:
        origins = Origins(arguments.origins)
        return Door(mode, _verifier(arguments), origins=origins)
    except InvalidKey as error:
        raise InvalidConfiguration(f"--previous-token-key: {error}") from None
    except InvalidPolicy as error:
        raise InvalidConfiguration(f"--origin: {error}") from None


def ice_source(
    arguments: ServeArguments, stun_ports: list[int], stack: AsyncExitStack
) -> IceServerSource:
    """Raises InvalidConfiguration."""
    hosts = [bracketed(name) for name in stun_names(arguments)] or ["{host}"]
    urls = [f"stun:{host}:{port}" for host in hosts for port in stun_ports]
    for uri in arguments.ice_servers:
        if IceServer.parse(uri).scheme != "stun":
            raise InvalidConfiguration(f"--ice-server {uri}: STUN servers only; --turn for others")
        urls.append(uri)
    sources: list[IceServerSource] = [
        SameIceServers(IceInfo(servers=[IceServerInfo(urls=[url]) for url in urls]))
    ]
    try:
        if arguments.turn or arguments.turn_secret_files:
            sources.append(TurnCredentials(_turn_servers(arguments), ttl=arguments.turn_ttl))
        if arguments.ice_hook is not None:
            headers = {}
            if arguments.ice_hook_headers is not None:
                text = read_secret(arguments.ice_hook_headers, "--ice-hook-headers")
                headers = parse_headers(text.decode("ascii", "replace"))
            request = HookRequest(arguments.ice_hook, headers, ttl=arguments.turn_ttl)
            hook = IceHook(request)
            stack.callback(hook.close)
            sources.append(hook)
        elif arguments.ice_hook_headers is not None:
            raise InvalidConfiguration("--ice-hook-headers is for --ice-hook URL")
    except InvalidIceServer as error:
        raise InvalidConfiguration(str(error)) from None
    return AllIceServers(sources)


def stun_hosts(host: str, addresses: Sequence[str]) -> list[tuple[str, str | None]]:
    """Where STUN is answered: an address, and the second of its kind if there is one.

    Raises InvalidConfiguration.
    """
    if not addresses:
        return [(host, None)]
    by_version: dict[int, list[str]] = {4: [], 6: []}
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            text = f"--stun-address is an IP address of this host, not {text!r}"
            raise InvalidConfiguration(text) from None
        if address.is_unspecified:
            raise InvalidConfiguration("--stun-address is one definite address, no wildcard")
        known = by_version[address.version]
        if str(address) in known or len(known) == 2:
            text = "--stun-address: one or two different addresses of IPv4, and of IPv6"
            raise InvalidConfiguration(text)
        known.append(str(address))
    return [(ips[0], ips[1] if len(ips) == 2 else None) for ips in by_version.values() if ips]


def stun_names(arguments: ServeArguments) -> list[str]:
    """Where clients find STUN; none: where they found this server."""
    if arguments.public_host is not None:
        return [arguments.public_host]
    return [first for first, _ in stun_hosts("", arguments.stun_addresses) if first]


def metrics_token(arguments: ServeArguments) -> bytes | None:
    """Raises InvalidConfiguration."""
    if arguments.metrics_token_file is None:
        if not _is_loopback(arguments.metrics_host):
            raise InvalidConfiguration(
                "--metrics-host on the network needs --metrics-token-file FILE"
            )
        return None
    token = read_secret(arguments.metrics_token_file, "--metrics-token-file")
    if len(token) < 16:
        raise InvalidConfiguration("--metrics-token-file: a token has 16 bytes or more")
    return token


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _verifier(arguments: ServeArguments) -> TokenVerifier | None:
    if arguments.token_key is None:
        return None
    current = read_token_key(arguments.token_key, "--token-key")
    previous = [
        read_token_key(path, "--previous-token-key") for path in arguments.previous_token_keys
    ]
    return TokenVerifier(current, previous)


def _turn_servers(arguments: ServeArguments) -> list[TurnServer]:
    paths, urls = arguments.turn_secret_files, arguments.turn
    if not paths or not urls:
        raise InvalidConfiguration("--turn and --turn-secret-file belong together")
    secrets = [read_secret(path, "--turn-secret-file") for path in paths]
    if len(secrets) == 1:
        return [TurnServer(urls, secrets[0])]
    if len(secrets) != len(urls):
        raise InvalidConfiguration("--turn-secret-file: once, or once for each --turn")
    return [TurnServer((url,), secret) for url, secret in zip(urls, secrets, strict=True)]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
