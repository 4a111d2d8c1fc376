"""The engines that are compared, each ready to run decode passes over a full cache.

Caches are filled with random numbers instead of a prefill, which does not change the time of a
decode pass. All contenders draw the same numbers, so that a lone worker and plain transformers
compute the same logits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from transformers import CompileConfig, DynamicCache, PreTrainedModel, StaticCache

from hogwild_agents.engine.attention.interface import ATTN_IMPLEMENTATION
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.model import SharedCacheModel, compile_model
from hogwild_agents.engine.rows import make_rows
from hogwild_agents.errors import ContextLengthError

STABLE_PASSES = {"cpu": 2, "cuda": 5}
"""Passes without a new capture after which a contender is warm. On a CUDA card the first pass of a
shape is launched and the second one captured; `torch.compile` takes three to capture its own."""

MAX_WARM_UP = 24
"""Passes after which a contender is timed even if it still captures graphs."""

STATIC_CACHE_MULTIPLE = 64
"""Static caches are a multiple of this long: sdpa copies masks of other lengths in every pass."""

MAX_COMPILED_SIZES = 64
"""Sizes of batches and caches that transformers compiles for; torch's own limit is 8."""

Engine = Literal["hogwild", "transformers", "transformers-batch", "transformers-static"]


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed: an engine, and the size of its passes.

    Attributes:
        engine: `hogwild`, `transformers` (DynamicCache, batch 1), `transformers-batch` (the same
            with `workers` rows) or `transformers-static` (StaticCache, `workers` rows).
        workers: Tokens that a team or a batch writes in a pass.
        context: Tokens that every worker sees before its own.
        teams: How many teams run in a pass, each with its own context.
        compiled: Whether the model runs through `torch.compile`.
    """

    engine: Engine
    workers: int
    context: int
    teams: int = 1
    compiled: bool = False

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.engine}-compiled" if self.compiled else self.engine


@dataclass(slots=True)
class Contender:
    """An engine with a full cache.

    Attributes:
        case: What it is.
        run: Runs a pass; returns logits [teams * workers, ..., vocab].
        kv_bytes: The memory that its keys and values take at present.
        captures: How many CUDA graphs it has captured so far.
        close: Frees its cache.
    """

    case: Case
    run: Callable[[], Tensor]
    kv_bytes: Callable[[], int]
    captures: Callable[[], int]
    close: Callable[[], None]

    def decode(self) -> None:
        """Runs a pass and copies one number per row to the host, as greedy decoding does."""
        self.run().argmax(-1).tolist()


def make_contender(shared: SharedCacheModel, case: Case, passes: int) -> Contender:
    """A contender that is warm and has room for the passes.

    Raises:
        ContextLengthError: The passes exceed the model's context length.
        OutOfCacheMemoryError: The engine's cache has no room.
        RuntimeError: The device has no memory; the message says so.
    """
    total = MAX_WARM_UP + passes
    is_hogwild = case.engine == "hogwild"
    length = case.context + (case.workers if is_hogwild else 1) * total
    if length > shared.max_length:
        raise ContextLengthError(
            f"{case.workers} workers would reach {length:,} tokens, and the model takes at most "
            f"{shared.max_length:,}"
        )
    contender = _hogwild(shared, case) if is_hogwild else _transformers(shared, case, total)
    needed = STABLE_PASSES.get(shared.device.type, STABLE_PASSES["cpu"])
    stable = 0
    with use_attention_of(shared.model, case):
        for _ in range(MAX_WARM_UP):
            before = contender.captures()
            contender.decode()
            stable = stable + 1 if contender.captures() == before else 0
            if stable >= needed:
                break
    return contender


@contextmanager
def use_attention_of(model: PreTrainedModel, case: Case) -> Iterator[None]:
    """The model uses the attention of the case's engine in this context."""
    if case.engine == "hogwild":
        model.set_attn_implementation(ATTN_IMPLEMENTATION)
    else:
        try:
            model.set_attn_implementation("sdpa")
        except ValueError:  # some families have only eager attention
            model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(ATTN_IMPLEMENTATION)


