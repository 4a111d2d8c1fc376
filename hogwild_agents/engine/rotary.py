"""How a model rotates queries and keys with position: found by measurement, not by model name.

A rotary embedding (Su et al., arXiv 2104.09864) rotates pairs of a head's dimensions by an angle
that grows with position. Families differ in which dimensions form a pair (half-split, interleaved),
where the rotary part lies in the head (start, end), its size, its sign and its frequencies. All of
this is two vectors per layer, `partner` and `frequency`, and one formula:

    rotated[d] = x[d] * cos(frequency[d] * shift) + x[partner[d]] * sin(frequency[d] * shift)

`Rotation.rotate` is that formula for keys. Queries are rotated where they are used, fused with the
scores: in `attention/torch.py` and `attention/kernels.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

NOPE = "none"
"""Name of the rotation of NoPE layers, which have no positional embedding."""


@dataclass(frozen=True, eq=False, slots=True)
class Rotation:
    """A layer's rotation. Layers with the same rotation share one object.

    Attributes:
        name: For people: `half 128/128`, `interleaved 64/128 at the end`, `none`.
        partner: int64 [head_dim], the dimension that each one is mixed with; itself if it does not
            rotate.
        frequency: float64 [head_dim] on the CPU, signed radians per position; 0 if it does not
            rotate.
    """

    name: str
    partner: Tensor
    frequency: Tensor

    @property
    def nope(self) -> bool:
        """Whether nothing rotates (a NoPE layer)."""
        return self.name == NOPE

    def to(self, device: torch.device) -> Rotation:
        """The same rotation for tensors on `device`."""
        return Rotation(self.name, self.partner.to(device), self.frequency)

    def table(self, shifts: npt.NDArray[np.int64]) -> Tensor:
        """Cosines and sines of the rotation by each of `shifts`.

        Args:
            shifts: int64 [...], in positions; may be negative.

        Returns:
            float32 [2, ..., head_dim], cosines first, on the CPU. Angles are computed in float64: a
            float32 product of a long distance with a frequency is off by 1e-3 radians.
        """
        angles = shifts[..., None] * self.frequency.numpy()
        return torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32))

    def rotate(self, x: Tensor, shift: int) -> Tensor:
        """`x` [..., head_dim] rotated by `shift` positions, in float32; returns x's dtype."""
        if shift == 0 or self.nope:
            return x
        cos, sin = self.table(np.array(shift)).to(x.device)
        full = x.float()
        rotated: Tensor = full * cos + full.index_select(-1, self.partner) * sin
        return rotated.to(x.dtype)


def no_rotation(head_dim: int) -> Rotation:
    """The rotation of a NoPE layer."""
    return Rotation(NOPE, torch.arange(head_dim), torch.zeros(head_dim, dtype=torch.float64))


def frequency_vectors(model: nn.Module) -> list[Tensor]:
    """Every distinct vector held by a rotary module that may be its inverse frequencies.

    Returns:
        float64 CPU tensors [pairs], in the precision in which the model itself holds them.
    """
    vectors: list[Tensor] = []
    for module in model.modules():
        if not any(word in type(module).__name__.lower() for word in ("rotary", "rope")):
            continue
        for tensor in (*module.buffers(recurse=False), *vars(module).values()):
            if not isinstance(tensor, Tensor) or tensor.dim() != 1 or not tensor.numel():
                continue
            vector = tensor.detach().to("cpu", torch.float64)
            if not any(torch.equal(vector, other) for other in vectors):
                vectors.append(vector)
    return vectors


def candidate_rotations(frequencies: Iterable[Tensor], head_dim: int) -> Iterator[Rotation]:
    """Every way in which one of `frequencies` may rotate a head of `head_dim` dimensions."""
    yield no_rotation(head_dim)
    for vector in frequencies:
        pairs = vector.numel()
        size = 2 * pairs
        if size > head_dim:
            continue
        offsets = {"": 0} if size == head_dim else {"": 0, " at the end": head_dim - size}
        for place, offset in offsets.items():
            half = torch.arange(pairs)
            for style, first, second in (
                ("half", half, half + pairs),
                ("interleaved", 2 * half, 2 * half + 1),
            ):
                for direction, sign in (("", 1.0), (" backwards", -1.0)):
                    partner = torch.arange(head_dim)
                    frequency = torch.zeros(head_dim, dtype=torch.float64)
                    partner[offset + first], partner[offset + second] = (
                        offset + second,
                        offset + first,
                    )
                    frequency[offset + first] = -sign * vector
                    frequency[offset + second] = sign * vector
                    name = f"{style} {size}/{head_dim}{place}{direction}"
                    yield Rotation(name, partner, frequency)


def misfit(rotation: Rotation, states: Tensor, positions: Tensor) -> Tensor:
    """How far `states` are from one vector rotated to each position.

    Args:
        rotation: The rotation to judge.
        states: [heads, positions, tokens, head_dim], the same tokens at different positions.
        positions: int64 [positions]; the states at the first one predict those at the others.

    Returns:
        float32 [positions]: the largest deviation, relative to the largest component.
    """
    states = states.detach().to("cpu", torch.float32)
    cos, sin = rotation.table((positions - positions[0]).numpy())
    base = states[:, :1]
    predicted = base * cos[:, None] + base[..., rotation.partner] * sin[:, None]
    scale = base.abs().amax().clamp_min(1e-30)
    deviation: Tensor = (predicted - states).abs().amax(dim=(0, 2, 3))
    return deviation / scale
