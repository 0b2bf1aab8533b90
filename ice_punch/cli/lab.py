"""``ice-punch lab``: the switches of its commands. What they do is in ``lab_commands``."""

from __future__ import annotations

import math
import re
from typing import Annotated

import typer

app = typer.Typer(
    name="lab",
    help="A NAT laboratory: which NATs let whom through, and how fast.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DURATION = re.compile(r"(?P<number>[+-]?\d+(\.\d+)?)(?P<unit>ms|s|)")


def duration(text: str) -> float:
    """``100ms``, ``0.1s`` or ``0.1`` in seconds. Raises BadParameter for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text}: a time reads 100ms, 0.1s or 0.1")
    value = float(match["number"]) / (1000 if match["unit"] == "ms" else 1)
    if not math.isfinite(value) or abs(value) > 3600:
        raise typer.BadParameter(f"{text}: no laboratory waits so long")
    return value


Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="virtual|netns",
        help="virtual: in virtual time, anywhere. netns: on this Linux kernel, as root.",
    ),
]
Html = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Write pictures as one web page.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON object a line to standard output.")
]


@app.command()
def matrix(
    rtt: Annotated[
        str | None,
        typer.Option(
            "--rtt",
            metavar="TIME",
            help="Round trip between the peers without their links: 100ms, or 0 with --link.",
            show_default=False,
        ),
    ] = None,
    skew: Annotated[
        str,
        typer.Option(
            "--skew", metavar="TIME", help="How much later b learns of a; negative: a is late."
        ),
    ] = "0ms",
    link: Annotated[
        str,
        typer.Option(
            "--link", metavar="NAME", help="Peer a's access link; see ice-punch lab list."
        ),
    ] = "perfect",
    link_b: Annotated[
        str, typer.Option("--link-b", metavar="NAME", help="Peer b's access link.")
    ] = "perfect",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            max=10000,
            help="How many; 20, or 1 with --backend netns.",
            show_default=False,
        ),
    ] = None,
    relay: Annotated[
        bool, typer.Option("--relay/--no-relay", help="Whether a TURN server is at hand.")
    ] = True,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--nat",
            metavar="NAME",
            help="Only this NAT, as the table names it: EIM/APDF. May be repeated.",
        ),
    ] = None,
    backend: Backend = "virtual",
    jobs: Annotated[
        int, typer.Option("--jobs", min=0, max=256, help="Processes; 0: one per processor.")
    ] = 0,
    time_limit: Annotated[
        str,
        typer.Option(
            "--time-limit", metavar="TIME", help="Refuse a matrix that would take longer."
        ),
    ] = "600s",
    html: Html = None,
    markdown: Annotated[
        str | None,
        typer.Option("--markdown", metavar="FILE", help="Write the table as Markdown."),
    ] = None,
    json: Json = False,
) -> int:
    """NAT x NAT: three mappings x three filterings on each side (RFC 4787), over several seeds.

    Rows are peer a's NAT, columns peer b's. Each cell tells whether they connect direct or
    relayed or not at all, the median and worst time until both can send, and the packets sent.
    """
    from ice_punch.cli.lab_commands import MatrixArguments, run_lab_matrix

    arguments = MatrixArguments(
        rtt=None if rtt is None else duration(rtt),
        skew=duration(skew),
        link=link,
        link_b=link_b,
        seed=seed,
        seeds=seeds,
        relay=relay,
        nats=tuple(only or ()),
        backend=backend,
        jobs=jobs,
        time_limit=duration(time_limit),
        html=html,
        markdown=markdown,
    )
    return run_lab_matrix(arguments, as_json=json)


@app.command()
def run(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="A name of ice-punch lab list, or 'EIM/APDF x APDM/APDF'."
        ),
    ],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    backend: Backend = "virtual",
    html: Html = None,
    json: Json = False,
) -> int:
    """Run one scenario and draw every packet of it.

    Exit code 1 when it ends otherwise than it should.
    """
    from ice_punch.cli.lab_commands import run_lab_scenario

    return run_lab_scenario(scenario, seed, backend, html, as_json=json)


@app.command(name="list")
def list_(json: Json = False) -> int:
    """Name the scenarios, links and NATs."""
    from ice_punch.cli.lab_commands import run_lab_list

    return run_lab_list(as_json=json)
