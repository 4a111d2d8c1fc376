"""Resumable runs: finished work is on disk, and the same command continues a stopped run.

A run is a folder. `config.json` holds its arguments; `records.jsonl` and `transcripts.jsonl` hold
the results, one per line. A trial (a problem, a strategy, a seed) is written once all its budgets
are answered. A line that was cut off by a kill is dropped, and its trial runs again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.records import Record, Transcript
from hogwild_agents.evaluation.sessions import Setting
from hogwild_agents.evaluation.strategies import Outcome, Strategy

CONFIG, RECORDS, TRANSCRIPTS = "config.json", "records.jsonl", "transcripts.jsonl"

IN_FLIGHT = 64
"""How many trials run at the same time by default; the engine batches their workers."""

TRANSIENT = (ConnectionError, TimeoutError)
"""Errors after which a trial is tried again."""

ATTEMPTS = 3

Mark = Callable[[Problem, str], float]
"""Scores an answer to a problem: 0 to 1."""

T = TypeVar("T", Record, Transcript)


class Trial(NamedTuple):
    """A problem, the strategy that answers it, and a seed."""

    problem: Problem
    strategy: Strategy
    seed: int

    @property
    def name(self) -> tuple[str, str, int]:
        """Identifies the trial within a run."""
        return self.problem.id, self.strategy.name, self.seed


class RunFolder:
    """The files of a run.

    Args:
        folder: Created if missing.
        config: The run's arguments, as JSON values.

    Raises:
        EvaluationError: The folder holds a run with other arguments, or something else.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        config = json.loads(json.dumps(config))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / CONFIG
        if file.exists():
            _require_equal(file, config)
        elif any(folder.glob("*.jsonl")):
            raise EvaluationError(f"{folder} holds records but no {CONFIG}: use another folder.")
        else:
            _replace(file, json.dumps(config, indent=1) + "\n")
        self.transcripts = _read(folder / TRANSCRIPTS, Transcript)
        self.records = _read(folder / RECORDS, Record)

    def drop_incomplete(self, budgets: Sequence[int]) -> set[tuple[str, str, int]]:
        """Removes trials that lack a budget or the transcript; returns the names of the others."""
        budgets_of: dict[tuple[str, str, int], set[int]] = {}
        for record in self.records:
            budgets_of.setdefault(record.key[:3], set()).add(record.budget)
        complete = {name for name, answered in budgets_of.items() if answered == {*budgets}}
        complete &= {transcript.key for transcript in self.transcripts}
        records = [record for record in self.records if record.key[:3] in complete]
        transcripts = [item for item in self.transcripts if item.key in complete]
        if len(records) < len(self.records):
            _replace(self.folder / RECORDS, "".join(map(_line, records)))
        if len(transcripts) < len(self.transcripts):
            _replace(self.folder / TRANSCRIPTS, "".join(map(_line, transcripts)))
        self.records, self.transcripts = records, transcripts
        return complete

    def add(self, records: Sequence[Record], transcript: Transcript) -> None:
        """Writes a trial to disk. The records come last: with them the trial is complete."""
        _append(self.folder / TRANSCRIPTS, _line(transcript))
        _append(self.folder / RECORDS, "".join(map(_line, records)))
        self.transcripts.append(transcript)
        self.records += records


async def run_trials(
    setting: Setting,
    trials: Sequence[Trial],
    budgets: Sequence[int],
    mark: Mark,
    folder: RunFolder,
    advance: Callable[[], object] = lambda: None,
    in_flight: int = IN_FLIGHT,
) -> None:
    """Runs the trials that are not done yet, and writes each to disk as soon as it is done.

    A trial that fails is recorded with its error and does not stop the run.

    Args:
        setting: The model.
        trials: All trials of the run.
        budgets: In ascending order.
        mark: Scores answers.
        folder: The run's files, which say which trials are done.
        advance: Called for every trial that is done, including those of an earlier run.
        in_flight: How many trials run at the same time.
    """
    done = folder.drop_incomplete(budgets)
    remaining = [trial for trial in trials if trial.name not in done]
    for _ in range(len(trials) - len(remaining)):
        advance()
    slots = asyncio.Semaphore(in_flight)

    async def run(trial: Trial) -> None:
        async with slots:
            folder.add(*await _run_trial(setting, trial, budgets, mark))
            advance()

    async with asyncio.TaskGroup() as group:
        for trial in remaining:
            group.create_task(run(trial))


