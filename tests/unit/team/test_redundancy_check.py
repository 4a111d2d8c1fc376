"""The redundancy check: when it asks, and how it is answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import HogwildError, InvalidInterruptError
from hogwild_agents.team import (
    InterruptAnswered,
    InterruptAsked,
    InterruptContext,
    Interruption,
    RedundancyCheck,
    Result,
    StepBegun,
)
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.team.scripted import tokenizer
from tests.unit.team.voices import STEP, hold, make, model


def run(lines: Any, **options: Any) -> Result:
    """The result of a team that writes `lines`; events and steps must agree with it."""
    team = make(tokenizer(), **({"budget": 60, "reply_tokens": 1} | options))
    result, events = hold(team.session("Hi."), lines)
    asked = [event.interruption for event in events if isinstance(event, InterruptAsked)]
    begun = [event for event in events if isinstance(event, StepBegun)]
    assert [(one.worker, one.index, one.text) for one in asked] == [
        (one.worker, one.index, one.text) for one in result.interruptions
    ]
    for one in result.interruptions:
        (text,) = (b.text for b in begun if (b.worker, b.index) == (one.worker, one.index))
        assert one.text in text
        (step,) = (s for s in result.steps_of(one.worker) if s.index == one.index)
        assert step.text.startswith(text)
    assert model().pool.used_pages == 0
    return result


# When it asks.


@pytest.mark.parametrize("every", [1, 18, 19, 36, 37, 54, 1024])
@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_a_check_comes_every_so_many_tokens_of_all_workers(every: int, layout: str) -> None:
    """As the paper counts: whoever begins a step when so many were drawn since the last check.

    Two workers end steps of nine tokens in the same passes: only the first of them is asked.
    """
    lines = {0: STEP * 6, 1: STEP * 6}
    result = run(lines, interrupts=[RedundancyCheck(every=every)], layout=layout, budget=54)
    expected, last = [], 0
    for passes in range(9, 54, 9):
        if 2 * passes - last >= every:
            expected.append(("Alice", passes))
            last = 2 * passes
    assert [(one.worker, one.asked) for one in result.interruptions] == expected
    assert all(
        one.text == QUESTION and one.name == "RedundancyCheck" for one in result.interruptions
    )


def test_a_check_asks_whoever_begins_a_step() -> None:
    """Not a worker in the middle of one, however long it goes on."""
    result = run({0: "x" * 99, 1: STEP * 6}, interrupts=[RedundancyCheck(every=20)])
    assert {one.worker for one in result.interruptions} == {"Bob"}
    assert [one.asked for one in result.interruptions] == [18, 36, 54]


def test_nobody_is_asked_in_a_first_step() -> None:
    """The system writes the worker's opening there."""
    result = run({0: "x" * 99, 1: "x" * 99}, interrupts=[RedundancyCheck(every=1)])
    assert result.interruptions == ()


def test_the_default() -> None:
    """The paper's question and interval; a single worker is not asked."""
    (check,) = make(tokenizer()).interrupts
    assert check == RedundancyCheck(every=1024, question=QUESTION)
    assert make(tokenizer(), workers=1).interrupts == ()
    assert make(tokenizer(), interrupts=[]).interrupts == ()


def test_each_check_counts_for_itself() -> None:
    """Another question, or another session, does not delay it."""
    own = RedundancyCheck(every=30, question="Is this mine? ")
    checks = [RedundancyCheck(every=18), own]
    both = run({0: STEP * 6, 1: STEP * 6}, interrupts=checks)
    alone = run({0: STEP * 6, 1: STEP * 6}, interrupts=[own])
    mine = [(one.worker, one.asked) for one in both.interruptions if one.text == own.question]
    assert mine == [(one.worker, one.asked) for one in alone.interruptions]
    assert len([one for one in both.interruptions if one.text == QUESTION]) == 6


@pytest.mark.parametrize("question", ["Mine? ", "Tue ich Doppeltes? (yes/no):", "Ω\u200b?"])
def test_a_question_of_ones_own(question: str) -> None:
    """It is asked unchanged, and may be in any language."""
    said = "No, I add.\n\n"
    check = RedundancyCheck(9, question)
    result = run({0: STEP + said + "x" * 99}, interrupts=[check], budget=25)
    assert result.interruptions[0] == Interruption(
        "RedundancyCheck", "Alice", 2, 9, question, answer=False, followed=said
    )
    assert (result.steps[1].text, result.steps[1].written) == (question + said, said)


class Late(RedundancyCheck):
    """A developer's own subclass that asks later."""

    def __call__(self, context: InterruptContext) -> str | None:
        """The question, or a text that only looks like it."""
        return self.question if context.index > 2 else f"{self.question}no"


