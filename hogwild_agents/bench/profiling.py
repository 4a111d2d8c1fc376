"""Where the time of a pass goes: attention, matrix products, other work, and the host's own."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AttentionInterface

from hogwild_agents.bench.contenders import Contender, Entry, attention_of, make_contender
from hogwild_agents.engine.attention.interface import NAME, shared_cache_attention
from hogwild_agents.engine.model import SharedCacheModel

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else every profile says that it is made

PASSES = 8
"""Profiled passes."""

LISTED = 25
"""Kernels, or operators, that a profile names; those that take longest."""

HOST = "host"
"""The part in which the device runs nothing; on a CPU what is no operator: Python, fused code."""

PARTS = ("attend", "write", "merge", "attention", "matrix products", "other", HOST)
"""Our three kernels; attention in one piece, as other engines and a CPU run it; and the rest."""

KERNELS = {
    "attend": r"^attend(_|$)",
    "write": r"^write(_|$)",
    "merge": r"^merge(_|$)",
    "other": r"^triton_(?!tem)",  # what torch.compile fused, whatever the name goes on to say
    "attention": r"flash|fmha|attention|sdpa",
    "matrix products": r"gemm|gemv|nvjet|cutlass|xmma|splitk|_tem_fused|cublas",
}
"""Names of a CUDA card's kernels, by parts; the first that fits counts, else it is `other` too."""

OPERATORS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkl::")
"""A CPU's matrix products."""

ATTENTION = ("hogwild::attention", "hogwild::read", "aten::scaled_dot_product_attention")
"""What computes attention on a CPU, with all that it calls."""


class Profile(NamedTuple):
    """Where a pass spends its time.

    Attributes:
        engine: See `Entry.name`.
        teams: See `Entry`.
        workers: See `Entry`.
        context: See `Entry`.
        parts: Milliseconds of a pass by part, those of `PARTS` that occur.
        longest: Names, calls per pass and milliseconds per pass of what takes longest.
    """

    engine: str
    teams: int
    workers: int
    context: int
    parts: dict[str, float]
    longest: list[tuple[str, float, float]]


class Span(NamedTuple):
    """Something that ran, in microseconds: which part it belongs to, what, from when, how long."""

    part: str
    name: str
    start: float
    duration: float


def profile_entry(shared: SharedCacheModel, entry: Entry, ms_per_pass: float) -> Profile:
    """Profiles an engine that was timed before.

    The profiler slows the host. So on a CUDA card the host's part is what the card's leaves of the
    pass as it was timed without a profiler; on a CPU all parts are scaled to that time.

    Args:
        shared: The model.
        entry: Who.
        ms_per_pass: As `bench.measure` found it.

    Raises:
        ContextLengthError, OutOfCacheMemoryError, RuntimeError: As `make_contender`.
    """
    cuda = shared.device.type == "cuda"
    contender = make_contender(shared, entry, PASSES)
    watched = nullcontext() if cuda or entry.compiled else _attention_watched()
    activity = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
    try:
        with attention_of(shared.model, entry), watched, profile(activities=[activity]) as found:
            seconds = _run(contender, cuda)
    finally:
        contender.close()
    events = found.events() or []
    if cuda:
        return summed_up(entry, list(kernels_of(events)), ms_per_pass, PASSES)
    slowed = 1e3 * seconds / PASSES / ms_per_pass
    return summed_up(entry, list(operators_of(events, slowed)), ms_per_pass, PASSES)


def _run(contender: Contender, cuda: bool) -> float:
    start = time.perf_counter()
    for _ in range(PASSES):
        contender.choose()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def summed_up(entry: Entry, spans: list[Span], ms_per_pass: float, passes: int) -> Profile:
    """A profile from all that ran in some passes; the host has what is left of `ms_per_pass`."""
    total: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, float] = defaultdict(float)
    times: defaultdict[str, float] = defaultdict(float)
    for span in spans:
        ms = 1e-3 * span.duration / passes
        total[span.part] += ms
        times[span.name] += ms
        calls[span.name] += 1 / passes
    if spans:
        total[HOST] = max(0.0, ms_per_pass - 1e-3 * covered(spans) / passes)
    names = sorted(times, key=lambda name: -times[name])[:LISTED]
    return Profile(
        entry.name,
        entry.teams,
        entry.workers,
        entry.context,
        {part: total[part] for part in PARTS if part in total},
        [(name, calls[name], times[name]) for name in names],
    )


def covered(spans: Iterable[Span]) -> float:
    """Microseconds in which at least one of them ran."""
    total, end = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.start):
        stop = span.start + span.duration
        total += max(0.0, stop - max(span.start, end))
        end = max(end, stop)
    return total


def part_of(kernel: str) -> str:
    """The part that a CUDA kernel belongs to, by its name."""
    for part, pattern in KERNELS.items():
        if re.search(pattern, kernel, re.IGNORECASE):
            return part
    return "other"


def kernels_of(events: Iterable[Any]) -> Iterator[Span]:
    """What a CUDA card ran."""
    for event in events:
        if event.device_type.name != "CUDA" or getattr(event, "is_user_annotation", False):
            continue
        start, end = event.time_range.start, event.time_range.end
        yield Span(part_of(event.name), event.name, start, end - start)


def operators_of(events: Iterable[Any], slowed: float = 1.0) -> Iterator[Span]:
    """What a CPU ran: each operator without those that it calls, all of them end to end.

    Args:
        events: A profiler's.
        slowed: How many times as long all of it took as without the profiler.
    """
    at = 0.0
    for event in events:
        duration = event.self_cpu_time_total / slowed
        part = "other"
        above = event
        while above is not None:
            if above.name in ATTENTION:
                part = "attention"
                break
            if above.name.startswith(OPERATORS):
                part = "matrix products"
            above = above.cpu_parent
        yield Span(part, event.name, at, duration)
        at += duration


@contextmanager
def _attention_watched() -> Iterator[None]:
    """Gives the attention function a name in profiles."""

    def watched(*arguments: Any, **options: Any) -> Any:
        with record_function(ATTENTION[0]):
            return shared_cache_attention(*arguments, **options)

    AttentionInterface.register(NAME, watched)
    try:
        yield
    finally:
        AttentionInterface.register(NAME, shared_cache_attention)
