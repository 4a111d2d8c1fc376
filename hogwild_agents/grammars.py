"""Grammars: what keeps a reply to a call of a tool or to a JSON schema.

A grammar is compiled before any work, and fails there if it must. While the reply is written it
masks the tokens that may come next, and whatever can come in one way only is written at once,
without a forward pass of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hogwild_agents.engine import HogwildError
from hogwild_agents.team import TeamTokenizer
from hogwild_agents.team.calls import HERMES, CallForm

_ENDINGS = ('"', "}", "]", ",", "Z")
"""What brings JSON to its end, the quickest first; within a string that is its end, elsewhere it
would begin another, so brackets come first."""

_BY_NAME = ("properties", "$defs", "definitions")
"""Keys of a schema that hold schemas by name."""
_PARTS = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf")
"""Keys of a schema that hold schemas of whole values."""
_TOGETHER = frozenset({"allOf", "if", "patternProperties"})
_BESIDE = frozenset({"anyOf", "oneOf", "$ref"})
"""Keys that add further schemas, always or beside properties."""


class GrammarError(HogwildError, ValueError):
    """A reply cannot be kept to what was asked for."""


class Tool(NamedTuple):
    """Something that a reply may call; `parameters` is the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]


class Grammar:
    """A grammar, ready for any number of replies.

    Args:
        compiler: Of the tokenizer whose tokens it allows.
        lark: The grammar in llguidance's Lark.
        opening: Where free text ends, if replies may begin with some.
        endings: Control tokens that bring a reply to its end.

    Raises:
        GrammarError: It asks for something that no grammar can express.
    """

    def __init__(
        self,
        compiler: Compiler,
        lark: str,
        opening: str | None = None,
        endings: Sequence[int] = (),
    ) -> None:
        self._compiler = compiler
        self._endings = endings
        self._opening = opening
        source = LLMatcher.grammar_from_lark(lark)
        self._matcher = LLMatcher(compiler.tokenizer, source, log_level=0)
        if self._matcher.is_error():
            why = self._matcher.get_error().strip().splitlines()[0].rpartition("schema: ")[2]
            raise GrammarError(
                f"No grammar can hold what was asked for: {why}. Simplify the schema, or leave out "
                "what is named here."
            )

    def guide(self) -> GrammarGuide:
        """A guide for one reply."""
        return GrammarGuide(self._matcher.deep_copy(), self._compiler, self._opening, self._endings)


class GrammarGuide:
    """Keeps one reply to a grammar, as `hogwild_agents.team.finishers.Guide` describes.

    Args:
        matcher: At the grammar's beginning.
        compiler: Of the tokenizer.
        opening: Where free text ends, or None if there is none.
        endings: Control tokens that bring the reply to its end.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        compiler: Compiler,
        opening: str | None,
        endings: Sequence[int] = (),
    ) -> None:
        self._endings = endings
        self.opening = opening
        self._matcher = matcher
        self._compiler = compiler
        self._hurried = False

    @property
    def done(self) -> bool:
        """Whether the reply is whole, with nothing that could follow."""
        return bool(self._matcher.is_stopped())

    def begin(self) -> Sequence[int]:
        """The ids that the reply must begin with; at least one token is left to be drawn."""
        forced = self._follow()
        if self.done:
            self._matcher.rollback(1)
            forced = forced[:-1]
        return forced

    def allowed(self) -> Tensor:
        """What may be drawn next, bool [vocab]."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        size = self._compiler.tokenizer.vocab_size
        allowed = torch.from_numpy(np.unpackbits(bits, count=size, bitorder="little")).bool()
        return self._quickest(allowed) if self._hurried else allowed

    def take(self, token: int) -> Sequence[int]:
        """Follows the token drawn; returns the ids that must come after it."""
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise GrammarError(f"The grammar broke down: {self._matcher.get_error().strip()}.")
        return self._follow()

    def hurry(self) -> None:
        """Allows from now on only what brings the reply to its end soon."""
        self._hurried = True

    def _follow(self) -> Sequence[int]:
        """Takes all that can come in one way only."""
        taken: list[int] = []
        while not self.done and (forced := self._matcher.compute_ff_tokens()):
            for token in forced:
                ids = [token]
                if self._matcher.validate_tokens(ids) == 0:  # it looks like a mark
                    ids = self._compiler.spelled(token)
                if not self._matcher.consume_tokens(ids):
                    raise GrammarError(f"The grammar broke down: {self._matcher.get_error()}.")
                taken += ids
        return taken

    def _quickest(self, allowed: Tensor) -> Tensor:
        """Of the allowed tokens the one that leads to the end soonest."""
        for token in (*self._endings, *self._compiler.endings_where(allowed)):
            if allowed[token]:
                allowed = torch.zeros_like(allowed)
                allowed[token] = True
                break
        return allowed


