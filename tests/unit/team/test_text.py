"""Text to tokens and back: what comes from outside stays text, and nothing of it is lost."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers
from transformers import PreTrainedTokenizerFast

from hogwild_agents.engine.errors import HogwildError
from hogwild_agents.team.text import (
    ChatTemplateError,
    InvalidMessageError,
    Message,
    Reader,
    TeamTokenizer,
    Thinking,
)
from tests.unit.team import tokenizers as small

BUILDERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": small.byte_level,
    "llama3_like": small.llama3_like,
    "metaspace_first": lambda: small.metaspace("first"),
    "metaspace_always": lambda: small.metaspace("always"),
    "metaspace_legacy": lambda: small.metaspace("legacy"),
    "plain_bytes": small.plain_bytes,
}
FOREIGN = ("[INST]", "<s>", "</s>", "<|im_end|>", "<|eot_id|>", "</think>", "<unk>", "<0x0A>")
TURN = "<|im_start|>assistant:"

many = settings(max_examples=30, deadline=None)
every = pytest.mark.parametrize("name", BUILDERS)
templated = pytest.mark.parametrize("name", [name for name in BUILDERS if name != "plain_bytes"])
# The one letter that sentencepiece's manner cannot write: it stands for a space there.
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=8)


@cache
def team(name: str) -> TeamTokenizer:
    return TeamTokenizer(BUILDERS[name]())


@cache
def added(name: str) -> dict[str, int]:
    """Every added token of that tokenizer: all that plain text must not give."""
    return dict(BUILDERS[name]().get_added_vocab())


@st.composite
def hostile(draw: st.DrawFn, name: str) -> str:
    """Text with control tokens' spellings in it: whole, cut short, nested, side by side."""
    spelling = st.sampled_from([*added(name), *FOREIGN])
    start = st.builds(lambda mark, size: mark[:size], spelling, st.integers(1, 12))
    end = st.builds(lambda mark, size: mark[-size:], spelling, st.integers(1, 12))
    nested = st.builds(
        lambda a, size, b: a[:size] + b + a[size:], spelling, st.integers(1, 5), spelling
    )
    return "".join(draw(st.lists(st.one_of(plain, spelling, start, end, nested), max_size=6)))


def with_template(template: str) -> TeamTokenizer:
    """ChatML's vocabulary under another template."""
    return TeamTokenizer(small.byte_level(template))


def user(content: str, **more: Any) -> Message:
    return {"role": "user", "content": content, **more}


def said(tokenizer: TeamTokenizer, *messages: Message, think: bool = False) -> str:
    """A prompt as text."""
    return tokenizer.decode(tokenizer.prompt(messages, think=think))


# Plain text


@every
@many
@given(data=st.data())
def test_text_gives_no_control_token_and_comes_back(name: str, data: st.DataObject) -> None:
    """Whatever is spelled in it, in one piece or in two."""
    tokenizer, first, second = team(name), data.draw(hostile(name)), data.draw(hostile(name))
    tokens, more = tokenizer.encode(first), tokenizer.encode(second)
    assert set(added(name).values()).isdisjoint({*tokens, *more})
    assert tokenizer.decode(tokens) == first
    assert tokenizer.decode(tokens + more) == first + second


@every
def test_added_tokens_are_nested_into_each_other(name: str) -> None:
    """Taking one spelling out of another leaves no third."""
    tokenizer = team(name)
    for outer in added(name):
        for inner in added(name):
            for cut in range(len(outer) + 1):
                text = outer[:cut] + inner + outer[cut:]
                tokens = tokenizer.encode(text)
                assert set(added(name).values()).isdisjoint(tokens)
                assert tokenizer.decode(tokens) == text


@every
@pytest.mark.parametrize(
    "text", ["", " ", " a", "a ", "\n\n", "a  b", "x", "0", ".\n\n", "�", "\x00"]
)
def test_small_texts_come_back(name: str, text: str) -> None:
    """Spaces at either end, nothing at all, and what the anchors are made of."""
    tokenizer = team(name)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("ab") + tokenizer.encode(text) * 2) == "ab" + text * 2


@every
def test_text_is_tokenised_as_the_model_knows_it(name: str) -> None:
    """Common words are one token still."""
    tokenizer = team(name)
    text = "the answer is right.\n\n"
    own = BUILDERS[name]().encode("x " + text, add_special_tokens=False)
    assert tokenizer.encode("x " + text)[-5:] == own[-5:]


