"""The attention function that transformers calls, and the pass that it computes attention for.

A pass packs the new tokens of all workers into one row, `input_ids [1, tokens]`, with block-local
`position_ids`. The model computes everything but attention as usual. Its attention layers call
`shared_cache_attention`, which hands queries, keys and values to the backend prepared for the
current pass. The backend is kept in a context variable because some families drop keyword arguments
on the way to the attention function.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import Ints
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.errors import HogwildError

ATTN_IMPLEMENTATION = "hogwild"
"""The name under which transformers knows the attention function."""


@dataclass(slots=True)
class Row:
    """One worker's part of a pass.

    Attributes:
        worker: The worker's index in the call.
        view: The blocks that it attends to; it writes to the last one.
        tokens: int64 [count], its new token ids.
        starts: Where each block begins in the view, with the tokens of this pass counted.
        position: Block-local position of its first new token.
    """

    worker: int
    view: Sequence[CacheBlock]
    tokens: Ints
    starts: list[int]
    position: int

    @property
    def count(self) -> int:
        """Number of new tokens."""
        return len(self.tokens)

    @property
    def view_length(self) -> int:
        """Tokens in the view, with the tokens of this pass counted."""
        return self.starts[-1] + self.position + self.count


class Pass:
    """One run of the model over packed rows. Their blocks have room for the new tokens.

    Args:
        pool: The cache.
        rows: What each worker writes, at least one token each.
    """

    def __init__(self, pool: CachePool, rows: Sequence[Row]) -> None:
        self.pool = pool
        self.rows = rows
        self.lengths: dict[CacheBlock, int] = {}
        """Tokens in each block of the views, after the writes of this pass."""
        for row in rows:
            for block in row.view:
                self.lengths.setdefault(block, len(block))
        for row in rows:
            self.lengths[row.view[-1]] = row.position + row.count
        slots, positions = [], []
        for row in rows:
            stop = row.position + row.count
            slots.append(row.view[-1].slots(row.position, stop))
            positions.append(np.arange(row.position, stop))
        self.slot_mapping = np.concatenate(slots)
        """Where the new keys and values are written: int64 [tokens]."""
        self.input_ids = np.concatenate([row.tokens for row in rows])
        """int64 [tokens]."""
        self.positions = np.concatenate(positions)
        """Block-local positions: int64 [tokens]."""
        self.logits_indices = np.cumsum([row.count for row in rows]) - 1
        """Index of each row's last token among the packed tokens: int64 [rows]."""


class Scoring(NamedTuple):
    """What a layer does to its attention scores besides the softmax.

    Attributes:
        scaling: Factor on the scores.
        softcap: Bound of the scores, `cap * tanh(score / cap)` (Gemma 2), or None.
        sinks: [heads], a score that takes part in the softmax and carries no value (GPT-OSS), or
            None.
    """

    scaling: float
    softcap: float | None
    sinks: Tensor | None


class Attention(Protocol):
    """A backend prepared for one pass: writes new keys and values, then computes attention.

    Args:
        layer: The layer that calls.
        query: [heads, tokens, key_dim], rotated to block-local positions.
        key: [kv_heads, tokens, key_dim], rotated likewise.
        value: [kv_heads, tokens, value_dim].
        scoring: What the layer does to its scores.

    Returns:
        [tokens, heads, value_dim].
    """

    def __call__(
        self, layer: Layer, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Writes the new keys and values of a layer, then computes attention for every query."""


CURRENT_ATTENTION: ContextVar[tuple[Sequence[Layer], Attention]] = ContextVar("hogwild_attention")
"""The layers of the model that is running, and the attention prepared for its pass."""


def shared_cache_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  the name under which some families pass it
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every attention layer of a pass.

    Args:
        module: The attention module; its `layer_idx` names the layer.
        query: [1, heads, tokens, key_dim].
        key: [1, kv_heads, tokens, key_dim].
        value: [1, kv_heads, tokens, value_dim].
        attention_mask: Not used: what a token sees follows from its worker's view.
        scaling: Factor on the scores; 1 / sqrt(key_dim) if the family passes none.
        softcap: See `Scoring`.
        s_aux: The sinks of `Scoring`.

    Returns:
        [1, tokens, heads, value_dim], and None for the weights.

    Raises:
        HogwildError: The model was called directly, not through `SharedCacheModel.forward`.
    """
    layer_index: Any = module.layer_idx
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    attend = _opaque_attend if torch.compiler.is_compiling() else _attend
    return attend(query, key, value, layer_index, scaling, softcap, s_aux), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer_index: int,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    current = CURRENT_ATTENTION.get(None)
    if current is None:
        raise HogwildError(
            "This model is set up for a shared cache and was called directly. Call "
            "SharedCacheModel.forward, or model.set_attn_implementation('sdpa') to use it alone."
        )
    layers, attention = current
    scoring = Scoring(scaling, softcap, sinks)
    out = attention(layers[layer_index], query[0], key[0], value[0], scoring)
    return out.contiguous()[None]


# torch.compile sees attention as one opaque operation, because its shapes change with every pass.
# It writes to the cache, but the cache is not an argument, and nothing in the compiled graph reads
# it, so no mutation is declared.
_opaque_attend = torch.library.custom_op("hogwild::attend", _attend, mutates_args=())


@_opaque_attend.register_fake
def _(query: Tensor, _key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return value.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def register_attention() -> None:
    """Registers the attention function with transformers, which is imported here as it is slow."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTN_IMPLEMENTATION, shared_cache_attention)
