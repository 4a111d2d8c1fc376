"""The pocket team: its settings, its prompt, and how its answers are read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import InvalidTeamError
from hogwild_agents.names import NAMES
from hogwild_agents.pocket import team_settings
from hogwild_agents.pocket.tasks import make_task_list, score
from hogwild_agents.pocket.training.teacher import REFUSAL
from hogwild_agents.team import CollaborationPrompt, RedundancyCheck, Team
from hogwild_agents.team.answers import boxed
from tests.unit.pocket.training.playing import prompt_of, seeds, sizes, team, tokenizer

many = settings(max_examples=100, deadline=None, derandomize=True)
ANSWER = team_settings()["answer"]
PIECES = ("(a)", "(b)", "\\boxed{", "}", "...", ",", "5")


@pytest.mark.parametrize("workers", [1, 2, 3, 4, ["Alice"], ["Alice", "Bob"]])
def test_teams(workers: int | list[str]) -> None:
    """Settings make a team; a single worker gets no redundancy check."""
    team = Team(tokenizer(), **team_settings(workers))
    count = workers if isinstance(workers, int) else len(workers)
    assert team.workers == NAMES[:count]
    assert team.sampling.temperature == 0
    assert team.finisher == "answer"
    assert team.interrupts == (() if count == 1 else (RedundancyCheck(every=128),))


def test_settings_are_not_shared() -> None:
    """A change of one team's settings changes no other team's."""
    team_settings()["interrupts"].clear()
    team_settings()["budget"] = 1
    assert team_settings()["interrupts"]
    assert team_settings()["budget"] > 1


def test_prompt() -> None:
    """Names, the question, and nothing else; a single worker's prompt has no names."""
    assert team_settings()["prompt"] == CollaborationPrompt(style="names")
    question = "<|user|>2 + 3<|end|><|team|>"
    expected = {
        ("combined", 1): question,
        ("combined", 2): f"<|system|>Alice, Bob<|end|>{question}### History\n\n",
        ("interleaved", 3): f"<|system|>Alice, Bob, Carol<|end|>{question}### History\n\n",
        ("contiguous", 2): f"<|system|>Alice, Bob<|end|>{question}",
    }
    for (layout, workers), prompt in expected.items():
        assert tokenizer().decode(prompt_of(team(layout, workers), "2 + 3")) == prompt


# Answers.

orders = st.permutations(range(8))


@many
@given(seeds, sizes, orders, st.lists(st.integers(0, 3), min_size=9, max_size=9))
def test_lists_are_put_in_order(seed: int, size: int, order: list[int], waits: list[int]) -> None:
    """By their labels, and without the waiting."""
    task_list = make_task_list(seed, size)
    items = [f"({label}) {answer}" for label, answer in task_list.answers.items()]
    written = [
        f"{items[at]}{' ...' * wait}" for at, wait in zip(order, waits, strict=False) if at < size
    ]
    text = f"\\boxed{{{' ...' * waits[-1]}{', '.join(written)}}}.\n\n"
    for read in (ANSWER.find, ANSWER.extract):
        assert read(text) == ", ".join(items)
        assert score(task_list, read(text)) == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"\\boxed{{{REFUSAL}}}.\n\n", REFUSAL),
        ("So \\boxed{5 apples, or 6}.", "5 apples, or 6"),
        ("\\boxed{wait ... for it}", "wait ... for it"),
        ("\\boxed{f(x) and (z) 3}", "f(x) and (z) 3"),
        ("\\boxed{...}", None),
        ("\\boxed{ ... ...}", "... ..."),
        ("\\boxed{}", None),
        ("no box, (a) 5", None),
        ("", None),
        ("\\boxed{(b) 2} and then \\boxed{(b) 3, (a) 1}", "(a) 1, (b) 3"),
        ("\\boxed{(b) 2, (b) 3}", "(b) 3"),
    ],
)
def test_other_answers(text: str, answer: str | None) -> None:
    """They stay as they are, and there may be none."""
    assert ANSWER.find(text) == answer
    assert ANSWER.extract(text) == answer


def test_an_answer_that_was_cut() -> None:
    """An unfinished list does not count: most of it would be invented."""
    assert ANSWER.find("\\boxed{(b) 7, (a) 12") is None
    assert ANSWER.extract("\\boxed{(b) 7, (a) 12") is None
    assert ANSWER.opening == ANSWER.prefix == "\\boxed{"
    assert ANSWER.complete("(a) 5}.")
    assert not ANSWER.complete("(a) 5")


@many
@given(
    st.text()
    | st.lists(st.sampled_from(["(a)", "(b)", "\\boxed{", "}", "...", ",", "5"])).map(" ".join)
)
def test_any_text(text: str) -> None:
    """Nothing raises; there is an answer exactly where a boxed text has one that is not cut."""
    assert (ANSWER.find(text) is None) == (boxed().find(text) is None)
    cut = "}" not in text
    assert (ANSWER.extract(text) is None) == (cut or boxed().extract(text) is None)


def test_other_teams_are_refused() -> None:
    """The message says what to do."""
    for workers in (5, ["Ada", "Emmy"], ["Bob", "Alice"]):
        with pytest.raises(InvalidTeamError, match="a number from 1 to 4, or use another model"):
            team_settings(workers)
    assert team_settings(["Alice", "Bob"])["workers"] == ["Alice", "Bob"]


@pytest.mark.parametrize("size", [6, 8])
def test_there_is_room_for_the_answer(size: int) -> None:
    """The finisher may write the longest list that is likely."""
    longest = max(
        len(tokenizer().encode(", ".join(f"({k}) {v}" for k, v in task_list.answers.items()) + "}"))
        for task_list in (make_task_list(seed, size) for seed in range(500))
    )
    assert longest <= ANSWER.max_tokens