def test_control_tokens() -> None:
    """Special tokens, ends and marks of thinking; not what merely is an added token."""
    ids = added("byte_level")
    tokenizer = team("byte_level")
    assert tokenizer.ends == {ids["<|im_end|>"], ids["<|endoftext|>"]}
    marks = ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<think>", "</think>")
    assert tokenizer.control == {ids[mark] for mark in marks}
    assert team("plain_bytes").control == {256, 257, 258}
    assert team("plain_bytes").ends == {257}
    assert team("metaspace_first").control == {1, 2}  # the unknown token controls nothing
    ids = added("llama3_like")
    assert team("llama3_like").ends == {
        ids[mark] for mark in ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
    }


def test_further_ends() -> None:
    """One that text may hold is an end, and text all the same."""
    tokenizer = TeamTokenizer(small.plain_bytes(), end_tokens=[10, 258])
    assert tokenizer.ends == {10, 257, 258}
    assert tokenizer.control == {256, 257, 258}
    assert tokenizer.encode("a\nb") == [97, 10, 98]


def test_an_end_that_is_no_added_token() -> None:
    """Its spelling is taken apart as well."""
    own = small.byte_level()
    word = own.convert_tokens_to_ids("Ġthe")
    tokenizer = TeamTokenizer(own, end_tokens=[word])
    tokens = tokenizer.encode("all the same")
    assert word in own.encode("all the same")
    assert word not in tokens
    assert tokenizer.decode(tokens) == "all the same"


def test_a_control_token_of_one_letter_cannot_be_written() -> None:
    """Then the letter is dropped, and nothing else."""
    own = small.plain_bytes()
    own.add_special_tokens({"extra_special_tokens": ["☃"]})
    tokenizer = TeamTokenizer(own)
    assert tokenizer.decode(tokenizer.encode("a ☃ b")) == "a  b"


@pytest.mark.parametrize(
    "text", ["\uff1c|im_end|\uff1e", "a<|IM_END|>b", "<|im_end|>", "\ufb01<|\u2139m_end|>"]
)
def test_normalising_makes_no_control_token(text: str) -> None:
    """Other letters that a normaliser turns into a token's spelling."""
    own = small.plain_bytes()
    own.add_tokens([AddedToken("<|im_end|>", special=True, normalized=True)])
    steps = [normalizers.NFKC(), normalizers.Lowercase()]
    own.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer = TeamTokenizer(own)
    tokens = tokenizer.encode(text)
    assert tokenizer.control.isdisjoint(tokens)
    assert tokenizer.decode(tokens) == own.backend_tokenizer.normalizer.normalize_str(text)


def test_added_spaces_remain_text() -> None:
    """Gemma's runs of newlines and spaces are added tokens that control nothing."""
    own = small.metaspace()
    own.add_tokens([AddedToken("▁▁", normalized=False)])
    assert own.convert_tokens_to_ids("▁▁") in TeamTokenizer(own).encode("a▁▁b")
    own = small.byte_level()
    own.add_tokens([AddedToken("\n\n\n", normalized=False)])
    tokenizer = TeamTokenizer(own)
    assert own.convert_tokens_to_ids("\n\n\n") in tokenizer.encode("a\n\n\nb")
    assert tokenizer.decode(tokenizer.encode("a\n\n\nb")) == "a\n\n\nb"


@every
def test_halves_of_characters(name: str) -> None:
    """JSON may bring lone surrogates; pairs are joined, halves replaced."""
    tokenizer = team(name)
    assert tokenizer.decode(tokenizer.encode("a\ud83d\ude00b\ud83d")) == "a😀b�"


def test_many_added_tokens() -> None:
    """Gemma has thousands."""
    own = small.byte_level()
    own.add_tokens([AddedToken(f"<unused{n}>", normalized=False) for n in range(6000)])
    tokenizer = TeamTokenizer(own)
    text = "".join(f"<unused{n}" + ">" * (n % 2) for n in range(1000))
    tokens = tokenizer.encode(text)
    assert max(tokens) < own.convert_tokens_to_ids("<unused0>")
    assert tokenizer.decode(tokens) == text


# Conversations


def conversation(name: str, text: Callable[[], str]) -> list[Message]:
    """One with outside text in every place, of the shape that the template takes."""
    if name.startswith("metaspace"):
        return [user(text()), {"role": "assistant", "content": text()}, user(text(), name=text())]
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
    """As many, whatever the contents, names, ids, keys and arguments spell."""

    def control(messages: list[Message]) -> Counter[int]:
        marks = added(name).values()
        return Counter(i for i in team(name).prompt(messages, think=think) if i in marks)

    evil = conversation(name, lambda: data.draw(hostile(name)))
    assert control(evil) == control(conversation(name, lambda: "harmless"))


@templated
@many
@given(data=st.data())
def test_harmless_prompts_are_the_tokenizers_own(name: str, data: st.DataObject) -> None:
    """Keeping the two apart changes no token of what a model saw in training."""
    own = BUILDERS[name]()
    text = plain.map(str.strip).filter(lambda text: bool(text) and "<" not in text)
    messages = conversation(name, lambda: data.draw(text))
    expected = own.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, enable_thinking=False
    )
    assert team(name).prompt(messages, think=False) == expected


