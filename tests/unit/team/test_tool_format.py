"""Calls of tools as text: the form of each template, and what is spelled out without one."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from hogwild_agents.team.tokenizer import TeamTokenizer
from hogwild_agents.team.tool_format import HERMES, ToolCallFormat, spell_out
from tests.unit.team import tokenizers as small
from tests.unit.team.hostile import user
from tests.unit.team.test_tool_prompts import LLAMA, QWEN

MISTRAL = """\
{{- bos_token }}
{%- if tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '[INST]' + message.content + '[/INST]' }}
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception('nine characters') }}{% endif %}
{{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}
{%- else %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{%- if call.id | length != 9 %}{{ raise_exception('nine characters') }}{% endif %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson) }}
{%- endfor %}
{{- eos_token }}
{%- endif %}
{%- endfor %}"""
"""As Mistral Small 3.1 has it: nothing closes a call."""

MISTRAL_LIST = MISTRAL.replace(
    "'[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson)",
    """'[TOOL_CALLS][{"name": "' + call.function.name + '", "arguments": '
    + (call.function.arguments | tojson) + ', "id": "' + call.id + '"}]'""",
)
"""As Mistral 7B v0.3 has it: an id after the arguments."""

DEEPSEEK = """\
{{- bos_token }}
{%- for tool in tools or [] %}{{ tool | tojson + '\\n' }}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|User|>' + message.content }}
{%- elif message.role == 'tool' %}
{{- '<|tool_output_begin|>' + message.content + '<|tool_output_end|>' }}
{%- else %}
{{- '<|Assistant|>' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<|tool_calls_begin|>' if loop.first else '\\n' }}
{{- '<|tool_call_begin|>function<|tool_sep|>' + call.function.name + '\\n```json\\n' }}
{{- (call.function.arguments | tojson) + '\\n```<|tool_call_end|>' }}
{{- '<|tool_calls_end|>' if loop.last }}
{%- endfor %}
{{- eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}"""
"""As DeepSeek V3 has it: marks around all calls, and around each."""

XML = QWEN.replace(
    """{{- call.arguments if call.arguments is string else call.arguments | tojson }}
{{- '}\\n</tool_call>' }}""",
    """{%- for key, value in call.arguments | items %}
{{- '<parameter=' + key + '>\\n' ~ value ~ '\\n</parameter>' }}
{%- endfor %}
{{- '</function>\\n</tool_call>' }}""",
)
"""As Qwen3-Coder has it: no JSON."""

PYTHON = QWEN.replace(
    """{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments if call.arguments is string else call.arguments | tojson }}
{{- '}\\n</tool_call>' }}""",
    """{{- '[' + call.name + '(' }}
{%- for key, value in call.arguments | items %}{{ key ~ '=' ~ value }}{% endfor %}
{{- ')]' }}""",
)
"""As Llama 4 has it: calls of functions in Python."""

STRICT = QWEN.replace(
    "{%- if message.role == 'tool' %}",
    "{%- if message.tool_calls and loop.last %}{{ raise_exception('results are missing') }}{% endif"
    " %}\n{%- if message.role == 'tool' %}",
)
"""Where a call must have its result."""

THOUGHTFUL = QWEN.replace(
    "message.role + '\\n' + message.content }}",
    "message.role + '\\n' + ('<think>\\n\\n</think>\\n\\n' if message.role == 'assistant' else '')"
    " + message.content }}",
)
"""As Qwen3 has it in some versions: no call without thoughts before it."""

COMPACT = QWEN.replace(
    "call.arguments | tojson }}", "call.arguments | tojson(separators=(',', ':')) }}"
)
"""Without white space in arguments."""

_MARKS = {
    "mistral": "[AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [INST] [/INST] [TOOL_CALLS] [ARGS] "
    "[TOOL_RESULTS] [/TOOL_RESULTS]",
    "deepseek": "<|User|> <|Assistant|> <|tool_calls_begin|> <|tool_calls_end|> "
    "<|tool_call_begin|> <|tool_call_end|> <|tool_sep|> <|tool_output_begin|> <|tool_output_end|>",
}
_TEMPLATES = {
    "qwen": QWEN,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "mistral_list": MISTRAL_LIST,
    "deepseek": DEEPSEEK,
    "xml": XML,
    "python": PYTHON,
    "strict": STRICT,
    "thoughtful": THOUGHTFUL,
    "compact": COMPACT,
}
FORMS = {
    "qwen": HERMES,
    "llama": ToolCallFormat('{"name": "', '", "parameters": ', "}", None),
    "mistral": ToolCallFormat("[TOOL_CALLS]", "[ARGS]", "", "[TOOL_CALLS]"),
    "deepseek": ToolCallFormat(
        "<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>",
        "\n```json\n",
        "\n```<|tool_call_end|><|tool_calls_end|>",
        "\n```<|tool_call_end|>\n<|tool_call_begin|>function<|tool_sep|>",
    ),
    "strict": HERMES,
    "thoughtful": HERMES,
    "compact": HERMES._replace(separators=(",", ":")),
}

many = settings(max_examples=30, deadline=None, derandomize=True)
letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | letters,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(letters, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(letters, values, max_size=3)
calls = st.lists(st.tuples(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), arguments), max_size=3)


@cache
def own(name: str) -> PreTrainedTokenizerFast:
    """A model's tokenizer, with the marks of its template among its tokens."""
    found = small.llama3_like() if name == "llama" else small.byte_level()
    marks = _MARKS.get(name.partition("_")[0], "").split()
    found.add_tokens([AddedToken(mark, special=True) for mark in marks])
    found.chat_template = _TEMPLATES[name]
    return found


@cache
def team(name: str) -> TeamTokenizer:
    """The same for a team."""
    return TeamTokenizer(own(name))


def called(made: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """A message that makes calls."""
    listed = [
        {"type": "function", "id": f"call0000{n}", "function": {"name": name, "arguments": given}}
        for n, (name, given) in enumerate(made)
    ]
    return {"role": "assistant", "content": "", "tool_calls": listed}


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_a_template(name: str) -> None:
    """Found by looking at what it makes of calls; white space before them counts for nothing."""
    form = team(name).tool_call_format
    assert form is not None
    assert form._replace(opening=form.opening.lstrip()) == FORMS[name]


@pytest.mark.parametrize("name", ["qwen", "llama", "mistral", "deepseek", "thoughtful", "compact"])
@many
@given(made=calls)
def test_calls_are_written_as_the_template_writes_them(
    name: str, made: list[tuple[str, dict[str, Any]]]
) -> None:
    """Whatever names and arguments are."""
    form = FORMS[name]
    made = made[:1] if form.link is None else made
    written: Any = own(name).apply_chat_template([user("U"), called(made)], tokenize=False)
    assert form.write(made) in written
    assert bool(form.write(made)) == bool(made)


@pytest.mark.parametrize("name", ["xml", "python", "mistral_list"])
def test_forms_that_nobody_can_keep_to(name: str) -> None:
    """No JSON, or ids after it: then calls are spelled out."""
    assert team(name).tool_call_format is None
    tools = [{"type": "function", "function": {"name": "add", "description": "Adds."}}]
    history = [user("U"), called([("add", {"a": 1})]), {"role": "tool", "content": "R"}]
    text = team(name).decode(team(name).prompt([*history, user("V")], tools=tools))
    assert json.dumps(tools[0]) in text
    assert HERMES.write([("add", {"a": 1})]) in text
    assert "<tool_response>\nR\n</tool_response>" in text


@pytest.mark.parametrize("template", ["{{ raise_exception('never') }}{{ tools }}", "{{ tools }}"])
def test_templates_without_calls(template: str) -> None:
    """Those that refuse them, and those that leave them out."""
    assert TeamTokenizer(small.byte_level(template)).tool_call_format is None


def test_templates_without_tools() -> None:
    """They are not asked."""
    assert TeamTokenizer(small.byte_level()).tool_call_format is None
    assert TeamTokenizer(small.plain_bytes()).tool_call_format is None


# Spelled out.


def test_a_conversation_in_words() -> None:
    """Tools come first, results as the user's, calls after what was said beside them."""
    tools = [{"type": "function", "function": {"name": "add"}}, {"name": "Ä"}]
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
    """All of it reaches them nevertheless."""
    tools = [{"type": "function", "function": {"name": "add", "description": "Adds."}}]
    history = [user("U"), called([("add", {"a": 1})]), {"role": "tool", "content": "R"}]
    reader = TeamTokenizer(tokenizer())
    text = reader.decode(reader.prompt(history, tools=tools))
    for part in (json.dumps(tools[0]), HERMES.write([("add", {"a": 1})]), "R\n</tool_response>"):
        assert part in text
