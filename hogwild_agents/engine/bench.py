"""Measures what a pass costs: our engine beside plain transformers, in one run on one machine.

Caches are filled with random numbers instead of a prefill, which changes no timing of a decode
pass. All engines take turns, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from hogwild_agents.engine.attention import NAME
from hogwild_agents.engine.blocks import Block
from hogwild_agents.engine.errors import ModelLoadError, OutOfCacheMemoryError
from hogwild_agents.engine.model import SharedCacheModel

SHAPES: dict[str, dict[str, Any]] = {
    "5m": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "intermediate_size": 768,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen3-8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 12288,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "qwen3-32b": {
        "hidden_size": 5120,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 25600,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
}
"""Qwen3 models by size (from their published configurations), and a small one for quick looks."""

WARM_UP = 2
"""Passes before the timed ones."""

COPY_BYTES = 2**28
"""Size of the copy that measures the machine's bandwidth; larger than any cache of a CPU or GPU."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the table; the fields are the keys of `--json`.

    Attributes:
        engine: `hogwild`, `transformers` (DynamicCache, batch 1) or `transformers-batch`.
        workers: Tokens per pass.
        context: Tokens that every worker sees before its own.
        dtype: Of weights and cache.
        device: As torch names it.
        ms_per_pass: Median of the timed passes, in milliseconds.
        tokens_per_second: `workers` over that.
        kv_bytes: Memory of the session's keys and values.
        bandwidth_share: Weights and cache, read once each, per second, as a share of the machine's
            own measured copy bandwidth.
    """

    engine: str
    workers: int
    context: int
    dtype: str
    device: str
    ms_per_pass: float
    tokens_per_second: float
    kv_bytes: int
    bandwidth_share: float


@dataclass(slots=True)
class Contender:
    """One engine under test: how to run a pass, how to let go, and what its cache takes."""

    engine: str
    workers: int
    run: Callable[[], None]
    close: Callable[[], None]
    kv_bytes: int


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
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = min(_seconds(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * COPY_BYTES / seconds


def count_passes(workers: Sequence[int], contexts: Sequence[int], passes: int) -> int:
    """Passes that `measure` runs if no engine lacks memory."""
    engines = len(workers) + 1 + sum(count > 1 for count in workers)
    return engines * len(contexts) * (WARM_UP + passes)


def measure(
    shared: SharedCacheModel,
    workers: Sequence[int],
    contexts: Sequence[int],
    passes: int,
    bandwidth: float,
    tick: Callable[[], object],
) -> Iterator[Measurement | tuple[str, str]]:
    """Times every engine at every context.

    Args:
        shared: The model.
        workers: Team sizes.
        contexts: Tokens in the shared block.
        passes: Timed passes for each engine and context.
        bandwidth: From `copy_bandwidth`.
        tick: Called after every pass, `count_passes` times in all.

    Yields:
        A measurement, or a pair (context, reason) where an engine had no room.
    """
    weights = _weight_bytes(shared.model)
    for context in contexts:
        longest = context + max(workers) * (1 + WARM_UP + passes)
        if longest > shared.max_length:
            yield (
                f"context {context}",
                f"a team would reach {longest:,} tokens, and the model takes {shared.max_length:,}",
            )
            continue
        contenders: list[Contender] = []
        for make in _contenders(shared, workers, context):
            try:
                contenders.append(make())
            except (OutOfCacheMemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and "memory" not in str(error):
                    raise  # torch's allocators raise RuntimeErrors that speak of memory
                yield f"context {context}", str(error)
        times: dict[int, list[float]] = {index: [] for index in range(len(contenders))}
        for turn in range(WARM_UP + passes):
            for index, contender in enumerate(contenders):
                implementation = NAME if contender.engine == "hogwild" else "sdpa"
                shared.model.set_attn_implementation(implementation)
                seconds = _seconds(contender.run, shared.device)
                tick()
                if turn >= WARM_UP:
                    times[index].append(seconds)
        shared.model.set_attn_implementation(NAME)
        for index, contender in enumerate(contenders):
            seconds = statistics.median(times[index])
            contender.close()
            yield Measurement(
                engine=contender.engine,
                workers=contender.workers,
                context=context,
                dtype=str(shared.dtype).removeprefix("torch."),
                device=str(shared.device),
                ms_per_pass=1e3 * seconds,
                tokens_per_second=contender.workers / seconds,
                kv_bytes=contender.kv_bytes,
                bandwidth_share=(weights + contender.kv_bytes) / seconds / bandwidth,
            )


def _contenders(
    shared: SharedCacheModel, workers: Sequence[int], context: int
) -> Iterator[Callable[[], Contender]]:
    for count in workers:
        yield lambda count=count: _team(shared, count, context)  # type: ignore[misc]
    yield lambda: _plain(shared, "transformers", 1, context)
    for count in workers:
        if count > 1:
            yield lambda count=count: _plain(  # type: ignore[misc]
                shared, "transformers-batch", count, context
            )


def _team(shared: SharedCacheModel, workers: int, context: int) -> Contender:
    """A team in the contiguous layout: the context, the others' work, its own."""
    before = shared.pool.used_bytes
    prompt, *own = blocks = [shared.new_block() for _ in range(workers + 1)]
    _fill(prompt, context)
    for block in own:
        _fill(block, 1)
    views = [[prompt, *(other for other in own if other is not block), block] for block in own]

    def close() -> None:
        for block in blocks:
            block.free()

    return Contender(
        "hogwild",
        workers,
        lambda: _sink(shared.forward(views, [[1]] * workers)),
        close,
        shared.pool.used_bytes - before,
    )


