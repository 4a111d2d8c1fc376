"""Engines under test, each ready for one decode pass after the other from the same random cache.

Caches are filled with random numbers instead of a prefill, which changes no timing of a decode
pass. All contenders draw the same numbers, so that a lone worker and plain transformers compute the
same logits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from transformers import CompileConfig, DynamicCache, PreTrainedModel, StaticCache

from hogwild_agents.engine.attention.interface import NAME
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.model import SharedCacheModel, compile_model
from hogwild_agents.engine.rows import make_rows
from hogwild_agents.errors import ContextLengthError

CALM_CPU, CALM_CUDA = 2, 5
"""Passes without a new recording after which a contender is warm. On a CUDA card the first pass of
a shape is launched, the second one recorded; `torch.compile` takes three to record its own."""

MOST_WARM_UP = 24
"""Passes after which a contender is timed though it still records."""

STRIDE = 64
"""Static caches are this long or a multiple: sdpa copies masks of an odd length in every pass."""

MOST_SIZES = 64
"""Of batches and caches that transformers compiles for; torch's own limit is 8."""

Name = Literal["hogwild", "transformers", "transformers-batch", "transformers-static"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Who is to be timed, and with what before it.

    Attributes:
        engine: `hogwild`, `transformers` (DynamicCache, batch 1), `transformers-batch` (the same
            with `workers` rows) or `transformers-static` (StaticCache, `workers` rows).
        workers: Tokens that a team, or a batch, writes in a pass.
        context: Tokens that every worker sees before its own.
        teams: How many teams run in a pass, each with a context of its own.
        compiled: Whether the model runs through `torch.compile`.
    """

    engine: Name
    workers: int
    context: int
    teams: int = 1
    compiled: bool = False

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.engine}-compiled" if self.compiled else self.engine


@dataclass(slots=True)
class Contender:
    """An engine with a full cache.

    Attributes:
        entry: Who it is.
        run: Runs a pass; logits [teams * workers, ..., vocab].
        kv_bytes: The memory that its keys and values take by now.
        recordings: How many CUDA graphs it has recorded by now.
        close: Gives its cache back.
    """

    entry: Entry
    run: Callable[[], Tensor]
    kv_bytes: Callable[[], int]
    recordings: Callable[[], int]
    close: Callable[[], None]

    def choose(self) -> None:
        """Runs a pass and brings one number per row back, as choosing tokens would."""
        self.run().argmax(-1).tolist()


def make_contender(shared: SharedCacheModel, entry: Entry, passes: int) -> Contender:
    """A contender that is warm and has room for so many passes.

    Raises:
        ContextLengthError: The model does not reach so far.
        OutOfCacheMemoryError: The engine's cache has no room.
        RuntimeError: The device has none; it speaks of memory.
    """
    room = MOST_WARM_UP + passes
    longest = entry.context + (entry.workers if entry.engine == "hogwild" else 1) * room
    if longest > shared.max_length:
        raise ContextLengthError(
            f"{entry.workers} workers would reach {longest:,} tokens, and the model takes "
            f"{shared.max_length:,}"
        )
    ours = entry.engine == "hogwild"
    contender = _team(shared, entry) if ours else _alone(shared, entry, room)
    needed = CALM_CUDA if shared.device.type == "cuda" else CALM_CPU
    calm = 0
    with attention_of(shared.model, entry):
        for _ in range(MOST_WARM_UP):
            before = contender.recordings()
            contender.choose()
            calm = calm + 1 if contender.recordings() == before else 0
            if calm >= needed:
                break
    return contender


@contextmanager
def attention_of(model: PreTrainedModel, entry: Entry) -> Iterator[None]:
    """Lends the model the attention of an engine."""
    if entry.engine == "hogwild":
        model.set_attn_implementation(NAME)
    else:
        try:
            model.set_attn_implementation("sdpa")
        except ValueError:  # some families have no other
            model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)


def counting_twin(
    shared: SharedCacheModel, compiled: bool
) -> tuple[SharedCacheModel, Callable[[], int]]:
    """The same weights and cache, run another way, and how many passes it has recorded."""
    twin = copy.copy(shared)
    twin._compiled = compile_model(shared.model) if compiled else None
    made = 0
    if shared._graphs is not None:
        from hogwild_agents.engine.attention.cuda_graphs import (  # they need Triton
            CudaGraphRunner,
            record_graph,
        )

        def record(run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
            nonlocal made
            made += 1
            return record_graph(run)

        twin._graphs = CudaGraphRunner(shared.pool, twin._call, record)
    return twin, lambda: made


def _team(shared: SharedCacheModel, entry: Entry) -> Contender:
    """Teams in the contiguous layout: the context, the others' work, its own."""
    twin, recordings = counting_twin(shared, entry.compiled)
    blocks, views = [], []
    for team in range(entry.teams):
        prompt, *own = (shared.new_block() for _ in range(entry.workers + 1))
        fill(prompt, entry.context, shared.dtype, team)
        blocks += [prompt, *own]
        views += [[prompt, *(other for other in own if other is not block), block] for block in own]
    tokens = [np.ones(1, np.int64)] * len(views)

    def run() -> Tensor:
        rows = make_rows(views, tokens, twin.max_length)
        with twin.pool.growing([(row.view[-1], row.count) for row in rows]):
            return twin.run(rows)

    def close() -> None:
        for block in blocks:
            block.free()

    def kv_bytes() -> int:
        pages = sum(extent.count for block in blocks for extent in block.extents)
        return pages * PAGE * shared.pool.bytes_per_token

    return Contender(entry, run, kv_bytes, recordings, close)


def _alone(shared: SharedCacheModel, entry: Entry, room: int) -> Contender:
    """The same model by itself, with a cache of its own for every row."""
    model: Any = shared.model
    batch = 1 if entry.engine == "transformers" else entry.workers
    tokens = torch.ones(batch, 1, dtype=torch.int64, device=shared.device)
    shown: Any = DynamicCache(config=model.config)
    cache: Any = DynamicCache(config=model.config)
    if entry.engine == "transformers-static":
        length = -(-(entry.context + room) // STRIDE) * STRIDE
        cache = StaticCache(config=model.config, max_cache_len=length)
    with attention_of(model, entry), torch.no_grad():
        model(input_ids=tokens[:1], past_key_values=shown, use_cache=True)  # what does it cache?
        for index, layer in enumerate(shown.layers):
            if layer.keys is None:
                continue
            states = _random(entry.context, layer.keys[0], layer.values[0], index, 0)
            cache.update(*(state.expand(batch, -1, -1, -1) for state in states), index)
    call, step = model, cast("Callable[[], None]", torch.compiler.cudagraph_mark_step_begin)
    if entry.compiled:  # as `generate` compiles it, but anew for every size
        from torch._dynamo import config  # only here: it takes seconds to load

        config.recompile_limit = max(config.recompile_limit, MOST_SIZES)
        call = model.get_compiled_call(CompileConfig(dynamic=False))

    def run() -> Tensor:
        step()  # the last pass's logits are not read any more
        with torch.no_grad():
            logits: Tensor = call(
                input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits
        return logits[:, -1]

    def kv_bytes() -> int:
        held = [layer for layer in cache.layers if layer.keys is not None]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in held)

    return Contender(entry, run, kv_bytes, lambda: 0, lambda: cache.layers.clear())


def fill(block: CacheBlock, count: int, dtype: torch.dtype, seed: int) -> None:
    """Appends random keys and values, drawn in `dtype`, without running the model."""
    pool = block.pool
    pool.reserve([(block, count)])
    where = pool.tensor(block.slots(len(block), len(block) + count))
    for layer, keys, values in pool.storage():
        like_key, like_value = (kept[:, :0].to(dtype) for kept in (keys, values))
        key, value = _random(count, like_key, like_value, layer.index, seed)
        pool.put(keys, where, key[0])
        pool.put(values, where, value[0])
    block.advance(count)


def _random(
    count: int, keys: Tensor, values: Tensor, layer: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Keys and values [1, kv_heads, count, dim] for a layer, of the given ones' kind.

    Args:
        count: Tokens.
        keys: [kv_heads, any, key_dim].
        values: [kv_heads, any, value_dim].
        layer: Its index.
        seed: Of the context.
    """
    drawing = torch.Generator(keys.device).manual_seed(1000 * seed + layer)
    key, value = (
        torch.randn(
            (1, like.shape[0], count, like.shape[2]),
            generator=drawing,
            dtype=like.dtype,
            device=like.device,
        )
        for like in (keys, values)
    )
    return key, value
