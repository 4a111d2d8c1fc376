"""A problem: what data sets hold, strategies answer, and scorers mark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a data set.

    Attributes:
        id: Unique within the data set, and the same in every run.
        question: Text that the model is asked.
        truth: The correct answer in the form that the scorer expects: a JSON value.
        scorer: Name of the scorer, a key of `scoring.SCORERS`.
        extra: What else the scorer needs, as JSON values: units, tolerances, tests.
    """

    id: str
    question: str
    truth: Any
    scorer: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def digest_of(problems: Iterable[Problem]) -> str:
    """A hash of these problems in this order; any change to one of them changes it."""
    text = json.dumps([asdict(problem) for problem in problems], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
