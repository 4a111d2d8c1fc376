"""The tokenizer: it encodes any text, and digits and letters are single tokens."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hogwild_agents.names import NAMES
from hogwild_agents.pocket.tasks import KINDS, Task, make_task
from hogwild_agents.pocket.tokenizer import (
    CONTEXT,
    END,
    SPECIAL,
    WORDS,
    build_tokenizer,
)
from hogwild_agents.pocket.training.dialogues import make_dialogue
from hogwild_agents.pocket.training.requests import make_function, make_request
from hogwild_agents.team import steps
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.pocket.training.playing import seeds, team, tokenizer

many = settings(max_examples=200, deadline=None, derandomize=True)
TOKENIZER = build_tokenizer()
SHOWN = {index: str(TOKENIZER.decode([index])) for index in range(len(TOKENIZER))}

texts = st.text(max_size=40) | st.lists(
    st.sampled_from(
        [*WORDS, *SPECIAL, *string.digits, "a", "Z", "é", "漢", "🙂", " ", "\r\n", "\0"]
    ),
    max_size=12,
).map("".join)


def ids(text: str, with_tokenizer: Any = TOKENIZER) -> list[int]:
    """The ids of a text."""
    return list(with_tokenizer.encode(text, add_special_tokens=False))


def pieces(text: str) -> list[str]:
    """The tokens of a text."""
    return [SHOWN[index] for index in ids(text)]


@many
@given(texts)
@example(" a , b . don 't n 't !  ")
def test_round_trip(text: str) -> None:
    """Any text is decoded as it was encoded."""
    assert TOKENIZER.decode(ids(text)) == text
    assert tokenizer().decode(tokenizer().encode(text)) == text


def test_every_token_is_of_use() -> None:
    """No word occurs twice, is hidden by a longer one, or is missing."""
    assert len(set(WORDS)) == len(WORDS)
    for word in WORDS:
        assert pieces(word) == [word]
    assert len(TOKENIZER) == 256 + len([w for w in WORDS if len(w.encode()) > 1]) + len(SPECIAL)


@pytest.mark.parametrize(
    "word",
    [
        *(header + "\n\n" for header in steps.HEADERS),
        *(steps.PAUSE + "\n\n", QUESTION, steps.NOTE_LABEL, ".\n\n", "}.\n\n", "\\boxed{", " ..."),
        *chain(NAMES, ("(a) ", "(h)", ", (c) ", "**", " [", "]:** ", ", so ", "I take ", "yes, ")),
    ],
)
def test_words(word: str) -> None:
    """They are one token each, also between other words."""
    assert len(ids(word)) == 1
    assert ids(f"_{word}_") == [*ids("_"), *ids(word), *ids("_")]


@many
@given(st.sampled_from(WORDS), st.sampled_from(string.ascii_letters + string.digits))
def test_words_inside_other_words(word: str, sign: str) -> None:
    """A word that begins or ends with a letter is not matched there."""
    if word[0].isalpha():
        assert word not in pieces(sign + word)
    if word[-1].isalpha():
        assert word not in pieces(word + sign)


def test_made_up_words_are_spelled() -> None:
    """Even if they contain words of the vocabulary."""
    assert pieces("kino, await, tools") == [*"kino", ", ", *"await", ", ", *"tools"]
    assert pieces("nonestring") == [*"nonestring"]
    assert pieces("call_tool") == ["call", "_", "tool"]


def test_prefixes() -> None:
    """Name, number and signs are separate tokens."""
    assert pieces(steps.prefix("Alice", 12)) == ["**", "Alice", " [", "1", "2", "]:** "]


# Digits and letters.

tasks = st.builds(
    lambda seed, kind: make_task(random.Random(seed), kind), seeds, st.sampled_from([*KINDS])
)


def words_of(text: str) -> list[str]:
    """The tokens of more than one character that hold digits or lower-case letters."""
    return [piece for piece in pieces(text) if len(piece) > 1 and re.search("[a-z0-9]", piece)]


@many
@given(tasks)
def test_what_a_user_types(task: Task) -> None:
    """Digits and letters of made-up words are single tokens, except a lone `a`."""
    phrases = {"largest of ", "smallest of ", "reverse ", "sort ", "count ", " in "}
    assert set(words_of(task.text)) <= phrases | {"compare ", " and ", "a "}
    seen = pieces(f"Solve these tasks.\n(a) {task.text}\n(b) ")
    assert seen == ["Solve these tasks.", "\n", "(a) ", *pieces(task.text), "\n", "(b) "]


@many
@given(tasks)
def test_answers(task: Task) -> None:
    """They are spelled sign by sign."""
    assert pieces(task.answer) == [*task.answer]


def test_sums_and_words() -> None:
    """The model sees each sign that it calculates with."""
    assert pieces("4731 + 2869") == [*"4731", " + ", *"2869"]
    assert pieces("reverse nirok") == ["reverse ", *"nirok"]
    assert pieces("90-7=83 borrow") == [*"90-7=83", " borrow"]
    assert pieces("count o in kono: ko1no2") == ["count ", "o", " in ", *"kono", ": ", *"ko1no2"]


# Files, templates and control tokens.


def test_saved_and_loaded(tmp_path: Path) -> None:
    """Transformers loads the same tokenizer."""
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)

    @many
    @given(texts)
    def same(text: str) -> None:
        assert ids(text, loaded) == ids(text)
        assert loaded.decode(ids(text)) == text

    same()
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.model_max_length == CONTEXT
    assert (loaded.eos_token, loaded.pad_token) == (END, END)
    assert loaded.get_vocab() == TOKENIZER.get_vocab() == build_tokenizer().get_vocab()


def test_ids_are_dense() -> None:
    """Every id below the vocabulary's size is a token; the special ones are last."""
    assert sorted(TOKENIZER.get_vocab().values()) == [*range(len(TOKENIZER))]
    assert [*map(SHOWN.get, range(len(TOKENIZER) - len(SPECIAL), len(TOKENIZER)))] == [*SPECIAL]


