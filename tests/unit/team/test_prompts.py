"""The collaboration prompt, for every team, layout and style."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import HogwildError, InvalidTeamError
from hogwild_agents.names import MAX_WORKERS, NAMES, worker_names
from hogwild_agents.team import steps
from hogwild_agents.team.prompts import CollaborationPrompt, Style
from hogwild_agents.team.redundancy_check import QUESTION

HEADERS = {
    "combined": {steps.HISTORY_HEADER, steps.OTHERS_HEADER, steps.PAUSE, steps.OWN_HEADER},
    "interleaved": {steps.HISTORY_HEADER},
    "contiguous": {steps.PAUSE},
    "of somebody's own": set(),
}
BOXED = "`\\boxed{answer}`"

STYLES: tuple[Style, ...] = ("you", "we", "brief")
"""Styles that say how to work together."""

styles = st.sampled_from(STYLES)
layouts = st.sampled_from(sorted(HEADERS))
answers = st.sampled_from([BOXED, "`Answer: {answer}`", "one letter from A to E", "valid JSON"])
written = st.from_regex(r"[A-Za-z0-9éüЖ名][-_'. A-Za-z0-9ß]{0,9}[A-Za-zñ0-9]", fullmatch=True)
teams = st.one_of(
    st.integers(2, MAX_WORKERS).map(worker_names),
    st.lists(written, min_size=2, max_size=MAX_WORKERS, unique_by=str.casefold),
)
texts = given(team=teams, style=styles, layout=layouts, answer=answers, examples=st.booleans())
quickly = settings(max_examples=80, deadline=None, derandomize=True)


def examples_of(text: str) -> list[str]:
    """The worked examples in a system text."""
    return re.findall(r"<example>\n(.*?)\n</example>", text, re.DOTALL)


def steps_of(example: str) -> list[tuple[str, int, str, bool]]:
    """The steps of an example: worker, number, text, and whether it is unfinished."""
    found = []
    for part in example.split("\n\n"):
        if match := re.fullmatch(r"\*\*(.+) \[(\d+)\]:\*\* (.+)", part):
            text = match[3].removesuffix(steps.PAUSE)
            found.append((match[1], int(match[2]), text, text != match[3]))
    return found


def full(team: Sequence[str], layout: str = "combined", **fields: Any) -> str:
    """A system text with the most common answer format."""
    return CollaborationPrompt(**fields).system(team, layout=layout, answer=BOXED)


@texts
@quickly
def test_the_whole_text(
    team: Sequence[str], style: Style, layout: str, answer: str, examples: bool
) -> None:
    """Names, headers and the answer are there; no field is unfilled, and no space is stray."""
    prompt = CollaborationPrompt(style=style, examples=examples)
    text = prompt.system(team, layout=layout, answer=answer)
    assert all(name in text for name in team)
    assert {form for form in HEADERS["combined"] if form in text} == HEADERS[layout]
    assert f"State the final answer as {answer}" in text
    assert QUESTION.strip() in text
    assert steps.prefix(team[1], 3).strip() in text
    assert bool(examples_of(text)) == examples
    assert text.endswith("\n\nSolve the next problem together.")
    assert "\n\n\n" not in text
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
    assert text == text.strip()
    assert not re.search(r"[{}]", re.sub(r"\{(answer|\d+)\}", "", text))
    assert text.count("{answer}") == answer.count("{answer}")
    assert text == CollaborationPrompt(style=style, examples=examples).system(
        list(team), layout=layout, answer=answer
    )


@texts
@quickly
def test_nobody_else_is_named(
    team: Sequence[str], style: Style, layout: str, answer: str, examples: bool
) -> None:
    """A name that the team does not have would be one more worker to the model."""
    assume(not any(name in own for name in NAMES for own in set(team) - set(NAMES)))
    prompt = CollaborationPrompt(style=style, examples=examples)
    words = prompt.system(team, layout=layout, answer=answer)
    words += " ".join(prompt.opening(team, index) for index in range(len(team)))
    assert not {name for name in NAMES if re.search(rf"\b{name}\b", words)} - set(team)


@given(team=teams, style=styles, layout=layouts, answer=answers)
@quickly
def test_examples_are_views_of_the_layout(
    team: Sequence[str], style: Style, layout: str, answer: str
) -> None:
    """Steps count up for each worker, end as steps end, and stand where the layout puts them."""
    text = CollaborationPrompt(style=style).system(team, layout=layout, answer=answer)
    finals = 0
    for example in examples_of(text):
        assert {form for form in HEADERS["combined"] if form in example} == HEADERS[layout]
        shown = steps_of(example)
        numbers = defaultdict(list)
        for name, number, words, unfinished in shown:
            numbers[name].append(number)
            assert steps.ends_step(words + "\n\n") != unfinished, words
        assert list(numbers) == [team[0], team[-1]]
        assert all(counted == list(range(1, len(counted) + 1)) for counted in numbers.values())
        assert shown[-1][0] == team[-1]
        assert example.endswith(shown[-1][2])
        finals += example.count("inal answer is")
    assert finals == 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("layout", HEADERS)
def test_the_arithmetic_of_the_examples_is_right(style: Style, layout: str) -> None:
    """A small model imitates its examples."""
    equation = re.compile(r"\d+(?: [-+*\u00d7] \d+)+ = \d+")
    found = equation.findall(" ".join(examples_of(full(NAMES[:2], layout, style=style))))
    assert len(found) >= 3
    for line in found:
        left, right = line.replace("\u00d7", "*").split(" = ")
        assert eval(left) == int(right), line


def test_the_results_of_the_examples_are_right() -> None:
    """Computed from the problems as they are worded."""
    split, overlap = examples_of(full(NAMES[:2]))
    assert f"final answer is \\boxed{{{36 * 14 + 25 * 9 - 129}}}." in split
    good = [n for n in range(1, 101) if n % 3 == 0 or n % 7 == 0]
    assert f"= {len(good)}." in overlap
    assert sum(n <= 21 for n in good) == 9
    assert sum(n >= 85 for n in good) == 7
    (tiny,) = examples_of(full(NAMES[:2], style="brief"))
    assert f"final answer is \\boxed{{{17 * 4 + 23 * 3}}}." in tiny


def test_the_examples_teach_what_they_should() -> None:
    """A claim, a quick check answered no and one answered yes, and a change of task."""
    split, overlap = examples_of(full(NAMES[:2]))
    assert "I take the 36 tickets, Bob takes the 25" in split
    assert QUESTION + "no, Alice has" in split
    assert QUESTION + "yes, Alice has" in overlap
    assert "Alice has just claimed them. I take" in overlap


def test_an_answer_without_a_form_is_shown_plainly() -> None:
    """Only a form in backticks can be filled in."""
    text = CollaborationPrompt().system(NAMES[:2], layout="combined", answer="a number")
    assert "the final answer is 600." in text
    assert "State the final answer as a number." in text


@pytest.mark.parametrize("layout", HEADERS)
def test_texts_stay_short(layout: str) -> None:
    """Every word costs prefill, and small models lose the thread."""
    for style in ("you", "we"):
        assert len(full(NAMES[:2], layout, style=style).split()) < 900
    assert len(full(NAMES[:2], layout, style="brief").split()) < 180
    assert len(full(NAMES, layout).split()) < 950


def test_styles_differ_in_voice() -> None:
    """One speaks to the workers, the other for them; brief is brief."""
    you, we, brief = (full(NAMES[:2], style=style) for style in STYLES)
    assert "You are one of 2 assistants, Alice and Bob, who" in you
    assert "We are 2 assistants, Alice and Bob, who" in we
    assert not re.search(r"\byour?\b", we.partition("<example>")[0], re.IGNORECASE)
    assert not re.search(r"\b(we|us|our)\b", you.partition("<example>")[0], re.IGNORECASE)
    assert len(brief) < len(you) / 3


@pytest.mark.parametrize("style", ["names", "none"])
@given(team=teams, layout=layouts, answer=answers, examples=st.booleans())
@quickly
def test_prompts_that_explain_nothing(
    style: Style, team: Sequence[str], layout: str, answer: str, examples: bool
) -> None:
    """The names, for models that were trained as a team, or nothing; then `extra`."""
    prompt = CollaborationPrompt(style=style, examples=examples)
    extra = CollaborationPrompt(style=style, examples=examples, extra=" Be {brief}. ")
    for members in (team, team[:1]):
        named = ", ".join(members) if style == "names" and len(members) > 1 else ""
        told = extra.system(members, layout=layout, answer=answer)
        assert prompt.system(members, layout=layout, answer=answer) == named
        assert told == f"{named}\n\nBe {{brief}}.".strip()
        assert {prompt.opening(members, index) for index in range(len(members))} == {""}


@pytest.mark.parametrize("style", get_args(Style))
def test_who_explains(style: Style) -> None:
    """A style says how to work together, or nothing about it."""
    explains = style in STYLES
    assert CollaborationPrompt(style=style).explains == explains
    assert ("answer" in full(NAMES[:2], style=style)) == explains


def test_extra_stands_before_the_task_as_it_is() -> None:
    """Braces in it are plain text."""
    extra = "Use {braces} and %s.\n\n\nAnswer in French. "
    text = full(NAMES[:3], extra=extra)
    assert text.endswith(f"\n\n{extra.strip()}\n\nSolve the next problem together.")
    assert text.replace(extra.strip() + "\n\n", "") == full(NAMES[:3])


@pytest.mark.parametrize("style", STYLES)
def test_one_worker_is_told_nothing_of_a_team(style: Style) -> None:
    """Only the developer's words, how to think, and the form of the answer."""
    prompt = CollaborationPrompt(style=style, extra="Answer in French.")
    assert prompt.system(["Zoë"], layout="combined", answer=BOXED) == (
        "Answer in French.\n\nThink step by step, in short paragraphs. "
        "State the final answer as `\\boxed{answer}`."
    )
    assert full(["Zoë"], style=style).startswith("Think")
    assert prompt.opening(["Zoë"], 0) == ""


