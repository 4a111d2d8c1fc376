"""Messages as conversations: every kind and order, on templates that take them and that do not."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from transformers import PreTrainedTokenizerFast

from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.langchain.messages import to_conversation, without_collaboration
from hogwild_agents.langchain.responses import whole_message
from hogwild_agents.langchain.runnables import CollaborationPrompt
from hogwild_agents.team import TeamTokenizer
from hogwild_agents.team.tool_format import HERMES
from tests.unit.langchain.results import THOUGHT, options, result
from tests.unit.team import tokenizers as small
from tests.unit.team.tool_formats import team as tokenizer_of

CALL: Any = {"type": "tool_call", "name": "add", "args": {"a": 1}, "id": "call00000"}
TEMPLATES = ("qwen", "llama", "mistral", "deepseek", "xml", "strict", "chatml", "inst", "bytes")


def turns(*messages: Any) -> list[dict[str, Any]]:
    """As a conversation."""
    return to_conversation(convert_to_messages(list(messages)))


def reader(name: str) -> TeamTokenizer:
    """A tokenizer with a template that takes more, or less."""
    plain: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
        "chatml": small.byte_level,
        "inst": small.metaspace,
        "bytes": small.plain_bytes,
    }
    if name in plain:
        return TeamTokenizer(plain[name]())
    return tokenizer_of(name)


# Each kind of message.


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SystemMessage("S"), {"role": "system", "content": "S"}),
        (HumanMessage("U"), {"role": "user", "content": "U"}),
        (HumanMessage("U", name="Ann"), {"role": "user", "content": "U", "name": "Ann"}),
        (AIMessage("A"), {"role": "assistant", "content": "A"}),
        (AIMessage(""), {"role": "assistant", "content": ""}),
        (
            ToolMessage("T", tool_call_id="1"),
            {"role": "tool", "content": "T", "tool_call_id": "1"},
        ),
        (
            ToolMessage("E", tool_call_id="1", status="error", name="add"),
            {"role": "tool", "content": "Error: E", "tool_call_id": "1", "name": "add"},
        ),
        (FunctionMessage(content="F", name="add"), {"role": "tool", "content": "F", "name": "add"}),
        (ChatMessage(content="C", role="Human"), {"role": "user", "content": "C"}),
        (ChatMessage(content="C", role="developer"), {"role": "system", "content": "C"}),
        (ChatMessage(content="C", role="assistant"), {"role": "assistant", "content": "C"}),
    ],
    ids=lambda given: getattr(given, "type", ""),
)
def test_a_message(message: BaseMessage, expected: dict[str, Any]) -> None:
    assert to_conversation([message]) == [expected]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (["a", "b"], "a\nb"),
        ([{"type": "text", "text": "a"}, "b"], "a\nb"),
        ([{"type": "text", "text": ""}, {"type": "text", "text": "b"}], "b"),
        ([{"type": "text-plain", "text": "a", "mime_type": "text/plain"}], "a"),
        ([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}], "a"),
        ([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "a"}], "a"),
        (
            [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "a"},
            ],
            "a",
        ),
        ([{"type": "redacted_thinking", "data": "x"}], ""),
        ([], ""),
    ],
    ids=str,
)
def test_blocks_of_text(content: Any, text: str) -> None:
    """Thoughts of before are not shown again."""
    assert to_conversation([AIMessage(content=content)])[0]["content"] == text


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": "x", "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}},
        {"type": "audio", "base64": "x", "mime_type": "audio/wav"},
        {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
        {"type": "video", "url": "http://x"},
        {"type": "file", "base64": "x", "mime_type": "application/pdf"},
        {"type": "document", "source": {}},
        {"type": "non_standard", "value": {}},
        {"type": "text", "text": None},
        {"nothing": "known"},
    ],
    ids=lambda block: str(block.get("type")),
)
@pytest.mark.parametrize("where", [HumanMessage, SystemMessage, "result", "tool"])
def test_blocks_of_something_else(block: dict[str, Any], where: Any) -> None:
    """Are refused wherever they stand, with their place and what to do."""
    content: list[Any] = [{"type": "text", "text": "Look:"}, block]
    told: BaseMessage
    if where == "result":
        told = HumanMessage([{"type": "tool_result", "tool_use_id": "1", "content": content}])
    elif where == "tool":
        told = ToolMessage("x", tool_call_id="1").model_copy(update={"content": content})
    else:
        told = where("x").model_copy(update={"content": content})
    with pytest.raises(InvalidRequestError, match="Message 1 holds a block") as caught:
        to_conversation([HumanMessage("Hi."), told])
    assert "text" in str(caught.value)
    assert isinstance(caught.value, HogwildError)
    assert isinstance(caught.value, ModelInvalidRequestError)


@pytest.mark.parametrize(
    "message", [ChatMessage(content="x", role="critic"), RemoveMessage(id="1")]
)
def test_roles_that_nobody_has(message: BaseMessage) -> None:
    """Are named, with those that there are."""
    role = getattr(message, "role", message.type)
    with pytest.raises(InvalidRequestError, match=re.escape(f"Message 0 has the role {role!r}")):
        to_conversation([message])


# Calls and results.


def test_calls() -> None:
    """With their ids, or with ids of nine characters where they have none."""
    nameless = AIMessage("", tool_calls=[{**CALL, "id": None}, {**CALL, "id": None}])
    turn, other = turns(AIMessage("So:", tool_calls=[CALL]), nameless)
    function = {"name": "add", "arguments": {"a": 1}}
    assert turn == {
        "role": "assistant",
        "content": "So:",
        "tool_calls": [{"type": "function", "id": "call00000", "function": function}],
    }
    ids = [call["id"] for call in other["tool_calls"]]
    assert len({*ids}) == 2
    assert {len(one) for one in ids} == {9}


def test_calls_as_openai_writes_them() -> None:
    """In dicts, with arguments as text."""
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    (turn,) = turns({"role": "assistant", "content": None, "tool_calls": [call]})
    assert turn["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert turn["content"] == ""


def test_calls_and_results_as_anthropic_writes_them() -> None:
    """Among the blocks; results come before what the user says beside them."""
    used = {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}}
    said = AIMessage([{"type": "text", "text": "So:"}, used], tool_calls=[{**CALL, "id": "1"}])
    results: list[str | dict[Any, Any]] = [
        {"type": "tool_result", "tool_use_id": "1", "content": "R"},
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "S"}]},
        {"type": "tool_result", "tool_use_id": "3", "is_error": True},
    ]
    conversation = turns(said, HumanMessage([*results, {"type": "text", "text": "And?"}]))
    assert conversation[0]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert conversation[1:] == [
        {"role": "tool", "content": "R", "tool_call_id": "1"},
        {"role": "tool", "content": "S", "tool_call_id": "2"},
        {"role": "tool", "content": "", "tool_call_id": "3"},
        {"role": "user", "content": "And?"},
    ]
    assert [turn["role"] for turn in turns(HumanMessage(results[:1]))] == ["tool"]


def test_calls_that_stand_among_the_blocks_only() -> None:
    """As such messages come from JSON: no call is lost."""
    used = {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}}
    (turn,) = turns(AIMessage([{"type": "text", "text": "So:"}, used]))
    assert turn["tool_calls"][0]["id"] == "1"
    assert turn["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


# What a model of ours has written.


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_our_own_messages_come_back(version: str) -> None:
    """Reply and calls; thoughts stay where they were."""
    calls = HERMES.write([("add", {"a": 1})])
    message = whole_message(result(reply=f"So: {calls}", **THOUGHT), options(HERMES))
    if version == "v1":
        message = message.model_copy(update={"content": message.content_blocks})
    (turn,) = to_conversation([message])
    assert turn["content"] == "So:"
    assert [call["function"]["name"] for call in turn["tool_calls"]] == ["add"]
    assert "A1" not in str(turn)


def test_the_collaboration_prompt_is_taken_out() -> None:
    """What the developer says beside it stays."""
    prompt = CollaborationPrompt(style="brief")
    messages = prompt.invoke([SystemMessage("Be kind."), HumanMessage("2 + 2?")])
    told, rest = without_collaboration(messages)
    assert "solve one problem together" in str(told)
    assert [(m.type, m.content) for m in rest] == [("system", "Be kind."), ("human", "2 + 2?")]
    told, rest = without_collaboration(prompt.invoke("2 + 2?"))
    assert [message.type for message in rest] == ["human"]
    plain = [SystemMessage("Be kind."), HumanMessage("Hi.")]
    assert without_collaboration(plain) == (None, plain)
    copied = [messages[0].model_copy(update={"content": "Something else."})]
    assert without_collaboration(copied) == (None, copied)


# Any order of roles.

KINDS = ["system", "human", "ai", "calls", "empty", "tool", "error", "results", "blocks", "chat"]


def one(kind: str, number: int) -> BaseMessage:
    """A message of this kind whose text tells its place."""
    text, name = f"text{number}!", f"id{number:07}"
    call = {"name": f"tool{number}", "args": {"key": f"text{number}!"}, "id": name}
    made: dict[str, BaseMessage] = {
        "system": SystemMessage(text),
        "human": HumanMessage(text),
        "ai": AIMessage(text),
        "calls": AIMessage("", tool_calls=[call]),
        "empty": AIMessage(""),
        "tool": ToolMessage(text, tool_call_id=name),
        "error": ToolMessage(text, tool_call_id=name, status="error", name="add"),
        "results": HumanMessage([{"type": "tool_result", "tool_use_id": name, "content": text}]),
        "blocks": HumanMessage([{"type": "text", "text": text}]),
        "chat": ChatMessage(content=text, role="user"),
    }
    return made[kind]


@pytest.mark.filterwarnings("ignore:.*rearranged")
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=7))
def test_any_order(name: str, kinds: list[str]) -> None:
    """Nothing that was said is lost, whatever a template demands."""
    if name == "strict":  # it refuses a conversation whose last calls have no results
        kinds = [*kinds, "human"]
    if name == "inst":  # and this one a conversation that the model begins
        kinds = ["human", *kinds]
    conversation = to_conversation([one(kind, number) for number, kind in enumerate(kinds)])
    text = reader(name).decode(reader(name).prompt(conversation))
    for number, kind in enumerate(kinds):
        assert kind == "empty" or f"text{number}!" in text, text


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_usual_order_is_left_alone(name: str) -> None:
    """What everybody says stands in the order in which it was said."""
    kinds = ["human", "ai", "human", "calls", "tool", "ai", "human"]
    conversation = to_conversation([one(kind, number) for number, kind in enumerate(kinds)])
    text = reader(name).decode(reader(name).prompt(conversation))
    assert re.findall(r"text(\d)!", text) == ["0", "1", "2", "3", "4", "5", "6"]


def test_one_warning() -> None:
    """Of what a template cannot take as it is, and not at every call."""
    tokenizer = TeamTokenizer(small.metaspace())
    conversation = turns(SystemMessage("S"), HumanMessage("U"))
    with pytest.warns(UserWarning, match="rearranged"):
        tokenizer.prompt(conversation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.prompt(conversation)
        TeamTokenizer(small.byte_level()).prompt(conversation)
