"""The forward pass: long calls, NaN, interrupted passes, idle workers; and loading."""

from __future__ import annotations

import copy
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
from hogwild_agents.engine import rows as engine_rows
from hogwild_agents.engine.attention import torch as torch_backend
from hogwild_agents.engine.attention.interface import Row
from hogwild_agents.engine.loading import load_model
from hogwild_agents.errors import HogwildError, ModelLoadError, NotANumberError
from tests.unit.engine.families import ACCEPTED, build, embeddings
from tests.unit.engine.reference import LLAMA, Trio, block_of, contents, some_tokens, unchanged

TOLERANCE = 2e-5
CHUNK = 16

POISON = 99
"""The token whose embedding is NaN in `poisoned`."""


@pytest.fixture
def poisoned() -> SharedCacheModel:
    """A Llama with a NaN in one row of its embeddings, which is not that of its output layer."""
    model = build(LLAMA)
    with torch.no_grad():
        embeddings(model)[POISON, 3] = torch.nan
    return SharedCacheModel.from_pretrained(model)


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
    monkeypatch.setattr(engine_rows, "MAX_RUN_TOKENS", CHUNK)
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
    """The first reads the second, which reads the third."""
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
    busy, busiest = 0, 0

    def slowly(*given: Any) -> PreTrainedModel:
        nonlocal busy, busiest
        busy += 1
        busiest = max(busiest, busy)
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
    assert busiest == 1


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


@pytest.mark.parametrize("max_length", [0, -1, 4097])
def test_impossible_max_length(max_length: int) -> None:
    with pytest.raises(ModelLoadError, match=f"max_length={max_length} .* 4,096"):
        SharedCacheModel.from_pretrained(build(LLAMA), max_length=max_length)


def test_calling_the_model_itself_says_what_to_do(llama: SharedCacheModel) -> None:
    with pytest.raises(HogwildError, match=r"SharedCacheModel\.forward"):
        llama.model(input_ids=torch.tensor([[1, 2]]))


def test_the_advice_works() -> None:
    shared = SharedCacheModel.from_pretrained(build(LLAMA))
    model = copy.deepcopy(shared.model)
    model.set_attn_implementation("sdpa")
    assert torch.isfinite(model(input_ids=torch.tensor([[1, 2]])).logits).all()


def test_idle_workers_have_no_prediction_and_change_nothing(trio: Trio) -> None:
    model, prompt, alice, bob = trio
    twin, lengths = alice.fork(), (len(prompt), len(bob))
    logits = model.forward([[prompt, alice, bob], [prompt, alice], [prompt]], [[], [4], []])
    assert logits.isnan().all(-1).tolist() == [True, False, True]
    assert (len(prompt), len(bob)) == lengths
    alone = model.forward([[prompt, twin]], [[4]])
    assert (logits[1] - alone[0]).abs().max() < 1e-5


def test_an_idle_worker_may_share_the_block_that_another_writes_to(trio: Trio) -> None:
    model, prompt, alice, bob = trio
    twin = alice.fork()
    logits = model.forward([[bob, alice], [prompt, alice], [alice]], [[], [4, 5], []])
    alone = model.forward([[prompt, twin]], [[4, 5]])
    assert logits.isnan().all(-1).tolist() == [True, False, True]
    assert (logits[1] - alone[0]).abs().max() < 1e-5
    assert len(alice) == len(twin)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_pass_is_undone(trio: Trio, error: type[BaseException]) -> None:
    model, prompt, alice, bob = trio
    views, tokens = [[prompt, bob, alice], [prompt, alice, bob]], [[1, 2], [3]]

    def fail(*_: object) -> None:
        raise error

    handle = model.model.model.layers[1].mlp.register_forward_hook(fail)
    with unchanged(prompt, alice, bob), pytest.raises(error):
        model.forward(views, tokens)
    handle.remove()
    assert torch.isfinite(model.forward(views, tokens)).all()


