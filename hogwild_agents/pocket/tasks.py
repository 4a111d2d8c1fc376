"""What the pocket model can do: makes lists of small tasks, and scores answers to them.

One task in eight, chosen by a hash of its text, never occurs in training. Test lists contain only
these, so a right answer shows that the model has learnt to solve tasks, not to remember them.
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
"""The most tasks in one list."""

HELD_OUT = 8
"""One task in this many is for tests only."""

Split: TypeAlias = Literal["train", "test"]

_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"


class Task(NamedTuple):
    """One small task.

    Attributes:
        kind: A key of `KINDS`.
        text: The task as a user would type it.
        work: The solution that the model is taught to write: the task restated, then every step up
            to the result.
        answer: The right answer.
    """

    kind: str
    text: str
    work: str
    answer: str

    @property
    def split(self) -> Split:
        """`train` if the model may be trained on it, else `test`."""
        digest = hashlib.blake2b(f"{self.kind}:{self.text}".encode(), digest_size=8).digest()
        return "test" if int.from_bytes(digest, "big") % HELD_OUT == 0 else "train"


@dataclass(frozen=True, slots=True)
class TaskList:
    """Tasks that are asked together, lettered from (a)."""

    tasks: tuple[Task, ...]

    @property
    def text(self) -> str:
        """The question as a user would type it."""
        lines = [f"({label}) {task.text}" for label, task in zip(LABELS, self.tasks, strict=False)]
        return "\n".join(["Solve these tasks.", *lines])

    @property
    def answers(self) -> dict[str, str]:
        """The right answers by label."""
        return {label: task.answer for label, task in zip(LABELS, self.tasks, strict=False)}


def make_task_list(
    seed: int | str, size: int = 6, *, split: Split = "test", kinds: Sequence[str] = ()
) -> TaskList:
    """Makes a random list of tasks.

    Args:
        seed: The same seed gives the same list.
        size: Number of tasks, 1 to 8.
        split: `test` for tasks that never occur in training, `train` for the others.
        kinds: Kinds to choose from; all by default.

    Raises:
        ValueError: There is no such size, split or kind.
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
    """Makes a random task of a kind, of either split."""
    return Task(kind, *KINDS[kind](rng))


_LABEL = re.compile(r"\(([a-h])\)")
_END = re.compile(r"[\n}]")


def read_answers(text: str) -> dict[str, str]:
    """The answers in a text by label; if a label occurs twice, its last answer counts.

    A team may begin its final list before all results are known, and writes ` ...` while it waits.
    """
    _, *parts = _LABEL.split(text.replace(" ...", ""))
    labelled = zip(parts[::2], parts[1::2], strict=True)
    return {label: _normalize(_END.split(part, maxsplit=1)[0]) for label, part in labelled}


def _normalize(answer: str) -> str:
    """An answer in lower case, with single spaces and without punctuation at its end."""
    return " ".join(answer.lower().split()).rstrip(" .,;")


def score(task_list: TaskList, answer_text: str) -> float:
    """The share of the tasks that a text answers right, 0 to 1.

    Args:
        task_list: The question.
        answer_text: For example `(a) 5798, (b) nirok`, with or without words around it.
    """
    stated = read_answers(answer_text)
    right = sum(stated.get(label) == answer for label, answer in task_list.answers.items())
    return right / len(task_list.tasks)


# The kinds of tasks: a function for each makes a task's text, work and answer.

TaskTexts: TypeAlias = tuple[str, str, str]


def _number(rng: random.Random, digits: int = 4) -> int:
    """A number of at most this many digits; all lengths are equally likely."""
    length = rng.randint(1, digits)
    return rng.randint(10 ** (length - 1) if length > 1 else 0, 10**length - 1)


def _word(rng: random.Random, shortest: int = 3, longest: int = 7) -> str:
    """A made-up word of alternating consonants and vowels."""
    start = rng.randint(0, 1)
    return "".join(
        rng.choice(_VOWELS if (place + start) % 2 else _CONSONANTS)
        for place in range(rng.randint(shortest, longest))
    )


def _column_sum(first: int, sign: str, second: int, columns: Sequence[str]) -> str:
    """A sum in columns; both numbers also stand backwards, in the order of the columns."""
    restated = (f"{number}~{str(number)[::-1]}" for number in (first, second))
    return f"{f' {sign} '.join(restated)}: {', '.join(columns)}"


