"""Recorded passes give what launched ones give; here a recording runs its function again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.attention import cuda_graphs as graphs
from hogwild_agents.engine.attention.cuda_graphs import CudaGraphRunner
from tests.unit.engine.families import ACCEPTED, build
from tests.unit.engine.reference import block_of, some_tokens

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> SharedCacheModel:
    """A layer of full attention and one with a window, both with sinks, on the Triton kernels."""
    family = next(family for family in ACCEPTED if family.name == "gpt_oss")
    return SharedCacheModel.from_pretrained(build(family), backend="triton", self_check=False)


class Recordings:
    """Stands in for CUDA graphs: `replay` runs what was recorded into the same result."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.made = self.replayed = 0
        self.fault = fault

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See `graphs.Record`."""
        if self.fault is not None:
            raise self.fault
        self.made += 1
        result = torch.full_like(run(), torch.nan)

        def replay() -> None:
            self.replayed += 1
            result.copy_(run())

        return result, replay


@pytest.fixture
def recordings(model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch) -> Recordings:
    """What the model's recorder makes."""
    made = Recordings()
    monkeypatch.setattr(model, "_graphs", CudaGraphRunner(model.pool, model._call, made))
    return made


@contextmanager
def launched(model: SharedCacheModel) -> Iterator[None]:
    """Passes are launched kernel by kernel as long as this lasts."""
    recorder, model._graphs = model._graphs, None
    try:
        yield
    finally:
        model._graphs = recorder


def team(model: SharedCacheModel, seed: int) -> list[list[CacheBlock]]:
    """Views of two workers who have a prompt and each other."""
    with launched(model):
        prompt = block_of(model, some_tokens(29, seed))
        alice, bob = (block_of(model, some_tokens(3 + place, seed + place)) for place in (1, 2))
    return [[prompt, bob, alice], [prompt, alice, bob]]


def twins(views: list[list[CacheBlock]]) -> list[list[CacheBlock]]:
    """The same views over forks."""
    forks = {block: block.fork() for view in views for block in view}
    return [[forks[block] for block in view] for view in views]


def plainly(
    model: SharedCacheModel, views: list[list[CacheBlock]], steps: list[list[list[int]]]
) -> Tensor:
    """The logits of some passes without recordings."""
    with launched(model):
        return torch.stack([model.forward(views, step) for step in steps])


def test_a_recorded_run_is_the_launched_run(
    model: SharedCacheModel, recordings: Recordings
) -> None:
    """Token by token, across a page's edge; one recording serves many passes."""
    views = team(model, 1)
    steps = [[[5 + n], [6 + n]] for n in range(6)]
    expected = plainly(model, twins(views), steps)
    got = torch.stack([model.forward(views, step) for step in steps])
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert 1 <= recordings.made <= 3
    assert recordings.replayed >= 4


def test_one_recording_for_passes_that_differ(
    model: SharedCacheModel, recordings: Recordings
) -> None:
    """Other blocks, lengths and tokens; what one pass left in the room is not seen by the next."""
    first, second, third = (team(model, seed) for seed in (2, 3, 4))
    both = first + second
    fresh = twins(both)
    steps = [[[1], [2], [3], [4]], [[5], [6], [7], [8]]]
    for step, wanted in zip(steps, plainly(model, fresh, steps), strict=True):
        torch.testing.assert_close(model.forward(both, step), wanted, atol=TOLERANCE, rtol=0)
    assert recordings.made == 1
    alone = third[:1]
    wanted = plainly(model, twins(alone), [[[9, 8, 7, 6]], [[5, 4, 3, 2]]])
    for step, logits in zip(([[9, 8, 7, 6]], [[5, 4, 3, 2]]), wanted, strict=True):
        torch.testing.assert_close(model.forward(alone, step), logits, atol=TOLERANCE, rtol=0)


def test_results_are_the_caller_s(model: SharedCacheModel, recordings: Recordings) -> None:
    """The next pass does not change the logits of the last one."""
    views = team(model, 5)
    kept = [model.forward(views, [[n], [n + 1]]) for n in range(4)]
    copies = [logits.clone() for logits in kept]
    model.forward(views, [[7], [9]])
    assert recordings.replayed
    assert all(torch.equal(now, then) for now, then in zip(kept, copies, strict=True))


def test_padding_leaves_no_trace(model: SharedCacheModel, recordings: Recordings) -> None:
    """Five tokens in the room of six: nothing of the cache changes but the five's own places."""
    views = team(model, 6)
    model.forward(views, [[1, 2, 3], [4, 5]])
    before = [kept.clone() for _, *pair in model.pool.storage() for kept in pair]
    model.forward(views, [[6, 7, 8], [9, 10]])
    written = np.concatenate(
        [
            view[-1].slots(len(view[-1]) - n, len(view[-1]))
            for view, n in zip(views, (3, 2), strict=True)
        ]
    )
    assert recordings.made == 1
    for then, now in zip(
        before, (kept for _, *pair in model.pool.storage() for kept in pair), strict=True
    ):
        changed = (then != now[:, : then.shape[1]]).any(-1).any(0).nonzero().flatten()
        assert set(changed.tolist()) <= set(written.tolist())


def test_long_passes_are_launched(
    model: SharedCacheModel, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST_TOKENS", 4)
    views = team(model, 7)
    for _ in range(3):
        model.forward(views, [[1, 2, 3], [4, 5]])
    assert not recordings.made


def test_few_are_kept(
    model: SharedCacheModel, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was used longest ago makes room, and is made again when it is needed."""
    monkeypatch.setattr(graphs, "MOST_RECORDINGS", 1)
    views = team(model, 8)
    for count in (1, 1, 3, 3, 1):
        model.forward(views, [[1] * count, [2] * count])
    assert recordings.made == 3


def test_a_model_that_cannot_be_recorded(
    model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs all the same, and one warning says why it is slower."""
    fault = RuntimeError("operation not permitted when stream is capturing")
    monkeypatch.setattr(
        model, "_graphs", CudaGraphRunner(model.pool, model._call, Recordings(fault))
    )
    views = team(model, 9)
    steps = [[[n], [n + 1]] for n in range(4)]
    expected = plainly(model, twins(views), steps)
    with caplog.at_level(logging.WARNING):
        got = torch.stack([model.forward(views, step) for step in steps])
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert sum("not permitted" in record.message for record in caplog.records) == 1


def test_want_of_memory_is_not_hidden(
    model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler knows what to do about it; the blocks are as before."""
    fault = torch.OutOfMemoryError("out of memory")
    monkeypatch.setattr(
        model, "_graphs", CudaGraphRunner(model.pool, model._call, Recordings(fault))
    )
    views = team(model, 10)
    model.forward(views, [[1], [2]])
    lengths = [len(view[-1]) for view in views]
    with pytest.raises(torch.OutOfMemoryError):
        model.forward(views, [[3], [4]])
    assert [len(view[-1]) for view in views] == lengths
