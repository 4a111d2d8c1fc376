"""Endings: a short way from anywhere in a grammar to its end.

Only a grammar's matcher knows what may come. It is asked about what is likely to lead to the end:
what closes an object or a list, least texts of the schema, and where none of these fits,
single bytes, level by level, until the string or number under way is whole. So whatever is found
fits the grammar; it need not be the very shortest.
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

_WORK = 30_000
"""Tries for one ending; a thousand take some 10 ms."""
_WIDTH, _CHILDREN, _ALIKE = 16, 16, 2
"""Places kept on each level, bytes tried at each, and places kept where the same may come next."""
_LONGEST = 1024
"""Bytes of the least text of a string or number."""
_CLOSING = (b"}", b"]")
_STRUCTURE = b'}],:"{['
"""What comes between strings and numbers."""
_COMMON = b'"01a@.-:/\\TZA+_ '
_GROUPS = (_COMMON, range(48, 58), range(97, 123), range(65, 91), range(32, 127))
_ORDER = bytes(dict.fromkeys(byte for group in _GROUPS for byte in group))
"""Bytes in the order in which they are tried."""
_STRANGE = bytes(range(127, 256)) + bytes(range(32))
"""Bytes that are tried where no other may come."""
_BEFORE_VALUES = (b"", b"[", b"{", b":", b",", b" ")


class Alphabet:
    """A tokenizer's ids of single bytes.

    Args:
        tokenizer: The grammar's.
    """

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self.tokenizer = tokenizer
        self._ids: dict[int, int] = {}
        for byte in range(256):
            ids = tokenizer.tokenize_bytes(bytes([byte]))
            if len(ids) == 1 and tokenizer.decode_bytes(ids) == bytes([byte]):
                self._ids[byte] = ids[0]
        self.common = [(byte, [self._ids[byte]]) for byte in _ORDER if byte in self._ids]
        self.strange = [(byte, [self._ids[byte]]) for byte in _STRANGE if byte in self._ids]
        self.structure = [[self._ids[byte]] for byte in _STRUCTURE if byte in self._ids]

    def spell(self, text: bytes) -> list[int] | None:
        """The ids of a text's bytes; None if there are none for one of them."""
        ids = [self._ids[byte] for byte in text if byte in self._ids]
        return ids if len(ids) == len(text) else None


@dataclass(frozen=True, slots=True)
class Hints:
    """What is likely to lead to a grammar's end.

    Attributes:
        words: Values, and what closes an object; the shortest first.
        contents: What strings may hold.
        marks: Ids of control tokens that close.
        end: Ends a text that could go on.
    """

    words: Sequence[bytes] = ()
    contents: Sequence[bytes] = ()
    marks: Sequence[int] = ()
    end: int | None = None


_BYTES = LLTokenizer("byte")


def matcher_of_bytes(schema: Mapping[str, Any]) -> LLMatcher:
    """A matcher of single bytes for JSON that fits a schema."""
    spaces = {"whitespace_flexible": False}
    source = json.dumps({**schema, "x-guidance": spaces})
    return LLMatcher(_BYTES, LLMatcher.grammar_from_lark(f"start: %json {source}"), log_level=0)


def least_text(schema: Mapping[str, Any]) -> str:
    """A short text that fits the schema of a string or a number."""
    return _least_text(json.dumps(schema))


@lru_cache(maxsize=1024)
def _least_text(dumped: str) -> str:
    schema = json.loads(dumped)
    tries = [schema]
    if "pattern" in schema:
        tries.insert(0, {**schema, "pattern": f"^({_at_least(schema['pattern'])})$"})
    finder = Pathfinder(_ALPHABET, Hints(), _take_forced)
    for one in tries:
        matcher = matcher_of_bytes(one)
        ids = None if matcher.is_error() else finder.ending(matcher, b"", _LONGEST)
        if ids is not None:
            return _BYTES.decode_str(ids)
    return '""' if schema["type"] == "string" else "0"


_REGEX = re.compile(
    r"(?P<kept>\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<none>[*?]\??)|(?P<one>\+\??)"
    r"|\{(?P<least>\d+)(?:,\d*)?\}\??|(?P<anchor>[\^$])|\(\?P?[:<]?|.",
    re.DOTALL,
)


def _at_least(pattern: str) -> str:
    """A pattern with the fewest repetitions, and without anchors."""

    def least(found: re.Match[str]) -> str:
        if found["none"]:
            return "{0}"
        if found["least"]:
            return "{" + found["least"] + "}"
        return "" if found["one"] or found["anchor"] else found[0]

    return _REGEX.sub(least, pattern)


_ALPHABET = Alphabet(_BYTES)


def _take_forced(matcher: LLMatcher) -> list[int]:
    ids: list[int] = matcher.compute_ff_tokens()
    matcher.consume_tokens(ids)
    return ids


@dataclass(frozen=True, slots=True)
class _Place:
    """A place on the way.

    Attributes:
        matcher: Is there.
        ids: Lead there.
        quoted: Whether it is within a string.
        escaped: Whether a backslash stands before it, in a string.
        text: What stands before it.
    """

    matcher: LLMatcher
    ids: Sequence[int] = ()
    quoted: bool = False
    escaped: bool = False
    text: bytes = b""


