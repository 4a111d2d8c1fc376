r"""OlympiadBench's rules, on cases of its own judge and on cases reasoned out by hand.

The first come from `eval/scoring_examples.json` in OpenBMB/OlympiadBench, where the judge's authors
say for each whether it is right.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.evaluation.scoring.math_process import olympiad
from tests.unit.evaluation.scoring.marking import boxed, score

PUBLISHED = [
    ("x=1", "1", "", True),
    ("x=1", "x=2", "", False),
    ("a_{n} =2 n    +1", "2n+    1", "", True),
    ("a_{n} =2 n    +1", "a_n=2n+1", "", True),
    ("$I_{\\max }=\\frac{q_{0}}{\\sqrt{2 L C}}$", "\\frac{ q_{0} }{ \\sqrt{2 C L}  }", "", True),
    (
        "(-\\infty,1]\\cup[10,+\\infty)",
        "c \\in \\left(-\\infty, 1\\right]\\cup[10,+\\infty)",
        "",
        True,
    ),
    ("[-4/2, 0.5]", "[-2, \\frac{1}{2}]", "", True),
    ("(2,1),(3,1)", "(3,1),(2,1)", "", True),
    ("x^2+y^2=1", "x^{2}=1-y^2", "", True),
    ("x^2+y^2=1", "1-x^{2}-y^{2}=0", "", True),
    ("x^2+y^2=1", "x^{2}-y^{2}=1", "", False),
    ("x^2+y^2=1", "x^{2}+y^{2}=2", "", False),
    ("0.64N", "\\frac{16}{25}N", "", True),
    ("0.64N", "0.64", "", False),
    ("0.6", "\\frac{3}{5}", "", True),
    ("0.6", "60%", "", True),
    ("\\cos \\theta_1", "\\cos \\theta _1", "", True),
    ("\\frac{(n-1)!}{k!} \\frac{n}{(n-k)!}", "\\frac{n!}{k!(n-k)!}", "", True),
    ("7.8\\times 10^2", "780", "", True),
    (
        "\\Delta p\\approx -\\frac{\\hbar \\omega_{L}}{c}",
        "-\\frac{\\omega_{L} \\hbar}{c}",
        "",
        True,
    ),
    ("\\cos ^{10}(\\frac{\\pi}{10})", "0.6054", "1e-4", True),
    ("\\sqrt[3]{\\frac{5}{12}}", "(\\frac{5}{12})^{\\frac{1}{3}}", "", True),
    ("\\sqrt[3]{5}, -\\sqrt[3]{5}", "y = \\pm \\sqrt[3]{5}", "", True),
    ("7 \\times 10^{35}", "7.1 \\cdot 10^{35}", "1e34", True),
    ("7 \\times 10^{35}", "7.1 \\cdot 10^{35}", "1e33", False),
    ("7 \\times 10^{35}, 0.002", "0.001, 7.1 \\cdot 10^{35}", "1e34,1e-3", True),
    ("0.003, 5.233", "0.002, 5.234", "1e-3", True),
]

REASONED = [
    # several answers: each once, in any order
    ("1,2", "2,1", "", True),
    ("1,2", "2", "", False),
    ("1,2", "1,2,3", "", False),
    ("1,1", "1,2", "", False),
    ("1,2,3", "1, 2 \\text{ and } 3", "", True),
    ("\\{1,2,3\\}", "\\{3,2,1\\}", "", True),
    ("n \\in \\{1,2\\}", "1,2", "", True),
    # 0.45 is near enough to both, 0.8 to 0.6 only: they must be paired the right way round
    ("0.5,0.6", "0.45,0.8", "0.1,0.3", True),
    ("0.6,0.5", "0.45,0.8", "0.3,0.1", True),
    ("0.5,0.6", "0.8,0.9", "0.1,0.3", False),
    # numbers: a hundredfold is another number, unless one of them is a percentage
    ("2", "200", "", False),
    ("60\\%", "0.6", "", True),
    ("60", "60\\%", "", True),
    ("60\\%", "61\\%", "", False),
    ("60", "0.6", "", False),
    ("3.5", "3.54", "0.05", True),
    ("3.5", "3.56", "0.05", False),
    ("6.63 \\times 10^{-34}", "6.63 \\cdot 10^{-34}", "", True),
    ("6.63 \\times 10^{-34}", "0", "", False),
    ("\\frac{\\pi}{4}", "0.785", "1e-3", True),
    ("\\frac{\\pi}{4}", "0.785", "", False),
    ("90^{\\circ}", "90", "", True),
    # tuples and intervals
    ("(1,2)", "(2,1)", "", False),
    ("(1,2)", "(1,2,3)", "", False),
    ("[1,2)", "[1,2]", "", False),
    ("[1,2)", "(1,2)", "", False),
    ("(-\\infty,1)\\cup(2,3]", "(2,3]\\cup(-\\infty,1)", "", True),
    # equations and expressions
    ("2x+y=3", "4x+2y=6", "", True),
    ("2x+3y=6", "x+1.5y=3", "", True),
    ("2x+y=3", "2x+y=4", "", False),
    ("\\frac{mgR}{2}", "\\frac{1}{2} m g R", "", True),
    ("\\frac{mgR}{2}", "\\frac{1}{2} m g r", "", False),
    ("\\sqrt{\\frac{2h}{g}}", "\\frac{\\sqrt{2h}}{\\sqrt{g}}", "", True),
    ("I_0 e^{-x}", "e^{-x} I_0", "", True),
    ("I_0", "I_1", "", False),
    # words, and nothing
    ("Yes", "yes", "", True),
    ("Yes", "no", "", False),
    ("2", "", "", False),
]


@pytest.mark.parametrize(("truth", "answer", "error", "right"), PUBLISHED)
def test_published_cases(truth: str, answer: str, error: str, right: bool) -> None:
    assert score("olympiad", truth, boxed(answer), error=error) == float(right)


@pytest.mark.parametrize(("truth", "answer", "error", "right"), REASONED)
def test_reasoned_cases(truth: str, answer: str, error: str, right: bool) -> None:
    assert score("olympiad", truth, boxed(answer), error=error) == float(right)


@pytest.mark.parametrize(
    ("answer", "unit", "right"),
    [
        ("3.5", "m/s", True),
        ("3.5 m/s", "m/s", True),
        ("3.5 \\mathrm{~m/s}", "m/s", True),
        ("3.5 \\text{ m / s}", "$\\mathrm{~m} / \\mathrm{s}$", True),
        ("3.5 \\mathrm{~km/s}", "m/s", False),
        ("3.5 m/s", "", False),
        ("3.6 m/s", "m/s", False),
    ],
)
def test_units(answer: str, unit: str, right: bool) -> None:
    """The unit that the data set names may follow; another one must not."""
    assert score("olympiad", "3.5", boxed(answer), unit=unit) == float(right)


@pytest.mark.parametrize(
    ("truth", "text", "right"),
    [
        ("5", "First $\\boxed{4}$.\n\nSo the final answer is $\\boxed{5}$.", True),
        ("4", "First $\\boxed{4}$.\n\nSo the final answer is $\\boxed{5}$.", False),
        ("5", "$\\boxed{4}$? No.\n\nIt is $\\boxed{5}$.", True),
        ("1,2", "So the final answer is $\\boxed{1}$ and $\\boxed{2}$.", True),
        ("5", "So the final answer is $5$.", True),
        ("5", "5", True),
    ],
)
def test_where_the_answers_are_found(truth: str, text: str, right: bool) -> None:
    assert score("olympiad", truth, text) == float(right)


tenths = st.lists(st.integers(-9, 9), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(tenths, tenths, st.randoms(use_true_random=False))
def test_numbers_in_any_order(right: list[int], other: list[int], rng: random.Random) -> None:
    """With a tolerance of 0.3, right if the sorted numbers are near enough one by one.

    Sorted pairing is best where all tolerances are the same, so this is an independent judgement.
    """

    def text(numbers: list[int]) -> str:
        return ",".join(str(number / 10) for number in rng.sample(numbers, len(numbers)))

    near = all(abs(a - b) <= 3 for a, b in zip(sorted(right), sorted(other), strict=False))
    expected = near and len(right) == len(other)
    assert olympiad(text(right), text(other), error="0.3") == expected
    moved = [number + rng.randint(-3, 3) for number in right]
    assert olympiad(text(right), text(moved), error="0.3")
