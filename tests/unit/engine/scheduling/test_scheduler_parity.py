"""Many jobs at once give, token for token, what each gives alone, however they get their memory."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.engine import Engine, SharedCacheModel
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.prefix_cache import common_length
from tests.unit.engine.jobs import (
    QWEN,
    WAIT,
    Direct,
    Rows,
    Spec,
    Spy,
    alone,
    load,
    results,
    some_specs,
)
from tests.unit.engine.reference import LLAMA, some_tokens

FAMILIES = {family.name: family for family in (QWEN, LLAMA)}
CASES = {
    ("qwen3", "greedy"): some_specs(16),
    ("llama", "greedy"): some_specs(16, passes=(3, 15)),
    ("qwen3", "long"): some_specs(16, sampled=True, passes=(36, 48)),
    ("llama", "long"): some_specs(8, passes=(36, 48)),
}
Expected = dict[tuple[str, str], list[Rows]]


@pytest.fixture(scope="module")
def expected() -> Expected:
    """What every team of every case draws alone."""
    models = {name: load(family=family) for name, family in FAMILIES.items()}
    return {case: alone(models[case[0]], specs) for case, specs in CASES.items()}


@pytest.mark.parametrize(
    ("name", "kind", "chunk"),
    [
        ("qwen3", "greedy", 512),
        ("qwen3", "greedy", 16),
        ("qwen3", "long", 32),
        ("llama", "greedy", 512),
        ("llama", "greedy", 3),
    ],
)
def test_sixteen_teams_at_once(
    expected: Expected, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, chunk: int
) -> None:
    """All layouts and sizes in one batch, with shared beginnings, whatever the chunk."""
    model = load(family=FAMILIES[name])
    spy = Spy(model, monkeypatch)
    with Engine(model, prefill_chunk=chunk) as engine:
        got = results([engine.submit(spec.job()) for spec in CASES[name, kind]])
    assert [outcome.drawn for outcome in got] == expected[name, kind]
    assert sum(outcome.usage.preemptions for outcome in got) == 0
    assert max(len(rows) for rows in spy.passes) > 8, "they did run together"
    assert model.pool.used_pages == 0


@pytest.mark.parametrize(
    ("name", "pages", "chunk", "prefix_bytes"),
    [
        ("qwen3", 24, 512, None),
        ("qwen3", 36, 16, 0),
        ("llama", 24, 16, None),
        ("llama", 30, 512, 0),
        ("llama", 40, 32, None),
    ],
)
def test_a_small_cache(
    expected: Expected,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    pages: int,
    chunk: int,
    prefix_bytes: int | None,
) -> None:
    """Teams wait and are preempted, and their tokens are the same."""
    model = load(pages, FAMILIES[name])
    lines: set[int] = set()
    all_here = threading.Event()
    with Engine(model, prefill_chunk=chunk, prefix_bytes=prefix_bytes) as engine:

        def look(_: object) -> None:
            assert all_here.wait(WAIT)
            lines.add(len(engine._loop.scheduler.waiting))

        Spy(model, monkeypatch, look)
        handles = [engine.submit(spec.job()) for spec in CASES[name, "long"]]
        all_here.set()
        got = results(handles)
    assert [outcome.drawn for outcome in got] == expected[name, "long"]
    assert sum(outcome.usage.preemptions for outcome in got) > 1
    assert max(lines) > 0, "some waited"
    assert model.pool.used_pages == 0


def can_share(specs: list[Spec]) -> list[int]:
    """Of each prompt the tokens that an earlier one begins with, at least a page."""
    prompts = [np.array(spec.prompt) for spec in specs]
    best = [
        max((common_length(other, mine) for other in prompts[:index]), default=0)
        for index, mine in enumerate(prompts)
    ]
    return [
        length if length >= PAGE else 0
        for length in (min(b, len(p) - 1) for b, p in zip(best, prompts, strict=True))
    ]


@pytest.mark.parametrize("chunk", [512, 16])
def test_all_that_can_be_shared_is_shared(
    expected: Expected, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Also among prompts that arrive together: no token of a common beginning is read twice."""
    model = load()
    specs = CASES["qwen3", "greedy"]
    spy = Spy(model, monkeypatch)
    with Engine(model, prefill_chunk=chunk, prefix_bytes=2**40) as engine:
        got = results([engine.submit(spec.job()) for spec in specs])
        again = results([engine.submit(spec.job()) for spec in specs])
    reused = [outcome.usage.reused_tokens for outcome in got]
    assert reused == can_share(specs)
    assert sum(reused) > 300
    assert [outcome.usage.reused_tokens for outcome in again] == [
        len(spec.prompt) - 1 if len(spec.prompt) > PAGE else 0 for spec in specs
    ]
    for outcome, rows in zip([*got, *again], 2 * expected["qwen3", "greedy"], strict=True):
        assert outcome.drawn == rows
    prompts = sum(outcome.usage.prompt_tokens for outcome in (*got, *again))
    assert prompts == 2 * sum(len(spec.prompt) for spec in specs)
    written = sum(map(sum, spy.passes))
    decoded = written - (prompts - sum(o.usage.reused_tokens for o in (*got, *again)))
    assert decoded == 2 * sum(
        decoded_tokens(s, r) for s, r in zip(specs, expected["qwen3", "greedy"], strict=True)
    )


