"""Measures the pocket model: `python -m hogwild_agents.pocket.evaluate`.

All figures come from greedy sessions of the real engine, on task lists and conversations that do
not occur in training. No grammar helps with calls and structures.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
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
from hogwild_agents.pocket.judge import JudgedReply, JudgedSession, claimed, read_steps
from hogwild_agents.pocket.tasks import TaskList, make_task_list
from hogwild_agents.pocket.training.dialogues import Dialogue, DialogueKind, dialogues
from hogwild_agents.pocket.training.teacher import FORCED
from hogwild_agents.team import RedundancyCheck, Team
from hogwild_agents.team.interrupts import Interrupt, InterruptContext
from hogwild_agents.team.layouts import Layout, TeamBlocks, Views


@dataclass(frozen=True, slots=True)
class Provoke:
    """An interrupt that makes workers claim tasks: taken and free ones with equal chances."""

    seed: int
    share: float = 0.5

    def __call__(self, context: InterruptContext) -> str | None:
        """Returns for example `I take (b). ` in a share of all steps, else None."""
        rng = random.Random(f"{self.seed} {context.problem} {context.worker} {context.index}")
        labels = re.findall(r"^\(([a-h])\) ", str(context.problem), re.MULTILINE)
        own = [step for step in context.history if getattr(step, "worker", "") == context.worker]
        own_labels = {label for step in own for label in claimed(step.text)}
        taken = {label for step in context.history for label in claimed(step.text)}
        taken |= {label for text in context.others.values() for label in claimed(text)}
        taken -= own_labels
        free = [label for label in labels if label not in own_labels | taken]
        choices = [sorted(group) for group in (taken, free) if group]
        if not choices or rng.random() >= self.share:
            return None
        return FORCED.format(rng.choice(rng.choice(choices)))


def _hidden(blocks: TeamBlocks) -> Views:
    return [
        [*blocks.common, *(p for p in blocks.pauses if p is not blocks.pauses[place]), own]
        for place, own in enumerate(blocks.work)
    ]


HIDDEN = Layout("others hidden", _hidden, commits=False)
"""The contiguous layout without the others' work. We tried four ways to hide the others; the model
does best in this one."""


class TaskRow(NamedTuple):
    """Figures of one team on task lists.

    Attributes:
        team: Its name.
        workers: Its size.
        sessions: Number of task lists.
        tasks_right: Share of the tasks that were answered right.
        lists_right: Share of the lists whose tasks were all answered right.
        passes: Mean number of forward passes per list.
        ratio: The same as a share of what one worker needs.
        repeated: Share of the tasks that were worked out again.
        asked_yes: Number of checks of redundant work.
        true_yes: Share of these that were answered yes; None if there were none.
        asked_no: Number of checks of work that was not redundant.
        true_no: Share of these that were answered no; None if there were none.
    """

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
    engine: Engine, team: Team, task_lists: Sequence[TaskList], advance: Callable[[], None]
) -> list[JudgedSession]:
    """Solves all lists, as many at once as the engine has room for; calls `advance` after each."""
    handles = [engine.submit(team.session(task_list.text)) for task_list in task_lists]
    sessions = []
    for task_list, handle in zip(task_lists, handles, strict=True):
        steps = read_steps(handle, team.workers)
        sessions.append(JudgedSession(task_list, handle.result(), steps))
        advance()
    return sessions


def summarize(name: str, sessions: Sequence[JudgedSession], alone: float | None) -> TaskRow:
    """One row of the table; `alone` is the mean number of passes of one worker."""
    passes = mean(session.result.passes + session.result.reply_passes for session in sessions)
    checks = [check for session in sessions for check in session.checks]
    yes = [check.answer is True for check in checks if check.redundant]
    no = [check.answer is False for check in checks if not check.redundant]
    tasks = sum(len(session.task_list.tasks) for session in sessions)
    return TaskRow(
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
    folder: Path, task_lists: Sequence[TaskList], advance: Callable[[], None]
) -> Iterator[TaskRow]:
    """Runs every team on all lists, one worker first."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    alone: float | None = None
    with Engine(SharedCacheModel.from_pretrained(folder, device="cpu", dtype="float32")) as engine:
        for name, settings in teams():
            team = Team(tokenizer, **team_settings(settings["workers"]) | settings)
            row = summarize(name, run_sessions(engine, team, task_lists, advance), alone)
            alone = alone or row.passes
            yield row


def teams() -> list[tuple[str, dict[str, Any]]]:
    """The teams that are measured: for each a name, and settings of `Team`."""
    rows: list[tuple[str, dict[str, Any]]] = [("one worker", {"workers": 1})]
    rows += [("combined", {"workers": workers}) for workers in (2, 3, 4)]
    rows += [
        (layout, {"workers": workers, "layout": layout})
        for layout in ("contiguous", "interleaved")
        for workers in (2, 4)
    ]
    provoked: list[Interrupt] = [Provoke(seed=0), RedundancyCheck(every=1)]
    rows += [
        ("combined, provoked", {"workers": workers, "interrupts": provoked}) for workers in (2, 4)
    ]
    hidden = {"workers": 2, "layout": HIDDEN, "interrupts": []}
    return [*rows, (HIDDEN.name, hidden)]


