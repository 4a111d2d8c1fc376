"""Tables of what `hogwild bench` has measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.table import Table

from hogwild_agents.bench.engine import Measurement, Skipped
from hogwild_agents.bench.profiling import PARTS, Profile
from hogwild_agents.bench.team import Overhead
from hogwild_agents.cli.output import print_warning, stdout

Row = TypeVar("Row", Measurement, Profile)


def print_skipped(row: Skipped) -> None:
    """Prints what could not be measured, and why."""
    case = row.case
    where = f"{case.label}, {_count(case.workers)} at {case.context:,} tokens"
    print_warning(f"Left out: {where}: {row.reason}")


def print_measurements(rows: list[Measurement]) -> None:
    """Prints the time of each pass, what that time means, and ratios between rows."""
    columns = ("context", "engine", "workers", "ms/pass", "tokens/s", "cache MiB")
    table = _table(*columns, "floor ms", "reached")
    for row, new in _grouped(rows):
        if new:
            table.add_row()
        table.add_row(
            *_names(row),
            f"{row.ms_per_pass:.2f}",
            f"{row.tokens_per_second:.1f}",
            f"{row.kv_bytes / 2**20:,.1f}",
            f"{row.limit_ms:.2f}",
            f"{row.bandwidth_share:.0%}",
        )
    stdout.print(table)
    stdout.print(
        "floor: the time to read weights and cache once, at the speed at which this machine copies "
        "memory; reached: the share of that speed, floor / time.",
        style="dim",
    )
    if any(row.teams > 1 for row in rows):
        stdout.print("3 x 2 means three teams of two workers in one pass.", style="dim")
    if captures := sum(row.captures for row in rows):
        stdout.print(f"{captures} passes were captured again while they were timed.", style="dim")
    for length in sorted({row.context for row in rows}):
        times = {
            (row.engine, row.workers): row.ms_per_pass
            for row in rows
            if row.context == length and row.teams == 1
        }
        single, plain = times.get(("hogwild", 1)), times.get(("transformers", 1))
        for workers in sorted(team for engine, team in times if engine == "hogwild"):
            ms = times["hogwild", workers]
            ratios = []
            if single is not None and workers > 1:
                ratios.append(f"{ms / single:.2f} x one worker's")
            if plain is not None:
                ratios.append(f"{ms / plain:.2f} x plain transformers'")
            if ratios:
                stdout.print(
                    f"At {length:,}, a pass of {_count(workers)} takes {', '.join(ratios)}."
                )


def print_overhead(overhead: Overhead) -> None:
    """Prints what a session spends on other work than forward passes."""
    share = overhead.rest_ms / overhead.forward_ms
    stdout.print(
        f"A session of {_count(overhead.workers)} spends {overhead.rest_ms:.2f} ms of a pass on "
        f"scheduling, sampling and text: {share:.0%} of the {overhead.forward_ms:.2f} ms that its "
        f"forward pass takes at {overhead.context:,}."
    )


def print_profiles(profiles: list[Profile]) -> None:
    """Prints how much time each part of a pass takes."""
    parts = [part for part in PARTS if any(part in profile.parts for profile in profiles)]
    stdout.print("\nWhere a pass spends its time, in ms:")
    table = _table("context", "engine", "workers", *parts)
    for profile, new in _grouped(profiles):
        if new:
            table.add_row()
        times = (profile.parts.get(part) for part in parts)
        table.add_row(*_names(profile), *("" if ms is None else f"{ms:.2f}" for ms in times))
    stdout.print(table)


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits into 80 columns
    for name in names:
        left = name == "engine"
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    return table


def _names(row: Measurement | Profile) -> tuple[str, ...]:
    teams = "" if row.teams == 1 else f"{row.teams} x "
    return f"{row.context:,}", row.engine, f"{teams}{row.workers}"


def _grouped(rows: Sequence[Row]) -> Iterator[tuple[Row, bool]]:
    """Rows by context, each with whether a new context begins."""
    context = None
    for row in sorted(rows, key=lambda row: row.context):
        yield row, context not in (None, row.context)
        context = row.context


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
