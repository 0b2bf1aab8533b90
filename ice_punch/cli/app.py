"""The commands and their switches. What they do is imported when one of them runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ice_punch.cli import lab, serve_commands
from ice_punch.cli.output import Output, make_output
from ice_punch.cli.switches import (
    SIGNALING,
    CaFile,
    DirectOnly,
    Files,
    HideAddresses,
    IceServers,
    Interface,
    Json,
    Linger,
    NoEncrypt,
    OnlyIpv4,
    OnlyIpv6,
    PortRange,
    Record,
    RedactAddresses,
    RelayOnly,
    SendFiles,
    Server,
    Size,
    Timeout,
    Token,
    Verbose,
    positive_seconds,
)
from ice_punch.errors import (
    IcePunchError,
    InterfaceNotFound,
    InvalidConfiguration,
    InvalidLink,
    RecordingAltered,
)

FAILED = 1
USAGE = 2
_NOT_USAGE = (InterfaceNotFound, InvalidLink, RecordingAltered)
"""What is wrong about the world rather than about the arguments."""

# Newer Typer carries a Click of its own: this is the ClickException of either.
_ClickException: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="ice-punch",
    help="Direct datagram channels between two programs behind NATs.",
    epilog="Exit codes: 0 done, 1 it did not work, 2 the arguments are wrong, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lab.app)
serve_commands.register(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Whatever goes wrong becomes one line on standard error.

    Returns the exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    output = make_output(json="--json" in given)
    try:
        command = typer.main.get_command(app)
        result = command.main(args=given, prog_name="ice-punch", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except _ClickException as error:
        where = error.ctx.command_path if getattr(error, "ctx", None) else "ice-punch"
        message = error.format_message().rstrip(".")
        output.error("UsageError", f"{message} (see {where} --help)")
        return int(error.exit_code)
    except IcePunchError as error:
        output.error(type(error).__name__, str(error), error.report, error.diagnosis)
        wrong = isinstance(error, InvalidConfiguration) and not isinstance(error, _NOT_USAGE)
        return USAGE if wrong else FAILED
    except typer.Abort:
        from ice_punch.cli import INTERRUPTED

        return INTERRUPTED
    except Exception as error:
        return _failed(error, output)


def _failed(error: Exception, output: Output) -> int:
    """What comes from outside ``ice_punch``. Raises ``error`` again if it is a fault of ours."""
    from ice_punch.cli.run import Interrupted
    from signaling.errors import SignalingError

    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, SignalingError | OSError):
        output.error(type(error).__name__, str(error))
        return FAILED
    raise error


def _print_version(wanted: bool) -> None:
    if wanted:
        from ice_punch import __version__

        typer.echo(f"ice-punch {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> int | None:
    if context.invoked_subcommand is None:
        help_text = context.get_help()  # with rich installed it prints by itself
        if help_text:
            typer.echo(help_text)
        raise typer.Exit(USAGE)
    return None


@app.command()
def listen(
    server: Server = "http://127.0.0.1:8080",
    code: Annotated[
        bool,
        typer.Option(
            "--code",
            help="Instead of the link, a short code to say: good once, for three tries.",
            rich_help_panel=SIGNALING,
        ),
    ] = False,
    manual: Annotated[
        bool,
        typer.Option(
            "--manual",
            help="Use no server: print an offer to be pasted on the other side, read its answer "
            "from standard input.",
            rich_help_panel=SIGNALING,
        ),
    ] = False,
    token: Token = "",
    ca_file: CaFile = None,
    ice_server: IceServers = None,
    direct_only: DirectOnly = False,
    relay_only: RelayOnly = False,
    hide_addresses: HideAddresses = False,
    no_encrypt: NoEncrypt = False,
    port_range: PortRange = None,
    interface: Interface = None,
    ipv4: OnlyIpv4 = False,
    ipv6: OnlyIpv6 = False,
    timeout: Timeout = 60.0,
    size: Size = None,
    linger: Linger = 1.0,
    files: Files = None,
    send: SendFiles = None,
    record: Record = None,
    redact_addresses: RedactAddresses = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Make a link, wait for one peer, pipe standard input and output to it as datagrams.

    The link, its QR code and the command for the other side go to standard error. Datagrams may
    get lost, as with UDP. Ctrl-C closes both sides. HTTPS_PROXY and its like are used.
    """
    from ice_punch.cli.arguments import SessionArguments
    from ice_punch.cli.pipe import PipeOptions
    from ice_punch.cli.session import run_listen

    arguments = SessionArguments(
        ice_servers=tuple(ice_server or ()),
        encrypt=not no_encrypt,
        direct_only=direct_only,
        relay_only=relay_only,
        hide_addresses=hide_addresses,
        interface=interface,
        only_ipv4=ipv4,
        only_ipv6=ipv6,
        port_range=port_range,
        timeout=timeout,
        pipe=PipeOptions(size=size, linger=linger),
        record=record,
        redact_addresses=redact_addresses,
        code=code,
        token=token,
        ca_file=ca_file,
        files=files,
        send=tuple(send or ()),
    )
    output = make_output(json=json, verbose=verbose)
    if manual:
        from ice_punch.cli.manual import run_manual_listen

        if code:
            raise InvalidConfiguration("--code and --manual exclude each other")
        if arguments.moves_files:
            raise InvalidConfiguration("files need a link: not with --manual")
        return run_manual_listen(arguments, output)
    return run_listen(server, arguments, output)


