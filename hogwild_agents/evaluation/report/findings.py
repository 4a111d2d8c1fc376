"""The report in a few sentences: which strategy is ahead at which budgets, and how clearly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from hogwild_agents.evaluation.estimates import Summary
from hogwild_agents.evaluation.report import formatting
from hogwild_agents.evaluation.statistics import Analysis


@dataclass(frozen=True, slots=True)
class Ranking:
    """The strategies at a budget.

    Attributes:
        budget: Forward passes.
        best: The strategy with the highest accuracy; the first of several.
        beaten: Strategies that it is significantly better than.
        separated: Those of them whose intervals do not overlap with that of the best.
        undecided: Strategies that may be as good.
        accuracy: Accuracy of the best.
    """

    budget: int
    best: str
    beaten: tuple[str, ...]
    separated: tuple[str, ...]
    undecided: tuple[str, ...]
    accuracy: float


def rankings(analysis: Analysis) -> Iterator[Ranking]:
    """One ranking per budget."""
    for budget in analysis.budgets:
        rows = {row.strategy: row for row in analysis.summaries if row.budget == budget}
        best = max(rows.values(), key=lambda row: row.accuracy.value)
        others = [row for row in rows.values() if row is not best]
        beaten = [
            row
            for row in others
            if analysis.compare(best.strategy, row.strategy, budget).verdict == "better"
        ]
        yield Ranking(
            budget,
            best.strategy,
            beaten=tuple(row.strategy for row in beaten),
            separated=tuple(row.strategy for row in beaten if _separated(best, row)),
            undecided=tuple(row.strategy for row in others if row not in beaten),
            accuracy=best.accuracy.value,
        )


def _separated(best: Summary, other: Summary) -> bool:
    return best.accuracy.low > other.accuracy.high


def findings(analysis: Analysis, reference: str) -> list[str]:
    """The findings as sentences, the most important first."""
    if all(row.errors == row.records for row in analysis.summaries):
        return ["All records are errors, so nothing can be said about accuracy. See the errors."]
    return [*_leaders(analysis), *_speedups(analysis, reference)]


def _leaders(analysis: Analysis) -> Iterator[str]:
    """Which strategy is ahead; budgets with the same ranking share a sentence."""
    if len(analysis.strategies) == 1:
        for row in (analysis.summaries[0], analysis.summaries[-1])[: len(analysis.budgets)]:
            yield (
                f"At {row.budget:,} passes {row.strategy} is right in "
                f"{formatting.percent(row.accuracy.value)} "
                f"({formatting.interval(row.accuracy, formatting.percent)})."
            )
        return
    groups = groupby(
        rankings(analysis),
        key=lambda r: (bool(r.beaten) and r.best, r.undecided, r.separated == r.beaten),
    )
    for (best, undecided, separated), group in groups:
        ranked = list(group)
        at = f"At {formatting.budgets([ranking.budget for ranking in ranked])} passes"
        if not best:
            if len(ranked[0].undecided) + 1 == len(analysis.strategies):
                yield f"{at} no strategy is significantly better than another."
            else:
                yield f"{at} none of the strategies that were run is significantly better."
            continue
        beaten = ranked[0].beaten
        test = "confidence intervals do not overlap" if separated else "paired test"
        losers = "all others" if not undecided else formatting.enumerate_names(beaten)
        shares = [formatting.percent(ranking.accuracy) for ranking in ranked]
        accuracy = shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
        sentence = f"{at} {best} is better than {losers} ({accuracy} right; {test})"
        if len(undecided) > len(beaten):  # nearly all are equal, so name those that are worse
            are = "is" if len(beaten) == 1 else "are"
            equal = formatting.enumerate_names(undecided)
            sentence = (
                f"{at} {formatting.enumerate_names(beaten)} {are} worse than {best} ({accuracy} "
                f"right; {test}); {equal} may be as good"
            )
        elif undecided:
            sentence += f"; {formatting.enumerate_names(undecided)} may be as good"
        yield f"{sentence}."


def _speedups(analysis: Analysis, reference: str) -> Iterator[str]:
    """The speed-up of each strategy at the highest accuracy where it is significant."""
    for strategy in analysis.strategies:
        significant = [
            speedup
            for speedup in analysis.speedups(reference)
            if speedup.strategy == strategy and speedup.verdict != "cannot tell"
        ]
        if not significant or significant[-1].verdict == "worse":
            continue
        speedup = significant[-1]
        at_most = "at most " if speedup.is_lower_bound else ""
        yield (
            f"For {formatting.percent(speedup.accuracy)} accuracy, {strategy} needs a budget of "
            f"{at_most}{formatting.count(round(speedup.passes))} passes, and {reference} "
            f"{formatting.count(round(speedup.needed))}: {formatting.speedup(speedup)} sooner "
            f"({formatting.interval(speedup.ratio, formatting.times)})."
        )
