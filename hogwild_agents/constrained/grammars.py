"""Grammars that restrict a reply to tool calls, or to JSON that fits a schema.

A grammar is compiled before any work, so what it cannot express is refused early. While the reply
is written, it masks the tokens that may come next; tokens without an alternative are added at once,
without a forward pass of their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from hogwild_agents.constrained.completion import (
    ByteTokens,
    Completer,
    CompletionHints,
    byte_matcher,
    shortest_text,
)
from hogwild_agents.constrained.json_schema import (
    Separators,
    ShortestTexts,
    close_objects,
    subschemas,
)
from hogwild_agents.errors import GrammarError
from hogwild_agents.team import TeamTokenizer
from hogwild_agents.team.tool_format import HERMES, ToolCallFormat

DEFAULT_SEPARATORS = Separators(*HERMES.separators)


class ToolSchema(NamedTuple):
    """A tool that a reply may call; `parameters` is the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The schema of the arguments, which are an object even if `parameters` do not say so."""
        return {"type": "object", **self.parameters}


class SchemaAnalysis(NamedTuple):
    """A schema that a grammar can express, with what helps to complete texts that fit it.

    Attributes:
        schema: The schema with closed objects, without endless parts.
        candidates: Texts that may come next on the way to the end, the shortest first.
        strings: Contents of strings that have limits.
    """

    schema: Mapping[str, Any]
    candidates: Sequence[str]
    strings: Sequence[str]


def analyze_schema(
    schema: Mapping[str, Any], separators: Separators = DEFAULT_SEPARATORS
) -> SchemaAnalysis:
    """Finds out whether a grammar can express a schema; needs no model and no tokenizer.

    Args:
        schema: A JSON schema.
        separators: Those that the JSON must have.

    Raises:
        GrammarError: No grammar can express it, or no finite text fits it.
    """
    return _analyze(json.dumps(schema), separators)


@lru_cache(maxsize=256)
def _analyze(schema_json: str, separators: Separators) -> SchemaAnalysis:
    schema = json.loads(schema_json)
    if error := _schema_error(close_objects(schema)):
        raise GrammarError(_REFUSAL.format(_locate(error, schema)))
    texts = ShortestTexts(schema, shortest_text, separators)
    if "" in texts.endless:
        raise GrammarError(_REFUSAL.format(_describe_endless(schema, texts.endless)))
    return SchemaAnalysis(close_objects(schema, texts.endless), texts.candidates(), texts.strings())


_REFUSAL = (
    "No grammar can express the schema: {}. Simplify it, or leave out the part that is named here."
)


def _schema_error(schema: Any) -> str | None:
    """Why no grammar can express a schema; None if one can."""
    return _matcher_error(byte_matcher(schema))


def _matcher_error(matcher: LLMatcher) -> str | None:
    """What a matcher reports as wrong with its grammar, in one line."""
    if not matcher.is_error():
        return None
    message, _, _ = matcher.get_error().partition("\n   1 | ")
    message = message.partition("JSON schema: ")[2] or message
    lines = [line.strip() for line in message.splitlines() if line.strip(" ^")]
    return f"{lines[0]} {lines[-1]}"[:240] if len(lines) > 1 else lines[0][:240]


def _locate(error: str, schema: Any) -> str:
    """The error of a schema, with the innermost part that causes it."""
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    for pointer, part in subschemas(schema):
        own_error = _schema_error({**definitions, **part}) if isinstance(part, Mapping) else None
        if (
            own_error
            and pointer
            and (own_error == error or ("nsatisfiable" in own_error and "nsatisfiable" in error))
        ):
            pattern = f", pattern {part['pattern']!r:.80}" if "pattern" in part else ""
            return f"{own_error} (at #{pointer}{pattern})"
    return error


def _describe_endless(schema: Any, endless: Collection[str]) -> str:
    """Which part of a schema contains itself."""
    parts = dict(subschemas(schema))
    references = [
        pointer for pointer in parts if pointer in endless and "$ref" in json.dumps(parts[pointer])
    ]
    inside = [
        pointer
        for pointer in references
        if pointer.startswith(str(parts[pointer].get("$ref")).lstrip("#"))
    ]
    pointer = next(iter([*inside, *references]), "")
    part = f"{json.dumps(parts[pointer]):.80}"
    return f"no finite text fits it, as #{pointer} contains itself ({part})"


class Grammar:
    """A compiled grammar, for any number of replies.

    Args:
        compiler: The compiler for the tokenizer whose tokens it allows.
        lark: The grammar in llguidance's dialect of Lark.
        analyses: Those of the schemas in it.
        opening: The text that ends free text, if replies may begin with free text.
        closing_ids: Control tokens that bring a reply to its end.

    Raises:
        GrammarError: The grammar cannot be compiled.
    """

    def __init__(
        self,
        compiler: GrammarCompiler,
        lark: str,
        analyses: Sequence[SchemaAnalysis],
        opening: str | None = None,
        closing_ids: Sequence[int] = (),
    ) -> None:
        self.compiler = compiler
        self.opening = opening
        self._analyses = analyses
        self._closing_ids = closing_ids
        source = LLMatcher.grammar_from_lark(lark)
        self._matcher = LLMatcher(compiler.tokenizer, source, log_level=0)
        if error := _matcher_error(self._matcher):
            raise GrammarError(_REFUSAL.format(error))

    def guide(self) -> GrammarGuide:
        """A guide for one reply."""
        return GrammarGuide(self, self._matcher.deep_copy())

    @cached_property
    def hints(self) -> CompletionHints:
        """What is likely to lead to the end of a reply."""
        texts = {text.encode() for analysis in self._analyses for text in analysis.candidates}
        strings = {text.encode() for analysis in self._analyses for text in analysis.strings}
        end_id = self.compiler.tokenizer.eos_token
        return CompletionHints(
            sorted(texts, key=len), sorted(strings, key=len), self._closing_ids, end_id
        )


class GrammarGuide:
    """Restricts one reply to a grammar, as `hogwild_agents.team.reply_writer.Guide` describes.

    Args:
        grammar: The grammar.
        matcher: A matcher of it, at the beginning.
    """

    def __init__(self, grammar: Grammar, matcher: LLMatcher) -> None:
        self.opening = grammar.opening
        self._grammar = grammar
        self._compiler = grammar.compiler
        self._matcher = matcher
        self._written: list[int] = []
        self._completion: list[int] | None = None

    @property
    def done(self) -> bool:
        """Whether the reply is complete and nothing can follow."""
        return bool(self._matcher.is_stopped())

    def begin(self) -> Sequence[int]:
        """The ids that the reply must begin with. At least one token remains to be drawn."""
        forced = self._compiler.take_forced(self._matcher)
        if self.done:
            self._matcher.rollback(1)
            forced = forced[:-1]
        self._written += forced
        return forced

    def allowed(self) -> Tensor:
        """The tokens that may be drawn next, bool [vocab]."""
        size = self._compiler.tokenizer.vocab_size
        if self._completion:
            mask = torch.zeros(size, dtype=torch.bool)
            mask[self._completion[0]] = True
            return mask
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=size, bitorder="little")).bool()

    def take(self, token: int) -> Sequence[int]:
        """Accepts the drawn token; returns the ids that must follow it and are not drawn."""
        self._matcher.consume_token(token)
        following: list[int] = []
        if self._completion and not self._matcher.is_error():
            ends = self._compiler.ends
            following = [next_id for next_id in self._completion[1:] if next_id not in ends]
            self._completion = self._completion[1 + len(following) :]
            self._matcher.consume_tokens(following)
        elif not self._matcher.is_error():
            following = self._compiler.take_forced(self._matcher)
        if self._matcher.is_error():
            raise GrammarError(f"The grammar broke down: {self._matcher.get_error().strip()}.")
        self._written += [token, *following]
        return following

    def hurry(self, room: int) -> bool:
        """From now on allows only what leads to the end; says if `room` more tokens reach it."""
        if self._completion is None:
            completer = Completer(
                self._compiler.byte_tokens, self._grammar.hints, self._compiler.take_forced
            )
            self._completion = completer.complete(self._matcher, self._restricted_text(), room)
        return self._completion is not None

    def _restricted_text(self) -> bytes:
        """What was written, without the free text that it may begin with."""
        written = self._compiler.tokenizer.decode_bytes(self._written)
        return written[max(0, written.find((self.opening or "").encode())) :]


class GrammarCompiler:
    """Makes grammars for one tokenizer; slow to make for a large vocabulary.

    Args:
        tokenizer: The model's tokenizer.

    Raises:
        GrammarError: The tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: TeamTokenizer) -> None:
        from llguidance.hf import from_tokenizer  # slow, as transformers is
        from transformers import PreTrainedTokenizerFast

        plain = tokenizer.plain
        if not isinstance(plain, PreTrainedTokenizerFast):
            raise GrammarError(
                f"Tools and schemas need a fast tokenizer, and {type(plain).__name__} is not one: "
                "convert it with AutoTokenizer.from_pretrained(..., use_fast=True)."
            )
        ends = sorted(tokenizer.ends)
        self.tokenizer: LLTokenizer = from_tokenizer(plain, eos_token=ends)
        self.byte_tokens = ByteTokens(self.tokenizer)
        self.ends = tokenizer.ends
        self._team_tokenizer = tokenizer

    def take_forced(self, matcher: LLMatcher) -> list[int]:
        """Moves a matcher past all tokens that have no alternative, and returns them."""
        taken: list[int] = []
        while not matcher.is_stopped() and (forced := matcher.compute_ff_tokens()):
            for token in forced:
                ids = [token]
                if matcher.validate_tokens(ids) == 0:  # text that looks like a control token
                    ids = self._team_tokenizer.encode(self._team_tokenizer.decode([token]))
                if not matcher.consume_tokens(ids):
                    raise GrammarError(f"The grammar broke down: {matcher.get_error()}.")
                taken += ids
        return taken

    def compile_schema(self, schema: Mapping[str, Any]) -> Grammar:
        """A grammar of JSON that fits a schema.

        Raises:
            GrammarError: No grammar can express it.
        """
        analysis = analyze_schema(schema)
        return Grammar(self, f"start: json\n{_json_rule('json', analysis, HERMES)}", [analysis])

    def compile_calls(
        self,
        tools: Sequence[ToolSchema],
        call_format: ToolCallFormat,
        *,
        forced: bool,
        several: bool = True,
        schema: Mapping[str, Any] | None = None,
    ) -> Grammar:
        """A grammar of tool calls.

        Args:
            tools: The tools that may be called.
            call_format: How the model writes calls.
            forced: Whether there must be a call; else there may be text, before calls or alone.
            several: Whether there may be more than one call.
            schema: What a reply without a call must fit; None allows any text.

        Raises:
            GrammarError: No grammar can express it.
        """
        separators = Separators(*call_format.separators)
        analyses = [analyze_schema(tool.arguments, separators) for tool in tools]
        rules = [
            f"one_{n}: {json.dumps(tool.name)} {self._literal(call_format.between)} arguments_{n}\n"
            + _json_rule(f"arguments_{n}", analysis, call_format)
            for n, (tool, analysis) in enumerate(zip(tools, analyses, strict=True))
        ]
        rules.append("one: " + " | ".join(f"one_{n}" for n in range(len(tools))))
        link, closing = call_format.link, call_format.closing
        more = f" ({self._literal(link)} one)*" if several and link else ""
        calls = f"one{more} {self._literal(closing)}"
        if forced:
            start = f"start: {self._literal(call_format.opening)} {calls}"
        elif schema is not None:
            analyses.append(analyze_schema(schema, separators))
            json_rule = _json_rule("json", analyses[-1], call_format)
            start = f"start: {self._literal(call_format.opening)} {calls} | json\n{json_rule}"
        else:
            start = self._text_and_calls(call_format.opening, calls)
        opening = None if forced or schema is not None else _first_word(call_format.opening)
        pieces = self._team_tokenizer.pieces
        link_pieces = [*pieces(link or "")]  # these would begin another call
        closing_ids = [
            piece
            for piece in pieces(closing)
            if isinstance(piece, int) and piece not in link_pieces
        ]
        return Grammar(self, "\n".join([start, *rules]), analyses, opening, closing_ids)

    def _literal(self, text: str) -> str:
        """A text of the call format in Lark, with control tokens by their ids."""
        parts = [
            f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece, ensure_ascii=False)
            for piece in self._team_tokenizer.pieces(text)
        ]
        return " ".join(parts) or '""'

    def _text_and_calls(self, opening: str, calls: str) -> str:
        """The rules for free text that may turn into calls where the opening of a call begins."""
        first = next(self._team_tokenizer.pieces(opening))
        if isinstance(first, int):  # free text never contains a control token
            return f"start: TEXT ({self._literal(opening)} {calls})?\nTEXT: /(?s:.*)/"
        word = _first_word(opening)
        rest = self._literal(opening[opening.index(word) + len(word) :])
        escaped = "".join(f"\\x{{{ord(letter):x}}}" for letter in word)
        return (
            f"start: TEXT | before {rest} {calls}\n"
            f"TEXT: /(?s:.*)/ & ~/(?s:.*){escaped}(?s:.*)/\n"
            f"before[lazy]: /(?s:.*){escaped}/"
        )


def _first_word(opening: str) -> str:
    """The part of an opening that shows that a call begins, without white space around it."""
    return opening.split()[0]


def _json_rule(rule: str, analysis: SchemaAnalysis, call_format: ToolCallFormat) -> str:
    """The rule for JSON that fits a schema, with the white space of a call format."""
    item, key = call_format.separators
    spaces = {"whitespace_flexible": False, "item_separator": item, "key_separator": key}
    return f"{rule}: %json {json.dumps({**analysis.schema, 'x-guidance': spaces})}"
