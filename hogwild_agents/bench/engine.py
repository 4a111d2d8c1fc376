"""Measures what a pass costs: our engine and plain transformers, in one run on one machine.

All contenders take turns, so that whatever else the machine does slows all of them alike. Each time
is compared with a limit: the bytes that a pass must read, at the bandwidth of a memory copy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from hogwild_agents.bench.contenders import (
    MAX_WARM_UP,
    Case,
    Contender,
    fill_randomly,
    make_contender,
    twin_of,
    use_attention_of,
    views_of,
)
from hogwild_agents.bench.timing import device_seconds, wall_seconds
from hogwild_agents.engine.attention.interface import Pass, Scoring
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.limits import default_cache_bytes
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.rows import make_rows
from hogwild_agents.errors import ContextLengthError, OutOfCacheMemoryError

PROMPT_TOKENS = 100
"""Length of the prompt in `time_first_passes`."""

ATTENTION_RUNS = {"cpu": 3, "cuda": 20}
"""Timed runs of `measure_attention`."""

SESSION_TOKENS = 4096
"""Tokens that the cache has room for besides the timed passes: sessions, a first prompt."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the table; the fields are the keys of `--json`.

    Attributes:
        engine: See `Case.label`; or `attention`, see `measure_attention`.
        teams: Teams in a pass.
        workers: Tokens that each team writes in a pass.
        context: Tokens that every worker sees before its own.
        dtype: Type of the weights and of the computation.
        cache_dtype: Type of the keys and values.
        device: Its name in torch.
        ms_per_pass: Median of the timed passes, in milliseconds.
        tokens_per_second: `teams * workers` tokens per `ms_per_pass`.
        kv_bytes: Memory of the keys and values.
        limit_ms: Time to read weights and cache once, at the measured bandwidth of a memory copy.
        bandwidth_share: `limit_ms / ms_per_pass`.
        captures: CUDA graphs that were captured while passes were timed.
    """

    engine: str
    teams: int
    workers: int
    context: int
    dtype: str
    cache_dtype: str
    device: str
    ms_per_pass: float
    tokens_per_second: float
    kv_bytes: int
    limit_ms: float
    bandwidth_share: float
    captures: int


class Skipped(NamedTuple):
    """A case that could not be timed, and why."""

    case: Case
    reason: str


def cases_for(
    workers: Sequence[int], context: int, teams: int, compiled: bool, device: torch.device
) -> list[Case]:
    """The cases that `hogwild bench` times at one context."""
    return [
        *(
            Case("hogwild", count, context, team_count, is_compiled)
            for count in workers
            for team_count in ([1] if teams == 1 else [1, teams])
            for is_compiled in ([False, True] if compiled else [False])
        ),
        Case("transformers", 1, context),
        *(Case("transformers-batch", count, context) for count in workers if count > 1),
        *(
            Case("transformers-static", count, context, 1, compiled or device.type == "cuda")
            for count in workers
        ),
    ]


def cache_bytes_for(
    model: PreTrainedModel, rounds: Iterable[Sequence[Case]], passes: int
) -> int | None:
    """The size of the engine's cache for the largest of these rounds, on a CUDA card.

    There the cache allocates its memory at once, and plain transformers needs memory too. On other
    devices the cache grows, and None is returned.

    Args:
        model: The model.
        rounds: The cases that are timed together, in turns.
        passes: Timed passes of each case.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        return None
    cache: Any = DynamicCache(config=model.config)
    with torch.no_grad():
        token = torch.ones(1, 1, dtype=torch.int64, device=device)
        model(input_ids=token, past_key_values=cache, use_cache=True)
    layers = [layer for layer in cache.layers if layer.keys is not None]
    token_bytes: int = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    tokens = max(sum(_cache_tokens(case, passes) for case in cases) for cases in rounds)
    return min(token_bytes * (tokens + SESSION_TOKENS), default_cache_bytes(device, 0.9))


