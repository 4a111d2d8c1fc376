"""The bars that the GPU engine must reach, what was measured, and the report.

Imports nothing that may fail, so that the measurements are printed whatever else is broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
"""A line that `measuring.py` wrote: a `row`, a `profile`, a `startup` or a `note`, by its kind."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: the real thing, or a rehearsal on a CPU.

    Attributes:
        shape: A name in `shapes.SHAPES`.
        short: Tokens of a short context, 1k.
        teams_context: Tokens of context of each of many teams, 2k.
        long: Tokens of a long context, 16k.
        longest: Tokens of the longest context, 32k.
        teams: Number of teams, 32.
        passes: Timed passes of each case.
    """

    shape: str
    short: int
    teams_context: int
    long: int
    longest: int
    teams: int
    passes: int


REAL = Sizes("qwen3-8b", 1024, 2048, 16_384, 32_768, 32, 30)
TINY = Sizes("tiny", 48, 64, 96, 160, 3, 2)


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        what: What is measured, in words.
        limit: The value to reach.
        at_least: Whether the value must be at least the limit; otherwise it must be at most that.
        form: The format of its figures.
        value: The measured value; None if it was not measured.
    """

    what: str
    limit: float
    at_least: bool
    form: str
    value: float | None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def cells(self) -> tuple[str, str, str, str]:
        """Its row of the table."""
        sign = ">=" if self.at_least else "<="
        value = "-" if self.value is None else self.form.format(self.value)
        verdict = {None: "not measured", True: "yes", False: "NO"}[self.met]
        return self.what, f"{sign} {self.form.format(self.limit)}", value, verdict


def bars_of(lines: Sequence[Line], sizes: Sizes) -> list[Bar]:
    """Every bar with its measured value. Ratios are of cases that were timed in turns."""

    def row(scene: str, engine: str, workers: int, context: int, teams: int = 1) -> Line | None:
        key = (scene, engine, workers, context, teams)
        names = ("scene", "engine", "workers", "context", "teams")
        rows = [line for line in lines if line["kind"] == "row"]
        matches = [line for line in rows if tuple(line[name] for name in names) == key]
        return matches[-1] if matches else None

    def ratio(over: Line | None, under: Line | None, field: str) -> float | None:
        return None if over is None or under is None else over[field] / under[field]

    def share(line: Line | None) -> float | None:
        return None if line is None else line["bandwidth_share"]

    static = "transformers-static-compiled"
    ours = row("static", "hogwild", 4, sizes.long)
    theirs = row("static", static, 4, sizes.long)
    startup = [line for line in lines if line["kind"] == "startup"]
    percent, times, seconds = "{:.0%}", "{:.2f} x", "{:.1f} s"
    return [
        Bar(
            "1 worker at 1k, CUDA graphs only: share of bandwidth",
            *(0.5, True, percent),
            share(row("short", "hogwild", 1, sizes.short)),
        ),
        Bar(
            "1 worker at 1k, compiled: share of bandwidth",
            *(0.75, True, percent),
            share(row("compiled", "hogwild-compiled", 1, sizes.short)),
        ),
        Bar(
            "4 workers against 1 at 16k, tokens/s",
            *(3.7, True, times),
            ratio(
                row("long", "hogwild", 4, sizes.long),
                row("long", "hogwild", 1, sizes.long),
                "tokens_per_second",
            ),
        ),
        Bar(
            "4 workers at 32k against 1k, ms per pass",
            *(1.4, False, times),
            ratio(
                row("longest", "hogwild", 4, sizes.longest),
                row("longest", "hogwild", 4, sizes.short),
                "ms_per_pass",
            ),
        ),
        Bar(
            "attention only, 4 workers at 32k: share of bandwidth",
            *(0.75, True, percent),
            share(row("attention", "attention", 4, sizes.longest)),
        ),
        Bar(
            "4 workers at 16k against transformers static + compile, batch 4, tokens/s",
            *(1.5, True, times),
            ratio(ours, theirs, "tokens_per_second"),
        ),
        Bar(  # the workers' own pages put it just above
            "the same, memory of keys and values",
            *(0.25, False, "{:.3f} x"),
            ratio(ours, theirs, "kv_bytes"),
        ),
        Bar(
            "32 teams of 2 at 2k against one, tokens/s",
            *(15.0, True, times),
            ratio(
                row("teams", "hogwild", 2, sizes.teams_context, sizes.teams),
                row("teams", "hogwild", 2, sizes.teams_context),
                "tokens_per_second",
            ),
        ),
        Bar(
            "start-up with graphs, beyond loading",
            *(20.0, False, seconds),
            startup[-1]["seconds"] if startup else None,
        ),
    ]


def table(cells: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of text, the first one a heading; the columns in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def figures(lines: Sequence[Line]) -> str:
    """The table of all rows."""
    names = ("scene", "engine", "teams", "workers", "context", "ms", "limit ms", "reached")
    cells: list[tuple[str, ...]] = [(*names, "tokens/s", "cache MiB", "captures")]
    cells += [
        (
            *(f"{line[name]}" for name in names[:5]),
            f"{line['ms_per_pass']:.3f}",
            f"{line['limit_ms']:.3f}",
            f"{line['bandwidth_share']:.0%}",
            f"{line['tokens_per_second']:.1f}",
            f"{line['kv_bytes'] / 2**20:.1f}",
            f"{line['captures']}",
        )
        for line in lines
        if line["kind"] == "row"
    ]
    return table(cells, range(2, 11))


def profiles(lines: Sequence[Line]) -> str:
    """The table of where the time of passes went, in milliseconds."""
    lines = [line for line in lines if line["kind"] == "profile"]
    parts = list(dict.fromkeys(part for line in lines for part in line["parts"]))
    cells = [("engine", "teams", "workers", "context", *parts)]
    cells += [
        (
            *(f"{line[name]}" for name in ("engine", "teams", "workers", "context")),
            *(f"{line['parts'].get(part, 0.0):.3f}" for part in parts),
        )
        for line in lines
    ]
    return table(cells, range(1, len(cells[0])))


def report(lines: Sequence[Line], sizes: Sizes, head: Sequence[str], tests: str) -> str:
    """The report of a run; the bars come last.

    Args:
        lines: What was measured.
        sizes: The sizes that were measured.
        head: Lines about the machine and the run.
        tests: The result of the tests.
    """
    notes = [f"note: {line['text']}" for line in lines if line["kind"] == "note"]
    starts = [
        f"start-up: loading {line['loading']:.1f} s; then self-check {line['self_check']:.1f} s of "
        f"{line['loaded']:.1f} s, first passes {line['first_passes']:.1f} s, "
        f"{line['captures']} captured"
        for line in lines
        if line["kind"] == "startup"
    ]
    bars = [("what", "bar", "measured", "met"), *(bar.cells() for bar in bars_of(lines, sizes))]
    parts = [figures(lines), profiles(lines), "\n".join([*notes, *starts]), "\n".join(head)]
    return "\n\n".join([*(part for part in parts if part), table(bars), f"tests: {tests}"])
