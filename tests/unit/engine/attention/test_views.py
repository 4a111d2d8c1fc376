"""The core: any blocks in any views, written and read in any order, against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine import rows as engine_rows
from hogwild_agents.engine.attention import torch as backend
from hogwild_agents.engine.cache.pages import PAGE
from tests.unit.engine.reference import Reference, block_of, contents, some_tokens

TOLERANCE = 1e-4
ROUNDING = 1e-5
LONGEST = 300
"""No block of a random script grows longer than this, and no view longer than a few times this."""

COUNTS = (1, 1, 1, 2, 3, 5, 17, PAGE - 1, PAGE, PAGE + 1, 45)


@dataclass(frozen=True)
class Rows:
    """A pass: per worker, the numbers of the blocks in its view, and how many tokens it writes."""

    views: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Commit:
    """Appends block `src` to block `dst`, and empties `src` if `move`."""

    dst: int
    src: int
    move: bool


@dataclass(frozen=True)
class Fork:
    """Makes a new block, a fork of `src`."""

    src: int


@dataclass
class Script:
    """Steps to run one after the other, starting with `blocks` empty blocks."""

    blocks: int
    seed: int
    steps: list[Rows | Commit | Fork] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """The engine's measured constants, changed so that tiny inputs take every path."""

    min_run_bytes: int
    max_scores: int
    few_queries: int
    chunk: int


SETTINGS = st.builds(
    Settings,
    min_run_bytes=st.sampled_from([0, 2**12, 2**18, 2**40]),
    max_scores=st.sampled_from([1, 2**12, 2**24]),
    few_queries=st.sampled_from([0, 8, 1000]),
    chunk=st.sampled_from([3, 20, 1024]),
)


@st.composite
def rows(draw: st.DrawFn, lengths: Sequence[int]) -> Rows:
    """Any views of the existing blocks; a worker whose block has another writer is idle."""
    numbers = st.sampled_from(range(len(lengths)))
    views, counts, writers = [], [], set()
    for _ in range(draw(st.integers(1, 4))):
        view = tuple(draw(st.lists(numbers, min_size=1, max_size=5, unique=True)))
        count = draw(st.sampled_from((*COUNTS, 0)))
        if view[-1] in writers or lengths[view[-1]] + count > LONGEST:
            count = 0
        if count:
            writers.add(view[-1])
        views.append(view)
        counts.append(count)
    return Rows(tuple(views), tuple(counts))


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Random passes, commits and forks."""
    script = Script(draw(st.integers(2, 6)), draw(st.integers(0, 1000)))
    lengths = [0] * script.blocks
    names = st.sampled_from(["pass"] * 4 + ["commit", "fork"])
    for name in draw(st.lists(names, min_size=3, max_size=9)):
        if name == "pass":
            step = draw(rows(lengths))
            for view, count in zip(step.views, step.counts, strict=True):
                lengths[view[-1]] += count
            if any(step.counts):
                script.steps.append(step)
            continue
        src, dst = (draw(st.integers(0, len(lengths) - 1)) for _ in range(2))
        if name == "fork":
            script.steps.append(Fork(src))
            lengths.append(lengths[src])
        elif lengths[src] + lengths[dst] <= LONGEST:
            move = src != dst and draw(st.booleans())
            script.steps.append(Commit(dst, src, move))
            lengths[dst] += lengths[src]
            lengths[src] = 0 if move else lengths[src]
    return script


def replay(script: Script, shared: SharedCacheModel, reference: Reference) -> None:
    """Runs a script on both sides and compares every logit, length, key and value."""
    blocks = [shared.new_block() for _ in range(script.blocks)]
    twins = [reference.new_block() for _ in range(script.blocks)]
    seeds = itertools.count(1000 * script.seed)
    for step in script.steps:
        if isinstance(step, Commit):
            blocks[step.dst].extend(blocks[step.src])
            twins[step.dst].extend(twins[step.src])
            if step.move:
                blocks[step.src].clear()
                twins[step.src].clear()
        elif isinstance(step, Fork):
            blocks.append(blocks[step.src].fork())
            twins.append(twins[step.src].fork())
        else:
            tokens = [some_tokens(count, next(seeds)) for count in step.counts]
            got = shared.forward([[blocks[i] for i in view] for view in step.views], tokens)
            expected = reference.forward([[twins[i] for i in view] for view in step.views], tokens)
            assert got.shape == expected.shape
            assert got.dtype == torch.float32
            close(got, expected)
        assert [len(block) for block in blocks] == [len(twin) for twin in twins]
    for block, twin in zip(blocks, twins, strict=True):
        for layer in range(reference.layers):
            close(block.keys(layer), reference.rotated_keys(twin, layer))
            close(block.values(layer), twin.values[layer])


def close(got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Asserts that two tensors agree, of whatever precision; NaN agrees with NaN."""
    torch.testing.assert_close(
        got, expected, atol=tolerance, rtol=0, equal_nan=True, check_dtype=False
    )


