"""Whole passes of tiny models in float32: card against CPU, recorded against launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, Engine, SharedCacheModel, loading
from hogwild_agents.engine.attention.cuda_graphs import CudaGraphRunner, record_graph
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.errors import NotANumberError
from tests.gpu.scenes import DEVICE, REHEARSAL, error
from tests.unit.engine.families import ACCEPTED, Family, build
from tests.unit.engine.jobs import QWEN, alone, load, results, some_specs
from tests.unit.engine.reference import some_tokens

pytestmark = pytest.mark.gpu

CLOSE = 1e-4
"""Where the two best tokens are nearer than this, two machines may choose differently."""

NEAR = 1e-4
"""Of ||logits - expected|| / ||expected||: a padded pass may run other matrix kernels."""

CACHE_BYTES = 2**28

FAMILIES = ("qwen3",) if REHEARSAL else ("qwen3", "gpt_oss", "deepseek_v3", "gemma2")
"""Plain; sinks and windows; latent attention; soft caps."""

PROMPT = 9 if REHEARSAL else 45


class Recordings:
    """Records passes as CUDA graphs and counts them; in a rehearsal they are run again instead."""

    def __init__(self) -> None:
        self.made = self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        """See `graphs.Record`."""
        self.made += 1
        if REHEARSAL:
            result = run().clone()
            again: Callable[[], object] = lambda: result.copy_(run())  # noqa: E731
        else:
            result, again = record_graph(run)

        def replay() -> None:
            self.replayed += 1
            again()

        return result, replay


def on_card(family: Family, cache_dtype: str = "auto") -> SharedCacheModel:
    """A tiny model whose passes are launched kernel by kernel."""
    return SharedCacheModel.from_pretrained(
        build(family),
        device=DEVICE,
        dtype="float32",
        backend="triton",
        cache_bytes=CACHE_BYTES,
        cache_dtype=cache_dtype,  # type: ignore[arg-type]
        cuda_graphs=False,
        self_check=not REHEARSAL,
    )


def record(model: SharedCacheModel) -> Recordings:
    """Has the passes of a model recorded from now on."""
    made = Recordings()
    model._graphs = CudaGraphRunner(model.pool, model._call, made)
    return made


def family(name: str) -> Family:
    """One of those that the engine is tested with."""
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
        """Gives all memory back."""
        for block in (self.prompt, self.history, *self.own):
            block.free()


@pytest.mark.parametrize("name", FAMILIES)
def test_card_and_cpu_choose_the_same_tokens(name: str) -> None:
    """Two workers, five hundred passes with commits, recorded; each decision is the CPU's."""
    passes = 7 if REHEARSAL else 500 if name == "qwen3" else 120
    kind = QWEN if name == "qwen3" else family(name)
    cpu = SharedCacheModel.from_pretrained(build(kind), device="cpu", backend="torch")
    card = on_card(kind)
    made = record(card)
    ours, theirs = Session(card, 2, 1), Session(cpu, 2, 1)
    tokens, close, worst = [[3], [4]], 0, 0.0
    room = cpu.max_length - 60
    for step in range(passes):
        if len(theirs.history) > room // 2:
            for session in (ours, theirs):
                session.history.truncate(40)
        expected = cpu.forward(theirs.views, tokens)
        got = card.forward(ours.views, tokens).cpu()
        best = expected.topk(2).values
        sure = best[:, 0] - best[:, 1] > CLOSE
        close += int((~sure).sum())
        worst = max(worst, float((got - expected).abs().max()))
        same = got.argmax(-1) == expected.argmax(-1)
        assert (same | ~sure).all(), f"pass {step}: off by {worst:.1e}"
        tokens = expected.argmax(-1, keepdim=True).tolist()
        if step % 6 == 5:
            for session in (ours, theirs):
                session.commit(step // 6 % 2)
    assert worst < 2e-3
    assert close <= 1 + passes // 50
    assert made.made
    assert made.replayed > made.made


@pytest.mark.parametrize("name", FAMILIES)
def test_recorded_and_launched_passes_agree(name: str) -> None:
    """Over steps, commits, a second team that joins and leaves, and rows of several tokens."""
    launched, recorded = on_card(family(name)), on_card(family(name))
    made = record(recorded)
    first = [Session(model, 2, 2) for model in (launched, recorded)]
    second: list[Session] = []
    passes = 8 if REHEARSAL else 60
    for step in range(passes):
        if step == passes // 4:
            second = [Session(model, 3, 3) for model in (launched, recorded)]
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
            for model, view in zip((launched, recorded), views, strict=True)
        )
        assert error(got, expected.double()) < NEAR
        best = expected.topk(2).values
        sure = best[:, 0] - best[:, 1] > CLOSE
        assert ((got.argmax(-1) == expected.argmax(-1)) | ~sure).all()
        if step % 7 == 6:
            for session in first:
                session.commit(step % 2)
    assert made.made >= 1
    assert made.replayed > made.made


