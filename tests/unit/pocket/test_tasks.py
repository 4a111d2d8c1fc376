"""The tasks: right answers, honest work, splits that stay apart, and how answers are marked."""

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
    make_problem,
    make_task,
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
    """An answer, worked out from nothing but what a user reads."""
    words = text.split()
    if words[1] in "+-":
        one, other = int(words[0]), int(words[2])
        return str(one + other if words[1] == "+" else one - other)
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
    """They are right."""
    assert task.answer == solve(task.text)


# The work.


@many
@given(tasks_of("add", "subtract"))
def test_columns(task: Task) -> None:
    """Numbers stand also backwards, every column is true, and the columns make the answer."""
    one, sign, other = task.text.split()
    restated, _, columns = task.work.partition(": ")
    assert restated == f"{one}~{one[::-1]} {sign} {other}~{other[::-1]}"
    over, digits = 0, ""
    for place, column in enumerate(columns.split(", ")):
        found = re.fullmatch(r"(\d)([+-])(\d)([+-]1)?=(\d+)( borrow)?", column)
        assert found
        a, by, b, carried, result, borrow = found.groups()
        assert (a, b) == tuple((number[::-1] + "0000")[place] for number in (one, other))
        assert by == sign
        assert carried == (f"{sign}1" if over else None)
        value = eval(f"{a}{by}{b}{carried or ''}")
        over = value // 10
        assert bool(borrow) == (value < 0)
        assert int(result) == (value % 10 if sign == "-" else value)
        digits = str(value % 10) + digits
    assert place + 1 == max(len(one), len(other))
    assert int(str(max(over, 0)) + digits) == int(task.answer)
    assert over == 0 or sign == "+"


@many
@given(tasks_of("largest", "smallest"))
def test_picking(task: Task) -> None:
    """The best so far stands against each of the others in turn."""
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
    """First letters, which differ, stand in both orders."""
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
    found = re.findall(rf"{letter}(\d)", spelled)
    assert found == [str(count + 1) for count in range(int(task.answer))]
    assert len(re.findall(r"\d", spelled)) == len(found)


@many
@given(tasks_of("compare"))
def test_comparing(task: Task) -> None:
    """Lengths that differ, or else digits in pairs up to the first that differ."""
    restated, _, shown = task.work.partition(": ")
    assert restated == task.text
    _, one, _, other = task.text.split()
    assert one != other
    if len(one) != len(other):
        assert shown == f"{len(one)} or {len(other)} digits"
        return
    *alike, last = shown.split(", ")
    assert all(pair == f"{one[place] * 2}=" for place, pair in enumerate(alike))
    assert last == f"{one[len(alike)]}{other[len(alike)]}{task.answer}"
    assert one[: len(alike)] == other[: len(alike)]


@many
@given(tasks_of("reverse"))
def test_reversing(task: Task) -> None:
    """There is nothing to show."""
    assert task.work == task.text


# Splits and problems.


@pytest.mark.parametrize("kind", KINDS)
def test_one_task_in_eight_is_held_out(kind: str) -> None:
    """Of every kind, by its text alone."""
    rng = random.Random(0)
    tasks = {make_task(rng, kind) for _ in range(3000)}
    share = sum(task.split == "test" for task in tasks) / len(tasks)
    assert 0.1 < share < 0.15
    assert all(Task(t.kind, t.text, "", "").split == t.split for t in tasks)


@many
@given(seeds, sizes, splits, st.lists(st.sampled_from([*KINDS]), max_size=3))
def test_problems(seed: int, size: int, split: Split, kinds: list[str]) -> None:
    """Distinct tasks of one split and of the kinds, the same for the same seed, as a list."""
    problem = make_problem(seed, size, split=split, kinds=kinds)
    assert problem == make_problem(seed, size, split=split, kinds=kinds)
    assert len(set(problem.tasks)) == size
    assert {task.split for task in problem.tasks} == {split}
    assert {task.kind for task in problem.tasks} <= set(kinds or KINDS)
    first, *lines = problem.text.split("\n")
    assert first == "Solve these tasks."
    assert lines == [f"({LABELS[at]}) {task.text}" for at, task in enumerate(problem.tasks)]
    assert [*problem.answers.items()] == [
        (LABELS[at], task.answer) for at, task in enumerate(problem.tasks)
    ]


