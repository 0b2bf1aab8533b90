"""The commands and their switches. What they do is imported when one of them runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ice_punch.cli import lab, serve_commands
from ice_punch.cli.output import Output, make_output
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


def _seconds(value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise typer.BadParameter("it is a number of seconds")
    return value


def _positive_seconds(value: float) -> float:
    if _seconds(value) == 0:
        raise typer.BadParameter("it is a number of seconds above 0")
    return value


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


_PATH = "The path"
_PIPE = "The pipe"
_RECORDING = "The recording"

Json = Annotated[
    bool, typer.Option("--json", help="Write events to standard error, one JSON object a line.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell what happens on the way.")]
OnlyIpv4 = Annotated[bool, typer.Option("-4", help="IPv4 only.", rich_help_panel=_PATH)]
OnlyIpv6 = Annotated[bool, typer.Option("-6", help="IPv6 only.", rich_help_panel=_PATH)]
IceServers = Annotated[
    list[str] | None,
    typer.Option(
        "--ice-server",
        metavar="URI",
        help="A STUN or TURN server: stun:HOST[:PORT], turn:HOST[:PORT][?transport=tcp], "
        "turns:HOST. May be repeated. Credentials come from ICE_PUNCH_TURN_USERNAME and "
        "ICE_PUNCH_TURN_PASSWORD in the environment.",
        rich_help_panel=_PATH,
    ),
]
DirectOnly = Annotated[
    bool, typer.Option("--direct-only", help="Never use a relay.", rich_help_panel=_PATH)
]
RelayOnly = Annotated[
    bool, typer.Option("--relay-only", help="Use nothing but relays.", rich_help_panel=_PATH)
]
HideAddresses = Annotated[
    bool,
    typer.Option(
        "--hide-addresses",
        help="Tell the peer names of Multicast DNS in place of this host's addresses.",
        rich_help_panel=_PATH,
    ),
]
NoEncrypt = Annotated[
    bool,
    typer.Option(
        "--no-encrypt",
        help="Plain datagrams instead of DTLS. Both sides must say so.",
        rich_help_panel=_PATH,
    ),
]
PortRange = Annotated[
    str | None,
    typer.Option(
        "--port-range",
        metavar="LOW-HIGH",
        help="Local UDP ports to use.",
        rich_help_panel=_PATH,
    ),
]
Interface = Annotated[
    str | None,
    typer.Option(
        "--interface", metavar="NAME", help="Use this interface only.", rich_help_panel=_PATH
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long to try to connect, once the peer is there; connect waits as long for it.",
        callback=_positive_seconds,
        rich_help_panel=_PATH,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        metavar="BYTES",
        min=1,
        max=65507,
        help="Cut what is piped in into datagrams of exactly this size, the last one excepted. "
        "Without it each datagram takes what is there, up to what the path carries. "
        "At a terminal every line is a datagram.",
        rich_help_panel=_PIPE,
    ),
]
Linger = Annotated[
    float,
    typer.Option(
        "--linger",
        metavar="SECONDS",
        help="After the end of the input: close once the peer has been silent for so long. "
        "Input that is empty from the start closes nothing.",
        callback=_seconds,
        rich_help_panel=_PIPE,
    ),
]
Record = Annotated[
    str | None,
    typer.Option(
        "--record",
        metavar="FILE",
        help="Record all that ICE is told, for ice-punch replay. Passwords and data are left out. "
        "Further attempts go to FILE.2, FILE.3.",
        rich_help_panel=_RECORDING,
    ),
]
RedactAddresses = Annotated[
    bool,
    typer.Option(
        "--redact-addresses",
        help="Record other addresses and names in place of the real ones.",
        rich_help_panel=_RECORDING,
    ),
]

_FILES = "Files"

Files = Annotated[
    str | None,
    typer.Option(
        "--files",
        metavar="DIR",
        help="Take files of the peer's into this directory; nothing in it is overwritten. "
        "Needs the extra webrtc on both sides, as a browser has it.",
        rich_help_panel=_FILES,
    ),
]
SendFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--send",
        metavar="FILE",
        help="Send a file to a peer that takes files, and end when it has arrived; nothing is read "
        "from standard input. May be repeated.",
        rich_help_panel=_FILES,
    ),
]

_SIGNALING = "Signaling"

Server = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="ICE_PUNCH_SERVER",
        help="The signaling server.",
        rich_help_panel=_SIGNALING,
    ),
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="ICE_PUNCH_TOKEN",
        help="What a server that wants tokens is to be shown. Better in the environment.",
        rich_help_panel=_SIGNALING,
    ),
]
CaFile = Annotated[
    str | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        envvar="ICE_PUNCH_CA_FILE",
        help="Trust these certificates (PEM) for the signaling server, and no others.",
        rich_help_panel=_SIGNALING,
    ),
]


@app.command()
def listen(
    server: Server = "http://127.0.0.1:8080",
    code: Annotated[
        bool,
        typer.Option(
            "--code",
            help="Instead of the link, a short code to say: good once, for three tries.",
            rich_help_panel=_SIGNALING,
        ),
    ] = False,
    manual: Annotated[
        bool,
        typer.Option(
            "--manual",
            help="Use no server: print an offer to be pasted on the other side, read its answer "
            "from standard input.",
            rich_help_panel=_SIGNALING,
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
            rich_help_panel=_SIGNALING,
        ),
    ] = None,
    manual: Annotated[
        bool,
        typer.Option(
            "--manual",
            help="Use no server: read the offer of listen --manual, from the place of the link or "
            "from standard input, and print the answer to it.",
            rich_help_panel=_SIGNALING,
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
            callback=_positive_seconds,
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
