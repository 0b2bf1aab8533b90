"""``ice-punch stun``: where STUN servers see this host."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ice_punch.cli.run import run
from ice_punch.datagram import Address, format_address
from ice_punch.errors import InvalidConfiguration, ServerUnreachable
from ice_punch.nat import MappingBehaviour, MappingVerdict
from ice_punch.net.ice_server import IceServer, parse_server_argument
from ice_punch.net.stun_client import DEFAULT_STUN_SERVERS, ProbeResult, mapping_verdicts, probe

WIDE = 160
"""Columns of a table that nobody looks at on a screen."""


@dataclass(frozen=True, slots=True)
class StunArguments:
    servers: tuple[str, ...]
    only_ipv4: bool
    only_ipv6: bool
    timeout: float


def run_stun(arguments: StunArguments, *, as_json: bool) -> int:
    """Raises InvalidConfiguration for what names no server, ServerUnreachable if none answered."""
    if arguments.only_ipv4 and arguments.only_ipv6:
        raise InvalidConfiguration("-4 and -6 exclude each other")
    servers = [parse_server_argument(text) for text in arguments.servers or DEFAULT_STUN_SERVERS]
    return run(_stun(list(dict.fromkeys(servers)), arguments, as_json))


async def _stun(servers: Sequence[IceServer], arguments: StunArguments, as_json: bool) -> int:
    results: list[ProbeResult] = []
    async for result in probe(
        servers,
        ipv4=not arguments.only_ipv6,
        ipv6=not arguments.only_ipv4,
        timeout=arguments.timeout,
    ):
        results.append(result)
        if as_json:
            _write(_server_event(result))
    verdicts = mapping_verdicts(results)
    results.sort(key=lambda result: servers.index(result.server))
    if as_json:
        for version, verdict in verdicts.items():
            _write(_verdict_event(version, verdict))
    else:
        _print(results, verdicts)
    if not verdicts:
        raise ServerUnreachable("no STUN server answered")
    return 0


def _write(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _server_event(result: ProbeResult) -> dict[str, Any]:
    return {
        "event": "server",
        "server": result.server.uri,
        "address": _shown(result.address),
        "local": _shown(result.local),
        "mapped": _shown(result.mapped),
        "rtt_ms": None if result.rtt is None else round(result.rtt * 1000, 3),
        "error": result.error,
    }


def _verdict_event(version: int, verdict: MappingVerdict) -> dict[str, Any]:
    known = verdict.behaviour is not MappingBehaviour.UNKNOWN
    return {
        "event": "verdict",
        "ip_version": version,
        "mapping": verdict.behaviour.value,
        "varies": verdict.varies_by_destination if known else None,
        "exact": verdict.exact,
        "reason": verdict.reason,
    }


def _print(results: Sequence[ProbeResult], verdicts: dict[int, MappingVerdict]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    table = Table(box=None, pad_edge=False)
    for title in ("server", "reflexive address", "round trip", ""):
        table.add_column(title, overflow="fold", justify="right" if "trip" in title else "left")
    for result in results:
        rtt = "" if result.mapped is None else "?"
        if result.rtt is not None:
            rtt = f"{result.rtt * 1000:.1f} ms"
        table.add_row(
            Text(result.server.uri),
            Text(_shown(result.mapped) or "-"),
            Text(rtt),
            Text(result.error or "", style="red"),
        )
    console.print(table)
    for version, verdict in verdicts.items():
        console.print(f"IPv{version}: {_sentence(verdict)}", markup=False, soft_wrap=True)


def _sentence(verdict: MappingVerdict) -> str:
    match verdict.behaviour:
        case MappingBehaviour.OPEN:
            meaning = "no NAT"
        case MappingBehaviour.ENDPOINT_INDEPENDENT:
            meaning = "the mapping does not vary by destination"
        case MappingBehaviour.UNKNOWN:
            meaning = "whether the mapping varies by destination is not known"
        case _:
            meaning = "the mapping varies by destination, a direct path may need luck or a relay"
    return f"{meaning} ({verdict.reason})"


def _shown(address: Address | None) -> str | None:
    return None if address is None else format_address(address)
