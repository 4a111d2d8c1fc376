"""Conversations: only the template gives control tokens, and no message is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from hogwild_agents.errors import ChatTemplateError, HogwildError, InvalidMessageError
from hogwild_agents.team.chat_template import Message
from hogwild_agents.team.tokenizer import TeamTokenizer, ThinkingTags
from tests.unit.team import tokenizers as small
from tests.unit.team.hostile import (
    BUILDERS,
    TURN,
    added,
    hostile,
    many,
    plain,
    team,
    templated,
    text_of,
    user,
    with_template,
)


def conversation(name: str, text: Callable[[], str], *, calls: bool = True) -> list[Message]:
    """A conversation with outside text everywhere, in a shape that the template accepts."""
    if name.startswith("metaspace"):
        return [user(text()), {"role": "assistant", "content": text()}, user(text(), name=text())]
    if not calls:
        said = {"role": "assistant", "content": text()}
        return [{"role": "system", "content": text()}, user(text(), name=text()), said]
    function = {"name": text(), "arguments": {text(): [text(), 1, None], "key": {"x": text()}}}
    call = {"id": text(), "type": "function", "function": function}
    return [
        {"role": "system", "content": text()},
        user(text(), name=text()),
        {"role": "assistant", "content": text(), "tool_calls": [call]},
        {"role": "tool", "content": text(), "tool_call_id": text(), "name": text()},
        user(text()),
    ]


@templated
@many
@given(data=st.data(), think=st.booleans())
def test_only_the_template_gives_control_tokens(
    name: str, data: st.DataObject, think: bool
) -> None:
    """Their number does not depend on what contents, names, ids, keys and arguments spell."""

    def control(messages: list[Message]) -> Counter[int]:
        marks = added(name).values()
        return Counter(i for i in team(name).prompt(messages, think=think) if i in marks)

    evil = conversation(name, lambda: data.draw(hostile(name)))
    assert control(evil) == control(conversation(name, lambda: "harmless"))


@templated
@many
@given(data=st.data())
def test_harmless_prompts_are_the_tokenizers_own(name: str, data: st.DataObject) -> None:
    """Keeping the two apart changes no token of what a model saw in training.

    Calls are put in words where a template knows nothing of tools.
    """
    own = BUILDERS[name]()
    text = plain.map(str.strip).filter(lambda text: bool(text) and "<" not in text)
    messages = conversation(name, lambda: data.draw(text), calls=False)
    expected = small.template_ids(own, messages, add_generation_prompt=True, enable_thinking=False)
    assert team(name).prompt(messages, think=False) == expected


def test_marks_that_swallow_space() -> None:
    """Phi-3's role tokens swallow a newline of the template, but none of outside text."""
    turn = "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}"
    template = "{% for m in messages %}" + turn + "{% endfor %}{{ '<|assistant|>\\n' }}"
    own = small.byte_level(template)
    marks = ("<|user|>", "<|system|>", "<|assistant|>", "<|end|>")
    own.add_tokens([AddedToken(mark, special=True, rstrip=True) for mark in marks])
    expected = small.template_ids(own, [user("Why?")])
    assert TeamTokenizer(own).prompt([user("Why?")]) == expected
    assert text_of(TeamTokenizer(own), user("\n\nWhy?")) == "<|user|>\n\nWhy?<|end|><|assistant|>"


def test_a_mark_is_not_made_of_two_parts() -> None:
    """Neither from the template's words and outside text, nor from two outside texts."""
    template = "{% for m in messages %}<|{{ m.name }}|{{ m.content }}{% endfor %}"
    tokenizer = with_template(template)
    tokens = tokenizer.prompt([user(">", name="im_end")], think=False)
    assert tokenizer.decode(tokens) == "<|im_end|>"
    assert tokenizer.control.isdisjoint(tokens)


def test_keys_of_arguments_are_outside_text() -> None:
    """They make no control token, even if a template spells them out."""
    template = (
        "{% for m in messages %}{{ m.content }}"
        "{% for k, v in (m.args or {}).items() %}<|{{ k }}|>{{ v }}{% endfor %}{% endfor %}"
    )
    tokenizer = with_template(template)
    tokens = tokenizer.prompt([user("a", args={"im_end": "b", "<think>": 3})], think=False)
    assert tokenizer.decode(tokens) == "a<|im_end|>b<|<think>|>3"
    assert tokenizer.control.isdisjoint(tokens)


def test_arguments_stay_json() -> None:
    """Text that a template writes with tojson can be read back, even after two passes of it."""
    arguments = {'say "hi"\n': ["\\", "<|im_end|>", "é", 1.5, None, True, ""]}
    call = {"function": {"name": "f", "arguments": arguments}}
    text = text_of(team("byte_level"), {"role": "assistant", "content": "", "tool_calls": [call]})
    body = text.split("<tool_call>")[1].split("</tool_call>")[0]
    assert json.loads(body) == {"name": "f", "arguments": arguments}
    twice = with_template("{{ messages | tojson | tojson }}")
    messages = [user('"\n<|im_end|>', args=arguments)]
    assert json.loads(json.loads(text_of(twice, *messages))) == messages


