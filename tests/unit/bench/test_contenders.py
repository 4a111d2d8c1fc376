"""The contenders compute the same logits."""

from __future__ import annotations

from hogwild_agents.bench.contenders import Case, make_contender, use_attention_of
from hogwild_agents.engine import SharedCacheModel


def test_a_lone_worker_and_plain_transformers_compute_the_same(shared: SharedCacheModel) -> None:
    """All caches hold the same random numbers; each row of a batch equals the lone row."""
    cases = [
        Case("hogwild", 1, 40),
        Case("transformers", 1, 40),
        Case("transformers-batch", 3, 40),
        Case("transformers-static", 2, 40),
    ]
    logits = []
    for case in cases:
        contender = make_contender(shared, case, 1)
        with use_attention_of(shared.model, case):
            logits.append(contender.run())
        contender.close()
    expected = logits[0][:1]
    for got, case in zip(logits, cases, strict=True):
        assert got.shape == (case.workers, shared.vocab_size)
        assert (got - expected).abs().max() < 1e-4
    assert shared.pool.used_pages == 0
