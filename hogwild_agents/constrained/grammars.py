"""Grammars: what keeps a reply to a call of a tool or to a JSON schema.

A grammar is compiled before any work, and fails there if it must. While the reply is written it
masks the tokens that may come next, and whatever can come in one way only is written at once,
without a forward pass of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hogwild_agents.constrained.completion import (
    Alphabet,
    Hints,
    Pathfinder,
    least_text,
    matcher_of_bytes,
)
from hogwild_agents.constrained.json_schema import LeastTexts, Separators, closed, parts_of
from hogwild_agents.errors import GrammarError
from hogwild_agents.team import TeamTokenizer
from hogwild_agents.team.tool_format import HERMES, ToolCallFormat

DEFAULT = Separators(*HERMES.separators)


class Tool(NamedTuple):
    """Something that a reply may call; `parameters` is the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]

    @property
    def schema(self) -> Mapping[str, Any]:
        """Of the arguments, which are an object even where that is not said."""
        return {"type": "object", **self.parameters}


class Study(NamedTuple):
    """A schema that a grammar can hold.

    Attributes:
        schema: Closed, and without parts that have no end.
        words: Texts that may come next on the way to an end, the shortest first.
        contents: What strings with limits may hold.
    """

    schema: Mapping[str, Any]
    words: Sequence[str]
    contents: Sequence[str]


def study(schema: Mapping[str, Any], separators: Separators = DEFAULT) -> Study:
    """Looks whether a grammar can hold a schema; needs no model, not even its tokenizer.

    Args:
        schema: Of JSON.
        separators: As the JSON is to have them.

    Raises:
        GrammarError: It cannot, or nothing fits the schema that ever ends.
    """
    return _study(json.dumps(schema), separators)


@lru_cache(maxsize=256)
def _study(dumped: str, separators: Separators) -> Study:
    schema = json.loads(dumped)
    if reason := _refusal(closed(schema)):
        raise GrammarError(_REFUSED.format(_named(schema, reason)))
    least = LeastTexts(schema, least_text, separators)
    if "" in least.endless:
        raise GrammarError(_REFUSED.format(_endless(schema, least.endless)))
    return Study(closed(schema, least.endless), least.words(), least.contents())


_REFUSED = (
    "No grammar can hold what was asked for: {}. Simplify the schema, or leave out what is named "
    "here."
)


def _refusal(schema: Any) -> str | None:
    """Why no grammar can hold a schema; None if one can."""
    return _reason(matcher_of_bytes(schema))


def _reason(matcher: LLMatcher) -> str | None:
    """What a matcher says is wrong with its grammar, in one line."""
    if not matcher.is_error():
        return None
    told, _, _ = matcher.get_error().partition("\n   1 | ")
    told = told.partition("JSON schema: ")[2] or told
    lines = [line.strip() for line in told.splitlines() if line.strip(" ^")]
    return f"{lines[0]} {lines[-1]}"[:240] if len(lines) > 1 else lines[0][:240]


