"""The attention function that transformers calls, and what it must know of the pass under way.

A pass packs the new tokens of all workers into one row, `input_ids [1, tokens]`, with block-local
`position_ids`. The model computes everything but attention as ever; its attention layers call
`shared_cache_attention`, which finds the current `Pass` in a context variable (some families drop
keyword arguments on the way) and hands queries, keys and values to the backend.
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

NAME = "hogwild"
"""The name under which transformers knows the attention function."""


@dataclass(slots=True)
class Row:
    """One worker's part in a pass.

    Attributes:
        worker: Its index in the call.
        view: The blocks it attends to; it writes to the last one.
        tokens: int64 [count], its new tokens.
        starts: Where each block of the view begins in the view, this pass's writes counted.
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
        """Tokens in the view, this pass's writes counted."""
        return self.starts[-1] + self.position + self.count


class Pass:
    """One run of the model over packed rows whose new tokens have room in their blocks.

    Args:
        pool: The cache.
        rows: Who writes what, each at least one token.
    """

    def __init__(self, pool: CachePool, rows: Sequence[Row]) -> None:
        self.pool = pool
        self.rows = rows
        self.lengths: dict[CacheBlock, int] = {}
        """Tokens in each block that is seen, after this pass's writes."""
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
        self.slots = np.concatenate(slots)
        """Where the new keys and values go: int64 [tokens]."""
        self.ids = np.concatenate([row.tokens for row in rows])
        """What the model reads: int64 [tokens]."""
        self.positions = np.concatenate(positions)
        """Block-local positions: int64 [tokens]."""
        self.last = np.cumsum([row.count for row in rows]) - 1
        """Index of each row's last token in the packed row: int64 [rows]."""


class Scoring(NamedTuple):
    """What a layer does to its scores besides the softmax.

    Attributes:
        scaling: Factor on the scores.
        softcap: Bound of the scores, `cap * tanh(score / cap)` (Gemma 2), or None.
        sinks: [heads], a score that takes part in the softmax and carries no value (GPT-OSS), or
            None.
    """

    scaling: float
    softcap: float | None
    sinks: Tensor | None


class Attend(Protocol):
    """A backend prepared for one pass: writes new keys and values, then lets every query read.

    Args:
        layer: The layer that asks.
        query: [heads, tokens, key_dim], turned to block-local positions.
        key: [kv_heads, tokens, key_dim], turned alike.
        value: [kv_heads, tokens, value_dim].
        scoring: What the layer does to its scores.

    Returns:
        [tokens, heads, value_dim].
    """

    def __call__(
        self, layer: Layer, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Writes the new keys and values of a layer, then reads for every query."""


CURRENT: ContextVar[tuple[Sequence[Layer], Attend]] = ContextVar("hogwild_pass")
"""The layers of the model that runs, and its prepared backend."""


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
        scaling: Factor on the scores; 1 / sqrt(key_dim) where the family passes none.
        softcap: See `Scoring`.
        s_aux: The sinks of `Scoring`.

    Returns:
        [1, tokens, heads, value_dim], and None for the weights.

    Raises:
        HogwildError: The model was called by itself, outside of `SharedCacheModel.forward`.
    """
    index: Any = module.layer_idx
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    read = _read_opaquely if torch.compiler.is_compiling() else _read
    return read(query, key, value, index, scaling, softcap, s_aux), None


def _read(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    index: int,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    current = CURRENT.get(None)
    if current is None:
        raise HogwildError(
            "This model is set up for a shared cache and was called by itself. Call "
            "SharedCacheModel.forward, or model.set_attn_implementation('sdpa') to use it alone."
        )
    layers, attend = current
    scoring = Scoring(scaling, softcap, sinks)
    out = attend(layers[index], query[0], key[0], value[0], scoring)
    return out.contiguous()[None]


# For torch.compile attention is one opaque operation: its shapes change with every pass. That it
# writes to the cache is no mutation of its arguments, and nothing in the compiled graph reads it.
_read_opaquely = torch.library.custom_op("hogwild::read", _read, mutates_args=())


@_read_opaquely.register_fake
def _(query: Tensor, _key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return value.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def register() -> None:
    """Tells transformers about the attention function; only here, as transformers loads slowly."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, shared_cache_attention)
