"""`hogwild solve`, run as a user would, on models that say what a test wants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from hogwild_agents import pocket
from hogwild_agents.cli.loading import load_team
from hogwild_agents.cli.options import TeamOptions
from hogwild_agents.team import RedundancyCheck
from hogwild_agents.team.config import DEFAULT_SAMPLING
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.cli.conftest import LINES, Invoke, Says
from tests.unit.engine.families import build
from tests.unit.team.scripted import GREEDY, TINY, fail_after
from tests.unit.team.tokenizers import plain_bytes


def test_plain_text_tells_the_story(says: Says, invoke: Invoke) -> None:
    """A line for each thing that happens, then the answer and what it took."""
    says(LINES)
    result = invoke("solve", "Q?")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line]
    question = QUESTION.strip()
    assert lines[0].startswith("Alice, Bob: the prompt of ")
    assert lines[1:] == [
        "Alice [1]: I'm Alice. I add.",
        f"? Alice [2] is asked: {question}",
        "? Alice [2] answers yes: pivot",
        f"Alice [2]: {question} yes, so [red]I stop[/red].",
        f"? Alice [3] is asked: {question}",
        "? Alice [3] answers no",
        "Bob [1]: I'm Bob. I wait, and wait, and wait, and wait.",
        f"Alice [3]: {question} no. It is \\boxed{{42}}.",
        "Thinking ended after 60 passes: an answer was found",
        "Bob [2] (unfinished): On I go, and on, and",
        "Answer: 42",
        "The thinking ended because an answer was found.",
        lines[13],
        "Asked about redundant work: 1 yes (pivots), 1 no",
    ]
    assert lines[13].startswith(
        "60 forward passes (60 thinking, 0 replying), 120 tokens (Alice 60, Bob 60), "
    )
    assert "\x1b" not in result.output


def test_json_is_all_there_is(says: Says, invoke: Invoke) -> None:
    """One object with everything; nothing on stderr where that is no terminal."""
    says(LINES)
    result = invoke("solve", "Q?", "--json", "--compare")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    told = json.loads(result.stdout)
    one = told.pop("one_worker")
    assert set(one) == set(told)
    assert told["answer"] == one["answer"] == "42"
    assert (told["finish_reason"], told["passes"], told["reply_passes"]) == ("answer", 60, 0)
    assert told["tokens"] == {"Alice": 60, "Bob": 60}
    assert told["seconds"] > 0
    steps = [(step["worker"], step["index"]) for step in told["history"]]
    assert steps == [("Alice", 1), ("Alice", 2), ("Bob", 1), ("Alice", 3)]
    assert told["history"][0]["text"] == "I'm Alice. I add."
    assert [check["answer"] for check in told["interruptions"]] == [True, False]
    assert told["error"] is None
    assert list(one["tokens"]) == ["Alice"]
    assert one["interruptions"] == []


def test_compare(says: Says, invoke: Invoke) -> None:
    """A table, and the ratio in a sentence."""
    says(LINES)
    result = invoke("solve", "Q?", "--compare")
    assert result.exit_code == 0, result.output
    *_, header, team, one, sentence = result.stdout.splitlines()
    assert header.split() == ["workers", "forward", "passes", "tokens", "seconds", "answer"]
    assert team.split()[:3] == ["2", "60", "120"]
    assert (one.split()[0], one.split()[-1]) == ("1", "42")
    ratio = 60 / int(one.split()[1])
    assert sentence == f"2 workers needed {ratio:.2f}x the forward passes of one."


def test_compare_with_nothing_to_compare(says: Says, invoke: Invoke) -> None:
    """Who is cut off has shown no need; one worker is no team."""
    says({"": "\n"})
    result = invoke("solve", "Q?", "--compare", "--budget", "5")
    assert "Cut off while thinking: 2 workers and one worker." in result.stdout
    assert "No answer was found: the budget was used up. Raise --budget." in result.stdout
    result = invoke("solve", "Q?", "--compare", "--workers", "1")
    assert result.exit_code == 2
    assert "two workers or more" in result.output


def test_options_replace_what_suits_the_model(says: Says, invoke: Invoke) -> None:
    """Names, layout, budget and checks are the user's."""
    says({"": "So.\n\n"})
    options = ["--layout", "interleaved", "--budget", "7", "--interrupt-every", "0"]
    result = invoke("solve", "Q?", "--json", "--workers", "Ada, Emmy,Sophie", *options)
    told = json.loads(result.stdout)
    assert told["passes"] == 7
    assert list(told["tokens"]) == ["Ada", "Emmy", "Sophie"]
    assert told["interruptions"] == []
    told = json.loads(invoke("solve", "Q?", "--json", "--workers", "1", "--budget", "7").stdout)
    assert told["interruptions"] == []
    assert list(told["tokens"]) == ["Alice"]


