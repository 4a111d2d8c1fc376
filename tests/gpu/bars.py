"""The bars of the GPU engine, what was measured against them, and the table that says so.

Imports nothing that may fail: what was measured is printed whatever else is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Any]
"""A line that `measuring.py` wrote: a `row`, a `profile`, a `startup` or a `note`, by its kind."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: the real thing, or a rehearsal on a CPU.

    Attributes:
        shape: A name of `bench.SHAPES`.
        short: Tokens of context that the issue calls 1k.
        teams_context: 2k.
        long: 16k.
        longest: 32k.
        teams: 32.
        passes: Timed passes of each engine.
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
        what: In words.
        limit: What must be reached.
        at_least: Whether more is better; else less is.
        form: How its figures are written.
        value: What was measured, None if it was not.
    """

    what: str
    limit: float
    at_least: bool
    form: str
    value: float | None

    @property
    def met(self) -> bool | None:
        """Whether it is; None if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def cells(self) -> tuple[str, str, str, str]:
        """As a row of the table."""
        sign = ">=" if self.at_least else "<="
        value = "-" if self.value is None else self.form.format(self.value)
        verdict = {None: "not measured", True: "yes", False: "NO"}[self.met]
        return self.what, f"{sign} {self.form.format(self.limit)}", value, verdict


def bars_of(found: Sequence[Found], sizes: Sizes) -> list[Bar]:
    """Every bar with what was measured of it. Ratios are of engines that took turns."""

    def row(scene: str, engine: str, workers: int, context: int, teams: int = 1) -> Found | None:
        wanted = (scene, engine, workers, context, teams)
        names = ("scene", "engine", "workers", "context", "teams")
        rows = [f for f in found if f["kind"] == "row" and tuple(f[n] for n in names) == wanted]
        return rows[-1] if rows else None

    def ratio(over: Found | None, under: Found | None, field: str) -> float | None:
        return None if over is None or under is None else over[field] / under[field]

    def share(line: Found | None) -> float | None:
        return None if line is None else line["bandwidth_share"]

    static = "transformers-static-compiled"
    ours = row("static", "hogwild", 4, sizes.long)
    theirs = row("static", static, 4, sizes.long)
    startup = [f for f in found if f["kind"] == "startup"]
    percent, times, seconds = "{:.0%}", "{:.2f} x", "{:.1f} s"
    make: Callable[..., Bar] = Bar
    return [
        make(
            "1 worker at 1k, graphs alone: share of the floor",
            *(0.5, True, percent),
            share(row("short", "hogwild", 1, sizes.short)),
        ),
        make(
            "1 worker at 1k, compiled: share of the floor",
            *(0.75, True, percent),
            share(row("compiled", "hogwild-compiled", 1, sizes.short)),
        ),
        make(
            "4 workers against 1 at 16k, tokens/s",
            *(3.7, True, times),
            ratio(
                row("long", "hogwild", 4, sizes.long),
                row("long", "hogwild", 1, sizes.long),
                "tokens_per_second",
            ),
        ),
        make(
            "4 workers at 32k against 1k, ms per pass",
            *(1.4, False, times),
            ratio(
                row("longest", "hogwild", 4, sizes.longest),
                row("longest", "hogwild", 4, sizes.short),
                "ms_per_pass",
            ),
        ),
        make(
            "attention alone, 4 workers at 32k: share of copying",
            *(0.75, True, percent),
            share(row("attention", "attention", 4, sizes.longest)),
        ),
        make(
            "4 workers at 16k against transformers static + compile, batch 4, tokens/s",
            *(1.5, True, times),
            ratio(ours, theirs, "tokens_per_second"),
        ),
        make(  # the pages of what the workers write themselves put it just above
            "the same, memory of keys and values",
            *(0.25, False, "{:.3f} x"),
            ratio(ours, theirs, "kv_bytes"),
        ),
        make(
            "32 teams of 2 at 2k against one, tokens/s",
            *(15.0, True, times),
            ratio(
                row("teams", "hogwild", 2, sizes.teams_context, sizes.teams),
                row("teams", "hogwild", 2, sizes.teams_context),
                "tokens_per_second",
            ),
        ),
        make(
            "start-up with graphs, beyond loading",
            *(20.0, False, seconds),
            startup[-1]["seconds"] if startup else None,
        ),
    ]


def table(cells: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of text under each other, the first one a heading; some columns to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def figures(found: Sequence[Found]) -> str:
    """All rows, with their floors."""
    names = ("scene", "engine", "teams", "workers", "context", "ms", "floor ms", "reached")
    cells = [(*names, "tokens/s", "cache MiB", "recorded")]
    cells += [
        (
            *(f"{line[name]}" for name in names[:5]),
            f"{line['ms_per_pass']:.3f}",
            f"{line['floor_ms']:.3f}",
            f"{line['bandwidth_share']:.0%}",
            f"{line['tokens_per_second']:.1f}",
            f"{line['kv_bytes'] / 2**20:.1f}",
            f"{line['recordings']}",
        )
        for line in found
        if line["kind"] == "row"
    ]
    return table(cells, range(2, 11))


def profiles(found: Sequence[Found]) -> str:
    """Where the time of passes went, in milliseconds."""
    lines = [line for line in found if line["kind"] == "profile"]
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


def report(found: Sequence[Found], sizes: Sizes, head: Sequence[str], tests: str) -> str:
    """All that a run has to say; the bars last.

    Args:
        found: What was measured.
        sizes: Of what.
        head: Lines about the machine and the run.
        tests: What came of the tests.
    """
    notes = [f"note: {line['text']}" for line in found if line["kind"] == "note"]
    starts = [
        f"start-up: loading {line['loading']:.1f} s; then self-check {line['self_check']:.1f} s of "
        f"{line['loaded']:.1f} s, first passes {line['first_passes']:.1f} s, "
        f"{line['recordings']} recorded"
        for line in found
        if line["kind"] == "startup"
    ]
    bars = [("what", "bar", "measured", "met"), *(bar.cells() for bar in bars_of(found, sizes))]
    parts = [figures(found), profiles(found), "\n".join([*notes, *starts]), "\n".join(head)]
    return "\n\n".join([*(part for part in parts if part), table(bars), f"tests: {tests}"])
