"""The schema of a data set: where it is, its field names, and how a row becomes a problem."""

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


def plain(schema: RowSchema, fields: Fields, name: str) -> Problem:
    """A question and its answer."""
    question, answer = text(fields, schema.question), text(fields, schema.answer)
    return Problem(name, question, answer, schema.scorer)


@dataclass(frozen=True, slots=True)
class RowSchema:
    """How to turn the rows of a data set into problems.

    Attributes:
        scorer: Scorer of the answers.
        hub: Path of the data set on the Hugging Face hub.
        config: Its configuration there; None for the default.
        split: The split to test on.
        files: Its files on the hub, where the package `datasets` cannot find them.
        question: Field with the question.
        answer: Field with the answer.
        id: Field with the problem's id; None to use the line number.
        read: Makes a problem from a row's fields and an id.
        dates: First contest day, and the day after the last, for data sets that grow over time.
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

    def includes(self, row: Row) -> bool:
        """Whether a row lies within the dates."""
        day = str(row.fields.get("contest_date") or "")[:10]
        return self.dates is None or not day or self.dates[0] <= day < self.dates[1]

    def problem(self, row: Row, prefix: str) -> Problem:
        """The row's problem; its id is taken from the id field, or is `prefix` and the line.

        Raises:
            BadRowError: The row does not fit the schema.
        """
        name = f"{prefix}-{row.line}" if self.id is None else text(row.fields, self.id)
        return _checked(self.read(self, row.fields, name))


def required(fields: Fields, name: str) -> Any:
    """The value of a required field."""
    value = fields.get(name)
    if value is None or value == "" or value == []:
        raise BadRowError(f"it has no {name!r}; its fields are {', '.join(map(repr, fields))}.")
    return value


def text(fields: Fields, name: str) -> str:
    """The value of a required field that must be text or a number."""
    value = required(fields, name)
    if not isinstance(value, str | int | float):
        raise BadRowError(f"its {name!r} is not text but a {type(value).__name__}.")
    if not str(value).strip():
        raise BadRowError(f"its {name!r} is blank.")
    return str(value)


read_number = answer_format("number").extract


def _checked(problem: Problem) -> Problem:
    """The problem, if its scorer can use its truth."""
    truth, scorer = problem.truth, problem.scorer
    if scorer not in SCORERS:
        raise BadRowError(f"there is no scorer {scorer!r}: choose from {', '.join(SCORERS)}.")
    is_list = isinstance(truth, list | dict)
    if scorer == "list" and not (is_list and truth):
        raise BadRowError(f"its answer {truth!r} is not a list.")
    if scorer in ("math", "olympiad", "number", "choice") and is_list:
        raise BadRowError(f"its answer {truth!r} is a list; use the scorer `list`.")
    if scorer == "number" and read_number(str(truth)) is None:
        raise BadRowError(f"its answer {truth!r} is not a number.")
    if scorer == "choice" and not _is_letter(str(truth).strip(" ().")):
        raise BadRowError(f"its answer {truth!r} is not a letter.")
    return problem


def _is_letter(truth: str) -> bool:
    return len(truth) == 1 and truth.isascii() and truth.isalpha()
