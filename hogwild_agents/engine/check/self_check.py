"""The self-check: on load a model proves that the engine computes it faithfully, or is refused.

No single test suffices; each has blind spots. In order:

1. structure: only softmax attention with a plain cache, one call per layer, known arguments only;
2. rotation: one rotation per layer explains queries and keys at five distances (`probe.py`);
3. layer-local: the engine's attention over blocks against the model's own eager attention and mask,
   on the same queries, keys and values, layer by layer;
4. end to end: logits over blocks laid end to end, one commit included, against the plain forward.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hogwild_agents.engine.attention.interface import (
    CURRENT,
    NAME,
    Pass,
    Row,
    shared_cache_attention,
)
from hogwild_agents.engine.check.probe import (
    Call,
    check_structure,
    fit_layers,
    probe_plain,
    probe_positions,
    run_model,
)
from hogwild_agents.engine.layers import Layer
from hogwild_agents.errors import UnsupportedModelError

if TYPE_CHECKING:
    from hogwild_agents.engine.model import SharedCacheModel

TOKENS = 40
"""Length of the text that the check runs."""

CHECK_PAGES = 8
"""Pages that the check may take."""

FIRST, SECOND, THIRD = 13, 8, 16
"""How it is cut into blocks; what is left is decoded token by token."""

LOCAL, END_TO_END = 1e-4, 1e-3
"""Largest deviation in float32, relative to the largest value of the output or of the logits. Sound
models stay far below; a wrong rotation, window or scale is off by 0.1 and more."""

ROUNDINGS = 8
"""In bfloat16 and float16 both bounds are this many units of rounding; end to end, three times the
difference between the model's own eager and sdpa attention is allowed too."""


@dataclass(slots=True)
class Finding:
    """One part of the check, its verdict in words, and its cost."""

    part: str
    verdict: str
    seconds: float
    passed: bool = True


@dataclass(slots=True)
class Report:
    """What the check found.

    Attributes:
        name: The model's name.
        findings: The parts in order; after a refusal, the last one is the reason.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """What the whole check cost."""
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
    """What was measured, and the plain forward that the engine must reproduce."""

    layers: tuple[Layer, ...]
    tokens: Tensor  # int64 [TOKENS]
    calls: list[Call]  # of the plain forward, by layer
    logits: Tensor  # float32 [TOKENS, vocab], of the plain forward


def measure(model: PreTrainedModel, vocab_size: int, report: Report) -> Evidence:
    """Everything that the engine must know of a model.

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
        finding.verdict = _count(layer.rotation.name for layer in layers)
    with report.part("windows") as finding:
        calls, logits = probe_plain(model, name, tokens)
        layers = [
            replace(layer, window=call.mask.window if call.mask else None)
            for layer, call in zip(layers, calls, strict=True)
        ]
        finding.verdict = _count(f"{layer.window or 'full'}" for layer in layers)
    return Evidence(tuple(layers), tokens, calls, logits)


def compare(shared: SharedCacheModel, evidence: Evidence, report: Report) -> None:
    """Parts 3 and 4: the engine against the model's own plain forward.

    Raises:
        UnsupportedModelError: With the layer and the deviation.
    """
    rounding = ROUNDINGS * torch.finfo(shared.dtype).eps
    with report.part("layer by layer") as finding:
        errors = _local_errors(shared, evidence)
        finding.verdict = f"off by {max(errors):.1e} at most"
        bound = max(LOCAL, rounding)
        for layer, error in enumerate(errors):
            if not error <= bound:
                raise UnsupportedModelError(
                    report.name,
                    f"attention over blocks is off by {error:.1e} of its size from the model's own "
                    f"eager attention ({bound:.1e} allowed)",
                    layer,
                )
    with report.part("end to end") as finding:
        bound = max(END_TO_END, rounding, 3 * _noise(shared, evidence))
        errors = _end_to_end_errors(shared, evidence)
        # In low precision the routers of a mixture of experts flip at a few tokens; a wrong
        # computation is wrong at nearly all of them.
        exact = shared.dtype == torch.float32
        error = max(errors) if exact else statistics.median(errors)
        finding.verdict = f"off by {error:.1e} {'at most' if exact else 'in the median'}"
        if not error <= bound:
            raise UnsupportedModelError(
                report.name,
                f"its logits over blocks are off by {error:.1e} of their size from its plain "
                f"forward ({bound:.1e} allowed), although each layer's attention agrees: something "
                "beside attention depends on the order or position of tokens",
            )