def test_a_check_of_ones_own_asks_the_same_question() -> None:
    """The question stays unchanged; any other text is sanitised, like all outside text."""
    result = run({0: STEP + STEP + "x" * 99}, interrupts=[Late(1)], budget=25)
    asked = [one.text for one in result.interruptions if one.worker == "Alice"]
    assert asked[0] != QUESTION + "no"
    assert asked[0].replace("\u200b", "") == QUESTION + "no"
    assert asked[1] == QUESTION


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every=0 "),
        ({"every": True}, "every=True "),
        ({"every": 2.0}, "every=2.0 "),
        ({"every": "9"}, "every='9' "),
        ({"question": " \n"}, r"question=' \\n' "),
        ({"question": None}, "question=None "),
    ],
)
def test_checks_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    """The message names the value, and says what to do."""
    with pytest.raises(InvalidInterruptError, match=words + ".*: give a ") as caught:
        RedundancyCheck(**options)
    assert isinstance(caught.value, HogwildError)


# How it is answered.

YES = ["yes,", "Yes.", "YES!", "**Yes**.", "_yes_,", "'yes'", "(yes)", " yes:", "\nyes\n", "<yes>"]
YES += ["yes…", "yes—I do", "`yes` ", "- yes ", "yes/no: yes.", "(yes/no) yes,", "> yes\n"]
NO = ["no,", "No.", "NO ", "**no**,", "__No__ ", '"no"', "no;", "no\n", "no - I add", "no: I add"]
NO += ["yes/no? no.", "*Yes/No:* **No.**", "No\u2014", "no\u3002", "...no.", "no, yes, no"]
UNCLEAR = [
    "",
    "y",
    "n",
    "not at all.",
    "none of it.",
    "nobody.",
    "now ",
    "yesterday ",
    "yess ",
    "noo.",
]
UNCLEAR += [
    "maybe ",
    "I think no.",
    "nothing ",
    "Bob says no.",
    "yes",
    "no",
    "NO",
    "yes/no ",
    "yes/no",
]
UNCLEAR += ["nope.", "yeah.", "known.", "eyes.", "no1 ", "5 yes"]


@pytest.mark.parametrize("text", [*YES, *NO, *UNCLEAR])
def test_reading_an_answer(text: str) -> None:
    """The first word decides, once it is complete, with any marks around it."""
    expected = True if text in YES else False if text in NO else None
    assert RedundancyCheck().read(text) is expected


@pytest.mark.parametrize("text", [*YES, *NO, *UNCLEAR])
def test_reading_an_answer_as_it_comes(text: str) -> None:
    """No beginning of it is read differently; once read, the answer stays."""
    check = RedundancyCheck()
    answers = [check.read(text[:size]) for size in range(len(text) + 1)]
    final = answers[-1]
    first = next((at for at, answer in enumerate(answers) if answer is not None), len(answers))
    assert all(answer is None for answer in answers[:first])
    assert all(answer is final for answer in answers[first:])


@given(text=st.text("yesno /*_,.\n", max_size=12))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_answer_is_taken_back(text: str) -> None:
    """However a text goes on, its answer stays."""
    check = RedundancyCheck()
    read = [a for size in range(len(text) + 1) if (a := check.read(text[:size])) is not None]
    assert len(set(read)) <= 1


@pytest.mark.parametrize(
    ("said", "answer", "after"),
    [
        ("yes, I leave it.\n\n", True, 4),
        ("No.\n\n", False, 3),
        ("not yet. no.\n\n", None, 0),
        ("**Yes**: I stop.\n\n", True, 6),
        ("no\n\n", False, 3),
        ("Is it.\n\n", None, 0),
    ],
)
def test_an_answer_is_recorded(said: str, answer: bool | None, after: int) -> None:
    """As soon as it is clear, with all text that the worker then wrote in this step."""
    team = make(tokenizer(), interrupts=[RedundancyCheck(9)], budget=30, reply_tokens=1)
    filler = "And so on.\n\n" if said == "no\n\n" else ""
    result, events = hold(team.session("Hi."), {0: STEP + said + filler})
    (one, *_) = result.interruptions
    assert one.answer is answer
    assert one.followed == said + filler
    answered = [event for event in events if isinstance(event, InterruptAnswered)]
    assert [(event.at, event.interruption.answer) for event in answered[:1]] == (
        [] if answer is None else [(9 + after, answer)]
    )


def test_an_answer_may_be_a_workers_last_word() -> None:
    """When the worker ends, nothing can follow; when the budget ends, it is not clear yet."""
    end = min(tokenizer().ends)
    no = [*tokenizer().encode(STEP + "no"), end]
    for budget, answer in ((60, False), (11, None)):
        options = {"interrupts": [RedundancyCheck(9)], "budget": budget, "may_end": True}
        (one,) = run({0: no, 1: [end]}, **options).interruptions
        assert (one.answer, one.followed) == (answer, "no")
