"""Log-probabilities from the shared cache, beside those of plain transformers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hogwild_lm_eval.scoring import PIECE, Pair, Score, Scoring, batches
from transformers import AutoModelForCausalLM

from hogwild_agents import ChatHogwild, Engine, SharedCacheModel
from hogwild_agents.errors import ContextLengthError
from hogwild_agents.pocket import FOLDER
from hogwild_agents.registry import get_engine

WORDS = 350
"""Ids below this are words of the pocket model."""

torch.set_num_threads(1)
plain = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def text(seed: int, length: int) -> tuple[int, ...]:
    """Random ids."""
    draw = random.Random(seed)
    return tuple(draw.randrange(WORDS) for _ in range(length))


def reference(pair: Pair) -> Score:
    """What plain transformers says."""
    with torch.no_grad():
        logits = plain(torch.tensor([pair.whole])).logits[0].double()
    chosen = logits[len(pair.context) - 1 : -1].log_softmax(-1)
    ids = torch.tensor(pair.continuation)
    own = chosen.gather(1, ids[:, None])
    return Score(own.sum().item(), bool((chosen.argmax(-1) == ids).all()))


def likeliest(context: Sequence[int], length: int) -> tuple[int, ...]:
    """The continuation that the model would write itself."""
    ids = torch.tensor([context])
    for _ in range(length):
        with torch.no_grad():
            ids = torch.cat([ids, plain(ids).logits[:, -1:].argmax(-1)], 1)
    return tuple(ids[0, len(context) :].tolist())


def check(pairs: Sequence[Pair]) -> None:
    """Compares a batch with plain transformers, to 1e-4, or to 1e-6 of what is beyond 100."""
    found = get_engine("pocket").submit(Scoring(pairs)).result()
    for pair, score in zip(pairs, found, strict=True):
        wanted = reference(pair)
        assert score.greedy == wanted.greedy
        assert score.log_probability == pytest.approx(wanted.log_probability, abs=1e-4, rel=1e-6)


def test_choices_behind_examples() -> None:
    """Contexts that begin alike, several continuations for each, some of one token."""
    examples = text(0, 100)
    contexts = [examples + text(1 + n, 1 + 7 * n) for n in range(6)]
    check([Pair(one, text(10 * n, 1 + n)) for one in contexts for n in range(4)])


def test_contexts_of_their_own() -> None:
    """Nothing is shared; a context may be one token, or the beginning of another one."""
    contexts = [text(1, 1), text(2, 40), text(2, 40) + text(3, 5), text(4, 33)]
    check([Pair(one, text(5, 9)) for one in contexts])


@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 1100])
def test_long_continuations(length: int) -> None:
    """They are scored in pieces, side by side with others."""
    check([Pair(text(1, 3), text(2, length)), Pair(text(1, 3), text(3, 2))])


def test_greedy() -> None:
    """Whether each token is the likeliest, in every piece."""
    context = text(1, 8)
    best = likeliest(context, 2 * PIECE)
    wrong = [(*best[:at], (best[at] + 1) % WORDS, *best[at + 1 :]) for at in (0, 40, 63)]
    pairs = [Pair(context, one) for one in (best, best[:1], *wrong)]
    check(pairs)
    assert [s.greedy for s in get_engine("pocket").submit(Scoring(pairs)).result()] == [
        *(True, True, False, False, False)
    ]


def test_batches() -> None:
    """All pairs, each once, neighbours together, none too large."""
    pairs = [Pair(text(n % 5, 30), text(n, 1 + n % 40)) for n in range(60)]
    found = [*batches(pairs, rows=8)]
    assert sorted(n for batch in found for n in batch) == [*range(60)]
    for batch in found:
        assert sum(len(pairs[n].starts) for n in batch) <= 8
    order = [pairs[n].context for batch in found for n in batch]
    assert sum(one != other for one, other in pairwise(order)) == 4
    assert [*batches([Pair((1,), text(1, 3000))], rows=8)] == [[0]]
    assert [*batches([Pair((1,), ())], rows=8)] == []


def test_the_cache_is_given_back() -> None:
    """Nothing stays but the beginning that the engine keeps for the next batch."""
    with Engine(SharedCacheModel.from_pretrained(FOLDER), prefix_bytes=0) as engine:
        free = engine.model.pool.free_pages
        engine.submit(Scoring([Pair(text(1, 99), text(n, 80)) for n in range(9)])).result()
        assert engine.model.pool.free_pages == free


def test_beside_teams() -> None:
    """Scoring and teams may share the engine at the same time."""
    handle = ChatHogwild(workers=4).submit("Solve these tasks.\n(a) 12 + 30\n(b) reverse tok")
    check([Pair(text(1, 9), text(2, 9))])
    assert handle.result().answer == "(a) 42, (b) kot"


def test_what_does_not_fit_is_refused() -> None:
    """Before any work."""
    with pytest.raises(ContextLengthError, match="4,097"):
        get_engine("pocket").submit(Scoring([Pair(text(1, 98), text(2, 4000))]))
    fits = Pair(text(1, 4090), text(2, 7))
    (score,) = get_engine("pocket").submit(Scoring([fits])).result()
    assert score.log_probability == pytest.approx(reference(fits).log_probability, abs=1e-3)
