"""Whole passes of tiny models in float32: card against CPU, captured against launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, Engine, SharedCacheModel, loading
from hogwild_agents.engine.attention.cuda_graphs import CudaGraphRunner, capture_graph
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.errors import NotANumberError
from tests.gpu.scenes import DEVICE, REHEARSAL, error
from tests.unit.engine.families import ACCEPTED, Family, build
from tests.unit.engine.jobs import QWEN, alone, load, results, some_specs
from tests.unit.engine.reference import some_tokens

pytestmark = pytest.mark.gpu

CLOSE = 1e-4
"""If the two best logits are nearer than this, two machines may choose different tokens."""

NEAR = 1e-4
"""Bound of ||logits - expected|| / ||expected||: a padded pass may run other matrix kernels."""

CACHE_BYTES = 2**28

FAMILIES = ("qwen3",) if REHEARSAL else ("qwen3", "gpt_oss", "deepseek_v3", "gemma2")
"""Plain; sinks and windows; latent attention; soft caps."""

PROMPT = 9 if REHEARSAL else 45


class CountingCapture:
    """Captures CUDA graphs and counts them; in a rehearsal, passes are run again instead."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See `cuda_graphs.Capture`."""
        self.captured += 1
        if REHEARSAL:
            result = run().clone()
            run_again: Callable[[], None] = partial(_run_into, result, run)
        else:
            result, run_again = capture_graph(run)

        def replay() -> None:
            self.replayed += 1
            run_again()

        return result, replay


def _run_into(result: Tensor, run: Callable[[], Tensor]) -> None:
    result.copy_(run())


def on_card(family: Family, cache_dtype: Literal["auto", "fp8"] = "auto") -> SharedCacheModel:
    """A tiny model whose passes are launched kernel by kernel."""
    return SharedCacheModel.from_pretrained(
        build(family),
        device=DEVICE,
        dtype="float32",
        backend="triton",
        cache_bytes=CACHE_BYTES,
        cache_dtype=cache_dtype,
        cuda_graphs=False,
        self_check=not REHEARSAL,
    )


def capture_passes(model: SharedCacheModel) -> CountingCapture:
    """Has the passes of a model captured from now on."""
    capture = CountingCapture()
    model.graphs = CudaGraphRunner(model.pool, model.run_model, capture)
    return capture


def family(name: str) -> Family:
    """A model family by name."""
    return next(family for family in ACCEPTED if family.name == name)


class Session:
    """A team in the combined layout: prompt, history, the others' steps, its own."""

    def __init__(self, model: SharedCacheModel, workers: int, seed: int) -> None:
        self.model = model
        self.prompt, self.history, *self.own = (model.new_block() for _ in range(workers + 2))
        model.forward([[self.prompt]], [some_tokens(PROMPT, seed)])

    @property
    def views(self) -> list[list[CacheBlock]]:
        """What each worker sees."""
        return [
            [self.prompt, self.history, *(other for other in self.own if other is not own), own]
            for own in self.own
        ]

    def commit(self, worker: int) -> None:
        """Moves a worker's step to the history."""
        self.history.extend(self.own[worker])
        self.own[worker].clear()

    def end(self) -> None:
        """Frees all blocks."""
        for block in (self.prompt, self.history, *self.own):
            block.free()


