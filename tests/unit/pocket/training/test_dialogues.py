"""Conversations about tools and structures: the expected reply follows from the request."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import islice
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.pocket.training.dialogues import (
    Dialogue,
    DialogueKind,
    dialogues,
    make_dialogue,
    other_question,
    some_tools,
)
from hogwild_agents.pocket.training.teacher import REFUSAL, DirectAnswer, ReplyPart
from hogwild_agents.team.chat_template import check_messages
from hogwild_agents.team.prompts import STRUCTURE
from tests.unit.pocket.training.fitting import fits
from tests.unit.pocket.training.playing import seeds, tokenizer

many = settings(max_examples=150, deadline=None, derandomize=True)
KINDS: tuple[DialogueKind, ...] = tuple(kind for kind in get_args(DialogueKind) if kind != "tasks")


def first(seed: int, kind: DialogueKind) -> Dialogue:
    """A conversation of a kind."""
    return next(dialogues(seed, kind))


def called(text: str) -> dict[str, Any]:
    """The call that a text makes."""
    match = re.fullmatch(r"<tool_call>\n(.+)\n</tool_call>", text)
    assert match is not None
    call: dict[str, Any] = json.loads(match[1])
    return call


def schemas(dialogue: Dialogue) -> dict[str, Any]:
    """The schemas of the tools' arguments by name."""
    return {tool["function"]["name"]: tool["function"]["parameters"] for tool in dialogue.tools}


@many
@given(seeds, st.sampled_from(KINDS))
def test_conversations(seed: int, kind: DialogueKind) -> None:
    """They are valid conversations that end with a message to be answered."""
    dialogue = first(seed, kind)
    assert dialogue.kind == kind
    assert check_messages(dialogue.messages) == dialogue.messages
    assert json.loads(json.dumps(dialogue.messages)) == dialogue.messages
    assert dialogue.messages[-1]["role"] == ("tool" if kind == "result" else "user")
    keys = {"role", "content", "tool_calls", "tool_call_id"}
    assert all(message.keys() <= keys for message in dialogue.messages)
    assert len(schemas(dialogue)) == len(dialogue.tools)
    assert (not dialogue.tools) == (kind == "structured")
    assert isinstance(dialogue.problem, DirectAnswer)
    assert dialogue.text
    assert tokenizer().prompt(dialogue.messages, tools=dialogue.tools)


@many
@given(seeds, st.sampled_from(KINDS))
def test_calls_have_results(seed: int, kind: DialogueKind) -> None:
    """Every earlier call is of an existing tool, fits its schema and was answered."""
    dialogue = first(seed, kind)
    waiting: list[str] = []
    for message in dialogue.messages:
        for call in message.get("tool_calls", []):
            function = call["function"]
            assert fits(function["arguments"], schemas(dialogue)[function["name"]])
            waiting.append(call["id"])
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
    assert not waiting


@many
@given(seeds)
def test_a_call_is_asked_for(seed: int) -> None:
    """The reply is a call of one of the tools, and the request spells its arguments."""
    dialogue = first(seed, "call")
    call, request = called(dialogue.text), dialogue.messages[-1]["content"].casefold()
    assert fits(call["arguments"], schemas(dialogue)[call["name"]])
    assert dialogue.problem == DirectAnswer(call["name"])
    for value in call["arguments"].values():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        assert shown.casefold() in request
    assert dialogue.reply == [ReplyPart(dialogue.text)]


@many
@given(seeds)
def test_a_result_is_passed_on(seed: int) -> None:
    """The reply is the result, or the value in it."""
    dialogue = first(seed, "result")
    result = dialogue.messages[-1]["content"]
    values = [result]
    if result.startswith("{"):
        values += map(str, json.loads(result).values())
    assert dialogue.text in values
    assert dialogue.reply == [ReplyPart(dialogue.text)]


@many
@given(seeds)
def test_a_structure_is_asked_for(seed: int) -> None:
    """The reply is JSON that fits the schema that a system message shows."""
    dialogue = first(seed, "structured")
    instruction = dialogue.messages[-2]
    assert instruction["role"] == "system"
    assert instruction["content"].startswith(STRUCTURE)
    schema = json.loads(instruction["content"].removeprefix(STRUCTURE))
    assert schema["properties"]
    assert fits(json.loads(dialogue.text), schema)
    assert dialogue.problem == DirectAnswer("JSON")
    forced = [part.text for part in dialogue.reply or () if not part.learnt]
    assert forced in ([], ["{"])


@many
@given(seeds)
def test_what_cannot_be_done(seed: int) -> None:
    """The model refuses; if a grammar forces a call, it has only the required arguments."""
    assert first(seed, "refusal").reply == [ReplyPart(REFUSAL)]
    dialogue = first(seed, "forced")
    opening, rest = dialogue.reply or ()
    assert opening == ReplyPart('<tool_call>\n{"name": "', learnt=False)
    assert rest.learnt
    call = called(dialogue.text)
    name = dialogue.tools[0]["function"]["name"]
    assert call["name"] == name
    assert [*call["arguments"]] == schemas(dialogue)[name]["required"]
    assert fits(call["arguments"], schemas(dialogue)[name])
    assert dialogue.problem == first(seed, "refusal").problem == DirectAnswer(REFUSAL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_conversations(kind: DialogueKind) -> None:
    """Another seed gives others."""
    first, same, other = ([*islice(dialogues(seed, kind), 5)] for seed in ("a", "a", "b"))
    assert first == same
    assert all(dialogue not in other for dialogue in first)


def test_shares() -> None:
    """Most conversations ask for a call, and each kind is frequent enough to be learnt."""
    rng = random.Random(1)
    counts = Counter(make_dialogue(rng).kind for _ in range(1000))
    assert {*counts} == {*KINDS}
    assert 330 < counts["call"] < 450
    assert 170 < counts["result"] < 270
    assert 170 < counts["structured"] < 270
    assert min(counts["refusal"], counts["forced"]) > 50


@many
@given(seeds)
def test_other_questions(seed: int) -> None:
    """They are never empty."""
    assert other_question(random.Random(seed)).strip()


@many
@given(seeds)
def test_some_tools(seed: int) -> None:
    """One to three tools with different names."""
    tools = some_tools(random.Random(seed))
    assert 1 <= len({tool["function"]["name"] for tool in tools}) == len(tools) <= 3
