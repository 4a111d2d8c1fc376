"""`hogwild eval`: does a team answer sooner? On the tasks that ship inside, or on one's own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from hogwild_agents.cli.common import (
    STOPPED,
    Device,
    Dtype,
    complain,
    console,
    errors,
    failures,
    numbers_of,
    words_of,
)

if TYPE_CHECKING:
    from hogwild_agents.evaluation.datasets import Loaded
    from hogwild_agents.evaluation.evaluations import Evaluation

SHORT, LONG = "32,64,96,128,192,256", "512,1024,2048,4096,8192"
"""Budgets for a model that is soon done, and for those that think at length."""

MOST_SHOWN = 5
"""Malformed rows that are named one by one."""


def evaluate(
    out: Annotated[
        Path,
        typer.Option(
            file_okay=False, help="Folder for records and report; a run that stopped goes on there."
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="pocket (no download); a file of your own (.jsonl, .json, .csv, .tsv, .parquet); "
            "gsm8k, gsm8k-x5, limo, olympiadbench, math-500, aime-2024, aime-2025, "
            "livecodebench-v5, livecodebench-v6 from the hub, or NAME:FILE from a file; or "
            "hf:OWNER/NAME."
        ),
    ] = "pocket",
    strategies: Annotated[
        str,
        typer.Option(
            help="Separated by commas. single: one worker; vote: several apart, the answer that "
            "most give; first: several apart, whoever is done first; skeleton: an outline, then "
            "its points at once; hogwild: a team; unchecked: a team that is not asked about "
            "redundant work."
        ),
    ] = "single,vote,hogwild",
    workers: Annotated[str, typer.Option(help="Team sizes, separated by commas.")] = "2,4",
    layouts: Annotated[
        str, typer.Option(help="Of hogwild: combined, interleaved, contiguous.")
    ] = "combined",
    budgets: Annotated[
        str | None,
        typer.Option(
            help="Forward passes after each of which an answer is wanted, separated by commas.",
            show_default=f"{SHORT} for the pocket model, else {LONG}",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="The most problems.", show_default="100 for pocket, else all"),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="How often each problem is tried, with other seeds.")
    ] = 1,
    model: Annotated[
        str, typer.Option(help="A model's folder or hub name; or pocket, which ships inside.")
    ] = "pocket",
    question: Annotated[
        str | None,
        typer.Option(help="In data of your own: the field asked.", show_default="usual names"),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(help="The field with what is right.", show_default="usual names"),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="Who marks data of your own: number, math, choice, exact, list, olympiad or code.",
            show_default="number for numbers, list for lists, else exact",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    in_flight: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 64,
) -> None:
    """Compare a team with its alternatives: right answers against forward passes.

    Example: hogwild eval --out runs/pocket

    Your own data and model: hogwild eval --dataset mine.jsonl --model path/or/name --out runs/mine
    """
    usual = SHORT if model == "pocket" else LONG
    wanted = numbers_of(budgets or usual, "--budgets")
    teams = numbers_of(workers, "--workers")
    with failures():
        from hogwild_agents.evaluation.datasets import load
        from hogwild_agents.evaluation.evaluations import evaluate as run
        from hogwild_agents.evaluation.sessions import Setting
        from hogwild_agents.evaluation.strategies import strategies_of

        _require_extra()
        chosen = strategies_of(words_of(strategies), teams, words_of(layouts))
        loaded = load(
            dataset,
            limit=limit,
            fields={
                name: field
                for name, field in (("question", question), ("answer", answer))
                if field is not None
            },
            scorer=scorer,
        )
        _tell_malformed(loaded)
        total = len(loaded.problems) * len(chosen) * seeds
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials, {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=errors,
        ) as progress:
            task = progress.add_task(f"Evaluating {dataset}", total=total, rate="")

            def advance() -> None:
                progress.advance(task)
                speed = progress.tasks[0].speed
                progress.update(task, rate=f"{speed:.1f}/s" if speed else "")

            try:
                done = run(
                    loaded.problems,
                    chosen,
                    out,
                    setting=Setting(model, device, dtype),
                    budgets=wanted,
                    seeds=range(seeds),
                    data=dataset,
                    in_flight=in_flight,
                    advance=advance,
                )
            except KeyboardInterrupt:
                progress.stop()
                complain(f"Stopped. The same command goes on; what is done is in {out}.")
                raise typer.Exit(STOPPED) from None
        _print_table(done)
        console.print(f"Report: {done.report()}")


def _require_extra() -> None:
    """Raises EvaluationError where what draws the report is missing: before the work, not after."""
    from hogwild_agents.errors import EvaluationError

    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise EvaluationError(
            f"The report needs {' and '.join(missing)}: pip install 'hogwild-agents[eval]'"
        )


def _tell_malformed(loaded: Loaded) -> None:
    for row in loaded.malformed[:MOST_SHOWN]:
        errors.print(f"[yellow]Skipped {escape(str(row))}[/yellow]")
    if len(loaded.malformed) > MOST_SHOWN:
        errors.print(f"[yellow]... and {len(loaded.malformed) - MOST_SHOWN:,} more rows.[/yellow]")


def _print_table(done: Evaluation) -> None:
    """Right answers by strategy and budget, with intervals."""
    analysis = done.analysis()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("passes", justify="right")
    for name in analysis.strategies:
        table.add_column(name, justify="right")
    cells: dict[int, list[str]] = {budget: [] for budget in analysis.budgets}
    for row in analysis.summaries:
        value, low, high = (100 * number for number in row.accuracy)
        interval = f" [dim]({low:.0f}-{high:.0f})[/dim]" if row.accuracy.known else ""
        cells[row.budget].append(f"{value:.0f}{interval}")
    for budget, shown in cells.items():
        table.add_row(f"{budget:,}", *shown)
    console.print("Mean score in %, with 95 % confidence intervals:")
    console.print(table)
    failed = sum(record.error is not None for record in done.records)
    if failed:
        errors.print(f"[yellow]{failed:,} of {len(done.records):,} records are errors.[/yellow]")
