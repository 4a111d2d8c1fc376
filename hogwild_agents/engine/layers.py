"""What the engine knows about an attention layer, all of it measured when the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from hogwild_agents.engine.rotary import Rotation


@dataclass(frozen=True, slots=True)
class Layer:
    """One attention layer.

    Attributes:
        index: Its `layer_idx`.
        heads: Query heads.
        kv_heads: Key/value heads; `heads` is a multiple of it.
        key_dim: Size of a query or key head.
        value_dim: Size of a value head (differs from `key_dim` in MLA).
        rotation: How its queries and keys rotate with position.
        window: A token sees the last `window` tokens of its view, itself included; None sees all.
    """

    index: int
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    rotation: Rotation
    window: int | None
