"""Attention over blocks on a GPU: fused kernels that read the cache once for all workers.

A pass becomes an `AttentionMetadata` (see `tiles.py`), which goes to the device in one copy. Every
layer then launches three kernels: write_kv, attend, merge_splits. The metadata on the device may be
overwritten and the launches replayed, as `cuda_graphs.py` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from hogwild_agents.engine.attention import kernels
from hogwild_agents.engine.attention.interface import Pass, Scoring
from hogwild_agents.engine.attention.tiles import (
    BLOCK_N,
    AttentionMetadata,
    build_metadata,
    layer_kind,
)
from hogwild_agents.engine.cache.pages import Ints
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.loading import on_device
from hogwild_agents.engine.rotary import Rotation

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run on the CPU, for tests."""

PROGRAMS_PER_PROCESSOR = 3
"""Programs of a decode pass that a multiprocessor holds at once; each takes 70 KiB."""

BLOCK_S = 16
"""Partial results that a program of `merge_splits` reads at a time."""

BLOCK_T = 16
"""Tokens that a program of `commit` moves."""


def programs_of(device: torch.device) -> int:
    """How many programs fill a device."""
    if device.type != "cuda":
        return 8
    properties = torch.cuda.get_device_properties(device)
    return PROGRAMS_PER_PROCESSOR * int(properties.multi_processor_count)


