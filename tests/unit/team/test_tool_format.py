"""Tool calls as text: the format of each template, and conversations without one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings

from hogwild_agents.team.tokenizer import TeamTokenizer
from hogwild_agents.team.tool_format import HERMES, spell_out
from tests.unit.team import tokenizers as small
from tests.unit.team.hostile import user
from tests.unit.team.tool_formats import FORMATS, called, calls, own, team

many = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", FORMATS)
def test_the_form_of_a_template(name: str) -> None:
    """Measured from rendered calls; white space before them does not count."""
    form = team(name).tool_call_format
    assert form is not None
    assert form._replace(opening=form.opening.lstrip()) == FORMATS[name]


@pytest.mark.parametrize("name", ["qwen", "llama", "mistral", "deepseek", "thoughtful", "compact"])
@many
@given(made=calls)
def test_calls_are_written_as_the_template_writes_them(
    name: str, made: list[tuple[str, dict[str, Any]]]
) -> None:
    """Whatever names and arguments are."""
    form = FORMATS[name]
    made = made[:1] if form.link is None else made
    rendered = small.rendered(own(name), [user("U"), called(made)])
    assert form.write(made) in rendered
    assert bool(form.write(made)) == bool(made)


@pytest.mark.parametrize("name", ["xml", "python", "mistral_list"])
def test_forms_that_nobody_can_keep_to(name: str) -> None:
    """Formats without JSON, or with ids after it, are not supported: calls are spelled out."""
    assert team(name).tool_call_format is None
    tools = [{"type": "function", "function": {"name": "add", "description": "Adds."}}]
    history = [user("U"), called([("add", {"a": 1})]), {"role": "tool", "content": "R"}]
    text = team(name).decode(team(name).prompt([*history, user("V")], tools=tools))
    assert json.dumps(tools[0]) in text
    assert HERMES.write([("add", {"a": 1})]) in text
    assert "<tool_response>\nR\n</tool_response>" in text


@pytest.mark.parametrize("template", ["{{ raise_exception('never') }}{{ tools }}", "{{ tools }}"])
def test_templates_without_calls(template: str) -> None:
    """Templates that refuse calls, and templates that leave them out."""
    assert TeamTokenizer(small.byte_level(template)).tool_call_format is None


def test_templates_without_tools() -> None:
    """Templates that do not mention tools are not measured."""
    assert TeamTokenizer(small.byte_level()).tool_call_format is None
    assert TeamTokenizer(small.plain_bytes()).tool_call_format is None


# Spelled out.


def test_a_conversation_in_words() -> None:
    """Tools come first, results are the user's, and calls follow the message's own text."""
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": "add"}},
        {"name": "Ä"},
    ]
    said = {**called([("add", {"a": 1}), ("add", {})]), "content": "Wait."}
    history = [user("U"), said, {"role": "tool", "content": "R"}, called([("add", {})])]
    before = copy.deepcopy(history)
    system, *rest = spell_out(history, tools)
    assert history == before
    assert system["role"] == "system"
    assert all(json.dumps(tool, ensure_ascii=False) in system["content"] for tool in tools)
    assert rest == [
        user("U"),
        {
            "role": "assistant",
            "content": "Wait.\n" + HERMES.write([("add", {"a": 1}), ("add", {})]),
        },
        {"role": "user", "content": "<tool_response>\nR\n</tool_response>"},
        {"role": "assistant", "content": HERMES.write([("add", {})])},
    ]


def test_nothing_to_spell_out() -> None:
    """Without tools, calls and results a conversation stays as it is."""
    history = [{"role": "system", "content": "S"}, user("U"), {"role": "assistant", "content": "A"}]
    assert spell_out(history, ()) == history


@pytest.mark.filterwarnings("ignore:.*rearranged")
@pytest.mark.parametrize("tokenizer", [small.plain_bytes, small.metaspace], ids=["bytes", "inst"])
def test_models_that_know_no_roles_for_tools(tokenizer: Any) -> None:
    """Tools, calls and results reach them as plain text."""
    tools = [{"type": "function", "function": {"name": "add", "description": "Adds."}}]
    history = [user("U"), called([("add", {"a": 1})]), {"role": "tool", "content": "R"}]
    reader = TeamTokenizer(tokenizer())
    text = reader.decode(reader.prompt(history, tools=tools))
    for part in (json.dumps(tools[0]), HERMES.write([("add", {"a": 1})]), "R\n</tool_response>"):
        assert part in text
