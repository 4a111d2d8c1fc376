"""Adapters: how a row of each data set becomes a problem, where it is not question and answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hogwild_agents.errors import BadRowError, BadTestsError, EvaluationError
from hogwild_agents.evaluation.datasets.schema import Fields, RowSchema, needed, text
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring.cases import Case, read_cases


def gsm8k(form: RowSchema, fields: Fields, name: str) -> Problem:
    """The answer is worked out, and stated behind `####`."""
    _, marked, answer = text(fields, form.answer).rpartition("####")
    if not marked:
        raise BadRowError(f"its {form.answer!r} has no `####` before the result.")
    return Problem(name, text(fields, form.question), answer.strip(), form.scorer)


def olympiad(form: RowSchema, fields: Fields, name: str) -> Problem:
    """A question may have a context; its answers are a list, or one text with commas."""
    answers = needed(fields, form.answer)
    truth = answers if isinstance(answers, str) else ",".join(map(str, answers))
    error, unit, context = (str(fields.get(key) or "") for key in ("error", "unit", "context"))
    try:
        [float(each) for each in error.split(",") if each.strip()]
    except ValueError:
        raise BadRowError(f"its 'error' {error!r} is no number.") from None
    parts = [context.strip(), text(fields, form.question)]
    if fields.get("is_multiple_answer"):
        parts.append("State all answers, with commas between them.")
    if unit:
        parts.append("State the answer without its unit.")
    extra = {"error": error, "unit": unit}
    return Problem(name, "\n\n".join(filter(None, parts)), truth, form.scorer, extra)


def livecodebench(form: RowSchema, fields: Fields, name: str) -> Problem:
    """Tests stay packed, as some are large; here it is only tried whether they can be read."""
    tests = [str(fields.get(f"{kind}_test_cases") or "") for kind in ("public", "private")]
    cases = _cases(tests)
    try:
        metadata = fields.get("metadata") or {}
        metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
        function = str(metadata.get("func_name") or "")
    except (ValueError, AttributeError) as error:
        raise BadRowError(f"its 'metadata' cannot be read: {error}") from error
    if any(case.function for case in cases) and not function:
        raise BadRowError("its tests call a function, and its 'metadata' has no func_name.")
    starter = str(fields.get("starter_code") or "").rstrip()
    how = "Write a Python program that reads the standard input and prints the answer."
    if starter:
        how = f"Write a Python program that begins like this:\n\n```python\n{starter}\n```"
    question = f"{text(fields, form.question)}\n\n{how}"
    extra = {"tests": tests, "function": function}
    return Problem(name, question, f"passes {len(cases)} tests", form.scorer, extra)


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
"""What the fields of a user's own data are called, where nobody says otherwise: the first of."""

ROLES = ("question", "answer", "id", "scorer")
"""What a field may be."""

EXTRA = ("error", "unit", "letters", "function", "seconds", "memory")
"""Fields that are kept for the scorers that know them."""


def own(roles: Mapping[str, str], scorer: str | None) -> RowSchema:
    """The form of a user's own data.

    Args:
        roles: Which field is the `question`, the `answer`, the `id` and the `scorer`.
        scorer: Who marks all of it; None to see in each row.

    Raises:
        EvaluationError: If there is no such role.
    """
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise EvaluationError(f"No role {', '.join(unknown)}: fields are {', '.join(ROLES)}.")

    def read(form: RowSchema, fields: Fields, name: str) -> Problem:
        question = text(fields, roles.get("question") or _first(fields, QUESTIONS))
        truth = needed(fields, roles.get("answer") or _first(fields, ANSWERS))
        marked_by = scorer or fields.get(roles.get("scorer", "scorer")) or _guess(truth)
        if form.id is None and fields.get("id") not in (None, ""):
            name = text(fields, "id")
        extra = {key: fields[key] for key in EXTRA if fields.get(key) not in (None, "")}
        if marked_by == "code":
            extra["tests"] = [truth if isinstance(truth, str) else json.dumps(truth)]
            truth = f"passes {len(_cases(extra['tests']))} tests"
        if marked_by == "list" and isinstance(truth, str):
            truth = _listed(truth)
        return Problem(name, question, truth, str(marked_by), extra)

    return RowSchema(scorer or "", id=roles.get("id"), read=read)


def _first(fields: Fields, names: Sequence[str]) -> str:
    return next((name for name in names if name in fields), names[0])


def _guess(truth: Any) -> str:
    """Who marks answers like it: a list, a number that stands alone, or else words."""
    if isinstance(truth, list | dict):
        return "list"
    plain = str(truth).strip().lstrip("+-").removeprefix("$").replace(",", "")
    return "number" if plain.replace(".", "", 1).isdigit() else "exact"


def _listed(truth: str) -> Any:
    """A list in a table's cell: JSON, or words with commas between them."""
    try:
        return json.loads(truth)
    except ValueError:
        return [part.strip() for part in truth.split(",")]
