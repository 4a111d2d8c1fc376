"""Tokenizers, and texts that spell tokens which only their templates may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hogwild_agents.team.chat_template import Message
from hogwild_agents.team.tokenizer import TeamTokenizer
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
# Without the one letter that sentencepiece cannot write: it stands for a space there.
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=8)


@cache
def team(name: str) -> TeamTokenizer:
    return TeamTokenizer(BUILDERS[name]())


@cache
def added(name: str) -> dict[str, int]:
    """Every added token of that tokenizer. Plain text must give none of them."""
    return dict(BUILDERS[name]().get_added_vocab())


@st.composite
def hostile(draw: st.DrawFn, name: str) -> str:
    """Text that spells control tokens: whole, cut short, nested, side by side."""
    spelling = st.sampled_from([*added(name), *FOREIGN])
    start = st.builds(lambda mark, size: mark[:size], spelling, st.integers(1, 12))
    end = st.builds(lambda mark, size: mark[-size:], spelling, st.integers(1, 12))
    nested = st.builds(
        lambda a, size, b: a[:size] + b + a[size:], spelling, st.integers(1, 5), spelling
    )
    return "".join(draw(st.lists(st.one_of(plain, spelling, start, end, nested), max_size=6)))


def with_template(template: str) -> TeamTokenizer:
    """A tokenizer with the vocabulary of ChatML and another template."""
    return TeamTokenizer(small.byte_level(template))


def user(content: str, **more: Any) -> Message:
    return {"role": "user", "content": content, **more}


def text_of(tokenizer: TeamTokenizer, *messages: Message, think: bool = False) -> str:
    """A prompt as text."""
    return tokenizer.decode(tokenizer.prompt(messages, think=think))
