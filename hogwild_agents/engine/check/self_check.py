"""The self-check: on load, a model must show that the engine computes it faithfully.

No single test suffices; each one misses something. In order:

1. structure: only softmax attention with a plain cache, one call per layer, known arguments only;
2. rotation: one rotation per layer explains queries and keys at five distances (`probe.py`);
3. windows: the mask of every layer is causal, with or without a sliding window;
4. layer by layer: the engine's attention over blocks against the model's own eager attention and
   mask, on the same queries, keys and values;
5. end to end: logits over blocks laid end to end, one commit included, against the plain forward.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine.attention.backend import Backend
from hogwild_agents.engine.attention.interface import (
    ATTN_IMPLEMENTATION,
    CURRENT_ATTENTION,
    Pass,
    Row,
    shared_cache_attention,
)
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.check.probe import (
    AttentionCall,
    check_structure,
    fit_layers,
    probe_plain,
    probe_positions,
    run_model,
)
from hogwild_agents.engine.layers import Layer
from hogwild_agents.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


TOKENS = 40
"""Length of the text that the check runs."""

FIRST, SECOND, THIRD = 13, 8, 16
"""Lengths of the blocks that the text is cut into. The rest is decoded token by token."""

CHECK_PAGES = 8
"""The most pages that the check takes."""

LOCAL, END_TO_END = 1e-4, 1e-3
"""Largest deviation in float32, relative to the largest value of the output or of the logits. Sound
models stay far below; a wrong rotation, window or scale is off by 0.1 and more."""

ROUNDINGS = 8
"""In bfloat16 and float16 both bounds are this many units of rounding. End to end, three times the
difference between the model's own eager and sdpa attention is allowed too."""

Forward: TypeAlias = Callable[[Sequence[Sequence[CacheBlock]], Sequence[Tensor]], Tensor]
"""`SharedCacheModel.forward`."""


@dataclass(slots=True)
class Finding:
    """One part of the check.

    Attributes:
        part: Its name.
        verdict: The result in words.
        seconds: The time it took.
        passed: Whether the model passed it.
    """

    part: str
    verdict: str
    seconds: float
    passed: bool = True


@dataclass(slots=True)
class Report:
    """The result of the check.

    Attributes:
        name: The model's name.
        findings: The parts in order. If the model was refused, the last one is the reason.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The time that the whole check took."""
        return sum(finding.seconds for finding in self.findings)

    @contextmanager
    def part(self, name: str) -> Iterator[Finding]:
        """Times one part, and records a refusal as its verdict."""
        finding = Finding(name, "", 0.0)
        self.findings.append(finding)
        start = time.perf_counter()
        try:
            yield finding
        except UnsupportedModelError as error:
            where = "" if error.layer is None else f"layer {error.layer}: "
            finding.verdict, finding.passed = where + error.reason, False
            error.report = self
            raise
        finally:
            finding.seconds = time.perf_counter() - start


@dataclass(slots=True)
class Evidence:
    """What was measured of a model, and the plain forward that the engine must reproduce.

    Attributes:
        model: The model.
        layers: Its attention layers.
        tokens: int64 [TOKENS], what the plain forward read.
        calls: The attention calls of the plain forward, by layer.
        logits: float32 [TOKENS, vocab], of the plain forward.
    """

    model: PreTrainedModel
    layers: tuple[Layer, ...]
    tokens: Tensor
    calls: list[AttentionCall]
    logits: Tensor


def measure(model: PreTrainedModel, vocab_size: int, report: Report) -> Evidence:
    """Parts 1 to 3: measures everything that the engine must know of a model.

    Args:
        model: The model, with its own attention.
        vocab_size: Number of its token ids.
        report: Gets the findings.

    Raises:
        UnsupportedModelError: With the layer and the reason.
    """
    name = report.name
    device = next(model.parameters()).device
    tokens = (torch.arange(1, TOKENS + 1, device=device) * 7919) % vocab_size
    with report.part("structure") as finding:
        check_structure(model, name)
        calls, positions = probe_positions(model, name, tokens[:3])
        finding.verdict = f"{len(calls)} attention layers, each called once"
    with report.part("rotation") as finding:
        layers = fit_layers(model, name, calls, positions)
        finding.verdict = _tally(layer.rotation.name for layer in layers)
    with report.part("windows") as finding:
        calls, logits = probe_plain(model, name, tokens)
        layers = [
            replace(layer, window=call.mask.window if call.mask else None)
            for layer, call in zip(layers, calls, strict=True)
        ]
        finding.verdict = _tally(f"{layer.window or 'full'}" for layer in layers)
    return Evidence(model, tuple(layers), tokens, calls, logits)


