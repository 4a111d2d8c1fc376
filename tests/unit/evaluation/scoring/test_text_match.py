"""Scores of numbers, words, letters and lists."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.evaluation.scoring.marking import boxed, score

many = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("truth", "text", "right"),
    [
        ("18", "18", True),
        ("18", "$18", True),
        ("18", "18.0", True),
        ("18", "$18.00", True),
        ("18", "The answer is 18 apples.", True),
        ("18", "She had 3 and then 15 more, which makes 18.", True),
        ("18", "Janet makes 9 * 2 = $<<9*2=18>>18.\n#### 18", True),
        ("18", boxed("\\$18"), True),
        (18, "18", True),
        ("70,000", "70000", True),
        ("70000", "70,000", True),
        ("0.5", "1/2", True),
        ("-5", "-5", True),
        ("-5", "5", False),
        ("18", "19", False),
        ("18", "180", False),
        ("18", "1.8", False),
        ("18", "18 and then 20", False),
        ("18", boxed("19") + " Not 18", False),
        (str(10**18), str(10**18 + 1), False),
        ("18", "many", False),
        ("18", "", False),
    ],
)
def test_numbers(truth: str, text: str, right: bool) -> None:
    assert score("number", truth, text) == float(right)


def written(value: Fraction) -> list[str]:
    """A number of at most two decimals in the ways in which people write it."""
    plain = f"{float(value):.2f}"
    ways = [plain, f"{float(value):,.2f}", f"${plain}" if value >= 0 else f"-${plain[1:]}"]
    if value.denominator == 1:
        ways += [str(value), f"{int(value):,}", f"{value}.0", f"{value} apples"]
    return [*ways, *(f"The answer is {way}." for way in ways), *(boxed(way) for way in ways)]


cents = st.integers(-(10**9), 10**9).map(lambda cent: Fraction(cent, 100))


@many
@given(cents, st.data())
def test_a_number_is_the_same_in_every_way_to_write_it(
    value: Fraction, data: st.DataObject
) -> None:
    truth = data.draw(st.sampled_from(written(value)))
    assert score("number", truth, data.draw(st.sampled_from(written(value)))) == 1


@many
@given(cents, cents, st.data())
def test_another_number_is_never_right(one: Fraction, other: Fraction, data: st.DataObject) -> None:
    for another in (other, one + Fraction(1, 100)):
        truth, text = (data.draw(st.sampled_from(written(value))) for value in (one, another))
        assert score("number", truth, text) == float(one == another)


@pytest.mark.parametrize(
    ("truth", "text", "right"),
    [
        ("Paris", "paris", True),
        ("Paris", "  **Paris**.", True),
        ("Paris", "The answer is Paris.", True),
        ("Paris", "Answer: **Paris**", True),
        ("Paris", "It is in France.\nParis", True),
        ("Paris", boxed("\\text{Paris}"), True),
        ("new york", "New   York", True),
        (["Paris", "Paname"], "paname", True),
        (["Paris", "Paname"], "Lutetia", False),
        ("Paris", "Lyon", False),
        ("Paris", "Paris or Lyon", False),
        ("Paris", "Paris? The answer is Lyon.", False),
        ("Paris", boxed("Lyon") + "\nParis", False),
        ("Paris", "", False),
        ("", "", False),
    ],
)
def test_words(truth: Any, text: str, right: bool) -> None:
    assert score("exact", truth, text) == float(right)


@pytest.mark.parametrize(
    ("truth", "text", "right"),
    [
        ("B", "B", True),
        ("b", "(B)", True),
        ("(B)", "The answer is B.", True),
        ("B", boxed("B"), True),
        ("B", boxed("\\text{(B)}"), True),
        ("B", "C", False),
        ("B", "The answer is B? No: the answer is C.", False),
        ("B", "A and B", False),
        ("B", "", False),
        ("H", "The answer is H.", True),
        ("H", "The answer is G.", False),
    ],
)
def test_letters(truth: str, text: str, right: bool) -> None:
    assert score("choice", truth, text) == float(right)


def test_letters_may_be_said() -> None:
    """G is no answer to a question that has two, so B, which was stated, is."""
    text = "The answer is B. The answer is G."
    assert score("choice", "B", text, letters="AB") == 1
    assert score("choice", "B", text, letters="ABCDEFG") == 0


FIVE = ["18", "3", "70000", "540", "20"]


@pytest.mark.parametrize(
    ("truth", "text", "share"),
    [
        (FIVE, boxed("18,3,70000,540,20"), 1),
        (FIVE, boxed("18, 3, 70,000, 540, 20"), 1),
        (FIVE, boxed("\\$18, 3, 70000, 540, 20"), 1),
        (FIVE, "18, 3, 70000, 540, 20", 1),
        (FIVE, "\\boxed{18}, \\boxed{3}, \\boxed{70000}, \\boxed{540}, \\boxed{20}", 1),
        (FIVE, boxed("18,3,70000,540,21"), 0.8),
        (FIVE, boxed("3,18,70000,540,20"), 0.6),
        (FIVE, "Time is up: the final answer is \\boxed{18, 3", 0.4),
        (FIVE, boxed("18"), 0.2),
        (FIVE, boxed("18,3,70000,540,20,7"), 1),
        (FIVE, "", 0),
        (["red", "5"], boxed("Red, five"), 0.5),
        (["red"], boxed("red"), 1),
        (["mat", "rol"], "(a) mat, (b) rol", 1),
        (["mat", "rol"], boxed("(a) mat, (b) lor"), 0.5),
        ({"a": "42", "b": "korin"}, "(a) 42, (b) korin", 1),
        ({"a": "42", "b": "korin"}, "\\boxed{(b) korin, (a) 42}", 1),
        ({"a": "42", "b": "korin"}, "(a) 42, (b) nirok", 0.5),
        ({"a": "42", "b": "korin"}, "(a) 7, then (a) 42", 0.5),
        ({"a": "42", "b": "korin"}, "42, korin", 0),
    ],
)
def test_lists(truth: Any, text: str, share: float) -> None:
    """The share of the items that is right, by their labels or by their places."""
    assert score("list", truth, text) == pytest.approx(share)
