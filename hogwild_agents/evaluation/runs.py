"""Runs that survive: what is done is on disk, and the same command goes on where a run stopped.

A run is a folder: `config.json` says how it was asked for, `records.jsonl` and `transcripts.jsonl`
hold a line each for what is done. A trial (a problem, a strategy, a seed) is written in one piece,
when all of its budgets are answered; a line that a kill has torn is dropped, its trial run again.
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
"""Trials at a time by default: the engine packs their workers into one pass."""

TRANSIENT = (ConnectionError, TimeoutError)
"""What is tried again."""

ATTEMPTS = 3

Mark = Callable[[Problem, str], float]
"""Scores an answer to a problem: 0 to 1."""

T = TypeVar("T", Record, Transcript)


class Trial(NamedTuple):
    """A problem that a strategy is asked, with a seed."""

    problem: Problem
    strategy: Strategy
    seed: int

    @property
    def name(self) -> tuple[str, str, int]:
        """What tells it from others."""
        return self.problem.id, self.strategy.name, self.seed


class RunFolder:
    """What a run has on disk.

    Args:
        folder: Made if need be.
        config: How the run was asked for, as JSON values; a run of another kind is refused.

    Raises:
        EvaluationError: The folder holds another run, or something else.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        asked: dict[str, Any] = json.loads(json.dumps(config))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / CONFIG
        if file.exists():
            _require_equal(file, asked)
        elif any(folder.glob("*.jsonl")):
            raise EvaluationError(f"{folder} holds records but no {CONFIG}: take another folder.")
        else:
            _replace(file, json.dumps(asked, indent=1) + "\n")
        self.transcripts = _read(folder / TRANSCRIPTS, Transcript)
        self.records = _read(folder / RECORDS, Record)

    def keep_whole(self, budgets: Sequence[int]) -> set[tuple[str, str, int]]:
        """Forgets trials that are not there with all budgets; the names of those that are."""
        counted: dict[tuple[str, str, int], set[int]] = {}
        for record in self.records:
            counted.setdefault(record.key[:3], set()).add(record.budget)
        told = {(one.problem, one.strategy, one.seed) for one in self.transcripts}
        whole = {name for name, found in counted.items() if found == {*budgets}} & told
        kept = [record for record in self.records if record.key[:3] in whole]
        known = [o for o in self.transcripts if (o.problem, o.strategy, o.seed) in whole]
        if len(kept) < len(self.records):
            _replace(self.folder / RECORDS, "".join(map(_line, kept)))
        if len(known) < len(self.transcripts):
            _replace(self.folder / TRANSCRIPTS, "".join(map(_line, known)))
        self.records, self.transcripts = kept, known
        return whole

    def add(self, records: Sequence[Record], transcript: Transcript) -> None:
        """Puts a trial on disk, the records last: with them it counts as done."""
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
    """Runs what is not done yet, many trials at a time; each is on disk as soon as it is done.

    A trial that fails is recorded with its error and never stops the run.

    Args:
        setting: The model.
        trials: All of the run.
        budgets: In ascending order.
        mark: Scores answers.
        folder: Where to; it knows what is done.
        advance: Called for every trial that is done, those of an earlier run first.
        in_flight: Trials at a time.
    """
    done = folder.keep_whole(budgets)
    left = [trial for trial in trials if trial.name not in done]
    for _ in range(len(trials) - len(left)):
        advance()
    room = asyncio.Semaphore(in_flight)

    async def go(trial: Trial) -> None:
        async with room:
            folder.add(*await _try(setting, trial, budgets, mark))
            advance()

    async with asyncio.TaskGroup() as group:
        for trial in left:
            group.create_task(go(trial))


async def _try(
    setting: Setting, trial: Trial, budgets: Sequence[int], mark: Mark
) -> tuple[list[Record], Transcript]:
    """A trial's records and transcript, whatever happens."""
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
        scores = await asyncio.to_thread(_marks, outcome, problem, mark)
    except Exception as failure:  # noqa: BLE001  whatever a model, a chain or a scorer may raise
        error = f"{type(failure).__name__}: {failure}"
    records = []
    for budget in budgets:
        reached = outcome.reached.get(budget)
        known = {} if reached is None else asdict(reached)
        records.append(
            Record(
                problem=problem.id,
                strategy=strategy.name,
                seed=seed,
                budget=budget,
                score=scores.get(budget),
                error=error,
                measures=outcome.measures,
                **known,
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


def _marks(outcome: Outcome, problem: Problem, mark: Mark) -> dict[int, float | None]:
    """Scores by budget; equal answers are marked once."""
    known: dict[str | None, float] = {None: 0.0}
    for reached in outcome.reached.values():
        if reached.answer not in known:
            assert reached.answer is not None
            known[reached.answer] = mark(problem, reached.answer)
    return {budget: known[reached.answer] for budget, reached in outcome.reached.items()}


# Files.


def _require_equal(file: Path, config: dict[str, Any]) -> None:
    try:
        kept = json.loads(file.read_text())
    except ValueError as error:
        raise EvaluationError(f"{file} is no run's configuration ({error}).") from error
    changed = [
        f"{name} was {kept.get(name)!r} and is {config.get(name)!r}"
        for name in sorted({*kept, *config})
        if kept.get(name) != config.get(name)
    ]
    if changed:
        raise EvaluationError(
            f"{file.parent} holds a run that was asked for otherwise: {'; '.join(changed)}. Ask "
            "for the same to go on with it, or take another folder."
        )


def _line(kept: Record | Transcript) -> str:
    return json.dumps(asdict(kept), ensure_ascii=True) + "\n"


def _append(file: Path, lines: str) -> None:
    """Adds lines, and returns when they are on disk."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        data = lines.encode()
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(file: Path, text: str) -> None:
    """Writes a file so that a kill at any moment leaves the old one or the new one."""
    new = file.with_suffix(file.suffix + ".new")
    new.write_text(text)
    os.replace(new, file)


def _read(file: Path, kind: type[T]) -> list[T]:
    """The lines of a file; a last one that a kill has torn is cut off.

    Raises:
        EvaluationError: Another line is broken.
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
            f"{file}, line {number}, is no record of a run ({error}): mend or remove it."
        ) from error


def trials_of(
    problems: Iterable[Problem], strategies: Sequence[Strategy], seeds: Sequence[int]
) -> list[Trial]:
    """Every problem with every strategy and seed, problem by problem.

    A run that is stopped has the same problems for all strategies, but for a few.
    """
    return [
        Trial(problem, strategy, seed)
        for problem in problems
        for seed in seeds
        for strategy in strategies
    ]