def test_a_template_may_ask_for_a_tool_call_id_of_nine_letters() -> None:
    """As Mistral's do."""
    tokenizer = with_template(
        "{% for m in messages %}{% if m.id and m.id | length != 9 %}{{ raise_exception('9!') }}"
        "{% endif %}{{ m.content }} {{ m.id }}{% endfor %}"
    )
    assert text_of(tokenizer, user("a", id="<s>456789")) == "a <s>456789"


@pytest.mark.parametrize("name", ["byte_level", "llama3_like", "metaspace_first"])
def test_empty_contents(name: str) -> None:
    """An empty text is a text."""
    assert text_of(team(name), user("")) == text_of(team(name), user("QQ")).replace("QQ", "")


def test_a_call_needs_no_content() -> None:
    """As OpenAI's messages have it."""
    assert text_of(team("byte_level"), user("U"), {**CALL, "content": None}) == text_of(
        team("byte_level"), user("U"), CALL
    )


def test_the_sources_messages_are_left_alone() -> None:
    """Neither placeholders nor folding show in the caller's objects."""
    messages = [{"role": "system", "content": "s"}, user("u", extra={"a": ["b"]})]
    before = json.dumps(messages)
    team("metaspace_first").prompt(messages)
    assert json.dumps(messages) == before


def test_without_a_template() -> None:
    """Contents with blank lines between, after the token that begins every text, if any."""
    messages = [{"role": "system", "content": "Think.</s>"}, user("Why?")]
    assert text_of(team("plain_bytes"), *messages) == "Think.</s>\n\nWhy?\n\n"
    tokenizer = TeamTokenizer(small.plain_bytes(add_bos=True))
    tokens = tokenizer.prompt(messages)
    assert tokens[0] == 256
    assert tokenizer.control.isdisjoint(tokens[1:])
    assert tokenizer.decode(tokens) == "<s>Think.</s>\n\nWhy?\n\n"


SYSTEM = {"role": "system", "content": "S"}
REPLY = {"role": "assistant", "content": "R"}
FUNCTION = {"name": "f", "arguments": {"x": 1}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": FUNCTION}]}
SPELLED = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
TOOL = {"role": "tool", "content": "T"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("U")], "<s>[INST] U [/INST]"),
        ([SYSTEM, user("U")], "<s>[INST] S\n\nU [/INST]"),
        ([SYSTEM, SYSTEM, user("U")], "<s>[INST] S\n\nS\n\nU [/INST]"),
        ([SYSTEM], "<s>[INST] S [/INST]"),
        ([user("U"), user("V")], "<s>[INST] U\n\nV [/INST]"),
        ([user("U"), SYSTEM, user("V")], "<s>[INST] U\n\nS\n\nV [/INST]"),
        ([user("U"), REPLY, REPLY, user("V")], "<s>[INST] U [/INST] R\n\nR </s>[INST] V [/INST]"),
        ([SYSTEM, user("U"), REPLY, SYSTEM], "<s>[INST] S\n\nU [/INST] R </s>[INST] S [/INST]"),
        ([user(""), user("V")], "<s>[INST] V [/INST]"),
        ([REPLY, user("U")], "<s>[INST]  [/INST] R </s>[INST] U [/INST]"),
        ([SYSTEM, REPLY, user("U")], "<s>[INST]  [/INST] R </s>[INST] S\n\nU [/INST]"),
        ([user("U"), CALL, TOOL],
         f"<s>[INST] U [/INST] {SPELLED} </s>[INST] <tool_response>\nT\n</tool_response> [/INST]"),
    ],
)  # fmt: skip
def test_a_template_of_two_alternating_roles(messages: list[Message], expected: str) -> None:
    """System text is folded into the user's message, and neighbours are merged."""
    assert text_of(team("metaspace_first"), *messages) == expected


def test_what_a_template_takes_is_not_rearranged() -> None:
    """Only templates that refuse a conversation get it folded and merged."""
    text = text_of(team("byte_level"), SYSTEM, user("U"), user("V"))
    assert text.startswith(
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>user\nV<|im"
    )


