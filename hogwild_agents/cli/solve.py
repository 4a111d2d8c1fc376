"""`hogwild solve`: a team works on one problem."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.text import Text

from hogwild_agents.cli.common import (
    STOPPED,
    Device,
    Dtype,
    complain,
    console,
    errors,
    failures,
    say,
)
from hogwild_agents.cli.loading import load_model, load_team, one_worker
from hogwild_agents.cli.options import (
    POCKET,
    Budget,
    Choices,
    InterruptEvery,
    LayoutName,
    Model,
    Seed,
    Temperature,
    Transcript,
    Workers,
)
from hogwild_agents.cli.records import as_record, save, transcript
from hogwild_agents.cli.summary import comparison, show
from hogwild_agents.cli.views.watching import choose_view, watch

if TYPE_CHECKING:
    from hogwild_agents.team import Result

EXAMPLE = 'hogwild solve "(a) 4731 + 2869 (b) reverse nirok (c) largest of 7, 621, 58"'


def solve(
    problem: Annotated[
        str | None, typer.Argument(help="What is to be solved; - reads it from standard input.")
    ] = None,
    model: Model = POCKET,
    workers: Workers = None,
    layout: LayoutName = None,
    budget: Budget = None,
    interrupt_every: InterruptEvery = None,
    temperature: Temperature = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = "auto",
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Afterwards let one worker solve the same problem alone, with as many tokens as "
            "the team may write, and compare what both needed.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object and nothing else; the team is shown on stderr, if that is "
            "a terminal.",
        ),
    ] = False,
    transcript_file: Transcript = None,
) -> None:
    """Let a team of workers solve a problem, and watch them.

    One column for each worker, the finished steps of all above them, checks for redundant work and
    the pivots that follow marked, the answer and what it took at the end. Where there is no
    terminal it is plain text, a line for each step. Ctrl-C stops and keeps what was reached.

    Example: hogwild solve "(a) 4731 + 2869 (b) reverse nirok" --workers 3 --compare

    Example: hogwild solve - --model path/or/hub-name --budget 2048 --json < problem.txt

    Exits with 0 when the session came to its end, with or without an answer; 1 if it failed, 2 if
    it could not begin, 130 after Ctrl-C.
    """
    if problem is None:
        raise typer.BadParameter(
            f"say what is to be solved, for example {EXAMPLE}; or - to read it from standard input",
            param_hint="PROBLEM",
        )
    shown = errors if as_json else console
    choices = Choices(
        workers=workers,
        layout=layout,
        budget=budget,
        interrupt_every=interrupt_every,
        temperature=temperature,
        seed=seed,
    )
    with failures():
        question = sys.stdin.read() if problem == "-" else problem
        with shown.status(f"Loading {escape(model)} ..."):
            from hogwild_agents.engine import Engine

            team = load_team(model, choices)
            if compare and len(team.workers) == 1:
                raise typer.BadParameter("needs two workers or more", param_hint="--compare")
            team.session(
                question
            )  # what is wrong with the problem shows before the model is loaded
            shared = load_model(model, device, dtype)
        teams = [team, one_worker(team)] if compare else [team]
        results: list[Result] = []
        written: list[str] = []
        with Engine(shared) as engine:
            for each in teams:
                if results and not as_json:
                    say(console, Text("\nThe same problem, one worker alone:", "bold"))
                handle = engine.submit(each.session(question))
                view = choose_view(shown, question, each, "Ctrl-C stops", quiet=as_json)
                result = watch(handle, view, handle.cancel)
                results.append(result)
                written.append(transcript(question, result, each))
                save(transcript_file, written)
                if not as_json:
                    show(console, result, each)
                if result.finish_reason in ("cancelled", "error"):
                    break
    if as_json:
        record = as_record(results[0])
        if len(results) > 1:
            record["one_worker"] = as_record(results[1])
        typer.echo(json.dumps(record, indent=1, default=str))
    elif len(results) > 1:
        table, sentence = comparison(*results)
        console.print()
        console.print(table)
        say(console, sentence)
    _exit(results[-1])


def _exit(result: Result) -> None:
    """Ends as a shell expects, if it was not a good end."""
    if result.error is not None:
        complain(f"The session failed: {result.error}")
        raise typer.Exit(1)
    if result.finish_reason == "cancelled":
        raise typer.Exit(STOPPED)
