"""The report as CSV, for programs, and as Markdown, for issues and notes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hogwild_agents.evaluation.estimates import Estimate
from hogwild_agents.evaluation.report import formatting
from hogwild_agents.evaluation.report.findings import findings
from hogwild_agents.evaluation.statistics import COSTS, Analysis

COUNTS = ("problems", "records", "missing", "errors")
ESTIMATES = ("accuracy", *COSTS)


def as_csv(analysis: Analysis) -> str:
    """One line per strategy and budget; every mean is followed by its interval."""
    ks = sorted({k for row in analysis.summaries for k in row.pass_at})
    measures = sorted({name for row in analysis.summaries for name in row.measures})
    heading = ["strategy", "budget", *COUNTS]
    for name in ESTIMATES:
        heading += [name, f"{name}_low", f"{name}_high"]
    heading += [f"pass@{k}" for k in ks] + measures
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    for row in analysis.summaries:
        cells: list[object] = [row.strategy, row.budget, *(getattr(row, n) for n in COUNTS)]
        for name in ESTIMATES:
            estimate: Estimate = getattr(row, name)
            cells += map(formatting.exact, estimate)
        cells += [formatting.exact(row.pass_at[k]) if k in row.pass_at else "" for k in ks]
        cells += [formatting.exact(row.measures[m]) if m in row.measures else "" for m in measures]
        writer.writerow(cells)
    return text.getvalue()


def as_markdown(
    analysis: Analysis, reference: str, run: Mapping[str, Any], charts: Sequence[str]
) -> str:
    """The findings, the charts, the tables and how the run was made."""
    parts = ["# Does a team answer sooner?"]
    parts += ["\n".join(f"- {escape(sentence)}" for sentence in findings(analysis, reference))]
    parts += [f"![{name}]({name}.svg)" for name in charts]
    parts += ["## By strategy and budget", "\n".join(_rows(analysis))]
    if len(analysis.strategies) > 1:
        parts += ["## Comparisons", "\n".join(_comparisons(analysis))]
        parts += [f"## Speed-up over {escape(reference)}"]
        parts += ["\n".join(_speedups(analysis, reference))]
    if run:
        lines = [
            f"- {escape(str(name))}: {escape(formatting.plain(value))}"
            for name, value in run.items()
        ]
        parts += ["## How it was run", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text on one line that Markdown shows unchanged."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", one_line)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _rows(analysis: Analysis) -> Iterator[str]:
    yield from _heading(
        ["strategy", "budget", "accuracy", "95 %", "passes", "tokens", "time", "memory", "errors"]
    )
    for row in analysis.summaries:
        yield _line(
            [
                escape(row.strategy),
                f"{row.budget:,}",
                formatting.percent(row.accuracy.value),
                formatting.interval(row.accuracy, formatting.percent),
                formatting.mean(row.passes.value),
                formatting.mean(row.tokens.value),
                formatting.seconds(row.seconds.value),
                formatting.memory(row.memory.value),
                f"{row.errors:,} of {row.records:,}",
            ]
        )


def _comparisons(analysis: Analysis) -> Iterator[str]:
    yield from _heading(
        ["strategy", "compared with", "budget", "points", "95 %", "adjusted p", "verdict"]
    )
    for pair in analysis.comparisons:
        yield _line(
            [
                escape(pair.strategy),
                escape(pair.other),
                f"{pair.budget:,}",
                formatting.points(pair.difference.value),
                formatting.interval(pair.difference, formatting.points),
                formatting.p_value(pair.adjusted),
                pair.verdict,
            ]
        )


def _speedups(analysis: Analysis, reference: str) -> Iterator[str]:
    yield from _heading(
        ["strategy", "accuracy", "passes", "passes of the reference", "ratio", "95 %", "verdict"]
    )
    for speedup in analysis.speedups(reference):
        yield _line(
            [
                escape(speedup.strategy),
                formatting.percent(speedup.accuracy),
                formatting.mean(speedup.passes),
                formatting.mean(speedup.needed),
                formatting.speedup(speedup),
                formatting.interval(speedup.ratio, formatting.times),
                formatting.sooner(speedup.verdict),
            ]
        )
