"""What the charts show, without saying how it is drawn: `svg` and `pictures` both draw these."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hogwild_agents.evaluation.figures import Estimate, Summary
from hogwild_agents.evaluation.report import words
from hogwild_agents.evaluation.statistics import Analysis

COLOURS = ("#0072b2", "#d55e00", "#008a63", "#a8487f", "#9a6700", "#2f8fc9", "#6b6b6b", "#5b4bb7")
"""Okabe and Ito's palette, safe for the colour-blind, the light ones darkened for white paper."""

DARK = ("#56b4e9", "#ff8b4a", "#2dcba0", "#ea9cc8", "#e9b23c", "#8fd0f5", "#b5b5b5", "#a99bf5")
"""The same for a dark page."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a chart.

    Attributes:
        x: Across.
        y: Up, with its interval.
        note: What it says when it is pointed at.
        sideways: The interval across, if there is one.
    """

    x: float
    y: Estimate
    note: str
    sideways: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A strategy's line.

    Attributes:
        name: Of the strategy.
        colour: Its place in the palette, the same in all charts.
        points: From left to right.
    """

    name: str
    colour: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart.

    Attributes:
        name: Of its file.
        title: What it shows.
        across: What the horizontal axis is, with its unit.
        up: What the vertical axis is.
        series: The lines; those without points are left out.
        ticks: On the horizontal axis.
        heights: Ticks on the vertical axis, the first and last its ends.
        percent: Whether heights are shares by passes; they are ratios by shares otherwise.
        bands: Whether intervals are bands rather than bars.
        level: A height that means `no difference`, if there is one.
    """

    name: str
    title: str
    across: str
    up: str
    series: tuple[Series, ...]
    ticks: tuple[float, ...]
    heights: tuple[float, ...]
    percent: bool = True
    bands: bool = True
    level: float | None = None

    @property
    def logarithmic(self) -> bool:
        """Budgets that span a factor of six or more are spread evenly by their logarithm."""
        return self.ticks[0] > 0 and self.ticks[-1] >= 6 * self.ticks[0]

    @property
    def pointed(self) -> bool:
        """Whether all lines end where their names stand: then names need no sign of their own."""
        return all(self.place(one.points[-1].x) > 0.9 for one in self.series)

    def height(self, value: float) -> str:
        """A tick of the vertical axis, in words."""
        return f"{100 * value:.0f}{words.THIN}%" if self.percent else f"{value:g}{words.TIMES}"

    def tick(self, value: float) -> str:
        """A tick of the horizontal axis: passes, or the share that the reference reaches."""
        return f"{value:,.0f}" if self.percent else f"{100 * value:.0f}{words.THIN}%"

    def place(self, x: float) -> float:
        """How far to the right, from 0 to 1; a lone tick stands in the middle."""
        left, right = self.ticks[0], self.ticks[-1]
        if left == right:
            return 0.5
        if self.logarithmic:
            return math.log(x / left) / math.log(right / left)
        return (x - left) / (right - left)

    def share(self, y: float) -> float:
        """How far up, from 0 to 1; what lies outside is drawn at the edge."""
        bottom, top = self.heights[0], self.heights[-1]
        return min(max((y - bottom) / (top - bottom), 0.0), 1.0)


def charts(analysis: Analysis, reference: str) -> Iterator[Chart]:
    """All charts that the records allow."""
    yield _accuracy(analysis)
    yield _used(analysis)
    speed = _speedup(analysis, reference)
    if speed.series:
        yield speed


