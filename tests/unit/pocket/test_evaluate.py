"""The evaluation of the pocket model: how workers are provoked, and what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.pocket.evaluate import (
    HIDDEN,
    KINDS,
    CallRow,
    Provoke,
    TaskRow,
    evaluate,
    summarize_calls,
    teams,
)
from hogwild_agents.pocket.judge import JudgedReply
from hogwild_agents.pocket.tasks import LABELS, make_task_list
from hogwild_agents.pocket.training.dialogues import Dialogue, dialogues
from hogwild_agents.pocket.training.teacher import DirectAnswer
from hogwild_agents.team import InterruptContext, Result, Step
from hogwild_agents.team.events import Timings

PROBLEM = make_task_list(1, 6).text


def context(worker: str = "Bob", index: int = 2, **others: str) -> InterruptContext:
    """What Bob sees after Alice has solved (a) and he (b)."""
    steps = [("Alice", "(a) 1 + 1, so (a) 2.\n\n"), ("Bob", "(b) reverse ab, so (b) ba.\n\n")]
    history = tuple(Step(name, 1, text, text, 9, 1, 9) for name, text in steps)
    return InterruptContext(
        worker=worker,
        index=index,
        workers=("Alice", "Bob", "Carol"),
        problem=PROBLEM,
        history=history,
        others=others,
        passes=10,
        budget=100,
        tokens=30,
        since=1,
    )


def label_of(forced: str | None) -> str:
    return forced[8] if forced else ""


@given(st.integers(0, 10_000))
def test_no_worker_is_made_to_claim_its_own_task_again(seed: int) -> None:
    """The claimed task is in the list, and the words are those that the model knows."""
    forced = Provoke(seed, share=1.0)(context(Carol="(c) wait"))
    assert forced == f"I take ({label_of(forced)}). "
    assert label_of(forced) in LABELS[:6]
    assert label_of(forced) != "b"


def test_taken_tasks_are_claimed_as_often_as_free_ones() -> None:
    labels = [label_of(Provoke(seed, share=1.0)(context(Carol="(c) 1"))) for seed in range(400)]
    taken = sum(label in "ac" for label in labels)
    assert 160 < taken < 240
    assert set(labels) == set("acdef")


def test_it_speaks_in_a_share_of_the_steps() -> None:
    texts = [Provoke(3, share=0.25)(context(index=index)) for index in range(2, 402)]
    assert 60 < sum(text is not None for text in texts) < 140
    assert texts == [Provoke(3, share=0.25)(context(index=index)) for index in range(2, 402)]


# Tools and structures.

DIALOGUES = [next(dialogues("test", kind)) for kind in KINDS]


def reply(dialogue: Dialogue, text: str, passes: int = 3) -> JudgedReply:
    """A reply of two workers."""
    result = Result(
        workers=("Alice", "Bob"),
        layout="combined",
        finish_reason="answer",
        timings=Timings(None, None, None, 0.0),
        reply=text,
        passes=passes,
        reply_passes=4,
    )
    return JudgedReply(dialogue.kind, dialogue.text, result)


def test_shares_of_replies() -> None:
    """Each kind counts separately."""
    call, result, structure = DIALOGUES
    name = call.problem.text if isinstance(call.problem, DirectAnswer) else ""
    wrong = f'<tool_call>\n{{"name": "{name}", "arguments": {{"it": 5}}}}\n</tool_call>'
    texts = [(call, call.text), (call, wrong), (call, "I cannot"), (call, call.text)]
    texts += [(result, result.text), (result, f"{result.text}!"), (structure, structure.text)]
    row = summarize_calls([reply(*text, passes=n) for n, text in enumerate(texts)])
    assert row == CallRow(2, 4, 0.75, 0.5, 0.5, 1.0, 7.0)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints two tables and writes the figures to a file; here for some of the teams."""
    small = [team for team in teams() if team[1]["workers"] < 3 and team[0] != HIDDEN.name]
    monkeypatch.setattr("hogwild_agents.pocket.evaluate.teams", lambda: small)
    monkeypatch.setattr("hogwild_agents.pocket.evaluate.SIZES", (1, 2))
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "rows.json"
    evaluate(problems=2, size=2, calls=1, json_file=file)
    printed = capsys.readouterr().out
    written = json.loads(file.read_text())
    rows = [TaskRow(**row) for row in written["tasks"]]
    assert [row.team for row in rows] == [name for name, _ in small]
    assert {row.sessions for row in rows} == {2}
    assert rows[0].ratio == 1
    calls = [CallRow(**row) for row in written["calls"]]
    assert [(row.workers, row.conversations) for row in calls] == [(1, 1), (2, 1)]
    for passes in (*(row.passes for row in rows), *(row.passes for row in calls)):
        assert f"{passes:.1f}" in printed