def _named(schema: Any, reason: str) -> str:
    """A reason why no grammar can hold a schema, with the part that is to blame."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    for pointer, part in parts_of(schema):
        own = _refusal({**shared, **part}) if isinstance(part, Mapping) else None
        if (
            own
            and pointer
            and (own == reason or ("nsatisfiable" in own and "nsatisfiable" in reason))
        ):
            pattern = f", pattern {part['pattern']!r:.80}" if "pattern" in part else ""
            return f"{own} (at #{pointer}{pattern})"
    return reason


def _endless(schema: Any, endless: Iterable[str]) -> str:
    """Which part of a schema holds itself."""
    parts = dict(parts_of(schema))
    refers = [one for one in parts if one in endless and "$ref" in json.dumps(parts[one])]
    inside = [one for one in refers if one.startswith(str(parts[one].get("$ref")).lstrip("#"))]
    told = next(iter([*inside, *refers]), "")
    return f"no text fits it that ends, as #{told} holds itself ({json.dumps(parts[told]):.80})"


class Grammar:
    """A grammar, ready for any number of replies.

    Args:
        compiler: Of the tokenizer whose tokens it allows.
        lark: The grammar in llguidance's Lark.
        studies: Of the schemas in it.
        opening: Where free text ends, if replies may begin with some.
        marks: Control tokens that bring a reply to its end.

    Raises:
        GrammarError: It asks for something that no grammar can express.
    """

    def __init__(
        self,
        compiler: GrammarCompiler,
        lark: str,
        studies: Sequence[Study],
        opening: str | None = None,
        marks: Sequence[int] = (),
    ) -> None:
        self.compiler = compiler
        self.opening = opening
        self._studies = studies
        self._marks = marks
        source = LLMatcher.grammar_from_lark(lark)
        self._matcher = LLMatcher(compiler.tokenizer, source, log_level=0)
        if reason := _reason(self._matcher):
            raise GrammarError(_REFUSED.format(reason))

    def guide(self) -> GrammarGuide:
        """A guide for one reply."""
        return GrammarGuide(self, self._matcher.deep_copy())

    @cached_property
    def hints(self) -> Hints:
        """What is likely to lead to the end."""
        words = {word.encode() for study in self._studies for word in study.words}
        contents = {text.encode() for study in self._studies for text in study.contents}
        end = self.compiler.tokenizer.eos_token
        return Hints(sorted(words, key=len), sorted(contents, key=len), self._marks, end)


class GrammarGuide:
    """Keeps one reply to a grammar, as `hogwild_agents.team.reply_writer.Guide` describes.

    Args:
        grammar: Of the reply.
        matcher: At the grammar's beginning.
    """

    def __init__(self, grammar: Grammar, matcher: LLMatcher) -> None:
        self.opening = grammar.opening
        self._grammar = grammar
        self._compiler = grammar.compiler
        self._matcher = matcher
        self._written: list[int] = []
        self._ending: list[int] | None = None

    @property
    def done(self) -> bool:
        """Whether the reply is whole, with nothing that could follow."""
        return bool(self._matcher.is_stopped())

    def begin(self) -> Sequence[int]:
        """The ids that the reply must begin with; at least one token is left to be drawn."""
        forced = self._compiler.take_forced(self._matcher)
        if self.done:
            self._matcher.rollback(1)
            forced = forced[:-1]
        self._written += forced
        return forced

    def allowed(self) -> Tensor:
        """What may be drawn next, bool [vocab]."""
        size = self._compiler.tokenizer.vocab_size
        if self._ending:
            only = torch.zeros(size, dtype=torch.bool)
            only[self._ending[0]] = True
            return only
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=size, bitorder="little")).bool()

    def take(self, token: int) -> Sequence[int]:
        """Follows the token drawn; returns the ids that must come after it."""
        self._matcher.consume_token(token)
        if self._ending and not self._matcher.is_error():
            follow = [one for one in self._ending[1:] if one not in self._compiler.ends]
            self._ending = self._ending[1 + len(follow) :]
            self._matcher.consume_tokens(follow)
        else:
            follow = [] if self._matcher.is_error() else self._compiler.take_forced(self._matcher)
        if self._matcher.is_error():
            raise GrammarError(f"The grammar broke down: {self._matcher.get_error().strip()}.")
        self._written += [token, *follow]
        return follow

    def hurry(self, room: int) -> bool:
        """Heads for the end; whether it can be reached in so many more tokens."""
        if self._ending is None:
            finder = Pathfinder(
                self._compiler.alphabet, self._grammar.hints, self._compiler.take_forced
            )
            self._ending = finder.ending(self._matcher, self._form(), room)
        return self._ending is not None

    def _form(self) -> bytes:
        """What was written, without the free text that it may begin with."""
        written = self._compiler.tokenizer.decode_bytes(self._written)
        return written[max(0, written.find((self.opening or "").encode())) :]


class GrammarCompiler:
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
        self.alphabet = Alphabet(self.tokenizer)
        self.ends = tokenizer.ends
        self._text = tokenizer

    def take_forced(self, matcher: LLMatcher) -> list[int]:
        """Takes all that can come in one way only, and returns its ids."""
        taken: list[int] = []
        while not matcher.is_stopped() and (forced := matcher.compute_ff_tokens()):
            for token in forced:
                ids = [token]
                if matcher.validate_tokens(ids) == 0:  # it looks like a mark
                    ids = self._text.encode(self._text.decode([token]))
                if not matcher.consume_tokens(ids):
                    raise GrammarError(f"The grammar broke down: {matcher.get_error()}.")
                taken += ids
        return taken

    def structure(self, schema: Mapping[str, Any]) -> Grammar:
        """JSON that fits a schema, and nothing else."""
        studied = study(schema, Separators(*HERMES.separators))
        return Grammar(self, f"start: json\n{_json('json', studied, HERMES)}", [studied])

    def calls(
        self,
        tools: Sequence[Tool],
        form: ToolCallFormat,
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
        separators = Separators(*form.separators)
        studies = [study(tool.schema, separators) for tool in tools]
        rules = [
            f"one_{n}: {json.dumps(tool.name)} {self._literal(form.between)} arguments_{n}\n"
            + _json(f"arguments_{n}", studied, form)
            for n, (tool, studied) in enumerate(zip(tools, studies, strict=True))
        ]
        rules.append("one: " + " | ".join(f"one_{n}" for n in range(len(tools))))
        more = f" ({self._literal(form.link)} one)*" if several and form.link else ""
        after = f"one{more} {self._literal(form.closing)}"
        if forced:
            start = f"start: {self._literal(form.opening)} {after}"
        elif schema is not None:
            studies.append(study(schema, separators))
            json_rule = _json("json", studies[-1], form)
            start = f"start: {self._literal(form.opening)} {after} | json\n{json_rule}"
        else:
            start = self._text_and_calls(form.opening, after)
        opening = None if forced or schema is not None else _mark(form.opening)
        links = [*self._text.pieces(form.link or "")]
        closing = [piece for piece in self._text.pieces(form.closing) if isinstance(piece, int)]
        marks = [piece for piece in closing if piece not in links]  # no further call, if it may
        return Grammar(self, "\n".join([start, *rules]), studies, opening, marks)

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


def _json(rule: str, studied: Study, form: ToolCallFormat) -> str:
    """The rule for JSON that fits a schema, with a form's white space."""
    item, key = form.separators
    spaces = {"whitespace_flexible": False, "item_separator": item, "key_separator": key}
    return f"{rule}: %json {json.dumps({**studied.schema, 'x-guidance': spaces})}"
