"""`hogwild bench`: how long forward passes take, and how long they would have to take."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.markup import escape

from hogwild_agents.bench.shapes import SHAPES
from hogwild_agents.cli.check import print_report
from hogwild_agents.cli.options import (
    device_option,
    dtype_option,
    parse_numbers,
    parse_output_file,
    parse_with,
)
from hogwild_agents.cli.output import exit_on_error, print_warning, stderr, stdout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hogwild_agents.bench.contenders import Case
    from hogwild_agents.bench.engine import Measurement
    from hogwild_agents.bench.profiling import Profile
    from hogwild_agents.bench.team import Overhead
    from hogwild_agents.engine import SharedCacheModel

SESSION_PASSES = 100
"""Timed passes of each session; their times differ more than those of the engine alone."""


@click.command()
@click.argument("model", required=False)
@click.option(
    "--shape",
    type=click.Choice([*SHAPES]),
    help="Time a model of this shape with random weights, without a download.",
)
@click.option(
    "--workers",
    default="1,2,4",
    show_default=True,
    callback=parse_with(parse_numbers),
    help="Team sizes, separated by commas.",
)
@click.option(
    "--contexts",
    default="256,2048",
    show_default=True,
    callback=parse_with(parse_numbers),
    help="How many tokens all workers have in common, separated by commas.",
)
@dtype_option
@device_option
@click.option(
    "--passes",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many passes are timed per engine, team and context.",
)
@click.option(
    "--teams",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Also time this many teams of each size in one pass.",
)
@click.option(
    "--cache-dtype",
    type=click.Choice(["auto", "fp8"]),
    default="auto",
    show_default=True,
    help="auto stores keys and values in the type of the weights; fp8 stores each number in eight "
    "bits.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    show_default="torch's choice",
    help="How many CPU threads torch uses.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Also time passes with torch.compile; slow to start.",
)
@click.option(
    "--profile", "profiled", is_flag=True, help="Also show where the time of each pass goes."
)
@click.option(
    "--skip-check",
    is_flag=True,
    help="Do not check the model first. Saves the seconds that the check costs, but a model that "
    "the engine computes wrongly is then not refused.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=parse_with(parse_output_file),
    help="Also write the measurements to this file.",
)
def bench(
    model: str | None,
    shape: str | None,
    workers: list[int],
    contexts: list[int],
    dtype: str,
    device: str | None,
    passes: int,
    teams: int,
    cache_dtype: Literal["auto", "fp8"],
    threads: int | None,
    compiled: bool,
    profiled: bool,
    skip_check: bool,
    json_file: Path | None,
) -> None:
    """Time forward passes of the engine and of plain transformers.

    MODEL is a folder or a name on the Hugging Face hub; or pocket, the small model that ships
    inside. Leave it out if you give --shape.

    Beside each time stands the least that this machine could need, by the speed of its memory.

    Example: hogwild bench --shape qwen3-0.6b --workers 1,2 --contexts 256,8192
    """
    if (model is None) == (shape is None):
        raise click.UsageError("give either a model or --shape, and not both")

    import torch
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from hogwild_agents.bench import engine as benchmark
    from hogwild_agents.bench.team import measure_overhead
    from hogwild_agents.bench.timing import copy_bandwidth
    from hogwild_agents.cli.bench_tables import (
        print_measurements,
        print_overhead,
        print_profiles,
        print_skipped,
    )
    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.errors import HogwildError

    if threads is not None:
        torch.set_num_threads(threads)
    with exit_on_error(), stdout.status(f"Loading {escape(model or shape or '')} ..."):
        start = time.perf_counter()
        loaded = _load(model, shape, device, dtype)
        seconds = time.perf_counter() - start
        torch_device = next(loaded.parameters()).device
        scenes = [
            benchmark.cases_for(workers, length, teams, compiled, torch_device)
            for length in contexts
        ]
        shared = SharedCacheModel.from_pretrained(
            loaded,
            self_check=not skip_check,
            cache_dtype=cache_dtype,
            cache_bytes=benchmark.cache_bytes_for(loaded, scenes, passes),
        )
    print_report(shared.report)
    first_seconds, captures = benchmark.time_first_passes(shared, max(workers))
    stdout.print(
        f"Loading took {seconds:.1f} s, the first passes {first_seconds:.2f} s"
        + (f", of which {captures} were captured." if captures else ".")
    )
    bandwidth = copy_bandwidth(torch_device)
    machine = (
        torch.cuda.get_device_name(torch_device)
        if torch_device.type == "cuda"
        else f"{torch.get_num_threads()} CPU thread(s)"
    )
    stdout.print(f"{machine}, torch {torch.__version__}, copies {bandwidth / 1e9:.1f} GB/s")
    rows: list[Measurement] = []
    profiles: list[Profile] = []
    overheads: list[Overhead] = []
    total = passes * sum(map(len, scenes)) + len(workers) * SESSION_PASSES
    with Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        transient=True,
    ) as progress:
        task = progress.add_task("Timing passes", total=total)
        try:
            for scene in scenes:
                for row in benchmark.measure(
                    shared, scene, passes, bandwidth, lambda: progress.advance(task)
                ):
                    if isinstance(row, benchmark.Skipped):
                        print_skipped(row)
                    else:
                        rows.append(row)
            if profiled:
                progress.update(task, description="Profiling")
                profiles += _profiles(shared, scenes, rows)
            progress.update(task, description="Timing sessions")
            overheads += [
                measure_overhead(shared, count, SESSION_PASSES, lambda: progress.advance(task))
                for count in workers
            ]
        except HogwildError as error:
            print_warning(f"No session was timed: {error}")
        except KeyboardInterrupt:
            print_warning("Stopped. These were finished before:")
    if not rows:
        raise SystemExit(1)
    print_measurements(rows)
    if profiles:
        print_profiles(profiles)
    for overhead in overheads:
        print_overhead(overhead)
    if json_file is not None:
        parts = {_key(profile): profile.parts for profile in profiles}
        records = [asdict(row) | {"parts": parts.get(_key(row), {})} for row in rows]
        json_file.write_text(json.dumps(records, indent=1) + "\n")


def _load(model: str | None, shape: str | None, device: str | None, dtype: str) -> PreTrainedModel:
    import torch

    from hogwild_agents.bench.random_model import build_shape
    from hogwild_agents.engine.loading import choose_device, load_model, parse_dtype
    from hogwild_agents.registry import resolve_source

    if shape is None:
        assert model is not None
        return load_model(resolve_source(model), device, dtype)
    torch_device = choose_device(device)
    usual = torch.bfloat16 if torch_device.type == "cuda" else torch.float32
    return build_shape(shape, parse_dtype(dtype) or usual, torch_device)


def _profiles(
    shared: SharedCacheModel, scenes: list[list[Case]], rows: list[Measurement]
) -> list[Profile]:
    """Where the time of every measured pass goes."""
    from hogwild_agents.bench.profiling import profile_case

    times = {_key(row): row.ms_per_pass for row in rows}
    return [
        profile_case(shared, case, times[_key(case)])
        for scene in scenes
        for case in scene
        if _key(case) in times
    ]


def _key(row: Case | Measurement | Profile) -> tuple[str, int, int, int]:
    """What tells the rows of a run apart."""
    name = getattr(row, "label", None) or getattr(row, "engine")  # noqa: B009
    return name, row.teams, row.workers, row.context
