"""Measures what a pass costs: our engine beside plain transformers, in one run on one machine.

All engines take turns, so that whatever else the machine does falls on all of them alike. Beside a
time stands its floor: the bytes that a pass must read, over the speed at which this machine copies.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from hogwild_agents.bench.contenders import (
    MOST_WARM_UP,
    Contender,
    Entry,
    attention_of,
    counting_twin,
    fill,
    make_contender,
)
from hogwild_agents.bench.shapes import SHAPES
from hogwild_agents.engine.attention.interface import Pass, Scoring
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.limits import default_cache_bytes
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.rows import make_rows
from hogwild_agents.errors import (
    ContextLengthError,
    ModelLoadError,
    OutOfCacheMemoryError,
)

COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Size of the copy that measures a machine's bandwidth: many times its caches."""

COPIES = 7
"""How often it is copied; the best time counts."""

PROMPT = 100
"""Tokens of the prompt that a first session begins with."""

ATTENTION_TURNS = 20
"""Timed runs of `attention_alone`."""

SESSION_TOKENS = 4096
"""Room in the cache for what is timed beside passes: sessions, a first prompt."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the table; the fields are the keys of `--json`.

    Attributes:
        engine: See `Entry.name`; or `attention`, see `attention_alone`.
        teams: Teams in a pass.
        workers: Tokens that each of them writes in a pass.
        context: Tokens that every worker sees before its own.
        dtype: Of weights and arithmetic.
        cache_dtype: Of keys and values.
        device: As torch names it.
        ms_per_pass: Median of the timed passes, in milliseconds.
        tokens_per_second: `teams * workers` over that.
        kv_bytes: Memory of the keys and values.
        floor_ms: Weights and cache, read once each, at the machine's own measured copy bandwidth.
        bandwidth_share: `floor_ms` over `ms_per_pass`.
        recordings: CUDA graphs that were recorded while passes were timed.
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
    floor_ms: float
    bandwidth_share: float
    recordings: int


class LeftOut(NamedTuple):
    """An engine that could not be timed, and why."""

    entry: Entry
    reason: str


def build_shape(shape: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A model of a named shape with random weights, built on the device without a download.

    Raises:
        ModelLoadError: No such shape.
    """
    if shape not in SHAPES:
        raise ModelLoadError(f"Unknown shape {shape!r}: choose one of {', '.join(SHAPES)}.")
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = Qwen3Config(max_position_embeddings=2**20, rope_parameters=rope, **SHAPES[shape])
    config._name_or_path = f"random {shape}"
    with torch.device("meta"):
        model: Any = Qwen3ForCausalLM(config)
    model.to(dtype)
    model.to_empty(device=device)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.fill_(1)
        else:
            parameter.data.uniform_(-0.03, 0.03, generator=generator)
    built: PreTrainedModel = model.train(False)
    return built


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy on the device, reads and writes counted."""
    size = COPY_BYTES.get(device.type, COPY_BYTES["cpu"])
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = min(_busy_seconds(lambda: target.copy_(source), device) for _ in range(COPIES))
    return 2 * size / seconds


def entries_of(
    workers: Sequence[int], context: int, teams: int, compiled: bool, device: torch.device
) -> list[Entry]:
    """Whom `hogwild bench` times at a context, all in turns."""
    counts = [1] if teams == 1 else [1, teams]
    ways = [False, True] if compiled else [False]
    return [
        *(
            Entry("hogwild", count, context, number, way)
            for count in workers
            for number in counts
            for way in ways
        ),
        Entry("transformers", 1, context),
        *(Entry("transformers-batch", count, context) for count in workers if count > 1),
        *(
            Entry("transformers-static", count, context, 1, compiled or device.type == "cuda")
            for count in workers
        ),
    ]


def cache_bytes_for(
    model: PreTrainedModel, scenes: Iterable[Sequence[Entry]], passes: int
) -> int | None:
    """What the engine's cache needs for the largest of these scenes, on a CUDA card.

    There a cache takes its memory at once, and plain transformers needs some too. Elsewhere it
    grows, and None is returned.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        return None
    cache: Any = DynamicCache(config=model.config)
    with torch.no_grad():
        token = torch.ones(1, 1, dtype=torch.int64, device=device)
        model(input_ids=token, past_key_values=cache, use_cache=True)
    held = [layer for layer in cache.layers if layer.keys is not None]
    token_bytes: int = sum(layer.keys.nbytes + layer.values.nbytes for layer in held)
    most = max(sum(_most_tokens(entry, passes) for entry in scene) for scene in scenes)
    return min(token_bytes * (most + SESSION_TOKENS), default_cache_bytes(device, 0.9))


