"""``ice-punch serve`` and ``ice-punch token``: their switches."""

from __future__ import annotations

from typing import Annotated

import typer

from ice_punch.cli.output import make_output

_ENTRY = "Who may enter"
_ICE = "What clients are told"
_OPERATION = "Operation"


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(token)


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")
    ] = "0.0.0.0",  # noqa: S104
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="TCP port of signaling; 0: any free.")
    ] = 8080,
    stun_port: Annotated[
        int,
        typer.Option(
            "--stun-port",
            min=0,
            max=65534,
            help="UDP port of STUN, which takes the next one too: two ports show peers whether "
            "their NAT's mapping varies. 0: any two that are free.",
        ),
    ] = 3478,
    stun_address: Annotated[
        list[str] | None,
        typer.Option(
            "--stun-address",
            metavar="ADDRESS",
            help="Where STUN answers, by default --host. Given twice, with two addresses of this "
            "host, peers can find out how their NAT maps and filters (RFC 5780).",
        ),
    ] = None,
    no_stun: Annotated[bool, typer.Option("--no-stun", help="Signaling only.")] = False,
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, PEM.")
    ] = None,
    auth: Annotated[
        str,
        typer.Option(
            "--auth",
            metavar="MODE",
            help="capability: whoever knows a room's name of 128 bits. token: whoever has a token "
            "(see ice-punch token). open: anybody, any room; only on the loopback interface.",
            rich_help_panel=_ENTRY,
        ),
    ] = "capability",
    token_key: Annotated[
        str | None,
        typer.Option(
            "--token-key",
            metavar="FILE",
            help="What tokens are checked with: a secret of 32 bytes, or an Ed25519 key, PEM.",
            rich_help_panel=_ENTRY,
        ),
    ] = None,
    previous_token_key: Annotated[
        list[str] | None,
        typer.Option(
            "--previous-token-key",
            metavar="FILE",
            help="A key whose tokens are still good. May be repeated.",
            rich_help_panel=_ENTRY,
        ),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin",
            metavar="ORIGIN",
            help="Pages that may connect: https://HOST[:PORT], or * for any. This server's own "
            "always may. May be repeated.",
            rich_help_panel=_ENTRY,
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--trusted-proxy",
            metavar="NETWORK",
            help="A proxy, or a network of them, whose X-Forwarded-For is believed. May be "
            "repeated.",
            rich_help_panel=_ENTRY,
        ),
    ] = None,
    public_host: Annotated[
        str | None,
        typer.Option(
            "--public-host",
            metavar="NAME",
            help="The name or address peers know this host by.",
            rich_help_panel=_ICE,
        ),
    ] = None,
    ice_server: Annotated[
        list[str] | None,
        typer.Option(
            "--ice-server",
            metavar="URI",
            help="Another STUN server: stun:HOST[:PORT]. May be repeated.",
            rich_help_panel=_ICE,
        ),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            "--turn",
            metavar="URI",
            help="A TURN server that shares a secret with this one: "
            "turn:HOST[:PORT][?transport=tcp], turns:HOST. May be repeated.",
            rich_help_panel=_ICE,
        ),
    ] = None,
    turn_secret_file: Annotated[
        list[str] | None,
        typer.Option(
            "--turn-secret-file",
            metavar="FILE",
            help="The secret: coturn's static-auth-secret. Once for all of --turn, or once for "
            "each, in their order.",
            rich_help_panel=_ICE,
        ),
    ] = None,
    turn_ttl: Annotated[
        int,
        typer.Option(
            "--turn-ttl",
            metavar="SECONDS",
            min=60,
            max=86400,
            help="How long relay credentials last.",
            rich_help_panel=_ICE,
        ),
    ] = 3600,
    ice_hook: Annotated[
        str | None,
        typer.Option(
            "--ice-hook",
            metavar="URL",
            help="Ask here for the ICE servers of a session: a provider of relays, or a program.",
            rich_help_panel=_ICE,
        ),
    ] = None,
    ice_hook_headers: Annotated[
        str | None,
        typer.Option(
            "--ice-hook-headers",
            metavar="FILE",
            help="Headers to ask with, NAME: VALUE, one a line.",
            rich_help_panel=_ICE,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="websockets, or picows, which is faster (extra picows).",
            rich_help_panel=_OPERATION,
        ),
    ] = "websockets",
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis",
            metavar="URL",
            help="Share rooms with other processes through this Redis or Valkey: "
            "redis://HOST:PORT/DB, rediss://..., unix://PATH (extra redis).",
            envvar="ICE_PUNCH_REDIS",
            rich_help_panel=_OPERATION,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            max=64,
            help="Processes that share the port. More than one need --redis.",
            rich_help_panel=_OPERATION,
        ),
    ] = 1,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="N",
            min=0,
            max=65535,
            help="Serve /metrics, /healthz and /readyz here as well; worker I on port N + I.",
            rich_help_panel=_OPERATION,
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(
            "--metrics-host",
            metavar="ADDRESS",
            help="The address of --metrics-port; one on the network needs a token.",
            rich_help_panel=_OPERATION,
        ),
    ] = "127.0.0.1",
    metrics_token_file: Annotated[
        str | None,
        typer.Option(
            "--metrics-token-file",
            metavar="FILE",
            help="The bearer token with which others than this machine may read /metrics.",
            rich_help_panel=_OPERATION,
        ),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            "--drain",
            metavar="SECONDS",
            min=0.0,
            max=25.0,
            help="At SIGTERM: over how long clients are sent away.",
            rich_help_panel=_OPERATION,
        ),
    ] = 10.0,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Write events, and the log, to standard error, one JSON object a line."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log rooms and refusals to standard error.")
    ] = False,
) -> int:
    """Run a signaling server and, beside it, a STUN server."""
    from ice_punch.cli.serve import ServeArguments, run_serve

    arguments = ServeArguments(
        host=host,
        port=port,
        stun_port=None if no_stun else stun_port,
        stun_addresses=tuple(stun_address or ()),
        public_host=public_host,
        tls_cert=tls_cert,
        tls_key=tls_key,
        auth=auth,
        token_key=token_key,
        previous_token_keys=tuple(previous_token_key or ()),
        origins=tuple(origin or ()),
        trusted_proxies=tuple(trusted_proxy or ()),
        ice_servers=tuple(ice_server or ()),
        turn=tuple(turn or ()),
        turn_secret_files=tuple(turn_secret_file or ()),
        turn_ttl=turn_ttl,
        ice_hook=ice_hook,
        ice_hook_headers=ice_hook_headers,
        engine=engine,
        redis=redis,
        workers=workers,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        metrics_token_file=metrics_token_file,
        drain=drain,
        json=json,
        verbose=verbose,
    )
    return run_serve(arguments, make_output(json=json))


