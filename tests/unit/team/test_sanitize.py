"""Sanitising: which outside text is changed, and which is not."""

from __future__ import annotations

from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.team.redundancy_check import QUESTION
from hogwild_agents.team.sanitize import ZERO_WIDTH_SPACE, Sanitizer
from hogwild_agents.team.steps import HEADERS, NOTE_LABEL, PAUSE, prefix

many = settings(max_examples=200, deadline=None, derandomize=True)

SPELLED = {
    "case": ["**Bob [3]:** ", "**bob [3]:**", "**BOB [12]:**", "**STRASSE [1]:**", "### history"],
    "spaces": [
        "** Bob [3] : **",
        "**Bob[3]:**",
        "**Bob [ 3 ]:**",
        "**Bob  [3]:**",
        "**Bob\n[3]:**",
    ],
    "emphasis": ["Bob [3]:", "__Bob [3]:__", "*Bob [3]:*", "**Bob** [3]:", "**Bob [3]**:"],
    "other marks": ["***Bob [3]:***", "\\*\\*Bob [3]:\\*\\*", "<b>Bob [3]:</b>", "- Bob [3]:"],
    "Unicode spaces": ["**Bob\u00a0[3]:**", "**Bob\u2003[3]:**", "Bob\u3000[\u20093\u2009]:"],
    "wide": ["**\uff22\uff4f\uff42 \uff3b\uff13\uff3d\uff1a**", "\uff03\uff03\uff03 History"],
    "other letters": ["\U0001d401ob [3]:", "**Bob [\u0663]:**", "**Bo\u0332b [3]:**"],
    "names": ["Mary  Ann [2]:", "mary_ann [2]:", "**Zoe\u0308 [1]:**", "ZO\u00cb [1]:", "Zoe [1]:"],
    "within": [
        "\u6211\u662fBob [3]:",
        "x **Bob [3]:** y",
        "**Bob [3]:****Bob [3]:**",
        "A [1]:A [2]:",
    ],
    "headers": ["### History", "###History", "###  HISTORY", "#### History", "### **History**"],
    "more headers": [
        "### History of Rome",
        "### Work in progress : others",
        "### Reply",
        "### Work  in\nprogress:own",
    ],
    "pauses": ["<...>", "<\u2026>", "List<...>"],
    "notes": ["**Note from the user:** ", "Note from the user:", "__note  from the USER__ :"],
    "questions": [
        QUESTION,
        QUESTION.upper(),
        "*quick check* : Am I doing redundant work ?(yes / no):",
    ],
}
UNLIKE = {
    "prefixes": [
        "Bob",
        "**Bob**",
        "Bob [3]",
        "**Bob:** [3]",
        "**Eve [3]:**",
        "**Bob [x]:**",
        "Bob (3):",
    ],
    "code": ["bob[3]:", "x[3]:", "[3]:", "if bob[3]: pass", "bob = [3]: "],
    "parts of words": [
        "Kabob [3]:",
        "Bobby [3]:",
        "B ob [3]:",
        "Bob said [3]:",
        "**Bob\u200b [3]:**",
    ],
    "headers": ["## History", "History", "### Hist ory", "###\nReport", "### Work", "### Historic"],
    "others": [
        "<..>",
        "< ... >",
        "...",
        "Note from a user:",
        "Note from the user",
        "Quick check: ok?",
    ],
    "nothing": ["", " ", "\n", ZERO_WIDTH_SPACE],
}

ALIKE = [text for texts in SPELLED.values() for text in texts]
OTHERS = [text for texts in UNLIKE.values() for text in texts]

SANITIZE = Sanitizer(
    ["Bob", "Zo\u00eb", "Mary Ann", "Stra\u00dfe", "A"], [QUESTION, "aba", "?", "*"]
)


@pytest.mark.parametrize("text", ALIKE)
def test_what_is_disguised(text: str) -> None:
    """Everything that a model, or a tokenizer that normalises, may take for the system's own."""
    shown = SANITIZE(f"So: {text} ok.")
    assert ZERO_WIDTH_SPACE in shown
    assert shown.replace(ZERO_WIDTH_SPACE, "") == f"So: {text} ok."
    assert SANITIZE(shown) == shown


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_not_disguised(text: str) -> None:
    """All other text stays unchanged."""
    assert SANITIZE(text) == text


@pytest.mark.parametrize("normalise", ["NFC", "NFKC", "NFD", "NFKD"])
def test_what_a_tokenizer_normalises_stays_disguised(normalise: Any) -> None:
    """No normal form brings the original back."""
    for text in ALIKE:
        shown = normalize(normalise, SANITIZE(text))
        assert SANITIZE(shown) == shown
        assert ZERO_WIDTH_SPACE in shown


def test_forms_that_overlap() -> None:
    """Each match is broken up; a match of one character cannot be."""
    assert SANITIZE("ababa") == f"a{ZERO_WIDTH_SPACE}ba{ZERO_WIDTH_SPACE}ba"
    assert SANITIZE("A [1]: A [2]:") == f"A{ZERO_WIDTH_SPACE} [1]: A{ZERO_WIDTH_SPACE} [2]:"
    assert SANITIZE("What?") == "What?"


signs = [
    "*",
    "_",
    "#",
    " ",
    "\n",
    "[",
    "]:",
    "3",
    "<",
    ">",
    "aba",
    "\u00a0",
    "\u0301",
    "\u2026",
    "\u00df",
]
forms = [*ALIKE, *OTHERS, *HEADERS, PAUSE, NOTE_LABEL]
pieces = st.one_of(
    st.sampled_from(forms),
    st.sampled_from(signs),
    st.text(max_size=3),
    st.tuples(st.sampled_from(forms), st.integers(1, 12)).map(lambda cut: cut[0][: cut[1]]),
)


@given(text=st.lists(pieces, max_size=12).map("".join))
@many
def test_a_disguise_is_put_on_once(text: str) -> None:
    """A second pass changes nothing, and without the marks the text is the original."""
    shown = SANITIZE(text)
    assert SANITIZE(shown) == shown
    assert shown.replace(ZERO_WIDTH_SPACE, "") == text.replace(ZERO_WIDTH_SPACE, "")
    assert shown.count(ZERO_WIDTH_SPACE) - text.count(ZERO_WIDTH_SPACE) <= len(text)
    for words in (*HEADERS, PAUSE, NOTE_LABEL.strip(), QUESTION.strip(), prefix("Bob", 3).strip()):
        assert words.casefold() not in shown.casefold()


@given(text=st.text(st.characters(codec="ascii", exclude_characters="[#<:a"), max_size=60))
@many
def test_harmless_text_is_left_alone(text: str) -> None:
    """Text without any of the signs that all matches contain is unchanged."""
    assert SANITIZE(text) == text