class TritonAttention:
    """This backend, prepared for passes of one shape; an `Attention`.

    Args:
        metadata: The pass, on the device.
        pool: The cache.
    """

    def __init__(self, metadata: AttentionMetadata, pool: TritonPool) -> None:
        self._metadata = metadata
        self._pool = pool
        self._cos_sin: dict[Rotation, Tensor] = {}

    @classmethod
    def prepare(cls, current: Pass) -> TritonAttention:
        """Prepares the backend for one pass."""
        pool = current.pool
        assert isinstance(pool, TritonPool)
        metadata = metadata_of(current)
        return cls(metadata.unflatten(pool.tensor(metadata.flatten())), pool)

    def __call__(
        self, layer: Layer, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Writes, then reads; see `Attention`."""
        metadata = self._metadata
        k_cache, v_cache = self._pool.keys[layer.index], self._pool.values[layer.index]
        q, k, v = _dense(query), _dense(key.to(k_cache.dtype)), _dense(value.to(v_cache.dtype))
        tokens, num_slots = q.shape[1], k_cache.shape[1]
        block_d, block_dv = _block_size(layer.key_dim), _block_size(layer.value_dim)
        kernels.write_kv[(tokens, layer.kv_heads)](
            k,
            v,
            k_cache,
            v_cache,
            metadata.slot_mapping,
            *k.stride()[:2],
            *v.stride()[:2],
            num_slots,
            KEY_DIM=layer.key_dim,
            VALUE_DIM=layer.value_dim,
            BLOCK_D=max(block_d, block_dv),
        )
        kind = layer_kind(layer)
        splits, merges, shape = metadata.kinds[kind]
        results = shape.partials * layer.heads
        partial_acc = q.new_empty(results, layer.value_dim, dtype=torch.float32)
        partial_ml = q.new_empty(results, 2, dtype=torch.float32)
        rotate = not layer.rotation.nope
        exact = q.dtype == torch.float32
        kernels.attend[(shape.splits, layer.kv_heads)](
            q,
            k_cache,
            v_cache,
            partial_acc,
            partial_ml,
            splits,
            metadata.queries,
            metadata.placements,
            self._cos_sin_of(layer.rotation) if rotate else partial_acc,
            layer.rotation.partner,
            *q.stride()[:2],
            num_slots,
            layer.heads,
            scoring.scaling,
            scoring.softcap or 0.0,
            GROUP=kind.group,
            KEY_DIM=layer.key_dim,
            VALUE_DIM=layer.value_dim,
            WINDOW=kind.window or 0,
            SOFTCAP=scoring.softcap is not None,
            ROTATE=rotate,
            EXACT=INTERPRETED or exact,
            BLOCK_M=shape.rows,
            BLOCK_N=BLOCK_N,
            BLOCK_D=block_d,
            BLOCK_DV=block_dv,
            **_launch_options(shape.rows, block_d, exact),
        )
        out = q.new_empty(tokens, layer.heads, layer.value_dim)
        kernels.merge_splits[(tokens, layer.heads)](
            partial_acc,
            partial_ml,
            out,
            merges,
            metadata.queries,
            partial_acc if scoring.sinks is None else scoring.sinks,
            layer.heads,
            VALUE_DIM=layer.value_dim,
            SINKS=scoring.sinks is not None,
            BLOCK_S=BLOCK_S,
            BLOCK_DV=block_dv,
        )
        return out

    def _cos_sin_of(self, rotation: Rotation) -> Tensor:
        """Cosines and sines of every placement's shift: float32 [placements, 2, key_dim].

        They are computed on the device, in float64, once per pass.
        """
        cos_sin = self._cos_sin.get(rotation)
        if cos_sin is None:
            shifts = torch.as_tensor(self._metadata.placements)[:, 0]
            cos_sin = self._cos_sin[rotation] = self._pool.cos_sin(rotation, shifts)
        return cos_sin


def metadata_of(current: Pass) -> AttentionMetadata:
    """The metadata of a pass on a pool of this backend, on the host."""
    pool = current.pool
    kinds = list(dict.fromkeys(layer_kind(layer) for layer in pool.layers))
    return build_metadata(current, kinds, programs_of(pool.device))


class TritonPool(CachePool):
    """A pool whose commits are one kernel over all layers.

    On a GPU it allocates all of its memory at once.
    """

    def __init__(
        self, layers: Sequence[Layer], dtype: torch.dtype, device: torch.device, limit_bytes: int
    ) -> None:
        super().__init__(layers, dtype, device, limit_bytes)
        rotations = (layer.rotation for layer in layers if not layer.rotation.nope)
        self._rotations = list(dict.fromkeys(rotations))
        self._block_d = _block_size(max(max(la.key_dim, la.value_dim) for la in layers))
        shape = len(self._rotations), self._block_d
        self._partners = torch.zeros(shape, dtype=torch.int64, device=device)
        self._frequencies = torch.zeros(shape, dtype=torch.float64, device=device)
        for index, rotation in enumerate(self._rotations):
            self._partners[index, : len(rotation.partner)] = rotation.partner
            self._frequencies[index, : len(rotation.partner)] = rotation.frequency.to(device)
        self._fixed = device.type != "cpu"
        if self._fixed:
            self._grow(self.limit_pages)

    def trim(self) -> None:
        """Keeps memory that was allocated at once: captured passes hold its addresses."""
        if not self._fixed:
            super().trim()

    def cos_sin(self, rotation: Rotation, shifts: Tensor) -> Tensor:
        """Cosines and sines of shifts, on the device: float32 [shifts, 2, key_dim].

        Args:
            rotation: The rotation of some layer.
            shifts: int64 [shifts], in positions.
        """
        frequency = self._frequencies[self._rotations.index(rotation), : len(rotation.partner)]
        angles = shifts[:, None].double() * frequency
        return torch.stack([angles.cos(), angles.sin()], 1).float()

    def move(self, source: Ints, target: Ints, shift: int) -> None:
        """Copies tokens to other slots, with keys rotated by `shift`; see `CachePool`."""
        table = []
        for layer, keys, values in self.storage():
            rotate = shift != 0 and not layer.rotation.nope
            rotation = self._rotations.index(layer.rotation) if rotate else -1
            sizes = layer.kv_heads, layer.key_dim, layer.value_dim, keys.shape[1]
            table.append((keys.data_ptr(), values.data_ptr(), *sizes, rotation))
        packed = self.tensor(np.concatenate([source, target, np.ravel(table)]))
        angles = shift * self._frequencies
        heads = max(layer.kv_heads for layer in self.layers)
        with on_device(self.device):
            kernels.commit[(-(-len(source) // BLOCK_T), heads, len(self.layers))](
                packed[2 * len(source) :],
                self._partners,
                torch.stack([angles.cos(), angles.sin()], 1).float(),
                packed,
                packed[len(source) :],
                len(source),
                CACHE_DTYPE=_TRITON_DTYPES[self.dtype],
                BLOCK_D=self._block_d,
                BLOCK_T=BLOCK_T,
            )


_TRITON_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float8_e4m3fn: tl.float8e4nv,
}
"""Types of keys and values, as Triton names them."""


def _launch_options(rows: int, block_d: int, exact: bool) -> dict[str, int]:
    """Warps and pipeline stages of `attend`, by the size of its tiles.

    Chosen so that, compiled for sm_90, nothing spills and three programs of a decode pass (with
    keys of up to 128 numbers) share a multiprocessor. Float32 products run without tensor cores and
    need more registers, so they get more warps; their largest tiles spill all the same.
    """
    if exact:
        return {"num_warps": min(max(4, rows // 4), 16), "num_stages": 2}
    stages = 3 if block_d <= 128 and rows <= 64 else 2
    return {"num_warps": 4 if rows <= 32 else 8, "num_stages": stages}


def _dense(states: Tensor) -> Tensor:
    """States [heads, tokens, dim] whose last dimension is contiguous."""
    return states if states.stride(2) == 1 else states.contiguous()


def _block_size(dim: int) -> int:
    """The next power of two, as Triton requires; at least the 16 that tensor cores take."""
    return max(16, 1 << (dim - 1).bit_length())