def _plain(shared: SharedCacheModel, engine: str, batch: int, context: int) -> Contender:
    """The same model by itself, with a cache of its own for every row."""
    model, device = shared.model, shared.device
    model.set_attn_implementation("sdpa")
    first: Any = DynamicCache(config=model.config)
    cache: Any = DynamicCache(config=model.config)
    tokens = torch.ones(batch, 1, dtype=torch.int64, device=device)
    size = 0
    with torch.no_grad():
        model(input_ids=tokens, past_key_values=first, use_cache=True)  # shows what it caches
        for index, layer in enumerate(first.layers):
            if layer.keys is None:
                continue
            keys, values = (
                torch.rand(*kept.shape[:2], context, kept.shape[3], dtype=kept.dtype, device=device)
                for kept in (layer.keys, layer.values)
            )
            cache.update(keys, values, index)
            size += keys.numel() * keys.element_size() + values.numel() * values.element_size()
    model.set_attn_implementation(NAME)

    def run() -> None:
        with torch.no_grad():
            out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        _sink(out.logits)

    return Contender(engine, batch, run, cache.layers.clear, size)


def _fill(block: Block, count: int) -> None:
    """Appends random keys and values without running the model."""
    pool = block.pool
    pool.reserve([(block, count)])
    where = pool.tensor(block.slots(len(block), len(block) + count))
    for _, keys, values in pool.storage():
        for kept in (keys, values):
            random = torch.rand(
                kept.shape[0], count, kept.shape[2], dtype=kept.dtype, device=kept.device
            )
            kept.index_copy_(1, where, random)
    block.advance(count)


def _sink(logits: torch.Tensor) -> None:
    """Brings one number per row back, as choosing a token would."""
    logits.argmax(-1).tolist()


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of weights that a pass reads; of an untied input embedding it reads a few rows only."""
    whole: Any = model
    inputs, outputs = whole.get_input_embeddings(), whole.get_output_embeddings()
    total = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if outputs is None or outputs.weight.data_ptr() == inputs.weight.data_ptr():
        return total
    embedding: int = inputs.weight.numel() * inputs.weight.element_size()
    return total - embedding
