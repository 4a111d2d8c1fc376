"""Statistics over records: accuracy, costs, comparisons and speed-ups, with intervals.

    analysis = Analysis(records)
    for row in analysis.summaries: ...      # a strategy at a budget: accuracy, passes, tokens, ...
    for pair in analysis.comparisons: ...   # two strategies at a budget, on the same problems
    for speed in analysis.speedups("single"): ...   # passes to reach the same accuracy

Rules:

- A problem counts once: its seeds are averaged first. Resamples draw problems with their seeds.
- An error scores 0 and is counted; mean costs leave errors out.
- Two strategies are compared on the problems that both have at that budget.
- A strategy is better only if the permutation test says so after Holm's correction over all
  comparisons (p < 0.05) and the interval of the difference agrees.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation import resampling
from hogwild_agents.evaluation.estimates import Comparison, Estimate, Speedup, Summary, Verdict
from hogwild_agents.evaluation.records import Record
from hogwild_agents.evaluation.resampling import Bools, Floats

ALPHA = 1 - resampling.LEVEL
COSTS = ("passes", "tokens", "seconds", "memory")


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts hogwild-2 before hogwild-10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


class Analysis:
    """The statistics of a run's records, in any order.

    Args:
        records: Any number of strategies, budgets, problems and seeds.
        strategies: The order in which they are shown; by name if left out.
        resamples: How many resamples the bootstrap draws.
        seed: Seed of everything that is drawn.

    Raises:
        EvaluationError: There are no records, two have the same key, or `strategies` does not name
            exactly the strategies of the records.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        strategies: Sequence[str] | None = None,
        resamples: int = 2000,
        seed: int = 0,
    ) -> None:
        if not records:
            raise EvaluationError("There are no records: run the evaluation first.")
        self.records = sorted(records, key=lambda record: record.key)
        names = sorted({record.strategy for record in records}, key=natural)
        if strategies is not None and sorted(strategies, key=natural) != names:
            raise EvaluationError(
                f"strategies={list(strategies)!r} does not name each strategy of the records once: "
                f"they have {names}."
            )
        self.strategies = tuple(strategies or names)
        self.budgets = tuple(sorted({record.budget for record in records}))
        self.problems = tuple(sorted({record.problem for record in records}))
        self.seeds = tuple(sorted({record.seed for record in records}))
        self._seed = seed
        self._cells = [(s, b) for s in self.strategies for b in self.budgets]
        self._column = {cell: column for column, cell in enumerate(self._cells)}
        self._weights = resampling.draw_weights(len(self.problems), resamples, seed)
        self._read()

    def _read(self) -> None:
        """Arranges the records in arrays `[problems, (strategy, budget)]`."""
        rows = {problem: row for row, problem in enumerate(self.problems)}
        shape = (len(rows), len(self._cells))
        cells = np.array(
            [rows[r.problem] * shape[1] + self._column[r.strategy, r.budget] for r in self.records]
        )
        for record, next_record in pairwise(self.records):
            if record.key == next_record.key:
                raise EvaluationError(f"Two records have the same key: {record.key}.")

        def total(values: Floats) -> Floats:
            sums = np.bincount(cells, values, minlength=shape[0] * shape[1])
            return sums.reshape(shape).astype(np.float64)

        def mean(values: Floats, weights: Floats) -> Floats:
            with np.errstate(invalid="ignore"):
                means: Floats = total(values * weights) / total(weights)
            return means

        scores = np.array([math.nan if r.score is None else r.score for r in self.records])
        scored = np.isfinite(scores) & np.array([r.error is None for r in self.records])
        scores = np.where(scored, scores, 0.0)
        valid = scored.astype(np.float64)
        self._scores = mean(scores, np.ones_like(scores))
        self._costs = {
            cost: mean(np.array([float(getattr(r, cost)) for r in self.records]), valid)
            for cost in COSTS
        }
        self._samples = total(np.ones_like(scores))
        self._right = total((scores >= 1 - 1e-9).astype(np.float64))
        self._errors = total(1 - valid).sum(axis=0).astype(int)

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """One per strategy and budget that has records, by strategy and then by budget."""
        accuracy = [
            _rate(estimate, problems)
            for estimate, problems in zip(
                self._estimate(self._scores), np.isfinite(self._scores).sum(axis=0), strict=True
            )
        ]
        costs = {cost: self._estimate(values) for cost, values in self._costs.items()}
        most_samples = int(self._samples.max())
        powers = {2**power for power in range(most_samples.bit_length())}
        pass_at = {k: self._pass_at(k) for k in sorted({*powers, most_samples})}
        measures = self._measures()
        expected = len(self.problems) * len(self.seeds)
        rows = []
        for column, (strategy, budget) in enumerate(self._cells):
            records = int(self._samples[:, column].sum())
            if not records:
                continue
            rows.append(
                Summary(
                    strategy=strategy,
                    budget=budget,
                    problems=int(np.count_nonzero(self._samples[:, column])),
                    records=records,
                    missing=expected - records,
                    errors=int(self._errors[column]),
                    accuracy=accuracy[column],
                    passes=costs["passes"][column],
                    tokens=costs["tokens"][column],
                    seconds=costs["seconds"][column],
                    memory=costs["memory"][column],
                    pass_at={k: float(v[column]) for k, v in pass_at.items() if v[column] >= 0},
                    measures=measures[strategy, budget],
                )
            )
        return tuple(rows)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All pairs at all budgets: the later strategy compared with the earlier one."""
        pairs = [
            (later, earlier, budget)
            for earlier, later in combinations(self.strategies, 2)
            for budget in self.budgets
        ]
        if not pairs:
            return ()
        later = [self._column[strategy, budget] for strategy, _, budget in pairs]
        earlier = [self._column[other, budget] for _, other, budget in pairs]
        differences = self._scores[:, later] - self._scores[:, earlier]
        p = resampling.sign_flip_tests(differences, self._seed)
        adjusted = resampling.holm(p)
        estimates = self._estimate(differences)
        both = np.isfinite(differences).sum(axis=0)
        return tuple(
            Comparison(
                strategy=strategy,
                other=other,
                budget=budget,
                problems=int(both[n]),
                difference=estimates[n],
                p=float(p[n]),
                adjusted=float(adjusted[n]),
                verdict=_verdict(estimates[n], 0.0, bool(adjusted[n] < ALPHA)),
            )
            for n, (strategy, other, budget) in enumerate(pairs)
        )

    def compare(self, strategy: str, other: str, budget: int) -> Comparison:
        """One of the comparisons, in either direction."""
        for pair in self.comparisons:
            if pair.budget == budget and (pair.strategy, pair.other) == (strategy, other):
                return pair
            if pair.budget == budget and (pair.other, pair.strategy) == (strategy, other):
                return _reversed(pair)
        raise EvaluationError(
            f"The records do not hold both {strategy!r} and {other!r} at {budget} passes."
        )

    def speedups(self, reference: str) -> tuple[Speedup, ...]:
        """How much sooner the others reach the reference's accuracy at each of its budgets.

        Accuracy is interpolated linearly between budgets, on curves that never fall. Each resample
        draws the same problems for both curves.
        """
        if reference not in self.strategies:
            raise EvaluationError(
                f"There is no strategy {reference!r}: choose from {', '.join(self.strategies)}."
            )
        budgets, curves = self._curves(reference)
        speedups = []
        for strategy in self.strategies:
            if strategy == reference:
                continue
            own_budgets, own = self._curves(strategy)
            for index, budget in enumerate(budgets):
                targets = curves[:, index]
                needed = resampling.first_reached(budgets, curves, targets)
                passes = resampling.first_reached(own_budgets, own, targets)
                at_once = own[:, 0] >= targets - 1e-9
                ratio = _ratio(needed, passes, own_budgets, at_once)
                testable = bool(0 < targets[0] < 1)
                if not testable:  # 0 needs no passes; 1 depends on the single hardest problem
                    value = ratio.value if targets[0] > 0 else math.nan
                    ratio = Estimate(value, math.nan, math.nan)
                speedups.append(
                    Speedup(
                        strategy=strategy,
                        reference=reference,
                        budget=int(budget),
                        accuracy=float(targets[0]),
                        needed=float(needed[0]),
                        passes=float(passes[0]),
                        ratio=ratio,
                        is_lower_bound=bool(at_once[0]),
                        verdict=_verdict(ratio, 1.0, testable),
                    )
                )
        return tuple(speedups)

    def _curves(self, strategy: str) -> tuple[Floats, Floats]:
        """The budgets of a strategy, and its monotone curves: the observed one, then resamples."""
        budgets = [b for b in self.budgets if self._samples[:, self._column[strategy, b]].any()]
        columns = [self._column[strategy, budget] for budget in budgets]
        scores = self._scores[:, columns]
        observed = resampling.weighted_means(scores, np.ones((1, len(scores))))
        curves = np.concatenate([observed, resampling.weighted_means(scores, self._weights)])
        curves = np.where(np.isnan(curves), observed, curves)
        return np.array(budgets, dtype=np.float64), resampling.never_falling(curves)

    def _estimate(self, values: Floats) -> list[Estimate]:
        """The mean of each column over problems, with its bootstrap interval."""
        means = resampling.weighted_means(values, np.ones((1, len(values))))[0]
        low, high = resampling.percentiles(resampling.weighted_means(values, self._weights))
        few = np.isfinite(values).sum(axis=0) < 2  # one problem says nothing about others
        low[few] = high[few] = np.nan
        return [Estimate(*map(float, row)) for row in zip(means, low, high, strict=True)]

    def _pass_at(self, k: int) -> Floats:
        chances = resampling.pass_at_k(self._samples, self._right, k)
        mean: Floats = resampling.weighted_means(chances, np.ones((1, len(chances))))[0]
        return mean

    def _measures(self) -> dict[tuple[str, int], dict[str, float]]:
        values: dict[tuple[str, int], dict[str, list[float]]] = {
            cell: defaultdict(list) for cell in self._cells
        }
        for record in self.records:
            for name, value in record.measures.items():
                if math.isfinite(value):
                    values[record.strategy, record.budget][name].append(value)
        return {
            cell: {name: math.fsum(items) / len(items) for name, items in by_name.items()}
            for cell, by_name in values.items()
        }


def _rate(estimate: Estimate, problems: int) -> Estimate:
    """An estimate of a share; its interval has width even if all problems agree."""
    if estimate.known and estimate.value <= 0:
        return estimate._replace(high=resampling.unanimous(problems))
    if estimate.known and estimate.value >= 1:
        return estimate._replace(low=1 - resampling.unanimous(problems))
    return estimate


def _verdict(estimate: Estimate, neutral: float, significant: bool) -> Verdict:
    if significant and estimate.low > neutral + 1e-9:  # floating-point sums are not exact
        return "better"
    if significant and estimate.high < neutral - 1e-9:
        return "worse"
    return "cannot tell"


def _reversed(pair: Comparison) -> Comparison:
    verdicts: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    value, low, high = pair.difference
    return Comparison(
        strategy=pair.other,
        other=pair.strategy,
        budget=pair.budget,
        problems=pair.problems,
        difference=Estimate(-value, -high, -low),
        p=pair.p,
        adjusted=pair.adjusted,
        verdict=verdicts.get(pair.verdict, "cannot tell"),
    )


def _ratio(needed: Floats, passes: Floats, budgets: Floats, at_once: Bools) -> Estimate:
    """The ratio of passes; the first element of each array is observed, the others are resamples.

    A strategy that reaches the target at its smallest budget may have reached it earlier: the ratio
    lies between the computed one and inf. A strategy that does not reach it at its largest budget
    may reach it later: the ratio lies between 0 and what it would be there.
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # a budget may be 0
        lower = np.where(needed == passes, 1.0, needed / passes)
    upper = np.where(at_once, np.inf, np.where(np.isinf(passes), needed / budgets[-1], lower))
    tail = (1 - resampling.LEVEL) / 2
    low = np.quantile(lower[1:], tail, method="lower")
    high = np.quantile(upper[1:], 1 - tail, method="higher")
    return Estimate(float(lower[0]), float(low), float(high))
