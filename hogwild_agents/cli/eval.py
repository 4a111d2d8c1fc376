"""`hogwild eval`: compares a team with its alternatives on a data set."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from hogwild_agents.cli.options import (
    device_option,
    dtype_option,
    model_option,
    parse_choices,
    parse_numbers,
    parse_with,
    parse_words,
)
from hogwild_agents.cli.output import (
    INTERRUPTED,
    exit_on_error,
    print_error,
    print_warning,
    stderr,
    stdout,
)
from hogwild_agents.errors import EvaluationError
from hogwild_agents.names import POCKET, LayoutName

if TYPE_CHECKING:
    from hogwild_agents.evaluation.datasets import Dataset
    from hogwild_agents.evaluation.evaluations import Evaluation

SHORT, LONG = "32,64,96,128,192,256", "512,1024,2048,4096,8192"
"""Budgets for the pocket model, and for models that think at length."""

MAX_MALFORMED_SHOWN = 5
"""Malformed rows that are named one by one."""


@click.command("eval")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for records and the report. If it holds a run that was stopped, the run "
    "continues.",
)
@click.option(
    "--dataset",
    default="pocket",
    show_default=True,
    help="The problems: pocket (no download); your own file (.jsonl, .json, .csv, .tsv, .parquet); "
    "gsm8k, gsm8k-x5, limo, olympiadbench, math-500, aime-2024, aime-2025, livecodebench-v5 or "
    "livecodebench-v6 from the Hugging Face hub, or NAME:FILE from a file; or any data set of the "
    "hub as hf:OWNER/NAME.",
)
@click.option(
    "--strategies",
    default="single,vote,hogwild",
    show_default=True,
    callback=parse_with(parse_words),
    help="Ways to solve a problem, separated by commas. single: one worker; vote: several workers "
    "apart, and the answer that most of them give; first: several workers apart, and the answer of "
    "the fastest; skeleton: an outline first, then all of its points at once; hogwild: a team; "
    "unchecked: a team that is not asked about redundant work.",
)
@click.option(
    "--workers",
    default="2,4",
    show_default=True,
    callback=parse_with(parse_numbers),
    help="Team sizes, separated by commas.",
)
@click.option(
    "--layouts",
    default="combined",
    show_default=True,
    callback=parse_with(lambda text: parse_choices(text, get_args(LayoutName))),
    help=f"Layouts of hogwild teams, separated by commas: {', '.join(get_args(LayoutName))}.",
)
@click.option(
    "--budgets",
    callback=parse_with(parse_numbers),
    show_default=f"{SHORT} for pocket, {LONG} for others",
    help="Forward passes after which an answer is taken, separated by commas.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    show_default="100 for pocket, else all",
    help="The most problems to use.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How often each problem is solved, each time with another seed.",
)
@model_option
@click.option(
    "--question",
    show_default="common names",
    help="For your own data: the field with the question.",
)
@click.option(
    "--answer",
    show_default="common names",
    help="For your own data: the field with the right answer.",
)
@click.option(
    "--scorer",
    show_default="number for numbers, list for lists, else exact",
    help="For your own data: how answers are marked. number, math, choice, exact, list, olympiad "
    "or code.",
)
@device_option
@dtype_option
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="How many problems are solved at the same time.",
)
def evaluate(
    out: Path,
    dataset: str,
    strategies: list[str],
    workers: list[int],
    layouts: list[str],
    budgets: list[int] | None,
    limit: int | None,
    seeds: int,
    model: str,
    question: str | None,
    answer: str | None,
    scorer: str | None,
    device: str | None,
    dtype: str,
    in_flight: int,
) -> None:
    """Compare the answers of a team with those of its alternatives.

    Prints the share of right answers after each number of forward passes, and writes a report. If a
    run was stopped, the same command continues it.

    Example: hogwild eval --out runs/pocket

    Example: hogwild eval --dataset mine.jsonl --model path/or/hub-name --out runs/mine
    """
    budgets = budgets or parse_numbers(SHORT if model == POCKET else LONG)
    with exit_on_error():
        _require_extra()
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from hogwild_agents.evaluation.datasets import load
        from hogwild_agents.evaluation.evaluations import evaluate as run
        from hogwild_agents.evaluation.sessions import Setting
        from hogwild_agents.evaluation.strategies import strategies_of

        chosen = strategies_of(strategies, workers, layouts)
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
        _print_malformed(loaded)
        total = len(loaded.problems) * len(chosen) * seeds
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials, {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=stderr,
        ) as progress:
            task = progress.add_task(f"Evaluating {dataset}", total=total, rate="")

            def advance() -> None:
                progress.advance(task)
                speed = progress.tasks[0].speed
                progress.update(task, rate=f"{speed:.1f}/s" if speed else "")

            try:
                evaluation = run(
                    loaded.problems,
                    chosen,
                    out,
                    setting=Setting(model, device, dtype),
                    budgets=budgets,
                    seeds=range(seeds),
                    data=dataset,
                    in_flight=in_flight,
                    advance=advance,
                )
            except KeyboardInterrupt:
                progress.stop()
                print_error(f"Stopped. What is done is in {out}; the same command goes on.")
                raise SystemExit(INTERRUPTED) from None
        _print_table(evaluation)
        stdout.print(f"Report: {evaluation.report()}")


def _require_extra() -> None:
    """Raises EvaluationError before the work if a package is missing that the report needs."""
    if find_spec("jinja2") is None:
        raise EvaluationError("The report needs jinja2: pip install 'hogwild-agents[eval]'")


def _print_malformed(dataset: Dataset) -> None:
    for row in dataset.malformed[:MAX_MALFORMED_SHOWN]:
        print_warning(f"Skipped {row}")
    if len(dataset.malformed) > MAX_MALFORMED_SHOWN:
        print_warning(f"... and {len(dataset.malformed) - MAX_MALFORMED_SHOWN:,} more rows.")


def _print_table(evaluation: Evaluation) -> None:
    """Prints mean scores by strategy and budget, with confidence intervals."""
    from rich.table import Table

    analysis = evaluation.analysis()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("passes", justify="right")
    for name in analysis.strategies:
        table.add_column(name, justify="right")
    cells: dict[int, list[str]] = {budget: [] for budget in analysis.budgets}
    for row in analysis.summaries:
        value, low, high = (100 * number for number in row.accuracy)
        interval = f" [dim]({low:.0f}-{high:.0f})[/dim]" if row.accuracy.known else ""
        cells[row.budget].append(f"{value:.0f}{interval}")
    for budget, row_cells in cells.items():
        table.add_row(f"{budget:,}", *row_cells)
    stdout.print("Mean score in %, with 95 % confidence intervals:")
    stdout.print(table)
    failed = sum(record.error is not None for record in evaluation.records)
    if failed:
        print_warning(f"{failed:,} of {len(evaluation.records):,} records are errors.")