@given(team=teams, style=styles)
@quickly
def test_openings_part_at_once(team: Sequence[str], style: Style) -> None:
    """Each is the worker's own, begins unlike the others, and asks to be continued."""
    prompt = CollaborationPrompt(style=style)
    openings = [prompt.opening(team, index) for index in range(len(team))]
    for name, opening in zip(team, openings, strict=True):
        assert name in opening
        assert opening[-1].isalpha()
        assert "\n" not in opening
        assert len(opening.replace(name, "")) < 100
    endings = [opening.rpartition(". ")[2].rpartition(", ")[2] for opening in openings]
    assert all(one != other for one, other in combinations(openings, 2))
    assert len(set(endings)) == len(endings)
    assert openings == [prompt.opening(tuple(team), index) for index in range(len(team))]
    assert "split" in openings[0]
    assert team[0] in openings[1]


def test_numbers_and_names_make_teams() -> None:
    """A number takes the first default names; given names of every script stay unchanged."""
    assert [len(worker_names(count)) for count in range(1, 9)] == list(range(1, 9))
    assert worker_names(2) == ("Alice", "Bob")
    assert len(NAMES) == MAX_WORKERS
    own = ["Dr. O'Neil-Smith_2", "Zoë", "नीता", "小明", "x" * 32]
    assert worker_names(own) == tuple(own)


