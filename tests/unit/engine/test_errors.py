"""Every wrong input has one error, which names the value; and no block is changed by it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine import model as engine_model
from hogwild_agents.engine.attention.interface import torch as backend
from hogwild_agents.errors import (
    ContextLengthError,
    HogwildError,
    InvalidBlockError,
    InvalidTokensError,
    InvalidViewError,
    ModelLoadError,
    NotANumberError,
)
from tests.unit.engine.families import Family, build
from tests.unit.engine.reference import LLAMA, block_of, some_tokens, unchanged

POISON = 99
"""The token whose embedding is NaN in `poisoned`."""

Team = tuple[SharedCacheModel, CacheBlock, CacheBlock, CacheBlock]


@pytest.fixture
def team(llama: SharedCacheModel) -> Team:
    """A prompt and two workers' blocks, all with something in them."""
    prompt, alice, bob = (block_of(llama, some_tokens(5 + seed, seed)) for seed in range(3))
    return llama, prompt, alice, bob


@pytest.fixture
def poisoned() -> SharedCacheModel:
    """A Llama with a NaN in one row of its embeddings, which is not that of its output layer."""
    model = build(LLAMA)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON, 3] = torch.nan
    return SharedCacheModel.from_pretrained(model)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([[], []], ["No tokens at all", "2 workers"]),
        ([[1], [5, -3]], ["worker 1", "-3", "127"]),
        ([[128], [5]], ["worker 0", "128", "127"]),
        ([[2**62], [5]], ["worker 0", f"id {2**62}"]),
        ([[2**63], [5]], ["worker 0", f"id {2**63}"]),
        ([[2**80], [5]], ["worker 0"]),
        ([[1], [0.5]], ["worker 1", "float64"]),
        ([[1], [1.0, 2.0]], ["worker 1", "float64"]),
        ([torch.tensor([1.0]), [5]], ["worker 0", "float32"]),
        ([torch.tensor([1.0], dtype=torch.bfloat16), [5]], ["worker 0"]),
        ([torch.tensor([1.0], requires_grad=True), [5]], ["worker 0"]),
        ([[1], np.array([[1, 2]])], ["worker 1", "(1, 2)"]),
        ([[1], [[1, 2], [3]]], ["worker 1"]),
        ([[True], [5]], ["worker 0", "bool"]),
        ([[None], [5]], ["worker 0"]),
        (["hello", [5]], ["worker 0"]),
        ([5, [5]], ["worker 0"]),
    ],
    ids=str,
)
def test_wrong_tokens(team: Team, tokens: Any, words: list[str]) -> None:
    model, prompt, alice, bob = team
    with unchanged(prompt, alice, bob), pytest.raises(InvalidTokensError) as caught:
        model.forward([[prompt, bob, alice], [prompt, alice, bob]], tokens)
    message = str(caught.value).lower()
    assert all(word.lower() in message for word in words), message


Views = Callable[[CacheBlock, CacheBlock, CacheBlock], Sequence[Any]]


@pytest.mark.parametrize(
    ("views", "tokens", "words"),
    [
        (lambda p, a, _: [[p, a], []], [[1], [2]], ["worker 1", "no block"]),
        (lambda p, a, _: [[p, a], []], [[1], []], ["worker 1", "no block"]),
        (lambda p, a, _: [[p, a]], [[1], [2]], ["1 views", "2 lists"]),
        (lambda p, a, b: [[p, a], [p, b]], [[1]], ["2 views", "1 lists"]),
        (lambda p, a, _: [[p, a, p]], [[1]], ["worker 0", "twice", "at 2"]),
        (lambda p, a, b: [[p, b], [a, a]], [[1], [2]], ["worker 1", "twice", "at 1"]),
        (lambda p, a, b: [[p, a], [p, b, a]], [[1], [2]], ["workers 0 and 1", "8 tokens"]),
        (lambda p, a, b: [[b], [p, a], [a]], [[3], [1], [2]], ["workers 1 and 2"]),
        (lambda p, _a, _b: [[p, "alice"]], [[1]], ["worker 0", "'alice'"]),
        (lambda _p, _a, _b: [[None]], [[1]], ["worker 0", "none"]),
        (lambda p, _a, _b: [p], [[1]], ["worker 0"]),
    ],
    ids=[
        "no block",
        "no block, idle",
        "fewer views",
        "fewer tokens",
        "twice",
        "twice, the last",
        "two writers",
        "two writers of three",
        "a string",
        "None",
        "no list",
    ],
)
def test_wrong_views(team: Team, views: Views, tokens: list[list[int]], words: list[str]) -> None:
    model, prompt, alice, bob = team
    alice = block_of(model, some_tokens(8))
    with unchanged(prompt, alice, bob), pytest.raises(InvalidViewError) as caught:
        model.forward(views(prompt, alice, bob), tokens)
    message = str(caught.value).lower()
    assert all(word in message for word in words), message


@pytest.mark.parametrize("place", [0, 1])
def test_a_freed_block(team: Team, place: int) -> None:
    model, prompt, alice, bob = team
    gone = block_of(model, [1, 2])
    gone.free()
    view = [prompt, alice]
    view[place] = gone
    with unchanged(prompt, alice, bob):
        for views, tokens in (
            ([view], [[1]]),
            ([view, [bob]], [[], [1]]),
            ([[bob], view], [[1]] * 2),
        ):
            with pytest.raises(InvalidBlockError, match="freed"):
                model.forward(views, tokens)
        for use in (
            lambda: prompt.extend(gone),
            lambda: gone.extend(prompt),
            gone.fork,
            gone.clear,
            lambda: gone.keys(0),
            lambda: gone.values(0),
        ):
            with pytest.raises(InvalidBlockError, match="freed"):
                use()
    assert "freed" in repr(gone)
    assert len(gone) == 0
    gone.free()


