"""Completion: short ways from anywhere in a grammar to its end.

Only a grammar's matcher knows which tokens may come next. It is asked about those that are likely
to lead to the end: first what closes an object or a list, then short texts that fit the schema, and
if none of these fits, single bytes, level by level, until the current string or number is complete.
So every completion fits the grammar; it may not be the shortest.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer

_MAX_TRIES = 30_000
"""Tries for one completion; a thousand take about 10 ms."""
_MATCHER_TRIES = 10
"""What it counts to ask a matcher about every byte."""
_MAX_STATES, _MAX_BYTES, _MAX_ALIKE = 16, 16, 2
"""In a search: states per level, bytes tried in each, and states whose next bytes agree."""
_MAX_SHORTEST = 1024
"""Bytes of the shortest text of a string or number."""
_CLOSING = (b"}", b"]")
_STRUCTURE = b'}],:"{['
"""Bytes between strings and numbers."""
_COMMON = b'"01a@.-:/\\TZA+_ '
_GROUPS = (_COMMON, range(48, 58), range(97, 123), range(65, 91), range(32, 127))
_ORDER = bytes(dict.fromkeys(byte for group in _GROUPS for byte in group))
"""Bytes in the order in which they are tried."""
_RARE = bytes(range(127, 256)) + bytes(range(32))
"""Bytes that are tried where none of the others may come."""
_BEFORE_VALUES = (b"", b"[", b"{", b":", b",", b" ")


class ByteTokens:
    """The tokens of a tokenizer that are single bytes.

    Args:
        tokenizer: The grammar's tokenizer.
    """

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self.tokenizer = tokenizer
        self._ids: dict[int, int] = {}
        for byte in range(256):
            ids = tokenizer.tokenize_bytes(bytes([byte]))
            if len(ids) == 1 and tokenizer.decode_bytes(ids) == bytes([byte]):
                self._ids[byte] = ids[0]
        self.common = [(byte, [self._ids[byte]]) for byte in _ORDER if byte in self._ids]
        self.rare = [(byte, [self._ids[byte]]) for byte in _RARE if byte in self._ids]
        self.structure = [[self._ids[byte]] for byte in _STRUCTURE if byte in self._ids]

    def encode(self, text: bytes) -> list[int] | None:
        """One id for each byte; None if a byte has no token of its own."""
        ids = [self._ids[byte] for byte in text if byte in self._ids]
        return ids if len(ids) == len(text) else None


@dataclass(frozen=True, slots=True)
class CompletionHints:
    """What is likely to lead to the end of a grammar.

    Attributes:
        texts: Values, and texts that close objects, the shortest first.
        strings: Contents of strings.
        closing_ids: Ids of control tokens that close something.
        end_id: The token that ends a text which could go on; None if there is none.
    """

    texts: Sequence[bytes] = ()
    strings: Sequence[bytes] = ()
    closing_ids: Sequence[int] = ()
    end_id: int | None = None


_BYTE_TOKENIZER = LLTokenizer("byte")


def byte_matcher(schema: Mapping[str, Any]) -> LLMatcher:
    """A matcher of single bytes for JSON that fits a schema."""
    spaces = {"whitespace_flexible": False}
    source = json.dumps({**schema, "x-guidance": spaces})
    grammar = LLMatcher.grammar_from_lark(f"start: %json {source}")
    return LLMatcher(_BYTE_TOKENIZER, grammar, log_level=0)


def shortest_text(schema: Mapping[str, Any]) -> str:
    """A short JSON text that fits the schema of a string or a number."""
    return _shortest_text(json.dumps(schema))


@lru_cache(maxsize=1024)
def _shortest_text(schema_json: str) -> str:
    schema = json.loads(schema_json)
    candidates = [schema]
    if "pattern" in schema:
        pattern = f"^({_with_fewest_repetitions(schema['pattern'])})$"
        candidates.insert(0, {**schema, "pattern": pattern})
    completer = Completer(_BYTE_TOKENS, CompletionHints(), _take_forced)
    for candidate in candidates:
        matcher = byte_matcher(candidate)
        ids = None if matcher.is_error() else completer.complete(matcher, b"", _MAX_SHORTEST)
        if ids is not None:
            return _BYTE_TOKENIZER.decode_str(ids)
    return '""' if schema["type"] == "string" else "0"


_REGEX = re.compile(
    r"(?P<literal>\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<zero>[*?]\??)|(?P<once>\+\??)"
    r"|\{(?P<least>\d+)(?:,\d*)?\}\??|(?P<anchor>[\^$])|\(\?P?[:<]?|.",
    re.DOTALL,
)


def _with_fewest_repetitions(pattern: str) -> str:
    """A regular expression whose parts are repeated as seldom as possible, without anchors."""

    def reduce(part: re.Match[str]) -> str:
        if part["zero"]:
            return "{0}"
        if part["least"]:
            return "{" + part["least"] + "}"
        return "" if part["once"] or part["anchor"] else part[0]

    return _REGEX.sub(reduce, pattern)


_BYTE_TOKENS = ByteTokens(_BYTE_TOKENIZER)


def _take_forced(matcher: LLMatcher) -> list[int]:
    ids: list[int] = matcher.compute_ff_tokens()
    matcher.consume_tokens(ids)
    return ids


@dataclass(frozen=True, slots=True)
class _State:
    """A state on the way to the end.

    Attributes:
        matcher: The matcher after these ids.
        ids: The ids so far.
        in_string: Whether the text is within a string.
        escaped: Whether it is, and ends with a backslash that escapes what follows.
        text: The text so far.
    """

    matcher: LLMatcher
    ids: Sequence[int] = ()
    in_string: bool = False
    escaped: bool = False
    text: bytes = b""

    def after(self, text: bytes) -> _State:
        """The state with further text, without its ids."""
        in_string, escaped = self.in_string, self.escaped
        for byte in text:
            if byte == ord('"') and not escaped:
                in_string = not in_string
            escaped = in_string and byte == ord("\\") and not escaped
        return replace(self, in_string=in_string, escaped=escaped, text=self.text + text)


class Completer:
    """Finds completions of texts.

    Args:
        byte_tokens: Of the grammar's tokenizer.
        hints: What is likely to lead to the end.
        take_forced: Moves a matcher past all tokens that have no alternative, and returns them.
    """

    def __init__(
        self,
        byte_tokens: ByteTokens,
        hints: CompletionHints,
        take_forced: Callable[[LLMatcher], list[int]],
    ) -> None:
        self._tries = 0
        self._byte_tokens = byte_tokens
        self._hints = hints
        self._take_forced = take_forced

    def complete(self, matcher: LLMatcher, text: bytes, max_tokens: int) -> list[int] | None:
        """Ids that bring a text to its end, or None if none were found.

        Args:
            matcher: The matcher after the text; it is not moved.
            text: The text, from where quotes begin to count.
            max_tokens: The most ids.
        """
        self._tries = 0
        state: _State | None = _State(matcher.deep_copy()).after(text)
        while state is not None and len(state.ids) <= max_tokens:
            if state.matcher.is_accepting():
                return self._end(state, max_tokens)
            state = self._advance(state)
        return None

    def _end(self, state: _State, max_tokens: int) -> list[int] | None:
        ids = [*state.ids]
        if not state.matcher.is_stopped() and self._hints.end_id is not None:
            ids.append(self._hints.end_id)
        return ids if len(ids) <= max_tokens else None

    def _advance(self, state: _State) -> _State | None:
        """The next state on the way, or None if there is none."""
        for way in (self._close, self._add_hint, self._add_forced, self._search):
            if (successor := way(state)) is not None:
                return successor
        return None

    def _close(self, state: _State) -> _State | None:
        """After the end of an object, a list or a call."""
        if state.in_string:
            return None
        controls = (self._add_ids(state, [token], b"") for token in self._hints.closing_ids)
        brackets = (self._add_text(state, text) for text in _CLOSING)
        return next((after for after in (*controls, *brackets) if after is not None), None)

    def _add_hint(self, state: _State) -> _State | None:
        """After the shortest of the hinted texts that may come here."""
        if state.in_string:
            return None
        for text in self._hints.texts:
            if text[0] not in b",:" and state.text[-1:] not in _BEFORE_VALUES:
                continue
            head = self._byte_tokens.encode(text[:16])  # quick to refuse, as most long texts are
            if head and state.matcher.validate_tokens(head) == len(head):
                successor = self._add_text(state, text)
                if successor is not None:
                    return successor
        return None

    def _add_forced(self, state: _State) -> _State | None:
        """After all tokens that have no alternative."""
        matcher = state.matcher.deep_copy()
        ids = self._take_forced(matcher)
        text = self._byte_tokens.tokenizer.decode_bytes(ids)
        return replace(state, matcher=matcher, ids=(*state.ids, *ids)).after(text) if ids else None

    def _search(self, state: _State) -> _State | None:
        """After the current string or number, by a breadth-first search over bytes."""
        level = [(state, self._next_bytes(state))]
        while level and self._tries < _MAX_TRIES:
            next_level: list[tuple[_State, bytes]] = []
            alike: Counter[bytes] = Counter()
            for successor in (after for before in level for after in self._successors(*before)):
                if self._completes_value(successor):
                    return self._add_text(state, successor.text[len(state.text) :])
                if len(next_level) < _MAX_STATES:
                    following = self._next_bytes(successor)
                    alike[following] += 1
                    if alike[following] <= _MAX_ALIKE:
                        next_level.append((successor, following))
            # The fewer bytes may follow, the nearer the end is likely to be.
            level = sorted(next_level, key=lambda item: len(item[1]))
        return None

    def _successors(self, state: _State, following: bytes) -> Iterator[_State]:
        """States after a hinted content of a string, or after one more byte."""
        strings = self._hints.strings if state.in_string else ()
        for text in (*strings, *(bytes([byte]) for byte in following[:_MAX_BYTES])):
            if (successor := self._add_text(state, text)) is not None:
                yield successor

    def _next_bytes(self, state: _State) -> bytes:
        """The bytes that may come next, in the order in which they are tried."""
        self._tries += _MATCHER_TRIES
        validate = state.matcher.validate_tokens
        for order in (self._byte_tokens.common, self._byte_tokens.rare):
            valid = bytes(byte for byte, ids in order if validate(ids))
            if valid:
                return valid
        return b""

    def _completes_value(self, state: _State) -> bool:
        """Whether a string or number is complete."""
        if state.in_string:
            return False
        if state.matcher.is_accepting() or state.matcher.compute_ff_tokens():
            return True
        return any(state.matcher.validate_tokens(ids) for ids in self._byte_tokens.structure)

    def _add_text(self, state: _State, text: bytes) -> _State | None:
        """After a text, if it may come here; with few tokens if possible."""
        ids = self._byte_tokens.encode(text)
        successor = ids and self._add_ids(state, ids, text)
        if not successor or len(text) == 1:
            return successor or None
        fewer_ids = self._byte_tokens.tokenizer.tokenize_bytes(text)
        return (len(fewer_ids) < len(text) and self._add_ids(state, fewer_ids, text)) or successor

    def _add_ids(self, state: _State, ids: list[int], text: bytes) -> _State | None:
        """After ids of a text, if they may come here."""
        self._tries += 1
        if state.matcher.validate_tokens(ids) < len(ids):
            return None
        matcher = state.matcher.deep_copy()
        matcher.consume_tokens(ids)
        return replace(state, matcher=matcher, ids=(*state.ids, *ids)).after(text)
