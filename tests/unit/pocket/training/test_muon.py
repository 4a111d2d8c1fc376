"""Muon: it steps as the published method does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hogwild_agents.pocket.training.muon import Muon, orthogonal

SHAPES = [(24, 24), (48, 16), (16, 48), (1, 8), (8, 1)]


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    """Random numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def matrices(shape: tuple[int, int], count: int = 3) -> Tensor:
    """Matrices none of whose singular values is much smaller than another."""
    u, _, v = torch.linalg.svd(random((count, *shape), 0), full_matrices=False)
    values = 0.1 + 0.9 * torch.rand(count, min(shape), generator=torch.Generator().manual_seed(1))
    made: Tensor = u * values[:, None] @ v
    return made


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonal(shape: tuple[int, int], scale: float) -> None:
    """Singular vectors stay, singular values come near 1, whatever their scale."""
    originals = matrices(shape)
    results = orthogonal(originals * scale)
    assert results.shape == originals.shape
    for before, after in zip(originals, results, strict=True):
        u, _, v = torch.linalg.svd(before, full_matrices=False)
        rotated = u.mT @ after @ v.mT
        values = rotated.diagonal()
        assert ((values > 0.6) & (values < 1.3)).all()
        assert torch.allclose(rotated, values.diag(), atol=1e-3)
        assert torch.allclose(u @ rotated @ v, after, atol=1e-3)


def test_nothing_to_make_orthogonal() -> None:
    """Zeros stay zeros."""
    assert orthogonal(torch.zeros(2, 3, 4)).abs().max() == 0


def test_together_as_alone() -> None:
    """Matrices of one shape do not mix."""
    together = matrices((12, 20))
    alone = torch.cat([orthogonal(matrix[None]) for matrix in together])
    assert torch.allclose(orthogonal(together), alone, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48)])
@pytest.mark.parametrize("steps", [1, 4])
def test_as_torch_steps(shape: tuple[int, int], steps: int) -> None:
    """The same direction and nearly the same length as torch's own, which computes in bfloat16."""
    start = random(shape, 2)
    ours, torchs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.02, momentum=0.9, decay=0.0),
        torch.optim.Muon([torchs], lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.0),
    )
    for number in range(steps):
        for parameter, optimizer in zip((ours, torchs), optimizers, strict=True):
            parameter.grad = random(shape, 3 + number)
            optimizer.step()
    moved, expected = ((each.detach() - start).flatten() for each in (ours, torchs))
    assert cosine_similarity(moved, expected, dim=0) > 0.99
    assert moved.norm().item() == pytest.approx(expected.norm().item(), rel=0.03)


def test_decay() -> None:
    """Weights shrink by their share, times the learning rate, also without a gradient."""
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    parameter.grad = torch.zeros(3, 4)
    Muon([parameter], lr=0.5, decay=0.1).step()
    assert torch.allclose(parameter, torch.full((3, 4), 0.95))


def test_state() -> None:
    """An optimizer that loads a saved state makes the same steps, at the same rate."""
    parameters = [torch.nn.Parameter(random(shape, 5)) for shape in ((4, 6), (6, 4), (4, 6))]
    optimizer = Muon(parameters, lr=0.1, momentum=0.8)

    def advance(seed: int, targets: list[torch.nn.Parameter], muon: Muon) -> None:
        for place, parameter in enumerate(targets):
            parameter.grad = random(tuple(parameter.shape), 10 * seed + place)
        muon.step()

    advance(1, parameters, optimizer)
    twins = copy.deepcopy(parameters)
    other = Muon(twins, lr=0.7)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in (2, 3):
        advance(seed, parameters, optimizer)
        advance(seed, twins, other)
    for parameter, twin in zip(parameters, twins, strict=True):
        assert torch.equal(parameter, twin)
