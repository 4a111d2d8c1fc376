"""Measures of how a team worked together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.evaluation.collaboration import SHINGLE, balance, duplicated


def test_duplicated_work() -> None:
    """Text that another worker has written counts; repeating oneself does not."""
    text = "one two three four five six seven"
    assert duplicated([("A", text), ("B", "quite another text of more than six words")]) == 0
    assert duplicated([("A", text), ("A", text)]) == 0
    assert duplicated([("A", text), ("B", text.upper())]) == 0.5
    assert duplicated([("A", " ".join(text.split()[: SHINGLE - 1]))]) == 0
    assert duplicated([]) == 0


@given(st.lists(st.integers(0, 1000), max_size=6))
def test_balance(tokens: list[int]) -> None:
    """1 if all wrote equally much, 0 if one wrote everything, in between otherwise."""
    value = balance(tokens)
    assert 0 <= value <= 1 + 1e-9
    if len(tokens) > 1 and any(tokens):
        assert (value > 1 - 1e-9) == (len({*tokens}) == 1)
        assert (value < 1e-9) == (len([count for count in tokens if count]) == 1)