def test_template() -> None:
    """Each role has its mark, and the team's mark ends the prompt."""
    messages = [
        {"role": "system", "content": "Alice, Bob"},
        {"role": "user", "content": "2 + 3"},
        {"role": "assistant", "content": "5"},
        {"role": "tool", "content": "x"},
    ]
    rendered = TOKENIZER.apply_chat_template(messages, tokenize=False)
    shown = "<|system|>Alice, Bob<|end|><|user|>2 + 3<|end|><|team|>5<|end|><|result|>x<|end|>"
    assert rendered == shown
    prompt = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == shown + "<|team|>"
    assert [SHOWN[i] for i in tokenizer().prompt(messages[:2])] == [
        *("<|system|>", "Alice", ", ", "Bob", "<|end|>"),
        *("<|user|>", "2", " + ", "3", "<|end|>", "<|team|>"),
    ]


def tool(name: str, parameters: dict[str, Any] | None = None, **more: str) -> dict[str, Any]:
    """A tool."""
    schema = {} if parameters is None else {"parameters": parameters}
    return {"type": "function", "function": {"name": name, **more, **schema}}


def shown(*tools: dict[str, Any]) -> list[str]:
    """The lines before the conversation; both ways to make the prompt agree."""
    messages = [{"role": "user", "content": "x"}]
    prompt = tokenizer().prompt(messages, tools=tools)
    rendered: Any = TOKENIZER.apply_chat_template(
        messages, tools=[*tools], add_generation_prompt=True, return_dict=False
    )
    assert prompt == rendered
    text = tokenizer().decode(prompt)
    assert text.startswith("<|tools|>")
    assert text.endswith("\n<|end|><|user|>x<|end|><|team|>")
    return text.removeprefix("<|tools|>").split("\n<|end|>")[0].splitlines()


