"""Forms of data sets: where each is, what its fields are called, how a row becomes a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hogwild_agents.errors import BadRowError
from hogwild_agents.evaluation.datasets.rows import Row
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring import SCORERS
from hogwild_agents.team.answers import answer_format

Fields: TypeAlias = Mapping[str, Any]


def plain(form: RowSchema, fields: Fields, name: str) -> Problem:
    """A question and its answer."""
    return Problem(name, text(fields, form.question), text(fields, form.answer), form.scorer)


@dataclass(frozen=True, slots=True)
class RowSchema:
    """How to make problems of a data set's rows.

    Attributes:
        scorer: Who marks them.
        hub: Its path on the Hugging Face hub.
        config: Its configuration there; None for the default.
        split: The split to be tested on.
        files: The files that hold it, where the package `datasets` cannot find out.
        question: The field with the question.
        answer: The field with the answer.
        id: The field with the name; the number of the line, if there is none.
        read: Makes a problem of a row's fields, given a name for it.
        dates: Its first contest day and the day after the last, for those that grow with time.
        together: How many questions make one problem.
    """

    scorer: str
    hub: str = ""
    config: str | None = None
    split: str = "test"
    files: tuple[str, ...] = ()
    question: str = "question"
    answer: str = "answer"
    id: str | None = None
    read: Callable[[RowSchema, Fields, str], Problem] = plain
    dates: tuple[str, str] | None = None
    together: int = 1

    def holds(self, row: Row) -> bool:
        """Whether a row is of its dates."""
        day = str(row.fields.get("contest_date") or "")[:10]
        return self.dates is None or not day or self.dates[0] <= day < self.dates[1]

    def problem(self, row: Row, prefix: str) -> Problem:
        """A row as a problem, named by its field or by `prefix` and its line.

        Raises:
            BadRowError: If there is something wrong with it.
        """
        name = f"{prefix}-{row.line}" if self.id is None else text(row.fields, self.id)
        return _checked(self.read(self, row.fields, name))


def needed(fields: Fields, name: str) -> Any:
    """A field that a row must have."""
    value = fields.get(name)
    if value is None or value == "" or value == []:
        raise BadRowError(f"it has no {name!r}; its fields are {', '.join(map(repr, fields))}.")
    return value


def text(fields: Fields, name: str) -> str:
    """A field that must have text, or a number."""
    value = needed(fields, name)
    if not isinstance(value, str | int | float):
        raise BadRowError(f"its {name!r} is no text, but a {type(value).__name__}.")
    if not str(value).strip():
        raise BadRowError(f"its {name!r} is blank.")
    return str(value)


read_number = answer_format("number").extract


def _checked(problem: Problem) -> Problem:
    """A problem whose truth its scorer can use."""
    truth, scorer = problem.truth, problem.scorer
    if scorer not in SCORERS:
        raise BadRowError(f"there is no scorer {scorer!r}: choose from {', '.join(SCORERS)}.")
    listed = isinstance(truth, list | dict)
    if scorer == "list" and not (listed and truth):
        raise BadRowError(f"its answer {truth!r} is no list.")
    if scorer in ("math", "olympiad", "number", "choice") and listed:
        raise BadRowError(f"its answer {truth!r} is more than one; the scorer `list` marks lists.")
    if scorer == "number" and read_number(str(truth)) is None:
        raise BadRowError(f"its answer {truth!r} is no number.")
    if scorer == "choice" and not _letter(str(truth).strip(" ().")):
        raise BadRowError(f"its answer {truth!r} is no letter.")
    return problem


def _letter(truth: str) -> bool:
    return len(truth) == 1 and truth.isascii() and truth.isalpha()