def twin_of(shared: SharedCacheModel, compiled: bool) -> tuple[SharedCacheModel, Callable[[], int]]:
    """A model with the same weights and cache but its own CUDA graphs, and how many it captured."""
    twin = copy.copy(shared)
    twin.compiled = compile_model(shared.model) if compiled else None
    if shared.graphs is None:
        return twin, lambda: 0
    twin.graphs = graphs = type(shared.graphs)(shared.pool, twin.run_model, shared.graphs.capture)
    return twin, lambda: graphs.captures


def views_of(prompt: CacheBlock, own: Sequence[CacheBlock]) -> list[list[CacheBlock]]:
    """The contiguous layout: every worker sees the prompt, the others' blocks and its own."""
    return [[prompt, *(other for other in own if other is not block), block] for block in own]


def _hogwild(shared: SharedCacheModel, case: Case) -> Contender:
    """Our engine, with teams in the contiguous layout."""
    twin, captures = twin_of(shared, case.compiled)
    blocks: list[CacheBlock] = []
    views: list[list[CacheBlock]] = []
    for team in range(case.teams):
        prompt, *own = (shared.new_block() for _ in range(case.workers + 1))
        fill_randomly(prompt, case.context, shared.dtype, team)
        blocks += [prompt, *own]
        views += views_of(prompt, own)
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

    return Contender(case, run, kv_bytes, captures, close)


def _transformers(shared: SharedCacheModel, case: Case, passes: int) -> Contender:
    """Plain transformers, where every row of a batch has its own cache."""
    model: Any = shared.model
    batch = 1 if case.engine == "transformers" else case.workers
    tokens = torch.ones(batch, 1, dtype=torch.int64, device=shared.device)
    example: Any = DynamicCache(config=model.config)
    cache: Any = DynamicCache(config=model.config)
    if case.engine == "transformers-static":
        length = case.context + passes
        length += -length % STATIC_CACHE_MULTIPLE
        cache = StaticCache(config=model.config, max_cache_len=length)
    with use_attention_of(model, case), torch.no_grad():
        model(input_ids=tokens[:1], past_key_values=example, use_cache=True)  # shows the sizes
        for index, layer in enumerate(example.layers):
            if layer.keys is None:
                continue
            states = _random_states(case.context, layer.keys[0], layer.values[0], index, 0)
            cache.update(*(state.expand(batch, -1, -1, -1) for state in states), index)
    call = model
    mark_step_begin = cast("Callable[[], None]", torch.compiler.cudagraph_mark_step_begin)
    if case.compiled:  # as `generate` compiles it, but again for every size
        from torch._dynamo import config  # imported here because it takes seconds

        config.recompile_limit = max(config.recompile_limit, MAX_COMPILED_SIZES)
        call = model.get_compiled_call(CompileConfig(dynamic=False))

    def run() -> Tensor:
        mark_step_begin()  # the logits of the last pass are not needed any more
        with torch.no_grad():
            logits: Tensor = call(
                input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits
        return logits[:, -1]

    def kv_bytes() -> int:
        layers = [layer for layer in cache.layers if layer.keys is not None]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    return Contender(case, run, kv_bytes, lambda: 0, lambda: cache.layers.clear())


def fill_randomly(block: CacheBlock, count: int, dtype: torch.dtype, seed: int) -> None:
    """Appends random keys and values, drawn in `dtype`, without running the model."""
    pool = block.pool
    pool.reserve([(block, count)])
    slots = pool.tensor(block.slots(len(block), len(block) + count))
    for layer, keys, values in pool.storage():
        like_key, like_value = (states[:, :0].to(dtype) for states in (keys, values))
        key, value = _random_states(count, like_key, like_value, layer.index, seed)
        pool.put(keys, slots, key[0])
        pool.put(values, slots, value[0])
    block.advance(count)


def _random_states(
    count: int, keys: Tensor, values: Tensor, layer: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Random keys and values [1, kv_heads, count, dim] of a layer.

    Args:
        count: Tokens.
        keys: [kv_heads, any, key_dim], which gives the sizes, the type and the device.
        values: [kv_heads, any, value_dim], likewise.
        layer: Index of the layer.
        seed: Differs between contexts.
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
