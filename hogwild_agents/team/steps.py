"""Steps: how one begins, how one ends, and what no text from outside may look like.

A step is a finished paragraph of a worker's reasoning. The system writes its prefix,
`**Bob [3]:** `, and the headers between the parts of a view; workers write the rest.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from unicodedata import category, normalize

SEPARATOR = "\n\n"
"""A blank line; between steps, and around headers."""

HISTORY_HEADER = "### History"
OTHERS_HEADER = "### Work in progress: others"
OWN_HEADER = "### Work in progress: own"
REPLY_HEADER = "### Reply"
HEADERS = (HISTORY_HEADER, OTHERS_HEADER, OWN_HEADER, REPLY_HEADER)

PAUSE = "<...>"
"""Stands where the others' unfinished steps break off, before a worker's own."""

NOTE_LABEL = "**Note from the user:** "
"""Before what a user says while a team is thinking."""

SENTENCE_ENDS = tuple(".?!…。！？．｡।॥؟۔։།၊။។៕።፧᠃᠉‽⁇⁈⁉¶❧")  # noqa: RUF001
"""Marks that end a sentence, in the scripts that have one."""

CLOSERS = " \"'’”»)]}*_`」』）】〉》$✓✔✅"  # noqa: RUF001
"""What may stand between the end of a sentence and the end of its line."""

LONGEST_STEP = 8192
"""Characters after which a step ends at any blank line: some texts know no marks of a sentence's
end, and what never ends is never committed."""

LONGEST_BLOCK = 8192
"""Characters after which an open block of code or maths counts as none: a mark that somebody forgot
must not keep a step from ever ending."""

MARK = "\u200b"
"""A zero-width space, put into outside text where it looks like the system's own."""

_BLANK_LINE = re.compile(r"\n(?:[^\S\n]*\n)+")
_LIST_MARKER = re.compile(r"[*_]*\d{1,2}\.[*_]*")
_BLOCK_MARK = re.compile(
    r"^[^\S\n]*(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>.*)$"
    r"|(?<!\\)(?P<maths>\$\$|\\[\[\]])",
    re.MULTILINE,
)
_ANY_SPACE, _SOME_SPACE = r"[\s*_]*", r"[\s*_]+"  # emphasis counts as space
_CLOSING = {"$$": "$$", "\\[": "\\]"}


def prefix(worker: str, index: int) -> str:
    """How a worker's step begins: `**Bob [3]:** `."""
    return f"**{worker} [{index}]:** "


def ends_step(text: str, new: int | None = None) -> bool:
    """Whether a step that holds `text` so far is finished.

    It is once a blank line follows the end of a sentence, unless a block of code or display maths
    is still open (Rodionov et al., arXiv 2504.06261, appendix). Ours are: maths, closing marks,
    blocks and boxed answers that end a step themselves, and the end of steps that are very long.
    The marker of a list's item ends no sentence.

    Args:
        text: What the step holds.
        new: How many of its last characters have just come: only a blank line that they complete
            counts. A tokenizer may have merged it with what stands before and after it. None for
            all of the text.
    """
    since = 0 if new is None else len(text) - new
    return any(
        _ends_thought(text[: blank.start()].rstrip())
        for blank in _BLANK_LINE.finditer(text, max(0, text.rfind("\n", 0, since)))
    )


def _ends_thought(text: str) -> bool:
    """Whether nothing is left open at the end of `text`; its last line is read first."""
    last = text.rpartition("\n")[2].strip()
    sentence = last.rstrip(CLOSERS).endswith(SENTENCE_ENDS) and not _LIST_MARKER.fullmatch(last)
    block = last.startswith(("```", "~~~")) or last.endswith(("$$", "\\]"))
    answer = "\\boxed{" in last and last.rstrip(" *$").endswith("}")
    return (sentence or block or answer or len(text) > LONGEST_STEP) and not _in_block(text)


def _in_block(text: str) -> bool:
    """Whether a block of code or display maths has begun and not ended."""
    closing, since = "", 0
    for mark in _BLOCK_MARK.finditer(text):
        fence, info, maths = mark["fence"], mark["info"], mark["maths"]
        if closing.startswith(("`", "~")):
            if fence and fence.startswith(closing) and not info.strip():
                closing = ""
        elif fence:
            closing, since = fence, mark.start()
        elif not closing and maths in _CLOSING:
            closing, since = _CLOSING[maths], mark.start()
        elif maths == closing:
            closing = ""
    return bool(closing) and len(text) - since <= LONGEST_BLOCK


class Disguise:
    """Makes outside text unlike the system's own, so that it can only ever be read as text.

    A zero-width space goes into whatever reads as a step's prefix, a header, a pause, the label of
    a note or another of the system's words: in upper or lower case, with or without emphasis and
    accents, widely spaced, or in other forms of the same letters. All else stays as it is.

    Args:
        workers: The team's names.
        words: What else only the system says, such as an interrupt's question.
    """

    def __init__(self, workers: Sequence[str], words: Iterable[str] = ()) -> None:
        names = "|".join(map(_loosely, workers))
        index = rf"\[\s*\d+\s*\]{_ANY_SPACE}:"
        forms = [
            rf"(?<![a-z0-9])(?:{names}){_SOME_SPACE}{index}",
            rf"[*_]\s*(?:{names}){index}",  # without emphasis it may be code, `bob[3]:`
            *map(_loosely, (*HEADERS, PAUSE, NOTE_LABEL, *words)),
        ]
        self._forms = re.compile(f"(?=({'|'.join(filter(None, forms))}))")

    def __call__(self, text: str) -> str:
        """`text` with a mark after the first character of every form that it must not have."""
        plain = [_plain(letter) for letter in text]
        starts = [*accumulate(map(len, plain), initial=0)]
        found = self._forms.finditer("".join(plain))
        places = [(bisect_right(starts, form.start()), form.end(1)) for form in found]
        cuts = sorted({place for place, end in places if end > starts[place]})
        return MARK.join(text[start:end] for start, end in pairwise([0, *cuts, len(text)]))


@lru_cache(maxsize=4096)
def _plain(letter: str) -> str:
    """A letter without its case, accents and width, as a tokenizer may come to read it."""
    folded = normalize("NFKD", normalize("NFKD", letter).casefold())
    return "".join(part for part in folded if category(part) != "Mn")


def _loosely(text: str) -> str:
    """A pattern for `text`, with any emphasis and space between its words and signs."""
    parts = re.findall(r"[^\W_]+|[^\w\s*]+", "".join(map(_plain, text)))
    pattern = "".join(map(re.escape, parts[:1]))
    for before, part in pairwise(parts):
        space = _SOME_SPACE if before[-1].isalnum() and part[0].isalnum() else _ANY_SPACE
        pattern += space + re.escape(part)
    return pattern
