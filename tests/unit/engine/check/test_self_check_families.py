"""Every family of the table: computed as by its own plain forward, or refused for its fault."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.errors import ContextLengthError, ModelLoadError, UnsupportedModelError
from tests.unit.engine.families import ACCEPTED, LONGROPE, REFUSED, Family, build
from tests.unit.engine.reference import some_tokens

TOLERANCE = 5e-5
PROMPT, FIRST, SECOND = 21, 14, 13
"""Tokens of the prompt, of a step that is committed, and of one that is not; the page has 32."""

LAYER_OF = {
    "linear attention": 0,
    "indexer": 0,
    "chunk": 0,
    "position": 0,
    "dynamic": None,
    "absolute": 0,
    "interface": 0,
    "attention": 0,
    "rotation": 0,
    "more than once": 0,
    "scale": 1,
}
"""For a refusal's keyword, the layer that the error names: the first of its kind in the table."""


def _built(family: Family) -> PreTrainedModel:
    try:
        return build(family)
    except (ValueError, KeyError, ImportError) as error:
        pytest.skip(f"transformers cannot build {family.name}: {error}")


def _plain(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    """Logits of the model's own eager forward: [tokens, vocab]."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return logits.float()


def _deviations(shared: SharedCacheModel, tokens: list[int], plain: Tensor) -> list[float]:
    """Of one worker that writes after a prompt and commits once, at every position compared."""
    prompt, own = shared.new_block(), shared.new_block()
    first, second = PROMPT + FIRST, PROMPT + FIRST + SECOND
    pieces = [(PROMPT, first - 3), *((at, at + 1) for at in range(first - 3, first))]
    later = [(first, second - 3), *((at, at + 1) for at in range(second - 3, len(tokens)))]
    errors = []

    def compare(view: list[CacheBlock], start: int, stop: int) -> None:
        logits = shared.forward([view], [tokens[start:stop]])[0]
        errors.append(float((logits - plain[stop - 1]).abs().max()))

    compare([prompt], 0, PROMPT)
    for start, stop in pieces:
        compare([prompt, own], start, stop)
    prompt.extend(own)
    own.clear()
    for start, stop in later:
        compare([prompt, own], start, stop)
    assert (len(prompt), len(own)) == (first, len(tokens) - first)
    return errors


@pytest.mark.parametrize("family", ACCEPTED, ids=lambda family: family.name)
def test_accepted(family: Family) -> None:
    model = _built(family)
    tokens = some_tokens(PROMPT + FIRST + SECOND, seed=1)
    plain = _plain(model, tokens)
    shared = SharedCacheModel.from_pretrained(model)
    deviations = _deviations(shared, tokens, plain)
    assert max(deviations) <= TOLERANCE, deviations


@pytest.mark.parametrize("family", REFUSED, ids=lambda family: family.name)
def test_refused(family: Family) -> None:
    model = _built(family)
    assert family.refusal is not None
    with pytest.raises(UnsupportedModelError) as caught:
        SharedCacheModel.from_pretrained(model)
    message = str(caught.value).lower()
    assert family.refusal in message
    assert caught.value.layer == LAYER_OF[family.refusal], message
    if caught.value.layer is not None:
        assert f"layer {caught.value.layer}" in message
    assert caught.value.report is not None
    assert not caught.value.report.findings[-1].passed
    assert caught.value.reason in caught.value.report.findings[-1].verdict


ORIGINAL = 64
PHI3 = Family(
    "phi3-longrope",
    "phi3",
    {
        "max_position_embeddings": 512,
        "original_max_position_embeddings": ORIGINAL,
        "rope_parameters": {**LONGROPE, "original_max_position_embeddings": ORIGINAL},
    },
)


def test_longrope_is_short_by_default_and_refuses_longer_views() -> None:
    shared = SharedCacheModel.from_pretrained(build(PHI3))
    assert shared.max_length == ORIGINAL
    prompt, own = shared.new_block(), shared.new_block()
    shared.forward([[prompt]], [some_tokens(ORIGINAL - 2)])
    shared.forward([[prompt, own]], [some_tokens(2)])
    with pytest.raises(ContextLengthError, match=str(ORIGINAL)):
        shared.forward([[prompt, own]], [[5]])
    assert (len(prompt), len(own)) == (ORIGINAL - 2, 2)


def test_longrope_is_long_where_max_length_asks_for_it() -> None:
    """As in transformers, where more tokens than the original use them from the first one on."""
    model = build(PHI3)
    tokens = some_tokens(ORIGINAL + 30)
    plain = _plain(model, tokens)
    short = _plain(model, tokens[: ORIGINAL // 2])
    assert (plain[: ORIGINAL // 2] - short).abs().max() > 0.05, "the two sets of factors differ"
    shared = SharedCacheModel.from_pretrained(model, max_length=256)
    assert shared.max_length == 256
    prompt, own = shared.new_block(), shared.new_block()
    for view, start, stop in (
        ([prompt], 0, 20),
        ([prompt, own], 20, ORIGINAL + 29),
        ([prompt, own], ORIGINAL + 29, ORIGINAL + 30),
    ):
        logits = shared.forward([view], [tokens[start:stop]])[0]
        assert (logits - plain[stop - 1]).abs().max() <= TOLERANCE


def test_longrope_has_an_end() -> None:
    with pytest.raises(ModelLoadError, match="max_length=513"):
        SharedCacheModel.from_pretrained(build(PHI3), max_length=513)


@pytest.mark.parametrize("name", ["llama-yarn", "llama-linear"])
def test_scaled_positions_reach_beyond_the_original_length(name: str) -> None:
    """YaRN and linear scaling do not change with length: a long view is as good as a short one."""
    family = next(family for family in ACCEPTED if family.name == name)
    model = build(family)
    tokens = some_tokens(200)
    plain = _plain(model, tokens)
    shared = SharedCacheModel.from_pretrained(model)
    prompt, own = shared.new_block(), shared.new_block()
    shared.forward([[prompt]], [tokens[:150]])
    logits = shared.forward([[prompt, own]], [tokens[150:]])[0]
    assert (logits - plain[-1]).abs().max() <= TOLERANCE
