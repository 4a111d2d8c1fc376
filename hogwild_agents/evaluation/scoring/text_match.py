r"""Scores numbers, words, letters of a multiple choice, and lists."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring.boxed import boxes
from hogwild_agents.pocket.tasks import read_answers
from hogwild_agents.team.answers import answer_format
from hogwild_agents.team.answers import choice as one_of

_read_number = answer_format("number").extract


def number(problem: Problem, text: str) -> float:
    r"""1.0 if the number is right: in the last box, else the one stated, else the last number.

    Commas, currency signs, units and a trailing `.0` do not matter. GSM8k is scored like this.
    """
    return float(_same_number(problem.truth, text))


def _same_number(truth: Any, text: str) -> bool:
    number, answer = _read_number(str(truth)), _read_number(text)
    if number is None or answer is None:
        return False
    if isinstance(number, int) and isinstance(answer, int):
        return bool(number == answer)
    return math.isclose(number, answer, rel_tol=1e-12, abs_tol=1e-12)


_STATED = re.compile(r"\banswer(?:\s+is|\s*:)[\s*:]*([^\n]+)", re.IGNORECASE)


def exact(problem: Problem, text: str) -> float:
    r"""1.0 if the words are the same; if the truth is a list, any of its items is right.

    The answer is the last box. Without a box it may be the whole text, its last line, or what
    follows the last "answer is" or "answer:". Case, spaces and outer punctuation do not matter.
    """
    last_line = text.strip().rpartition("\n")[2]
    answers = boxes(text)[-1:] or [text, last_line, *_STATED.findall(text)[-1:]]
    truths = problem.truth if isinstance(problem.truth, list) else [problem.truth]
    accepted = {_bare(str(truth)) for truth in truths} - {""}
    return float(not accepted.isdisjoint(map(_bare, answers)))


_TEXT = re.compile(r"\\(?:text|math)(?:bf|it|normal|rm|sf|tt)?\s*\{([^{}]*)\}")


def _bare(text: str) -> str:
    return " ".join(_TEXT.sub(r"\1", text).casefold().split()).strip(" .,;:!\"'`*$")


LETTERS = "ABCDE"
"""The letters of a multiple choice, unless the problem names others."""


def choice(problem: Problem, text: str) -> float:
    """1.0 if the letter is right; the problem's `extra` may have `letters`, such as "ABCD"."""
    truth = str(problem.truth).strip(" ().").upper()
    letters = problem.extra.get("letters") or LETTERS
    if truth not in letters:
        letters = "".join(map(chr, range(ord("A"), ord(truth) + 1)))
    return float(one_of(letters).extract(text) == truth)


def list_share(problem: Problem, text: str) -> float:
    r"""The share of a list that is right.

    If the truth is a mapping, answers are found by label, `(a) 5798, (b) nirok`, as in the pocket
    tasks. If it is a list, they are found by position in the last box, `\boxed{18, 3, 70000}`, as
    in the paper's task of five questions; labels such as `(a)` before the items are ignored.
    """
    if isinstance(problem.truth, dict):
        stated = read_answers(text)
        right = [stated.get(label) == answer for label, answer in problem.truth.items()]
    else:
        count = len(problem.truth)
        answers = _items(boxes(text), text, count)[:count]
        right = [
            _same(truth, answer)
            for truth, answer in zip_longest(problem.truth, answers, fillvalue="")
        ]
    return float(sum(right) / len(right))


_LABEL = re.compile(r"^\s*\([a-h]\)\s+")


def _items(boxed: Sequence[str], text: str, count: int) -> list[str]:
    """The items of a list: one per box, or the parts of the last box or the last line."""
    if len(boxed) >= count > 1 and not any("," in box for box in boxed[-count:]):
        return list(boxed[-count:])
    line = boxed[-1] if boxed else text.strip().rpartition("\n")[2]
    spaced = re.split(r",(?:\s|\\[,; ])+|;|\n", line)  # keeps 70,000 whole
    parts = spaced if len(spaced) == count else re.split(r"[,;\n]", line)
    return [_LABEL.sub("", part) for part in parts]


def _same(truth: Any, text: str) -> bool:
    if _read_number(str(truth)) is not None:
        return _same_number(truth, text)
    return _bare(str(truth)) == _bare(text)