BAD_TEAMS: list[tuple[Any, str]] = [
    (0, "cannot have 0 workers: choose 1 to 8"),
    (9, "cannot have 9 workers: choose 1 to 8"),
    ([], "cannot have 0 workers"),
    (True, "workers=True is neither a number nor a list"),
    (2.0, "workers=2.0 is neither"),
    ("Alice", "workers='Alice' is neither"),
    (["Alice", 3], "name 3 is not a string"),
    (["Alice", ""], "name '' has no letter or digit: write at least one"),
    ([" Bob"], "name ' Bob' begins or ends with a space: strip it"),
    (["x" * 33], "has 33 characters: shorten it to 32"),
    (["A*b"], r"name 'A\*b' holds '\*': use letters"),
    (["A\u200bb"], r"holds '\\u200b'"),
    (["Bob", "Bob"], "Names 'Bob' and 'Bob' are alike: change one"),
    (["Bob", "Al", "BOB"], "Names 'Bob' and 'BOB' are alike"),
    (["Zoe\u0308", "zoë"], "are alike"),
]


@pytest.mark.parametrize(("workers", "message"), BAD_TEAMS, ids=repr)
def test_bad_teams_are_refused(workers: Any, message: str) -> None:
    """Each message names the wrong value; prompts check their teams too."""
    with pytest.raises(InvalidTeamError, match=message):
        worker_names(workers)
    with pytest.raises(InvalidTeamError, match=message):
        CollaborationPrompt().system(workers, layout="combined", answer=BOXED)


@pytest.mark.parametrize("index", [-1, 2])
def test_openings_of_nobody_are_refused(index: int) -> None:
    """Negative numbers do not count from the end."""
    with pytest.raises(InvalidTeamError, match=f"index={index} is no worker's: choose 0 to 1"):
        CollaborationPrompt().opening(NAMES[:2], index)


def test_bad_prompts_are_refused() -> None:
    """When the prompt is made, not when a problem arrives."""
    bad: Any = "they"
    with pytest.raises(
        InvalidTeamError, match="style='they' does not exist: choose from 'you', 'we'"
    ):
        CollaborationPrompt(style=bad)
    bad = None
    with pytest.raises(InvalidTeamError, match="extra=None is not a string"):
        CollaborationPrompt(extra=bad)
    assert issubclass(InvalidTeamError, HogwildError)
    assert issubclass(InvalidTeamError, ValueError)