def token(
    key: Annotated[
        str,
        typer.Option(
            "--key",
            metavar="FILE",
            envvar="ICE_PUNCH_TOKEN_KEY",
            help="What to sign with: the secret of serve --token-key, or the private Ed25519 key "
            "to its public one.",
        ),
    ],
    room: Annotated[
        list[str] | None,
        typer.Option(
            "--room",
            metavar="NAME",
            help="A room it opens; with a * at the end all rooms that begin so. May be repeated.",
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            "--link",
            metavar="LINK",
            help="A link whose room it opens; what is before the # will do. May be repeated.",
        ),
    ] = None,
    ttl: Annotated[
        float,
        typer.Option("--ttl", metavar="SECONDS", help="How long it may be used to enter."),
    ] = 600.0,
    permission: Annotated[
        list[str] | None,
        typer.Option(
            "--permission",
            metavar="NAME",
            help="join: enter, and see who is there. call: send signals. May be repeated; without "
            "it both.",
        ),
    ] = None,
    relay: Annotated[
        bool, typer.Option("--relay", help="Its bearer is given relay credentials.")
    ] = False,
    subject: Annotated[
        str,
        typer.Option("--subject", metavar="NAME", help="Who it is for; shown in logs of relays."),
    ] = "",
    max_peers: Annotated[
        int | None,
        typer.Option("--max-peers", metavar="N", help="Seats of a room its bearer is first in."),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Write the token and what it says as one JSON object."),
    ] = False,
) -> int:
    """Mint a token for a server that runs with --auth token; it goes to standard output."""
    from ice_punch.cli.token import TokenArguments, run_token

    arguments = TokenArguments(
        key=key,
        rooms=tuple(room or ()),
        links=tuple(link or ()),
        ttl=ttl,
        permissions=tuple(permission or ()),
        relay=relay,
        subject=subject,
        max_peers=max_peers,
    )
    return run_token(arguments, as_json=json)
