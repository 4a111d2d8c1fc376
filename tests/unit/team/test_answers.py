"""Answers are found in good text, in broken text and in hostile text."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.errors import HogwildError, InvalidAnswerFormatError
from hogwild_agents.team.answers import (
    AnswerFormat,
    answer_format,
    boxed,
    choice,
    code,
    json_answer,
    number,
    pattern,
)
from tests.unit.team.answer_texts import (
    FORMATS,
    broken,
    is_answer,
    nested,
    prose,
)

# --- boxes ----------------------------------------------------------------------------------------


@given(prose, nested.filter(is_answer), prose)
def test_a_box_gives_back_what_was_put_in(before: str, content: str, after: str) -> None:
    """Whatever its braces, and whatever text is around it."""
    text = f"{before}\\boxed{{{content}}}{after}"
    assert boxed().find(text) == boxed().extract(text) == content.strip()


@given(st.lists(st.integers() | st.sampled_from(["", "x", "{", "answer"]), min_size=1))
def test_the_last_valid_box_wins(contents: list[Any]) -> None:
    """Boxes that are empty or open, or that `parse` refuses, do not count."""
    text = " ".join(f"\\boxed{{{content}}}" for content in contents)
    numbers = [content for content in contents if isinstance(content, int)]
    assert boxed(int).find(text) == (numbers[-1] if numbers else None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{a} or \boxed{b}", "b"),
        (r"\boxed {a}", "a"),
        ("\\boxed\n{a}", "a"),
        (r"\fbox{a}", "a"),
        (r"\\boxed{a}", "a"),
        (r"line \\\boxed{a}", "a"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),
        (r"\boxed{\boxed{a}}", "a"),
        (r"\boxed{x = \fbox{a}}", "a"),
        (r"{ \boxed{a}", "a"),
        (r"} \boxed{a} }", "a"),
        (r"\boxed{a} then \boxed{b", "a"),
        (r"\boxed{a then \boxed{b}", "b"),
        (r"\boxed{a} as `\boxed{answer}`", "a"),
        (r"\boxed{a} \boxed{} \boxed{ } \boxed{...} \boxed{\ldots}", "a"),
        (r"\boxed{a} \boxed{Your answer here} \boxed{\text{answer}}", "a"),
        (r"\boxed a", None),
        (r"\boxedx{a}", None),
        (r"boxed{a}", None),
        (r"\boxed{answer}", None),
        ("", None),
    ],
)
def test_boxes(text: str, answer: str | None) -> None:
    """Valid and invalid notations."""
    assert boxed().find(text) == boxed().extract(text) == answer


def test_an_open_box_counts_only_where_there_is_no_other() -> None:
    """The early finisher may run out of tokens, or end a paragraph, before its box closes."""
    assert boxed().extract("\\boxed{42\n\nWait") == "42"
    assert boxed().extract("\\boxed{41} \\boxed{42") == "41"
    assert boxed().find("\\boxed{42") is None


@pytest.mark.parametrize("error", [ValueError, TypeError, ZeroDivisionError, OverflowError])
def test_what_parse_refuses_is_not_valid(error: type[Exception]) -> None:
    """After an error about the value, the search goes on to the box before."""

    def parse(content: str) -> str:
        if content == "b":
            raise error
        return content * 2

    assert boxed(parse).find(r"\boxed{a} \boxed{b}") == "aa"


def test_other_errors_of_parse_are_passed_on() -> None:
    """They are the caller's own mistakes."""
    known: dict[str, str] = {}
    with pytest.raises(KeyError):
        boxed(known.__getitem__).find(r"\boxed{a}")


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("", False),
        ("4", False),
        ("\n\n", False),
        ("\n\n4", False),
        ("4}", True),
        ("4}$.", True),
        ("}", True),
        ("4} {", True),
        (r"\frac{1}{2}", False),
        (r"\frac{1}{2}}", True),
        (r"\{4\}", False),
        ("4\n", False),
        ("4\n \n", True),
    ],
)
def test_when_a_box_is_whole(written: str, whole: bool) -> None:
    """Once the brace of the opening has closed, or at a blank line after something."""
    for kind in (boxed(), number(), choice()):
        assert kind.complete(written) is whole


# --- all formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
@given(text=broken)
def test_no_text_raises(kind: AnswerFormat, text: str) -> None:
    """Whatever a model writes. An answer by the strict rule is one by the lenient rule too."""
    assert kind.complete(text) in (True, False)
    if (answer := kind.find(text)) is not None:
        assert kind.extract(text) == answer


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_the_early_finisher_opens_an_answer(kind: AnswerFormat) -> None:
    """It follows a blank line and ends where the answer begins."""
    assert kind.opening.startswith("\n\nTime is up")
    assert "final" in kind.opening
    assert kind.opening.endswith(kind.prefix)
    assert kind.instruction
    assert not kind.complete("")
    assert kind.find(kind.opening) is None or kind.name == "custom"


@pytest.mark.parametrize(
    ("kind", "written", "answer"),
    [
        (boxed(), "x{y}}", "x{y}"),
        (number(), "1,000}", 1000),
        (number(), "12 apples\n\n", 12),
        (choice(), "c}", "C"),
        (json_answer(), '{"a": 1}\n```', {"a": 1}),
        (json_answer(), '{"a": 1} That is', {"a": 1}),
        (code(), "x = 1\n```", "x = 1\n"),
        (code(), "```python\nx = 1\n```", "x = 1\n"),
        (pattern("[a-z]+"), "abc\n", "abc"),
    ],
)
def test_what_the_early_finisher_wrote_is_read(
    kind: AnswerFormat, written: str, answer: Any
) -> None:
    """`extract(prefix + written)` is the answer."""
    assert kind.extract(kind.prefix + written) == answer


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "text",
    [
        *(
            piece * 20_000
            for piece in ("\\boxed{", "\\", "{", "[", '{"a":', '["', "```\n", "1 ", "\n ")
        ),
        "\\boxed{" * 20_000 + "}" * 20_000,
        "\\boxed{1" + " " * 20_000 + "3}",
        "answer is" + " " * 20_000 + "x",
        "\\frac{1}{" * 20_000 + "}",
        "1,234" + ",234" * 20_000 + "5",
        "[" * 900 + "1," * 20_000 + "]",
        "```python final\n" + "-" * 50_000 + "1\n```",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_text_takes_no_longer(kind: AnswerFormat, text: str) -> None:
    """A quadratic search would take minutes on these."""
    begun = time.thread_time()  # CPU time: a busy machine makes no difference
    kind.find(text)
    kind.extract(text)
    kind.complete(text)
    assert time.thread_time() - begun < 5


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["boxed", "number", "choice", "json", "code"])
def test_formats_have_names(name: str) -> None:
    """A format knows its own name."""
    assert answer_format(name).name == name


def test_a_format_or_a_function_is_taken_as_it_is() -> None:
    """So callers may pass on their own arguments."""
    kind = choice("XY")
    assert answer_format(kind) is kind
    assert answer_format(len).extract("four") == 4


@pytest.mark.parametrize("given_format", ["Boxed", None])
def test_other_formats_are_refused(given_format: Any) -> None:
    """The error lists the names; it is the package's own and a ValueError."""
    with pytest.raises(
        InvalidAnswerFormatError, match="boxed, number, choice, json, code"
    ) as error:
        answer_format(given_format)
    assert isinstance(error.value, HogwildError)
    assert isinstance(error.value, ValueError)
