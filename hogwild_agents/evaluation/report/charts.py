"""What the charts show; `svg` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hogwild_agents.evaluation.estimates import Estimate, Summary
from hogwild_agents.evaluation.report import formatting
from hogwild_agents.evaluation.statistics import Analysis


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a line.

    Attributes:
        x: Horizontal value.
        y: Vertical value, with its interval.
        note: Shown when the pointer is over it.
        x_interval: The horizontal interval, if there is one.
    """

    x: float
    y: Estimate
    note: str
    x_interval: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """The line of a strategy.

    Attributes:
        name: Name of the strategy.
        colour: Index of its colour, the same in all charts.
        points: From left to right.
    """

    name: str
    colour: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart.

    Attributes:
        name: Name of its file, without suffix.
        title: What it shows.
        x_label: What the horizontal axis is, with its unit.
        y_label: What the vertical axis is.
        series: The lines that have points.
        x_ticks: Ticks of the horizontal axis.
        y_ticks: Ticks of the vertical axis; the first and the last are its ends.
        shows_ratio: Whether it shows a ratio over accuracy, instead of accuracy over passes.
        bands: Whether intervals are drawn as bands, instead of bars.
        baseline: A horizontal line that means "no difference", if there is one.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]
    shows_ratio: bool = False
    bands: bool = True
    baseline: float | None = None

    @property
    def logarithmic(self) -> bool:
        """Whether the horizontal axis is logarithmic: if it spans a factor of six or more."""
        return self.x_ticks[0] > 0 and self.x_ticks[-1] >= 6 * self.x_ticks[0]

    @property
    def ends_align(self) -> bool:
        """Whether all lines end near the right edge, so that each can be joined to its name."""
        return all(self.x_position(line.points[-1].x) > 0.9 for line in self.series)

    def x_text(self, value: float) -> str:
        """The label of a tick of the horizontal axis."""
        return _percent(value) if self.shows_ratio else f"{value:,.0f}"

    def y_text(self, value: float) -> str:
        """The label of a tick of the vertical axis."""
        return f"{value:g}{formatting.TIMES}" if self.shows_ratio else _percent(value)

    def x_position(self, x: float) -> float:
        """Horizontal position from 0 to 1; a single tick is in the middle."""
        left, right = self.x_ticks[0], self.x_ticks[-1]
        if left == right:
            return 0.5
        if self.logarithmic:
            return math.log(x / left) / math.log(right / left)
        return (x - left) / (right - left)

    def y_position(self, y: float) -> float:
        """Vertical position from 0 to 1; values beyond the axis are moved to its end."""
        bottom, top = self.y_ticks[0], self.y_ticks[-1]
        return min(max((y - bottom) / (top - bottom), 0.0), 1.0)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}{formatting.THIN}%"


def charts(analysis: Analysis, reference: str) -> Iterator[Chart]:
    """All charts for which there are data."""
    yield _accuracy_by_budget(analysis)
    yield _accuracy_by_passes(analysis)
    speedup = _speedup(analysis, reference)
    if speedup.series:
        yield speedup


def spread(positions: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Moves labels apart, as little as possible, until no two are nearer than `gap`.

    Labels that push each other form a group, which is centred on the mean of their positions.
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    groups: list[list[int]] = []
    starts: list[float] = []
    for label in order:
        groups.append([label])
        starts.append(positions[label])
        while True:
            members = groups[-1]
            ideal = sum(positions[m] - n * gap for n, m in enumerate(members)) / len(members)
            starts[-1] = min(max(ideal, bottom), max(top - (len(members) - 1) * gap, bottom))
            if len(groups) < 2 or starts[-2] + len(groups[-2]) * gap <= starts[-1]:
                break
            groups[-2:] = [groups[-2] + groups[-1]]
            starts.pop()
    moved = [0.0] * len(positions)
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


def _by_strategy(analysis: Analysis) -> Iterator[tuple[int, str, list[Summary]]]:
    for colour, strategy in enumerate(analysis.strategies):
        yield colour, strategy, [row for row in analysis.summaries if row.strategy == strategy]


def _accuracy_ticks(analysis: Analysis) -> tuple[float, ...]:
    """From 0 to the largest value: an axis that starts higher would exaggerate differences."""
    largest = max(end for row in analysis.summaries for end in row.accuracy if not math.isnan(end))
    return round_ticks(0.0, min(max(largest, 0.1), 1.0))


def _note(row: Summary) -> str:
    return (
        f"{row.strategy}, budget {row.budget:,}: {formatting.percent(row.accuracy.value)} "
        f"({formatting.interval(row.accuracy, formatting.percent)}), "
        f"{formatting.mean(row.passes.value)} passes used"
    )


def _accuracy_by_budget(analysis: Analysis) -> Chart:
    return Chart(
        name="accuracy",
        title="Accuracy by budget",
        x_label="budget: forward passes allowed",
        y_label="accuracy",
        series=tuple(
            Series(name, colour, tuple(Point(r.budget, r.accuracy, _note(r)) for r in rows))
            for colour, name, rows in _by_strategy(analysis)
        ),
        x_ticks=tuple(map(float, analysis.budgets)),
        y_ticks=_accuracy_ticks(analysis),
    )


def _accuracy_by_passes(analysis: Analysis) -> Chart:
    lines = [
        Series(
            name,
            colour,
            tuple(
                Point(r.passes.value, r.accuracy, _note(r), r.passes)
                for r in rows
                if not math.isnan(r.passes.value)
            ),
        )
        for colour, name, rows in _by_strategy(analysis)
    ]
    passes = [point.x for line in lines for point in line.points] or [0.0, 1.0]
    return Chart(
        name="passes",
        title="Accuracy by passes used",
        x_label="mean passes used per problem",
        y_label="accuracy",
        series=tuple(line for line in lines if line.points),
        x_ticks=round_ticks(0.0, max(passes)),
        y_ticks=_accuracy_ticks(analysis),
        bands=False,
    )


def _speedup(analysis: Analysis, reference: str) -> Chart:
    speedups = analysis.speedups(reference)
    short_name = formatting.shorten(reference, 20)
    series = []
    for colour, name in enumerate(analysis.strategies):
        points = tuple(
            Point(
                speedup.accuracy,
                speedup.ratio,
                f"{name} compared with {reference} at {formatting.percent(speedup.accuracy)}: "
                f"{formatting.speedup(speedup)} "
                f"({formatting.interval(speedup.ratio, formatting.times)}), "
                f"{formatting.sooner(speedup.verdict)}",
            )
            for speedup in sorted(speedups, key=lambda speedup: speedup.accuracy)
            if speedup.strategy == name
            and speedup.ratio.value > 0
            and speedup.ratio.low > 0
            and math.isfinite(speedup.ratio.high)
        )
        if points:
            series.append(Series(name, colour, points))
    shown = [point for line in series for point in line.points]
    xs = [point.x for point in shown] or [0.0]
    ys = [end for point in shown for end in point.y] or [1.0]
    return Chart(
        name="speedup",
        title=f"Speed-up over {short_name} at equal accuracy",
        x_label=f"accuracy of {short_name}",
        y_label=f"passes of {short_name} / passes needed",
        series=tuple(series),
        x_ticks=round_ticks(min(xs), max(xs)),
        y_ticks=round_ticks(0.0, max(*ys, 1.0)),
        shows_ratio=True,
        bands=False,
        baseline=1.0,
    )
