"""`hogwild eval`, run as a user would, on the model that ships inside."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

import hogwild_agents.cli.eval as eval_command
from hogwild_agents.evaluation.records import Record
from hogwild_agents.evaluation.runs import RunFolder
from tests.unit.cli.conftest import Invoke

SMALL = ("--limit", "2", "--budgets", "48,128", "--strategies", "single,hogwild", "--workers", "2")


def test_a_run_and_again(invoke: Invoke, tmp_path: Path) -> None:
    """A table and a page; the same command has nothing left to do, another is refused."""
    out = tmp_path / "run"
    result = invoke("eval", *SMALL, "--out", str(out))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["passes", "single", "hogwild-2"]
    assert [line.split()[0] for line in lines[2:4]] == ["48", "128"]
    assert str(out / "report.html") in result.stdout
    assert {"report.html", "report.md", "results.csv", "accuracy.svg"} <= {*os.listdir(out)}
    records = (out / "records.jsonl").read_text()
    assert len(records.splitlines()) == 2 * 2 * 2

    again = invoke("eval", *SMALL, "--out", str(out))
    assert again.stdout == result.stdout
    assert (out / "records.jsonl").read_text() == records

    other = invoke("eval", *SMALL, "--seeds", "2", "--out", str(out))
    assert other.exit_code == 2
    assert "seeds was [0] and is [0, 1]" in other.stderr.replace("\n", " ")
    assert (out / "records.jsonl").read_text() == records


def test_data_of_one_s_own(invoke: Invoke, tmp_path: Path) -> None:
    """Two arguments change; a row that is none is named and skipped."""
    file = tmp_path / "mine.jsonl"
    row = {"prompt": "Solve these tasks.\n(a) 17 + 25", "right": "42"}
    file.write_text(json.dumps(row) + "\n{broken\n" + json.dumps(row | {"right": None}) + "\n")
    result = invoke(
        "eval", "--dataset", str(file), "--question", "prompt", "--answer", "right",
        "--scorer", "number", "--strategies", "hogwild", "--workers", "2", "--budgets", "128",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "mine.jsonl:2" in result.stderr
    assert "mine.jsonl:3" in result.stderr
    assert "100" in result.stdout.splitlines()[2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--strategies", "voting"), "no strategy 'voting'"),
        (("--budgets", "64,none"), "not a list of whole numbers"),
        (("--workers", "0"), "not a list of whole numbers"),
        (("--dataset", "nowhere.jsonl"), "no file nowhere.jsonl"),
        (("--dataset", "gsm9k"), "gsm9k"),
        (("--dataset", "mine.jsonl", "--scorer", "taste"), "taste"),
        (("--layouts", "circle"), "circle"),
        (("--device", "nonsense"), "nonsense"),
        (("--workers", "2,5"), "trained to be one to 4 workers"),
    ],
)
def test_what_makes_no_sense(
    invoke: Invoke, tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    """It is said before any work."""
    result = invoke("eval", "--limit", "1", *given, "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.glob("run/records*"))


def test_a_file_is_no_folder(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    result = invoke("eval", *SMALL, "--out", str(file))
    assert result.exit_code == 2
    assert file.read_text() == "mine"


def test_without_jinja2(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before the work, not after."""
    monkeypatch.setattr(eval_command, "find_spec", lambda _: None)
    result = invoke("eval", *SMALL, "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert "needs jinja2: pip install 'hogwild-agents[eval]'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_ctrl_c(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is kept, and the same command goes on."""
    add = RunFolder.add

    def pressed(self: RunFolder, records: list[Record], transcript: Any) -> None:
        add(self, records, transcript)
        os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", pressed)
        result = invoke("eval", *SMALL, "--in-flight", "1", "--out", str(out))
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    assert 0 < len((out / "records.jsonl").read_text().splitlines()) < 8
    result = invoke("eval", *SMALL, "--out", str(out))
    assert result.exit_code == 0, result.output
    assert len((out / "records.jsonl").read_text().splitlines()) == 8


def results_of(out: Path) -> list[dict[str, str]]:
    """A run's table, but for how long it took."""
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if "seconds" not in name} for row in rows]


def count_of(out: Path) -> int:
    """Lines of records, whole or torn."""
    file = out / "records.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path) -> None:
    """SIGKILL at random moments of the real command; the table is an unbroken run's."""
    command = [sys.executable, "-c", "from hogwild_agents.cli import main; main()", "eval"]
    command += ["--limit", "40", "--budgets", "64,128,256", "--workers", "2", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    rng, out, lines = Random(3), tmp_path / "killed", []
    for _ in range(10):
        run = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL)
        before, more = count_of(out), rng.randint(1, 30)
        while run.poll() is None and count_of(out) < before + more:
            time.sleep(0.01)
        run.kill()
        run.wait()
        lines.append(count_of(out))
    assert lines[0] < lines[-1] < 40 * 3 * 3, f"never killed in the middle: {lines}"
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert results_of(out) == results_of(tmp_path / "whole")
