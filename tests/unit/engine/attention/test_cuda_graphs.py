"""Captured passes compute what launched passes compute; here a replay runs the function again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.attention import cuda_graphs
from hogwild_agents.engine.attention.cuda_graphs import CudaGraphRunner
from tests.unit.engine.families import ACCEPTED, build
from tests.unit.engine.reference import block_of, some_tokens

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> SharedCacheModel:
    """A layer of full attention and one with a window, both with sinks, on the Triton kernels."""
    family = next(family for family in ACCEPTED if family.name == "gpt_oss")
    return SharedCacheModel.from_pretrained(build(family), backend="triton", self_check=False)


class FakeCapture:
    """Stands in for CUDA graphs: `replay` runs the captured function into the same result."""

    def __init__(self, error: Exception | None = None) -> None:
        self.captured = self.replayed = 0
        self.error = error

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See `cuda_graphs.Capture`."""
        if self.error is not None:
            raise self.error
        self.captured += 1
        result = torch.full_like(run(), torch.nan)

        def replay() -> None:
            self.replayed += 1
            result.copy_(run())

        return result, replay


@pytest.fixture
def capture(model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch) -> FakeCapture:
    """Has the model's passes captured."""
    capture = FakeCapture()
    monkeypatch.setattr(model, "graphs", CudaGraphRunner(model.pool, model.run_model, capture))
    return capture


@contextmanager
def launched(model: SharedCacheModel) -> Iterator[None]:
    """Passes are launched kernel by kernel in this context."""
    graphs, model.graphs = model.graphs, None
    try:
        yield
    finally:
        model.graphs = graphs


def team(model: SharedCacheModel, seed: int) -> list[list[CacheBlock]]:
    """Views of two workers who see a prompt and each other."""
    with launched(model):
        prompt = block_of(model, some_tokens(29, seed))
        alice, bob = (block_of(model, some_tokens(3 + n, seed + n)) for n in (1, 2))
    return [[prompt, bob, alice], [prompt, alice, bob]]


def twins(views: list[list[CacheBlock]]) -> list[list[CacheBlock]]:
    """The same views over forks."""
    forks = {block: block.fork() for view in views for block in view}
    return [[forks[block] for block in view] for view in views]


def launched_logits(
    model: SharedCacheModel, views: list[list[CacheBlock]], steps: list[list[list[int]]]
) -> Tensor:
    """The logits of some passes without CUDA graphs."""
    with launched(model):
        return torch.stack([model.forward(views, step) for step in steps])


def test_captured_passes_compute_what_launched_passes_do(
    model: SharedCacheModel, capture: FakeCapture
) -> None:
    """Token by token, across a page's edge; one graph serves many passes."""
    views = team(model, 1)
    steps = [[[5 + n], [6 + n]] for n in range(6)]
    expected = launched_logits(model, twins(views), steps)
    got = torch.stack([model.forward(views, step) for step in steps])
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert 1 <= capture.captured <= 3
    assert capture.replayed >= 4


def test_one_graph_serves_different_passes(model: SharedCacheModel, capture: FakeCapture) -> None:
    """Other blocks, lengths and tokens; what one pass leaves in buffers does not reach the next."""
    first, second, third = (team(model, seed) for seed in (2, 3, 4))
    both = first + second
    steps = [[[1], [2], [3], [4]], [[5], [6], [7], [8]]]
    for step, expected in zip(steps, launched_logits(model, twins(both), steps), strict=True):
        torch.testing.assert_close(model.forward(both, step), expected, atol=TOLERANCE, rtol=0)
    assert capture.captured == 1
    alone = third[:1]
    steps = [[[9, 8, 7, 6]], [[5, 4, 3, 2]]]
    for step, expected in zip(steps, launched_logits(model, twins(alone), steps), strict=True):
        torch.testing.assert_close(model.forward(alone, step), expected, atol=TOLERANCE, rtol=0)


def test_logits_belong_to_the_caller(model: SharedCacheModel, capture: FakeCapture) -> None:
    """The next pass does not change the logits of the last one."""
    views = team(model, 5)
    results = [model.forward(views, [[n], [n + 1]]) for n in range(4)]
    copies = [logits.clone() for logits in results]
    model.forward(views, [[7], [9]])
    assert capture.replayed
    assert all(torch.equal(now, then) for now, then in zip(results, copies, strict=True))


def test_padding_leaves_no_trace(model: SharedCacheModel, capture: FakeCapture) -> None:
    """Five tokens padded to six: nothing in the cache changes but the slots of the five."""
    views = team(model, 6)
    model.forward(views, [[1, 2, 3], [4, 5]])
    before = [states.clone() for _, *pair in model.pool.storage() for states in pair]
    model.forward(views, [[6, 7, 8], [9, 10]])
    written = np.concatenate(
        [
            view[-1].slots(len(view[-1]) - n, len(view[-1]))
            for view, n in zip(views, (3, 2), strict=True)
        ]
    )
    assert capture.captured == 1
    after = [states for _, *pair in model.pool.storage() for states in pair]
    for then, now in zip(before, after, strict=True):
        changed = (then != now[:, : then.shape[1]]).any(-1).any(0).nonzero().flatten()
        assert set(changed.tolist()) <= set(written.tolist())


def test_long_passes_are_launched(
    model: SharedCacheModel, capture: FakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "MAX_TOKENS", 4)
    views = team(model, 7)
    for _ in range(3):
        model.forward(views, [[1, 2, 3], [4, 5]])
    assert not capture.captured


def test_the_least_recently_used_graph_is_dropped(
    model: SharedCacheModel, capture: FakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is captured again when it is needed."""
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 1)
    views = team(model, 8)
    for count in (1, 1, 3, 3, 1):
        model.forward(views, [[1] * count, [2] * count])
    assert capture.captured == 3


def test_a_model_that_cannot_be_captured(
    model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs nevertheless, and one warning says why it is slower."""
    error = RuntimeError("operation not permitted when stream is capturing")
    monkeypatch.setattr(
        model, "graphs", CudaGraphRunner(model.pool, model.run_model, FakeCapture(error))
    )
    views = team(model, 9)
    steps = [[[n], [n + 1]] for n in range(4)]
    expected = launched_logits(model, twins(views), steps)
    with caplog.at_level(logging.WARNING):
        got = torch.stack([model.forward(views, step) for step in steps])
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert sum("not permitted" in record.message for record in caplog.records) == 1


def test_a_lack_of_memory_is_not_hidden(
    model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler handles it; the blocks are as before."""
    error = torch.OutOfMemoryError("out of memory")
    monkeypatch.setattr(
        model, "graphs", CudaGraphRunner(model.pool, model.run_model, FakeCapture(error))
    )
    views = team(model, 10)
    model.forward(views, [[1], [2]])
    lengths = [len(view[-1]) for view in views]
    with pytest.raises(torch.OutOfMemoryError):
        model.forward(views, [[3], [4]])
    assert [len(view[-1]) for view in views] == lengths
