"""Answers as JSON, as programs, and as found by a pattern or a function."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.errors import InvalidAnswerFormatError
from hogwild_agents.team.answers import code, custom, json_answer, pattern
from tests.unit.team.answer_texts import (
    json_values,
    prose,
)

# --- JSON -----------------------------------------------------------------------------------------


@given(prose, json_values, st.sampled_from([None, 2]), prose)
def test_json_comes_back(before: str, value: Any, indent: int | None, after: str) -> None:
    """From a fenced block with any text around it, and as the finisher writes it."""
    written = f"{json.dumps(value, indent=indent)}\n```"
    text = f"{before}\n```json\n{written}\n{after}"
    kind = json_answer()
    assert kind.find(text) == kind.extract(text) == kind.extract(kind.prefix + written) == value
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
    """A fenced value comes first, then the last value with everything around it."""
    assert json_answer().extract(text) == value


def test_json_behind_hostile_text_is_found() -> None:
    """The search goes backwards, so broken text before the value costs nothing."""
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
    """Final blocks come first, then Python, then unmarked; the last that compiles counts."""
    assert code().extract(text) == program


def test_a_step_states_a_program_only_as_final() -> None:
    """Workers write many blocks before the final one."""
    assert code().find("```python\nx = 1\n```") is None
    assert code().find("```python final\nx = 1") is None
    assert code().find("```python final\nx = 1\n```\n```python\nx = 2\n```") == "x = 1\n"


def test_code_is_not_run_and_does_not_warn(capsys: pytest.CaptureFixture[str]) -> None:
    """It is only compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = "```python final\nprint('\\d' is 1)\nraise SystemExit\n```"
        assert code().find(text) is not None
    assert capsys.readouterr().out == ""


def test_when_code_is_whole() -> None:
    """Once its fence has closed, on a line of its own."""
    program = "x = 1\n\n\ny = '```'\n# ```\n"
    assert not code().complete(program)
    assert code().complete(program + "```")
    assert code().extract(code().prefix + program) == program
    assert code().extract(code().prefix + program + "```\n") == program


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
    assert kind.find("a=11 b=22.") == kind.extract("a=11 b=22.") == answer


@pytest.mark.parametrize("regex", ["(", "a{99999999999999999999}", "(" * 9999])
def test_a_bad_regex_is_refused(regex: str) -> None:
    """The error says what to do."""
    with pytest.raises(InvalidAnswerFormatError, match="Correct the regex"):
        pattern(regex)


def test_custom_passes_on_what_the_function_raises() -> None:
    """The function is the user's own, and serves as the strict and the lenient rule."""
    assert custom(len).find("four") == custom(len).extract("four") == 4
    with pytest.raises(ValueError, match="invalid literal"):
        custom(int).extract("x")


def test_a_free_answer_is_whole_with_its_line() -> None:
    """`42` may still become `421`."""
    for kind in (pattern(r"\d+"), custom(lambda text: text.strip() or None)):
        assert not kind.complete("\n42")
        assert kind.complete("\n42\n")
    assert not pattern(r"\d+").complete("x\n")
