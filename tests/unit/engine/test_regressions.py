"""What a reviewer broke once."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hogwild_agents.cli import app
from hogwild_agents.engine import (
    InvalidBlockError,
    InvalidSamplingError,
    ModelLoadError,
    SamplingParams,
    SharedCacheModel,
    Stream,
    sample,
)
from tests.unit.engine.families import ACCEPTED, build


def tiny(**options: int) -> SharedCacheModel:
    """A tiny Llama; the first family of the table."""
    return SharedCacheModel.from_pretrained(build(ACCEPTED[0]), **options)  # type: ignore[arg-type]


def test_the_model_may_be_used_by_itself_in_between() -> None:
    """After set_attn_implementation('sdpa') and train() a pass is still the engine's."""
    model = tiny()
    block, twin = model.new_block(), model.new_block()
    for step in ([5, 6, 7], [8]):
        expected = model.forward([[block]], [step])
        model.model.set_attn_implementation("sdpa")
        model.model.train()
        assert (model.forward([[twin]], [step]) - expected).abs().max() < 1e-6
    assert torch.equal(twin.keys(0), block.keys(0))


@pytest.mark.parametrize("temperature", [1e-39, 1e-37, 1e-3])
def test_tiny_temperatures_take_the_likeliest_token(temperature: float) -> None:
    """No overflow, no id beyond the vocabulary."""
    torch.manual_seed(0)
    logits = 50 * torch.randn(1, 97)
    stream = Stream(SamplingParams(temperature=temperature, seed=0))
    assert sample(logits, [stream]) == [int(logits.argmax())]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_logits_are_refused(value: float) -> None:
    """NaN and infinity name their row and leave the stream alone."""
    logits = torch.zeros(2, 9)
    logits[1, 3] = value
    streams = [Stream(SamplingParams(seed=0)) for _ in range(2)]
    with pytest.raises(InvalidSamplingError, match=r"rows \[1\]"):
        sample(logits, streams)
    assert [stream.draws for stream in streams] == [0, 0]


def test_penalties_ignore_ids_that_are_never_predicted() -> None:
    """Some models read more ids than they predict."""
    stream = Stream(SamplingParams(temperature=0, repetition_penalty=1.5), read=frozenset({200}))
    assert sample(torch.eye(9)[:1], [stream]) == [0]


def test_blocks_are_not_copied_by_python() -> None:
    """A shallow copy would give the same memory back twice."""
    block = tiny().new_block()
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(InvalidBlockError, match="fork"):
            copied(block)


def test_a_dropped_twin_counts_no_more() -> None:
    """Its share of a page is back before room is counted."""
    model = tiny(cache_bytes=10 * 32 * 512)
    block, other = model.new_block(), model.new_block()
    assert model.pool.limit_pages == 10
    model.forward([[block]], [list(range(40))])
    twin = block.fork()
    model.forward([[other]], [[1] * 256])
    assert len(twin) == 40
    del twin
    model.forward([[block]], [[1]])
    assert len(block) == 41


def test_a_cache_without_room_is_refused_on_load() -> None:
    """Not by the self-check's own blocks."""
    for size in (0, -7, 100):
        with pytest.raises(ModelLoadError, match=f"cache_bytes={size}"):
            tiny(cache_bytes=size)


def test_another_default_dtype_changes_nothing() -> None:
    """Idle workers get NaN rows in float32 all the same."""
    model = tiny()
    first, second = model.new_block(), model.new_block()
    torch.set_default_dtype(torch.float64)
    try:
        logits = model.forward([[first], [second]], [[1], []])
    finally:
        torch.set_default_dtype(torch.float32)
    assert logits.dtype == torch.float32


def test_shortening_a_block() -> None:
    """Truncate is part of the interface: what is left is as if never longer."""
    model = tiny()
    block, expected = model.new_block(), model.new_block()
    model.forward([[block]], [list(range(80))])
    model.forward([[expected]], [list(range(35))])
    block.truncate(35)
    assert torch.allclose(block.keys(1), expected.keys(1), atol=1e-5)
    with pytest.raises(InvalidBlockError, match="-5"):
        block.truncate(-5)


def test_bench_beyond_the_models_positions(tmp_path: Path) -> None:
    """Left out with the figures instead of a traceback; nothing measured is an error."""
    build(ACCEPTED[0]).save_pretrained(tmp_path)
    arguments = ["bench", str(tmp_path), "--device", "cpu", "--workers", "1", "--passes", "1"]
    result = CliRunner().invoke(app, [*arguments, "--contexts", "255"])
    assert result.exit_code == 1
    assert "256" in result.output
    result = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "no" / "x.json")])
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["bench", "--shape", "5m", "--device", "meta"])
    assert result.exit_code == 2
