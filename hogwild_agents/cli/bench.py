"""`hogwild bench`: what a pass takes, beside plain transformers and the machine's limit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hogwild_agents.cli.check import print_report
from hogwild_agents.cli.common import Device, Dtype, console, errors, numbers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hogwild_agents.bench.contenders import Entry
    from hogwild_agents.bench.engine import LeftOut, Measurement
    from hogwild_agents.bench.profiling import Profile
    from hogwild_agents.bench.team import Overhead
    from hogwild_agents.engine import SharedCacheModel

T = TypeVar("T", "Measurement", "Profile")

SESSION_PASSES = 100
"""Passes of a session that `bench` times; more than of the engine's, as they differ more."""


def bench(
    model: Annotated[
        str | None, typer.Argument(help="A model's folder or hub name; or use --shape.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="Random weights, no download: 5m, qwen3-0.6b, qwen3-8b or qwen3-32b."),
    ] = None,
    workers: Annotated[str, typer.Option(help="Team sizes, separated by commas.")] = "1,2,4",
    contexts: Annotated[
        str, typer.Option(help="Tokens that all workers see, separated by commas.")
    ] = "256,2048",
    dtype: Dtype = "auto",
    device: Device = None,
    passes: Annotated[int, typer.Option(min=1, help="Timed passes per engine and context.")] = 10,
    teams: Annotated[
        int, typer.Option(min=1, help="Also time so many teams of each size in one pass.")
    ] = 1,
    cache_dtype: Annotated[
        str, typer.Option(help="fp8 keeps the engine's keys and values in eight bits each.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; torch's own choice by default.")
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Also time passes through torch.compile (slow to start)."),
    ] = False,
    profiled: Annotated[
        bool, typer.Option("--profile", help="Also show where the time of each pass goes.")
    ] = False,
    skip_check: Annotated[
        bool,
        typer.Option(
            "--skip-check",
            help="Do not let the model prove itself first. Saves the seconds shown as its cost, "
            "and gives up the promise that a model which the engine computes wrongly is refused.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows to this file.")
    ] = None,
) -> None:
    """Time a pass of the engine beside plain transformers, and compare with the machine's limit.

    Example: hogwild bench --shape qwen3-0.6b --workers 1,2 --contexts 256,8192 --dtype float32
    """
    if (model is None) == (shape is None):
        raise typer.BadParameter("give either a model or --shape, not both and not neither")
    sizes, lengths = numbers_of(workers, "--workers"), numbers_of(contexts, "--contexts")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json_file.parent}", param_hint="--json")

    import torch

    from hogwild_agents.bench import engine as benchmark
    from hogwild_agents.bench.team import measure_overhead
    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.errors import HogwildError

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with console.status(f"Loading {escape(model or shape or '')} ..."):
            start = time.perf_counter()
            loaded = _load(model, shape, device, dtype)
            seconds = time.perf_counter() - start
            where = next(loaded.parameters()).device
            scenes = [
                benchmark.entries_of(sizes, length, teams, compiled, where) for length in lengths
            ]
            shared = SharedCacheModel.from_pretrained(
                loaded,
                self_check=not skip_check,
                cache_dtype=cast("Any", cache_dtype),
                cache_bytes=benchmark.cache_bytes_for(loaded, scenes, passes),
            )
    except HogwildError as error:
        errors.print(f"[red]{escape(str(error))}[/red]")
        raise typer.Exit(2) from None
    print_report(shared.report)
    first, recorded = benchmark.first_passes(shared, max(sizes))
    console.print(
        f"Loading took {seconds:.1f} s, the first passes {first:.2f} s"
        + (f", of which {recorded} were recorded." if recorded else ".")
    )
    bandwidth = benchmark.copy_bandwidth(where)
    machine = (
        torch.cuda.get_device_name(where)
        if where.type == "cuda"
        else f"{torch.get_num_threads()} CPU thread(s)"
    )
    console.print(f"{machine}, torch {torch.__version__}, copies {bandwidth / 1e9:.1f} GB/s")
    rows: list[Measurement] = []
    profiles: list[Profile] = []
    overheads: list[Overhead] = []
    total = passes * sum(map(len, scenes)) + len(sizes) * SESSION_PASSES
    with Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    ) as progress:
        task = progress.add_task("Timing passes", total=total)
        try:
            for scene in scenes:
                for row in benchmark.measure(
                    shared, scene, passes, bandwidth, lambda: progress.advance(task)
                ):
                    if isinstance(row, benchmark.LeftOut):
                        _print_left_out(row)
                    else:
                        rows.append(row)
            if profiled:
                progress.update(task, description="Profiling")
                profiles += _profiles(shared, scenes, rows)
            progress.update(task, description="Timing sessions")
            overheads += [
                measure_overhead(shared, count, SESSION_PASSES, lambda: progress.advance(task))
                for count in sizes
            ]
        except HogwildError as error:
            errors.print(f"[yellow]No session was timed: {escape(str(error))}[/yellow]")
        except KeyboardInterrupt:
            errors.print("[yellow]Stopped. What follows was finished before.[/yellow]")
    if not rows:
        raise typer.Exit(1)
    _print_measurements(rows)
    if profiles:
        _print_profiles(profiles)
    for overhead in overheads:
        console.print(
            f"A session of {_team(overhead.workers)} spends {overhead.rest_ms:.2f} ms of a pass on "
            f"scheduling, sampling and text: {overhead.rest_ms / overhead.forward_ms:.0%} of the "
            f"{overhead.forward_ms:.2f} ms that its forward pass takes at {overhead.context:,}."
        )
    if json_file is not None:
        parts = {_key(profile): profile.parts for profile in profiles}
        found = [asdict(row) | {"parts": parts.get(_key(row), {})} for row in rows]
        json_file.write_text(json.dumps(found, indent=1) + "\n")


