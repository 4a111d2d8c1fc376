"""Mathematics by math-verify: each verdict here was reasoned out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.evaluation.scoring.marking import boxed, score

some = settings(max_examples=40, deadline=None, derandomize=True)

MATRIX = "\\begin{pmatrix}1\\\\2\\end{pmatrix}"

EQUAL = [
    # fractions, decimals, powers, roots
    ("\\frac{1}{2}", "0.5"),
    ("\\frac{1}{2}", "\\dfrac12"),
    ("\\frac{1}{2}", "1/2"),
    ("1\\frac{1}{2}", "1.5"),
    ("5\\frac{1}{2}", "\\frac{11}{2}"),
    ("10^{-3}", "0.001"),
    ("1.5 \\times 10^3", "1500"),
    ("3\\sqrt{2}", "\\sqrt{18}"),
    ("2\\pi", "6.2831853"),
    ("25", "025"),
    # thousands, money, percent, degrees, units
    ("10,000", "10000"),
    ("10000", "10{,}000"),
    ("\\$18.90", "18.90"),
    ("33\\%", "33\\%"),
    ("\\frac{1}{2}", "50\\%"),
    ("90^\\circ", "90"),
    ("12 \\text{ cm}", "12"),
    ("12", "12\\text{ cm}^2"),
    ("12", "12 \\mathrm{~cm}"),
    # sets, intervals, tuples, several answers, matrices, complex numbers
    ("\\{1,2,3\\}", "\\{3,1,2\\}"),
    ("1,2,3", "3,2,1"),
    ("\\pm 2", "2,-2"),
    ("[1,2)", "[1,2)"),
    ("(-\\infty, 3) \\cup (5,\\infty)", "(5,\\infty)\\cup(-\\infty,3)"),
    ("-1 < x < 2", "(-1,2)"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)"),
    (MATRIX, MATRIX),
    ("6-5i", "-5i+6"),
    # expressions and equations
    ("x^2-1", "(x-1)(x+1)"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("y = 2x + 3", "y=3+2x"),
    ("f(x)=x+1", "x+1"),
    # words
    ("\\text{Evelyn}", "Evelyn"),
    ("\\text{east}", "\\text{East}"),
    ("\\text{(B)}", "B"),
]

DIFFERENT = [
    ("\\frac{1}{2}", "\\frac{2}{1}"),
    ("\\frac{1}{2}", "0.51"),
    ("\\sqrt{5}", "2.23"),
    ("\\{1,2,3\\}", "\\{1,2\\}"),
    ("1,2,3", "1,2"),
    ("(1,2)", "(2,1)"),
    ("[1,2)", "[1,2]"),
    (MATRIX, "\\begin{pmatrix}2\\\\1\\end{pmatrix}"),
    ("6-5i", "6+5i"),
    ("p-q", "q-p"),
    ("5", "x=6"),
    ("y = 2x + 3", "y=3+2z"),
    ("\\text{Evelyn}", "Eve"),
    ("\\text{(B)}", "C"),
    ("4", "\\text{four}"),
    ("33\\%", "34\\%"),
]


@pytest.mark.parametrize(("truth", "answer"), EQUAL)
def test_equal(truth: str, answer: str) -> None:
    assert score("math", truth, boxed(answer)) == 1


@pytest.mark.parametrize(("truth", "answer"), DIFFERENT)
def test_different(truth: str, answer: str) -> None:
    assert score("math", truth, boxed(answer)) == 0


@pytest.mark.parametrize(
    ("truth", "text", "right"),
    [
        ("42", "42", True),
        ("42", "The answer is 42.", True),
        ("\\frac{3}{4}", "Thus the answer is $\\frac{3}{4}$.", True),
        ("\\text{Evelyn}", "evelyn", True),
        ("42", "\\boxed{41} is wrong. \\boxed{42}", True),
        ("42", "\\boxed{42} is wrong. \\boxed{41}", False),
        ("42", "Time is up: the final answer is \\boxed{42", True),
        ("42", "First 42, then we get $43$.", False),
        ("42", "I do not know.", False),
        ("42", "", False),
    ],
)
def test_where_the_answer_is_found(truth: str, text: str, right: bool) -> None:
    """The last box; without one, what is stated."""
    assert score("math", truth, text) == float(right)


fractions = st.builds(Fraction, st.integers(-99, 99), st.integers(1, 30))


def latex(value: Fraction) -> list[str]:
    """Ways to write a fraction, one of them not in lowest terms."""
    top, bottom = value.numerator, value.denominator
    sign, top = ("-" if top < 0 else ""), abs(top)
    return [
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"{sign}{top}/{bottom}",
        f"{sign}\\dfrac{{{3 * top}}}{{{3 * bottom}}}",
        f"x = {sign}\\frac{{{top}}}{{{bottom}}}",
    ]


@some
@given(fractions, fractions, st.data())
def test_fractions(one: Fraction, other: Fraction, data: st.DataObject) -> None:
    """Right if and only if Python's own fractions are equal."""
    for value in (one, other):
        truth, answer = latex(one)[0], data.draw(st.sampled_from(latex(value)))
        assert score("math", truth, boxed(answer)) == float(one == value), (truth, answer)
