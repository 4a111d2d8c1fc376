"""Each way in which the torch backend reads a cache is taken, and gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.attention.interface import torch as backend
from hogwild_agents.engine.attention.torch import Component, ComponentBatch
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
    """What the backend plans from now on, one entry per team and window."""
    made: list[Component] = []
    plan = backend.plan_team

    def recording(*arguments: object) -> Component:
        made.append(plan(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(backend, "plan_team", recording)
    return made


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[ComponentBatch]:
    """The groups that the backend makes from now on."""
    made: list[ComponentBatch] = []

    class Recorded(ComponentBatch):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(backend, "ComponentBatch", Recorded)
    return made


def conversation(model: SharedCacheModel) -> Setup:
    """A long prompt, a block that only some see, and workers who write one token and several."""
    prompt, note = block_of(model, some_tokens(70)), block_of(model, some_tokens(11, 1))
    alice, bob = block_of(model, some_tokens(5, 2)), block_of(model, some_tokens(34, 3))
    views = [[prompt, bob, alice], [prompt, note, alice, bob]]
    return views, [some_tokens(1, 4), some_tokens(9, 5)]


def alike(model: SharedCacheModel) -> Setup:
    """As in most decode passes: everybody sees everything, and writes one token."""
    prompt = block_of(model, some_tokens(70))
    alice, bob = block_of(model, some_tokens(5, 2)), block_of(model, some_tokens(34, 3))
    return [[prompt, bob, alice], [prompt, alice, bob]], [[4], [5]]


def alone(model: SharedCacheModel) -> Setup:
    """One worker, one block, nothing to turn."""
    return [[block_of(model, some_tokens(50))]], [[4]]


def fragments(model: SharedCacheModel) -> Setup:
    """A block in several extents, as others grew in its way."""
    first, second, third = (block_of(model, some_tokens(33, seed)) for seed in range(3))
    for turn in range(2):
        model.forward([[first], [second], [third]], [some_tokens(16, turn + 9)] * 3)
    assert max(len(block.extents) for block in (first, second, third)) > 1
    return [[second, third, first]], [some_tokens(3)]


SETUPS = pytest.mark.parametrize("setup", [conversation, alike, alone, fragments])


def run(model: SharedCacheModel, setup: Callable[[SharedCacheModel], Setup]) -> Tensor:
    """Sets up and runs the one pass that counts; gives the memory back."""
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
    monkeypatch.setattr(backend, "STRETCH_BYTES", 2**40)
    gathered = run(model, setup)
    assert plans
    assert not any(team.stretches for team in plans)
    plans.clear()
    monkeypatch.setattr(backend, "STRETCH_BYTES", 0)
    in_place = run(model, setup)
    assert any(team.stretches for team in plans)
    assert (in_place - gathered).abs().max() <= TOLERANCE


@SETUPS
@pytest.mark.parametrize("stretch_bytes", [0, 2**40])
def test_tiles_of_queries_agree(
    model: SharedCacheModel,
    setup: Callable[[SharedCacheModel], Setup],
    stretch_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "STRETCH_BYTES", stretch_bytes)
    whole = run(model, setup)
    monkeypatch.setattr(backend, "SCORE_ELEMENTS", 1)
    one_by_one = run(model, setup)
    monkeypatch.setattr(backend, "SCORE_ELEMENTS", 4 * model.pool.max_heads * 300)
    some = run(model, setup)
    assert (one_by_one - whole).abs().max() <= TOLERANCE
    assert (some - whole).abs().max() <= TOLERANCE


@SETUPS
@pytest.mark.parametrize("stretch_bytes", [0, 2**40])
def test_either_order_of_the_product_agrees(
    model: SharedCacheModel,
    setup: Callable[[SharedCacheModel], Setup],
    stretch_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "STRETCH_BYTES", stretch_bytes)
    monkeypatch.setattr(backend, "FEW_QUERIES", 0)
    keys_last = run(model, setup)
    monkeypatch.setattr(backend, "FEW_QUERIES", 10**6)
    assert (run(model, setup) - keys_last).abs().max() <= TOLERANCE


def test_a_tile_holds_no_more_scores_than_allowed(
    llama: SharedCacheModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    softmax = backend._softmax

    def measuring(scores: Tensor, sinks: Tensor | None) -> Tensor:
        sizes.append(scores.numel())
        return softmax(scores, sinks)

    monkeypatch.setattr(backend, "_softmax", measuring)
    monkeypatch.setattr(backend, "SCORE_ELEMENTS", 20_000)
    block_of(llama, some_tokens(150))
    assert len(sizes) > len(llama.layers)
    assert max(sizes) <= 20_000


def _teams(model: SharedCacheModel, count: int, length: int) -> Setup:
    """As many teams, each with a prompt of its own length and two workers."""
    views, tokens = [], []
    for team in range(count):
        prompt = block_of(model, some_tokens(length + 13 * team, team))
        first, second = model.new_block(), model.new_block()
        views += [[prompt, second, first], [prompt, first, second]]
        tokens += [[team + 1], [team + 2]]
    return views, tokens


@pytest.mark.parametrize("stretch_bytes", [0, 2**40])
@pytest.mark.parametrize("score_elements", [1, 2**24])
def test_teams_together_give_what_each_gives_alone(
    model: SharedCacheModel,
    stretch_bytes: int,
    score_elements: int,
    monkeypatch: pytest.MonkeyPatch,
    groups: list[ComponentBatch],
) -> None:
    views, tokens = _teams(model, 7, 20)
    alone_views, _ = _teams(model, 7, 20)
    monkeypatch.setattr(backend, "STRETCH_BYTES", stretch_bytes)
    monkeypatch.setattr(backend, "SCORE_ELEMENTS", score_elements)
    groups.clear()
    together = model.forward(views, tokens)
    shared_groups = any(group._teams > 1 for group in groups)
    assert shared_groups == (stretch_bytes > 0 and score_elements > 1), "grouping is what is tested"
    separate = torch.cat(
        [
            model.forward(alone_views[at : at + 2], tokens[at : at + 2])
            for at in range(0, len(views), 2)
        ]
    )
    assert (together - separate).abs().max() <= TOLERANCE


def test_rows_are_one_team_only_through_shared_blocks(
    llama: SharedCacheModel, plans: list[Component]
) -> None:
    """Two who share nothing directly belong together through a third."""
    a, b, c, d = (block_of(llama, some_tokens(3, seed)) for seed in range(4))
    own = [llama.new_block() for _ in range(4)]
    plans.clear()
    llama.forward([[a, own[0]], [b, own[1]], [a, b, own[2]], [c, d, own[3]]], [[1], [2], [3], [4]])
    assert sorted(len(team.rows) for team in plans) == [1, 3]