@pytest.mark.parametrize("place", [0, 1])
def test_a_block_of_another_model(team: Team, qwen3: SharedCacheModel, place: int) -> None:
    model, prompt, alice, bob = team
    foreign = block_of(qwen3, [1, 2])
    view = [prompt, alice]
    view[place] = foreign
    with unchanged(prompt, alice, bob), unchanged(foreign):
        for use in (
            lambda: model.forward([view, [bob]], [[1], [2]]),
            lambda: model.forward([view, [bob]], [[], [2]]),
            lambda: prompt.extend(foreign),
            lambda: foreign.extend(prompt),
        ):
            with pytest.raises(InvalidBlockError, match="another model"):
                use()


@pytest.fixture(scope="module")
def short() -> SharedCacheModel:
    """A Llama with 40 positions."""
    family = Family("llama", "llama", {"max_position_embeddings": 40})
    return SharedCacheModel.from_pretrained(build(family))


class TestContextLength:
    """The view's length counts, what others write in the same pass included."""

    def test_one_worker(self, short: SharedCacheModel) -> None:
        prompt, own = block_of(short, some_tokens(30)), short.new_block()
        assert short.max_length == 40
        with unchanged(prompt, own), pytest.raises(ContextLengthError, match=r"worker 0.* 41 .*40"):
            short.forward([[prompt, own]], [some_tokens(11)])
        short.forward([[prompt, own]], [some_tokens(10)])

    def test_others_writes_count(self, short: SharedCacheModel) -> None:
        prompt, alice, bob = block_of(short, some_tokens(30)), short.new_block(), short.new_block()
        views, tokens = [[prompt, alice], [prompt, alice, bob]], [some_tokens(7), some_tokens(4)]
        with unchanged(prompt, alice, bob), pytest.raises(ContextLengthError, match="worker 1"):
            short.forward(views, tokens)
        short.forward(views, [some_tokens(7), some_tokens(3)])

    def test_an_idle_workers_view_counts_too(self, short: SharedCacheModel) -> None:
        prompt, alice, bob = block_of(short, some_tokens(30)), short.new_block(), short.new_block()
        short.forward([[bob]], [some_tokens(5)])
        with unchanged(prompt, alice, bob), pytest.raises(ContextLengthError, match="worker 1"):
            short.forward([[prompt, alice], [prompt, alice, bob]], [some_tokens(6), []])

    def test_a_block_beyond_all_positions(self, short: SharedCacheModel) -> None:
        """A commit may make a block that no view can hold; the next pass says so."""
        prompt, step = block_of(short, some_tokens(30)), block_of(short, some_tokens(20))
        prompt.extend(step)
        with (
            unchanged(prompt, step),
            pytest.raises(ContextLengthError, match=r"51 tokens, 11 more"),
        ):
            short.forward([[prompt]], [[1]])


class TestNotANumber:
    """A pass with NaN is undone as a whole, and says whose fault it was."""

    @pytest.fixture(params=[0, 2**40], ids=["in-place", "gathered"])
    def _reading(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "STRETCH_BYTES", request.param)

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
        monkeypatch.setattr(engine_model, "CHUNK", 8)
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


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_pass_is_undone(team: Team, error: type[BaseException]) -> None:
    model, prompt, alice, bob = team
    views, tokens = [[prompt, bob, alice], [prompt, alice, bob]], [[1, 2], [3]]

    def fail(*_: object) -> None:
        raise error

    handle = model.model.model.layers[1].mlp.register_forward_hook(fail)
    with unchanged(prompt, alice, bob), pytest.raises(error):
        model.forward(views, tokens)
    handle.remove()
    assert torch.isfinite(model.forward(views, tokens)).all()


@pytest.mark.parametrize("dtype", ["float31", "int8", "", torch.int64, "nn", "Tensor"])
def test_unknown_dtype(dtype: Any) -> None:
    with pytest.raises(ModelLoadError) as caught:
        SharedCacheModel.from_pretrained("nowhere", dtype=dtype)
    assert repr(dtype) in str(caught.value)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "toaster"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(ModelLoadError, match=device):
        SharedCacheModel.from_pretrained(build(LLAMA), device=device)


@pytest.mark.parametrize("content", [None, "{", "{}", '{"model_type": "no_such_model"}'])
def test_unreadable_folder(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelLoadError) as caught:
        SharedCacheModel.from_pretrained(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="missing"):
        SharedCacheModel.from_pretrained(tmp_path / "missing", device="cpu")


def test_a_folder_with_damaged_weights(tmp_path: Path) -> None:
    build(LLAMA).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError) as caught:
        SharedCacheModel.from_pretrained(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value)


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


def test_idle_workers_have_no_prediction_and_change_nothing(team: Team) -> None:
    model, prompt, alice, bob = team
    twin, lengths = alice.fork(), (len(prompt), len(bob))
    logits = model.forward([[prompt, alice, bob], [prompt, alice], [prompt]], [[], [4], []])
    assert logits.isnan().all(-1).tolist() == [True, False, True]
    assert (len(prompt), len(bob)) == lengths
    alone = model.forward([[prompt, twin]], [[4]])
    assert (logits[1] - alone[0]).abs().max() < 1e-5


def test_an_idle_worker_may_share_the_block_that_another_writes_to(team: Team) -> None:
    model, prompt, alice, bob = team
    twin = alice.fork()
    logits = model.forward([[bob, alice], [prompt, alice], [alice]], [[], [4, 5], []])
    alone = model.forward([[prompt, twin]], [[4, 5]])
    assert logits.isnan().all(-1).tolist() == [True, False, True]
    assert (logits[1] - alone[0]).abs().max() < 1e-5
    assert len(alice) == len(twin)