class Compiler:
    """Makes grammars for one tokenizer; costly to make for a large vocabulary.

    Args:
        tokenizer: The model's.

    Raises:
        GrammarError: The tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: TeamTokenizer) -> None:
        plain = tokenizer.plain
        if not isinstance(plain, PreTrainedTokenizerFast):
            raise GrammarError(
                f"Tools and schemas need a fast tokenizer, and {type(plain).__name__} is none: "
                "convert it with AutoTokenizer.from_pretrained(..., use_fast=True)."
            )
        ends = sorted(tokenizer.ends)
        self.tokenizer: LLTokenizer = from_tokenizer(plain, eos_token=ends)
        self._text = tokenizer
        self._ends = ends
        single = {text: tokenizer.encode(text) for text in (*_ENDINGS, "q")}
        self._single = {text: ids[0] for text, ids in single.items() if len(ids) == 1}

    def spelled(self, token: int) -> list[int]:
        """The ids of a control token's text as plain text."""
        return self._text.encode(self._text.decode([token]))

    def endings_where(self, allowed: Tensor) -> list[int]:
        """Ids that bring a reply to its end, the quickest first.

        Args:
            allowed: What may come next, bool [ids of the tokenizer].
        """
        inside = "q" not in self._single or bool(allowed[self._single["q"]])  # of a string
        order = _ENDINGS if inside else (*_ENDINGS[1:3], *_ENDINGS)
        return [*self._ends, *(self._single[text] for text in order if text in self._single)]

    def structure(self, schema: Mapping[str, Any]) -> Grammar:
        """JSON that fits a schema, and nothing else."""
        return Grammar(self, f"start: json\n{_json('json', schema, HERMES)}")

    def calls(
        self,
        tools: Sequence[Tool],
        form: CallForm,
        *,
        forced: bool,
        several: bool = True,
        schema: Mapping[str, Any] | None = None,
    ) -> Grammar:
        """Calls of tools in a model's own form.

        Args:
            tools: What may be called.
            form: How calls are written.
            forced: Whether there must be a call; else there may be text, before calls or alone.
            several: Whether there may be more calls than one.
            schema: What a reply without a call must fit, if anything.
        """
        rules = [
            f"one_{n}: {json.dumps(tool.name)} {self._literal(form.between)} arguments_{n}\n"
            + _json(f"arguments_{n}", {"type": "object", **tool.parameters}, form)
            for n, tool in enumerate(tools)
        ]
        rules.append("one: " + " | ".join(f"one_{n}" for n in range(len(tools))))
        more = f" ({self._literal(form.link)} one)*" if several and form.link else ""
        after = f"one{more} {self._literal(form.closing)}"
        if forced:
            start = f"start: {self._literal(form.opening)} {after}"
        elif schema is not None:
            json_rule = _json("json", schema, form)
            start = f"start: {self._literal(form.opening)} {after} | json\n{json_rule}"
        else:
            start = self._text_and_calls(form.opening, after)
        opening = None if forced or schema is not None else _mark(form.opening)
        links = [*self._text.pieces(form.link or "")]
        closing = [piece for piece in self._text.pieces(form.closing) if isinstance(piece, int)]
        endings = [piece for piece in closing if piece not in links]  # no further call, if it may
        return Grammar(self, "\n".join([start, *rules]), opening, endings)

    def _literal(self, text: str) -> str:
        """A form's own text in Lark, with control tokens by their ids."""
        parts = [
            f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece, ensure_ascii=False)
            for piece in self._text.pieces(text)
        ]
        return " ".join(parts) or '""'

    def _text_and_calls(self, opening: str, after: str) -> str:
        """The rules for free text, which may turn into calls where a call's opening begins."""
        first = next(self._text.pieces(opening))
        if isinstance(first, int):  # text never holds a control token
            return f"start: TEXT ({self._literal(opening)} {after})?\nTEXT: /(?s:.*)/"
        mark = _mark(opening)
        rest = self._literal(opening[opening.index(mark) + len(mark) :])
        escaped = "".join(f"\\x{{{ord(letter):x}}}" for letter in mark)
        return (
            f"start: TEXT | before {rest} {after}\n"
            f"TEXT: /(?s:.*)/ & ~/(?s:.*){escaped}(?s:.*)/\n"
            f"before[lazy]: /(?s:.*){escaped}/"
        )


def _mark(opening: str) -> str:
    """What shows that a call begins, whatever white space a model puts after it."""
    return opening.split()[0]


def _json(rule: str, schema: Mapping[str, Any], form: CallForm) -> str:
    """The rule for JSON that fits a schema, with a form's white space."""
    item, key = form.separators
    spaces = {"whitespace_flexible": False, "item_separator": item, "key_separator": key}
    return f"{rule}: %json {json.dumps({**_closed(schema), 'x-guidance': spaces})}"


def _closed(schema: Any) -> Any:
    """A schema whose objects hold what they name and nothing else, unless they say so themselves.

    What is put together from several schemas stays open, as each part would shut out the others.
    """
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, Mapping) or not _TOGETHER.isdisjoint(schema):
        return schema
    if "properties" in schema and not _BESIDE.isdisjoint(schema):
        return schema
    closed = {
        key: {name: _closed(part) for name, part in value.items()}
        if key in _BY_NAME and isinstance(value, Mapping)
        else _closed(value)
        if key in _PARTS
        else value
        for key, value in schema.items()
    }
    if "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed
