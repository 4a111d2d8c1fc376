"""Steps: how a step begins, how it ends, and the texts that the system writes around steps.

A step is a finished paragraph of a worker's reasoning. The system writes its prefix,
`**Bob [3]:** `, and the headers between the parts of a view. Workers write the rest.
"""

from __future__ import annotations

import re

SEPARATOR = "\n\n"
"""A blank line. It stands between steps and after headers."""

HISTORY_HEADER = "### History"
OTHERS_HEADER = "### Work in progress: others"
OWN_HEADER = "### Work in progress: own"
REPLY_HEADER = "### Reply"
HEADERS = (HISTORY_HEADER, OTHERS_HEADER, OWN_HEADER, REPLY_HEADER)

PAUSE = "<...>"
"""Follows each unfinished step of another worker, to show that it breaks off there."""

NOTE_LABEL = "**Note from the user:** "
"""Precedes what a user says while a team is thinking."""

SENTENCE_ENDS = tuple(".?!…。！？．｡।॥؟۔։།၊။។៕።፧᠃᠉‽⁇⁈⁉¶❧")  # noqa: RUF001
"""Marks that end a sentence, in all scripts that have such marks."""

CLOSERS = " \"'’”»)]}*_`」』）】〉》$✓✔✅"  # noqa: RUF001
"""Characters that may stand between the end of a sentence and the end of its line."""

LONGEST_STEP = 8192
"""Characters after which a step ends at any blank line. Some texts have no marks at the end of a
sentence, and a step that never ends is never committed."""

LONGEST_BLOCK = 8192
"""Characters after which an open block of code or maths no longer counts. A forgotten closing mark
must not keep a step from ever ending."""

_BLANK_LINE = re.compile(r"\n(?:[^\S\n]*\n)+")
_LIST_MARKER = re.compile(r"[*_]*\d{1,2}\.[*_]*")
_BLOCK_MARK = re.compile(
    r"^[^\S\n]*(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>.*)$"
    r"|(?<!\\)(?P<maths>\$\$|\\[\[\]])",
    re.MULTILINE,
)
_CLOSING = {"$$": "$$", "\\[": "\\]"}


def prefix(worker: str, index: int) -> str:
    """How a worker's step begins: `**Bob [3]:** `."""
    return f"**{worker} [{index}]:** "


def ends_step(text: str, new: int | None = None) -> bool:
    """Whether a step that holds `text` so far is finished.

    A step ends when a blank line follows the end of a sentence, unless a block of code or display
    maths is still open (Rodionov et al., arXiv 2504.06261, appendix). We add to the paper's rule:
    display maths, closing marks, whole blocks and boxed answers end a step too, and so does any
    blank line once the step is very long. The marker of a list item ends no sentence.

    Args:
        text: The step so far.
        new: How many of its last characters are new. Only a blank line that they complete counts;
            a tokenizer may have merged it with the text before and after it. None counts all.
    """
    since = 0 if new is None else len(text) - new
    return any(
        _ends_thought(text[: blank.start()].rstrip())
        for blank in _BLANK_LINE.finditer(text, max(0, text.rfind("\n", 0, since)))
    )


def _ends_thought(text: str) -> bool:
    """Whether a thought is complete at the end of `text`. Looks at the last line first."""
    last = text.rpartition("\n")[2].strip()
    sentence = last.rstrip(CLOSERS).endswith(SENTENCE_ENDS) and not _LIST_MARKER.fullmatch(last)
    block = last.startswith(("```", "~~~")) or last.endswith(("$$", "\\]"))
    answer = "\\boxed{" in last and last.rstrip(" *$").endswith("}")
    return (sentence or block or answer or len(text) > LONGEST_STEP) and not _in_block(text)


def _in_block(text: str) -> bool:
    """Whether a block of code or display maths is still open at the end of `text`."""
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
