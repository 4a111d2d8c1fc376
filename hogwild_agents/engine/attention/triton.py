"""Attention over blocks on a GPU: fused kernels that read the cache once for all workers of a team.

A pass becomes an `AttentionMetadata` (see `tiles.py`), which goes to the device in one copy. Every
layer then launches three kernels: write the new keys and values, attend, merge. The sheet's tensors
may be filled anew and the launches replayed, as `graphs.py` does.
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
from hogwild_agents.engine.attention.tiles import STEP, AttentionMetadata, Kind, kind_of, make_sheet
from hogwild_agents.engine.cache.pages import Ints
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.loading import on_device
from hogwild_agents.engine.rotary import Rotation

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run on the CPU, for tests."""

PROGRAMS_PER_PROCESSOR = 3
"""Programs of a decode pass that a multiprocessor holds at once; each takes 70 KiB."""

MERGED = 16
"""Partial results that a merging program reads at a time."""

MOVED = 16
"""Tokens that a committing program moves."""


def programs_of(device: torch.device) -> int:
    """How many programs fill a device."""
    if device.type != "cuda":
        return 8
    properties = torch.cuda.get_device_properties(device)
    return PROGRAMS_PER_PROCESSOR * int(properties.multi_processor_count)


class TritonAttend:
    """This backend, prepared for passes of one shape; an `Attend`.

    Args:
        sheet: The pass, on the device.
        pool: The cache.
    """

    def __init__(self, sheet: AttentionMetadata, pool: TritonPool) -> None:
        self._sheet = sheet
        self._pool = pool
        self._angles: dict[Rotation, Tensor] = {}

    @classmethod
    def of(cls, current: Pass) -> TritonAttend:
        """Prepared for one pass."""
        pool = current.pool
        assert isinstance(pool, TritonPool)
        sheet = sheet_of(current)
        return cls(sheet.over(pool.tensor(sheet.numbers())), pool)

    def __call__(
        self, layer: Layer, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Writes, then reads; see `Attend`."""
        sheet = self._sheet
        keys, values = self._pool.keys[layer.index], self._pool.values[layer.index]
        query, key, value = _flat(query), _flat(key.to(keys.dtype)), _flat(value.to(values.dtype))
        tokens, room = query.shape[1], keys.shape[1]
        width, value_width = _width(layer.key_dim), _width(layer.value_dim)
        kernels.write[(tokens, layer.kv_heads)](
            key,
            value,
            keys,
            values,
            sheet.slots,
            *key.stride()[:2],
            *value.stride()[:2],
            room,
            DIM=layer.key_dim,
            VALUE_DIM=layer.value_dim,
            WIDTH=max(width, value_width),
        )
        kind = kind_of(layer)
        tiles = sheet.tiles[kind]
        partials = tiles.shape.partials * layer.heads
        sums = query.new_empty(partials, layer.value_dim, dtype=torch.float32)
        peaks = query.new_empty(partials, 2, dtype=torch.float32)
        turning = not layer.rotation.nope
        kernels.attend[(tiles.shape.items, layer.kv_heads)](
            query,
            keys,
            values,
            sums,
            peaks,
            tiles.items,
            sheet.queries,
            sheet.turns,
            self._angles_of(layer.rotation) if turning else sums,
            layer.rotation.partner,
            *query.stride()[:2],
            room,
            layer.heads,
            scoring.scaling,
            scoring.softcap or 0.0,
            GROUP=kind.group,
            DIM=layer.key_dim,
            VALUE_DIM=layer.value_dim,
            WINDOW=kind.window or 0,
            CAPPED=scoring.softcap is not None,
            TURNING=turning,
            EXACT=INTERPRETED or query.dtype == torch.float32,
            ROWS=tiles.shape.rows,
            STEP=STEP,
            WIDTH=width,
            VALUE_WIDTH=value_width,
            **_tuning(tiles.shape.rows, width, query.dtype == torch.float32),
        )
        out = query.new_empty(tokens, layer.heads, layer.value_dim)
        kernels.merge[(tokens, layer.heads)](
            sums,
            peaks,
            out,
            tiles.merges,
            sheet.queries,
            sums if scoring.sinks is None else scoring.sinks,
            layer.heads,
            VALUE_DIM=layer.value_dim,
            SINKS=scoring.sinks is not None,
            MANY=MERGED,
            VALUE_WIDTH=value_width,
        )
        return out

    def _angles_of(self, rotation: Rotation) -> Tensor:
        """Cosines and sines of every turn under a rotation: float32 [turns, 2, key_dim].

        Made on the device, in float64, from the turns' shifts: once per pass.
        """
        known = self._angles.get(rotation)
        if known is None:
            known = self._pool.angles(rotation, torch.as_tensor(self._sheet.turns)[:, 0])
            self._angles[rotation] = known
        return known


def sheet_of(current: Pass) -> AttentionMetadata:
    """A pass on a pool of this backend, written down for its kernels."""
    pool = current.pool
    return make_sheet(current, kinds_of(pool.layers), programs_of(pool.device))


def kinds_of(layers: Sequence[Layer]) -> list[Kind]:
    """The kinds of tiles that a model's layers take."""
    return list(dict.fromkeys(kind_of(layer) for layer in layers))


class TritonPool(CachePool):
    """A pool whose commits are one kernel over all layers; on a GPU it takes its memory at once."""

    def __init__(
        self, layers: Sequence[Layer], dtype: torch.dtype, device: torch.device, limit_bytes: int
    ) -> None:
        super().__init__(layers, dtype, device, limit_bytes)
        turning = (layer.rotation for layer in layers if not layer.rotation.nope)
        self._rotations = list(dict.fromkeys(turning))
        self._width = _width(max(max(layer.key_dim, layer.value_dim) for layer in layers))
        shape = len(self._rotations), self._width
        self._partners = torch.zeros(shape, dtype=torch.int64, device=device)
        self._frequencies = torch.zeros(shape, dtype=torch.float64, device=device)
        for index, rotation in enumerate(self._rotations):
            self._partners[index, : len(rotation.partner)] = rotation.partner
            self._frequencies[index, : len(rotation.partner)] = rotation.frequency.to(device)
        self._fixed = device.type != "cpu"
        if self._fixed:
            self._grow(self.limit_pages)

    def trim(self) -> None:
        """Keeps memory that was taken at once: recorded passes know its addresses."""
        if not self._fixed:
            super().trim()

    def angles(self, rotation: Rotation, shifts: Tensor) -> Tensor:
        """Cosines and sines on the device: float32 [turns, 2, key_dim].

        Args:
            rotation: Of some layer.
            shifts: int64 [turns].
        """
        frequency = self._frequencies[self._rotations.index(rotation), : len(rotation.partner)]
        angles = shifts[:, None].double() * frequency
        return torch.stack([angles.cos(), angles.sin()], 1).float()

    def move(self, source: Ints, target: Ints, shift: int) -> None:
        """Copies tokens to other slots, keys turned on; see `CachePool`."""
        table = []
        for layer, keys, values in self.storage():
            turning = shift != 0 and not layer.rotation.nope
            turn = self._rotations.index(layer.rotation) if turning else -1
            sizes = layer.kv_heads, layer.key_dim, layer.value_dim, keys.shape[1]
            table.append((keys.data_ptr(), values.data_ptr(), *sizes, turn))
        places = self.tensor(np.concatenate([source, target, np.ravel(table)]))
        angles = shift * self._frequencies
        heads = max(layer.kv_heads for layer in self.layers)
        with on_device(self.device):
            kernels.commit[(-(-len(source) // MOVED), heads, len(self.layers))](
                places[2 * len(source) :],
                self._partners,
                torch.stack([angles.cos(), angles.sin()], 1).float(),
                places,
                places[len(source) :],
                len(source),
                KIND=_KINDS[self.dtype],
                WIDTH=self._width,
                MANY=MOVED,
            )


_KINDS = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float8_e4m3fn: tl.float8e4nv,
}
"""Types of keys and values, as Triton names them."""


def _tuning(rows: int, width: int, exact: bool) -> dict[str, int]:
    """Warps of a program and loads it has under way, by the size of its tiles.

    So that, compiled for sm_90, nothing spills and three programs of a decode pass (of keys up to
    128 numbers) share a multiprocessor.
    """
    few = rows <= 32
    deep = width <= 128 and rows <= 64 and not exact
    return {"num_warps": 4 if few else 8, "num_stages": 3 if deep else 2}


def _flat(states: Tensor) -> Tensor:
    """States [heads, tokens, dim] whose last dimension lies in a row."""
    return states if states.stride(2) == 1 else states.contiguous()


def _width(dim: int) -> int:
    """The next power of two, as Triton wants it; tensor cores take 16 at least."""
    return max(16, 1 << (dim - 1).bit_length())
