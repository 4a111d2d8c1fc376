"""Wrong views and tokens: each has one error, which names the value, and changes no block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.errors import (
    ContextLengthError,
    InvalidBlockError,
    InvalidTokensError,
    InvalidViewError,
)
from tests.unit.engine.families import Family, build
from tests.unit.engine.reference import Trio, block_of, some_tokens, unchanged


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([[], []], ["No tokens at all", "2 workers"]),
        ([[1], [5, -3]], ["worker 1", "-3", "127"]),
        ([[128], [5]], ["worker 0", "128", "127"]),
        ([[2**63], [5]], ["worker 0", f"id {2**63}"]),
        ([[2**80], [5]], ["worker 0"]),
        ([[1], [0.5]], ["worker 1", "float64"]),
        ([torch.tensor([1.0], dtype=torch.bfloat16), [5]], ["worker 0"]),
        ([[1], np.array([[1, 2]])], ["worker 1", "(1, 2)"]),
        ([[1], [[1, 2], [3]]], ["worker 1"]),
        ([[True], [5]], ["worker 0", "bool"]),
        (["hello", [5]], ["worker 0"]),
        ([5, [5]], ["worker 0"]),
    ],
    ids=str,
)
def test_wrong_tokens(trio: Trio, tokens: Any, words: list[str]) -> None:
    model, prompt, alice, bob = trio
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
def test_wrong_views(trio: Trio, views: Views, tokens: list[list[int]], words: list[str]) -> None:
    model, prompt, alice, bob = trio
    alice = block_of(model, some_tokens(8))
    with unchanged(prompt, alice, bob), pytest.raises(InvalidViewError) as caught:
        model.forward(views(prompt, alice, bob), tokens)
    message = str(caught.value).lower()
    assert all(word in message for word in words), message


@pytest.mark.parametrize("place", [0, 1])
def test_a_freed_block(trio: Trio, place: int) -> None:
    model, prompt, alice, bob = trio
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
def test_a_block_of_another_model(trio: Trio, qwen3: SharedCacheModel, place: int) -> None:
    model, prompt, alice, bob = trio
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