@pytest.mark.parametrize("name", FAMILIES)
def test_card_and_cpu_choose_the_same_tokens(name: str) -> None:
    """Two workers, five hundred captured passes with commits; each decision is the CPU's."""
    passes = 7 if REHEARSAL else 500 if name == "qwen3" else 120
    model_family = QWEN if name == "qwen3" else family(name)
    cpu = SharedCacheModel.from_pretrained(build(model_family), device="cpu", backend="torch")
    card = on_card(model_family)
    capture = capture_passes(card)
    card_session, cpu_session = Session(card, 2, 1), Session(cpu, 2, 1)
    tokens, close, worst = [[3], [4]], 0, 0.0
    room = cpu.max_length - 60
    for step in range(passes):
        if len(cpu_session.history) > room // 2:
            for session in (card_session, cpu_session):
                session.history.truncate(40)
        expected = cpu.forward(cpu_session.views, tokens)
        got = card.forward(card_session.views, tokens).cpu()
        best = expected.topk(2).values
        clear = best[:, 0] - best[:, 1] > CLOSE
        close += int((~clear).sum())
        worst = max(worst, float((got - expected).abs().max()))
        same = got.argmax(-1) == expected.argmax(-1)
        assert (same | ~clear).all(), f"pass {step}: off by {worst:.1e}"
        tokens = expected.argmax(-1, keepdim=True).tolist()
        if step % 6 == 5:
            for session in (card_session, cpu_session):
                session.commit(step // 6 % 2)
    assert worst < 2e-3
    assert close <= 1 + passes // 50
    assert capture.captured
    assert capture.replayed > capture.captured


@pytest.mark.parametrize("name", FAMILIES)
def test_captured_and_launched_passes_agree(name: str) -> None:
    """Over steps, commits, a second team that joins and leaves, and rows of several tokens."""
    launched, captured = on_card(family(name)), on_card(family(name))
    capture = capture_passes(captured)
    first = [Session(model, 2, 2) for model in (launched, captured)]
    second: list[Session] = []
    passes = 8 if REHEARSAL else 60
    for step in range(passes):
        if step == passes // 4:
            second = [Session(model, 3, 3) for model in (launched, captured)]
        if step == 3 * passes // 4:
            for session in second:
                session.end()
            second = []
        views = [
            pair[0].views + (pair[1].views if pair[1:] else []) for pair in _pairs(first, second)
        ]
        many = step % 5 == 4
        tokens = [
            some_tokens(1 + (row % 3 if many else 0), 9 * step + row)
            for row in range(len(views[0]))
        ]
        expected, got = (
            model.forward(view, tokens)
            for model, view in zip((launched, captured), views, strict=True)
        )
        assert error(got, expected.double()) < NEAR
        best = expected.topk(2).values
        clear = best[:, 0] - best[:, 1] > CLOSE
        assert ((got.argmax(-1) == expected.argmax(-1)) | ~clear).all()
        if step % 7 == 6:
            for session in first:
                session.commit(step % 2)
    assert capture.captured >= 1
    assert capture.replayed > capture.captured


def _pairs(first: Sequence[Session], second: Sequence[Session]) -> Iterator[list[Session]]:
    """The sessions of each model."""
    for index, session in enumerate(first):
        yield [session, *second[index : index + 1]]


def test_nan_is_refused_and_leaves_no_trace() -> None:
    """Launched, captured and replayed; all else is as before."""
    model = on_card(QWEN)
    capture = capture_passes(model)
    session = Session(model, 2, 4)
    weights = model.model.get_input_embeddings().weight
    assert isinstance(weights, Tensor)
    row = weights[7].clone()
    results = []
    for _ in range(5):
        with torch.no_grad():
            weights[7] = torch.nan
        lengths = [len(block) for block in session.own]
        with pytest.raises(NotANumberError) as caught:
            model.forward(session.views, [[7], [8]])
        assert 0 in caught.value.workers
        assert [len(block) for block in session.own] == lengths
        with torch.no_grad():
            weights[7] = row
        results.append(model.forward(session.views, [[5], [6]]))
        for block in session.own:
            block.truncate(0)
    assert all(error(logits, results[0].double()) < NEAR for logits in results)
    assert capture.replayed


@pytest.mark.parametrize("cache_dtype", ["fp8"] if REHEARSAL else ["auto", "fp8"])
def test_offloading_is_exact(cache_dtype: Literal["auto", "fp8"]) -> None:
    """To pinned memory and back, with shared pages, while the card continues."""
    model = on_card(QWEN, cache_dtype)
    session = Session(model, 2, 5)
    model.forward(session.views, [some_tokens(PROMPT, 6), some_tokens(3, 7)])
    twin = session.own[0].fork()
    blocks = [session.prompt, *session.own, twin]
    before = [read(0).float().clone() for block in blocks for read in (block.keys, block.values)]
    offloaded = OffloadedBlocks(blocks)
    if DEVICE.type == "cuda":
        assert all(states.is_pinned() for pair in offloaded._contents for states in pair)
    other = Session(model, 2, 8)
    model.forward(other.views, [some_tokens(4 * PROMPT, 9), [1]])
    other.end()
    offloaded.restore()
    after = [read(0).float() for block in blocks for read in (block.keys, block.values)]
    assert all(torch.equal(then, now) for then, now in zip(before, after, strict=True))


def test_a_cache_of_eight_bits_is_near_the_plain_one() -> None:
    """With captured passes too."""
    plain, eight_bit = on_card(QWEN), on_card(QWEN, "fp8")
    capture = capture_passes(eight_bit)
    sessions = [Session(model, 2, 10) for model in (plain, eight_bit)]
    for step in range(4):
        exact, near = (s.model.forward(s.views, [[step], [step + 1]]) for s in sessions)
        assert 0 < error(near, exact.double()) < 0.2
    assert capture.captured


@pytest.mark.parametrize("accelerated", [True, False])
def test_weights_from_a_folder(
    accelerated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly to the card if accelerate is installed, otherwise through the host's memory."""
    if accelerated and find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    if not accelerated:
        monkeypatch.setattr(
            loading, "find_spec", lambda name: None if name == "accelerate" else find_spec(name)
        )
    build(QWEN).save_pretrained(tmp_path)
    model = SharedCacheModel.from_pretrained(tmp_path, device=DEVICE, cache_bytes=CACHE_BYTES)
    if not REHEARSAL:
        assert model.backend.name == "triton"
        assert model.graphs is not None
        assert {parameter.device.type for parameter in model.model.parameters()} == {"cuda"}
    cpu = SharedCacheModel.from_pretrained(tmp_path, device="cpu")
    block, twin = model.new_block(), cpu.new_block()
    tokens = some_tokens(60, 11)
    got, expected = model.forward([[block]], [tokens]), cpu.forward([[twin]], [tokens])
    assert error(got.cpu(), expected.double()) < NEAR


def test_eight_jobs_at_once() -> None:
    """An engine on the card serves teams of all layouts as an engine on the CPU does."""
    specs = some_specs(2 if REHEARSAL else 8, passes=(3, 4) if REHEARSAL else (20, 60))
    expected = alone(load(), specs)
    model = on_card(QWEN)
    capture = capture_passes(model)
    with Engine(model) as engine:
        got = results([engine.submit(spec.job()) for spec in specs])
    assert [outcome.drawn for outcome in got] == expected
    assert model.pool.used_pages == 0
    assert capture.captured


def test_memory_does_not_grow() -> None:
    """Ten thousand captured passes of sessions that begin, commit and end."""
    model = on_card(QWEN)
    capture = capture_passes(model)
    rounds, passes = (2, 4) if REHEARSAL else (50, 200)
    memory = []
    for number in range(rounds):
        session = Session(model, 2, 12)
        for step in range(passes):
            model.forward(session.views, [[step % 100], [number]])
            if step % 50 == 49:
                session.commit(step // 50 % 2)
        session.end()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
            memory.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert model.pool.used_pages == 0
    assert capture.replayed > capture.captured
    if memory:
        early, late = memory[rounds // 5], memory[-1]
        assert late[1] == early[1], f"reserved memory went from {early[1]:,} to {late[1]:,} bytes"
        assert late[0] - early[0] < 2**20, f"{late[0] - early[0]:,} bytes more are allocated"
