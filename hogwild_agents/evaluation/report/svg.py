"""Draws charts as SVG for the page: colours come from its style sheet, so both themes fit."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markupsafe import Markup

from hogwild_agents.evaluation.report.charts import Chart, Point, Series, spread
from hogwild_agents.evaluation.report.words import short

LINE = 17
"""Pixels from one label to the next."""

LETTER = 7.8
"""Pixels that a letter takes at most, on average."""


class Drawing:
    """One chart at one width, in pixels: text is as large on a phone as on a desk."""

    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self.chart, self.width, self.size = chart, width, height
        self.letters = 22 if width > 500 else 12
        longest = max((len(short(one.name, self.letters)) for one in chart.series), default=0)
        self.left, self.top, self.bottom = 50, 34, height - 50
        self.gap = 8 if chart.pointed else 18  # room for a sign
        self.right = width - 10 - self.gap - int(longest * LETTER)

    def draw(self) -> Markup:
        """The whole picture."""
        parts = [*self._frame(), *self._lines(), *self._labels()]
        label = f"{self.chart.title}. The figures are in the table below."
        return Markup(
            '<svg viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>'
        ).format(self.width, self.size, self.width, self.size, label, Markup("").join(parts))

    def _x(self, value: float) -> float:
        return self.left + 8 + self.chart.place(value) * (self.right - self.left - 16)

    def _y(self, value: float) -> float:
        return self.bottom - self.chart.share(value) * (self.bottom - self.top)

    def _frame(self) -> Iterator[Markup]:
        """Grid, ticks and what the axes are."""
        chart = self.chart
        for value in chart.heights:
            y = self._y(value)
            yield _line("grid", self.left, y, self.right, y)
            yield _text("tick end", self.left - 8, y + 4, chart.height(value))
        if chart.level is not None:
            y = self._y(chart.level)
            yield _line("level", self.left, y, self.right, y)
        taken: list[tuple[float, float]] = []
        for value in (chart.ticks[-1], *chart.ticks[:-1]):  # the ends are the last to be left out
            x, text = self._x(value), chart.tick(value)
            half = len(text) * LETTER / 2 + 1
            yield _line("grid", x, self.bottom, x, self.bottom + 5)
            if all(abs(x - other) >= half + room for other, room in taken):
                yield _text("tick middle", x, self.bottom + 20, text)
                taken.append((x, half))
        yield _text("axis", self.left - 42, 15, chart.up)
        right = min(max(self.right, 8 + len(chart.across) * LETTER), self.width)
        yield _text("axis end", right, self.size - 8, chart.across)

    def _lines(self) -> Iterator[Markup]:
        """Bands first, so that no band hides a line."""
        if self.chart.bands:
            for one in self.chart.series:
                yield self._band(one)
        for one in self.chart.series:
            places = [f"{self._x(p.x):.1f},{self._y(p.y.value):.1f}" for p in one.points]
            bars = [] if self.chart.bands else [bar for p in one.points for bar in self._bars(p)]
            line = Markup('<polyline class="line" points="{}"/>').format(" ".join(places))
            marks = [self._mark(p, one.colour) for p in one.points]
            yield _group(one, [*bars, line, *marks])

    def _band(self, one: Series) -> Markup:
        known = [p for p in one.points if p.y.known]
        upper = [f"{self._x(p.x):.1f},{self._y(p.y.high):.1f}" for p in known]
        lower = [f"{self._x(p.x):.1f},{self._y(p.y.low):.1f}" for p in reversed(known)]
        if len(known) == 1:
            return _group(one, self._bars(known[0]))
        shape = Markup('<polygon class="band" points="{}"/>').format(" ".join(upper + lower))
        return _group(one, [shape])

    def _bars(self, point: Point) -> Iterator[Markup]:
        x, y = self._x(point.x), self._y(point.y.value)
        if point.y.known:
            yield _line("bar", x, self._y(point.y.low), x, self._y(point.y.high))
        if point.sideways is not None and point.sideways.known:
            low, high = (
                min(max(end, self.chart.ticks[0]), self.chart.ticks[-1])
                for end in point.sideways[1:]
            )
            yield _line("bar", self._x(low), y, self._x(high), y)

    def _mark(self, point: Point, colour: int) -> Markup:
        """Shapes differ as colours do."""
        x, y = self._x(point.x), self._y(point.y.value)
        mark = _sign("", x, y, colour)
        return Markup('<g class="mark">{}<title>{}</title></g>').format(mark, point.note)

    def _labels(self) -> Iterator[Markup]:
        """Names at the ends of the lines, moved apart."""
        ends = [
            (self._x(one.points[-1].x), self._y(one.points[-1].y.value))
            for one in self.chart.series
        ]
        places = spread([y for _, y in ends], LINE, self.top, self.bottom)
        for one, (x, y), place in zip(self.chart.series, ends, places, strict=True):
            start = self.right + self.gap
            pointer = (
                _line("leader", x + 6, y, start - 3, place)
                if self.chart.pointed
                else _sign("mark", start - 9, place, one.colour)
            )
            name = _text(
                "name",
                start,
                place + 4,
                short(one.name, self.letters),
            )
            yield _group(one, [pointer, name])


def _polygon(corners: int, turn: float, radius: float) -> tuple[tuple[float, float], ...]:
    angles = (turn + 2 * math.pi * n / corners for n in range(corners))
    return tuple((radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles)


_SHAPES = (
    _polygon(16, 0, 4),  # a disc
    _polygon(4, math.pi / 4, 5),  # a square
    _polygon(3, 0, 5.6),  # a triangle
    _polygon(4, 0, 5.4),  # a diamond
    _polygon(3, math.pi, 5.6),
    _polygon(6, 0, 4.8),
    _polygon(5, 0, 4.8),
    _polygon(5, math.pi, 4.8),
)


def _sign(kind: str, x: float, y: float, colour: int) -> Markup:
    outline = _SHAPES[colour % len(_SHAPES)]
    corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in outline)
    return Markup('<polygon class="{}" points="{}"/>').format(kind, corners)


def _group(one: Series, parts: Iterator[Markup] | list[Markup]) -> Markup:
    kind = f"s{one.colour % len(_SHAPES)} {'again' if one.colour >= len(_SHAPES) else ''}"
    return Markup('<g class="{}">{}</g>').format(kind.strip(), Markup("").join(parts))


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    ends = (f"{end:.1f}" for end in (x1, y1, x2, y2))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *ends)


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    place = (f"{x:.1f}", f"{y:.1f}")
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, *place, text)