def _local_errors(shared: SharedCacheModel, evidence: Evidence) -> list[float]:
    """Each layer's attention over two blocks against the same rows of its eager attention."""
    first, second = shared.new_block(), shared.new_block()
    shared.pool.reserve([(first, FIRST), (second, TOKENS - FIRST)])
    slots = shared.pool.tensor(first.slots(0, FIRST))
    first.advance(FIRST)
    row = Row(0, [first, second], np.zeros(TOKENS - FIRST, np.int64), [0, FIRST], 0)
    errors = []
    token = CURRENT.set((shared.layers, shared.backend.attend(Pass(shared.pool, [row]))))
    try:
        for layer, call in zip(shared.layers, evidence.calls, strict=True):
            shared.pool.keys[layer.index].index_copy_(1, slots, call.key[0, :, :FIRST])
            shared.pool.values[layer.index].index_copy_(1, slots, call.value[0, :, :FIRST])
            query, key = (
                layer.rotation.rotate(states[:, :, FIRST:], -FIRST)
                for states in (call.query, call.key)
            )
            value = call.value[:, :, FIRST:]
            out, _ = shared_cache_attention(call.module, query, key, value, None, **call.options)
            assert call.out is not None
            errors.append(_error(out[0], call.out[0, FIRST:]))
    finally:
        CURRENT.reset(token)
        first.free()
        second.free()
    return errors


def _noise(shared: SharedCacheModel, evidence: Evidence) -> float:
    """What rounding alone does to the logits: the model's own sdpa attention against its eager one.

    0 in float32, and for families without sdpa attention (Gemma 2, GPT-OSS).
    """
    if shared.dtype == torch.float32:
        return 0.0
    try:
        shared.model.set_attn_implementation("sdpa")
    except ValueError:
        return 0.0
    positions = torch.arange(TOKENS, device=shared.device)
    sdpa = run_model(shared.model, evidence.tokens, positions)
    shared.model.set_attn_implementation(NAME)
    return _error(sdpa, evidence.logits)


def _end_to_end_errors(shared: SharedCacheModel, evidence: Evidence) -> list[float]:
    """Logits over three blocks and a commit, beside an unrelated team, against the plain ones."""
    first, second, third, decoy = blocks = [shared.new_block() for _ in range(4)]
    cuts = [FIRST, SECOND, THIRD, *[1] * (TOKENS - FIRST - SECOND - THIRD)]
    ends = np.cumsum(cuts)
    got = []
    for turn, (end, count) in enumerate(zip(ends, cuts, strict=True)):
        view = [[first], [first, second], [first, third]][min(turn, 2)]
        if turn == 2:
            first.extend(second)
        tokens = evidence.tokens[end - count : end]
        got.append(shared.forward([view, [decoy]], [tokens, tokens.flip(0)])[0])
    for block in blocks:
        block.free()
    return [
        _error(ours, plain)
        for ours, plain in zip(got, evidence.logits[torch.from_numpy(ends - 1)], strict=True)
    ]


def _error(got: Tensor, expected: Tensor) -> float:
    """Largest deviation relative to the largest value; NaN if anything is."""
    got, expected = got.float().cpu(), expected.float().cpu()
    scale = expected.abs().amax().clamp_min(1e-30)
    return float(((got - expected).abs().amax() / scale).item())


def _count(names: Iterable[str]) -> str:
    """`28 x full` or `20 x 512, 4 x full`."""
    return ", ".join(f"{count} x {name}" for name, count in Counter(names).items())
