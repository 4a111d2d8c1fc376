"""Draws charts as SVG, for the page and for files of their own.

Elements have CSS classes instead of colours: on the page they follow its theme, and a file carries
its own style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from markupsafe import Markup

from hogwild_agents.evaluation.report import colours
from hogwild_agents.evaluation.report.charts import Chart, Point, Series, spread
from hogwild_agents.evaluation.report.formatting import shorten

STYLE = Path(__file__).with_name("chart.css").read_text(encoding="utf-8")

LINE_HEIGHT = 17
"""Pixels between two names."""

LETTER_WIDTH = 7.8
"""Largest mean width of a letter in pixels."""


def for_page(chart: Chart) -> Markup:
    """A chart in two widths, of which the page shows one."""
    label = f"{chart.title}. The numbers are in the table below."
    wide, narrow = (
        _element(label, width, height, Drawing(chart, width, height).content())
        for width, height in ((860, 420), (352, 320))
    )
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)


def as_file(chart: Chart) -> str:
    """A chart with its title as a whole SVG file, in the light theme."""
    style = colours.without_variables(STYLE + colours.series_rules())
    heading = Markup(
        '<style>{}</style><rect class="paper" width="100%" height="100%"/>'
        '<text class="title" x="16" y="32">{}</text>'
        '<text class="tick" x="16" y="52">with 95 % confidence intervals</text>'
        '<g transform="translate(8 64)">{}</g>'
    ).format(Markup(style), chart.title, Drawing(chart, 860, 420).content())
    return f"{_element(chart.title, 880, 490, heading)}\n"


def _element(label: str, width: int, height: int, content: Markup) -> Markup:
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" width="{}" height="{}" '
        'role="img" aria-label="{}">{}</svg>'
    ).format(width, height, width, height, label, content)


class Drawing:
    """A chart at one size in pixels: text is equally large on phones and on desktops."""

    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self.chart, self.width, self.height = chart, width, height
        self.name_length = 22 if width > 500 else 12
        lengths = [len(shorten(line.name, self.name_length)) for line in chart.series]
        self.left, self.top, self.bottom = 50, 34, height - 50
        self.gap = 8 if chart.ends_align else 18  # the latter leaves room for a marker
        self.right = width - 10 - self.gap - int(max(lengths, default=0) * LETTER_WIDTH)

    def content(self) -> Markup:
        """All elements."""
        return Markup("").join([*self._frame(), *self._lines(), *self._names()])

    def _x(self, value: float) -> float:
        return self.left + 8 + self.chart.x_position(value) * (self.right - self.left - 16)

    def _y(self, value: float) -> float:
        return self.bottom - self.chart.y_position(value) * (self.bottom - self.top)

    def _frame(self) -> Iterator[Markup]:
        """The grid, the ticks and the labels of the axes."""
        chart = self.chart
        for value in chart.y_ticks:
            y = self._y(value)
            yield _line("grid", self.left, y, self.right, y)
            yield _text("tick end", self.left - 8, y + 4, chart.y_text(value))
        if chart.baseline is not None:
            y = self._y(chart.baseline)
            yield _line("baseline", self.left, y, self.right, y)
        occupied: list[tuple[float, float]] = []
        for value in (chart.x_ticks[-1], *chart.x_ticks[:-1]):  # the last tick is always labelled
            x, text = self._x(value), chart.x_text(value)
            half_width = len(text) * LETTER_WIDTH / 2 + 1
            yield _line("grid", x, self.bottom, x, self.bottom + 5)
            if all(abs(x - other) >= half_width + half for other, half in occupied):
                yield _text("tick middle", x, self.bottom + 20, text)
                occupied.append((x, half_width))
        yield _text("axis", self.left - 42, 15, chart.y_label)
        right = min(max(self.right, 8 + len(chart.x_label) * LETTER_WIDTH), self.width)
        yield _text("axis end", right, self.height - 8, chart.x_label)

    def _lines(self) -> Iterator[Markup]:
        """The lines; bands come first, so that no band hides a line."""
        if self.chart.bands:
            for line in self.chart.series:
                yield self._band(line)
        for line in self.chart.series:
            corners = " ".join(f"{self._x(p.x):.1f},{self._y(p.y.value):.1f}" for p in line.points)
            bars = [] if self.chart.bands else [bar for p in line.points for bar in self._bars(p)]
            markers = [self._marker(point, line.colour) for point in line.points]
            yield _group(line, [*bars, _shape("polyline", "line", corners), *markers])

    def _band(self, line: Series) -> Markup:
        known = [p for p in line.points if p.y.known]
        if len(known) == 1:
            return _group(line, self._bars(known[0]))
        upper = [f"{self._x(p.x):.1f},{self._y(p.y.high):.1f}" for p in known]
        lower = [f"{self._x(p.x):.1f},{self._y(p.y.low):.1f}" for p in reversed(known)]
        return _group(line, [_shape("polygon", "band", " ".join(upper + lower))])

    def _bars(self, point: Point) -> Iterator[Markup]:
        x, y = self._x(point.x), self._y(point.y.value)
        if point.y.known:
            yield _line("bar", x, self._y(point.y.low), x, self._y(point.y.high))
        if point.x_interval is not None and point.x_interval.known:
            first, last = self.chart.x_ticks[0], self.chart.x_ticks[-1]
            low, high = (min(max(end, first), last) for end in point.x_interval[1:])
            yield _line("bar", self._x(low), y, self._x(high), y)

    def _marker(self, point: Point, colour: int) -> Markup:
        symbol = _symbol("", self._x(point.x), self._y(point.y.value), colour)
        return Markup('<g class="marker">{}<title>{}</title></g>').format(symbol, point.note)

    def _names(self) -> Iterator[Markup]:
        """The names at the ends of the lines, moved apart."""
        ends = [
            (self._x(line.points[-1].x), self._y(line.points[-1].y.value))
            for line in self.chart.series
        ]
        heights = spread([y for _, y in ends], LINE_HEIGHT, self.top, self.bottom)
        for line, (x, y), height in zip(self.chart.series, ends, heights, strict=True):
            start = self.right + self.gap
            pointer = (
                _line("leader", x + 6, y, start - 3, height)
                if self.chart.ends_align
                else _symbol("marker", start - 9, height, line.colour)
            )
            name = shorten(line.name, self.name_length)
            yield _group(line, [pointer, _text("name", start, height + 4, name)])


def _polygon(corners: int, turn: float, radius: float) -> tuple[tuple[float, float], ...]:
    angles = (turn + 2 * math.pi * n / corners for n in range(corners))
    return tuple((radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles)


_SYMBOLS = (
    _polygon(16, 0, 4),  # a disc
    _polygon(4, math.pi / 4, 5),  # a square
    _polygon(3, 0, 5.6),  # a triangle
    _polygon(4, 0, 5.4),  # a diamond
    _polygon(3, math.pi, 5.6),
    _polygon(6, 0, 4.8),
    _polygon(5, 0, 4.8),
    _polygon(5, math.pi, 4.8),
)
"""One per colour, so that lines differ without colour too."""


def _symbol(kind: str, x: float, y: float, colour: int) -> Markup:
    corners = _SYMBOLS[colour % len(_SYMBOLS)]
    return _shape("polygon", kind, " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners))


def _group(line: Series, parts: Iterable[Markup]) -> Markup:
    again = " again" if line.colour >= colours.COUNT else ""
    kind = f"s{line.colour % colours.COUNT}{again}"
    return Markup('<g class="{}">{}</g>').format(kind, Markup("").join(parts))


def _shape(tag: str, kind: str, points: str) -> Markup:
    return Markup('<{} class="{}" points="{}"/>').format(tag, kind, points)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    ends = (f"{end:.1f}" for end in (x1, y1, x2, y2))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *ends)


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    position = (f"{x:.1f}", f"{y:.1f}")
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, *position, text)
