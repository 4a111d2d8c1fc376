"""Numbers, intervals and verdicts as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from hogwild_agents.evaluation.estimates import Comparison, Estimate, Speedup

Format: TypeAlias = Callable[[float], str]

UNKNOWN = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
BETWEEN = "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}"
THIN = "\N{NARROW NO-BREAK SPACE}"

MARKS = {"better": "▲", "worse": "▼", "cannot tell": "·"}
"""Shown next to the word, for readers who do not see colours."""


def exact(value: float) -> str:
    """A number for programs: at most four decimals; empty if it is not finite."""
    if not math.isfinite(value):
        return ""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _handles_missing(show: Format) -> Format:
    def text(value: float) -> str:
        if math.isinf(value):
            return "∞"
        return UNKNOWN if math.isnan(value) else show(value).replace("-", MINUS)

    return text


@_handles_missing
def count(value: float) -> str:
    """A whole number: 1,234."""
    return f"{value:,.0f}"


@_handles_missing
def mean(value: float) -> str:
    """A mean of whole numbers: 72.9; 1,234."""
    return f"{value:,.1f}" if abs(value) < 999.95 else f"{value:,.0f}"


@_handles_missing
def precise(value: float) -> str:
    """0.31: for small counts."""
    return f"{value:,.2f}"


@_handles_missing
def percent(value: float) -> str:
    """71.3 %."""
    return f"{100 * value:.1f}{THIN}%"


@_handles_missing
def points(value: float) -> str:
    """Percentage points, with a sign: +12.0."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


@_handles_missing
def times(value: float) -> str:
    """A ratio: two decimals below ten."""
    return f"{value:.2f}{TIMES}" if value < 9.995 else f"{value:,.1f}{TIMES}"


@_handles_missing
def seconds(value: float) -> str:
    """0.71 s; 1,204 s."""
    return f"{value:,.2f}{THIN}s" if value < 100 else f"{value:,.0f}{THIN}s"


@_handles_missing
def memory(value: float) -> str:
    """2.13 MB: powers of ten."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:,.2f}{THIN}{unit}"
    return f"{value:,.0f}{THIN}B"


@_handles_missing
def p_value(value: float) -> str:
    """A p-value: 0.012."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(estimate: Estimate, show: Format) -> str:
    """Both ends, with the unit once."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return UNKNOWN
    low, high = show(estimate.low), show(estimate.high)
    unit = high[-1] if high.endswith(TIMES) else "".join(high.partition(THIN)[1:])
    return f"{low.removesuffix(unit)}{BETWEEN}{high}"


def plain(value: object) -> str:
    """A JSON value as text: a mapping is `torch 2.13.0, numpy 2.4.6`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)


def shorten(name: str, length: int) -> str:
    """Leaves out the middle of a long name: beginnings and ends differ most often."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[: length - 1 - half]}…{name[-half:]}"


def enumerate_names(names: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def budgets(values: Sequence[int]) -> str:
    """32 to 96: consecutive budgets of a run."""
    ends = [f"{value:,}" for value in values]
    if len(ends) > 2:
        return f"{ends[0]} to {ends[-1]}"
    return " and ".join(ends)


def speedup(speedup: Speedup) -> str:
    """The ratio, or its lower bound."""
    if math.isnan(speedup.ratio.value):
        return UNKNOWN
    if math.isinf(speedup.passes):
        return "not reached"
    return f"{'≥ ' if speedup.is_lower_bound else ''}{times(speedup.ratio.value)}"


def sooner(verdict: str) -> str:
    """The verdict on a speed-up."""
    return {"better": "sooner", "worse": "later"}.get(verdict, "cannot tell")


def comparison(pair: Comparison) -> str:
    """▲ better."""
    return f"{MARKS[pair.verdict]} {pair.verdict}"