def _columns(first: int, second: int) -> list[tuple[int, int]]:
    """The digits of two numbers in pairs, units first."""
    width = max(len(str(first)), len(str(second)))
    pairs = zip(f"{first:0{width}}", f"{second:0{width}}", strict=True)
    return [(int(a), int(b)) for a, b in pairs][::-1]


def _add(rng: random.Random) -> TaskTexts:
    first, second = _number(rng), _number(rng)
    columns, carry = [], 0
    for a, b in _columns(first, second):
        total = a + b + carry
        columns.append(f"{a}+{b}+1={total}" if carry else f"{a}+{b}={total}")
        carry = total // 10
    return f"{first} + {second}", _column_sum(first, "+", second, columns), str(first + second)


def _subtract(rng: random.Random) -> TaskTexts:
    second, first = sorted((_number(rng), _number(rng)))
    columns, borrow = [], 0
    for a, b in _columns(first, second):
        difference = f"{a}-{b}-1" if borrow else f"{a}-{b}"
        digit = a - b - borrow
        borrow = int(digit < 0)
        columns.append(f"{difference}={digit % 10}{' borrow' if borrow else ''}")
    return f"{first} - {second}", _column_sum(first, "-", second, columns), str(first - second)


def _pick(name: str, better: Callable[[int, int], int]) -> Callable[[random.Random], TaskTexts]:
    def pick(rng: random.Random) -> TaskTexts:
        numbers: list[int] = []
        while len(numbers) < 3 or (len(numbers) < 5 and rng.random() < 0.6):
            number = _number(rng, 3)
            if number not in numbers:
                numbers.append(number)
        text = f"{name} of {', '.join(map(str, numbers))}"
        best, comparisons = numbers[0], []
        for number in numbers[1:]:
            comparisons.append(f"{best} or {number}")
            best = better(number, best)
        return text, f"{text}: {', '.join(comparisons)}", str(best)

    return pick


def _reverse(rng: random.Random) -> TaskTexts:
    word = _word(rng)
    return f"reverse {word}", f"reverse {word}", word[::-1]


def _sort(rng: random.Random) -> TaskTexts:
    words: list[str] = []
    while len(words) < 3:
        word = _word(rng, 3, 4)
        if all(word[0] != other[0] for other in words):  # the first letters decide the order
            words.append(word)
    ordered = sorted(words)
    letters = " ".join("".join(word[0] for word in row) for row in (words, ordered))
    return f"sort {' '.join(words)}", f"sort {' '.join(words)}: {letters}", " ".join(ordered)


def _count(rng: random.Random) -> TaskTexts:
    word = _word(rng, 4, 9)
    letter = rng.choice(word if rng.random() < 0.9 else _VOWELS)
    spelled, count = "", 0
    for sign in word:
        count += sign == letter
        spelled += f"{sign}{count}" if sign == letter else sign
    return f"count {letter} in {word}", f"count {letter} in {word}: {spelled}", str(count)


def _compare(rng: random.Random) -> TaskTexts:
    first = _number(rng)
    second = first
    while second == first:
        second = _number(rng) if rng.random() < 0.5 else _same_beginning(rng, first)
    text, sign = f"compare {first} and {second}", ">" if first > second else "<"
    lengths = len(str(first)), len(str(second))
    if lengths[0] != lengths[1]:
        return text, f"{text}: {lengths[0]} or {lengths[1]} digits", sign
    pairs = []
    for a, b in zip(str(first), str(second), strict=True):
        pairs.append(f"{a}{b}{'=' if a == b else sign}")
        if a != b:
            break
    return text, f"{text}: {', '.join(pairs)}", sign


def _same_beginning(rng: random.Random, number: int) -> int:
    """A number of the same length that begins with the same digits, or the number itself."""
    digits = str(number)
    shared = rng.randint(1, len(digits))
    return int(digits[:shared] + "".join(rng.choice("0123456789") for _ in digits[shared:]))


KINDS: dict[str, Callable[[random.Random], TaskTexts]] = {
    "add": _add,
    "subtract": _subtract,
    "largest": _pick("largest", max),
    "smallest": _pick("smallest", min),
    "reverse": _reverse,
    "sort": _sort,
    "count": _count,
    "compare": _compare,
}
"""What makes a task of each kind."""
