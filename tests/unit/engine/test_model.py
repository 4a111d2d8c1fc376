"""Long calls are run in chunks, where that changes nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine import model as engine_model
from hogwild_agents.engine.attention.interface import Row
from hogwild_agents.engine.loading import load_model
from tests.unit.engine.families import ACCEPTED, build
from tests.unit.engine.reference import block_of, contents, some_tokens

TOLERANCE = 2e-5
CHUNK = 16


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Per run of the model, the rows' numbers of tokens."""
    runs: list[list[int]] = []
    run = SharedCacheModel._run

    def recording(self: SharedCacheModel, rows: list[Row]) -> Tensor:
        runs.append([row.count for row in rows])
        return run(self, rows)

    monkeypatch.setattr(SharedCacheModel, "_run", recording)
    return runs


def _compare(
    monkeypatch: pytest.MonkeyPatch,
    whole: tuple[SharedCacheModel, list[list[CacheBlock]]],
    cut: list[list[CacheBlock]],
    tokens: list[list[int]],
) -> None:
    """One call over each of two equal sets of views, the second in chunks."""
    model, views = whole
    expected = model.forward(views, tokens)
    monkeypatch.setattr(engine_model, "CHUNK", CHUNK)
    got = model.forward(cut, tokens)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0, equal_nan=True)
    for ours, theirs in zip(cut, views, strict=True):
        for now, then in zip(contents(ours[-1]), contents(theirs[-1]), strict=True):
            torch.testing.assert_close(now, then, atol=TOLERANCE, rtol=0)


def _twins(views: list[list[CacheBlock]]) -> list[list[CacheBlock]]:
    """The same views over forks of the blocks."""
    twins = {block: block.fork() for view in views for block in view}
    return [[twins[block] for block in view] for view in views]


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 50])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_a_long_row_is_cut(
    name: str,
    count: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[list[int]],
) -> None:
    model: SharedCacheModel = request.getfixturevalue(name)
    views = [[block_of(model, some_tokens(21)), block_of(model, some_tokens(5, 1))]]
    cut = _twins(views)
    sizes.clear()
    _compare(monkeypatch, (model, views), cut, [some_tokens(count, 2)])
    whole, *chunks = sizes
    assert whole == [count]
    rest = [[count % CHUNK]] if count % CHUNK else []
    assert chunks == [[CHUNK]] * (count // CHUNK) + rest


def test_rows_that_see_each_other_are_never_cut(
    llama: SharedCacheModel, monkeypatch: pytest.MonkeyPatch, sizes: list[list[int]]
) -> None:
    """Alice and Bob run together however long; a bystander and an idle worker do not mind."""
    prompt = block_of(llama, some_tokens(20))
    alice, bob, other, idle = (llama.new_block() for _ in range(4))
    views = [[prompt, bob, alice], [prompt, other], [prompt, alice, bob], [prompt, idle]]
    cut = _twins(views)
    sizes.clear()
    tokens = [some_tokens(30, 1), some_tokens(40, 2), some_tokens(20, 3), []]
    _compare(monkeypatch, (llama, views), cut, tokens)
    whole, *chunks = sizes
    assert whole == [30, 40, 20]
    assert sorted(chunks) == [[8], [16], [16], [30, 20]]


def test_seeing_one_way_or_through_a_third_keeps_rows_together(
    llama: SharedCacheModel, monkeypatch: pytest.MonkeyPatch, sizes: list[list[int]]
) -> None:
    """The first reads the second, who reads the third, who reads nobody."""
    first, second, third = (llama.new_block() for _ in range(3))
    views = [[second, first], [third, second], [third]]
    cut = _twins(views)
    sizes.clear()
    _compare(monkeypatch, (llama, views), cut, [some_tokens(12, seed) for seed in range(3)])
    assert sizes == [[12, 12, 12]] * 2


def test_small_rows_share_a_run(
    llama: SharedCacheModel, monkeypatch: pytest.MonkeyPatch, sizes: list[list[int]]
) -> None:
    views = [[llama.new_block()] for _ in range(5)]
    cut = _twins(views)
    sizes.clear()
    _compare(monkeypatch, (llama, views), cut, [some_tokens(6, seed) for seed in range(5)])
    assert sizes[1:] == [[6, 6], [6, 6], [6]]


def test_logits_are_float32_one_row_per_worker(llama: SharedCacheModel) -> None:
    blocks = [llama.new_block() for _ in range(3)]
    logits = llama.forward([[block] for block in blocks], [[1, 2], [], [3]])
    assert logits.shape == (3, llama.vocab_size)
    assert logits.dtype == torch.float32
    assert logits.isnan().all(-1).tolist() == [False, True, False]
    assert not logits.requires_grad


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_tokens_may_come_in_any_flat_form(llama: SharedCacheModel, kind: type) -> None:
    expected = llama.forward([[llama.new_block()]], [[4, 5, 6]])
    assert torch.equal(llama.forward([[llama.new_block()]], [kind([4, 5, 6])]), expected)


def test_a_model_may_be_read_from_a_folder_and_cast(
    llama: SharedCacheModel, tmp_path: Path
) -> None:
    llama.model.save_pretrained(tmp_path)
    again = SharedCacheModel.from_pretrained(tmp_path, device="cpu")
    assert again.dtype == torch.float32
    tokens = some_tokens(9)
    got = again.forward([[again.new_block()]], [tokens])
    expected = llama.forward([[llama.new_block()]], [tokens])
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    cast = SharedCacheModel.from_pretrained(tmp_path, device="cpu", dtype="bfloat16")
    assert cast.dtype == cast.pool.keys[0].dtype == torch.bfloat16


def test_models_asked_for_at_once_are_loaded_one_by_one(
    llama: SharedCacheModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers' loading changes what tensors all threads make."""
    llama.model.save_pretrained(tmp_path)
    busy, most = 0, 0

    def slowly(*given: Any) -> PreTrainedModel:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.01)  # others would come in now
        loaded = load_model(*given)
        busy -= 1
        return loaded

    monkeypatch.setattr(engine_model, "load_model", slowly)
    tokens = some_tokens(9)
    expected = llama.forward([[llama.new_block()]], [tokens])
    with ThreadPoolExecutor(4) as threads:
        for model in threads.map(SharedCacheModel.from_pretrained, [tmp_path] * 8):
            got = model.forward([[model.new_block()]], [tokens])
            torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert most == 1


def test_the_model_may_be_used_by_itself_in_between() -> None:
    """After set_attn_implementation('sdpa') and train() a pass is still the engine's."""
    model = SharedCacheModel.from_pretrained(build(ACCEPTED[0]))
    block, twin = model.new_block(), model.new_block()
    for step in ([5, 6, 7], [8]):
        expected = model.forward([[block]], [step])
        model.model.set_attn_implementation("sdpa")
        model.model.train()
        assert (model.forward([[twin]], [step]) - expected).abs().max() < 1e-6
    assert torch.equal(twin.keys(0), block.keys(0))


def test_another_default_dtype_changes_nothing() -> None:
    """Idle workers get NaN rows in float32 all the same."""
    model = SharedCacheModel.from_pretrained(build(ACCEPTED[0]))
    first, second = model.new_block(), model.new_block()
    torch.set_default_dtype(torch.float64)
    try:
        logits = model.forward([[first], [second]], [[1], []])
    finally:
        torch.set_default_dtype(torch.float32)
    assert logits.dtype == torch.float32
