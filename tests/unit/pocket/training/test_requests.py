"""Invented functions, requests for a call of one, and results."""

from __future__ import annotations

import inspect
import json
import random
import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.pocket.tasks import make_task_list, score
from hogwild_agents.pocket.training import dialogues, requests
from hogwild_agents.pocket.training.requests import (
    SYLLABLES,
    Request,
    default_arguments,
    final_list,
    made_up,
    make_function,
    make_request,
    make_result,
    some_text,
    written_call,
)
from tests.unit.pocket.training.fitting import fits
from tests.unit.pocket.training.playing import seeds, sizes

many = settings(max_examples=400, deadline=None, derandomize=True)


def request_of(seed: int, *, called: bool = True) -> Request:
    """A request for a new function."""
    rng = random.Random(seed)
    return make_request(rng, make_function(rng), called=called)


def spelled(value: object) -> str:
    """A value as a user types it; a request may begin with a capital."""
    return (str(value).lower() if isinstance(value, bool) else str(value)).casefold()


# Functions.


@many
@given(seeds)
def test_functions(seed: int) -> None:
    """They have a name and up to four parameters with different names, and fit a chat template."""
    function = make_function(random.Random(seed))
    assert re.fullmatch(r"[A-Za-z]+(_[a-z]+)?", function.name)
    names = [parameter.name for parameter in function.parameters]
    assert len(names) == len({*names}) <= 4
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)
    assert {*function.required} <= {*names}
    tool = json.loads(json.dumps(function.tool))
    assert tool["type"] == "function"
    assert tool["function"]["name"] == function.name
    assert tool["function"]["parameters"] == function.schema
    assert [*function.schema["properties"]] == names
    for schema in function.schema["properties"].values():
        assert schema.get("enum", ["x"])
        assert schema["type"] in ("string", "integer", "number", "boolean")


def test_functions_are_of_all_kinds() -> None:
    """Without parameters and with several, without a description, with choices, with options."""
    functions = [make_function(random.Random(seed)) for seed in range(500)]
    assert {len(function.parameters) for function in functions} == {0, 1, 2, 3, 4}
    assert 30 < sum(not function.description for function in functions) < 100
    assert sum("enum" in str(function.schema) for function in functions) > 20
    assert sum(len(f.required) < len(f.parameters) for f in functions) > 50
    assert len({function.name for function in functions}) > 400


@many
@given(seeds)
def test_default_arguments(seed: int) -> None:
    """They are what is required, and nothing else."""
    function = make_function(random.Random(seed))
    arguments = default_arguments(function)
    assert fits(arguments, function.schema)
    assert [*arguments] == [*function.required]


# Requests.


@many
@given(seeds, st.booleans())
def test_arguments_are_spelled(seed: int, called: bool) -> None:
    """The request contains each of them."""
    request = request_of(seed, called=called)
    for value in request.arguments.values():
        assert spelled(value) in request.text.casefold()


@many
@given(seeds)
def test_calls_fit_their_functions(seed: int) -> None:
    """They are JSON between two marks, and fit the schema."""
    request = request_of(seed)
    match = re.fullmatch(r"<tool_call>\n(.+)\n</tool_call>", request.call)
    assert match is not None
    call = json.loads(match[1])
    assert call == {"name": request.function.name, "arguments": request.arguments}
    assert fits(call["arguments"], request.function.schema)
    assert request.call == written_call(call["name"], call["arguments"])


@many
@given(seeds)
def test_a_request_for_arguments_names_no_function(seed: int) -> None:
    """The name of a function that is not a tool is not known."""
    request = request_of(seed, called=False)
    function, parameters = request.function, request.function.schema["properties"]
    if "_" in function.name and function.name not in parameters:
        assert function.name not in request.text
    assert "tool" not in request.text


@many
@given(seeds)
def test_a_request_points_to_its_function(seed: int) -> None:
    """One of its words occurs in what a model is shown of the function."""
    request = request_of(seed)
    shown = f"{request.function.name} {request.function.description}".casefold()
    words = (request.function.name, request.function.noun, request.function.verb)
    text = request.text.casefold()
    assert any(word.casefold() in text and word.casefold() in shown for word in words)


@many
@given(seeds)
def test_a_seed_gives_the_same_request(seed: int) -> None:
    """To the letter, in every run."""
    assert request_of(seed) == request_of(seed)


def test_other_seeds_give_other_requests() -> None:
    """Hardly any occurs twice, and requests use many scripts."""
    texts = [request_of(seed).text for seed in range(1000)]
    assert len({*texts}) > 990
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in "".join(texts)}
    assert {"LATIN", "CYRILLIC", "GREEK", "HEBREW", "ARABIC"} <= scripts
    assert {"CJK", "HIRAGANA", "KATAKANA", "HANGUL"} <= scripts


# Values and results.


@pytest.mark.parametrize("long", [False, True])
def test_texts(long: bool) -> None:
    """They are not empty, and survive JSON."""
    texts = [some_text(random.Random(seed), long=long) for seed in range(500)]
    assert all(text.strip() == text != "" for text in texts)
    assert [json.loads(json.dumps(text, ensure_ascii=False)) for text in texts] == texts
    assert (sum("(a) " in text for text in texts) > 100) == long


@many
@given(seeds)
def test_results_are_passed_on(seed: int) -> None:
    """As they are, or the value in them if they are JSON."""
    result, reply = make_result(random.Random(seed), request_of(seed))
    if result != reply:
        (value,) = json.loads(result).values()
        assert reply == str(value)
    assert reply.strip() == reply != ""


@many
@given(seeds, sizes)
def test_final_lists(seed: int, size: int) -> None:
    """They solve all tasks."""
    task_list = make_task_list(seed, size)
    assert score(task_list, final_list(task_list)) == 1


# Words that must not be learnt.

FOREIGN = (
    *("magic", "weather", "francisco", "pirate", "customer", "adder", "joke", "punchline"),
    *("greeting", "setup", "boston", "celsius"),
)
"""Words of LangChain's standard tests."""


@pytest.mark.parametrize("word", FOREIGN)
def test_nothing_is_learnt_by_heart(word: str) -> None:
    """No such word is in a list or can be made of syllables."""
    for module in (requests, dialogues):
        assert word not in inspect.getsource(module).casefold()
    assert not re.fullmatch(f"(?:{'|'.join(SYLLABLES)})+", word)


@many
@given(seeds)
def test_made_up_words(seed: int) -> None:
    """Up to three syllables, or up to nine letters."""
    word = made_up(random.Random(seed))
    syllables = f"(?:{'|'.join(SYLLABLES)}){{1,3}}"
    assert re.fullmatch(f"{syllables}|[a-z]{{2,9}}", word)
    assert all(before < after for before, after in pairwise(SYLLABLES))
