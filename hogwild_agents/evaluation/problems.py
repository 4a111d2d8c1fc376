"""Problems: what a data set holds, a strategy is asked, and a scorer marks."""

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
        id: Its name, the same in every run; no other problem of the data set has it.
        question: What is asked, as text.
        truth: What is right, as the scorer understands it: a JSON value.
        scorer: Which scorer marks answers to it; a key of `scoring.SCORERS`.
        extra: What else the scorer needs, as JSON values: units, tolerances, tests.
    """

    id: str
    question: str
    truth: Any
    scorer: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def digest_of(problems: Iterable[Problem]) -> str:
    """A short name for exactly these problems in this order; it changes if anything of one does."""
    told = json.dumps([asdict(problem) for problem in problems], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
