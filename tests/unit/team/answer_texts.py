"""Texts in which the tests look for answers."""

from __future__ import annotations

from hypothesis import strategies as st

from hogwild_agents.team.answers import (
    boxed,
    choice,
    code,
    custom,
    json_answer,
    number,
    pattern,
)

FORMATS = [
    boxed(),
    boxed(int),
    number(),
    choice(),
    json_answer(),
    code(),
    pattern(r"x=(\d*)"),
    custom(lambda text: text[:3] or None),
]

PIECES = [
    *(
        "\\boxed{",
        "\\boxed",
        "\\fbox {",
        "{",
        "}",
        "\\{",
        "\\",
        "\\frac{1}{2}",
        "\\text{",
        "$",
        ".",
    ),
    *("**Bob [3]:** ", "answer is ", "B", "(a)", "-3", "1,234", "1e999", "1/0", "=", "x=7", " "),
    *("```", "```json\n", "```python final\n", "~~~", "\n", "\n\n", '{"a": 1}', "[", "]", '"', ":"),
    *("x = 1\n", "\0", "\ud800", "é", "٣", "answer", "...", "NaN"),
]
broken = st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
"""Any text, and text made of the parts that the searches look for."""

prose = st.text(st.characters(exclude_characters="{}\\`~", exclude_categories=["Cs"]))
"""Text that holds no mark of any format."""

nested = st.recursive(
    st.text(st.characters(exclude_characters="{}\\")) | st.sampled_from(["\\{", "\\}", "\\\\"]),
    lambda inner: st.lists(inner | inner.map("{{{}}}".format), max_size=4).map("".join),
)
"""Text whose braces are balanced, except for escaped ones."""

json_values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def is_answer(content: str) -> bool:
    """Whether a box with this content holds an answer and not a placeholder."""
    return content.strip() not in ("", "...", "…")
