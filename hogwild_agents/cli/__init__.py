"""The command `hogwild`, with a file for each of its commands.

The commands import torch, and all that needs it, only when they run: --help and arguments that are
refused need none of it.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Any

import click

from hogwild_agents.cli.bench import bench
from hogwild_agents.cli.chat import chat
from hogwild_agents.cli.check import check
from hogwild_agents.cli.eval import evaluate
from hogwild_agents.cli.solve import solve


def _print_version(context: click.Context, _option: Any, is_set: bool) -> None:
    if is_set:
        from hogwild_agents import __version__

        click.echo(f"hogwild_agents {__version__}")
        context.exit()


class _Commands(click.Group):
    """Lists commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click passes it
        return [*self.commands]


@click.group(cls=_Commands, context_settings={"max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def app() -> None:
    """Let several copies of one language model solve a problem together.

    The copies are called workers. They share one key-value cache, so each of them reads what the
    others write while they write it. Nothing must be downloaded: solve, chat and eval use a small
    model that ships inside, the pocket model, unless they get another one.

    Try: hogwild solve "(a) 4731 + 2869 (b) reverse nirok"
    """


for command in (solve, chat, check, bench, evaluate):
    app.add_command(command)


def main() -> None:
    """Runs the command line."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # no text may end in an encoding error
            stream.reconfigure(errors="replace")
    app()
