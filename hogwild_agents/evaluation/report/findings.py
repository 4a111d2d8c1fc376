"""The report in a few sentences: who is ahead at which budgets, and whether beyond doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from hogwild_agents.evaluation.figures import Summary
from hogwild_agents.evaluation.report import words
from hogwild_agents.evaluation.statistics import Analysis


@dataclass(frozen=True, slots=True)
class Standing:
    """Who is ahead at a budget.

    Attributes:
        budget: Forward passes.
        best: The strategy of the highest accuracy; the first of several.
        beaten: Those that it is better than, beyond doubt.
        apart: Of these, the ones whose intervals do not even touch that of the best.
        open: Those of which one cannot tell.
        accuracy: Of the best.
    """

    budget: int
    best: str
    beaten: tuple[str, ...]
    apart: tuple[str, ...]
    open: tuple[str, ...]
    accuracy: float


def standings(analysis: Analysis) -> Iterator[Standing]:
    """One per budget."""
    for budget in analysis.budgets:
        rows = {row.strategy: row for row in analysis.summaries if row.budget == budget}
        best = max(rows.values(), key=lambda row: row.accuracy.value)
        others = [row for row in rows.values() if row is not best]
        beaten = [
            row
            for row in others
            if analysis.compare(best.strategy, row.strategy, budget).verdict == "better"
        ]
        yield Standing(
            budget,
            best.strategy,
            beaten=tuple(row.strategy for row in beaten),
            apart=tuple(row.strategy for row in beaten if _apart(best, row)),
            open=tuple(row.strategy for row in others if row not in beaten),
            accuracy=best.accuracy.value,
        )


def _apart(best: Summary, other: Summary) -> bool:
    return best.accuracy.low > other.accuracy.high


def summary(analysis: Analysis, reference: str) -> list[str]:
    """Plain sentences, the most important first."""
    if all(row.errors == row.records for row in analysis.summaries):
        return ["Every record is an error: nothing can be said about accuracy. See the errors."]
    sentences = list(_ahead(analysis))
    sentences += _sooner(analysis, reference)
    return sentences


def _ahead(analysis: Analysis) -> Iterator[str]:
    """Who is ahead; budgets at which the same holds share a sentence."""
    if len(analysis.strategies) == 1:
        for row in (analysis.summaries[0], analysis.summaries[-1])[: len(analysis.budgets)]:
            yield (
                f"At {row.budget:,} passes {row.strategy} is right in "
                f"{words.percent(row.accuracy.value)} "
                f"({words.interval(row.accuracy, words.percent)})."
            )
        return
    same = groupby(
        standings(analysis),
        key=lambda s: (bool(s.beaten) and s.best, s.open, s.apart == s.beaten),
    )
    for (best, doubtful, apart), group in same:
        places = list(group)
        at = f"At {words.budgets([place.budget for place in places])} passes"
        if not best:
            if len(places[0].open) + 1 == len(analysis.strategies):
                yield f"{at} one cannot tell the strategies apart."
            else:
                yield f"{at} one cannot tell who is ahead of those that were run."
            continue
        beaten = places[0].beaten
        how = "beyond the confidence intervals" if apart else "beyond doubt by the paired test"
        whom = "all others" if not doubtful else words.listed(beaten)
        shares = [words.percent(place.accuracy) for place in places]
        reached = shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
        sentence = f"{at} {best} is ahead of {whom}, {how} ({reached} right)"
        if len(doubtful) > len(beaten):  # the top is shared; what is news is who is behind
            is_behind = "is behind" if len(beaten) == 1 else "are behind"
            sentence = (
                f"{at} {words.listed(beaten)} {is_behind}, {how}; {words.listed(doubtful)} cannot "
                f"be told from {best}, which is highest ({reached} right)"
            )
        elif doubtful:
            sentence += f"; it cannot be told from {words.listed(doubtful, 'or')}"
        yield f"{sentence}."


def _sooner(analysis: Analysis, reference: str) -> Iterator[str]:
    """What each strategy saves at the highest accuracy at which it can be told."""
    for strategy in analysis.strategies:
        told = [
            found
            for found in analysis.speedups(reference)
            if found.strategy == strategy and found.verdict != "cannot tell"
        ]
        if not told or told[-1].verdict == "worse":
            continue
        found = told[-1]
        least = "at most " if found.first else ""
        yield (
            f"{strategy} needs a budget of {least}{words.count(round(found.passes))} passes for "
            f"the {words.percent(found.accuracy)} for which {reference} needs one of "
            f"{words.count(round(found.needed))}: {words.speedup(found)} sooner "
            f"({words.interval(found.ratio, words.times)})."
        )