def _load(model: str | None, shape: str | None, device: str | None, dtype: str) -> PreTrainedModel:
    import torch

    from hogwild_agents.bench.engine import build_shape
    from hogwild_agents.engine.loading import choose_device, load_model, parse_dtype

    if shape is None:
        assert model is not None
        return load_model(model, device, dtype)
    place = choose_device(device)
    kind = parse_dtype(dtype) or (torch.bfloat16 if place.type == "cuda" else torch.float32)
    return build_shape(shape, kind, place)


def _profiles(
    shared: SharedCacheModel, scenes: list[list[Entry]], rows: list[Measurement]
) -> list[Profile]:
    """Where the time of every measured pass went."""
    from hogwild_agents.bench.profiling import profile_entry

    times = {_key(row): row.ms_per_pass for row in rows}
    return [
        profile_entry(shared, entry, times[_key(entry)])
        for scene in scenes
        for entry in scene
        if _key(entry) in times
    ]


def _key(thing: Entry | Measurement | Profile) -> tuple[str, int, int, int]:
    """What tells the rows of a run apart."""
    name = getattr(thing, "name", None) or getattr(thing, "engine")  # noqa: B009
    return name, thing.teams, thing.workers, thing.context


def _print_left_out(row: LeftOut) -> None:
    where = f"{row.entry.name}, {_team(row.entry.workers)} at {row.entry.context:,}"
    errors.print(f"[yellow]Left out: {escape(where)}: {escape(row.reason)}[/yellow]")


def _print_measurements(rows: list[Measurement]) -> None:
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
            f"{row.floor_ms:.2f}",
            f"{row.bandwidth_share:.0%}",
        )
    console.print(table)
    console.print(
        "floor: weights and cache, read once per pass, at the speed at which this machine copies; "
        "reached: the share of that speed, floor over time.",
        style="dim",
    )
    if any(row.teams > 1 for row in rows):
        console.print("3 x 2: three teams of two workers in one pass.", style="dim")
    if recorded := sum(row.recordings for row in rows):
        console.print(f"{recorded} passes were recorded anew while they were timed.", style="dim")
    for length in sorted({row.context for row in rows}):
        times = {
            (r.engine, r.workers): r.ms_per_pass
            for r in rows
            if r.context == length and r.teams == 1
        }
        one, plain = times.get(("hogwild", 1)), times.get(("transformers", 1))
        for workers in sorted(team for engine, team in times if engine == "hogwild"):
            mine = times["hogwild", workers]
            parts = [] if one is None or workers == 1 else [f"{mine / one:.2f} x one worker's"]
            parts += [] if plain is None else [f"{mine / plain:.2f} x plain transformers'"]
            if parts:
                console.print(
                    f"At {length:,}, a pass of {_team(workers)} takes {', '.join(parts)}."
                )


def _print_profiles(profiles: list[Profile]) -> None:
    from hogwild_agents.bench.profiling import PARTS

    parts = [part for part in PARTS if any(part in profile.parts for profile in profiles)]
    console.print("\nWhere a pass spends its time, in ms:")
    table = _table("context", "engine", "workers", *parts)
    for profile, new in _grouped(profiles):
        if new:
            table.add_row()
        times = (profile.parts.get(part) for part in parts)
        table.add_row(*_names(profile), *("" if ms is None else f"{ms:.2f}" for ms in times))
    console.print(table)


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits into 80 columns
    for name in names:
        left = name == "engine"
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    return table


def _names(row: Measurement | Profile) -> tuple[str, ...]:
    teams = "" if row.teams == 1 else f"{row.teams} x "
    return f"{row.context:,}", row.engine, f"{teams}{row.workers}"


def _grouped(rows: Sequence[T]) -> Iterator[tuple[T, bool]]:
    """Rows by context, and whether another context begins."""
    context = None
    for row in sorted(rows, key=lambda row: row.context):
        yield row, context not in (None, row.context)
        context = row.context


def _team(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
