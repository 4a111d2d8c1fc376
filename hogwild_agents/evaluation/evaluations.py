"""An evaluation from beginning to end: problems, strategies, and a folder with what came of it."""

from __future__ import annotations

import asyncio
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

BUDGETS = (32, 64, 96, 128, 192, 256)
"""That suit the model that ships inside; others think for longer."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        folder: Where it lies.
        records: One for each problem, strategy, seed and budget.
        transcripts: One for each problem, strategy and seed.
        strategies: Names, in the order in which they were asked for.
        about: How it was made, for reports.
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
        """Writes the page, its pictures and the tables; returns the page.

        Raises:
            EvaluationError: There is nothing to report, or matplotlib is not installed (all but the
                pictures is written then).
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
    data: str = "problems of one's own",
    in_flight: int = IN_FLIGHT,
    advance: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Runs strategies on problems, or goes on with such a run, and keeps all on disk.

    Args:
        problems: What is asked.
        strategies: How.
        out: The run's folder.
        setting: The model; the one that ships inside if None.
        budgets: Forward passes after each of which an answer is wanted.
        seeds: Each problem is tried with every one.
        data: What the problems are called in the report.
        in_flight: Trials at a time.
        advance: Called for every trial that is done.

    Raises:
        EvaluationError: The arguments make no sense, or the folder holds another run.
        ModelLoadError: There is no such model.
        InvalidTeamError: It cannot be such a team.
    """
    result: Evaluation = run_anywhere(
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
    return result


async def aevaluate(
    problems: Sequence[Problem],
    strategies: Sequence[Strategy],
    out: str | Path,
    *,
    setting: Setting | None = None,
    budgets: Sequence[int] = BUDGETS,
    seeds: Sequence[int] = (0,),
    data: str = "problems of one's own",
    in_flight: int = IN_FLIGHT,
    advance: Callable[[], object] = lambda: None,
) -> Evaluation:
    """See `evaluate`."""
    setting = setting or Setting()
    wanted = sorted({*budgets})
    _require_sense(problems, strategies, wanted, seeds)
    scoring.check(problem.scorer for problem in problems)
    for strategy in strategies:
        await asyncio.to_thread(strategy.check, setting)
    names = tuple(strategy.name for strategy in strategies)
    config = {
        "data": data,
        "problems": [problem.id for problem in problems],
        "questions and truths": digest_of(problems),
        "model": resolve_source(setting.model),
        "device": setting.device or "chosen by itself",
        "dtype": setting.dtype,
        "strategies": names,
        "options": {name: repr(value) for name, value in sorted(setting.options.items())},
        "budgets": wanted,
        "seeds": list(seeds),
    }
    trials = trials_of(problems, strategies, seeds)
    engine = await asyncio.to_thread(lambda: setting.engine)  # loading takes long, and may fail
    folder = RunFolder(Path(out), config)
    await run_trials(setting, trials, wanted, scoring.mark, folder, advance, in_flight)
    about = {
        "model": setting.model,
        "dataset": f"{data}, {len(problems):,} problems",
        "seeds": ", ".join(map(str, seeds)),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": _device(engine.model.device),
        "command": shlex.join(sys.argv),
        "versions": f"hogwild_agents {hogwild_agents.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}",
    }
    order = {problem.id: number for number, problem in enumerate(problems)}
    return Evaluation(
        folder.folder,
        tuple(sorted(folder.records, key=lambda one: (order[one.problem], *one.key[1:]))),
        tuple(
            sorted(folder.transcripts, key=lambda one: (order[one.problem], one.strategy, one.seed))
        ),
        names,
        about,
    )


def run_anywhere(work: Any) -> Any:
    """Runs a coroutine to its end, also where an event loop runs already, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _require_sense(
    problems: Sequence[Problem],
    strategies: Sequence[Strategy],
    budgets: Sequence[int],
    seeds: Sequence[int],
) -> None:
    for what, given in (
        ("problems", problems),
        ("strategies", strategies),
        ("budgets", budgets),
        ("seeds", seeds),
    ):
        if not given:
            raise EvaluationError(f"There are no {what}: give at least one.")
    for strategy in strategies:
        if not all(hasattr(strategy, part) for part in ("name", "check", "run")):
            raise EvaluationError(
                f"{strategy!r} is no strategy: wrap a runnable in Chain(...), and make strategies "
                "of names with strategies_of([...])."
            )
    if budgets[0] < 1:
        raise EvaluationError(f"A budget of {budgets[0]} forward passes: give 1 or more.")
    for what, names in (
        ("problem", [problem.id for problem in problems]),
        ("strategy", [strategy.name for strategy in strategies]),
        ("seed", [*map(str, seeds)]),
    ):
        twice = [name for number, name in enumerate(names) if name in names[:number]]
        if twice:
            raise EvaluationError(f"The {what} {twice[0]!r} is there twice: records would mix.")


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)"