def spread(places: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Moves labels apart until none is nearer than `gap` to the next, as little as possible.

    Neighbours that push each other form a group, which stands around the mean of where its labels
    want to be.
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    groups: list[list[int]] = []
    starts: list[float] = []
    for place in order:
        groups.append([place])
        starts.append(places[place])
        while True:
            members = groups[-1]
            wish = sum(places[m] - n * gap for n, m in enumerate(members)) / len(members)
            starts[-1] = min(max(wish, bottom), max(top - (len(members) - 1) * gap, bottom))
            if len(groups) < 2 or starts[-2] + len(groups[-2]) * gap <= starts[-1]:
                break
            groups[-2:] = [groups[-2] + groups[-1]]
            starts.pop()
    moved = [0.0] * len(places)
    for start, members in zip(starts, groups, strict=True):
        for n, member in enumerate(members):
            moved[member] = start + n * gap
    return moved


def round_ticks(low: float, high: float, about: int = 5) -> tuple[float, ...]:
    """Round numbers that enclose a range."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * s for s in (1, 2, 2.5, 5, 10) if power * s * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(step * n, 10) for n in range(first, max(last, first + 1) + 1))


def _rows(analysis: Analysis) -> Iterator[tuple[int, str, list[Summary]]]:
    for colour, strategy in enumerate(analysis.strategies):
        yield colour, strategy, [row for row in analysis.summaries if row.strategy == strategy]


def _shares(analysis: Analysis) -> tuple[float, ...]:
    """Accuracy from 0, up to what is needed: the page must not make small things look large."""
    highest = max(end for row in analysis.summaries for end in row.accuracy if not math.isnan(end))
    return round_ticks(0.0, min(max(highest, 0.1), 1.0))


def _note(row: Summary) -> str:
    return (
        f"{row.strategy}, budget {row.budget:,}: {words.percent(row.accuracy.value)} "
        f"({words.interval(row.accuracy, words.percent)}), "
        f"{words.mean(row.passes.value)} passes used"
    )


def _accuracy(analysis: Analysis) -> Chart:
    return Chart(
        name="accuracy",
        title="Accuracy against budget",
        across="budget: forward passes allowed",
        up="accuracy",
        series=tuple(
            Series(name, colour, tuple(Point(r.budget, r.accuracy, _note(r)) for r in rows))
            for colour, name, rows in _rows(analysis)
        ),
        ticks=tuple(map(float, analysis.budgets)),
        heights=_shares(analysis),
    )


def _used(analysis: Analysis) -> Chart:
    series = tuple(
        Series(
            name,
            colour,
            tuple(
                Point(r.passes.value, r.accuracy, _note(r), r.passes)
                for r in rows
                if not math.isnan(r.passes.value)
            ),
        )
        for colour, name, rows in _rows(analysis)
    )
    used = [point.x for one in series for point in one.points] or [0.0, 1.0]
    return Chart(
        name="passes",
        title="Accuracy against passes used",
        across="mean passes used per problem",
        up="accuracy",
        series=tuple(one for one in series if one.points),
        ticks=round_ticks(0.0, max(used)),
        heights=_shares(analysis),
        bands=False,
    )


def _speedup(analysis: Analysis, reference: str) -> Chart:
    found = analysis.speedups(reference)
    whose = words.short(reference, 20)
    series = []
    for colour, name in enumerate(analysis.strategies):
        points = tuple(
            Point(
                one.accuracy,
                one.ratio,
                f"{name} against {reference} at {words.percent(one.accuracy)}: "
                f"{words.speedup(one)} ({words.interval(one.ratio, words.times)}), "
                f"{words.sooner(one.verdict)}",
            )
            for one in sorted(found, key=lambda one: one.accuracy)
            if one.strategy == name
            and one.ratio.value > 0
            and one.ratio.low > 0
            and math.isfinite(one.ratio.high)
        )
        if points:
            series.append(Series(name, colour, points))
    shown = [point for one in series for point in one.points]
    xs = [point.x for point in shown] or [0.0]
    ends = [end for point in shown for end in point.y] or [1.0]
    return Chart(
        name="speedup",
        title=f"How much sooner than {whose}, at equal accuracy",
        across=f"accuracy that {whose} reaches",
        up=f"passes of {whose} / passes needed",
        series=tuple(series),
        ticks=round_ticks(min(xs), max(xs)),
        heights=round_ticks(0.0, max(*ends, 1.0)),
        percent=False,
        bands=False,
        level=1.0,
    )
