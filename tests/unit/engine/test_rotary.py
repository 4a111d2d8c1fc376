"""Rotations: they behave like rotations, and the right one is found among all candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hogwild_agents.engine.rotary import (
    Rotation,
    candidate_rotations,
    frequency_vectors,
    misfit,
    no_rotation,
)

PAIRS = 8
FREQUENCY = 10_000.0 ** -(torch.arange(PAIRS, dtype=torch.float64) / PAIRS)
OTHER = 500.0 ** -(torch.arange(PAIRS, dtype=torch.float64) / PAIRS)
SHIFTS = st.integers(-5_000, 5_000)
TOLERANCE = 1e-5

FULL = list(candidate_rotations([FREQUENCY], 2 * PAIRS))
PARTIAL = list(candidate_rotations([FREQUENCY], 3 * PAIRS))
ROTATIONS = pytest.mark.parametrize("rotation", FULL + PARTIAL, ids=lambda rotation: rotation.name)


def random_states(dim: int, seed: int = 0) -> Tensor:
    """A few vectors: [2, 3, dim]."""
    return torch.randn(2, 3, dim, generator=torch.Generator().manual_seed(seed))


def planted(style: str, dim: int, offset: int, sign: float, positions: Tensor) -> Tensor:
    """States rotated pair after pair, in float64: [heads, positions, tokens, dim]."""
    states = random_states(dim).double()[:, None].repeat(1, len(positions), 1, 1)
    out = states.clone()
    for pair in range(PAIRS):
        first, second = (pair, pair + PAIRS) if style == "half" else (2 * pair, 2 * pair + 1)
        angle = (sign * positions.double() * FREQUENCY[pair])[None, :, None]
        x, y = states[..., offset + first], states[..., offset + second]
        out[..., offset + first] = x * angle.cos() - y * angle.sin()
        out[..., offset + second] = y * angle.cos() + x * angle.sin()
    return out.float()


@ROTATIONS
@given(first=SHIFTS, second=SHIFTS)
def test_rotations_add_up(rotation: Rotation, first: int, second: int) -> None:
    x = random_states(len(rotation.partner))
    twice = rotation.rotate(rotation.rotate(x, first), second)
    torch.testing.assert_close(twice, rotation.rotate(x, first + second), atol=TOLERANCE, rtol=0)


@ROTATIONS
@given(shift=SHIFTS)
def test_a_rotation_keeps_lengths_and_can_be_undone(rotation: Rotation, shift: int) -> None:
    x = random_states(len(rotation.partner))
    rotated = rotation.rotate(x, shift)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(rotation.rotate(rotated, -shift), x, atol=TOLERANCE, rtol=0)


@ROTATIONS
@given(query=SHIFTS, key=SHIFTS, shift=SHIFTS)
def test_scores_depend_on_distance_only(
    rotation: Rotation, query: int, key: int, shift: int
) -> None:
    q, k = random_states(len(rotation.partner)), random_states(len(rotation.partner), 1)
    here = (rotation.rotate(q, query) * rotation.rotate(k, key)).sum(-1)
    there = (rotation.rotate(q, query + shift) * rotation.rotate(k, key + shift)).sum(-1)
    torch.testing.assert_close(here, there, atol=10 * TOLERANCE, rtol=0)


@ROTATIONS
def test_a_table_is_cosines_and_sines_of_every_shift(rotation: Rotation) -> None:
    shifts = np.array([[0, 1, -3], [100_000, 7, -50_000]])
    table = rotation.table(shifts)
    assert table.shape == (2, 2, 3, len(rotation.partner))
    assert table.dtype == torch.float32
    angles = torch.from_numpy(shifts)[..., None].double() * rotation.frequency
    expected = torch.stack([angles.cos(), angles.sin()]).float()
    torch.testing.assert_close(table, expected, atol=1e-6, rtol=0)
    assert torch.equal(table[0, 0, 0], torch.ones(len(rotation.partner)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_rotation_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = random_states(2 * PAIRS).to(dtype)
    rotated = FULL[1].rotate(x, 12_345)
    assert rotated.dtype == dtype
    exact = FULL[1].rotate(x.float(), 12_345)
    assert (rotated.float() - exact).abs().max() <= 4 * torch.finfo(dtype).eps


def test_a_rotation_by_a_long_distance_is_exact() -> None:
    """Angles are in float64: at 100,000 positions float32 would be off by 1e-3."""
    x = random_states(2 * PAIRS)
    rotated = FULL[1].rotate(x, 100_000)
    expected = planted("half", 2 * PAIRS, 0, 1.0, torch.tensor([100_000]))[:, 0]
    torch.testing.assert_close(rotated, expected, atol=TOLERANCE, rtol=0)


def test_nope_rotates_nothing() -> None:
    x = random_states(5)
    assert no_rotation(5).nope
    assert torch.equal(no_rotation(5).rotate(x, 77), x)
    assert not any(rotation.nope for rotation in FULL[1:])


def test_candidates() -> None:
    styles = [
        f"{style} 16/16{way}" for style in ("half", "interleaved") for way in ("", " backwards")
    ]
    assert [rotation.name for rotation in FULL] == ["none", *styles]
    assert len(PARTIAL) == 1 + 8
    assert [rotation.name for rotation in candidate_rotations([FREQUENCY], 10)] == ["none"]
    assert len(list(candidate_rotations([FREQUENCY, OTHER], 16))) == 1 + 2 * 4


@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize(("way", "sign"), [("", 1.0), (" backwards", -1.0)])
@pytest.mark.parametrize(
    ("dim", "offset", "place"), [(16, 0, ""), (24, 0, ""), (24, 8, " at the end")]
)
def test_a_planted_rotation_is_found(
    style: str, way: str, sign: float, dim: int, offset: int, place: str
) -> None:
    """It fits far better than any other, among wrong frequencies too."""
    positions = torch.tensor([0, 3, 500, 5_000])
    states = planted(style, dim, offset, sign, positions)
    misfits = {
        rotation: float(misfit(rotation, states, positions).max())
        for rotation in candidate_rotations([OTHER, FREQUENCY], dim)
    }
    best, *others = sorted(misfits, key=lambda rotation: misfits[rotation])
    assert best.name == f"{style} 16/{dim}{place}{way}"
    assert torch.equal(best.frequency[best.frequency > 0].sort()[0], FREQUENCY.sort()[0])
    assert misfits[best] < TOLERANCE
    assert min(misfits[rotation] for rotation in others) > 0.1


def test_states_that_do_not_rotate_fit_nope_best() -> None:
    positions = torch.tensor([0, 3, 500])
    states = random_states(16)[:, None].repeat(1, 3, 1, 1)
    assert misfit(FULL[0], states, positions).max() == 0
    assert all(misfit(rotation, states, positions)[1:].min() > 0.1 for rotation in FULL[1:])


def test_misfit_is_measured_at_each_position() -> None:
    """A scaling that begins late shows at its position only."""
    positions = torch.tensor([0, 3, 500, 5_000])
    states = planted("half", 16, 0, 1.0, positions)
    states[:, 3] *= 1.2
    misfits = misfit(FULL[1], states, positions)
    assert misfits[:3].max() < TOLERANCE
    assert misfits[3] > 0.05


def test_frequencies_are_read_from_rotary_modules_only() -> None:
    class TinyRotaryEmbedding(nn.Module):
        def __init__(self, inv_freq: Tensor) -> None:
            super().__init__()
            self.register_buffer("inv_freq", inv_freq)
            self.original_inv_freq = inv_freq.clone()
            self.cached = torch.zeros(3, 4)
            self.empty = torch.zeros(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = TinyRotaryEmbedding(FREQUENCY.float())
            self.second = TinyRotaryEmbedding(FREQUENCY.float())
            self.third = TinyRotaryEmbedding(OTHER.float())
            self.norm = nn.LayerNorm(8)

    vectors = frequency_vectors(Model())
    assert len(vectors) == 2
    assert all(vector.dtype == torch.float64 for vector in vectors)
    assert torch.equal(vectors[0], FREQUENCY.float().double())
    assert torch.equal(vectors[1], OTHER.float().double())