def test_how_tokens_are_chosen(says: Says) -> None:
    """What is not chosen stays as it suits the model."""
    says(LINES)
    nothing = TeamOptions()
    assert load_team("pocket", nothing).sampling == GREEDY
    chosen = replace(nothing, temperature=0.5, seed=7, interrupt_every=64)
    team = load_team("pocket", chosen)
    assert team.sampling == replace(GREEDY, temperature=0.5, seed=7)
    assert team.interrupts == (RedundancyCheck(every=64),)
    assert load_team(str(pocket.FOLDER), nothing).sampling == GREEDY
    other = copytree(pocket.FOLDER, pocket.FOLDER.with_name("other"))
    plain = load_team(str(other), nothing)
    assert (plain.sampling, plain.budget) == (DEFAULT_SAMPLING, 4096)


def test_transcript(says: Says, invoke: Invoke, tmp_path: Path) -> None:
    """The problem, every step with its prefix, checks, answer and figures, for each team."""
    says(LINES)
    file = tmp_path / "story.txt"
    result = invoke("solve", "Q?", "--compare", "--transcript", str(file))
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert text.count("Problem\n-------\nQ?\n") == 2
    assert "Alice, Bob (combined, 100 passes)" in text
    assert "**Alice [1]:** I'm Alice. I add.\n\n**Alice [2]:** " in text
    assert f"pass 9, Alice [2]: {QUESTION.strip()} yes\n" in text
    assert "Answer: 42" in text
    assert "60 forward passes" in text
    assert "Alice (solo, 200 passes)" in text


def test_the_problem_from_standard_input(says: Says, invoke: Invoke, tmp_path: Path) -> None:
    """All of it, several lines too."""
    says(LINES)
    file = tmp_path / "story.txt"
    result = invoke("solve", "-", "--transcript", str(file), typed="(a) 1\n(b) 2\n")
    assert result.exit_code == 0, result.output
    assert "(a) 1\n(b) 2\n" in file.read_text()
    result = invoke("solve", "-", typed=" \n")
    assert result.exit_code == 2
    assert "empty" in result.stderr


def test_a_session_that_fails(says: Says, invoke: Invoke, tmp_path: Path) -> None:
    """What was reached is printed and kept; the reason is on stderr."""
    says(LINES).before = fail_after(30)
    file = tmp_path / "story.txt"
    result = invoke("solve", "Q?", "--compare", "--transcript", str(file))
    assert result.exit_code == 1
    assert "Alice [1]: I'm Alice. I add." in result.stdout
    assert "No answer was found: it failed." in result.stdout
    assert "the device is on fire" in result.stderr
    assert "**Alice [1]:** I'm Alice. I add." in file.read_text()
    says(LINES).before = fail_after(30)
    result = invoke("solve", "Q?", "--json")
    assert result.exit_code == 1
    assert "on fire" in json.loads(result.stdout)["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'hogwild solve "'),
        (["Q?", "--transcript", "no/such/folder/x.txt"], "no folder"),
        (["Q?", "--transcript", "."], "is a directory"),
        (["Q?", "--budget", "0"], "not in the range x>=1"),
        (["Q?", "--workers", "9"], "choose 1 to 8"),
        (["Q?", "--workers", "Ada,"], "no letter or digit"),
        (["Q?", "--layout", "round"], "not one of 'combined'"),
        (["Q?", "--seed", "18446744073709551616"], "seed"),
        (["Q?", "--model", "no/such/folder"], "no such folder"),
        ([" "], "is empty"),
    ],
)
def test_what_cannot_begin(arguments: list[str], message: str, says: Says, invoke: Invoke) -> None:
    """Exit code 2, one message, nothing on stdout."""
    says(LINES)
    result = invoke("solve", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_ctrl_c_for_real(tmp_path: Path) -> None:
    """The command in a process of its own, stopped in the middle: what was reached, and no more."""
    long = replace(TINY, config={**TINY.config, "max_position_embeddings": 65536})
    build(long).save_pretrained(tmp_path / "model")
    plain_bytes().save_pretrained(tmp_path / "model")
    file = tmp_path / "story.txt"
    command = [sys.executable, "-c", "from hogwild_agents.cli import main; main()"]
    command += ["solve", "Q?", "--model", str(tmp_path / "model"), "--budget", "20000"]
    command += ["--device", "cpu", "--transcript", str(file)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline().startswith("Alice, Bob: the prompt of ")
            running.send_signal(signal.SIGINT)
            output, problems = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 130
    assert "Alice [1] (unfinished): I'm Alice." in output
    assert "No answer was found: it was cancelled." in output
    assert "Traceback" not in problems
    assert "I'm Alice." in file.read_text()
