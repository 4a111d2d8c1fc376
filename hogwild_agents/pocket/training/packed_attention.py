"""Attention over a packed transcript, registered with transformers: the model stays unmodified."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hogwild_agents.pocket.training.packing import PackedTranscript

ATTENTION = "hogwild_packed"
"""The name of the attention in transformers' registry."""


class Rotations:
    """Cosines and sines for one packed transcript; the same for all layers.

    Args:
        packed: The transcript.
        theta: Base of the rotary frequencies.
        size: Numbers in a head.
    """

    def __init__(self, packed: PackedTranscript, theta: float, size: int) -> None:
        self.packed = packed
        exponents = torch.arange(
            0, size, 2, dtype=torch.float64, device=packed.query_positions.device
        )
        frequencies = theta ** (-exponents / size)
        self.queries = _cos_sin(packed.query_positions[:, None], frequencies)
        self.history_keys = _cos_sin(packed.history_positions, frequencies)
        self.block_keys = _cos_sin(packed.block_positions, frequencies)


def _cos_sin(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    angles = positions[..., None].double() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


def _rotate(states: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates states by position; the halves of a head form the pairs, as in Llama and Qwen."""
    cos, sin = cos_sin
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def packed_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float,
    rotations: Rotations,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed transcript; queries, keys, values float32 [1, heads, N, size].

    They are not rotated yet, because the model gets zeros as positions.
    """
    packed = rotations.packed
    queries = _rotate(query * scaling, rotations.queries)  # [1 + blocks, heads, N, size]
    history_scores = queries[0] @ _rotate(key[0], rotations.history_keys).mT
    keys = _rotate(key[0], rotations.block_keys)
    block_scores = [
        queries[1 + block] @ keys[:, start:end].mT
        for block, (start, end) in enumerate(packed.block_columns)
    ]
    prompt = packed.block_columns[0][0]
    scores = torch.cat([history_scores[..., :prompt], *block_scores], dim=-1)
    scores = torch.where(packed.committed, history_scores, scores)
    weights = scores.masked_fill_(packed.hidden, -torch.inf).softmax(-1)
    return (weights @ value[0]).transpose(0, 1)[None], None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, lambda *_, **__: None)
