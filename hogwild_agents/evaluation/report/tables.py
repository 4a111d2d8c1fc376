"""The report for programs (CSV) and for issues and notes (Markdown)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hogwild_agents.evaluation.figures import Estimate
from hogwild_agents.evaluation.report import words
from hogwild_agents.evaluation.report.findings import summary
from hogwild_agents.evaluation.statistics import COSTS, Analysis

COUNTS = ("problems", "records", "missing", "errors")
ESTIMATES = ("accuracy", *COSTS)


def as_csv(analysis: Analysis) -> str:
    """One line per strategy and budget; every mean is followed by the ends of its interval."""
    chances = sorted({k for row in analysis.summaries for k in row.pass_at})
    measures = sorted({name for row in analysis.summaries for name in row.measures})
    heading = ["strategy", "budget", *COUNTS]
    for name in ESTIMATES:
        heading += [name, f"{name}_low", f"{name}_high"]
    heading += [f"pass@{k}" for k in chances] + measures
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(heading)
    for row in analysis.summaries:
        cells: list[object] = [row.strategy, row.budget, *(getattr(row, n) for n in COUNTS)]
        for name in ESTIMATES:
            estimate: Estimate = getattr(row, name)
            cells += map(words.exact, estimate)
        cells += [words.exact(row.pass_at[k]) if k in row.pass_at else "" for k in chances]
        cells += [words.exact(row.measures[m]) if m in row.measures else "" for m in measures]
        lines.writerow(cells)
    return out.getvalue()


def as_markdown(
    analysis: Analysis, reference: str, run: Mapping[str, Any], pictures: Sequence[str]
) -> str:
    """The summary, the table, the comparisons and how the run was made."""
    parts = ["# Does a team answer sooner?"]
    parts += ["\n".join(f"- {plain(sentence)}" for sentence in summary(analysis, reference))]
    parts += [f"![{name}]({name}.png)" for name in pictures]
    parts += ["## By strategy and budget", "\n".join(_rows(analysis))]
    if len(analysis.strategies) > 1:
        parts += ["## Pairs", "\n".join(_pairs(analysis))]
        parts += [f"## Sooner than {plain(reference)}", "\n".join(_speed(analysis, reference))]
    if run:
        told = [f"- {plain(str(name))}: {plain(words.told(value))}" for name, value in run.items()]
        parts += ["## How it was run", "\n".join(told)]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", one_line)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _rows(analysis: Analysis) -> Iterator[str]:
    yield from _head(
        ["strategy", "budget", "accuracy", "95 %", "passes", "tokens", "time", "memory", "errors"]
    )
    for row in analysis.summaries:
        yield _line(
            [
                plain(row.strategy),
                f"{row.budget:,}",
                words.percent(row.accuracy.value),
                words.interval(row.accuracy, words.percent),
                words.mean(row.passes.value),
                words.mean(row.tokens.value),
                words.seconds(row.seconds.value),
                words.memory(row.memory.value),
                f"{row.errors:,} of {row.records:,}",
            ]
        )


def _pairs(analysis: Analysis) -> Iterator[str]:
    yield from _head(["strategy", "against", "budget", "points", "95 %", "adjusted p", "verdict"])
    for pair in analysis.comparisons:
        yield _line(
            [
                plain(pair.strategy),
                plain(pair.other),
                f"{pair.budget:,}",
                words.points(pair.difference.value),
                words.interval(pair.difference, words.points),
                words.chance(pair.adjusted),
                pair.verdict,
            ]
        )


def _speed(analysis: Analysis, reference: str) -> Iterator[str]:
    yield from _head(["strategy", "accuracy", "passes", "of the reference", "ratio", "95 %", ""])
    for found in analysis.speedups(reference):
        yield _line(
            [
                plain(found.strategy),
                words.percent(found.accuracy),
                words.mean(found.passes),
                words.mean(found.needed),
                words.speedup(found),
                words.interval(found.ratio, words.times),
                words.sooner(found.verdict),
            ]
        )
