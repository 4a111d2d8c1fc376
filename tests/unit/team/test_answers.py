"""Answers are found in good text, in broken text and in hostile text."""

from __future__ import annotations

import json
import math
import time
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.engine.errors import HogwildError
from hogwild_agents.team.answers import (
    AnswerFormat,
    InvalidAnswerFormatError,
    answer_format,
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
"""Any text, and text made of what the searches look for."""

prose = st.text(st.characters(exclude_characters="{}\\`~", exclude_categories=["Cs"]))
"""Text that holds no mark of any format."""

nested = st.recursive(
    st.text(st.characters(exclude_characters="{}\\")) | st.sampled_from(["\\{", "\\}", "\\\\"]),
    lambda inner: st.lists(inner | inner.map("{{{}}}".format), max_size=4).map("".join),
)
"""Text whose braces are balanced, but for escaped ones."""

json_values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def is_answer(content: str) -> bool:
    """Whether a box with this content holds an answer, not the place of one."""
    return content.strip() not in ("", "...", "…")


# --- boxes ----------------------------------------------------------------------------------------


@given(prose, nested.filter(is_answer), prose)
def test_a_box_gives_back_what_was_put_in(before: str, content: str, after: str) -> None:
    """Whatever its braces, and whatever stands around it."""
    text = f"{before}\\boxed{{{content}}}{after}"
    assert boxed().found(text) == boxed().extract(text) == content.strip()


@given(st.lists(st.integers() | st.sampled_from(["", "x", "{", "answer"]), min_size=1))
def test_the_last_valid_box_wins(contents: list[Any]) -> None:
    """Boxes that are empty, not closed or that `parse` refuses count for nothing."""
    text = " ".join(f"\\boxed{{{content}}}" for content in contents)
    numbers = [content for content in contents if isinstance(content, int)]
    assert boxed(int).found(text) == (numbers[-1] if numbers else None)


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
    """Each way to write one, and each way to spoil it."""
    assert boxed().found(text) == boxed().extract(text) == answer


def test_an_open_box_counts_only_where_there_is_no_other() -> None:
    """The early finisher may run out of tokens, or end a paragraph, before its box closes."""
    assert boxed().extract("\\boxed{42\n\nWait") == "42"
    assert boxed().extract("\\boxed{41} \\boxed{42") == "41"
    assert boxed().found("\\boxed{42") is None


@pytest.mark.parametrize("error", [ValueError, TypeError, ZeroDivisionError, OverflowError])
def test_what_parse_refuses_is_not_valid(error: type[Exception]) -> None:
    """Errors about the value send the search on to the box before."""

    def parse(content: str) -> str:
        if content == "b":
            raise error
        return content * 2

    assert boxed(parse).found(r"\boxed{a} \boxed{b}") == "aa"


def test_other_errors_of_parse_are_passed_on() -> None:
    """They are the caller's own mistakes."""
    known: dict[str, str] = {}
    with pytest.raises(KeyError):
        boxed(known.__getitem__).found(r"\boxed{a}")


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


# --- numbers --------------------------------------------------------------------------------------


@given(prose, st.integers())
def test_integers_come_back(before: str, value: int) -> None:
    """Plain, with commas, and in free text."""
    for written in (str(value), f"{value:,}"):
        assert number().found(f"{before}\\boxed{{{written}}}") == value
        found = number().extract(f"{before} so the answer is {written}")
        assert found == value
        assert type(found) is int


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(value: float) -> None:
    """As Python writes them, to the last digit."""
    assert number().found(f"\\boxed{{{value!r}}}") == value


@given(st.integers(), st.integers(min_value=1))
def test_fractions_are_divided(top: int, bottom: int) -> None:
    """In both ways to write one; a whole result is an int."""
    exact = top // bottom if top % bottom == 0 else top / bottom
    for written in (f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}"):
        found = number().found(f"\\boxed{{{written}}}")
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
    """Each way to write a number alone; what is more than one, or none, is refused."""
    found = number().found(f"so \\boxed{{{content}}}")
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
    """A box first, then what is called the answer, then the last number."""
    assert number().extract(text) == value


@given(broken)
def test_a_number_is_finite(text: str) -> None:
    """And never a bool, whatever the text."""
    found = number().extract(text)
    assert found is None or type(found) is int or (type(found) is float and math.isfinite(found))


# --- choices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize(
    "form", ["{}", "({})", "[{}]", r"\text{{{}}}", r"\textbf{{({})}}", "${}$."]
)
def test_letters_in_a_box(letter: str, form: str) -> None:
    """In either case, bare or wrapped."""
    for written in (letter, letter.lower()):
        assert choice().found(f"\\boxed{{{form.format(written)}}}") == letter


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
    assert choice().found(f"\\boxed{{{content}}}") == letter


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
    """A box first, then what is called the answer, then a lone letter on the last line."""
    assert choice().extract(text) == letter