def decoded_tokens(spec: Spec, rows: Rows) -> int:
    """Tokens that a team writes after its prompt."""
    branches = len(rows) - spec.passes
    return spec.passes * spec.workers + 4 * branches + (3 if spec.layout == "combined" else 0)


def test_without_room_for_prefixes_nothing_is_reused(
    expected: Expected,
) -> None:
    """Not a token, and the teams draw the same."""
    model = load()
    with Engine(model, prefix_bytes=0) as engine:
        got = results([engine.submit(spec.job()) for spec in CASES["qwen3", "greedy"]])
        assert len(engine._loop.scheduler.prefix_cache) == 0
    assert [outcome.usage.reused_tokens for outcome in got] == [0] * 16
    assert [outcome.drawn for outcome in got] == expected["qwen3", "greedy"]


@pytest.mark.parametrize("prefix_pages", [0, 1])
def test_prompts_that_cannot_be_kept_are_read_side_by_side(prefix_pages: int) -> None:
    """Waiting for a common beginning makes sense only where it will be kept."""
    spec = Spec(tuple(some_tokens(2 * PAGE)), passes=3)
    direct = Direct.on(load(), prefix_pages=prefix_pages)
    for _ in range(4):
        direct.add(spec.job())
    direct.scheduler.advance()
    assert [len(task.lease.prompt) for task in direct.tasks if task.lease] == [2 * PAGE] * 4


def test_the_order_of_submission_does_not_matter(
    expected: Expected,
) -> None:
    """Each team draws the same wherever it stands in the line."""
    specs = CASES["qwen3", "long"]
    model = load(34)
    with Engine(model, prefill_chunk=64) as engine:
        handles = [engine.submit(spec.job()) for spec in reversed(specs)]
        got = [outcome.drawn for outcome in results(reversed(handles))]
    assert got == expected["qwen3", "long"]


@given(
    hogs=st.lists(st.integers(0, 44), min_size=1, max_size=12),
    first=st.integers(0, 12),
    chunk=st.sampled_from([7, 64]),
)
@settings(max_examples=4)
def test_memory_that_comes_and_goes(
    expected: Expected,
    hog_model: SharedCacheModel,
    hogs: list[int],
    first: int,
    chunk: int,
) -> None:
    """Blocks made outside of the engine push jobs out in the middle of whatever they do."""
    specs = CASES["qwen3", "long"][first : first + 4]
    direct = Direct.on(hog_model, prefill_chunk=chunk, prefix_pages=8)
    for spec in specs:
        direct.add(spec.job())
    rounds = 0
    while direct.scheduler.advance():
        hog = hogs[rounds // 3 % len(hogs)]
        with_room = min(hog, hog_model.pool.free_pages)
        block = hog_model.new_block()
        hog_model.pool.reserve([(block, with_room * PAGE)])
        block.advance(with_room * PAGE)
        direct.scheduler.advance()
        block.free()
        rounds += 1
        assert rounds < 5000
    assert direct.drawn() == expected["qwen3", "long"][first : first + 4]
    direct.scheduler.prefix_cache.clear()
    assert hog_model.pool.used_pages == 0


@pytest.fixture(scope="module")
def hog_model() -> SharedCacheModel:
    """A model with room for a few teams."""
    return load(72)


def test_unseeded_sampling_ends_all_the_same() -> None:
    """Teams that draw at random end, together and preempted."""
    model = load(34)
    with Engine(model) as engine:
        specs = [replace(spec, seed=None) for spec in some_specs(8)]
        got = results([engine.submit(spec.job()) for spec in specs])
    assert all(len(o.drawn) >= spec.passes for o, spec in zip(got, specs, strict=True))
