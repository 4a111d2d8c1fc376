"""Measures the pocket model: `python -m hogwild_agents.pocket.evaluate`.

Everything is counted in free-running, greedy sessions of the real engine, on problems that no
training has seen.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import AutoTokenizer

from hogwild_agents.engine import Engine, SharedCacheModel
from hogwild_agents.pocket import FOLDER, team_settings
from hogwild_agents.pocket.judge import Session, claimed, read_steps
from hogwild_agents.pocket.tasks import Problem, make_problem
from hogwild_agents.pocket.teacher import FORCED
from hogwild_agents.team import RedundancyCheck, Team
from hogwild_agents.team.interrupts import Interrupt, Sight
from hogwild_agents.team.layouts import Layout, TeamBlocks, Views


@dataclass(frozen=True, slots=True)
class Provoke:
    """An interrupt that makes workers claim tasks, as often taken ones as free ones."""

    seed: int
    share: float = 0.5

    def __call__(self, sight: Sight) -> str | None:
        """`I take (b). ` in a share of all steps."""
        rng = random.Random(f"{self.seed} {sight.problem} {sight.worker} {sight.index}")
        labels = re.findall(r"^\(([a-h])\) ", str(sight.problem), re.MULTILINE)
        own = [step for step in sight.history if getattr(step, "worker", "") == sight.worker]
        mine = {label for step in own for label in claimed(step.text)}
        theirs = {label for step in sight.history for label in claimed(step.text)} - mine
        theirs |= {label for text in sight.others.values() for label in claimed(text)} - mine
        free = [label for label in labels if label not in mine | theirs]
        choices = [sorted(some) for some in (theirs, free) if some]
        if not choices or rng.random() >= self.share:
            return None
        return FORCED.format(rng.choice(rng.choice(choices)))


def _hidden(blocks: TeamBlocks) -> Views:
    return [
        [*blocks.common, *(p for p in blocks.pauses if p is not blocks.pauses[place]), own]
        for place, own in enumerate(blocks.work)
    ]


HIDDEN = Layout("others hidden", _hidden, commits=False)
"""The contiguous layout with nothing in the others' places: of four ways to hide the others that we
tried, the one in which the model does best."""


class Row(NamedTuple):
    """What one team did; shares are of tasks or checks, passes are means over the problems."""

    team: str
    workers: int
    sessions: int
    tasks_right: float
    lists_right: float
    passes: float
    ratio: float
    repeated: float
    asked_yes: int
    true_yes: float | None
    asked_no: int
    true_no: float | None


def run_sessions(
    engine: Engine, team: Team, problems: Sequence[Problem], advance: Callable[[], None]
) -> list[Session]:
    """Solves all problems, as many at once as the engine has room for."""
    handles = [engine.submit(team.session(problem.text)) for problem in problems]
    sessions = []
    for problem, handle in zip(problems, handles, strict=True):
        steps = read_steps(handle, team.workers)
        sessions.append(Session(problem, handle.result(), steps))
        advance()
    return sessions


def summarize(name: str, sessions: Sequence[Session], alone: float | None) -> Row:
    """One row of the table; `alone` is the mean number of passes of one worker."""
    passes = mean(session.result.passes + session.result.reply_passes for session in sessions)
    checks = [check for session in sessions for check in session.checks]
    yes = [check.said is True for check in checks if check.truth]
    no = [check.said is False for check in checks if not check.truth]
    tasks = sum(len(session.problem.tasks) for session in sessions)
    return Row(
        name,
        len(sessions[0].result.workers),
        len(sessions),
        mean(session.right for session in sessions),
        mean(session.right == 1 for session in sessions),
        passes,
        passes / (alone or passes),
        sum(session.repeated for session in sessions) / tasks,
        len(yes),
        mean(yes) if yes else None,
        len(no),
        mean(no) if no else None,
    )


def measure(
    folder: Path, problems: Sequence[Problem], advance: Callable[[], None]
) -> Iterator[Row]:
    """Runs every team on all problems, one worker first."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    alone: float | None = None
    with Engine(SharedCacheModel.from_pretrained(folder, device="cpu", dtype="float32")) as engine:
        for name, settings in teams():
            team = Team(tokenizer, **team_settings(settings["workers"]) | settings)
            row = summarize(name, run_sessions(engine, team, problems, advance), alone)
            alone = alone or row.passes
            yield row


def teams() -> list[tuple[str, dict[str, Any]]]:
    """The teams that are measured: a name, and settings of `Team` for each."""
    found: list[tuple[str, dict[str, Any]]] = [("one worker", {"workers": 1})]
    found += [("combined", {"workers": workers}) for workers in (2, 3, 4)]
    found += [
        (layout, {"workers": workers, "layout": layout})
        for layout in ("contiguous", "interleaved")
        for workers in (2, 4)
    ]
    provoked: list[Interrupt] = [Provoke(seed=0), RedundancyCheck(every=1)]
    found += [
        ("combined, provoked", {"workers": workers, "interrupts": provoked}) for workers in (2, 4)
    ]
    hidden = {"workers": 2, "layout": HIDDEN, "interrupts": []}
    return [*found, (HIDDEN.name, hidden)]


def evaluate(
    folder: Annotated[Path, typer.Argument(help="The trained model; the shipped one.")] = FOLDER,
    problems: Annotated[int, typer.Option(min=1, help="How many problems.")] = 200,
    size: Annotated[int, typer.Option(min=1, max=8, help="Tasks in each.")] = 6,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows to this file.")
    ] = None,
) -> None:
    """Measure the pocket model on problems that no training has seen, and print a table."""
    console = Console()
    given = [make_problem(seed, size) for seed in range(problems)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rows: list[Row] = []
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task("Sessions", total=problems * len(teams()))
        for row in measure(folder, given, lambda: progress.advance(task)):
            done = f"{row.tasks_right:.1%} right in {row.passes:.1f} passes"
            progress.console.print(f"{row.team} ({row.workers}): {done}")
            rows.append(row)
    console.print(_table(rows, size))
    if json_file is not None:
        json_file.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


def _table(rows: Sequence[Row], size: int) -> Table:
    table = Table(title=f"{rows[0].sessions} unseen problems of {size} tasks, greedy", box=None)
    for heading in ("team", "workers", "tasks right", "lists right", "passes", "of one worker"):
        table.add_column(heading, justify="left" if heading == "team" else "right")
    for heading in ("solved twice", "truly yes", "said yes", "truly no", "said no"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.team,
            str(row.workers),
            f"{row.tasks_right:.1%}",
            f"{row.lists_right:.1%}",
            f"{row.passes:.1f}",
            f"{row.ratio:.3f}",
            f"{row.repeated:.1%}",
            str(row.asked_yes),
            "-" if row.true_yes is None else f"{row.true_yes:.1%}",
            str(row.asked_no),
            "-" if row.true_no is None else f"{row.true_no:.1%}",
        )
    return table


if __name__ == "__main__":
    typer.run(evaluate)
