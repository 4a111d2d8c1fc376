"""Measures one part of the bars in a separate process: `plain` or `compiled`.

Every figure is written to a file at once, one line of JSON each, so that no later failure loses it.
Started by `__main__.py`.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hogwild_agents.bench import engine as bench
from hogwild_agents.bench import random_model, shapes, timing
from hogwild_agents.bench.contenders import Case
from hogwild_agents.bench.profiling import profile_case
from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.engine.loading import choose_device
from hogwild_agents.errors import UnsupportedModelError
from tests.gpu.bars import REAL, TINY, Sizes

shapes.SHAPES["tiny"] = {
    **shapes.SHAPES["5m"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 96,
}

Scenes = dict[str, list[Case]]
"""Cases by the name of a scene; those of a scene are timed in turns."""


def plain_scenes(sizes: Sizes) -> Scenes:
    """What is timed without `torch.compile`."""
    short, long, longest = sizes.short, sizes.long, sizes.longest
    return {
        "short": [
            Case("hogwild", 1, short),
            Case("hogwild", 4, short),
            Case("transformers", 1, short),
        ],
        "long": [Case("hogwild", 1, long), Case("hogwild", 4, long)],
        "longest": [Case("hogwild", 4, longest), Case("hogwild", 4, short)],
        "teams": [
            Case("hogwild", 2, sizes.teams_context, sizes.teams),
            Case("hogwild", 2, sizes.teams_context),
        ],
    }


def compiled_scenes(sizes: Sizes) -> Scenes:
    """What is timed with `torch.compile`."""
    return {
        "compiled": [
            Case("hogwild", 1, sizes.short, compiled=True),
            Case("hogwild", 1, sizes.short),
        ],
        "static": [
            Case("hogwild", 4, sizes.long),
            Case("transformers-static", 4, sizes.long, compiled=True),
        ],
    }


class Notebook:
    """Writes measurements to a file.

    Args:
        file: Lines of JSON are appended to it.
        seconds: After this time nothing new is started.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self._file = file
        self._end = time.monotonic() + seconds

    def write(self, kind: str, **fields: Any) -> None:
        """Writes one line."""
        with self._file.open("a") as lines:
            lines.write(json.dumps({"kind": kind, **fields}) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {kind} {fields}", flush=True)

    @contextmanager
    def part(self, name: str, seconds: float = 0.0) -> Iterator[bool]:
        """Yields whether there is time left for a part; notes its failure instead of raising it."""
        left = self._end - time.monotonic()
        if left < seconds:
            self.write("note", text=f"{name} skipped: {left:.0f} s left, it may take {seconds:g}")
        try:
            yield left >= seconds
        except Exception as error:  # noqa: BLE001  the other parts go on
            traceback.print_exc()
            first = (str(error).strip() or "no message").splitlines()[0]
            self.write("note", text=f"{name} failed: {type(error).__name__}: {first[:300]}")


def load(
    notebook: Notebook, sizes: Sizes, scenes: Scenes, check: bool
) -> tuple[SharedCacheModel, float]:
    """The model with a cache for all scenes, and the bandwidth of the machine."""
    device = choose_device(None)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    bandwidth = timing.copy_bandwidth(device)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, only a rehearsal"
    notebook.write("machine", name=card, copies=bandwidth)
    loading = time.perf_counter()
    model = random_model.build_shape(sizes.shape, kind, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    cache_bytes = bench.cache_bytes_for(model, scenes.values(), sizes.passes)
    start = time.perf_counter()
    try:
        shared = SharedCacheModel.from_pretrained(
            model, self_check=check, backend="triton", cache_bytes=cache_bytes
        )
    except UnsupportedModelError as error:
        notebook.write("note", text=f"THE SELF-CHECK FAILED, continuing without it: {error}")
        return load(notebook, sizes, scenes, check=False)
    loaded = time.perf_counter() - start
    if check:
        first, captures = bench.time_first_passes(shared, 4)
        notebook.write(
            "startup",
            loading=start - loading,
            loaded=loaded,
            self_check=shared.report.seconds,
            first_passes=first,
            captures=captures,
            seconds=loaded + first,
        )
    return shared, bandwidth


def time_scenes(
    notebook: Notebook,
    shared: SharedCacheModel,
    bandwidth: float,
    scenes: Scenes,
    passes: int,
    seconds: Callable[[Sequence[Case]], float],
) -> dict[Case, float]:
    """Measures scene after scene; returns the milliseconds of each case when last timed."""
    times: dict[Case, float] = {}
    for name, cases in scenes.items():
        with notebook.part(name, seconds(cases)) as there_is_time:
            if not there_is_time:
                continue
            for line in bench.measure(shared, cases, passes, bandwidth, lambda: None):
                if isinstance(line, bench.Skipped):
                    label = f"{line.case.label}, {line.case.workers} at {line.case.context}"
                    notebook.write("note", text=f"{name}: {label} skipped: {line.reason[:300]}")
                    continue
                notebook.write("row", scene=name, **asdict(line))
                times |= {
                    case: line.ms_per_pass
                    for case in cases
                    if (case.label, case.workers, case.context, case.teams)
                    == (line.engine, line.workers, line.context, line.teams)
                }
    return times


def profile_all(
    notebook: Notebook, shared: SharedCacheModel, times: dict[Case, float], seconds: float
) -> None:
    """Profiles every case; after all timing, because a profiler may slow what follows."""
    for case, ms_per_pass in times.items():
        with notebook.part(f"profile of {case}", seconds) as there_is_time:
            if there_is_time:
                notebook.write("profile", **profile_case(shared, case, ms_per_pass)._asdict())


def main() -> None:
    """Measures the part that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["plain", "compiled"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    sizes = TINY if options.tiny else REAL
    notebook = Notebook(options.out, options.seconds)
    plain = options.part == "plain"
    scenes = (plain_scenes if plain else compiled_scenes)(sizes)
    attention = [Case("hogwild", 4, sizes.longest)] if plain else []
    with notebook.part("loading"):
        shared, bandwidth = load(notebook, sizes, {**scenes, "attention": attention}, plain)
        quick = 0.0 if options.tiny else 10.0
        slow = 0.0 if options.tiny else 45.0  # compiled code is not kept after this run
        times = time_scenes(
            notebook,
            shared,
            bandwidth,
            scenes,
            sizes.passes,
            lambda cases: slow if any(case.compiled for case in cases) else quick,
        )
        if plain:
            with notebook.part("attention"):
                line = bench.measure_attention(shared, 4, sizes.longest, bandwidth)
                notebook.write("row", scene="attention", **asdict(line))
        if not plain:  # transformers would compile again for a new cache
            times = {case: ms for case, ms in times.items() if case.engine == "hogwild"}
        profile_all(notebook, shared, times, quick)


if __name__ == "__main__":
    main()