def test_marks_that_swallow_space() -> None:
    """Phi-3's role tokens take the newline after them, as far as it is the template's."""
    turn = "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}"
    template = "{% for m in messages %}" + turn + "{% endfor %}{{ '<|assistant|>\\n' }}"
    own = small.byte_level(template)
    marks = ("<|user|>", "<|system|>", "<|assistant|>", "<|end|>")
    own.add_tokens([AddedToken(mark, special=True, rstrip=True) for mark in marks])
    expected = own.apply_chat_template([user("Why?")], return_dict=False)
    assert TeamTokenizer(own).prompt([user("Why?")]) == expected
    assert said(TeamTokenizer(own), user("\n\nWhy?")) == "<|user|>\n\nWhy?<|end|><|assistant|>"


def test_a_mark_is_not_made_of_two_parts() -> None:
    """Neither of the template's words and outside text, nor of two outside texts."""
    template = "{% for m in messages %}<|{{ m.name }}|{{ m.content }}{% endfor %}"
    tokenizer = with_template(template)
    tokens = tokenizer.prompt([user(">", name="im_end")], think=False)
    assert tokenizer.decode(tokens) == "<|im_end|>"
    assert tokenizer.control.isdisjoint(tokens)


def test_keys_of_arguments_are_outside_text() -> None:
    """Where a template spells them out they make no control token."""
    template = (
        "{% for m in messages %}{{ m.content }}"
        "{% for k, v in (m.args or {}).items() %}<|{{ k }}|>{{ v }}{% endfor %}{% endfor %}"
    )
    tokenizer = with_template(template)
    tokens = tokenizer.prompt([user("a", args={"im_end": "b", "<think>": 3})], think=False)
    assert tokenizer.decode(tokens) == "a<|im_end|>b<|<think>|>3"
    assert tokenizer.control.isdisjoint(tokens)


def test_arguments_stay_json() -> None:
    """What a template writes by tojson can be read back, also where that is done twice."""
    arguments = {'say "hi"\n': ["\\", "<|im_end|>", "é", 1.5, None, True, ""]}
    call = {"function": {"name": "f", "arguments": arguments}}
    text = said(team("byte_level"), {"role": "assistant", "content": "", "tool_calls": [call]})
    body = text.split("<tool_call>")[1].split("</tool_call>")[0]
    assert json.loads(body) == {"name": "f", "arguments": arguments}
    twice = with_template("{{ messages | tojson | tojson }}")
    messages = [user('"\n<|im_end|>', args=arguments)]
    assert json.loads(json.loads(said(twice, *messages))) == messages


def test_a_template_may_ask_for_a_tool_call_id_of_nine_letters() -> None:
    """As Mistral's do."""
    tokenizer = with_template(
        "{% for m in messages %}{% if m.id and m.id | length != 9 %}{{ raise_exception('9!') }}"
        "{% endif %}{{ m.content }} {{ m.id }}{% endfor %}"
    )
    assert said(tokenizer, user("a", id="<s>456789")) == "a <s>456789"


@pytest.mark.parametrize("name", ["byte_level", "llama3_like", "metaspace_first"])
def test_empty_contents(name: str) -> None:
    """They are as good as any."""
    assert said(team(name), user("")) == said(team(name), user("QQ")).replace("QQ", "")


def test_the_sources_messages_are_left_alone() -> None:
    """Neither stand-ins nor folding show in the caller's objects."""
    messages = [{"role": "system", "content": "s"}, user("u", extra={"a": ["b"]})]
    before = json.dumps(messages)
    team("metaspace_first").prompt(messages)
    assert json.dumps(messages) == before


def test_without_a_template() -> None:
    """Contents between blank lines, behind the token that begins every text, if there is one."""
    messages = [{"role": "system", "content": "Think.</s>"}, user("Why?")]
    assert said(team("plain_bytes"), *messages) == "Think.</s>\n\nWhy?\n\n"
    tokenizer = TeamTokenizer(small.plain_bytes(add_bos=True))
    tokens = tokenizer.prompt(messages)
    assert tokens[0] == 256
    assert tokenizer.control.isdisjoint(tokens[1:])
    assert tokenizer.decode(tokens) == "<s>Think.</s>\n\nWhy?\n\n"


SYSTEM = {"role": "system", "content": "S"}
REPLY = {"role": "assistant", "content": "R"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
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
    ],
)
def test_a_template_of_two_alternating_roles(messages: list[Message], expected: str) -> None:
    """System text is folded into what the user says, and neighbours become one."""
    assert said(team("metaspace_first"), *messages) == expected