# Tools and structures.

KINDS: tuple[DialogueKind, ...] = ("call", "result", "structured")
"""The kinds of conversations that are measured."""

SIZES = (1, 2, 4)
"""The numbers of workers that are measured."""


class CallRow(NamedTuple):
    """Figures of one team in conversations about tools and structures.

    Attributes:
        workers: Its size.
        conversations: Number of conversations of each kind.
        named: Share of the calls that call the right tool.
        arguments: Share of the calls that are right, arguments included.
        results: Share of the tools' results that were passed on right.
        structures: Share of the structures that are right.
        passes: Mean number of forward passes per conversation of any kind.
    """

    workers: int
    conversations: int
    named: float
    arguments: float
    results: float
    structures: float
    passes: float


def run_dialogues(
    engine: Engine, team: Team, conversations: Sequence[Dialogue], advance: Callable[[], None]
) -> list[JudgedReply]:
    """Replies in all conversations, as many at once as the engine has room for."""
    handles = [
        engine.submit(team.session(dialogue.messages, tools=dialogue.tools))
        for dialogue in conversations
    ]
    replies = []
    for dialogue, handle in zip(conversations, handles, strict=True):
        replies.append(JudgedReply(dialogue.kind, dialogue.text, handle.result()))
        advance()
    return replies


def summarize_calls(replies: Sequence[JudgedReply]) -> CallRow:
    """One row of the table; there must be a reply of each kind."""
    calls, results, structures = (
        [reply for reply in replies if reply.kind == kind] for kind in KINDS
    )
    return CallRow(
        len(replies[0].result.workers),
        len(calls),
        mean(reply.named for reply in calls),
        mean(reply.right for reply in calls),
        mean(reply.right for reply in results),
        mean(reply.right for reply in structures),
        mean(reply.result.passes + reply.result.reply_passes for reply in replies),
    )


def measure_calls(folder: Path, count: int, advance: Callable[[], None]) -> Iterator[CallRow]:
    """Runs teams of all `SIZES` on `count` conversations of each kind."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversations = [
        dialogue for kind in KINDS for dialogue in islice(dialogues("evaluation", kind), count)
    ]
    with Engine(SharedCacheModel.from_pretrained(folder, device="cpu", dtype="float32")) as engine:
        for workers in SIZES:
            settings = team_settings(workers) | {"finisher": "reply", "reply_tokens": 256}
            team = Team(tokenizer, **settings)
            yield summarize_calls(run_dialogues(engine, team, conversations, advance))


# The command.


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of a trained model.", show_default="the model that ships inside"
        ),
    ] = FOLDER,
    problems: Annotated[int, typer.Option(min=1, help="Number of task lists.")] = 200,
    size: Annotated[int, typer.Option(min=1, max=8, help="Tasks in each list.")] = 6,
    calls: Annotated[
        int, typer.Option(min=1, help="Number of conversations about tools, of each kind.")
    ] = 200,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows to this file.")
    ] = None,
) -> None:
    """Measure the pocket model on tasks and conversations that do not occur in its training.

    Prints two tables: how often teams of all sizes and layouts solve lists of tasks, and in how
    many forward passes; and how often they call tools and write JSON as asked. The full run takes
    some minutes on a CPU.

    A quick look: python -m hogwild_agents.pocket.evaluate --problems 10 --calls 5
    """
    console = Console()
    task_lists = [make_task_list(seed, size) for seed in range(problems)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rows: list[TaskRow] = []
    call_rows: list[CallRow] = []
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        total = problems * len(teams()) + calls * len(KINDS) * len(SIZES)
        task = progress.add_task("Sessions", total=total)
        for row in measure(folder, task_lists, lambda: progress.advance(task)):
            figures = f"{row.tasks_right:.1%} right in {row.passes:.1f} passes"
            progress.console.print(f"{row.team} ({row.workers}): {figures}")
            rows.append(row)
        for call_row in measure_calls(folder, calls, lambda: progress.advance(task)):
            figures = f"{call_row.arguments:.1%} right in {call_row.passes:.1f} passes"
            progress.console.print(f"calls ({call_row.workers}): {figures}")
            call_rows.append(call_row)
    console.print(_table(rows, size))
    console.print()
    console.print(_call_table(call_rows))
    if json_file is not None:
        tables = {
            "tasks": [row._asdict() for row in rows],
            "calls": [row._asdict() for row in call_rows],
        }
        json_file.write_text(json.dumps(tables, indent=1) + "\n")


def _table(rows: Sequence[TaskRow], size: int) -> Table:
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


def _call_table(rows: Sequence[CallRow]) -> Table:
    title = f"{rows[0].conversations} unseen conversations of each kind, greedy, without a grammar"
    table = Table(title=title, box=None)
    for heading in ("workers", "calls named right", "arguments right", "results passed on"):
        table.add_column(heading, justify="right")
    for heading in ("structures right", "passes"):
        table.add_column(heading, justify="right")
    for row in rows:
        shares = (row.named, row.arguments, row.results, row.structures)
        table.add_row(str(row.workers), *(f"{share:.1%}" for share in shares), f"{row.passes:.1f}")
    return table


if __name__ == "__main__":
    typer.run(evaluate)