@given(scripts())
@settings(max_examples=120)
def test_any_script_agrees_with_brute_force(
    llama: SharedCacheModel, llama_reference: Reference, script: Script
) -> None:
    replay(script, llama, llama_reference)


@given(scripts())
@settings(max_examples=60)
def test_any_script_agrees_with_brute_force_under_a_window(
    mistral: SharedCacheModel, mistral_reference: Reference, script: Script
) -> None:
    replay(script, mistral, mistral_reference)


@given(scripts(), SETTINGS, st.booleans())
@settings(max_examples=150)
def test_any_script_agrees_on_every_path(
    llama: SharedCacheModel,
    llama_reference: Reference,
    mistral: SharedCacheModel,
    mistral_reference: Reference,
    script: Script,
    chosen: Settings,
    window: bool,
) -> None:
    """In place or gathered, whole or in chunks, in one run or in several: the same numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "MIN_RUN_BYTES", chosen.min_run_bytes)
        patch.setattr(backend, "MAX_SCORES", chosen.max_scores)
        patch.setattr(backend, "FEW_QUERIES", chosen.few_queries)
        patch.setattr(engine_rows, "MAX_RUN_TOKENS", chosen.chunk)
        if window:
            replay(script, mistral, mistral_reference)
        else:
            replay(script, llama, llama_reference)


@given(
    cuts=st.lists(st.integers(0, 80), max_size=6),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_any_split_gives_the_plain_logits(
    plain_llama: PreTrainedModel,
    llama: SharedCacheModel,
    cuts: list[int],
    seed: int,
    data: st.DataObject,
) -> None:
    """A text cut into blocks, each filled in pieces while it sees those before it."""
    tokens = some_tokens(80, seed)
    with torch.no_grad():
        plain = plain_llama(input_ids=torch.tensor([tokens])).logits[0]
    view: list[CacheBlock] = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), 80]):
        view.append(llama.new_block())
        while start < stop:
            count = data.draw(st.integers(1, stop - start))
            logits = llama.forward([view], [tokens[start : start + count]])[0]
            start += count
            close(logits, plain[start - 1])


@given(
    first=st.integers(1, 2 * PAGE + 2),
    second=st.integers(1, 2 * PAGE + 2),
    seed=st.integers(0, 100),
)
def test_a_commit_equals_what_was_never_split(
    qwen3: SharedCacheModel, first: int, second: int, seed: int
) -> None:
    tokens = some_tokens(first + second, seed)
    whole = block_of(qwen3, tokens)
    prompt = block_of(qwen3, tokens[:first])
    step = qwen3.new_block()
    qwen3.forward([[prompt, step]], [tokens[first:]])
    prompt.extend(step)
    assert len(step) == second
    assert len(prompt) == len(whole)
    for got, expected in zip(contents(prompt), contents(whole), strict=True):
        close(got, expected, ROUNDING)
    one, two = qwen3.new_block(), qwen3.new_block()
    logits = qwen3.forward([[prompt, one], [whole, two]], [[7, 8], [7, 8]])
    close(logits[0], logits[1], 5 * ROUNDING)


def _shuffled_pass(
    shared: SharedCacheModel,
    order: Sequence[int],
    views: Sequence[Sequence[int]],
    counts: Sequence[int],
) -> tuple[list[Tensor], list[CacheBlock]]:
    """One pass over fresh blocks with its rows in `order`: logits by worker, and the blocks."""
    blocks = [block_of(shared, some_tokens(20 + 9 * index, index)) for index in range(5)]
    logits = shared.forward(
        [[blocks[index] for index in views[worker]] for worker in order],
        [some_tokens(counts[worker], 100 + worker) for worker in order],
    )
    return [logits[order.index(worker)] for worker in range(len(order))], blocks


@given(st.permutations(range(4)))
@settings(max_examples=24)
def test_the_order_of_rows_does_not_matter(llama: SharedCacheModel, order: list[int]) -> None:
    """Two workers that see each other, one that sees both, and one by itself."""
    views, counts = [(0, 1, 2), (0, 2, 1), (1, 2, 3), (4,)], [3, 1, 5, 2]
    plain, plain_blocks = _shuffled_pass(llama, range(4), views, counts)
    shuffled, shuffled_blocks = _shuffled_pass(llama, order, views, counts)
    for got, expected in zip(shuffled, plain, strict=True):
        close(got, expected, ROUNDING)
    for block, twin in zip(shuffled_blocks, plain_blocks, strict=True):
        for got, expected in zip(contents(block), contents(twin), strict=True):
            close(got, expected, ROUNDING)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 12)), min_size=1, max_size=6),
    place=st.integers(0, 6),
)
def test_unrelated_rows_do_not_matter(
    llama: SharedCacheModel, sizes: list[tuple[int, int]], place: int
) -> None:
    """A row among other components of any size computes what it computes alone."""
    prompt = block_of(llama, some_tokens(40))
    alone, among_others = prompt.fork(), prompt.fork()
    expected = llama.forward([[alone]], [[3, 4]])[0]
    views: list[list[CacheBlock]] = []
    tokens: list[list[int]] = []
    for index, (length, count) in enumerate(sizes):
        views.append([block_of(llama, some_tokens(length, index)), llama.new_block()])
        tokens.append(some_tokens(count, 50 + index))
    place = min(place, len(views))
    views.insert(place, [among_others])
    tokens.insert(place, [3, 4])
    got = llama.forward(views, tokens)[place]
    close(got, expected, ROUNDING)
    for states, expected_states in zip(contents(among_others), contents(alone), strict=True):
        close(states, expected_states, ROUNDING)


@given(
    data=st.data(), length=st.sampled_from([0, 1, 2, PAGE - 2, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
)
@settings(max_examples=60)
def test_a_fork_never_changes_its_twins(
    llama: SharedCacheModel, data: st.DataObject, length: int
) -> None:
    """A family of forks, and forks of forks, written to in any order and several at once."""
    forks = [block_of(llama, some_tokens(length))]
    texts = [some_tokens(length)]
    for step in range(data.draw(st.integers(2, 6))):
        if data.draw(st.booleans()):
            parent = data.draw(st.integers(0, len(forks) - 1))
            forks.append(forks[parent].fork())
            texts.append(texts[parent])
        writers = data.draw(
            st.lists(st.integers(0, len(forks) - 1), min_size=1, max_size=3, unique=True)
        )
        new = [
            some_tokens(data.draw(st.sampled_from([1, 2, PAGE])), 100 * step + i) for i in writers
        ]
        earlier = [contents(block) for block in forks]
        llama.forward([[forks[i]] for i in writers], new)
        for writer, tokens in zip(writers, new, strict=True):
            texts[writer] = texts[writer] + tokens
        for index, before in enumerate(earlier):
            for now, then in zip(contents(forks[index]), before, strict=True):
                assert torch.equal(now[:, : then.shape[1]], then), "what was written stays"
                assert index in writers or now.shape == then.shape
    for block, text in zip(forks, texts, strict=True):
        for got, expected in zip(contents(block), contents(block_of(llama, text)), strict=True):
            close(got, expected, 5 * ROUNDING)


def test_workers_see_each_other_within_one_pass(llama: SharedCacheModel) -> None:
    """What Bob writes in a pass changes what Alice predicts in it, and vice versa."""
    prompt = block_of(llama, some_tokens(10))

    def predict(alice_token: int, bob_token: int) -> Tensor:
        alice, bob = llama.new_block(), llama.new_block()
        return llama.forward(
            [[prompt, bob, alice], [prompt, alice, bob]], [[alice_token], [bob_token]]
        )

    base, other_bob, other_alice = predict(5, 6), predict(5, 7), predict(8, 6)
    assert (base[0] - other_bob[0]).abs().max() > 0.01
    assert (base[1] - other_alice[1]).abs().max() > 0.01


def test_a_worker_is_causal_within_its_own_block(llama: SharedCacheModel) -> None:
    """Keys and values of earlier tokens do not depend on later ones of the same pass."""
    short, long = block_of(llama, [4, 5, 6]), block_of(llama, [4, 5, 6, 7, 8])
    for now, then in zip(contents(long), contents(short), strict=True):
        close(now[:, :3], then, ROUNDING)


def test_a_block_that_a_worker_does_not_see_does_not_matter(llama: SharedCacheModel) -> None:
    prompt = block_of(llama, some_tokens(10))

    def predict(bob_token: int) -> Tensor:
        alice, bob = llama.new_block(), llama.new_block()
        return llama.forward([[prompt, alice], [prompt, alice, bob]], [[5], [bob_token]])

    assert torch.equal(predict(6)[0], predict(7)[0])


def test_the_reference_is_the_plain_forward(
    plain_llama: PreTrainedModel, llama_reference: Reference
) -> None:
    """Otherwise agreement with it would mean little."""
    tokens = some_tokens(50)
    with torch.no_grad():
        plain = plain_llama(input_ids=torch.tensor([tokens])).logits[0]
    first, second = llama_reference.new_block(), llama_reference.new_block()
    close(llama_reference.forward([[first]], [tokens[:30]])[0], plain[29])
    close(llama_reference.forward([[first, second]], [tokens[30:]])[0], plain[49])
    third, fourth = llama_reference.new_block(), llama_reference.new_block()
    both = [[first, third, fourth], [first, fourth, third]]
    alone = llama_reference.forward([[first, fourth, third]], [[5]])
    third.clear()
    together = llama_reference.forward(both, [[9], [5]])
    assert (alone[0] - together[1]).abs().max() > 0.01, "the other's token counts"