def compare(
    evidence: Evidence, pool: CachePool, backend: Backend, forward: Forward, report: Report
) -> None:
    """Parts 4 and 5: the engine against the model's own plain forward.

    Args:
        evidence: What was measured.
        pool: At least `CHECK_PAGES` pages in the model's own dtype; empty afterwards.
        backend: Computes attention.
        forward: The engine's forward pass over blocks of `pool`.
        report: Gets the findings.

    Raises:
        UnsupportedModelError: With the layer and the deviation.
    """
    rounding = ROUNDINGS * torch.finfo(pool.dtype).eps
    with report.part("layer by layer") as finding:
        errors = _layer_errors(evidence, pool, backend)
        finding.verdict = f"off by {max(errors):.1e} at most"
        bound = max(LOCAL, rounding)
        for layer, error in enumerate(errors):
            if not error <= bound:
                raise UnsupportedModelError.because(
                    report.name,
                    f"attention over blocks is off by {error:.1e} of its size from the model's own "
                    f"eager attention ({bound:.1e} allowed)",
                    layer,
                )
    with report.part("end to end") as finding:
        exact = pool.dtype == torch.float32
        noise = 0.0 if exact else _rounding_noise(evidence)
        bound = max(END_TO_END, rounding, 3 * noise)
        errors = _end_to_end_errors(evidence, pool, forward)
        # In low precision the routers of a mixture of experts flip at a few tokens; a wrong
        # computation is wrong at nearly all of them.
        error = max(errors) if exact else statistics.median(errors)
        finding.verdict = f"off by {error:.1e} {'at most' if exact else 'in the median'}"
        if not error <= bound:
            raise UnsupportedModelError.because(
                report.name,
                f"its logits over blocks are off by {error:.1e} of their size from its plain "
                f"forward ({bound:.1e} allowed), although each layer's attention agrees: something "
                "besides attention depends on the order or position of tokens",
            )


def _layer_errors(evidence: Evidence, pool: CachePool, backend: Backend) -> list[float]:
    """Each layer's attention over two blocks against the same rows of its eager attention."""
    first, second = CacheBlock(pool), CacheBlock(pool)
    pool.reserve([(first, FIRST), (second, TOKENS - FIRST)])
    slots = pool.tensor(first.slots(0, FIRST))
    first.advance(FIRST)
    row = Row(0, [first, second], np.zeros(TOKENS - FIRST, np.int64), [0, FIRST], 0)
    errors = []
    token = CURRENT_ATTENTION.set((evidence.layers, backend.prepare(Pass(pool, [row]))))
    try:
        for layer, call in zip(evidence.layers, evidence.calls, strict=True):
            pool.keys[layer.index].index_copy_(1, slots, call.key[0, :, :FIRST])
            pool.values[layer.index].index_copy_(1, slots, call.value[0, :, :FIRST])
            query, key = (
                layer.rotation.rotate(states[:, :, FIRST:], -FIRST)
                for states in (call.query, call.key)
            )
            value = call.value[:, :, FIRST:]
            out, _ = shared_cache_attention(call.module, query, key, value, None, **call.options)
            assert call.out is not None
            errors.append(_error(out[0], call.out[0, FIRST:]))
    finally:
        CURRENT_ATTENTION.reset(token)
        first.free()
        second.free()
    return errors


def _rounding_noise(evidence: Evidence) -> float:
    """What rounding alone does to the logits: the model's own sdpa attention against its eager one.

    0 for families without sdpa attention (Gemma 2, GPT-OSS).
    """
    model, tokens = evidence.model, evidence.tokens
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:
        return 0.0
    logits = run_model(model, tokens, torch.arange(TOKENS, device=tokens.device))
    model.set_attn_implementation(ATTN_IMPLEMENTATION)
    return _error(logits, evidence.logits)


def _end_to_end_errors(evidence: Evidence, pool: CachePool, forward: Forward) -> list[float]:
    """Logits over three blocks and a commit, next to an unrelated team, against the plain ones."""
    first, second, third, decoy = blocks = [CacheBlock(pool) for _ in range(4)]
    lengths = [FIRST, SECOND, THIRD, *[1] * (TOKENS - FIRST - SECOND - THIRD)]
    ends = np.cumsum(lengths)
    logits = []
    for index, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        view = [[first], [first, second], [first, third]][min(index, 2)]
        if index == 2:
            first.extend(second)
        tokens = evidence.tokens[end - length : end]
        logits.append(forward([view, [decoy]], [tokens, tokens.flip(0)])[0])
    for block in blocks:
        block.free()
    return [
        _error(ours, plain)
        for ours, plain in zip(logits, evidence.logits[torch.from_numpy(ends - 1)], strict=True)
    ]


def _error(actual: Tensor, expected: Tensor) -> float:
    """The largest deviation relative to the largest expected value; NaN if any number is NaN."""
    actual, expected = actual.float().cpu(), expected.float().cpu()
    scale = expected.abs().amax().clamp_min(1e-30)
    return float(((actual - expected).abs().amax() / scale).item())


def _tally(names: Iterable[str]) -> str:
    """`28 x full` or `20 x 512, 4 x full`."""
    return ", ".join(f"{count} x {name}" for name, count in Counter(names).items())
