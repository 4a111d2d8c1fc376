"""Data sets: the pocket tasks, files, benchmarks, and paths on the Hugging Face hub.

Example:
    from hogwild_agents.evaluation.datasets import load

    for problem in load("pocket", limit=3).problems:
        print(problem.question, problem.truth)
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hogwild_agents.errors import BadRowError, EvaluationError
from hogwild_agents.evaluation.datasets.adapters import custom_schema
from hogwild_agents.evaluation.datasets.benchmarks import BENCHMARKS, combine
from hogwild_agents.evaluation.datasets.hub import hub_rows
from hogwild_agents.evaluation.datasets.rows import READERS, MalformedRow, Rows, read
from hogwild_agents.evaluation.datasets.schema import RowSchema
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring import SCORERS
from hogwild_agents.pocket.tasks import make_task_list

POCKET = "pocket"
"""The tasks that the pocket model was trained for; they need no download."""

NAMES = (POCKET, *BENCHMARKS)
"""The data sets that can be loaded by name."""

POCKET_COUNT = 100
"""How many pocket problems are made if there is no limit."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set.

    Attributes:
        name: The name that it was loaded by.
        problems: Its problems; ids are unique.
        malformed: Rows that were skipped.
    """

    name: str
    problems: tuple[Problem, ...]
    malformed: tuple[MalformedRow, ...] = ()


def load(
    name: str = POCKET,
    *,
    limit: int | None = None,
    seed: int = 0,
    split: str | None = None,
    size: int = 6,
    fields: Mapping[str, str] | None = None,
    scorer: str | None = None,
) -> Dataset:
    """Loads a data set.

    The same arguments give the same problems in the same order. A limit draws a random sample that
    depends only on the seed and the ids, and keeps the order: a larger limit only adds problems.

    Args:
        name: One of `NAMES`; a file, `my.jsonl` (or .json, .csv, .tsv, .parquet); a benchmark in a
            file, `gsm8k:my.jsonl`; or a path on the hub, `hf:owner/name[:config][:split]`.
        limit: The largest number of problems; None for all (for pocket, 100).
        seed: Seed of the sample.
        split: The split; by default the one to test on.
        size: How many tasks a pocket problem has.
        fields: For files and hub paths: which field is the `question`, the `answer`, the `id` and
            the `scorer`, such as `{"question": "prompt"}`. For missing entries the usual names are
            tried, and the line number is the id.
        scorer: For files and hub paths: the scorer of all rows. By default the row's own scorer;
            without one, `number` for numbers, `list` for lists, `exact` for other text.

    Raises:
        EvaluationError: There is no such data set, or it has no valid problem.
    """
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit={limit} leaves no problem: give 1 or more, or None for all.")
    if scorer is not None and scorer not in SCORERS:
        raise EvaluationError(f"There is no scorer {scorer!r}: choose from {', '.join(SCORERS)}.")
    head, colon, path = name.partition(":")
    if head in NAMES and (fields or scorer):
        raise EvaluationError(
            f"{head} has its own fields and scorer: leave out `fields` and `scorer`."
        )
    if name == POCKET:
        return _pocket(POCKET_COUNT if limit is None else limit, seed, split or "test", size)
    if head in BENCHMARKS:
        schema = BENCHMARKS[head]
        rows = (
            read(path)
            if colon
            else hub_rows(schema.hub, schema.config, split or schema.split, schema.files)
        )
        return _loaded(name, head, schema, rows, limit, seed)
    schema = custom_schema(fields or {}, scorer)
    if head == "hf":
        path, config, path_split = (*path.split(":"), "", "")[:3]
        rows = hub_rows(path, config or None, split or path_split or "test")
        return _loaded(name, path.rpartition("/")[2], schema, rows, limit, seed)
    if Path(name).suffix.lower() not in READERS:
        raise EvaluationError(
            f"There is no data set {name!r}: choose from {', '.join(NAMES)}, or give a file "
            f"({', '.join(READERS)}) or a path on the hub, hf:owner/name."
        )
    return _loaded(name, Path(name).stem, schema, read(name), limit, seed)


def _pocket(count: int, seed: int, split: str, size: int) -> Dataset:
    """Problems made of the pocket tasks."""
    try:
        lists = [make_task_list(f"{seed}.{n}", size, split=split) for n in range(count)]  # type: ignore[arg-type]
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    problems = (
        Problem(f"pocket-{split}-{size}-{seed}.{n}", tasks.text, tasks.answers, "list")
        for n, tasks in enumerate(lists)
    )
    return Dataset(POCKET, tuple(problems))


def _loaded(
    name: str, prefix: str, schema: RowSchema, rows: Rows, limit: int | None, seed: int
) -> Dataset:
    """The problems of the rows, or a sample of them."""
    malformed: list[MalformedRow] = []
    problems: Iterator[Problem] = _problems(schema, prefix, rows, malformed)
    if schema.together > 1:
        problems = _combined(problems, schema.together)
    if limit is not None:
        numbered = enumerate(problems)
        sample = heapq.nsmallest(limit, numbered, key=lambda pair: _draw(seed, pair[1].id))
        problems = (problem for _, problem in sorted(sample))
    valid = tuple(problems)
    if not valid:
        reason = "it is empty."
        if malformed:
            reason = f"all {len(malformed)} rows are malformed: {malformed[0]}"
        raise EvaluationError(f"There is no problem in {name}: {reason}")
    return Dataset(name, valid, tuple(malformed))


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()


def _problems(
    schema: RowSchema, prefix: str, rows: Rows, malformed: list[MalformedRow]
) -> Iterator[Problem]:
    """The problems of valid rows; other rows are added to `malformed`."""
    lines: dict[str, int] = {}
    for row in rows:
        if isinstance(row, MalformedRow):
            malformed.append(row)
        elif schema.includes(row):
            try:
                problem = schema.problem(row, prefix)
            except BadRowError as error:
                malformed.append(row.malformed(error))
                continue
            if problem.id in lines:
                reason = f"its id {problem.id!r} is that of line {lines[problem.id]}."
                malformed.append(row.malformed(reason))
            else:
                lines[problem.id] = row.line
                yield problem


def _combined(problems: Iterator[Problem], count: int) -> Iterator[Problem]:
    """Problems of so many questions each; what is left over at the end is dropped."""
    while len(group := list(islice(problems, count))) == count:
        yield combine(group)


__all__ = ["NAMES", "Dataset", "MalformedRow", "load"]
