"""Text to tokens and back: outside text stays text, and nothing of it is lost."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from hogwild_agents.team.tokenizer import Detokenizer, TeamTokenizer
from tests.unit.team import tokenizers as small
from tests.unit.team.hostile import BUILDERS, added, every, hostile, many, plain, team


@every
@many
@given(data=st.data())
def test_text_gives_no_control_token_and_comes_back(name: str, data: st.DataObject) -> None:
    """Whatever it spells, in one piece or in two."""
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
    """Spaces at either end, no text at all, and the left contexts themselves."""
    tokenizer = team(name)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("ab") + tokenizer.encode(text) * 2) == "ab" + text * 2


@every
def test_text_is_tokenised_as_the_model_knows_it(name: str) -> None:
    """Common words are still one token."""
    tokenizer = team(name)
    text = "the answer is right.\n\n"
    own = BUILDERS[name]().encode("x " + text, add_special_tokens=False)
    assert tokenizer.encode("x " + text)[-5:] == own[-5:]


def test_control_tokens() -> None:
    """Special tokens, ends and thinking tags, but not other added tokens."""
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
    """A token of plain text may be an end, and stays text."""
    tokenizer = TeamTokenizer(small.plain_bytes(), end_tokens=[10, 258])
    assert tokenizer.ends == {10, 257, 258}
    assert tokenizer.control == {256, 257, 258}
    assert tokenizer.encode("a\nb") == [97, 10, 98]


def test_an_end_that_is_no_added_token() -> None:
    """Its spelling is split too."""
    own = small.byte_level()
    word = small.id_of(own, "Ġthe")
    tokenizer = TeamTokenizer(own, end_tokens=[word])
    tokens = tokenizer.encode("all the same")
    assert word in own.encode("all the same")
    assert word not in tokens
    assert tokenizer.decode(tokens) == "all the same"


def test_a_control_token_of_one_letter_cannot_be_written() -> None:
    """The letter is dropped, and nothing else."""
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
    assert small.id_of(own, "▁▁") in TeamTokenizer(own).encode("a▁▁b")
    own = small.byte_level()
    own.add_tokens([AddedToken("\n\n\n", normalized=False)])
    tokenizer = TeamTokenizer(own)
    assert small.id_of(own, "\n\n\n") in tokenizer.encode("a\n\n\nb")
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
    assert max(tokens) < small.id_of(own, "<unused0>")
    assert tokenizer.decode(tokens) == text


@every
def test_first_tokens(name: str) -> None:
    """Whatever precedes a header, its first visible token is among them."""
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
    """A token of a header's first word and spaces is one too, even if no text gives it."""
    own = small.byte_level()
    own.add_tokens([AddedToken("\t###", normalized=False), AddedToken("####", normalized=False)])
    found = TeamTokenizer(own).first_tokens(["### History"])
    assert small.id_of(own, "\t###") in found
    assert small.id_of(own, "####") not in found


def read(tokenizer: TeamTokenizer, tokens: Iterable[int]) -> list[str]:
    """The text that a detokenizer gives for each token, and at the end."""
    reader = Detokenizer(tokenizer)
    return [*map(reader.push, tokens), reader.flush()]


@every
@many
@given(data=st.data())
def test_a_stream_reads_as_its_whole(name: str, data: st.DataObject) -> None:
    """No character comes before it is complete."""
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
    """Half characters, control tokens, unknown ids; complete characters come back exactly."""
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
    """The text of a model that completes no character still comes."""
    pieces = read(team("plain_bytes"), [0x80] * 100)
    assert "".join(pieces) == "�" * 100
    assert max(map(len, pieces)) < 40


def test_what_is_held_back_is_given_at_the_end() -> None:
    """It comes once."""
    reader = Detokenizer(team("plain_bytes"))
    assert [reader.push(byte) for byte in "é😀".encode()[:-1]] == ["", "é", "", "", ""]
    assert [reader.flush(), reader.flush()] == ["�", ""]
    assert reader.push(97) == "a"
