"""Where the time of a pass goes: attention, matrix products, other work, and the host."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AttentionInterface

from hogwild_agents.bench.contenders import Case, make_contender, use_attention_of
from hogwild_agents.bench.timing import wall_seconds
from hogwild_agents.engine.attention.interface import ATTN_IMPLEMENTATION, shared_cache_attention
from hogwild_agents.engine.model import SharedCacheModel

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise every profile is logged

PASSES = 8
"""Profiled passes."""

MAX_LISTED = 25
"""Kernels or operators that a profile lists: those that take longest."""

HOST = "host"
"""The time in which the device runs nothing; on a CPU all that is no operator, such as Python."""

PARTS = ("attend", "write", "merge", "attention", "matrix products", "other", HOST)
"""Our three kernels; attention as one piece, on a CPU and in other engines; and the rest."""

KERNELS = {
    "attend": r"^attend(_|$)",
    "write": r"^write_kv(_|$)",
    "merge": r"^merge_splits(_|$)",
    "other": r"^triton_(?!tem)",  # fused by torch.compile, whatever else is in the name
    "attention": r"flash|fmha|attention|sdpa",
    "matrix products": r"gemm|gemv|nvjet|cutlass|xmma|splitk|_tem_fused|cublas",
}
"""Patterns of the names of CUDA kernels, by part; the first match counts, the rest is `other`."""

OPERATORS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkl::")
"""Matrix products on a CPU."""

ATTENTION = ("hogwild::attention", "hogwild::attend", "aten::scaled_dot_product_attention")
"""Operators of attention on a CPU; all that they call is counted too."""


class Profile(NamedTuple):
    """Where a pass spends its time.

    Attributes:
        engine: See `Case.label`.
        teams: See `Case`.
        workers: See `Case`.
        context: See `Case`.
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
    """A kernel or operator that ran: its part, name, start and duration in microseconds."""

    part: str
    name: str
    start: float
    duration: float


def profile_case(shared: SharedCacheModel, case: Case, ms_per_pass: float) -> Profile:
    """Profiles a case that was timed before.

    The profiler slows the host. So on a CUDA card the host's part is the difference between the
    card's time and that of a pass without the profiler; on a CPU all parts are scaled to that time.

    Args:
        shared: The model.
        case: What to profile.
        ms_per_pass: Its time without the profiler.

    Raises:
        ContextLengthError, OutOfCacheMemoryError, RuntimeError: As `make_contender`.
    """
    cuda = shared.device.type == "cuda"
    contender = make_contender(shared, case, PASSES)
    named = nullcontext() if cuda or case.compiled else _named_attention()
    activity = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU

    def run() -> None:
        for _ in range(PASSES):
            contender.decode()

    try:
        with use_attention_of(shared.model, case), named, profile(activities=[activity]) as result:
            seconds = wall_seconds(run, shared.device)
    finally:
        contender.close()
    events = result.events() or []
    if cuda:
        return summarize(case, list(kernels_of(events)), ms_per_pass, PASSES)
    slowdown = 1e3 * seconds / PASSES / ms_per_pass
    return summarize(case, list(operators_of(events, slowdown)), ms_per_pass, PASSES)


def summarize(case: Case, spans: list[Span], ms_per_pass: float, passes: int) -> Profile:
    """A profile of all that ran in some passes; the host has the rest of `ms_per_pass`."""
    total: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, float] = defaultdict(float)
    times: defaultdict[str, float] = defaultdict(float)
    for span in spans:
        ms = 1e-3 * span.duration / passes
        total[span.part] += ms
        times[span.name] += ms
        calls[span.name] += 1 / passes
    if spans:
        total[HOST] = max(0.0, ms_per_pass - 1e-3 * covered_time(spans) / passes)
    names = sorted(times, key=lambda name: -times[name])[:MAX_LISTED]
    return Profile(
        case.label,
        case.teams,
        case.workers,
        case.context,
        {part: total[part] for part in PARTS if part in total},
        [(name, calls[name], times[name]) for name in names],
    )


def covered_time(spans: Iterable[Span]) -> float:
    """Microseconds in which at least one of the spans ran."""
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
    """The kernels that a CUDA card ran."""
    for event in events:
        if event.device_type.name != "CUDA" or getattr(event, "is_user_annotation", False):
            continue
        start, end = event.time_range.start, event.time_range.end
        yield Span(part_of(event.name), event.name, start, end - start)


def operators_of(events: Iterable[Any], slowdown: float = 1.0) -> Iterator[Span]:
    """The operators that a CPU ran, without those that they call, one after the other.

    Args:
        events: The profiler's events.
        slowdown: By what factor the profiler made all of it slower.
    """
    at = 0.0
    for event in events:
        duration = event.self_cpu_time_total / slowdown
        part = "other"
        caller = event
        while caller is not None:
            if caller.name in ATTENTION:
                part = "attention"
                break
            if caller.name.startswith(OPERATORS):
                part = "matrix products"
            caller = caller.cpu_parent
        yield Span(part, event.name, at, duration)
        at += duration


@contextmanager
def _named_attention() -> Iterator[None]:
    """Gives the attention function a name in profiles."""

    def named(*arguments: Any, **options: Any) -> Any:
        with record_function(ATTENTION[0]):
            return shared_cache_attention(*arguments, **options)

    AttentionInterface.register(ATTN_IMPLEMENTATION, named)
    try:
        yield
    finally:
        AttentionInterface.register(ATTN_IMPLEMENTATION, shared_cache_attention)
