"""Every way in which the torch backend reads a cache computes the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.attention import torch as backend
from hogwild_agents.engine.attention.interface import Pass, Row
from hogwild_agents.engine.attention.partition import Component, Ints, plan_component
from hogwild_agents.engine.attention.torch import ComponentBatch
from tests.unit.engine.families import ACCEPTED, build
from tests.unit.engine.reference import block_of, some_tokens

TOLERANCE = 1e-5

Setup = tuple[list[list[CacheBlock]], list[list[int]]]


@pytest.fixture(params=["llama", "mistral", "gpt_oss", "gemma2", "deepseek_v3"], scope="module")
def model(request: pytest.FixtureRequest) -> SharedCacheModel:
    """Families that use every argument of an attention call: windows, sinks, soft caps, MLA."""
    family = next(family for family in ACCEPTED if family.name == request.param)
    return SharedCacheModel.from_pretrained(build(family))


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Component]:
    """The components that the backend plans from now on, one for each and every window."""
    plans: list[Component] = []

    def recording(
        current: Pass, tokens: Ints, rows: Sequence[Row], window: int | None, min_run: int
    ) -> Component:
        plans.append(plan_component(current, tokens, rows, window, min_run))
        return plans[-1]

    monkeypatch.setattr(backend, "plan_component", recording)
    return plans


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[ComponentBatch]:
    """The batches that the backend makes from now on."""
    batches: list[ComponentBatch] = []

    class Recorded(ComponentBatch):
        def __init__(
            self, current: Pass, components: Sequence[Component], window: int | None
        ) -> None:
            super().__init__(current, components, window)
            batches.append(self)

    monkeypatch.setattr(backend, "ComponentBatch", Recorded)
    return batches


def conversation(model: SharedCacheModel) -> Setup:
    """A long prompt, a block that one worker sees, and workers that write one token or several."""
    prompt, note = block_of(model, some_tokens(70)), block_of(model, some_tokens(11, 1))
    alice, bob = block_of(model, some_tokens(5, 2)), block_of(model, some_tokens(34, 3))
    views = [[prompt, bob, alice], [prompt, note, alice, bob]]
    return views, [some_tokens(1, 4), some_tokens(9, 5)]


def decoding(model: SharedCacheModel) -> Setup:
    """As in most decode passes: all workers see everything, and write one token each."""
    prompt = block_of(model, some_tokens(70))
    alice, bob = block_of(model, some_tokens(5, 2)), block_of(model, some_tokens(34, 3))
    return [[prompt, bob, alice], [prompt, alice, bob]], [[4], [5]]


def alone(model: SharedCacheModel) -> Setup:
    """One worker, one block, nothing to rotate."""
    return [[block_of(model, some_tokens(50))]], [[4]]


def fragments(model: SharedCacheModel) -> Setup:
    """A block in several extents, because others grew next to it."""
    first, second, third = (block_of(model, some_tokens(33, seed)) for seed in range(3))
    for seed in (9, 10):
        model.forward([[first], [second], [third]], [some_tokens(16, seed)] * 3)
    assert max(len(block.extents) for block in (first, second, third)) > 1
    return [[second, third, first]], [some_tokens(3)]


SETUPS = pytest.mark.parametrize("setup", [conversation, decoding, alone, fragments])


def run(model: SharedCacheModel, setup: Callable[[SharedCacheModel], Setup]) -> Tensor:
    """Sets up and runs one pass; returns its logits and frees the blocks."""
    views, tokens = setup(model)
    logits = model.forward(views, tokens)
    for block in {block for view in views for block in view}:
        block.free()
    return logits


@SETUPS
def test_in_place_and_gathered_agree(
    model: SharedCacheModel,
    setup: Callable[[SharedCacheModel], Setup],
    monkeypatch: pytest.MonkeyPatch,
    plans: list[Component],
) -> None:
    monkeypatch.setattr(backend, "MIN_RUN_BYTES", 2**40)
    gathered = run(model, setup)
    assert plans
    assert not any(component.runs for component in plans)
    plans.clear()
    monkeypatch.setattr(backend, "MIN_RUN_BYTES", 0)
    in_place = run(model, setup)
    assert any(component.runs for component in plans)
    assert (in_place - gathered).abs().max() <= TOLERANCE


@SETUPS
@pytest.mark.parametrize("min_run_bytes", [0, 2**40])
def test_chunks_of_queries_agree(
    model: SharedCacheModel,
    setup: Callable[[SharedCacheModel], Setup],
    min_run_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "MIN_RUN_BYTES", min_run_bytes)
    whole = run(model, setup)
    monkeypatch.setattr(backend, "MAX_SCORES", 1)
    one_by_one = run(model, setup)
    monkeypatch.setattr(backend, "MAX_SCORES", 4 * model.pool.max_heads * 300)
    some = run(model, setup)
    assert (one_by_one - whole).abs().max() <= TOLERANCE
    assert (some - whole).abs().max() <= TOLERANCE


@SETUPS
@pytest.mark.parametrize("min_run_bytes", [0, 2**40])
def test_either_order_of_the_product_agrees(
    model: SharedCacheModel,
    setup: Callable[[SharedCacheModel], Setup],
    min_run_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "MIN_RUN_BYTES", min_run_bytes)
    monkeypatch.setattr(backend, "FEW_QUERIES", 0)
    keys_last = run(model, setup)
    monkeypatch.setattr(backend, "FEW_QUERIES", 10**6)
    assert (run(model, setup) - keys_last).abs().max() <= TOLERANCE


def test_a_chunk_has_no_more_scores_than_allowed(
    llama: SharedCacheModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    softmax = backend._softmax

    def measuring(scores: Tensor, sinks: Tensor | None) -> Tensor:
        sizes.append(scores.numel())
        return softmax(scores, sinks)

    monkeypatch.setattr(backend, "_softmax", measuring)
    monkeypatch.setattr(backend, "MAX_SCORES", 20_000)
    block_of(llama, some_tokens(150))
    assert len(sizes) > len(llama.layers)
    assert max(sizes) <= 20_000


def components(model: SharedCacheModel, count: int, length: int) -> Setup:
    """Some components, each with a prompt of a different length and two workers."""
    views, tokens = [], []
    for number in range(count):
        prompt = block_of(model, some_tokens(length + 13 * number, number))
        first, second = model.new_block(), model.new_block()
        views += [[prompt, second, first], [prompt, first, second]]
        tokens += [[number + 1], [number + 2]]
    return views, tokens


@pytest.mark.parametrize("min_run_bytes", [0, 2**40])
@pytest.mark.parametrize("max_scores", [1, 2**24])
def test_components_compute_together_what_each_computes_alone(
    model: SharedCacheModel,
    min_run_bytes: int,
    max_scores: int,
    monkeypatch: pytest.MonkeyPatch,
    batches: list[ComponentBatch],
) -> None:
    views, tokens = components(model, 7, 20)
    alone_views, _ = components(model, 7, 20)
    monkeypatch.setattr(backend, "MIN_RUN_BYTES", min_run_bytes)
    monkeypatch.setattr(backend, "MAX_SCORES", max_scores)
    batches.clear()
    together = model.forward(views, tokens)
    batched = any(batch._components > 1 for batch in batches)
    assert batched == (min_run_bytes > 0 and max_scores > 1), "batching is what is tested"
    separate = torch.cat(
        [
            model.forward(alone_views[at : at + 2], tokens[at : at + 2])
            for at in range(0, len(views), 2)
        ]
    )
    assert (together - separate).abs().max() <= TOLERANCE


def test_rows_are_one_component_only_through_shared_blocks(
    llama: SharedCacheModel, plans: list[Component]
) -> None:
    """Two rows that share nothing directly are connected through a third."""
    a, b, c, d = (block_of(llama, some_tokens(3, seed)) for seed in range(4))
    own = [llama.new_block() for _ in range(4)]
    plans.clear()
    llama.forward([[a, own[0]], [b, own[1]], [a, b, own[2]], [c, d, own[3]]], [[1], [2], [3], [4]])
    assert sorted(len(component.rows) for component in plans) == [1, 3]