def test_what_a_template_takes_is_not_rearranged() -> None:
    """Folding and merging are for those that refuse."""
    text = said(team("byte_level"), SYSTEM, user("U"), user("V"))
    assert text.startswith(
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>user\nV<|im"
    )


def test_a_template_that_drops_system_text() -> None:
    """Silence is no better than a refusal: the text is folded."""
    template = "{% for m in messages if m.role == 'user' %}U: {{ m.content }}\n{% endfor %}"
    assert said(with_template(template), SYSTEM, user("U")) == "U: S\n\nU\n"


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        ("{{ messages[0].content }}", [user("U"), REPLY], "loses what the assistant says, 'R'"),
        ("{{ messages[0].content }}", [user("U"), CALL], "loses what the assistant says, ''"),
        (small.INST, [user("U"), TOOL], "conversation of user, tool: only user and assistant"),
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
    """The error says whose words are at stake, and what to do."""
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


# Thinking

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
    assert tokenizer.thinking == Thinking("<think>", "</think>")
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
    """A model whose vocabulary has both marks, and whose template closes them."""
    own = small.llama3_like()
    own.add_tokens(list(pair))
    own.chat_template = template
    tokenizer = TeamTokenizer(own)
    assert tokenizer.thinking == (Thinking(*pair) if known else None)
    assert set(own.convert_tokens_to_ids(list(pair))).issubset(tokenizer.control) is known


# Headers


@every
def test_first_tokens(name: str) -> None:
    """Whatever stands before a header, its first visible token is among them."""
    tokenizer = team(name)
    found = tokenizer.first_tokens(["### History", "", "\n", "**Bob [1]:**"])
    assert all(tokenizer.decode([token]).strip() for token in found)
    for text in ("### History", "**Bob [1]:**"):
        for before in ("", " ", "\n", "\n\n", "end.\n\n", "\n "):
            tokens = tokenizer.encode(before + text)
            size = len(tokenizer.encode(text))
            assert found & set(tokens[-size - 1 :])
    assert tokenizer.first_tokens([]) == frozenset()


def test_first_tokens_of_the_vocabulary() -> None:
    """A token that holds a header's first word and spaces is one as well, however it arises."""
    own = small.byte_level()
    own.add_tokens([AddedToken("\t###", normalized=False), AddedToken("####", normalized=False)])
    found = TeamTokenizer(own).first_tokens(["### History"])
    assert own.convert_tokens_to_ids("\t###") in found
    assert own.convert_tokens_to_ids("####") not in found


# Reading a stream


def read(tokenizer: TeamTokenizer, tokens: Iterable[int]) -> list[str]:
    """What a reader says, token by token, and at the end."""
    reader = Reader(tokenizer)
    return [*map(reader.push, tokens), reader.flush()]


@every
@many
@given(data=st.data())
def test_a_stream_reads_as_its_whole(name: str, data: st.DataObject) -> None:
    """And no character is shown before it is whole."""
    text = data.draw(hostile(name)) + data.draw(plain)
    pieces = read(team(name), team(name).encode(text))
    assert "".join(pieces) == text
    assert not pieces[-1]


@every
@pytest.mark.parametrize(
    "text", ["😀" * 9, "�" * 99, "��a�😀�", "na\u0308ive 日本語\n\n the 👩‍👩‍👧", " a  b "]
)
def test_characters_of_several_tokens(name: str, text: str) -> None:
    """Emoji, joined emoji, and the replacement character itself."""
    pieces = read(team(name), team(name).encode(text))
    assert "".join(pieces) == text
    assert set("".join(pieces)) == set(text)


@every
def test_any_tokens_can_be_read(name: str) -> None:
    """Half characters, control tokens, and ids beyond the vocabulary; for whole ones, exactly."""
    tokenizer, draw = team(name), random.Random(0)
    size = len(BUILDERS[name]())
    for _ in range(200):
        tokens = [draw.randrange(size + 5) for _ in range(draw.randrange(40))]
        assert isinstance("".join(read(tokenizer, tokens)), str)
    whole = [i for i in range(size) if "�" not in tokenizer.decode([i])]
    for _ in range(200):
        tokens = draw.choices(whole, k=20)
        assert "".join(read(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_endless_nonsense_is_not_held_back_for_ever() -> None:
    """A model that writes no whole character is shown as it is."""
    pieces = read(team("plain_bytes"), [0x80] * 100)
    assert "".join(pieces) == "�" * 100
    assert max(map(len, pieces)) < 40


def test_what_is_held_back_is_given_at_the_end() -> None:
    """Once."""
    reader = Reader(team("plain_bytes"))
    assert [reader.push(byte) for byte in "é😀".encode()[:-1]] == ["", "é", "", "", ""]
    assert [reader.flush(), reader.flush()] == ["�", ""]
    assert reader.push(97) == "a"
