"""What the engine should compute, by other means: slow, plain, and in float64.

`Reference` runs a tiny Llama or Mistral over blocks from nothing but its weights. It keeps keys
*unrotated* and rotates them to their positions in each worker's view; the engine keeps them rotated
to block-local positions and rotates queries instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from tests.unit.engine.families import Family

LLAMA = Family("llama", "llama", {"max_position_embeddings": 4096})
MISTRAL = Family("mistral", "mistral", {"max_position_embeddings": 4096, "sliding_window": 7})

Trio = tuple[SharedCacheModel, CacheBlock, CacheBlock, CacheBlock]
"""A model, a prompt, and the blocks of two workers; a fixture makes it."""


def some_tokens(count: int, seed: int = 0, vocab_size: int = 128) -> list[int]:
    """`count` random token ids."""
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab_size, count)]


@dataclass(eq=False)
class ReferenceBlock:
    """A block as plain lists: per layer, unrotated keys and values [kv_heads, length, head_dim]."""

    keys: list[Tensor]
    values: list[Tensor]
    tokens: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, other: ReferenceBlock) -> None:
        """Appends `other`: unrotated keys and values are right at any place."""
        self.keys = [torch.cat(pair, 1) for pair in zip(self.keys, other.keys, strict=True)]
        self.values = [torch.cat(pair, 1) for pair in zip(self.values, other.values, strict=True)]
        self.tokens = self.tokens + other.tokens

    def fork(self) -> ReferenceBlock:
        """A twin; nothing is ever changed in place, so the tensors may be shared."""
        return ReferenceBlock(list(self.keys), list(self.values), list(self.tokens))

    def clear(self) -> None:
        """Drops every token."""
        self.keys = [keys[:, :0] for keys in self.keys]
        self.values = [values[:, :0] for values in self.values]
        self.tokens = []


class Reference:
    """The forward pass of a tiny Llama or Mistral over blocks, by brute force."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config
        weights: dict[str, Tensor] = model.state_dict()
        self.weights = {name: weight.detach().double() for name, weight in weights.items()}
        self.layers: int = config.num_hidden_layers
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.dim: int = config.head_dim
        self.eps: float = config.rms_norm_eps
        self.window: int | None = getattr(config, "sliding_window", None)
        pairs = torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim
        self.frequency: Tensor = config.rope_parameters["rope_theta"] ** -pairs

    def new_block(self) -> ReferenceBlock:
        """An empty block."""
        empty = torch.zeros(self.kv_heads, 0, self.dim, dtype=torch.float64)
        return ReferenceBlock([empty] * self.layers, [empty] * self.layers)

    def forward(
        self, views: Sequence[Sequence[ReferenceBlock]], tokens: Sequence[Sequence[int]]
    ) -> Tensor:
        """One pass, as `SharedCacheModel.forward`: float64 [workers, vocab]."""
        for view, new in zip(views, tokens, strict=True):
            view[-1].tokens = view[-1].tokens + list(new)
        table = self.weights["model.embed_tokens.weight"]
        states = [table[torch.tensor(list(new), dtype=torch.int64)] for new in tokens]
        for layer in range(self.layers):
            queries = [
                self._write(layer, view[-1], x) for view, x in zip(views, states, strict=True)
            ]
            states = [
                self._read(layer, view, x, query)
                for view, x, query in zip(views, states, queries, strict=True)
            ]
        head = self.weights["lm_head.weight"]
        return torch.stack(
            [
                self._norm(x, "model.norm")[-1] @ head.T
                if len(x)
                else torch.full_like(head[:, 0], torch.nan)
                for x in states
            ]
        )

    def rotated_keys(self, block: ReferenceBlock, layer: int) -> Tensor:
        """A block's keys as the engine keeps them, rotated to block-local positions."""
        return self._rotate(block.keys[layer], torch.arange(len(block)))

    def _write(self, layer: int, block: ReferenceBlock, x: Tensor) -> Tensor:
        """Appends unrotated keys and values of `x`; returns its queries [heads, n, dim]."""
        x = self._norm(x, f"model.layers.{layer}.input_layernorm")
        query, key, value = (
            self._linear(x, f"model.layers.{layer}.self_attn.{part}_proj")
            .view(len(x), heads, self.dim)
            .transpose(0, 1)
            for part, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads))
        )
        block.keys[layer] = torch.cat([block.keys[layer], key], 1)
        block.values[layer] = torch.cat([block.values[layer], value], 1)
        return query

    def _read(self, layer: int, view: Sequence[ReferenceBlock], x: Tensor, query: Tensor) -> Tensor:
        """One layer's output for the new tokens of one worker."""
        name = f"model.layers.{layer}"
        keys = torch.cat([block.keys[layer] for block in view], 1)
        values = torch.cat([block.values[layer] for block in view], 1)
        place = torch.arange(keys.shape[1])
        mine = place[len(place) - len(x) :]
        group = self.heads // self.kv_heads
        keys = self._rotate(keys, place).repeat_interleave(group, 0)
        values = values.repeat_interleave(group, 0)
        scores = self._rotate(query, mine) @ keys.transpose(1, 2) / self.dim**0.5
        distance = mine[:, None] - place
        unseen = distance < 0
        if self.window is not None:
            unseen |= distance >= self.window
        mixed = scores.masked_fill(unseen, -torch.inf).softmax(-1) @ values
        x = x + self._linear(mixed.transpose(0, 1).flatten(1), f"{name}.self_attn.o_proj")
        y = self._norm(x, f"{name}.post_attention_layernorm")
        gate = torch.nn.functional.silu(self._linear(y, f"{name}.mlp.gate_proj"))
        return x + self._linear(
            gate * self._linear(y, f"{name}.mlp.up_proj"), f"{name}.mlp.down_proj"
        )

    def _rotate(self, x: Tensor, place: Tensor) -> Tensor:
        """Rotates `x` [heads, n, dim] to its places, as half-split pairs."""
        angle = place[:, None] * self.frequency
        first, second = x.chunk(2, -1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale: Tensor = (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return x * scale * self.weights[f"{name}.weight"]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T


def block_of(model: SharedCacheModel, tokens: Sequence[int]) -> CacheBlock:
    """A block filled alone with `tokens`."""
    block = model.new_block()
    if tokens:
        model.forward([[block]], [tokens])
    return block


def contents(block: CacheBlock) -> list[Tensor]:
    """Copies of a block's keys and values of every layer."""
    layers = range(len(block.pool.layers))
    return [part for layer in layers for part in (block.keys(layer), block.values(layer))]


@contextmanager
def unchanged(*blocks: CacheBlock) -> Iterator[None]:
    """Asserts that what runs inside changes neither the blocks nor the memory in use."""
    pool = blocks[0].pool
    before = [contents(block) for block in blocks], pool.used_bytes
    yield
    assert pool.used_bytes == before[1]
    for block, kept in zip(blocks, before[0], strict=True):
        assert len(block) == kept[0].shape[1]
        for got, expected in zip(contents(block), kept, strict=True):
            assert torch.equal(got, expected)