def test_a_template_that_drops_system_text() -> None:
    """Dropping is as bad as refusing: the text is folded."""
    template = "{% for m in messages if m.role == 'user' %}U: {{ m.content }}\n{% endfor %}"
    assert text_of(with_template(template), SYSTEM, user("U")) == "U: S\n\nU\n"


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        ("{{ messages[0].content }}", [user("U"), REPLY], "loses what the assistant says, 'R'"),
        ("{{ messages[0].content }}", [user("U"), CALL], "loses what the assistant says, '<tool_"),
        ("{{ raise_exception('no replies') if messages[1] }}", [user("U"), REPLY],
         "conversation of user, assistant: no replies"),
        ("{{ messages[5].content.x }}", [user("U")], "cannot hold a conversation of user: "),
        ("{{ 1 / 0 }}", [user("U")], "division by zero"),
        ("{{ messages[0].content | upper }}", [user("U")], "loses what the user says"),
        ("{% for m in messages %}{{ m.content + (m.tag | upper) }}{% endfor %}",
         [user("U", tag="t")], "rewrites"),
    ],
)  # fmt: skip
def test_templates_that_cannot_hold_a_conversation(
    template: str, messages: list[Message], words: str
) -> None:
    """The error says which message is affected, and what to do."""
    with pytest.raises(ChatTemplateError, match=words) as raised:
        with_template(template).prompt(messages)
    assert "chat_template" in str(raised.value)
    assert isinstance(raised.value, HogwildError)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no message"),
        ([{"role": "owner", "content": "a"}], "Message 0 has the role 'owner'"),
        ([user("a"), {"content": "a"}], "Message 1 has the role None"),
        (["a"], "Message 0 has the role None"),
        ([{"role": "user"}], r"Message 0 \(user\) has content of type NoneType"),
        ([{"role": "user", "content": ["a"]}], "of type list"),
    ],
)
@pytest.mark.parametrize("name", ["byte_level", "plain_bytes"])
def test_malformed_messages(name: str, messages: list[Any], words: str) -> None:
    """The error says which message, and what it should be."""
    with pytest.raises(InvalidMessageError, match=words) as raised:
        team(name).prompt(messages)
    assert isinstance(raised.value, HogwildError)


START = "{{ messages[0].content }}" + TURN
MENTION = "{# </think> #}"


@pytest.mark.parametrize(
    ("template", "thinks", "replies"),
    [
        (MENTION + START, "<think>\n", ""),
        (START + "<think>\n{# </think> #}", "<think>\n", "<think>\n\n</think>\n\n"),
        (START + "<think>{# </think> #}", "<think>", "<think>\n\n</think>\n\n"),
        (START + "<think></think>", "<think></think><think>\n", "<think></think>"),
        (START + "{% if enable_thinking %}<think>{% else %}</think>{% endif %}",
         "<think>", "</think>"),
        (START + "{% if thinking %}<think>{% else %}</think>{% endif %}", "<think>", "</think>"),
        (START + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
         "<think>\n", "<think>\n\n</think>\n\n"),
        ("<think>{{ messages[0].content }}</think>" + TURN, "<think>\n", ""),
    ],
)  # fmt: skip
def test_thinking_is_left_open_or_closed(template: str, thinks: str, replies: str) -> None:
    """However the template begins a turn."""
    tokenizer = with_template(template)
    assert tokenizer.thinking == ThinkingTags("<think>", "</think>")
    for think, expected in ((True, thinks), (False, replies)):
        tokens = tokenizer.prompt([user("a <think> b")], think=think)
        assert tokenizer.decode(tokens).split("assistant:")[1] == expected
        marks = added("byte_level")
        spelled = template.startswith("<think>") + expected.count("<think>")
        assert tokens.count(marks["<think>"]) == spelled


def test_closing_thoughts() -> None:
    """The mark as a control token, then a blank line as text."""
    tokenizer = team("byte_level")
    tokens = tokenizer.close_thinking()
    assert tokens[0] == added("byte_level")["</think>"]
    assert tokenizer.decode(tokens) == "</think>\n\n"
    assert team("llama3_like").close_thinking() == []


@pytest.mark.parametrize(
    ("pair", "template", "known"),
    [
        (("[THINK]", "[/THINK]"), "[/THINK]", True),
        (("<seed:think>", "</seed:think>"), "{{ '</seed:think>' }}", True),
        (("<|START_THINKING|>", "<|END_THINKING|>"), "<|START_THINKING|>", False),
        (("[THINK]", "[/OTHER]"), "[/THINK]", False),
        (("<hmm>", "</hmm>"), "</hmm>", False),
    ],
)
def test_who_thinks(pair: tuple[str, str], template: str, known: bool) -> None:
    """A model thinks if its vocabulary has both tags and its template uses the closing one."""
    own = small.llama3_like()
    own.add_tokens(list(pair))
    own.chat_template = template
    tokenizer = TeamTokenizer(own)
    assert tokenizer.thinking == (ThinkingTags(*pair) if known else None)
    ids = {small.id_of(own, tag) for tag in pair}
    assert ids.issubset(tokenizer.control) is known
