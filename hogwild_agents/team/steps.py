"""Steps: how one begins, how one ends, and what no text from outside may look like.

A step is a finished paragraph of a worker's reasoning. The system writes its prefix,
`**Bob [3]:** `, and the headers between the parts of a view; workers write the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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

SENTENCE_ENDS = ".?!…。！？．｡।॥؟۔։།၊။።፧᠃᠉‽⁇⁈⁉¶❧"  # noqa: RUF001
"""Marks that end a sentence, in the scripts that have one."""

CLOSERS = "\"'’”»)]}*_`」』）】〉》$"  # noqa: RUF001
"""What may stand between the end of a sentence and the blank line after it."""

MARK = "\u200b"
"""A zero-width space, put into outside text where it looks like the system's own."""

_BLANK_LINE = re.compile(r"\n(?:[ \t\r]*\n)+")
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})(.*)$", re.MULTILINE)


def prefix(worker: str, index: int) -> str:
    """How a worker's step begins: `**Bob [3]:** `."""
    return f"**{worker} [{index}]:** "


def ends_step(text: str, new: int | None = None) -> bool:
    """Whether a step that holds `text` so far is finished.

    It is once a blank line follows the end of a sentence, unless a block of code or display maths
    is still open (Rodionov et al., arXiv 2504.06261, appendix; maths and closing marks are ours).

    Args:
        text: What the step holds.
        new: How many of its last characters have just come: only a blank line that they complete
            counts. A tokenizer may have merged it with what stands before and after it. None for
            all of the text.
    """
    since = 0 if new is None else len(text) - new
    blanks = [*_BLANK_LINE.finditer(text, max(0, text.rfind("\n", 0, since)))]
    if not blanks or blanks[-1].end() <= since:
        return False
    blank = blanks[-1]
    body = text[: blank.start()].rstrip()
    if _open_fence(body) or body.count("$$") % 2 or body.count("\\[") > body.count("\\]"):
        return False
    return body.rstrip(CLOSERS).endswith(tuple(SENTENCE_ENDS)) or _ends_block(body)


def _open_fence(text: str) -> bool:
    """Whether a fenced code block has begun and not ended."""
    fence = ""
    for match in _FENCE.finditer(text):
        marks, rest = match.groups()
        if not fence:
            fence = marks
        elif marks[0] == fence[0] and len(marks) >= len(fence) and not rest.strip():
            fence = ""
    return bool(fence)


def _ends_block(body: str) -> bool:
    """Whether the last line closes a block of code or maths, which ends a thought as well."""
    last = body.rpartition("\n")[2].strip()
    return last.startswith(("```", "~~~")) or last.endswith(("$$", "\\]"))


class Disguise:
    """Makes outside text unlike the system's own, so that it can only ever be read as text.

    A zero-width space goes into whatever looks like a step's prefix, a header, the label of a note
    or an interrupt's question. All else stays as it is.

    Args:
        workers: The team's names.
        questions: What its interrupts ask.
    """

    def __init__(self, workers: Sequence[str], questions: Iterable[str] = ()) -> None:
        names = "|".join(re.escape(name) for name in workers)
        forms = [rf"\*\*\s*(?:{names})\s*\[\s*\d+\s*\]\s*:"]
        for fixed in (*HEADERS, NOTE_LABEL, *questions):
            words = [re.escape(word) for word in fixed.split()]
            if words:
                forms.append(r"\s+".join(words))
        self._forms = re.compile("|".join(forms), re.IGNORECASE)

    def __call__(self, text: str) -> str:
        """`text` with a mark after the first character of every form that it must not have."""
        return self._forms.sub(lambda found: found[0][0] + MARK + found[0][1:], text)
