"""A whole evaluation: runs strategies on problems, and keeps the results in a folder."""

from __future__ import annotations

import asyncio
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import transformers

import hogwild_agents
from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation import scoring
from hogwild_agents.evaluation.problems import Problem, digest_of
from hogwild_agents.evaluation.records import Record, Transcript
from hogwild_agents.evaluation.runs import IN_FLIGHT, RunFolder, run_trials, trials_of
from hogwild_agents.evaluation.sessions import Setting
from hogwild_agents.evaluation.strategies import Strategy
from hogwild_agents.registry import resolve_source

if TYPE_CHECKING:
    from hogwild_agents.evaluation.statistics import Analysis

T = TypeVar("T")

BUDGETS = (32, 64, 96, 128, 192, 256)
"""Suits the pocket model; other models think for longer."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        folder: The run's folder.
        records: One for each problem, strategy, seed and budget.
        transcripts: One for each problem, strategy and seed.
        strategies: Names, in the order in which they were given.
        about: How the run was made, for reports.
    """

    folder: Path
    records: tuple[Record, ...]
    transcripts: tuple[Transcript, ...]
    strategies: tuple[str, ...]
    about: Mapping[str, Any]

    def analysis(self) -> Analysis:
        """Means with confidence intervals, and comparisons."""
        from hogwild_agents.evaluation.statistics import Analysis

        return Analysis(self.records, strategies=self.strategies)

    def report(self) -> Path:
        """Writes the page, the charts and the tables into the folder; returns the page.

        Raises:
            EvaluationError: There are no records.
            ImportError: jinja2 is not installed.
        """
        from hogwild_agents.evaluation.report import write_report

        return write_report(
            self.folder,
            self.records,
            self.transcripts,
            self.about,
            strategies=self.strategies,
        )


def evaluate(
    problems: Sequence[Problem],
    strategies: Sequence[Strategy],
    out: str | Path,
    *,
    setting: Setting | None = None,
    budgets: Sequence[int] = BUDGETS,
    seeds: Sequence[int] = (0,),
    data: str = "own problems",
    in_flight: int = IN_FLIGHT,
    advance: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Runs strategies on problems and keeps everything on disk; continues a run that was stopped.

    Args:
        problems: The problems to solve.
        strategies: The ways to solve them.
        out: The run's folder.
        setting: The model; the pocket model if None.
        budgets: Forward passes; every strategy answers within each of them.
        seeds: Each problem is solved once with every seed.
        data: Name of the problems in the report.
        in_flight: How many trials run at the same time.
        advance: Called for every trial that is done.

    Raises:
        EvaluationError: The arguments are invalid, or the folder holds another run.
        ModelLoadError: There is no such model.
        InvalidTeamError: The model cannot form such a team.
    """
    return run_in_loop(
        aevaluate(
            problems,
            strategies,
            out,
            setting=setting,
            budgets=budgets,
            seeds=seeds,
            data=data,
            in_flight=in_flight,
            advance=advance,
        )
    )


async def aevaluate(
    problems: Sequence[Problem],
    strategies: Sequence[Strategy],
    out: str | Path,
    *,
    setting: Setting | None = None,
    budgets: Sequence[int] = BUDGETS,
    seeds: Sequence[int] = (0,),
    data: str = "own problems",
    in_flight: int = IN_FLIGHT,
    advance: Callable[[], object] = lambda: None,
) -> Evaluation:
    """See `evaluate`."""
    setting = setting or Setting()
    budgets = sorted({*budgets})
    _require_valid(problems, strategies, budgets, seeds)
    scoring.check(problem.scorer for problem in problems)
    for strategy in strategies:
        await asyncio.to_thread(strategy.check, setting)
    names = tuple(strategy.name for strategy in strategies)
    config = {
        "data": data,
        "problems": [problem.id for problem in problems],
        "questions and truths": digest_of(problems),
        "model": resolve_source(setting.model),
        "device": setting.device or "auto",
        "dtype": setting.dtype,
        "strategies": names,
        "options": {name: repr(value) for name, value in sorted(setting.options.items())},
        "budgets": budgets,
        "seeds": list(seeds),
    }
    trials = trials_of(problems, strategies, seeds)
    engine = await asyncio.to_thread(lambda: setting.engine)  # may take long, or fail
    folder = RunFolder(Path(out), config)
    await run_trials(setting, trials, budgets, scoring.mark, folder, advance, in_flight)
    about = {
        "model": setting.model,
        "dataset": f"{data}, {len(problems):,} problems",
        "seeds": ", ".join(map(str, seeds)),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": _machine(engine.model.device),
        "command": shlex.join(sys.argv),
        "versions": f"hogwild_agents {hogwild_agents.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}",
    }
    order = {problem.id: number for number, problem in enumerate(problems)}

    def place(item: Record | Transcript) -> tuple[Any, ...]:
        return order[item.problem], *item.key[1:]

    return Evaluation(
        folder.folder,
        tuple(sorted(folder.records, key=place)),
        tuple(sorted(folder.transcripts, key=place)),
        names,
        about,
    )


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a new event loop, even if one is already running, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def _require_valid(
    problems: Sequence[Problem],
    strategies: Sequence[Strategy],
    budgets: Sequence[int],
    seeds: Sequence[int],
) -> None:
    for what, values in (
        ("problems", problems),
        ("strategies", strategies),
        ("budgets", budgets),
        ("seeds", seeds),
    ):
        if not values:
            raise EvaluationError(f"There are no {what}: give at least one.")
    for strategy in strategies:
        if not all(hasattr(strategy, attribute) for attribute in ("name", "check", "run")):
            raise EvaluationError(
                f"{strategy!r} is not a strategy: wrap a runnable in Chain(...), and turn names "
                "into strategies with strategies_of([...])."
            )
    if budgets[0] < 1:
        raise EvaluationError(f"The budget {budgets[0]} is too small: give 1 forward pass or more.")
    for what, names in (
        ("problem", [problem.id for problem in problems]),
        ("strategy", [strategy.name for strategy in strategies]),
        ("seed", [*map(str, seeds)]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                raise EvaluationError(
                    f"The {what} {name!r} occurs {count} times: give each {what} once."
                )


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)"