class TestNotANumber:
    """A pass with NaN is undone as a whole, and says whose fault it was."""

    @pytest.fixture(params=[0, 2**40], ids=["in-place", "gathered"])
    def _reading(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch_backend, "MIN_RUN_BYTES", request.param)

    def test_one_worker(self, poisoned: SharedCacheModel) -> None:
        prompt, own, twin = (block_of(poisoned, text) for text in (some_tokens(20), [1, 2], [1, 2]))
        with unchanged(prompt, own), pytest.raises(NotANumberError, match=r"\[0\]") as caught:
            poisoned.forward([[prompt, own]], [[5, POISON, 6]])
        assert caught.value.workers == (0,)
        clean = poisoned.forward([[prompt, own]], [[5, 6]])
        assert torch.isfinite(clean).all()
        torch.testing.assert_close(clean, poisoned.forward([[prompt, twin]], [[5, 6]]))

    @pytest.mark.usefixtures("_reading")
    @pytest.mark.parametrize("wrong", [0, 1, 2])
    def test_separate_teams(self, poisoned: SharedCacheModel, wrong: int) -> None:
        """Teams whose pages are gathered together: equal or unequal numbers of them."""
        for lengths in ((20, 20, 20), (20, 80, 120), (80, 20, 120), (120, 80, 20)):
            prompts = [block_of(poisoned, some_tokens(length)) for length in lengths]
            tokens = [[3], [4], [5]]
            tokens[wrong] = [POISON]
            with unchanged(*prompts), pytest.raises(NotANumberError) as caught:
                poisoned.forward([[prompt] for prompt in prompts], tokens)
            assert caught.value.workers == (wrong,), lengths
            tokens[wrong] = [6]
            assert torch.isfinite(poisoned.forward([[prompt] for prompt in prompts], tokens)).all()
            for prompt in prompts:
                prompt.free()

    @pytest.mark.usefixtures("_reading")
    def test_a_worker_who_sees_it_is_named_too(self, poisoned: SharedCacheModel) -> None:
        prompt = block_of(poisoned, some_tokens(20))
        alice, bob, carol = (poisoned.new_block() for _ in range(3))
        views = [[prompt, alice], [prompt, alice, bob], [prompt, carol]]
        with unchanged(prompt, alice, bob, carol), pytest.raises(NotANumberError) as caught:
            poisoned.forward(views, [[POISON], [5], [6]])
        assert set(caught.value.workers) >= {0, 1}

    @pytest.mark.usefixtures("_reading")
    def test_a_worker_of_the_team_who_does_not_see_it_is_not_named(
        self, poisoned: SharedCacheModel
    ) -> None:
        prompt = block_of(poisoned, some_tokens(20))
        alice, bob = poisoned.new_block(), poisoned.new_block()
        with unchanged(prompt, alice, bob), pytest.raises(NotANumberError) as caught:
            poisoned.forward([[prompt, alice], [prompt, bob]], [[POISON], [6]])
        assert caught.value.workers == (0,)

    @pytest.mark.usefixtures("_reading")
    def test_what_it_wrote_does_not_haunt_the_pages(self, poisoned: SharedCacheModel) -> None:
        """Pages given back by a failed pass go to others, whose unused slots must not hold NaN."""
        for count in (1, 40):
            with pytest.raises(NotANumberError):
                block_of(poisoned, [POISON] * count)
        blocks = [block_of(poisoned, some_tokens(3, seed)) for seed in range(6)]
        for block in blocks:
            assert torch.isfinite(poisoned.forward([[block]], [[7]])).all()

    def test_in_a_later_chunk(
        self, poisoned: SharedCacheModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Chunks that had been run are undone too, of all workers."""
        monkeypatch.setattr(engine_rows, "MAX_RUN_TOKENS", 8)
        first, second = block_of(poisoned, some_tokens(3)), block_of(poisoned, some_tokens(4))
        with unchanged(first, second), pytest.raises(NotANumberError) as caught:
            poisoned.forward([[first], [second]], [some_tokens(20), [*some_tokens(20), POISON]])
        assert caught.value.workers == (1,)

    def test_a_fork_that_failed_to_grow(self, poisoned: SharedCacheModel) -> None:
        """The page that was copied for the pass holds what its twin holds."""
        block = block_of(poisoned, some_tokens(20))
        twin = block.fork()
        lengths = len(block), len(twin)
        with pytest.raises(NotANumberError):
            poisoned.forward([[twin]], [[POISON]])
        assert (len(block), len(twin)) == lengths
        for layer in range(2):
            assert torch.equal(block.keys(layer), twin.keys(layer))
            assert torch.equal(block.values(layer), twin.values(layer))

    def test_all_weights(self) -> None:
        """A model whose every prediction is NaN is refused on load, or else names every worker."""
        model = build(LLAMA)
        with torch.no_grad():
            model.lm_head.weight.fill_(torch.nan)
        with pytest.raises(HogwildError):
            SharedCacheModel.from_pretrained(model)
        shared = SharedCacheModel.from_pretrained(build(LLAMA), self_check=False)
        with torch.no_grad():
            shared.model.lm_head.weight.fill_(torch.nan)
        blocks = [shared.new_block() for _ in range(3)]
        with unchanged(*blocks), pytest.raises(NotANumberError) as caught:
            shared.forward([[block] for block in blocks], [[1], [], [2]])
        assert caught.value.workers == (0, 2)
