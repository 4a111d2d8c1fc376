"""Measures one part of what the bars ask for, in a process of its own: `plain` or `compiled`.

Every figure is written to a file as soon as it is there, a line of JSON each, so that whatever
happens later takes nothing away. Started by `__main__.py`.
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
from hogwild_agents.bench.contenders import Entry
from hogwild_agents.bench.engine import LeftOut
from hogwild_agents.bench.profiling import profile_entry
from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.engine.loading import choose_device
from hogwild_agents.errors import UnsupportedModelError
from tests.gpu.bars import REAL, TINY, Sizes

bench.SHAPES["tiny"] = {
    **bench.SHAPES["5m"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 96,
}

Scenes = dict[str, list[Entry]]


def plain_scenes(sizes: Sizes) -> Scenes:
    """Whom to time without `torch.compile`; those of a scene take turns."""
    short, long, longest = sizes.short, sizes.long, sizes.longest
    return {
        "short": [
            Entry("hogwild", 1, short),
            Entry("hogwild", 4, short),
            Entry("transformers", 1, short),
        ],
        "long": [Entry("hogwild", 1, long), Entry("hogwild", 4, long)],
        "longest": [Entry("hogwild", 4, longest), Entry("hogwild", 4, short)],
        "teams": [
            Entry("hogwild", 2, sizes.teams_context, sizes.teams),
            Entry("hogwild", 2, sizes.teams_context),
        ],
    }


def compiled_scenes(sizes: Sizes) -> Scenes:
    """Whom to time with it."""
    return {
        "compiled": [
            Entry("hogwild", 1, sizes.short, compiled=True),
            Entry("hogwild", 1, sizes.short),
        ],
        "static": [
            Entry("hogwild", 4, sizes.long),
            Entry("transformers-static", 4, sizes.long, compiled=True),
        ],
    }


class Notebook:
    """Writes down what is found.

    Args:
        file: Lines of JSON are added to it.
        seconds: After so many nothing new is begun.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self._file = file
        self._end = time.monotonic() + seconds

    def write(self, kind: str, **fields: Any) -> None:
        """One line."""
        with self._file.open("a") as lines:
            lines.write(json.dumps({"kind": kind, **fields}) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {kind} {fields}", flush=True)

    @contextmanager
    def part(self, name: str, seconds: float = 0.0) -> Iterator[bool]:
        """Says whether there is time left for a part; notes its failure instead of raising it."""
        left = self._end - time.monotonic()
        if left < seconds:
            self.write("note", text=f"{name} left out: {left:.0f} s left, it may take {seconds:g}")
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
    bandwidth = bench.copy_bandwidth(device)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, only a rehearsal"
    notebook.write("machine", name=card, copies=bandwidth)
    loading = time.perf_counter()
    model = bench.build_shape(sizes.shape, kind, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    cache_bytes = bench.cache_bytes_for(model, scenes.values(), sizes.passes)
    start = time.perf_counter()
    try:
        shared = SharedCacheModel.from_pretrained(
            model, self_check=check, backend="triton", cache_bytes=cache_bytes
        )
    except UnsupportedModelError as error:
        notebook.write("note", text=f"THE SELF-CHECK FAILED, it goes on without: {error}")
        return load(notebook, sizes, scenes, check=False)
    loaded = time.perf_counter() - start
    if check:
        first, recordings = bench.first_passes(shared, 4)
        notebook.write(
            "startup",
            loading=start - loading,
            loaded=loaded,
            self_check=shared.report.seconds,
            first_passes=first,
            recordings=recordings,
            seconds=loaded + first,
        )
    return shared, bandwidth


def time_scenes(
    notebook: Notebook,
    shared: SharedCacheModel,
    bandwidth: float,
    scenes: Scenes,
    passes: int,
    seconds: Callable[[Sequence[Entry]], float],
) -> dict[Entry, float]:
    """Measures scene after scene; the milliseconds of each entry, the last time it was timed."""
    times: dict[Entry, float] = {}
    for name, entries in scenes.items():
        with notebook.part(name, seconds(entries)) as there_is_time:
            if not there_is_time:
                continue
            for line in bench.measure(shared, entries, passes, bandwidth, lambda: None):
                if isinstance(line, LeftOut):
                    where = f"{line.entry.name}, {line.entry.workers} at {line.entry.context}"
                    notebook.write("note", text=f"{name}: {where} left out: {line.reason[:300]}")
                    continue
                notebook.write("row", scene=name, **asdict(line))
                times |= {
                    entry: line.ms_per_pass
                    for entry in entries
                    if (entry.name, entry.workers, entry.context, entry.teams)
                    == (line.engine, line.workers, line.context, line.teams)
                }
    return times


def profile_all(
    notebook: Notebook, shared: SharedCacheModel, times: dict[Entry, float], seconds: float
) -> None:
    """Where the time of every entry went; after all timing, as a profiler may slow what follows."""
    for entry, ms_per_pass in times.items():
        with notebook.part(f"profile of {entry}", seconds) as there_is_time:
            if there_is_time:
                notebook.write("profile", **profile_entry(shared, entry, ms_per_pass)._asdict())


def main() -> None:
    """Measures the part that is named."""
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
    attention = [Entry("hogwild", 4, sizes.longest)] if plain else []
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
            lambda entries: slow if any(entry.compiled for entry in entries) else quick,
        )
        if plain:
            with notebook.part("attention"):
                line = bench.attention_alone(shared, 4, sizes.longest, bandwidth)
                notebook.write("row", scene="attention", **asdict(line))
        if not plain:  # transformers would compile anew for a cache of its own
            times = {entry: ms for entry, ms in times.items() if entry.engine == "hogwild"}
        profile_all(notebook, shared, times, quick)


if __name__ == "__main__":
    main()
