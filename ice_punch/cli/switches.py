"""The switches that several commands share."""

from __future__ import annotations

import math
from typing import Annotated

import typer


def not_negative(value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise typer.BadParameter("it is a number of seconds")
    return value


def positive_seconds(value: float) -> float:
    if not_negative(value) == 0:
        raise typer.BadParameter("it is a number of seconds above 0")
    return value


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
        callback=positive_seconds,
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
        callback=not_negative,
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

SIGNALING = "Signaling"

Server = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="ICE_PUNCH_SERVER",
        help="The signaling server.",
        rich_help_panel=SIGNALING,
    ),
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="ICE_PUNCH_TOKEN",
        help="What a server that wants tokens is to be shown. Better in the environment.",
        rich_help_panel=SIGNALING,
    ),
]
CaFile = Annotated[
    str | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        envvar="ICE_PUNCH_CA_FILE",
        help="Trust these certificates (PEM) for the signaling server, and no others.",
        rich_help_panel=SIGNALING,
    ),
]