def test_seeds_and_splits_give_other_problems() -> None:
    """Two hundred of each split have few tasks in common, and the splits none."""
    texts = {
        split: Counter(
            task.text for seed in range(200) for task in make_problem(seed, split=split).tasks
        )
        for split in ("train", "test")
    }
    assert not texts["train"].keys() & texts["test"].keys()
    assert all(len(counts) > 1000 for counts in texts.values())


def test_there_are_two_splits() -> None:
    """A third is refused, not looked for without end."""
    with pytest.raises(ValueError, match="split='dev' is neither"):
        make_problem(1, split=cast("Any", "dev"))


@pytest.mark.parametrize(
    ("size", "kinds", "message"),
    [
        (0, (), "size=0 is not between 1 and 8"),
        (9, (), "size=9 is not between 1 and 8"),
        (-1, (), "size=-1 is not between"),
        (2, ["add", "divide"], r"Unknown kinds \['divide'\]: choose from add, .*compare"),
    ],
)
def test_refusals(size: int, kinds: Any, message: str) -> None:
    """There is no such problem."""
    with pytest.raises(ValueError, match=message):
        make_problem(1, size, kinds=kinds)


# Marks.

problems = st.builds(make_problem, seeds, sizes)
around = st.sampled_from(["", "The answer is ", "So:\n", "\\boxed{", "Result: "])
after = st.sampled_from(["", ".", "}", "}.\n\n", "\nThat is all.", " ", ";", "\n(that is all)"])


def listing(answers: dict[str, str], joint: str = ", ") -> str:
    """Answers as a team lists them."""
    return joint.join(f"({label}) {answer}" for label, answer in answers.items())


@many
@given(problems, st.data(), around, after)
def test_scores(problem: TaskList, data: st.DataObject, before: str, behind: str) -> None:
    """The share of right answers: wrong and missing ones cost, order and words around do not."""
    stated: dict[str, str] = {}
    right = 0
    for label in data.draw(st.permutations([*problem.answers])):
        match data.draw(st.sampled_from(["right", "wrong", "missing"])):
            case "right":
                right += 1
                stated[label] = problem.answers[label]
            case "wrong":
                stated[label] = problem.answers[label] + "9"
    joint = data.draw(st.sampled_from([", ", "; ", "\n", ",\n", " ", ". "]))
    text = f"{before}{listing(stated, joint)}{behind}"
    assert score(problem, text) == pytest.approx(right / len(problem.tasks))


@many
@given(problems, st.data())
def test_waiting_costs_nothing(problem: TaskList, data: st.DataObject) -> None:
    """` ...` may stand between any two answers, many times, and in front and behind."""
    waits = st.integers(0, 3).map(lambda count: " ..." * count)
    stated = [f"({label}) {answer}" for label, answer in problem.answers.items()]
    text = ", ".join(f"{each}{data.draw(waits)}" for each in stated)
    assert score(problem, f"\\boxed{{{data.draw(waits)}{text}}}.\n\n") == 1


@many
@given(problems)
def test_the_last_answer_counts(problem: TaskList) -> None:
    """Whoever corrects an answer is marked by the correction."""
    wrong = listing(dict.fromkeys(problem.answers, "nothing"))
    assert score(problem, f"{wrong}. No: {listing(problem.answers)}") == 1
    assert score(problem, f"{listing(problem.answers)}. No: {wrong}") == 0


@many
@given(problems)
def test_case_does_not_matter(problem: TaskList) -> None:
    """Neither does space inside an answer."""
    answers = {k: answer.upper().replace(" ", "  ") for k, answer in problem.answers.items()}
    assert score(problem, listing(answers)) == 1


PIECES = ("(a)", "(b) ", "(h)", "(", ")", " ", ".", " ...", ",", "\n", "}", "5", "word", "\\boxed{")


@many
@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_may_be_read(text: str) -> None:
    """Nothing raises, and what is found is made of what is there."""
    for label, answer in read_answers(text).items():
        assert f"({label})" in text
        assert answer == " ".join(answer.split())
        assert "\n" not in answer


def test_an_ordinary_answer() -> None:
    """What is read from it."""
    text = "(a) 5798, (b) nirok ..., (c) ab cd ef; (d) <\n(e) 0.}"
    labels = {"a": "5798", "b": "nirok", "c": "ab cd ef", "d": "<", "e": "0"}
    assert read_answers(text) == labels
