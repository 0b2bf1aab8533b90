"""``ice-punch serve``: a signaling server, and a STUN server beside it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ice_punch.cli.open_files import within_open_files
from ice_punch.cli.output import Output
from ice_punch.cli.run import Interrupted, run
from ice_punch.cli.serve_policy import (
    CannotServe,
    ServeArguments,
    bracketed,
    door,
    ice_source,
    metrics_token,
    stun_hosts,
    stun_names,
    trusted_proxies,
)
from ice_punch.datagram import Address, format_address
from ice_punch.errors import InvalidConfiguration
from ice_punch.net.interfaces import local_addresses
from signaling import pages
from signaling.auth import AuthMode, TrustedProxies, is_local_page, is_same_origin
from signaling.backends import Backend
from signaling.engines import Peer, Request
from signaling.errors import InvalidRedisUrl, ListenFailed
from signaling.limits import Limits
from signaling.metrics import CONTENT_TYPE, ServerMetrics
from signaling.observation import ObservationServer, may_observe
from signaling.pages import Page
from signaling.server import SignalingServer

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
COMEBACKS = 200.0
"""Clients a second that are sent away: what another process lets in without effort."""

__all__ = ["ServeArguments", "run_serve"]


@dataclass(frozen=True, slots=True)
class Serving:
    """What a process serves."""

    port: int
    metrics_port: int | None


def run_serve(arguments: ServeArguments, output: Output) -> int:
    if arguments.verbose:
        from ice_punch.cli.logs import show_log

        show_log(as_json=arguments.json)
    if arguments.workers > 1 and arguments.redis is None:
        raise InvalidConfiguration("--workers share their rooms through --redis URL")
    try:
        return run(_serve(arguments, output), loop_factory())
    except Interrupted:
        return 0  # the way to stop a server


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(arguments: ServeArguments, output: Output) -> int:
    async with AsyncExitStack() as stack:
        stun: list[Address] = []
        if arguments.stun_port is not None:
            from ice_punch.cli.serve_stun import start_stun

            hosts = stun_hosts(arguments.host, arguments.stun_addresses)
            stun = await start_stun(hosts, arguments.stun_port, stack)
        elif arguments.stun_addresses:
            raise InvalidConfiguration("--stun-address and --no-stun contradict each other")
        ports = list(dict.fromkeys(port for _, port in stun))
        if arguments.workers > 1:
            from ice_punch.cli.workers import Workers

            workers = Workers(arguments, ports)
            stack.push_async_callback(workers.close)
            port = await workers.start()
            metrics = workers.metrics_ports
            ended = workers.ended
        else:
            serving = await stack.enter_async_context(signaling(arguments, ports))
            port = serving.port
            metrics = [] if serving.metrics_port is None else [serving.metrics_port]
            ended = asyncio.get_running_loop().create_future()
        _announce(arguments, output, port, stun, ports, metrics)
        await ended
    return 0


@asynccontextmanager
async def signaling(
    arguments: ServeArguments,
    stun_ports: list[int],
    *,
    worker: int = 0,
    **listen_options: Any,
) -> AsyncIterator[Serving]:
    """A signaling server of this process; at the end its clients are sent away."""
    context = _tls(arguments)
    async with AsyncExitStack() as stack:
        metrics = ServerMetrics()
        proxies = trusted_proxies(arguments)
        token = metrics_token(arguments)
        authorizer = door(arguments)
        ice = ice_source(arguments, stun_ports, stack)
        limits = within_open_files(Limits())
        backend: Backend | None = None
        if arguments.redis is not None:
            backend = _shared(arguments.redis, limits, authorizer, ice, metrics)
        try:
            server = await SignalingServer.start(
                arguments.host,
                arguments.port,
                limits=limits,
                engine=arguments.engine,
                ssl=context,
                ice=ice,
                authorizer=authorizer,
                metrics=metrics,
                backend=backend,
                proxies=proxies,
                routes={"/metrics": _metrics_route(metrics, proxies, token)},
                own_page=is_local_page if arguments.auth == AuthMode.OPEN else is_same_origin,
                **listen_options,
            )
        except ListenFailed as error:
            remedy = "; --port takes another" if "in use" in str(error) else ""
            raise CannotServe(f"{error}{remedy}") from None
        stack.push_async_callback(server.close)
        metrics.sizes = lambda: server.sizes
        metrics.counters_beside = lambda: server.counters - metrics.counters
        metrics.extra = lambda: _gauges(server, backend)
        metrics_port = None
        if arguments.metrics_port is not None:
            observation = ObservationServer(metrics, lambda: server.ready, token)
            wanted = arguments.metrics_port and arguments.metrics_port + worker
            try:
                metrics_port = await observation.listen(arguments.metrics_host, wanted)
            except OSError as error:
                why = getattr(error, "strerror", None) or str(error)
                where = f"{arguments.metrics_host} port {wanted}"
                raise CannotServe(f"can not listen on {where}: {why}") from None
            stack.push_async_callback(observation.close)
        try:
            yield Serving(server.port, metrics_port)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await server.drain(min(arguments.drain, server.sizes["connections"] / COMEBACKS))


def _shared(redis: str, limits: Limits, authorizer: Any, ice: Any, metrics: Any) -> Backend:
    try:
        from signaling.backends.redis import RedisBackend
    except ImportError:
        text = "--redis needs the extra redis: pip install 'ice-punch[redis]'"
        raise CannotServe(text) from None
    try:
        return RedisBackend(
            redis,
            random.SystemRandom(),
            limits,
            ice=ice,
            authorizer=authorizer,
            metrics=metrics,
        )
    except InvalidRedisUrl as error:
        raise InvalidConfiguration(f"--redis: {error}") from None


def _metrics_route(
    metrics: ServerMetrics, proxies: TrustedProxies, token: bytes | None
) -> Callable[[Request, Peer], Page]:
    def answer(request: Request, peer: Peer) -> Page:
        forwarded = proxies.trusts(peer[0]) or any(
            request.headers(name) for name in ("X-Forwarded-For", "Forwarded", "Via")
        )
        if not may_observe(peer[0], request.one("Authorization"), forwarded, token):
            return pages.text_page(HTTPStatus.FORBIDDEN, "not for you")
        return pages.page(HTTPStatus.OK, metrics.render(), CONTENT_TYPE)

    return answer


def _gauges(server: SignalingServer, backend: Backend | None) -> dict[str, float]:
    gauges = {"ready": float(server.ready), "draining": float(server.draining)}
    if backend is not None:
        gauges["bus_up"] = float(backend.ready)
    return gauges


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


def _announce(
    arguments: ServeArguments,
    output: Output,
    port: int,
    stun: list[Address],
    stun_ports: list[int],
    metrics_ports: list[int],
) -> None:
    hosts = _hosts(arguments)
    scheme = "http" if arguments.tls_cert is None else "https"
    urls = [f"{scheme}://{bracketed(name)}:{port}" for name in hosts]
    names = stun_names(arguments) or hosts
    reachable = [format_address((name, number)) for name in names for number in stun_ports]
    observed = bracketed(arguments.metrics_host)
    metrics = [f"http://{observed}:{number}/metrics" for number in metrics_ports]
    output.event("serving", url=urls[0], urls=urls, stun=reachable, metrics=metrics)
    if not arguments.json:
        _show(urls, reachable if stun else [], metrics)


def _show(urls: list[str], stun: list[str], metrics: list[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)

    def show(title: str, rows: list[str]) -> None:
        for row in rows:
            console.print(Text.assemble((f"{title:<12}", "dim"), row), soft_wrap=True)
            title = ""

    show("signaling", urls)
    show("STUN (UDP)", stun)
    show("metrics", metrics)
    show("next", [f"ice-punch listen --server {urls[0]}"])