def test_the_letters_may_be_others() -> None:
    """Only those given count, and they come back in upper case."""
    assert choice("yn").found(r"\boxed{y}") == "Y"
    assert choice("YN").found(r"\boxed{A}") is None
    assert choice("KS").extract("\u212a") is None  # the sign of the kelvin, which looks like K


@pytest.mark.parametrize("letters", ["", "A", "AA", "aA", "A1", "A B", "ÄB", "ß", "ﬁ"])
def test_bad_letters_are_refused(letters: str) -> None:
    """Fewer than two, repeated, or not ASCII letters."""
    with pytest.raises(InvalidAnswerFormatError, match="two ASCII letters"):
        choice(letters)


# --- JSON -----------------------------------------------------------------------------------------


@given(prose, json_values, st.sampled_from([None, 2]), prose)
def test_json_comes_back(before: str, value: Any, indent: int | None, after: str) -> None:
    """From a fenced block, with anything around it; and as the finisher writes it."""
    written = f"{json.dumps(value, indent=indent)}\n```"
    text = f"{before}\n```json\n{written}\n{after}"
    kind = json_answer()
    assert kind.found(text) == kind.extract(text) == kind.extract(kind.lead + written) == value
    assert kind.complete(written)


@given(st.lists(json_values) | st.dictionaries(st.text(), json_values))
def test_json_comes_back_without_a_fence(value: Any) -> None:
    """An object or a list in prose is found whole, whatever its strings hold."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert json_answer().extract(f"[ {{ So it is {text}, I think.") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```', {"a": 2}),
        ('```json\n{"a": 1}\n```\n```json\n{"a": \n```', {"a": 1}),
        ('```json\n{"a": 1}\n```\n{"a": 2}', {"a": 1}),
        ('```\n{"a": 1}\n```', {"a": 1}),
        ('{"a": 1} and {"a": {"b": [2]}}', {"a": {"b": [2]}}),
        ('{"a": "x } ] y [1] {"}', {"a": "x } ] y [1] {"}),
        ('{"a": 1} }', {"a": 1}),
        ("[1, [2], [3]] and [4", [1, [2], [3]]),
        ("[1]\n\n**Bob [3]:** done", [1]),
        ("{a: 1}", None),
        ("[NaN]", None),
        ("```json\nnull\n```", None),
        ("```json\n5", 5),
        ("", None),
    ],
)
def test_json_in_any_text(text: str, value: Any) -> None:
    """Fenced first, then the last value with all that is around it."""
    assert json_answer().extract(text) == value


def test_json_behind_hostile_text_is_found() -> None:
    """The search goes backwards, so that what is broken before it costs nothing."""
    assert json_answer().extract("[" * 100_000 + ' {"a": {"b": 1}}') == {"a": {"b": 1}}


def test_when_json_is_whole() -> None:
    """Once its fence has closed."""
    assert not json_answer().complete('{"a": 1')
    assert not json_answer().complete('{"a": "```"}')
    assert json_answer().complete('{"a": 1}\n```')


# --- code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python final\nx = 1\n```", "x = 1\n"),
        ("```python final\nx = 1\n```\n```python\nx = 2\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```python\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 1\n```\n```python\nx = \n```", "x = 1\n"),
        ("```python\nx = 1\n```\nOutput:\n```\n1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```", "x = 1\n"),
        ("```Python3 \nx = 1\n```", "x = 1\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("1. so\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("```python\nx = 1\n```python\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 1\n```\n```python\nx = 2", "x = 1\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("```bash\nls\n```", None),
        ("inline ```x = 1``` code", None),
        ("```python\n# your code here\n```", None),
        ("```python\n...\n```", None),
        ("```python\n```", None),
        ("```python\nreturn 1\n```", None),
        ("```python\nprint 1\n```", None),
        ("```python\n\0\n```", None),
        ("```python\n" + "(" * 5000 + "\n```", None),
        ("```python\nx = 1\n" + "# more\n" * 50_000 + "```", None),
        ("", None),
    ],
)
def test_programs(text: str, program: str | None) -> None:
    """Marked as final, then as Python, then not at all; the last of them that compiles."""
    assert code().extract(text) == program


def test_a_step_states_a_program_only_as_final() -> None:
    """Workers write many blocks on their way."""
    assert code().found("```python\nx = 1\n```") is None
    assert code().found("```python final\nx = 1") is None
    assert code().found("```python final\nx = 1\n```\n```python\nx = 2\n```") == "x = 1\n"


def test_code_is_not_run_and_does_not_warn(capsys: pytest.CaptureFixture[str]) -> None:
    """It is only compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = "```python final\nprint('\\d' is 1)\nraise SystemExit\n```"
        assert code().found(text) is not None
    assert capsys.readouterr().out == ""