async def _run_trial(
    setting: Setting, trial: Trial, budgets: Sequence[int], mark: Mark
) -> tuple[list[Record], Transcript]:
    """The records and the transcript of a trial; errors are recorded, not raised."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(TRANSIENT),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(max=10),
        reraise=True,
    )
    problem, strategy, seed = trial
    outcome, error = Outcome({}), None
    scores: dict[int, float | None] = {}
    try:
        outcome = await retrying(strategy.run, setting, problem, seed, budgets)
        scores = await asyncio.to_thread(_scores, outcome, problem, mark)
    except Exception as exception:  # noqa: BLE001  a model, a chain or a scorer may raise anything
        error = f"{type(exception).__name__}: {exception}"
    records = []
    for budget in budgets:
        result = outcome.by_budget.get(budget)
        records.append(
            Record(
                problem=problem.id,
                strategy=strategy.name,
                seed=seed,
                budget=budget,
                score=scores.get(budget),
                error=error,
                measures=outcome.measures,
                **({} if result is None else asdict(result)),
            )
        )
    transcript = Transcript(
        problem=problem.id,
        question=problem.question,
        truth=problem.truth,
        strategy=strategy.name,
        seed=seed,
        workers=outcome.workers,
        steps=outcome.steps,
        reply=outcome.reply if error is None else error,
        answer=records[-1].answer,
        score=records[-1].score,
    )
    return records, transcript


def _scores(outcome: Outcome, problem: Problem, mark: Mark) -> dict[int, float | None]:
    """Scores by budget; equal answers are marked once."""
    scores: dict[str | None, float] = {None: 0.0}
    for result in outcome.by_budget.values():
        if result.answer is not None and result.answer not in scores:
            scores[result.answer] = mark(problem, result.answer)
    return {budget: scores[result.answer] for budget, result in outcome.by_budget.items()}


# Files.


def _require_equal(file: Path, config: Mapping[str, Any]) -> None:
    try:
        stored = json.loads(file.read_text())
    except ValueError as error:
        raise EvaluationError(f"{file} is not the configuration of a run ({error}).") from error
    changes = [
        f"{name} was {stored.get(name)!r} and is {config.get(name)!r}"
        for name in sorted({*stored, *config})
        if stored.get(name) != config.get(name)
    ]
    if changes:
        raise EvaluationError(
            f"{file.parent} holds a run with other arguments: {'; '.join(changes)}. Use the same "
            "arguments to continue it, or another folder."
        )


def _line(item: Record | Transcript) -> str:
    return json.dumps(asdict(item), ensure_ascii=True) + "\n"


def _append(file: Path, lines: str) -> None:
    """Appends lines, and returns once they are on disk."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        data = lines.encode()
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(file: Path, text: str) -> None:
    """Writes a file so that a kill at any moment leaves either the old or the new content."""
    new = file.with_suffix(file.suffix + ".new")
    new.write_text(text)
    os.replace(new, file)


def _read(file: Path, kind: type[T]) -> list[T]:
    """The lines of a file; a last line that was cut off by a kill is removed.

    Raises:
        EvaluationError: Another line is invalid.
    """
    if not file.exists():
        return []
    lines = file.read_bytes().split(b"\n")
    if lines.pop():  # what follows the last newline
        with file.open("rb+") as torn:
            torn.truncate(sum(len(line) + 1 for line in lines))
    return [_parsed(line, number, file, kind) for number, line in enumerate(lines, 1)]


def _parsed(line: bytes, number: int, file: Path, kind: type[T]) -> T:
    try:
        values = json.loads(line)
        for name in {"workers", "steps"} & values.keys():
            values[name] = tuple(values[name])
        return kind(**{field.name: values[field.name] for field in fields(kind)})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{file}, line {number}, is not a {kind.__name__.lower()} ({error}): repair or remove "
            "the line."
        ) from error


def trials_of(
    problems: Iterable[Problem], strategies: Sequence[Strategy], seeds: Sequence[int]
) -> list[Trial]:
    """Every problem with every strategy and seed, problem by problem.

    So a run that is stopped has done nearly the same problems with all strategies.
    """
    return [
        Trial(problem, strategy, seed)
        for problem in problems
        for seed in seeds
        for strategy in strategies
    ]
