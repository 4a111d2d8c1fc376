"""What records say: how good each strategy is, and which is better, worse, or cannot be told.

    analysis = Analysis(records)
    for row in analysis.summaries: ...      # a strategy at a budget: accuracy, passes, tokens, ...
    for pair in analysis.comparisons: ...   # two strategies at a budget, on the same problems
    for speed in analysis.speedups("single"): ...   # passes to reach the same accuracy

Decisions that hold everywhere:

- A problem counts once: its seeds are averaged first. Resamples draw problems with their seeds.
- An error scores 0, and is counted; costs are means over what did not fail.
- Two strategies are compared on the problems that both have at that budget.
- One is better only if the permutation test says so after Holm's correction over all comparisons
  (p < 0.05), and the interval of the difference agrees.
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
from hogwild_agents.evaluation.figures import Comparison, Estimate, Speedup, Summary, Verdict
from hogwild_agents.evaluation.records import Record
from hogwild_agents.evaluation.resampling import Bools, Floats

ALPHA = 1 - resampling.LEVEL
COSTS = ("passes", "tokens", "seconds", "memory")


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts hogwild-2 before hogwild-10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


class Analysis:
    """The statistics of a run's records; the order of the records does not matter.

    Args:
        records: Of any number of strategies, budgets, problems and seeds.
        strategies: In which order they are shown; by name if left out.
        resamples: Of the bootstrap.
        seed: Of all that is drawn.

    Raises:
        EvaluationError: There are no records, two are about the same thing, or a strategy is named
            that they do not have (or the other way round).
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
            raise EvaluationError("There are no records: nothing was evaluated yet.")
        self.records = sorted(records, key=lambda record: record.key)
        found = {record.strategy for record in records}
        if strategies is not None and (
            set(strategies) != found or len(strategies) != len(set(strategies))
        ):
            raise EvaluationError(
                f"strategies={list(strategies)!r} does not name each strategy of the records once: "
                f"they have {sorted(found)}."
            )
        self.strategies = tuple(strategies or sorted(found, key=natural))
        self.budgets = tuple(sorted({record.budget for record in records}))
        self.problems = tuple(sorted({record.problem for record in records}))
        self.seeds = tuple(sorted({record.seed for record in records}))
        self._seed = seed
        self._cells = [(s, b) for s in self.strategies for b in self.budgets]
        self._column = {cell: column for column, cell in enumerate(self._cells)}
        self._weights = resampling.draw_weights(len(self.problems), resamples, seed)
        self._read()

    def _read(self) -> None:
        """Lays the records out in arrays of problems x (strategy, budget)."""
        rows = {problem: row for row, problem in enumerate(self.problems)}
        shape = (len(rows), len(self._cells))
        places = np.array(
            [rows[r.problem] * shape[1] + self._column[r.strategy, r.budget] for r in self.records]
        )
        for one, next_one in pairwise(self.records):
            if one.key == next_one.key:
                raise EvaluationError(f"Two records are about the same thing: {one.key}.")

        def total(values: Floats) -> Floats:
            sums = np.bincount(places, values, minlength=shape[0] * shape[1])
            return sums.reshape(shape).astype(np.float64)

        def mean(values: Floats, among: Floats) -> Floats:
            with np.errstate(invalid="ignore"):
                means: Floats = total(values * among) / total(among)
            return means

        scores = np.array([math.nan if r.score is None else r.score for r in self.records])
        scored = np.isfinite(scores) & np.array([r.error is None for r in self.records])
        scores = np.where(scored, scores, 0.0)
        done = scored.astype(np.float64)
        self._scores = mean(scores, np.ones_like(scores))
        self._costs = {
            cost: mean(np.array([float(getattr(r, cost)) for r in self.records]), done)
            for cost in COSTS
        }
        self._samples = total(np.ones_like(scores))
        self._right = total((scores >= 1 - 1e-9).astype(np.float64))
        self._errors = total(1 - done).sum(axis=0).astype(int)

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """One per strategy and budget that has records, in the order of both."""
        accuracy = [
            _rate(estimate, problems)
            for estimate, problems in zip(
                self._estimate(self._scores), np.isfinite(self._scores).sum(axis=0), strict=True
            )
        ]
        costs = {cost: self._estimate(values) for cost, values in self._costs.items()}
        most = int(self._samples.max())
        doubled = {2**power for power in range(most.bit_length())}
        chances = {k: self._pass_at(k) for k in sorted({*doubled, most})}
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
                    pass_at={k: float(c[column]) for k, c in chances.items() if c[column] >= 0},
                    measures=measures[strategy, budget],
                )
            )
        return tuple(rows)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All pairs at all budgets, the later strategy against the earlier one."""
        asked = [
            (later, earlier, budget)
            for earlier, later in combinations(self.strategies, 2)
            for budget in self.budgets
        ]
        if not asked:
            return ()
        later = [self._column[strategy, budget] for strategy, _, budget in asked]
        earlier = [self._column[other, budget] for _, other, budget in asked]
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
                problems=int(both[place]),
                difference=estimates[place],
                p=float(p[place]),
                adjusted=float(adjusted[place]),
                verdict=_verdict(estimates[place], 0.0, bool(adjusted[place] < ALPHA)),
            )
            for place, (strategy, other, budget) in enumerate(asked)
        )

    def compare(self, strategy: str, other: str, budget: int) -> Comparison:
        """One of the comparisons, whichever of the two comes first."""
        for pair in self.comparisons:
            if pair.budget == budget and (pair.strategy, pair.other) == (strategy, other):
                return pair
            if pair.budget == budget and (pair.other, pair.strategy) == (strategy, other):
                return _turned(pair)
        raise EvaluationError(f"{strategy!r} and {other!r} were not both run at {budget} passes.")

    def speedups(self, reference: str) -> tuple[Speedup, ...]:
        """Passes that the others need to reach what the reference reaches at each of its budgets.

        Accuracy between two budgets is read off a straight line, on curves that never fall. In each
        resample both curves are drawn on the same problems.
        """
        if reference not in self.strategies:
            raise EvaluationError(
                f"There is no strategy {reference!r} to compare with: {', '.join(self.strategies)}."
            )
        budgets, curves = self._curves(reference)
        found = []
        for strategy in self.strategies:
            if strategy == reference:
                continue
            own_budgets, own = self._curves(strategy)
            for place, budget in enumerate(budgets):
                targets = curves[:, place]
                needed = resampling.first_reached(budgets, curves, targets)
                passes = resampling.first_reached(own_budgets, own, targets)
                ratio, first = _ratio(needed, passes, own_budgets, own[:, 0] >= targets - 1e-9)
                told = bool(0 < targets[0] < 1)
                if not told:  # nothing is never reached; all depends on the one hardest problem
                    value = ratio.value if targets[0] > 0 else math.nan
                    ratio = Estimate(value, math.nan, math.nan)
                found.append(
                    Speedup(
                        strategy=strategy,
                        reference=reference,
                        budget=int(budget),
                        accuracy=float(targets[0]),
                        needed=float(needed[0]),
                        passes=float(passes[0]),
                        ratio=ratio,
                        first=first,
                        verdict=_verdict(ratio, 1.0, told),
                    )
                )
        return tuple(found)

    def _curves(self, strategy: str) -> tuple[Floats, Floats]:
        """Budgets that a strategy was run at, and its never-falling curves: observed, resampled."""
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
        few = np.isfinite(values).sum(axis=0) < 2  # one problem says nothing of others
        low[few] = high[few] = np.nan
        return [Estimate(*map(float, ends)) for ends in zip(means, low, high, strict=True)]

    def _pass_at(self, k: int) -> Floats:
        chances = resampling.pass_at_k(self._samples, self._right, k)
        mean: Floats = resampling.weighted_means(chances, np.ones((1, len(chances))))[0]
        return mean

    def _measures(self) -> dict[tuple[str, int], dict[str, float]]:
        found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for record in self.records:
            for name, value in record.measures.items():
                if math.isfinite(value):
                    found[record.strategy, record.budget][name].append(value)
        return defaultdict(
            dict,
            {
                cell: {name: math.fsum(values) / len(values) for name, values in some.items()}
                for cell, some in found.items()
            },
        )


def _rate(estimate: Estimate, problems: int) -> Estimate:
    """An estimate of a mean of 0 to 1, whose interval has width even if all problems agree."""
    if estimate.known and estimate.value <= 0:
        return estimate._replace(high=resampling.unanimous(problems))
    if estimate.known and estimate.value >= 1:
        return estimate._replace(low=1 - resampling.unanimous(problems))
    return estimate


def _verdict(estimate: Estimate, neutral: float, told: bool) -> Verdict:
    if told and estimate.low > neutral + 1e-9:  # sums are not exact
        return "better"
    if told and estimate.high < neutral - 1e-9:
        return "worse"
    return "cannot tell"


def _turned(pair: Comparison) -> Comparison:
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


def _ratio(needed: Floats, passes: Floats, budgets: Floats, first: Bools) -> tuple[Estimate, bool]:
    """How much sooner; the first element is what was observed, the others are resampled.

    A strategy that is there at its smallest budget may have been there before: the ratio lies
    between what it seems and inf. One that is not there at its largest may come later: between 0
    and what it would be there.
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # a budget of 0 is one too
        least = np.where(needed == passes, 1.0, needed / passes)
    most = np.where(first, np.inf, np.where(np.isinf(passes), needed / budgets[-1], least))
    tail = (1 - resampling.LEVEL) / 2
    low = np.quantile(least[1:], tail, method="lower")
    high = np.quantile(most[1:], 1 - tail, method="higher")
    return Estimate(float(least[0]), float(low), float(high)), bool(first[0])