def measure(
    shared: SharedCacheModel,
    cases: Sequence[Case],
    passes: int,
    bandwidth: float,
    tick: Callable[[], object],
) -> Iterator[Measurement | Skipped]:
    """Times some cases, pass by pass in turns.

    Args:
        shared: The model.
        cases: What to time.
        passes: Timed passes of each case.
        bandwidth: From `copy_bandwidth`.
        tick: Called after every timed pass.

    Yields:
        For each case a measurement, or why there is none.
    """
    contenders: list[Contender] = []
    for case in cases:
        try:
            contenders.append(make_contender(shared, case, passes))
        except (ContextLengthError, OutOfCacheMemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise  # torch's allocators raise RuntimeErrors that mention memory
            yield Skipped(case, str(error))
    times: list[list[float]] = [[] for _ in contenders]
    warm_up_captures = [contender.captures() for contender in contenders]
    for _ in range(passes):
        for contender, seconds in zip(contenders, times, strict=True):
            with use_attention_of(shared.model, contender.case):
                seconds.append(wall_seconds(contender.decode, shared.device))
            tick()
    weight_bytes = _weight_bytes(shared.model)
    for contender, seconds, earlier in zip(contenders, times, warm_up_captures, strict=True):
        kv_bytes, captures = contender.kv_bytes(), contender.captures() - earlier
        contender.close()
        case = contender.case
        yield _measurement(
            shared,
            case.label,
            case,
            shared.pool.dtype if case.engine == "hogwild" else shared.dtype,
            statistics.median(seconds),
            weight_bytes + kv_bytes,
            kv_bytes,
            bandwidth,
            captures,
        )


def measure_attention(
    shared: SharedCacheModel, workers: int, context: int, bandwidth: float
) -> Measurement:
    """Times only the attention of one pass of a team, in all layers.

    Each layer reads its own storage, so no cache of the machine holds the keys and values. On a
    CUDA card all of it is captured and replayed, so that launching takes no time; the tables of
    cosines are computed before. In layers with a window, only the keys within it are counted.

    Raises:
        OutOfCacheMemoryError: The cache has no room for the context.
    """
    prompt, *own = blocks = [shared.new_block() for _ in range(workers + 1)]
    fill_randomly(prompt, context, shared.dtype, 0)
    shared.pool.reserve([(block, 1) for block in own])
    ids = [np.ones(1, np.int64)] * workers
    rows = make_rows(views_of(prompt, own), ids, shared.max_length)
    attention = shared.backend.prepare(Pass(shared.pool, rows))
    drawing = torch.Generator(shared.device).manual_seed(1)
    states = [
        [
            torch.randn(
                (workers, heads, dim), generator=drawing, dtype=shared.dtype, device=shared.device
            ).transpose(0, 1)
            for heads, dim in (
                (layer.heads, layer.key_dim),
                (layer.kv_heads, layer.key_dim),
                (layer.kv_heads, layer.value_dim),
            )
        ]
        for layer in shared.layers
    ]

    def run() -> Tensor:
        for layer, (query, key, value) in zip(shared.layers, states, strict=True):
            out = attention(layer, query, key, value, Scoring(layer.key_dim**-0.5, None, None))
        return out

    timed: Callable[[], object] = run
    with torch.no_grad():
        if shared.device.type == "cuda" and shared.backend.name == "triton":
            from hogwild_agents.engine.attention.cuda_graphs import capture_graph  # needs Triton

            _, timed = capture_graph(run)
        runs = ATTENTION_RUNS.get(shared.device.type, ATTENTION_RUNS["cpu"])
        seconds = statistics.median([device_seconds(timed, shared.device) for _ in range(runs)])
    for block in blocks:
        block.free()
    tokens = context + workers
    numbers = sum(
        min(tokens, layer.window or tokens) * layer.kv_heads * (layer.key_dim + layer.value_dim)
        for layer in shared.layers
    )
    dtype = shared.pool.dtype
    kv_bytes = numbers * dtype.itemsize
    case = Case("hogwild", workers, context)
    return _measurement(shared, "attention", case, dtype, seconds, kv_bytes, kv_bytes, bandwidth, 0)


def time_first_passes(shared: SharedCacheModel, workers: int) -> tuple[float, int]:
    """Seconds from a new model to its first replayed pass, and how many graphs were captured.

    A team reads a prompt and writes until a pass is replayed. Kernels that the self-check did not
    need are compiled on the way.
    """
    twin, captures = twin_of(shared, compiled=False)
    prompt, *own = blocks = [shared.new_block() for _ in range(workers + 1)]
    views = views_of(prompt, own)

    def run() -> None:
        tokens = min(PROMPT_TOKENS, shared.max_length - 3 * workers)
        twin.forward([[prompt]], [[token % shared.vocab_size for token in range(tokens)]])
        for _ in range(3):
            twin.forward(views, [[1]] * workers)

    seconds = wall_seconds(run, shared.device)
    for block in blocks:
        block.free()
    return seconds, captures()


def _measurement(
    shared: SharedCacheModel,
    engine: str,
    case: Case,
    cache_dtype: torch.dtype,
    seconds: float,
    read_bytes: int,
    kv_bytes: int,
    bandwidth: float,
    captures: int,
) -> Measurement:
    return Measurement(
        engine=engine,
        teams=case.teams,
        workers=case.workers,
        context=case.context,
        dtype=str(shared.dtype).removeprefix("torch."),
        cache_dtype=str(cache_dtype).removeprefix("torch."),
        device=str(shared.device),
        ms_per_pass=1e3 * seconds,
        tokens_per_second=case.teams * case.workers / seconds,
        kv_bytes=kv_bytes,
        limit_ms=1e3 * read_bytes / bandwidth,
        bandwidth_share=read_bytes / bandwidth / seconds,
        captures=captures,
    )


def _cache_tokens(case: Case, passes: int) -> int:
    """Tokens that a case takes in the engine's cache, in whole pages."""
    if case.engine != "hogwild":
        return 0
    own = MAX_WARM_UP + passes + PAGE
    return case.teams * (case.context + PAGE + case.workers * own)


def _weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of weights that a pass reads; of an untied input embedding it reads only a few rows."""
    untyped: Any = model
    inputs, outputs = untyped.get_input_embeddings(), untyped.get_output_embeddings()
    total = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if outputs is None or outputs.weight.data_ptr() == inputs.weight.data_ptr():
        return total
    embedding: int = inputs.weight.numel() * inputs.weight.element_size()
    return total - embedding