def _pairs(first: Sequence[Session], second: Sequence[Session]) -> Iterator[list[Session]]:
    """The sessions of each model."""
    for index, session in enumerate(first):
        yield [session, *second[index : index + 1]]


def test_no_number_is_refused_and_leaves_no_trace() -> None:
    """Launched, while it would be recorded, and replayed; all else is as ever."""
    model = on_card(QWEN)
    made = record(model)
    session = Session(model, 2, 4)
    weights = model.model.get_input_embeddings().weight
    kept = weights[7].clone()
    sound = []
    for _ in range(5):
        with torch.no_grad():
            weights[7] = torch.nan
        lengths = [len(block) for block in session.own]
        with pytest.raises(NotANumberError) as caught:
            model.forward(session.views, [[7], [8]])
        assert 0 in caught.value.workers
        assert [len(block) for block in session.own] == lengths
        with torch.no_grad():
            weights[7] = kept
        sound.append(model.forward(session.views, [[5], [6]]))
        for block in session.own:
            block.truncate(0)
    assert all(error(logits, sound[0].double()) < NEAR for logits in sound)
    assert made.replayed


@pytest.mark.parametrize("cache_dtype", ["fp8"] if REHEARSAL else ["auto", "fp8"])
def test_parking_is_exact(cache_dtype: str) -> None:
    """To pinned memory and back, shared pages included, though the card goes on meanwhile."""
    model = on_card(QWEN, cache_dtype)
    session = Session(model, 2, 5)
    model.forward(session.views, [some_tokens(PROMPT, 6), some_tokens(3, 7)])
    twin = session.own[0].fork()
    blocks = [session.prompt, *session.own, twin]
    before = [kept(0).float().clone() for block in blocks for kept in (block.keys, block.values)]
    offloaded = OffloadedBlocks(blocks)
    if DEVICE.type == "cuda":
        assert all(kept.is_pinned() for pair in offloaded._contents for kept in pair)
    other = Session(model, 2, 8)
    model.forward(other.views, [some_tokens(4 * PROMPT, 9), [1]])
    other.end()
    offloaded.restore()
    after = [kept(0).float() for block in blocks for kept in (block.keys, block.values)]
    assert all(torch.equal(then, now) for then, now in zip(before, after, strict=True))


def test_a_cache_of_eight_bits_is_near_the_plain_one() -> None:
    """Recorded passes over it too."""
    plain, small = on_card(QWEN), on_card(QWEN, "fp8")
    made = record(small)
    sessions = [Session(model, 2, 10) for model in (plain, small)]
    for step in range(4):
        exact, near = (s.model.forward(s.views, [[step], [step + 1]]) for s in sessions)
        assert 0 < error(near, exact.double()) < 0.2
    assert made.made


@pytest.mark.parametrize("accelerated", [True, False])
def test_weights_from_a_folder(
    accelerated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight to the card where accelerate is there to do it, by way of the host otherwise."""
    find = loading.find_spec
    if accelerated and find("accelerate") is None:
        pytest.skip("accelerate is not installed")
    if not accelerated:
        monkeypatch.setattr(
            loading, "find_spec", lambda name: None if name == "accelerate" else find(name)
        )
    build(QWEN).save_pretrained(tmp_path)
    model = SharedCacheModel.from_pretrained(tmp_path, device=DEVICE, cache_bytes=CACHE_BYTES)
    if not REHEARSAL:
        assert model.backend.name == "triton"
        assert model._graphs is not None
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
    made = record(model)
    with Engine(model) as engine:
        got = results([engine.submit(spec.job()) for spec in specs])
    assert [outcome.drawn for outcome in got] == expected
    assert model.pool.used_pages == 0
    assert made.made


def test_memory_does_not_grow() -> None:
    """Ten thousand recorded passes of sessions that begin, commit and end."""
    model = on_card(QWEN)
    made = record(model)
    rounds, passes = (2, 4) if REHEARSAL else (50, 200)
    taken = []
    for number in range(rounds):
        session = Session(model, 2, 12)
        for step in range(passes):
            model.forward(session.views, [[step % 100], [number]])
            if step % 50 == 49:
                session.commit(step // 50 % 2)
        session.end()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
            taken.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert model.pool.used_pages == 0
    assert made.replayed > made.made
    if taken:
        early, late = taken[rounds // 5], taken[-1]
        assert late[1] == early[1], f"reserved memory went from {early[1]:,} to {late[1]:,} bytes"
        assert late[0] - early[0] < 2**20, f"{late[0] - early[0]:,} bytes more are allocated"
