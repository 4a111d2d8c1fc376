"""`hogwild solve`: a team solves one problem."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.text import Text

from hogwild_agents.cli.options import (
    TeamOptions,
    device_option,
    dtype_option,
    model_option,
    team_options,
    transcript_option,
)
from hogwild_agents.cli.output import (
    INTERRUPTED,
    exit_on_error,
    print_error,
    print_text,
    stderr,
    stdout,
)
from hogwild_agents.names import worker_names

if TYPE_CHECKING:
    from hogwild_agents.team import Result

EXAMPLE = 'hogwild solve "(a) 4731 + 2869 (b) reverse nirok (c) largest of 7, 621, 58"'


@click.command()
@click.argument("problem", required=False)
@model_option
@team_options
@device_option
@dtype_option
@click.option(
    "--compare",
    is_flag=True,
    help="Then let one worker solve the same problem alone, with as many tokens as the whole team "
    "may write, and compare the two.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object and nothing else. The team is shown on stderr if that is a "
    "terminal.",
)
@transcript_option
def solve(
    problem: str | None,
    model: str,
    team_options: TeamOptions,
    device: str | None,
    dtype: str,
    compare: bool,
    as_json: bool,
    transcript: Path | None,
) -> None:
    """Let a team of workers solve PROBLEM, and watch them work.

    PROBLEM is the text of a problem, or - to read it from standard input.

    On a terminal you see a column for each worker below the finished steps of all of them, the
    checks for redundant work with the pivots that follow, and at the end the answer and what it
    cost. In a file or pipe it is plain text, one line for each step. Ctrl-C stops the team; what
    it has found so far is printed.

    Example: hogwild solve "(a) 4731 + 2869 (b) reverse nirok" --workers 3 --compare

    Example: hogwild solve - --model path/or/hub-name --json < problem.txt

    The exit code is 0 if the session ended by itself, with or without an answer; 1 if it failed, 2
    if it could not begin, and 130 after Ctrl-C.
    """
    if problem is None:
        raise click.BadParameter(
            f"give a problem, for example {EXAMPLE}; or - to read it from standard input",
            param_hint="PROBLEM",
        )
    if compare and len(worker_names(team_options.workers or 2)) == 1:
        raise click.BadParameter("needs two workers or more", param_hint="--compare")
    console = stderr if as_json else stdout
    with exit_on_error():
        question = sys.stdin.read() if problem == "-" else problem
        with console.status(f"Loading {escape(model)} ..."):
            from hogwild_agents.cli.export import save_transcripts, to_json, to_transcript
            from hogwild_agents.cli.loading import load_model, load_team, single_worker
            from hogwild_agents.cli.summary import print_comparison, print_summary
            from hogwild_agents.cli.watching import choose_view, watch
            from hogwild_agents.engine import Engine

            team = load_team(model, team_options)
            team.session(question)  # refuses a bad problem before the weights are loaded
            shared = load_model(model, device, dtype)
        teams = [team, single_worker(team)] if compare else [team]
        results: list[Result] = []
        transcripts: list[str] = []
        with Engine(shared) as engine:
            for team in teams:
                if results and not as_json:
                    print_text(stdout, Text("\nThe same problem, one worker alone:", "bold"))
                handle = engine.submit(team.session(question))
                view = choose_view(console, question, team, "Ctrl-C stops", quiet=as_json)
                result = watch(handle, view, handle.cancel)
                results.append(result)
                transcripts.append(to_transcript(question, result, team))
                save_transcripts(transcript, transcripts)
                if not as_json:
                    print_summary(stdout, result, team)
                if result.finish_reason in ("cancelled", "error"):
                    break
        if as_json:
            record = to_json(results[0])
            if len(results) > 1:
                record["one_worker"] = to_json(results[1])
            click.echo(json.dumps(record, indent=1, default=str))
        elif len(results) > 1:
            print_comparison(stdout, *results)
    _exit_unless_complete(results[-1])


def _exit_unless_complete(result: Result) -> None:
    """Ends with an exit code if the session failed or was cancelled."""
    if result.error is not None:
        print_error(f"The session failed: {result.error}")
        raise SystemExit(1)
    if result.finish_reason == "cancelled":
        raise SystemExit(INTERRUPTED)
