"""What the pocket model can do: lists of small tasks, how to make them, and how to mark them.

One task in eight, chosen by a hash of its text, is kept out of training for good. Test problems are
made of these only, so whoever solves them has learnt to solve, not to remember.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

LABELS = "abcdefgh"
MAX_SIZE = len(LABELS)
"""The most tasks in one problem."""

HELD_OUT = 8
"""One task in so many is for tests only."""

Split: TypeAlias = Literal["train", "test"]

_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"


class Task(NamedTuple):
    """One small task.

    Attributes:
        kind: Its kind, a key of `KINDS`.
        text: As a user would type it.
        work: How the model is taught to work it out, from the task restated to the last step before
            the result.
        answer: What is right.
    """

    kind: str
    text: str
    work: str
    answer: str

    @property
    def split(self) -> Split:
        """Whether it may be trained on."""
        digest = hashlib.blake2b(f"{self.kind}:{self.text}".encode(), digest_size=8).digest()
        return "test" if int.from_bytes(digest, "big") % HELD_OUT == 0 else "train"


@dataclass(frozen=True, slots=True)
class TaskList:
    """A list of tasks, lettered from (a) on."""

    tasks: tuple[Task, ...]

    @property
    def text(self) -> str:
        """The question as a user would type it."""
        lines = [f"({label}) {task.text}" for label, task in zip(LABELS, self.tasks, strict=False)]
        return "\n".join(["Solve these tasks.", *lines])

    @property
    def answers(self) -> dict[str, str]:
        """What is right, by label."""
        return {label: task.answer for label, task in zip(LABELS, self.tasks, strict=False)}


def make_problem(
    seed: int | str, size: int = 6, *, split: Split = "test", kinds: Sequence[str] = ()
) -> TaskList:
    """A random problem.

    Args:
        seed: The same seed gives the same problem.
        size: How many tasks, 1 to 8.
        split: `test` for tasks that no training has seen, `train` for the others.
        kinds: The kinds to choose from; all by default.

    Raises:
        ValueError: No such size, split or kind.
    """
    if split not in get_args(Split):
        raise ValueError(f"split={split!r} is neither 'train' nor 'test'.")
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size={size} is not between 1 and {MAX_SIZE}.")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"Unknown kinds {unknown}: choose from {', '.join(KINDS)}.")
    rng = random.Random(f"{split} {seed}")
    tasks: list[Task] = []
    while len(tasks) < size:
        task = make_task(rng, rng.choice(tuple(kinds) or tuple(KINDS)))
        if task.split == split and task not in tasks:
            tasks.append(task)
    return TaskList(tuple(tasks))


def make_task(rng: random.Random, kind: str) -> Task:
    """A random task of a kind, of either split."""
    return Task(kind, *KINDS[kind](rng))


_LABEL = re.compile(r"\(([a-h])\)")
_END = re.compile(r"[\n}]")


def read_answers(text: str) -> dict[str, str]:
    """The answers that a text states, by label; the last one counts where there are several.

    A team may begin its final list before all results are there, and writes ` ...` while it waits.
    """
    _, *parts = _LABEL.split(text.replace(" ...", ""))
    labelled = zip(parts[::2], parts[1::2], strict=True)
    return {label: _tidy(_END.split(part, maxsplit=1)[0]) for label, part in labelled}


def _tidy(answer: str) -> str:
    """An answer without the signs around it, in small letters and single spaces."""
    return " ".join(answer.lower().split()).rstrip(" .,;")


def score(problem: TaskList, answer_text: str) -> float:
    """The share of a problem's tasks that a text answers right.

    Args:
        problem: What was asked.
        answer_text: Such as `(a) 5798, (b) nirok`, with or without words around it.
    """
    stated = read_answers(answer_text)
    right = sum(stated.get(label) == answer for label, answer in problem.answers.items())
    return right / len(problem.tasks)


# The kinds. Each gives a task's text, its work and its answer.

Made: TypeAlias = tuple[str, str, str]


def _number(rng: random.Random, digits: int = 4) -> int:
    """A number of 1 to 4 digits, each length as likely as the others."""
    length = rng.randint(1, digits)
    return rng.randint(10 ** (length - 1) if length > 1 else 0, 10**length - 1)


def _word(rng: random.Random, least: int = 3, most: int = 7) -> str:
    """A made-up word that can be spoken: consonants and vowels in turn."""
    start = rng.randint(0, 1)
    return "".join(
        rng.choice(_VOWELS if (place + start) % 2 else _CONSONANTS)
        for place in range(rng.randint(least, most))
    )


def _column_sum(one: int, sign: str, other: int, columns: Sequence[str]) -> str:
    """A sum with both numbers also written backwards, so that the columns can be read off."""
    restated = (f"{number}~{str(number)[::-1]}" for number in (one, other))
    return f"{f' {sign} '.join(restated)}: {', '.join(columns)}"


def _columns(one: int, other: int) -> list[tuple[int, int]]:
    """The digits of two numbers under one another, units first."""
    width = max(len(str(one)), len(str(other)))
    pairs = zip(f"{one:0{width}}", f"{other:0{width}}", strict=True)
    return [(int(a), int(b)) for a, b in pairs][::-1]


def _add(rng: random.Random) -> Made:
    one, other = _number(rng), _number(rng)
    columns, carry = [], 0
    for a, b in _columns(one, other):
        total = a + b + carry
        columns.append(f"{a}+{b}+1={total}" if carry else f"{a}+{b}={total}")
        carry = total // 10
    return f"{one} + {other}", _column_sum(one, "+", other, columns), str(one + other)


def _subtract(rng: random.Random) -> Made:
    other, one = sorted((_number(rng), _number(rng)))
    columns, borrow = [], 0
    for a, b in _columns(one, other):
        taken = f"{a}-{b}-1" if borrow else f"{a}-{b}"
        left = a - b - borrow
        borrow = int(left < 0)
        columns.append(f"{taken}={left % 10}{' borrow' if borrow else ''}")
    return f"{one} - {other}", _column_sum(one, "-", other, columns), str(one - other)


def _pick(name: str, better: Callable[[int, int], int]) -> Callable[[random.Random], Made]:
    def pick(rng: random.Random) -> Made:
        numbers: list[int] = []
        while len(numbers) < 3 or (len(numbers) < 5 and rng.random() < 0.6):
            number = _number(rng, 3)
            if number not in numbers:
                numbers.append(number)
        text = f"{name} of {', '.join(map(str, numbers))}"
        best, seen = numbers[0], []
        for number in numbers[1:]:
            seen.append(f"{best} or {number}")
            best = better(number, best)
        return text, f"{text}: {', '.join(seen)}", str(best)

    return pick


def _reverse(rng: random.Random) -> Made:
    word = _word(rng)
    return f"reverse {word}", f"reverse {word}", word[::-1]


def _sort(rng: random.Random) -> Made:
    words: list[str] = []
    while len(words) < 3:
        word = _word(rng, 3, 4)
        if all(word[0] != other[0] for other in words):  # the first letters decide
            words.append(word)
    ordered = sorted(words)
    letters = " ".join("".join(word[0] for word in row) for row in (words, ordered))
    return f"sort {' '.join(words)}", f"sort {' '.join(words)}: {letters}", " ".join(ordered)


def _count(rng: random.Random) -> Made:
    word = _word(rng, 4, 9)
    letter = rng.choice(word if rng.random() < 0.9 else _VOWELS)
    spelled, seen = "", 0
    for each in word:
        seen += each == letter
        spelled += f"{each}{seen}" if each == letter else each
    return f"count {letter} in {word}", f"count {letter} in {word}: {spelled}", str(seen)


def _compare(rng: random.Random) -> Made:
    one = _number(rng)
    other = one
    while other == one:
        other = _number(rng) if rng.random() < 0.5 else _alike(rng, one)
    text, sign = f"compare {one} and {other}", ">" if one > other else "<"
    lengths = len(str(one)), len(str(other))
    if lengths[0] != lengths[1]:
        return text, f"{text}: {lengths[0]} or {lengths[1]} digits", sign
    pairs = []
    for a, b in zip(str(one), str(other), strict=True):
        pairs.append(f"{a}{b}{'=' if a == b else sign}")
        if a != b:
            break
    return text, f"{text}: {', '.join(pairs)}", sign


def _alike(rng: random.Random, number: int) -> int:
    """A number of the same length that begins alike, or the number itself."""
    digits = str(number)
    keep = rng.randint(1, len(digits))
    return int(digits[:keep] + "".join(rng.choice("0123456789") for _ in digits[keep:]))


KINDS: dict[str, Callable[[random.Random], Made]] = {
    "add": _add,
    "subtract": _subtract,
    "largest": _pick("largest", max),
    "smallest": _pick("smallest", min),
    "reverse": _reverse,
    "sort": _sort,
    "count": _count,
    "compare": _compare,
}
"""The kinds of tasks, by name."""
