"""Sanitising text from outside, so that it can never be taken for the system's own words.

Users, tools, notes and interrupts may write anything. What looks like a step's prefix, a header or
another of the system's texts gets a zero-width space. It then reads the same, but has other ids.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any
from unicodedata import category, normalize

from hogwild_agents.team.steps import HEADERS, NOTE_LABEL, PAUSE

ZERO_WIDTH_SPACE = "\u200b"
"""Goes into outside text where that looks like the system's own."""

_ANY_SPACE, _SOME_SPACE = r"[\s*_]*", r"[\s*_]+"  # emphasis counts as space


class Sanitizer:
    """Makes outside text unlike the system's own, so that a model can only read it as text.

    A zero-width space goes into everything that reads as a step's prefix, a header, a pause, the
    label of a note or one of `phrases`: in upper or lower case, with or without emphasis and
    accents, widely spaced, or in other forms of the same letters. All other text stays unchanged.

    Args:
        workers: The names of the team's workers.
        phrases: Other texts that only the system writes, such as an interrupt's question.
    """

    def __init__(self, workers: Sequence[str], phrases: Iterable[str] = ()) -> None:
        names = "|".join(map(_loose_pattern, workers))
        index = rf"\[\s*\d+\s*\]{_ANY_SPACE}:"
        patterns = [
            rf"(?<![a-z0-9])(?:{names}){_SOME_SPACE}{index}",
            rf"[*_]\s*(?:{names}){index}",  # without emphasis it may be code, `bob[3]:`
            *map(_loose_pattern, (*HEADERS, PAUSE, NOTE_LABEL, *phrases)),
        ]
        self._official = re.compile(f"(?=({'|'.join(filter(None, patterns))}))")

    def __call__(self, text: str) -> str:
        """`text` with a zero-width space after the first character of every match."""
        folded = [_fold(letter) for letter in text]
        starts = [*accumulate(map(len, folded), initial=0)]
        matches = self._official.finditer("".join(folded))
        spans = [(bisect_right(starts, match.start()), match.end(1)) for match in matches]
        cuts = sorted({cut for cut, end in spans if end > starts[cut]})
        parts = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
        return ZERO_WIDTH_SPACE.join(parts)

    def nested(self, value: Any) -> Any:
        """`value` with every text in it sanitised, including the keys of mappings."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {self.nested(key): self.nested(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.nested(item) for item in value]
        return value


@lru_cache(maxsize=4096)
def _fold(letter: str) -> str:
    """A letter without its case, accents and width, as a tokenizer's normaliser may read it."""
    folded = normalize("NFKD", normalize("NFKD", letter).casefold())
    return "".join(part for part in folded if category(part) != "Mn")


def _loose_pattern(text: str) -> str:
    """A pattern for `text` that allows any emphasis and space between its words and signs."""
    parts = re.findall(r"[^\W_]+|[^\w\s*]+", "".join(map(_fold, text)))
    pattern = "".join(map(re.escape, parts[:1]))
    for before, part in pairwise(parts):
        space = _SOME_SPACE if before[-1].isalnum() and part[0].isalnum() else _ANY_SPACE
        pattern += space + re.escape(part)
    return pattern
