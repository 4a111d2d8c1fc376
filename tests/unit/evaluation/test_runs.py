"""Resumable runs: wherever a run is cut off, the same command ends with the same records."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation import runs
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.records import Record
from hogwild_agents.evaluation.runs import RunFolder, Trial, run_trials, trials_of
from hogwild_agents.evaluation.sessions import Setting
from tests.unit.evaluation.adding import (
    BUDGETS,
    CONFIG,
    PROBLEMS,
    Adds,
    run_all,
)

ROOT = Path(__file__).parents[3]


def by_key(records: Sequence[Record]) -> list[Record]:
    """In an order that does not depend on which trial was done first."""
    return sorted(records, key=lambda record: record.key)


def test_a_run(tmp_path: Path) -> None:
    """A record for everything that was asked, marked; a transcript for every trial."""
    counted: list[int] = []
    run = run_all(tmp_path, Adds(), Adds("twin"), advance=lambda: counted.append(1))
    assert len(run.records) == 6 * 2 * 2 * 3
    assert len({record.key for record in run.records}) == len(run.records)
    assert len(run.transcripts) == len(counted) == 24
    scores = {record.score for record in run.records}
    assert scores == {0.0, 1.0}
    for record in run.records:
        assert record.score == float(record.answer is not None)
        assert record.passes <= record.budget
        assert record.measures == {"balance": 1.0}
    last = {(r.problem, r.strategy, r.seed): r for r in run.records if r.budget == 16}
    for transcript in run.transcripts:
        record = last[transcript.problem, transcript.strategy, transcript.seed]
        assert (transcript.answer, transcript.score) == (record.answer, record.score)
        assert transcript.steps[0]["text"] == "…"
        assert transcript.workers == ("A",)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    first, again = Adds(), Adds()
    whole = run_all(tmp_path, first)
    counted: list[int] = []
    same = run_all(tmp_path, again, advance=lambda: counted.append(1))
    assert again.calls == []
    assert same.records == whole.records
    assert len(counted) == 12


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_cut_off_anywhere(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Both files end at any byte, as after a kill: the run goes on to the same records."""
    folder = tmp_path_factory.mktemp("run")
    whole = by_key(run_all(folder, Adds()).records)
    for name in (runs.RECORDS, runs.TRANSCRIPTS):
        file = folder / name
        size = file.stat().st_size
        with file.open("rb+") as cut:
            cut.truncate(data.draw(st.integers(0, size) | st.just(size)))
    resumed = Adds()
    run = run_all(folder, resumed)
    assert by_key(run.records) == whole
    assert len(run.transcripts) == 12
    assert len(set(resumed.calls)) == len(resumed.calls)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"budgets": [4, 8]}, r"budgets was \[4, 8, 16\] and is \[4, 8\]"),
        ({"data": "products"}, "data was 'sums' and is 'products'"),
        ({"more": 1}, "more was None and is 1"),
    ],
)
def test_another_configuration(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """It is refused with what changed, and nothing is touched."""
    kept = run_all(tmp_path, Adds()).records
    with pytest.raises(EvaluationError, match=words):
        RunFolder(tmp_path, CONFIG | changed)
    assert RunFolder(tmp_path, CONFIG).records == kept


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / runs.RECORDS).write_text("{}\n")
    with pytest.raises(EvaluationError, match="use another folder"):
        RunFolder(tmp_path, CONFIG)


@pytest.mark.parametrize("line", ["{", "[]", '{"problem": "p0"}'])
def test_a_line_that_is_broken(tmp_path: Path, line: str) -> None:
    """Its file and number are named: it is no kill that wrote it."""
    run_all(tmp_path, Adds())
    file = tmp_path / runs.RECORDS
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(EvaluationError, match=r"records\.jsonl, line 2"):
        RunFolder(tmp_path, CONFIG)


def test_a_failing_problem_stops_nobody(tmp_path: Path) -> None:
    """It is recorded with its error at every budget, and has no score."""
    run = run_all(tmp_path, Adds(errors={"p2": [ValueError("no room"), ValueError("no room")]}))
    failed = [record for record in run.records if record.error is not None]
    assert {record.problem for record in failed} == {"p2"}
    assert len(failed) == 6
    assert {record.error for record in failed} == {"ValueError: no room"}
    assert all(record.score is None for record in failed)
    assert len(run.records) == 36


def test_what_is_transient_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few times; then it is recorded like any other failure."""
    monkeypatch.setattr(runs, "wait_exponential_jitter", lambda **_: lambda _: 0)
    away: list[Exception] = [ConnectionError("away") for _ in range(9)]
    adds = Adds(errors={"p1": [TimeoutError()], "p3": away})
    run = run_all(tmp_path, adds)
    assert {record.problem for record in run.records if record.error} == {"p3"}
    assert adds.calls.count(("p1", 0)) + adds.calls.count(("p1", 1)) == 3
    assert adds.calls.count(("p3", 0)) == runs.ATTEMPTS


def test_a_scorer_that_fails(tmp_path: Path) -> None:
    """Is an error of the problem."""

    def broken(_: Problem, answer: str) -> float:
        raise RuntimeError(f"cannot read {answer}")

    run = RunFolder(tmp_path, CONFIG)
    trials = trials_of(PROBLEMS[:1], [Adds()], [0, 1, 2, 3])
    asyncio.run(run_trials(Setting(), trials, BUDGETS, broken, run))
    assert any("cannot read 1" in str(record.error) for record in run.records)


@pytest.mark.parametrize("room", [1, 5])
def test_so_many_at_a_time(tmp_path: Path, room: int) -> None:
    adds = Adds()
    run_all(tmp_path, adds, in_flight=room)
    assert adds.max_running == room


def test_equal_answers_are_marked_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def mark(problem: Problem, answer: str) -> float:
        asked.append(problem.id + answer)
        return 1.0

    trials = [Trial(PROBLEMS[0], Adds("early"), seed) for seed in range(8)]
    run = RunFolder(tmp_path, CONFIG)
    asyncio.run(run_trials(Setting(), trials, BUDGETS, mark, run))
    answered = {record.seed for record in run.records if record.answer is not None}
    assert len(asked) == len(answered)


KILLED = """
import sys
from pathlib import Path
from tests.unit.evaluation.adding import Adds, run_all

print("begun", flush=True)
run_all(Path(sys.argv[1]), Adds(delay=0.02), in_flight=2)
print("done", flush=True)
"""


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL again and again; then the records of an unbroken run."""
    whole = run_all(tmp_path / "whole", Adds())
    rng = Random(5)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    folder = tmp_path / "killed"
    ends = []
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0.02, 0.1))
        process.send_signal(signal.SIGKILL)
        ends.append(process.wait())
    assert -signal.SIGKILL in ends
    run = run_all(folder, Adds())
    assert by_key(run.records) == by_key(whole.records)
    texts = [json.dumps(asdict(one), sort_keys=True) for one in run.transcripts]
    assert sorted(texts) == sorted(
        json.dumps(asdict(one), sort_keys=True) for one in whole.transcripts
    )
