"""The tasks: right answers and work, separate splits, and how answers are scored."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.pocket.tasks import (
    KINDS,
    LABELS,
    Split,
    Task,
    TaskList,
    make_task,
    make_task_list,
    read_answers,
    score,
)
from tests.unit.pocket.training.playing import seeds, sizes

many = settings(max_examples=150, deadline=None, derandomize=True)
splits = st.sampled_from(["train", "test"])


def tasks_of(*kinds: str) -> st.SearchStrategy[Task]:
    """Tasks of some kinds."""
    return st.builds(
        lambda seed, kind: make_task(random.Random(seed), kind), seeds, st.sampled_from(kinds)
    )


def solve(text: str) -> str:
    """The answer, worked out from the task's text alone."""
    words = text.split()
    if words[1] in "+-":
        first, second = int(words[0]), int(words[2])
        return str(first + second if words[1] == "+" else first - second)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    match words[0]:
        case "largest":
            return str(max(numbers))
        case "smallest":
            return str(min(numbers))
        case "reverse":
            return "".join(reversed(words[1]))
        case "sort":
            return " ".join(sorted(words[1:]))
        case "count":
            return str(words[3].count(words[1]))
    assert words[0] == "compare"
    return ">" if numbers[0] > numbers[1] else "<"


@many
@given(tasks_of(*KINDS))
def test_answers(task: Task) -> None:
    """Answers are right."""
    assert task.answer == solve(task.text)


# The work.


@many
@given(tasks_of("add", "subtract"))
def test_columns(task: Task) -> None:
    """Numbers also stand backwards, every column is true, and the columns make the answer."""
    first, sign, second = task.text.split()
    restated, _, columns = task.work.partition(": ")
    assert restated == f"{first}~{first[::-1]} {sign} {second}~{second[::-1]}"
    over, digits = 0, ""
    for place, column in enumerate(columns.split(", ")):
        match = re.fullmatch(r"(\d)([+-])(\d)([+-]1)?=(\d+)( borrow)?", column)
        assert match
        a, by, b, carried, result, borrow = match.groups()
        assert (a, b) == tuple((number[::-1] + "0000")[place] for number in (first, second))
        assert by == sign
        assert carried == (f"{sign}1" if over else None)
        value = eval(f"{a}{by}{b}{carried or ''}")
        over = value // 10
        assert bool(borrow) == (value < 0)
        assert int(result) == (value % 10 if sign == "-" else value)
        digits = str(value % 10) + digits
    assert place + 1 == max(len(first), len(second))
    assert int(str(max(over, 0)) + digits) == int(task.answer)
    assert over == 0 or sign == "+"


@many
@given(tasks_of("largest", "smallest"))
def test_picking(task: Task) -> None:
    """The best number so far is compared with each of the others."""
    restated, _, chain = task.work.partition(": ")
    assert restated == task.text
    numbers = [int(number) for number in re.findall(r"\d+", task.text)]
    better = max if task.kind == "largest" else min
    best = [better(numbers[: count + 1]) for count in range(len(numbers))]
    shown = [f"{old} or {new}" for old, new in zip(best, numbers[1:], strict=False)]
    assert chain.split(", ") == shown
    assert 3 <= len(set(numbers)) == len(numbers) <= 5


@many
@given(tasks_of("sort"))
def test_sorting(task: Task) -> None:
    """The first letters differ, and stand in both orders."""
    restated, _, letters = task.work.partition(": ")
    assert restated == task.text
    firsts = "".join(word[0] for word in task.text.split()[1:])
    assert letters == f"{firsts} {''.join(sorted(firsts))}"
    assert len(set(firsts)) == 3
    assert [word[0] for word in task.answer.split()] == sorted(firsts)


@many
@given(tasks_of("count"))
def test_counting(task: Task) -> None:
    """The word is spelled, with a running count behind each letter that counts."""
    restated, _, spelled = task.work.partition(": ")
    assert restated == task.text
    _, letter, _, word = task.text.split()
    assert re.sub(r"\d", "", spelled) == word
    counts = re.findall(rf"{letter}(\d)", spelled)
    assert counts == [str(count + 1) for count in range(int(task.answer))]
    assert len(re.findall(r"\d", spelled)) == len(counts)


@many
@given(tasks_of("compare"))
def test_comparing(task: Task) -> None:
    """Lengths if they differ, else pairs of digits up to the first that differ."""
    restated, _, shown = task.work.partition(": ")
    assert restated == task.text
    _, first, _, second = task.text.split()
    assert first != second
    if len(first) != len(second):
        assert shown == f"{len(first)} or {len(second)} digits"
        return
    *equal, last = shown.split(", ")
    assert all(pair == f"{first[place] * 2}=" for place, pair in enumerate(equal))
    assert last == f"{first[len(equal)]}{second[len(equal)]}{task.answer}"
    assert first[: len(equal)] == second[: len(equal)]


@many
@given(tasks_of("reverse"))
def test_reversing(task: Task) -> None:
    """There is nothing to show."""
    assert task.work == task.text


# Splits and lists.


@pytest.mark.parametrize("kind", KINDS)
def test_one_task_in_eight_is_held_out(kind: str) -> None:
    """Of every kind, by the text alone."""
    rng = random.Random(0)
    tasks = {make_task(rng, kind) for _ in range(3000)}
    share = sum(task.split == "test" for task in tasks) / len(tasks)
    assert 0.1 < share < 0.15
    assert all(Task(t.kind, t.text, "", "").split == t.split for t in tasks)