@app.command()
def connect(
    link: Annotated[
        str | None,
        typer.Argument(
            metavar="LINK",
            help="What listen printed, in quotes. ICE_PUNCH_LINK in the environment does as well, "
            "and other users of this machine do not see it there.",
            show_default=False,
        ),
    ] = None,
    server: Server = "http://127.0.0.1:8080",
    code: Annotated[
        str | None,
        typer.Option(
            "--code",
            metavar="CODE",
            help="What listen --code printed, in place of the link; --server must be the same.",
            rich_help_panel=SIGNALING,
        ),
    ] = None,
    manual: Annotated[
        bool,
        typer.Option(
            "--manual",
            help="Use no server: read the offer of listen --manual, from the place of the link or "
            "from standard input, and print the answer to it.",
            rich_help_panel=SIGNALING,
        ),
    ] = False,
    token: Token = "",
    ca_file: CaFile = None,
    ice_server: IceServers = None,
    direct_only: DirectOnly = False,
    relay_only: RelayOnly = False,
    hide_addresses: HideAddresses = False,
    no_encrypt: NoEncrypt = False,
    port_range: PortRange = None,
    interface: Interface = None,
    ipv4: OnlyIpv4 = False,
    ipv6: OnlyIpv6 = False,
    timeout: Timeout = 60.0,
    size: Size = None,
    linger: Linger = 1.0,
    files: Files = None,
    send: SendFiles = None,
    record: Record = None,
    redact_addresses: RedactAddresses = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Reach the peer that made the link, pipe standard input and output to it as datagrams.

    Datagrams may get lost, as with UDP. Ctrl-C closes both sides.
    """
    from ice_punch.cli.arguments import SessionArguments
    from ice_punch.cli.pipe import PipeOptions
    from ice_punch.cli.session import run_connect

    arguments = SessionArguments(
        ice_servers=tuple(ice_server or ()),
        encrypt=not no_encrypt,
        direct_only=direct_only,
        relay_only=relay_only,
        hide_addresses=hide_addresses,
        interface=interface,
        only_ipv4=ipv4,
        only_ipv6=ipv6,
        port_range=port_range,
        timeout=timeout,
        pipe=PipeOptions(size=size, linger=linger),
        record=record,
        redact_addresses=redact_addresses,
        token=token,
        ca_file=ca_file,
        files=files,
        send=tuple(send or ()),
    )
    output = make_output(json=json, verbose=verbose)
    if manual:
        from ice_punch.cli.manual import run_manual_connect

        if code is not None:
            raise InvalidConfiguration("--code and --manual exclude each other")
        if arguments.moves_files:
            raise InvalidConfiguration("files need a link: not with --manual")
        return run_manual_connect(link, arguments, output)
    if code is not None:
        from ice_punch.cli.session import run_connect_by_code

        if link is not None:
            raise InvalidConfiguration("a link and --code exclude each other")
        return run_connect_by_code(server, code, arguments, output)
    return run_connect(link, arguments, output)


@app.command()
def stun(
    servers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SERVER",
            help="HOST[:PORT] or stun: URIs. Without any, a few well-known public ones.",
            show_default=False,
        ),
    ] = None,
    ipv4: Annotated[bool, typer.Option("-4", help="IPv4 only.")] = False,
    ipv6: Annotated[bool, typer.Option("-6", help="IPv6 only.")] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="How long to wait for each server.",
            callback=positive_seconds,
        ),
    ] = 3.0,
    json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a line to standard output.")
    ] = False,
) -> int:
    """Ask STUN servers where they see this host, and whether that varies by destination."""
    from ice_punch.cli.stun import StunArguments, run_stun

    arguments = StunArguments(tuple(servers or ()), ipv4, ipv6, timeout)
    return run_stun(arguments, as_json=json)


@app.command()
def replay(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What --record wrote.")],
    html: Annotated[
        str | None, typer.Option("--html", metavar="OUT", help="Write the picture as a web page.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Replay what there is of a recording cut short.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a line to standard output.")
    ] = False,
) -> int:
    """Run a recorded session again, compare every packet and event, and draw what happened."""
    from ice_punch.cli.replay import ReplayArguments, run_replay

    return run_replay(ReplayArguments(file, html, partial), as_json=json)


@app.command()
def demo() -> int:
    """Watch a server and two peers punch through two NATs.

    As root on Linux the NATs are the kernel's own, in network namespaces; elsewhere the peers run
    on this host's addresses.
    """
    from rich.console import Console

    from ice_punch.lab.demo.play import run_demo

    return run_demo(Console())
