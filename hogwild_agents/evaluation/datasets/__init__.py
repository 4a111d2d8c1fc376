"""Data sets: problems from inside the package, from files, and from the Hugging Face hub.

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
from hogwild_agents.evaluation.datasets.adapters import own
from hogwild_agents.evaluation.datasets.benchmarks import BENCHMARKS, in_one
from hogwild_agents.evaluation.datasets.hub import hub_rows
from hogwild_agents.evaluation.datasets.rows import READERS, Malformed, Rows, read
from hogwild_agents.evaluation.datasets.schema import RowSchema
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring import SCORERS
from hogwild_agents.pocket.tasks import make_task_list

POCKET = "pocket"
"""The tasks that the pocket model was made for; they need no download."""

NAMES = (POCKET, *BENCHMARKS)
"""The data sets that have a name."""

POCKET_COUNT = 100
"""How many pocket problems there are where nobody sets a limit."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A data set.

    Attributes:
        name: As it was asked for.
        problems: What it holds; no two have the same id.
        malformed: Rows that were skipped.
    """

    name: str
    problems: tuple[Problem, ...]
    malformed: tuple[Malformed, ...] = ()


def load(
    name: str = POCKET,
    *,
    limit: int | None = None,
    seed: int = 0,
    split: str | None = None,
    size: int = 6,
    fields: Mapping[str, str] | None = None,
    scorer: str | None = None,
) -> Loaded:
    """Loads a data set.

    The same arguments give the same problems in the same order. A limit takes a random sample,
    which depends on the seed and the ids only, and keeps its order: a larger limit only adds to it.

    Args:
        name: One of `NAMES`; a file, `my.jsonl` (or .json, .csv, .tsv, .parquet); a benchmark in a
            file, `gsm8k:my.jsonl`; or a path on the hub, `hf:owner/name[:config][:split]`.
        limit: The most problems; None for all (of the pocket tasks, 100).
        seed: Of the sample.
        split: Which split; by default, the one to be tested on.
        size: How many tasks a pocket problem has.
        fields: For files and hub paths: which field is the `question`, the `answer`, the `id` and
            the `scorer`, such as `{"question": "prompt"}`. Where it says nothing, usual names are
            tried, and the line is the id.
        scorer: For files and hub paths: who marks all answers. By default the row's scorer does,
            and without one `number` those that are a number, `list` lists, and `exact` others.

    Raises:
        EvaluationError: If there is no such data set, or it has no problem that can be used.
    """
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit={limit} leaves no problem: give 1 or more, or None for all.")
    if scorer is not None and scorer not in SCORERS:
        raise EvaluationError(f"No scorer {scorer!r}: choose from {', '.join(SCORERS)}.")
    head, colon, path = name.partition(":")
    if head in NAMES and (fields or scorer):
        raise EvaluationError(f"{head} has its own fields and scorer: leave out yours.")
    if name == POCKET:
        return _pocket(POCKET_COUNT if limit is None else limit, seed, split or "test", size)
    if head in BENCHMARKS:
        form = BENCHMARKS[head]
        rows = (
            read(path)
            if colon
            else hub_rows(form.hub, form.config, split or form.split, form.files)
        )
        return _loaded(name, head, form, rows, limit, seed)
    form = own(fields or {}, scorer)
    if head == "hf":
        path, config, named = (*path.split(":"), "", "")[:3]
        rows = hub_rows(path, config or None, split or named or "test")
        return _loaded(name, path.rpartition("/")[2], form, rows, limit, seed)
    if Path(name).suffix.lower() not in READERS:
        raise EvaluationError(
            f"No data set {name!r}: choose from {', '.join(NAMES)}, name a file "
            f"({', '.join(READERS)}), or give a path on the hub, hf:owner/name."
        )
    return _loaded(name, Path(name).stem, form, read(name), limit, seed)


def _pocket(count: int, seed: int, split: str, size: int) -> Loaded:
    """Problems of the pocket tasks."""
    try:
        made = [make_task_list(f"{seed}.{n}", size, split=split) for n in range(count)]  # type: ignore[arg-type]
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    problems = (
        Problem(f"pocket-{split}-{size}-{seed}.{n}", one.text, one.answers, "list")
        for n, one in enumerate(made)
    )
    return Loaded(POCKET, tuple(problems))


def _loaded(
    name: str, prefix: str, form: RowSchema, rows: Rows, limit: int | None, seed: int
) -> Loaded:
    """The problems that rows make, or a sample of them."""
    malformed: list[Malformed] = []
    problems: Iterator[Problem] = _problems(form, prefix, rows, malformed)
    if form.together > 1:
        problems = _joined(problems, form.together)
    if limit is not None:
        numbered = enumerate(problems)
        sample = heapq.nsmallest(limit, numbered, key=lambda each: _draw(seed, each[1].id))
        problems = (problem for _, problem in sorted(sample, key=lambda each: each[0]))
    found = tuple(problems)
    if not found:
        why = f": {malformed[0]}" if malformed else ". It is empty."
        count = f"; all {len(malformed)} rows are malformed" if malformed else ""
        raise EvaluationError(f"No problem in {name}{count}{why}")
    return Loaded(name, found, tuple(malformed))


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()


def _problems(
    form: RowSchema, prefix: str, rows: Rows, malformed: list[Malformed]
) -> Iterator[Problem]:
    """Problems from good rows; the others are added to `malformed`."""
    taken: dict[str, int] = {}
    for row in rows:
        if isinstance(row, Malformed):
            malformed.append(row)
        elif form.holds(row):
            try:
                problem = form.problem(row, prefix)
            except BadRowError as error:
                malformed.append(row.bad(error))
                continue
            if problem.id in taken:
                why = f"its id {problem.id!r} is that of line {taken[problem.id]}."
                malformed.append(row.bad(why))
            else:
                taken[problem.id] = row.line
                yield problem


def _joined(problems: Iterator[Problem], count: int) -> Iterator[Problem]:
    """So many questions in one, none of them twice; the last few may be left over."""
    while len(group := list(islice(problems, count))) == count:
        yield in_one(group)


__all__ = ["NAMES", "Loaded", "Malformed", "load"]
