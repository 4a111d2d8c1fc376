"""The command `hogwild`. Heavy imports wait until a command needs them, so that --help is quick."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from hogwild_agents import __version__
from hogwild_agents.cli.bench import bench
from hogwild_agents.cli.chat import chat
from hogwild_agents.cli.check import check
from hogwild_agents.cli.common import console
from hogwild_agents.cli.evaluation import evaluate
from hogwild_agents.cli.solve import solve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
)
for command in (solve, chat, check, bench):
    app.command()(command)
app.command("eval")(evaluate)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"hogwild_agents {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Several copies of one language model think about a problem together, over one cache.

    Begin with: hogwild solve "(a) 4731 + 2869 (b) reverse nirok"
    """


def main() -> None:
    """Runs the command line."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # no text may end in an encoding error
            stream.reconfigure(errors="replace")
    app()