def measure(
    shared: SharedCacheModel,
    entries: Sequence[Entry],
    passes: int,
    bandwidth: float,
    tick: Callable[[], object],
) -> Iterator[Measurement | LeftOut]:
    """Times some engines, which take turns.

    Args:
        shared: The model.
        entries: Who.
        passes: Timed passes of each.
        bandwidth: From `copy_bandwidth`.
        tick: Called after every timed pass.

    Yields:
        For each a measurement, or why there is none.
    """
    contenders: list[Contender] = []
    for entry in entries:
        try:
            contenders.append(make_contender(shared, entry, passes))
        except (ContextLengthError, OutOfCacheMemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise  # torch's allocators raise RuntimeErrors that speak of memory
            yield LeftOut(entry, str(error))
    times: list[list[float]] = [[] for _ in contenders]
    before = [contender.recordings() for contender in contenders]
    for _ in range(passes):
        for contender, seconds in zip(contenders, times, strict=True):
            with attention_of(shared.model, contender.entry):
                seconds.append(_seconds(contender.choose, shared.device))
            tick()
    weights = _weight_bytes(shared.model)
    for contender, seconds, recorded in zip(contenders, times, before, strict=True):
        kv_bytes, recordings = contender.kv_bytes(), contender.recordings() - recorded
        contender.close()
        ours = contender.entry.engine == "hogwild"
        yield _measurement(
            shared,
            contender.entry.name,
            contender.entry,
            shared.pool.dtype if ours else shared.dtype,
            statistics.median(seconds),
            weights + kv_bytes,
            kv_bytes,
            bandwidth,
            recordings,
        )


def attention_alone(
    shared: SharedCacheModel, workers: int, context: int, bandwidth: float
) -> Measurement:
    """Times the attention of one pass of a team: every layer writes, attends and merges.

    Each layer reads its own storage, so that no cache of the machine holds what is read. On a CUDA
    card all of it is recorded and replayed, so that launching takes no time; angles are made
    before. Of a layer with a window, what the window holds is counted.

    Raises:
        OutOfCacheMemoryError: The cache has no room for the context.
    """
    prompt, *own = blocks = [shared.new_block() for _ in range(workers + 1)]
    fill(prompt, context, shared.dtype, 0)
    shared.pool.reserve([(block, 1) for block in own])
    views = [[prompt, *(other for other in own if other is not block), block] for block in own]
    ids = [np.ones(1, np.int64)] * workers
    current = Pass(shared.pool, make_rows(views, ids, shared.max_length))
    attend = shared.backend.attend(current)
    drawing = torch.Generator(shared.device).manual_seed(1)
    asked = [
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
        for layer, (query, key, value) in zip(shared.layers, asked, strict=True):
            out = attend(layer, query, key, value, Scoring(layer.key_dim**-0.5, None, None))
        return out

    again: Callable[[], object] = run
    with torch.no_grad():
        if shared.device.type == "cuda" and shared.backend.name == "triton":
            from hogwild_agents.engine.attention.cuda_graphs import record_graph  # it needs Triton

            _, again = record_graph(run)
        turns = range(ATTENTION_TURNS if shared.device.type == "cuda" else 3)
        seconds = statistics.median([_busy_seconds(again, shared.device) for _ in turns])
    for block in blocks:
        block.free()
    tokens = context + workers
    read = sum(
        min(tokens, layer.window or tokens) * layer.kv_heads * (layer.key_dim + layer.value_dim)
        for layer in shared.layers
    )
    read *= shared.pool.dtype.itemsize
    entry, kind = Entry("hogwild", workers, context), shared.pool.dtype
    return _measurement(shared, "attention", entry, kind, seconds, read, read, bandwidth, 0)


def first_passes(shared: SharedCacheModel, workers: int) -> tuple[float, int]:
    """Seconds from a fresh model to its first recorded pass, and how many were recorded.

    A team reads a prompt and writes until a pass is replayed. Kernels that the self-check did not
    need are compiled on the way.
    """
    twin, recordings = counting_twin(shared, compiled=False)
    prompt, *own = blocks = [shared.new_block() for _ in range(workers + 1)]
    views = [[prompt, *(other for other in own if other is not block), block] for block in own]

    def run() -> None:
        tokens = min(PROMPT, shared.max_length - 3 * workers)
        twin.forward([[prompt]], [[token % shared.vocab_size for token in range(tokens)]])
        for _ in range(3):
            twin.forward(views, [[1]] * workers)

    seconds = _seconds(run, shared.device)
    for block in blocks:
        block.free()
    return seconds, recordings()


def _measurement(
    shared: SharedCacheModel,
    engine: str,
    entry: Entry,
    cache_dtype: torch.dtype,
    seconds: float,
    read_bytes: int,
    kv_bytes: int,
    bandwidth: float,
    recordings: int,
) -> Measurement:
    return Measurement(
        engine=engine,
        teams=entry.teams,
        workers=entry.workers,
        context=entry.context,
        dtype=str(shared.dtype).removeprefix("torch."),
        cache_dtype=str(cache_dtype).removeprefix("torch."),
        device=str(shared.device),
        ms_per_pass=1e3 * seconds,
        tokens_per_second=entry.teams * entry.workers / seconds,
        kv_bytes=kv_bytes,
        floor_ms=1e3 * read_bytes / bandwidth,
        bandwidth_share=read_bytes / bandwidth / seconds,
        recordings=recordings,
    )


def _most_tokens(entry: Entry, passes: int) -> int:
    """Room that an entry takes in the engine's cache."""
    if entry.engine != "hogwild":
        return 0
    own = MOST_WARM_UP + passes + PAGE
    return entry.teams * (entry.context + PAGE + entry.workers * own)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long something takes, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _busy_seconds(run: Callable[[], object], device: torch.device) -> float:
    """The same without the host's part, on a CUDA card."""
    if device.type != "cuda":
        return _seconds(run, device)
    event: Any = torch.cuda.Event
    start, stop = (event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    run()
    stop.record()
    stop.synchronize()
    seconds: float = 1e-3 * start.elapsed_time(stop)
    return seconds


def _weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of weights that a pass reads; of an untied input embedding it reads a few rows only."""
    whole: Any = model
    inputs, outputs = whole.get_input_embeddings(), whole.get_output_embeddings()
    total = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if outputs is None or outputs.weight.data_ptr() == inputs.weight.data_ptr():
        return total
    embedding: int = inputs.weight.numel() * inputs.weight.element_size()
    return total - embedding