class Pathfinder:
    """Finds an ending, once.

    Args:
        alphabet: Of the grammar's tokenizer.
        hints: What is likely to lead there.
        forced: Takes what can come in one way only, and returns its ids.
    """

    def __init__(
        self, alphabet: Alphabet, hints: Hints, forced: Callable[[LLMatcher], list[int]]
    ) -> None:
        self._alphabet = alphabet
        self._hints = hints
        self._take_forced = forced
        self._work = 0

    def ending(self, matcher: LLMatcher, text: bytes, room: int) -> list[int] | None:
        """Ids that bring a text to its end, or None if none are found.

        Args:
            matcher: Where the text stands; it stays there.
            text: What stands there, from where quotes begin to count.
            room: The most ids.
        """
        self._work = 0
        place: _Place | None = _read(_Place(matcher.deep_copy()), text)
        while place is not None and len(place.ids) <= room:
            if place.matcher.is_accepting():
                return self._ended(place, room)
            place = self._onward(place)
        return None

    def _ended(self, place: _Place, room: int) -> list[int] | None:
        ids = [*place.ids]
        if not place.matcher.is_stopped() and self._hints.end is not None:
            ids.append(self._hints.end)
        return ids if len(ids) <= room else None

    def _onward(self, place: _Place) -> _Place | None:
        """The next place on the way, if there is any."""
        for way in (self._close, self._say, self._force, self._seek):
            if (further := way(place)) is not None:
                return further
        return None

    def _close(self, place: _Place) -> _Place | None:
        """Behind the end of an object, a list or a call."""
        if place.quoted:
            return None
        marks = (self._step(place, [mark], b"") for mark in self._hints.marks)
        ends = (self._write(place, text) for text in _CLOSING)
        return next((further for further in (*marks, *ends) if further is not None), None)

    def _say(self, place: _Place) -> _Place | None:
        """Behind the shortest word that may stand here."""
        if place.quoted:
            return None
        for word in self._hints.words:
            if word[0] not in b",:" and place.text[-1:] not in _BEFORE_VALUES:
                continue
            head = self._alphabet.spell(word[:16])  # most long words fail here, which is quick
            if head and place.matcher.validate_tokens(head) == len(head):
                further = self._write(place, word)
                if further is not None:
                    return further
        return None

    def _force(self, place: _Place) -> _Place | None:
        """Behind all that can come in one way only."""
        matcher = place.matcher.deep_copy()
        ids = self._take_forced(matcher)
        text = self._alphabet.tokenizer.decode_bytes(ids)
        further = replace(place, matcher=matcher, ids=(*place.ids, *ids))
        return _read(further, text) if ids else None

    def _seek(self, place: _Place) -> _Place | None:
        """Behind the string or the number that stands here."""
        level = [(place, self._next_bytes(place))]
        while level and self._work < _WORK:
            kept: list[tuple[_Place, bytes]] = []
            alike: Counter[bytes] = Counter()
            for further in (child for parent in level for child in self._children(*parent)):
                if self._between(further):
                    return self._write(place, further.text[len(place.text) :])
                if len(kept) < _WIDTH:
                    following = self._next_bytes(further)
                    alike[following] += 1
                    if alike[following] <= _ALIKE:
                        kept.append((further, following))
            level = sorted(kept, key=lambda one: len(one[1]))  # the less may come, the nearer
        return None

    def _children(self, place: _Place, following: bytes) -> Iterator[_Place]:
        """Places behind what a string may hold, or one byte further."""
        contents = self._hints.contents if place.quoted else ()
        for text in (*contents, *(bytes([byte]) for byte in following[:_CHILDREN])):
            if (further := self._write(place, text)) is not None:
                yield further

    def _next_bytes(self, place: _Place) -> bytes:
        """Bytes that may come next, those that are tried first in front."""
        self._work += 10
        validate = place.matcher.validate_tokens
        for order in (self._alphabet.common, self._alphabet.strange):
            found = bytes(byte for byte, ids in order if validate(ids))
            if found:
                return found
        return b""

    def _between(self, place: _Place) -> bool:
        """Whether a string or a number is whole here."""
        if place.quoted:
            return False
        if place.matcher.is_accepting() or place.matcher.compute_ff_tokens():
            return True
        return any(place.matcher.validate_tokens(ids) for ids in self._alphabet.structure)

    def _write(self, place: _Place, text: bytes) -> _Place | None:
        """Behind a text, if it may stand here."""
        ids = self._alphabet.spell(text)
        further = ids and self._step(place, ids, text)
        if not further or len(text) == 1:
            return further or None
        fewer = self._alphabet.tokenizer.tokenize_bytes(text)
        return (len(fewer) < len(text) and self._step(place, fewer, text)) or further

    def _step(self, place: _Place, ids: list[int], text: bytes) -> _Place | None:
        """Behind these ids, if they may stand here."""
        self._work += 1
        if place.matcher.validate_tokens(ids) < len(ids):
            return None
        matcher = place.matcher.deep_copy()
        matcher.consume_tokens(ids)
        return _read(replace(place, matcher=matcher, ids=(*place.ids, *ids)), text)


def _read(place: _Place, text: bytes) -> _Place:
    """A place with what its text tells: whether it lies within a string."""
    quoted, escaped = place.quoted, place.escaped
    for byte in text:
        if byte == ord('"') and not escaped:
            quoted = not quoted
        escaped = quoted and byte == ord("\\") and not escaped
    return replace(place, quoted=quoted, escaped=escaped, text=place.text + text)
