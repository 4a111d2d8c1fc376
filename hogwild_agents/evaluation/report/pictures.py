"""Draws charts as PNGs, for papers and slides, with matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.report.charts import COLOURS, Chart, Point, spread
from hogwild_agents.evaluation.report.words import THIN, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^DvhpX"
INK, MUTED, GRID = "#1c2024", "#5c6670", "#e3e6e9"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a strategy's name is only a name
    "axes.edgecolor": "#b9c0c6",
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "hogwild",
}


def draw(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Writes one PNG per chart.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise EvaluationError(
            "PNGs need matplotlib: pip install 'hogwild-agents[eval]', or leave the pictures out. "
            "The page, the table and the summary are written."
        ) from None
    files = []
    for chart in charts:
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(8, 4.8), dpi=160, layout="constrained", facecolor="white")
            FigureCanvasAgg(figure)
            _draw(chart, figure.subplots())
            file = folder / f"{chart.name}.png"
            figure.savefig(file)
        files.append(file)
    return files


def _draw(chart: Chart, axes: Axes) -> None:
    axes.set_title(chart.title, loc="left", fontsize=13, fontweight="bold", pad=26)
    axes.text(0, 1.035, f"{chart.up}, with 95 % intervals", color=MUTED, transform=axes.transAxes)
    axes.set_xlabel(chart.across, loc="right")
    if chart.logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(chart.ticks, [chart.tick(x).replace(THIN, " ") for x in chart.ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(chart.heights, [chart.height(y).replace(THIN, " ") for y in chart.heights])
    if chart.ticks[0] < chart.ticks[-1]:
        margin = 1.0 if not chart.logarithmic else 1.06
        axes.set_xlim(chart.ticks[0] / margin, chart.ticks[-1] * margin)
    axes.set_ylim(chart.heights[0], chart.heights[-1])
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, axis="y")
    if chart.level is not None:
        axes.axhline(chart.level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for one in chart.series:
        _draw_series(chart, axes, one.colour, one.points)
    _label(chart, axes)


def _draw_series(chart: Chart, axes: Axes, place: int, points: tuple[Point, ...]) -> None:
    colour = COLOURS[place % len(COLOURS)]
    x, y = [point.x for point in points], [point.y.value for point in points]
    known = [point for point in points if point.y.known]
    at = [point.x for point in known]
    low, high = [point.y.low for point in known], [point.y.high for point in known]
    if chart.bands and len(known) > 1:
        axes.fill_between(at, low, high, color=colour, alpha=0.14, linewidth=0)
    else:
        axes.vlines(at, low, high, color=colour, alpha=0.55, linewidth=1.4)
        for point in points:
            if point.sideways is not None and point.sideways.known:
                _, left, right = point.sideways
                axes.hlines(point.y.value, left, right, color=colour, alpha=0.55, linewidth=1.4)
    axes.plot(
        x,
        y,
        color=colour,
        linewidth=2,
        linestyle="-" if place < len(COLOURS) else (0, (4, 2)),
        marker=MARKERS[place % len(MARKERS)],
        markersize=6,
        markeredgecolor="white",
        clip_on=False,
        zorder=3,
    )


def _label(chart: Chart, axes: Axes) -> None:
    """Names at the ends of the lines, moved apart, in shares of the axes' height."""
    ends = [chart.share(one.points[-1].y.value) for one in chart.series]
    for one, place in zip(chart.series, spread(ends, 0.055, 0, 1), strict=True):
        colour = COLOURS[one.colour % len(COLOURS)]
        last = one.points[-1]
        pointer = {
            "arrowstyle": "-",
            "color": colour,
            "alpha": 0.5,
            "shrinkA": 1,
            "shrinkB": 5,
            "linewidth": 0.9,
            "relpos": (0, 0.5),
        }
        axes.annotate(
            short(one.name, 28),
            xy=(last.x, last.y.value),
            xytext=(1.03 if chart.pointed else 1.045, place),
            textcoords="axes fraction",
            color=colour,
            fontweight="bold",
            va="center",
            annotation_clip=False,
            arrowprops=pointer if chart.pointed else None,
        )
        if not chart.pointed:
            axes.plot(
                1.025,
                place,
                color=colour,
                marker=MARKERS[one.colour % len(MARKERS)],
                markersize=6,
                transform=axes.transAxes,
                clip_on=False,
            )
