"""`hogwild bench`: what a pass takes, beside plain transformers and the machine's limit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hogwild_agents.cli.check import print_report
from hogwild_agents.cli.common import Device, Dtype, console, errors

if TYPE_CHECKING:
    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.engine.bench import Measurement
    from hogwild_agents.team.bench import Overhead

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
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; torch's own choice by default.")
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Run the engine's passes through torch.compile (slow to start)."
        ),
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
    teams, lengths = _numbers(workers, "--workers"), _numbers(contexts, "--contexts")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json_file.parent}", param_hint="--json")

    import torch

    from hogwild_agents.engine import HogwildError
    from hogwild_agents.engine import bench as benchmark
    from hogwild_agents.team.bench import measure_overhead

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with console.status(f"Loading {escape(model or shape or '')} ..."):
            shared = _load(model, shape, device, dtype, not skip_check, compiled)
    except HogwildError as error:
        errors.print(f"[red]{escape(str(error))}[/red]")
        raise typer.Exit(2) from None
    print_report(shared.report)
    bandwidth = benchmark.copy_bandwidth(shared.device)
    where = (
        torch.cuda.get_device_name(shared.device)
        if shared.device.type == "cuda"
        else f"{torch.get_num_threads()} CPU thread(s)"
    )
    console.print(f"{where}, torch {torch.__version__}, copies {bandwidth / 1e9:.1f} GB/s")
    rows: list[Measurement] = []
    total = benchmark.count_passes(teams, lengths, passes) + len(teams) * SESSION_PASSES
    overheads: list[Overhead] = []
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
            for row in benchmark.measure(
                shared, teams, lengths, passes, bandwidth, lambda: progress.advance(task)
            ):
                if isinstance(row, tuple):
                    errors.print(f"[yellow]Left out at {escape(row[0])}: {escape(row[1])}[/yellow]")
                else:
                    rows.append(row)
            progress.update(task, description="Timing sessions")
            overheads += [
                measure_overhead(shared, count, SESSION_PASSES, lambda: progress.advance(task))
                for count in teams
            ]
        except HogwildError as error:
            errors.print(f"[yellow]No session was timed: {escape(str(error))}[/yellow]")
        except KeyboardInterrupt:
            errors.print("[yellow]Stopped. What follows was finished before.[/yellow]")
    if not rows:
        raise typer.Exit(1)
    _print_measurements(rows)
    for overhead in overheads:
        console.print(
            f"A session of {_team(overhead.workers)} spends {overhead.rest_ms:.2f} ms of a pass on "
            f"scheduling, sampling and text: {overhead.rest_ms / overhead.forward_ms:.0%} of the "
            f"{overhead.forward_ms:.2f} ms that its forward pass takes at {overhead.context:,}."
        )
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _load(
    model: str | None,
    shape: str | None,
    device: str | None,
    dtype: str,
    self_check: bool,
    compiled: bool,
) -> SharedCacheModel:
    import torch

    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.engine.bench import build_shape
    from hogwild_agents.engine.loading import choose_device, parse_dtype

    if shape is None:
        assert model is not None
        return SharedCacheModel.from_pretrained(
            model, device=device, dtype=dtype, self_check=self_check, compile=compiled
        )
    place = choose_device(device)
    kind = parse_dtype(dtype) or (torch.bfloat16 if place.type == "cuda" else torch.float32)
    return SharedCacheModel.from_pretrained(
        build_shape(shape, kind, place), self_check=self_check, compile=compiled
    )


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"{text!r} is no list of whole numbers above 0, such as 1,2,4", param_hint=option
        )
    return list(dict.fromkeys(numbers))


def _print_measurements(rows: list[Measurement]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("context", "engine", "workers", "ms/pass", "tokens/s", "cache MiB", "bandwidth"):
        table.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
    context = None
    for row in sorted(rows, key=lambda row: row.context):
        if context not in (None, row.context):
            table.add_row()
        context = row.context
        table.add_row(
            f"{row.context:,}",
            row.engine,
            str(row.workers),
            f"{row.ms_per_pass:.2f}",
            f"{row.tokens_per_second:.1f}",
            f"{row.kv_bytes / 2**20:,.1f}",
            f"{row.bandwidth_share:.0%}",
        )
    console.print(table)
    console.print(
        "bandwidth: weights and cache, read once per pass, over the time of a pass, as a share of "
        "what this machine copies.",
        style="dim",
    )
    for length in sorted({row.context for row in rows}):
        times = {(r.engine, r.workers): r.ms_per_pass for r in rows if r.context == length}
        one, plain = times.get(("hogwild", 1)), times.get(("transformers", 1))
        for workers in sorted(team for engine, team in times if engine == "hogwild"):
            mine = times["hogwild", workers]
            parts = [] if one is None or workers == 1 else [f"{mine / one:.2f} x one worker's"]
            parts += [] if plain is None else [f"{mine / plain:.2f} x plain transformers'"]
            if parts:
                console.print(
                    f"At {length:,}, a pass of {_team(workers)} takes {', '.join(parts)}."
                )


def _team(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
