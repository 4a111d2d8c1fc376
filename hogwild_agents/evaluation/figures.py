"""What the statistics find, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Verdict = Literal["better", "worse", "cannot tell"]


class Estimate(NamedTuple):
    """A mean and its 95 % interval; NaN where too little was measured."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A strategy at a budget.

    Attributes:
        strategy: Its name.
        budget: Forward passes that it was allowed.
        problems: How many it was given.
        records: Of these problems, one per seed.
        missing: Records that the run promises and does not have (yet).
        errors: Records that have an error instead of a score.
        accuracy: Mean score over problems, from 0 to 1; an error scores 0.
        passes: Forward passes used, mean per problem, errors left out; as all that follow.
        tokens: Tokens drawn by all workers.
        seconds: Wall time.
        memory: Most bytes of cache.
        pass_at: Per k (1, 2, 4, ... and all seeds), the chance that one of k samples is right, over
            the problems that have as many seeds.
        measures: Of the collaboration: the mean of each over the records that have it.
    """

    strategy: str
    budget: int
    problems: int
    records: int
    missing: int
    errors: int
    accuracy: Estimate
    passes: Estimate
    tokens: Estimate
    seconds: Estimate
    memory: Estimate
    pass_at: Mapping[int, float]
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two strategies at a budget, on the problems that both have.

    Attributes:
        strategy: The one that the verdict is about.
        other: The one that it is compared with.
        budget: Forward passes that both were allowed.
        problems: That both have.
        difference: Mean score of the strategy less that of the other.
        p: Of the paired permutation test.
        adjusted: The same after Holm's correction over all comparisons.
        verdict: On the strategy.
    """

    strategy: str
    other: str
    budget: int
    problems: int
    difference: Estimate
    p: float
    adjusted: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How much sooner a strategy reaches what the reference reaches at a budget.

    Attributes:
        strategy: The one that may be sooner.
        reference: The one whose accuracy is to be reached.
        budget: The reference's.
        accuracy: What the reference's never-falling curve reaches there.
        needed: Budget at which the reference first reaches it: less than `budget` on a plateau.
        passes: Budget at which the strategy first reaches it; inf if it does not.
        ratio: needed / passes. 0 if the strategy does not reach it; `high` is inf if it may reach
            it before the smallest budget, so that `value` is a lower bound. NaN if accuracy is 0;
            without an interval if it is 1, of which a resample cannot say how sure it is.
        first: Whether it is there at the smallest budget: the ratio is at least `value`.
        verdict: Better is sooner.
    """

    strategy: str
    reference: str
    budget: int
    accuracy: float
    needed: float
    passes: float
    ratio: Estimate
    first: bool
    verdict: Verdict