def test_when_code_is_whole() -> None:
    """Once its fence has closed, on a line of its own."""
    program = "x = 1\n\n\ny = '```'\n# ```\n"
    assert not code().complete(program)
    assert code().complete(program + "```")
    assert code().extract(code().lead + program) == program
    assert code().extract(code().lead + program + "```\n") == program


# --- anything else --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regex", "answer"),
    [
        (r"\d+", "22"),
        (r"(\w)=(\d+)", "b"),
        (r"(\w)=(?P<answer>\d+)", "22"),
        (r"(\w)=(z)?", "b"),
        (r"(\w)=(?P<answer>1+)?", "11"),
        (r"\d*", "22"),
        (r"q", None),
    ],
)
def test_the_last_match_is_the_answer(regex: str, answer: str | None) -> None:
    """The group called answer, else the first, else all; an empty one is none."""
    kind = pattern(regex)
    assert kind.found("a=11 b=22.") == kind.extract("a=11 b=22.") == answer


@pytest.mark.parametrize(
    "regex", ["(", "[", "*", "a{99999999999999999999}", "(?P<1>a)", "(" * 9999]
)
def test_a_bad_regex_is_refused(regex: str) -> None:
    """At once, and by name."""
    with pytest.raises(InvalidAnswerFormatError, match="Mend the regex"):
        pattern(regex)


def test_custom_passes_on_what_the_function_raises() -> None:
    """It is the user's own; both rules are the same."""
    assert custom(len).found("four") == custom(len).extract("four") == 4
    with pytest.raises(ValueError, match="invalid literal"):
        custom(int).extract("x")


def test_a_free_answer_is_whole_with_its_line() -> None:
    """`42` may still become `421`."""
    for kind in (pattern(r"\d+"), custom(lambda text: text.strip() or None)):
        assert not kind.complete("\n42")
        assert kind.complete("\n42\n")
    assert not pattern(r"\d+").complete("x\n")


# --- all formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
@given(text=broken)
def test_no_text_raises(kind: AnswerFormat, text: str) -> None:
    """Whatever a model writes; and what is found strictly is found leniently as well."""
    assert kind.complete(text) in (True, False)
    if (found := kind.found(text)) is not None:
        assert kind.extract(text) == found


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_the_early_finisher_opens_an_answer(kind: AnswerFormat) -> None:
    """After a blank line, with words, and up to where the answer begins."""
    assert kind.opening.startswith("\n\nTime is up")
    assert "final" in kind.opening
    assert kind.opening.endswith(kind.lead)
    assert kind.instruction
    assert not kind.complete("")
    assert kind.found(kind.opening) is None or kind.name == "custom"


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
    """`extract(lead + written)` is the answer."""
    assert kind.extract(kind.lead + written) == answer


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
    begun = time.perf_counter()
    kind.found(text)
    kind.extract(text)
    kind.complete(text)
    assert time.perf_counter() - begun < 5


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["boxed", "number", "choice", "json", "code"])
def test_formats_have_names(name: str) -> None:
    """And know them."""
    assert answer_format(name).name == name


def test_a_format_or_a_function_is_taken_as_it_is() -> None:
    """So that callers may pass on what they were given."""
    kind = choice("XY")
    assert answer_format(kind) is kind
    assert answer_format(len).extract("four") == 4


@pytest.mark.parametrize("given_format", ["", "Boxed", "xml", None, 3])
def test_other_formats_are_refused(given_format: Any) -> None:
    """With the names there are; the error is the package's own and a ValueError."""
    with pytest.raises(
        InvalidAnswerFormatError, match="boxed, number, choice, json, code"
    ) as error:
        answer_format(given_format)
    assert isinstance(error.value, HogwildError)
    assert isinstance(error.value, ValueError)