@many
@given(seeds, sizes, splits, st.lists(st.sampled_from([*KINDS]), max_size=3))
def test_task_lists(seed: int, size: int, split: Split, kinds: list[str]) -> None:
    """Distinct tasks of one split and of the kinds, the same for the same seed."""
    task_list = make_task_list(seed, size, split=split, kinds=kinds)
    assert task_list == make_task_list(seed, size, split=split, kinds=kinds)
    assert len(set(task_list.tasks)) == size
    assert {task.split for task in task_list.tasks} == {split}
    assert {task.kind for task in task_list.tasks} <= set(kinds or KINDS)
    first, *lines = task_list.text.split("\n")
    assert first == "Solve these tasks."
    assert lines == [f"({LABELS[at]}) {task.text}" for at, task in enumerate(task_list.tasks)]
    assert [*task_list.answers.items()] == [
        (LABELS[at], task.answer) for at, task in enumerate(task_list.tasks)
    ]


def test_seeds_and_splits_give_other_lists() -> None:
    """Two hundred lists of each split have few tasks in common, and the splits none."""
    texts = {
        split: Counter(
            task.text for seed in range(200) for task in make_task_list(seed, split=split).tasks
        )
        for split in ("train", "test")
    }
    assert not texts["train"].keys() & texts["test"].keys()
    assert all(len(counts) > 1000 for counts in texts.values())


def test_there_are_two_splits() -> None:
    """A third one is refused instead of an endless search."""
    with pytest.raises(ValueError, match="split='dev' is neither"):
        make_task_list(1, split=cast("Any", "dev"))


@pytest.mark.parametrize(
    ("size", "kinds", "message"),
    [
        (0, (), "size=0 is not between 1 and 8"),
        (9, (), "size=9 is not between 1 and 8"),
        (2, ["add", "divide"], r"Unknown kinds \['divide'\]: choose from add, .*compare"),
    ],
)
def test_refusals(size: int, kinds: Any, message: str) -> None:
    """There is no such list."""
    with pytest.raises(ValueError, match=message):
        make_task_list(1, size, kinds=kinds)


# Scores.

task_lists = st.builds(make_task_list, seeds, sizes)
around = st.sampled_from(["", "The answer is ", "So:\n", "\\boxed{", "Result: "])
after = st.sampled_from(["", ".", "}", "}.\n\n", "\nThat is all.", " ", ";", "\n(that is all)"])


def listing(answers: dict[str, str], separator: str = ", ") -> str:
    """Answers as a team lists them."""
    return separator.join(f"({label}) {answer}" for label, answer in answers.items())


@many
@given(task_lists, st.data(), around, after)
def test_scores(task_list: TaskList, data: st.DataObject, before: str, behind: str) -> None:
    """The share of right answers; order and words around them do not matter."""
    stated: dict[str, str] = {}
    right = 0
    for label in data.draw(st.permutations([*task_list.answers])):
        match data.draw(st.sampled_from(["right", "wrong", "missing"])):
            case "right":
                right += 1
                stated[label] = task_list.answers[label]
            case "wrong":
                stated[label] = task_list.answers[label] + "9"
    separator = data.draw(st.sampled_from([", ", "; ", "\n", ",\n", " ", ". "]))
    text = f"{before}{listing(stated, separator)}{behind}"
    assert score(task_list, text) == pytest.approx(right / len(task_list.tasks))


@many
@given(task_lists, st.data())
def test_waiting_costs_nothing(task_list: TaskList, data: st.DataObject) -> None:
    """` ...` may stand between any two answers, many times, and in front and behind."""
    waits = st.integers(0, 3).map(lambda count: " ..." * count)
    items = [f"({label}) {answer}" for label, answer in task_list.answers.items()]
    text = ", ".join(f"{item}{data.draw(waits)}" for item in items)
    assert score(task_list, f"\\boxed{{{data.draw(waits)}{text}}}.\n\n") == 1


@many
@given(task_lists)
def test_the_last_answer_counts(task_list: TaskList) -> None:
    """A correction replaces the answer before it."""
    wrong = listing(dict.fromkeys(task_list.answers, "nothing"))
    assert score(task_list, f"{wrong}. No: {listing(task_list.answers)}") == 1
    assert score(task_list, f"{listing(task_list.answers)}. No: {wrong}") == 0


@many
@given(task_lists)
def test_case_does_not_matter(task_list: TaskList) -> None:
    """Nor do spaces inside an answer."""
    answers = {k: answer.upper().replace(" ", "  ") for k, answer in task_list.answers.items()}
    assert score(task_list, listing(answers)) == 1


PIECES = ("(a)", "(b) ", "(h)", "(", ")", " ", ".", " ...", ",", "\n", "}", "5", "word", "\\boxed{")


@many
@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_may_be_read(text: str) -> None:
    """Nothing raises, and labels and answers come from the text."""
    for label, answer in read_answers(text).items():
        assert f"({label})" in text
        assert answer == " ".join(answer.split())
        assert "\n" not in answer


def test_an_ordinary_answer() -> None:
    """Labels and answers are read."""
    text = "(a) 5798, (b) nirok ..., (c) ab cd ef; (d) <\n(e) 0.}"
    labels = {"a": "5798", "b": "nirok", "c": "ab cd ef", "d": "<", "e": "0"}
    assert read_answers(text) == labels
