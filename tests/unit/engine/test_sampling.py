"""Sampling against plain, per-row definitions of every filter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.engine import SamplerState, SamplingParams, sample
from hogwild_agents.errors import InvalidSamplingError

VOCAB = 12

params = st.builds(
    SamplingParams,
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    banned=st.sampled_from([frozenset(), frozenset({0, 5})]),
    temperature=st.sampled_from([0.0, 0.4, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.1, 0.6]),
    seed=st.integers(0, 2**64 - 1),
)


def distribution(logits: list[float], given: SamplingParams, sampler: SamplerState) -> list[float]:
    """The chances of each token, written down token by token."""
    scores = list(logits)
    for token in range(VOCAB):
        if token in sampler.read or token in sampler.written:
            penalty = given.repetition_penalty
            scores[token] = (
                scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
            )
        if token in sampler.written:
            scores[token] -= given.presence_penalty
            scores[token] -= given.frequency_penalty * sampler.written[token]
        if token in given.banned:
            scores[token] = -math.inf
    if given.temperature == 0 or given.top_k == 1:
        return [float(token == scores.index(max(scores))) for token in range(VOCAB)]
    scores = [score / given.temperature for score in scores]
    if given.top_k:
        least = sorted(scores, reverse=True)[min(given.top_k, VOCAB) - 1]
        scores = [score if score >= least else -math.inf for score in scores]
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    chances = [weight / sum(weights) for weight in weights]
    reached, kept = 0.0, set()
    for token in sorted(range(VOCAB), key=lambda token: -chances[token]):
        if reached < given.top_p:
            kept.add(token)
        reached += chances[token]
    chances = [chance if token in kept else 0.0 for token, chance in enumerate(chances)]
    chances = [chance if chance >= given.min_p * max(chances) else 0.0 for chance in chances]
    return [chance / sum(chances) for chance in chances]


@given(data=st.data(), rows=st.lists(params, min_size=1, max_size=5), seed=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_every_row_follows_its_own_definition(
    data: Any, rows: list[SamplingParams], seed: int
) -> None:
    """In any mixture of rows each draws by inverse distribution from its own chances."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(rows), VOCAB, generator=generator)
    samplers = [SamplerState(given, read=frozenset({1, 2})) for given in rows]
    for sampler in samplers:
        sampler.written.update(data.draw(st.lists(st.integers(0, VOCAB - 1), max_size=4)))
    twins = [sampler.fork() for sampler in samplers]
    tokens = sample(logits, samplers)
    for row, (given_, twin, token) in enumerate(zip(rows, twins, tokens, strict=True)):
        chances = distribution(logits[row].tolist(), given_, twin)
        if given_.greedy:
            assert chances[token] == 1
            continue
        point = twin.uniform()
        below = sum(chances[:token])
        assert chances[token] > 0
        assert below - 1e-5 <= point <= below + chances[token] + 1e-5


def test_frequencies_match_the_distribution() -> None:
    """Many draws are distributed as the softmax says (a 5-sigma bound)."""
    torch.manual_seed(0)
    logits = torch.randn(1, 5)
    sampler = SamplerState(SamplingParams(seed=7))
    count = 5_000
    drawn = torch.tensor([sample(logits, [sampler])[0] for _ in range(count)])
    chances = logits.softmax(-1)[0]
    shares = torch.bincount(drawn, minlength=5) / count
    sigma = (chances * (1 - chances) / count).sqrt()
    assert ((shares - chances).abs() < 5 * sigma).all()


def test_a_seeded_row_repeats_itself_whatever_else_is_in_the_batch() -> None:
    """Alone, in a crowd, at another place in it, or forked half-way: the same choices."""
    torch.manual_seed(1)
    steps = [torch.randn(VOCAB) for _ in range(30)]
    given_ = SamplingParams(temperature=1.5, top_p=0.95, seed=123)

    def run(crowd: int, place: int, fork_at: int | None = None) -> list[int]:
        mine = SamplerState(given_)
        others = [SamplerState(SamplingParams(top_k=3)) for _ in range(crowd)]
        tokens = []
        for step, logits in enumerate(steps):
            if step == fork_at:
                mine = mine.fork()
            samplers = [*others[:place], mine, *others[place:]]
            batch = torch.randn(crowd + 1, VOCAB)
            batch[place] = logits
            tokens.append(sample(batch, samplers)[place])
        return tokens

    alone = run(0, 0)
    assert len(set(alone)) > 3
    assert run(5, 3) == alone
    assert run(2, 0, fork_at=11) == alone


