"""Row readers for data sets whose rows are more than a question and an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hogwild_agents.errors import BadRowError, BadTestsError, EvaluationError
from hogwild_agents.evaluation.datasets.schema import Fields, RowSchema, required, text
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring.cases import Case, read_cases


def gsm8k(schema: RowSchema, fields: Fields, name: str) -> Problem:
    """The answer field holds the reasoning, and the answer after `####`."""
    _, marker, answer = text(fields, schema.answer).rpartition("####")
    if not marker:
        raise BadRowError(f"its {schema.answer!r} has no `####` before the result.")
    return Problem(name, text(fields, schema.question), answer.strip(), schema.scorer)


def olympiad(schema: RowSchema, fields: Fields, name: str) -> Problem:
    """A question may have a context; the answers are a list, or one text with commas."""
    answers = required(fields, schema.answer)
    truth = answers if isinstance(answers, str) else ",".join(map(str, answers))
    error, unit, context = (str(fields.get(key) or "") for key in ("error", "unit", "context"))
    try:
        [float(number) for number in error.split(",") if number.strip()]
    except ValueError:
        raise BadRowError(f"its 'error' {error!r} is not a number.") from None
    parts = [context.strip(), text(fields, schema.question)]
    if fields.get("is_multiple_answer"):
        parts.append("State all answers, with commas between them.")
    if unit:
        parts.append("State the answer without its unit.")
    extra = {"error": error, "unit": unit}
    return Problem(name, "\n\n".join(filter(None, parts)), truth, schema.scorer, extra)


def livecodebench(schema: RowSchema, fields: Fields, name: str) -> Problem:
    """Checks that the tests can be read; the problem holds them packed, as some are large."""
    tests = [str(fields.get(f"{kind}_test_cases") or "") for kind in ("public", "private")]
    cases = _cases(tests)
    try:
        metadata = fields.get("metadata") or {}
        metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
        function = str(metadata.get("func_name") or "")
    except (ValueError, AttributeError) as error:
        raise BadRowError(f"its 'metadata' cannot be read: {error}") from error
    if any(case.calls_function for case in cases) and not function:
        raise BadRowError("its tests call a function, but its 'metadata' has no func_name.")
    starter = str(fields.get("starter_code") or "").rstrip()
    task = "Write a Python program that reads the standard input and prints the answer."
    if starter:
        task = f"Write a Python program that begins like this:\n\n```python\n{starter}\n```"
    question = f"{text(fields, schema.question)}\n\n{task}"
    extra = {"tests": tests, "function": function}
    return Problem(name, question, f"passes {len(cases)} tests", schema.scorer, extra)


def _cases(tests: Sequence[str]) -> list[Case]:
    try:
        cases = [case for field in tests for case in read_cases(field)]
    except BadTestsError as error:
        raise BadRowError(f"its tests cannot be read: {error}") from error
    if not cases:
        raise BadRowError("it has no tests.")
    return cases


QUESTIONS = ("question", "problem", "prompt", "input")
ANSWERS = ("answer", "target", "final_answer", "output")
"""Field names that are tried in users' own data, in this order."""

ROLES = ("question", "answer", "id", "scorer")
"""What a field may be mapped to."""

EXTRA = ("error", "unit", "letters", "function", "seconds", "memory")
"""Fields that are passed on to the scorer."""


def custom_schema(roles: Mapping[str, str], scorer: str | None) -> RowSchema:
    """The schema of a user's own data.

    Args:
        roles: Which field is the `question`, the `answer`, the `id` and the `scorer`.
        scorer: Scorer for all rows; None to choose one for each row.

    Raises:
        EvaluationError: A role is unknown.
    """
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise EvaluationError(
            f"There is no role {', '.join(unknown)}: choose from {', '.join(ROLES)}."
        )

    def read(schema: RowSchema, fields: Fields, name: str) -> Problem:
        question = text(fields, roles.get("question") or _first(fields, QUESTIONS))
        truth = required(fields, roles.get("answer") or _first(fields, ANSWERS))
        scorer_name = scorer or fields.get(roles.get("scorer", "scorer")) or _guess_scorer(truth)
        if schema.id is None and fields.get("id") not in (None, ""):
            name = text(fields, "id")
        extra = {key: fields[key] for key in EXTRA if fields.get(key) not in (None, "")}
        if scorer_name == "code":
            extra["tests"] = [truth if isinstance(truth, str) else json.dumps(truth)]
            truth = f"passes {len(_cases(extra['tests']))} tests"
        if scorer_name == "list" and isinstance(truth, str):
            truth = _parse_list(truth)
        return Problem(name, question, truth, str(scorer_name), extra)

    return RowSchema(scorer or "", id=roles.get("id"), read=read)


def _first(fields: Fields, names: Sequence[str]) -> str:
    return next((name for name in names if name in fields), names[0])


def _guess_scorer(truth: Any) -> str:
    """The scorer that fits an answer: for lists, for numbers, or for other text."""
    if isinstance(truth, list | dict):
        return "list"
    digits = str(truth).strip().lstrip("+-").removeprefix("$").replace(",", "")
    return "number" if digits.replace(".", "", 1).isdigit() else "exact"


def _parse_list(truth: str) -> Any:
    """A list written in a table cell: JSON, or words separated by commas."""
    try:
        return json.loads(truth)
    except ValueError:
        return [part.strip() for part in truth.split(",")]