def test_tools_are_shown_as_signatures() -> None:
    """On one line each: types, choices, optional parameters and the description."""
    properties = {"word": {"type": "string"}, "n": {"type": "integer"}}
    both = {"type": "object", "properties": properties, "required": ["word"]}
    one = {"type": "object", "properties": {"unit": {"type": "string", "enum": ["k", "é"]}}}
    assert shown(
        tool("find", both, description="Finds a word."),
        tool("set_unit", one | {"required": ["unit"]}),
        tool("ping"),
        tool("pong", {"type": "object", "properties": {}}, description="Says pong"),
    ) == [
        "find(word: string, n?: integer): Finds a word.",
        'set_unit(unit: ["k", "é"])',
        "ping()",
        "pong(): Says pong",
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"type": ["string", "null"]},
    ],
)
def test_other_types_are_shown_as_json(schema: dict[str, Any]) -> None:
    """Types without a name are shown as their schema."""
    (line,) = shown(tool("f", {"type": "object", "properties": {"x": schema}}))
    assert line.startswith("f(x?: {")
    assert json.loads(line.removeprefix("f(x?: ").removesuffix(")")) == schema


@many
@given(seeds)
def test_conversations_about_tools(seed: int) -> None:
    """A team's prompt, which encodes foreign texts separately, equals the template's."""
    dialogue = make_dialogue(random.Random(seed))
    messages = dialogue.messages
    tools: list[Any] = [*dialogue.tools]
    rendered: Any = TOKENIZER.apply_chat_template(
        messages, tools=tools or None, add_generation_prompt=True, return_dict=False
    )
    assert tokenizer().prompt(messages, tools=tools) == rendered


@many
@given(seeds)
def test_calls_are_shown_as_they_are_written(seed: int) -> None:
    """The model sees its own call exactly as it wrote it."""
    rng = random.Random(seed)
    request = make_request(rng, make_function(rng))
    function = {"name": request.function.name, "arguments": dict(request.arguments)}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    prompt = tokenizer().prompt([{"role": "user", "content": request.text}, call])
    text = tokenizer().decode(prompt)
    assert text == f"<|user|>{request.text}<|end|><|team|>{request.call}<|end|><|team|>"
    written = tokenizer().encode(request.call)
    assert prompt[-2 - len(written) : -2] == written


hostile = st.lists(
    st.sampled_from([*SPECIAL, "<|", "|>", "end", "<|en", "d|>", " ", "a", "\n", "<", ">", "|"]),
    max_size=10,
).map("".join)


@many
@given(hostile | texts)
def test_text_is_only_text(text: str) -> None:
    """No text gives a control token, inside a prompt or outside, and no text is lost."""
    special = {*map(TOKENIZER.convert_tokens_to_ids, SPECIAL)}
    assert special <= tokenizer().control
    assert special.isdisjoint(tokenizer().encode(text))
    if not text.strip():
        return
    prompt = tokenizer().prompt([{"role": "user", "content": text}])
    begin, *content, end, team_mark = prompt
    assert tokenizer().decode([begin, end, team_mark]) == "<|user|><|end|><|team|>"
    assert special.isdisjoint(content)
    assert tokenizer().decode(content) == text


@many
@given(st.data())
def test_tools_are_only_text(data: st.DataObject) -> None:
    """No text in tools, calls or results gives a control token."""

    def marks(text: Callable[[], str]) -> list[int]:
        schema = {"type": text(), "enum": [text(), text()]} | {text(): text()}
        other = {"type": "object", "properties": {text(): {"type": "string"}}}
        properties = {f"1{text()}": schema, f"2{text()}": other}
        parameters = {"type": "object", "properties": properties, "required": [text()]}
        call = {"name": text(), "arguments": {text(): [text(), 1]}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": text()},
            {"role": "assistant", "content": text(), "tool_calls": [{"function": call}]},
            {"role": "tool", "content": text(), "tool_call_id": text()},
        ]
        tools = [tool(text(), parameters, description=text()), tool(text())]
        prompt = tokenizer().prompt(messages, tools=tools)
        return [index for index in prompt if index in special]

    special = {*map(TOKENIZER.convert_tokens_to_ids, SPECIAL)}
    assert marks(lambda: data.draw(hostile)) == marks(lambda: "harmless")


def test_workers_may_write_no_mark() -> None:
    """Marks are banned, and so is the `#` that begins a header."""
    banned = {SHOWN[index] for index in team().banned}
    assert {*SPECIAL, "#"} <= banned
    assert all(shown in SPECIAL or "#" in shown for shown in banned)


def test_workers_may_write_no_header() -> None:
    """A header is one token, and banned."""
    assert {header + "\n\n" for header in steps.HEADERS} <= {SHOWN[i] for i in team().banned}
