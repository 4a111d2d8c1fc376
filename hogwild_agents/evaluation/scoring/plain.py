r"""Marks that need no library: numbers, words, letters and lists."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring.answers import boxes
from hogwild_agents.pocket.tasks import read_answers
from hogwild_agents.team.answers import answer_format
from hogwild_agents.team.answers import choice as one_of

_read_number = answer_format("number").extract


def number(problem: Problem, text: str) -> float:
    r"""1.0 if the number is right: that of the last box, else the one stated, else the last one.

    Commas, currency signs, units and a trailing `.0` do not matter. This is how GSM8k is marked.
    """
    return float(_same_number(problem.truth, text))


def _same_number(truth: Any, text: str) -> bool:
    right, given = _read_number(str(truth)), _read_number(text)
    if right is None or given is None:
        return False
    if isinstance(right, int) and isinstance(given, int):
        return bool(right == given)
    return math.isclose(right, given, rel_tol=1e-12, abs_tol=1e-12)


_STATED = re.compile(r"\banswer(?:\s+is|\s*:)[\s*:]*([^\n]+)", re.IGNORECASE)


def exact(problem: Problem, text: str) -> float:
    r"""1.0 if the words are the same; a truth that is a list accepts any of its items.

    They are those of the last box; without one, all of the text, its last line, or what follows the
    last "answer is" or "answer:". Capitals, spaces, and signs around them do not matter.
    """
    found = boxes(text)
    given = found[-1:] or [text, text.strip().rpartition("\n")[2], *_STATED.findall(text)[-1:]]
    accepted = problem.truth if isinstance(problem.truth, list) else [problem.truth]
    right = {_bare(str(one)) for one in accepted} - {""}
    return float(not right.isdisjoint(map(_bare, given)))


_TEXT = re.compile(r"\\(?:text|math)(?:bf|it|normal|rm|sf|tt)?\s*\{([^{}]*)\}")


def _bare(text: str) -> str:
    return " ".join(_TEXT.sub(r"\1", text).casefold().split()).strip(" .,;:!\"'`*$")


LETTERS = "ABCDE"
"""Those of a multiple choice, where a problem does not say others."""


def choice(problem: Problem, text: str) -> float:
    """1.0 if the letter is right; the problem's `extra` may have `letters`, such as "ABCD"."""
    truth = str(problem.truth).strip(" ().").upper()
    letters = problem.extra.get("letters") or LETTERS
    if truth not in letters:
        letters = "".join(map(chr, range(ord("A"), ord(truth) + 1)))
    return float(one_of(letters).extract(text) == truth)


def listed(problem: Problem, text: str) -> float:
    r"""The share of a list that is right.

    Where the truth is a mapping, answers are read by their labels, `(a) 5798, (b) nirok`, as those
    of the pocket tasks are. Where it is a list, they are read by their places in the last box,
    `\boxed{18, 3, 70000}`, as in the paper's task of five questions; labels such as `(a)` before
    the items are left out.
    """
    if isinstance(problem.truth, dict):
        stated = read_answers(text)
        right = [stated.get(label) == answer for label, answer in problem.truth.items()]
    else:
        found = boxes(text)
        count = len(problem.truth)
        given = _parts(found, text, count)
        right = [
            _same(one, other)
            for one, other in zip_longest(problem.truth, given[:count], fillvalue="")
        ]
    return float(sum(right) / len(right))


_LABEL = re.compile(r"^\s*\([a-h]\)\s+")


def _parts(found: Sequence[str], text: str, count: int) -> list[str]:
    """The items of a list: of the last box, of as many boxes as there are items, or of a line."""
    if len(found) >= count > 1 and not any("," in box for box in found[-count:]):
        return list(found[-count:])
    line = found[-1] if found else text.strip().rpartition("\n")[2]
    spaced = re.split(r",(?:\s|\\[,; ])+|;|\n", line)  # so 70,000 may stay whole
    parts = spaced if len(spaced) == count else re.split(r"[,;\n]", line)
    return [_LABEL.sub("", part) for part in parts]


def _same(truth: Any, text: str) -> bool:
    if _read_number(str(truth)) is not None:
        return _same_number(truth, text)
    return _bare(str(truth)) == _bare(text)