def test_unseeded_samplers_differ() -> None:
    """Without a seed two samplers draw different numbers."""
    samplers = [SamplerState(SamplingParams()) for _ in range(2)]
    assert samplers[0].seed != samplers[1].seed


def test_a_grammar_mask_decides_what_may_be_chosen() -> None:
    """Only allowed tokens are chosen, greedy or not; the caller's logits are not touched."""
    logits = torch.arange(float(VOCAB)).repeat(2, 1)
    before = logits.clone()
    allowed = torch.zeros(2, VOCAB, dtype=torch.bool)
    allowed[0, 4] = allowed[1, 2] = True
    samplers = [SamplerState(SamplingParams(temperature=0)), SamplerState(SamplingParams(seed=0))]
    assert sample(logits, samplers, allowed) == [4, 2]
    assert torch.equal(logits, before)


def test_a_row_without_any_choice_is_an_error_and_changes_no_sampler() -> None:
    """All tokens excluded: a typed error that names the row."""
    samplers = [SamplerState(SamplingParams(seed=0)), SamplerState(SamplingParams(seed=1))]
    allowed = torch.ones(2, VOCAB, dtype=torch.bool)
    allowed[1] = False
    with pytest.raises(InvalidSamplingError, match=r"Rows \[1\]"):
        sample(torch.zeros(2, VOCAB), samplers, allowed)
    assert [sampler.draws for sampler in samplers] == [0, 0]
    assert not samplers[0].written


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("presence_penalty", math.inf),
        ("frequency_penalty", math.nan),
        ("seed", -1),
        ("banned", frozenset({-3})),
    ],
)
def test_out_of_range(name: str, value: Any) -> None:
    """Each parameter names itself, its value and what is expected."""
    with pytest.raises(InvalidSamplingError, match=name):
        SamplingParams(**{name: value})


def test_banned_beyond_the_vocabulary() -> None:
    """A token id that does not exist is more likely a mistake than a wish."""
    with pytest.raises(InvalidSamplingError, match="99"):
        sample(torch.zeros(1, VOCAB), [SamplerState(SamplingParams(banned=frozenset({99})))])


def test_more_samplers_than_rows() -> None:
    """One sampler per row."""
    with pytest.raises(InvalidSamplingError, match="1 rows"):
        sample(
            torch.zeros(1, VOCAB), [SamplerState(SamplingParams()), SamplerState(SamplingParams())]
        )


@pytest.mark.parametrize("temperature", [1e-39, 1e-37, 1e-3])
def test_tiny_temperatures_take_the_likeliest_token(temperature: float) -> None:
    """No overflow, no id beyond the vocabulary."""
    torch.manual_seed(0)
    logits = 50 * torch.randn(1, 97)
    sampler = SamplerState(SamplingParams(temperature=temperature, seed=0))
    assert sample(logits, [sampler]) == [int(logits.argmax())]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_logits_are_refused(value: float) -> None:
    """NaN and infinity name their row and leave the sampler unchanged."""
    logits = torch.zeros(2, 9)
    logits[1, 3] = value
    samplers = [SamplerState(SamplingParams(seed=0)) for _ in range(2)]
    with pytest.raises(InvalidSamplingError, match=r"rows \[1\]"):
        sample(logits, samplers)
    assert [sampler.draws for sampler in samplers] == [0, 0]


def test_penalties_ignore_ids_that_are_never_predicted() -> None:
    """Some models read more ids than they predict."""
    sampler = SamplerState(
        SamplingParams(temperature=0, repetition_penalty=1.5), read=frozenset({200})
    )
    assert sample(torch.eye(9)[:1], [sampler]) == [0]
