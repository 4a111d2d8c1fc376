"""Numbers and letters, in boxes and in free text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.errors import InvalidAnswerFormatError
from hogwild_agents.team.answers import choice, number
from tests.unit.team.answer_texts import (
    broken,
    prose,
)

# --- numbers --------------------------------------------------------------------------------------


@given(prose, st.integers())
def test_integers_come_back(before: str, value: int) -> None:
    """Plain, with commas, and in free text."""
    for written in (str(value), f"{value:,}"):
        assert number().find(f"{before}\\boxed{{{written}}}") == value
        found = number().extract(f"{before} so the answer is {written}")
        assert found == value
        assert type(found) is int


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(value: float) -> None:
    """Python's own notation, to the last digit."""
    assert number().find(f"\\boxed{{{value!r}}}") == value


@given(st.integers(), st.integers(min_value=1))
def test_fractions_are_divided(top: int, bottom: int) -> None:
    """Both notations; a whole result is an int."""
    exact = top // bottom if top % bottom == 0 else top / bottom
    for written in (f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}"):
        found = number().find(f"\\boxed{{{written}}}")
        assert found == exact
        assert type(found) is type(exact)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("1,234.5", 1234.5),
        ("1{,}234", 1234),
        (r"1\,234", 1234),
        (r"10,\!000", 10000),
        ("-3", -3),
        ("\u22123", -3),
        ("+3", 3),
        ("3.0", 3.0),
        ("5.", 5),
        (".5", 0.5),
        ("007", 7),
        ("$12", 12),
        (r"\$12", 12),
        ("$12$", 12),
        (r"-\$1,200.50", -1200.5),
        ("$-12", -12),
        ("€5", 5),
        ("12%", 12),
        (r"12\%", 12),
        (r"90^\circ", 90),
        ("90°", 90),
        ("1/2", 0.5),
        ("6 / 3", 2),
        (r"\frac{1}{2}", 0.5),
        (r"-\dfrac{3}{4}", -0.75),
        (r"\frac{-3}{4}", -0.75),
        (r"\frac12", 0.5),
        (r"3\frac{1}{2}", 3.5),
        (r"-3\frac{1}{2}", -3.5),
        ("3.0e8", 3e8),
        ("3e8", 300000000),
        ("2E-3", 0.002),
        (r"3 \times 10^{8}", 300000000),
        (r"1.5\cdot10^{-2}", 0.015),
        (r"12\text{ cm}", 12),
        (r"12\ \mathrm{cm}^2", 12),
        (r"12~\text{m/s}", 12),
        ("12 apples", 12),
        ("12 sq. ft.", 12),
        ("12 m", 12),
        ("12cm", 12),
        (r"\text{12}", 12),
        (r"\mathbf{12}", 12),
        ("x = 12", 12),
        ("a = b = -12", -12),
        ("12x", None),
        ("2pi", None),
        (r"2\pi", None),
        (r"\sqrt{2}", None),
        ("5 million", None),
        (r"5\text{ thousand}", None),
        ("1,2", None),
        ("1, 2", None),
        ("12,34", None),
        ("1.2.3", None),
        ("5 or 6", None),
        ("3-5", None),
        ("1/0", None),
        (r"\frac{1}{0}", None),
        ("1.0e999", None),
        ("1e9999", None),
        ("inf", None),
        ("nan", None),
        ("number", None),
        ("twelve", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
)
def test_numbers_in_a_box(content: str, value: float | None) -> None:
    """All notations of a single number; several numbers, or none, are refused."""
    found = number().find(f"so \\boxed{{{content}}}")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\boxed{7}. The answer is 8", 7),
        ("The answer is 8. It took 3 of us.", 8),
        ("The final answer is $\\frac{1}{2}$, not 3.", 0.5),
        ("**Final Answer:** 42\n\nIn 2 steps.", 42),
        ("Answer: **-42**, after 3 tries", -42),
        ("the answer is 8; no, the answer is 9, by rule 2", 9),
        ("the answer is 8, as 2 + 6 = 8, so 2 x 4 = 9 apples.", 9),
        ("3 plus 4 makes 7.", 7),
        ("#### 1,250", 1250),
        ("from 10 - 3", 3),
        ("pages 3-5", 5),
        ("it is \u22125 degrees", -5),
        ("12 cats.\n\n**Bob [3]:** I agree.", 12),
        ("12, then 1/0", 12),
        ("version v1.2.3", 3),
        ("none", None),
        ("", None),
    ],
)
def test_numbers_in_free_text(text: str, value: float | None) -> None:
    """A box comes first, then the number called the answer, then the last number."""
    assert number().extract(text) == value


@given(broken)
def test_a_number_is_finite(text: str) -> None:
    """It is never a bool, whatever the text."""
    found = number().extract(text)
    assert found is None or type(found) is int or (type(found) is float and math.isfinite(found))


# --- choices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize(
    "form", ["{}", "({})", "[{}]", r"\text{{{}}}", r"\textbf{{({})}}", "${}$."]
)
def test_letters_in_a_box(letter: str, form: str) -> None:
    """Upper or lower case, bare or wrapped."""
    for written in (letter, letter.lower()):
        assert choice().find(f"\\boxed{{{form.format(written)}}}") == letter


@pytest.mark.parametrize(
    ("content", "letter"),
    [
        ("(B) 12", "B"),
        ("b. Paris", "B"),
        (r"\text{(B) } 12", "B"),
        ("(A) and (C)", None),
        ("A, B", None),
        ("AB", None),
        ("E", None),
        ("Bob", None),
        ("letter", None),
    ],
)
def test_more_than_a_letter_in_a_box(content: str, letter: str | None) -> None:
    """The text of the option may follow its letter; a second letter may not."""
    assert choice().find(f"\\boxed{{{content}}}") == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{A}. The answer is B", "A"),
        ("The answer is (B).", "B"),
        ("The answer is (b).", "B"),
        ("the correct option is C, I think", "C"),
        ("The best choice is **D**", "D"),
        ("**Answer:** B", "B"),
        ("**Answer**: B", "B"),
        ("The answer is option C because A is not.", "C"),
        (r"the answer is \(\text{B}\)", "B"),
        ("the answer is A; no, the answer is B\n\nC", "B"),
        ("the answer is a number", None),
        ("The answer is Bob", None),
        ("Let me think.\n\n**C**\n", "C"),
        ("So it must be\n(d).", "D"),
        ("A is wrong, B is right", None),
        ("", None),
    ],
)
def test_letters_in_free_text(text: str, letter: str | None) -> None:
    """A box comes first, then the letter called the answer, then a lone letter on the last line."""
    assert choice().extract(text) == letter


def test_the_letters_may_be_others() -> None:
    """Only the given letters count, and they come back in upper case."""
    assert choice("yn").find(r"\boxed{y}") == "Y"
    assert choice("YN").find(r"\boxed{A}") is None
    assert choice("KS").extract("\u212a") is None  # the sign of the kelvin, which looks like K


@pytest.mark.parametrize("letters", ["", "A", "aA", "A1", "ÄB"])
def test_bad_letters_are_refused(letters: str) -> None:
    """Fewer than two, repeated, or not ASCII letters."""
    with pytest.raises(InvalidAnswerFormatError, match="two ASCII letters"):
        choice(letters)
