"""The benchmarks, read from tiny files in their formats."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.datasets import NAMES, Dataset, load
from hogwild_agents.evaluation.datasets.benchmarks import BENCHMARKS
from hogwild_agents.evaluation.scoring import mark
from tests.unit.evaluation.datasets.writing import (
    cases,
    grade_school,
    json_lines,
    olympic,
    packed,
    programming,
)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Loads rows as a benchmark."""

    def reader(name: str, *rows: Any, **options: Any) -> Dataset:
        return load(f"{name}:{json_lines(tmp_path / 'data.jsonl', rows)}", **options)

    return reader


def test_gsm8k(read: Any) -> None:
    dataset = read("gsm8k", grade_school(18), grade_school(70000, "And how many now?"))
    assert dataset.malformed == ()
    one, other = dataset.problems
    assert (one.id, one.question, one.truth, one.scorer) == ("gsm8k-1", "How many?", "18", "number")
    assert (other.id, other.truth) == ("gsm8k-2", "70,000")
    assert mark(other, "So it is \\boxed{70000}.") == 1
    assert mark(one, "So it is \\boxed{17}.") == 0


def test_gsm8k_five_in_one(read: Any) -> None:
    """Worded as in the paper; a remainder is dropped, and a malformed row leaves no gap."""
    rows: list[Any] = [grade_school(n, f"Question {n}?") for n in range(1, 13)]
    rows[2] = {"question": "Unanswered?", "answer": "no result"}
    dataset = read("gsm8k-x5", *rows)
    assert [bad.line for bad in dataset.malformed] == [3]
    one, other = dataset.problems
    assert one.question == (
        "Solve these problems and return comma-separated answers "
        "\\boxed{answer1,answer2,answer3,answer4,answer5} :\n"
        " 1. Question 1?\n 2. Question 2?\n 3. Question 4?\n 4. Question 5?\n 5. Question 6?"
    )
    assert one.truth == ["1", "2", "4", "5", "6"]
    assert other.truth == ["7", "8", "9", "10", "11"]
    assert len({one.id, other.id}) == 2
    assert mark(one, "\\boxed{1,2,4,5,6}") == 1
    assert mark(one, "\\boxed{1,2,4,5,0}") == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("name", "row", "id_"),
    [
        ("limo", {"question": "Q?", "solution": "S", "answer": "\\frac{1}{2}"}, "limo-1"),
        (
            "math-500",
            {
                "problem": "Q?",
                "solution": "S",
                "answer": "\\frac{1}{2}",
                "level": 2,
                "subject": "Algebra",
                "unique_id": "test/algebra/1.json",
            },
            "test/algebra/1.json",
        ),
        (
            "aime-2024",
            {
                "id": 60,
                "problem": "Q?",
                "solution": "S",
                "answer": "\\frac{1}{2}",
                "url": "https://example.org",
                "year": "2024",
            },
            "60",
        ),
        ("aime-2025", {"problem": "Q?", "answer": "\\frac{1}{2}", "id": "0"}, "0"),
    ],
)
def test_mathematics(read: Any, name: str, row: dict[str, Any], id_: str) -> None:
    (problem,) = read(name, row).problems
    assert (problem.id, problem.question, problem.truth) == (id_, "Q?", "\\frac{1}{2}")
    assert mark(problem, "\\boxed{0.5}") == 1
    assert mark(problem, "\\boxed{0.6}") == 0


def test_olympiadbench(read: Any) -> None:
    several = {"final_answer": ["$1$", "$4$"], "is_multiple_answer": True, "unit": None}
    dataset = read(
        *("olympiadbench", olympic(7), olympic(8, context="A stone.", error=None)),
        *(olympic(9, **several, error="1e-3,1e-1"), olympic(10, error="small")),
        *(olympic(11, final_answer=None), olympic(7)),
    )
    one, other, more = dataset.problems
    assert (one.id, one.scorer, one.truth) == ("7", "olympiad", "$2.0$")
    assert one.question == "Find the time of the fall.\n\nState the answer without its unit."
    assert other.question.startswith("A stone.\n\nFind the time")
    assert mark(one, "\\boxed{2.05 \\mathrm{~s}}") == 1
    assert mark(one, "\\boxed{2.2}") == 0
    assert mark(other, "\\boxed{2.05}") == 0
    assert more.question.endswith("State all answers, with commas between them.")
    assert mark(more, "\\boxed{4.05, 1}") == 1
    assert mark(more, "\\boxed{4, 1.05}") == 0
    assert [(bad.line, bad.reason) for bad in dataset.malformed] == [
        (4, "its 'error' 'small' is not a number."),
        (5, f"it has no 'final_answer'; its fields are {', '.join(map(repr, olympic(1)))}."),
        (6, "its id '7' is that of line 1."),
    ]


def test_livecodebench(read: Any) -> None:
    starter = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        "
    calls = cases(("1\n2", "3"), kind="functional")
    functional = {
        "starter_code": starter,
        "metadata": '{"func_name": "add"}',
        "public_test_cases": calls,
        "private_test_cases": packed(calls),
    }
    dataset = read("livecodebench-v6", programming("a"), programming("b", **functional))
    assert dataset.malformed == ()
    program, function = dataset.problems
    assert (program.id, program.scorer, program.truth) == ("a", "code", "passes 3 tests")
    assert program.question.startswith("Given two integers")
    assert "standard input" in program.question
    assert f"```python\n{starter.rstrip()}\n```" in function.question
    right = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    assert mark(program, right) == 1
    assert mark(program, right.replace("a + b", "3")) == 0  # only the public test
    assert mark(function, f"```python\n{starter}return a + b\n```") == 1


def test_private_tests_may_be_json(read: Any) -> None:
    plain = programming("a", private_test_cases=cases(("5 6", "12")), metadata={})
    (problem,) = read("livecodebench-v6", plain).problems
    assert mark(problem, "```python\nprint(sum(map(int, input().split())))\n```") == 0


def test_bad_tests_are_malformed_rows(read: Any) -> None:
    dataset = read(
        "livecodebench-v6",
        programming("a", private_test_cases="broken"),
        programming("b", public_test_cases="[]", private_test_cases=""),
        programming("c", public_test_cases=cases(("1", "1"), kind="functional")),
        programming("d", metadata="{"),
        programming("e"),
    )
    assert [problem.id for problem in dataset.problems] == ["e"]
    reasons = ["tests cannot be read", "no tests", "func_name", "'metadata' cannot be read"]
    for bad, reason in zip(dataset.malformed, reasons, strict=True):
        assert reason in bad.reason


def test_v5_is_a_window_of_time(read: Any) -> None:
    days = ["2024-07-31", "2024-08-01", "2025-01-31", "2025-02-01"]
    rows = [programming(day, day) for day in days]
    dataset = read("livecodebench-v5", *rows)
    assert [problem.id for problem in dataset.problems] == days[1:3]
    assert dataset.malformed == ()
    assert len(read("livecodebench-v6", *rows).problems) == 4


class Hub(ModuleType):
    """A stand-in for the package `datasets`."""

    def __init__(self, tables: dict[Any, list[dict[str, Any]]]) -> None:
        super().__init__("datasets")
        self.tables = tables

    def load_dataset(self, path: str, config: str | None, split: str) -> list[dict[str, Any]]:
        """One of the tables."""
        return self.tables[path, config, split]


PLACES = {
    "gsm8k": ("openai/gsm8k", "main", "test"),
    "gsm8k-x5": ("openai/gsm8k", "main", "test"),
    "limo": ("GAIR/LIMO", None, "train"),
    "olympiadbench": ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
    "olympiadbench-physics": ("Hothan/OlympiadBench", "OE_TO_physics_en_COMP", "train"),
    "math-500": ("HuggingFaceH4/MATH-500", None, "test"),
    "aime-2024": ("HuggingFaceH4/aime_2024", None, "train"),
    "aime-2025": ("math-ai/aime25", None, "test"),
}
"""As the data sets' cards have them."""


@pytest.mark.parametrize("name", PLACES)
def test_where_benchmarks_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {**olympic(3), "problem": "Q?", "answer": "#### 4", "unique_id": "u"}
    monkeypatch.setitem(sys.modules, "datasets", Hub({PLACES[name]: [row] * 5}))
    dataset = load(name)
    assert dataset.problems
    assert all(bad.file == f"hf:{PLACES[name][0]}" for bad in dataset.malformed)


def test_livecodebench_is_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    downloads: list[str] = []

    def download(path: str, file: str, repo_type: str) -> str:
        assert (path, repo_type) == ("livecodebench/code_generation_lite", "dataset")
        downloads.append(file)
        return json_lines(tmp_path / file, [programming(file), "broken"])

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    dataset = load("livecodebench-v5")
    assert downloads == ["test3.jsonl", "test4.jsonl", "test5.jsonl"]
    assert [problem.id for problem in dataset.problems] == downloads
    assert dataset.malformed[2].file == "hf:livecodebench/code_generation_lite/test5.jsonl"
    assert dataset.malformed[2].line == 2


def test_a_hub_path_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        ("me/mine", None, "test"): [{"question": "1+1?", "answer": "2"}],
        ("me/mine", "hard", "test"): [{"question": "1+2?", "answer": "3"}],
        ("me/mine", None, "dev"): [{"question": "1+3?", "answer": "4"}],
        ("me/mine", "hard", "dev"): [{"question": "1+4?", "answer": "5"}],
    }
    monkeypatch.setitem(sys.modules, "datasets", Hub(tables))
    names = ["hf:me/mine", "hf:me/mine:hard", "hf:me/mine::dev", "hf:me/mine:hard:dev"]
    assert [load(name).problems[0].truth for name in names] == ["2", "3", "4", "5"]
    assert load("hf:me/mine", split="dev").problems[0].truth == "4"
    assert load("hf:me/mine").problems[0].id == "mine-1"
    with pytest.raises(EvaluationError, match=r"Could not load me/mine, easy, test .*KeyError"):
        load("hf:me/mine:easy")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("datasets", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(EvaluationError, match="pip install datasets"):
        load("gsm8k")
    with pytest.raises(EvaluationError, match="pip install pyarrow"):
        load(f"gsm8k:{tmp_path / 'x.parquet'}")


def test_all_benchmarks_are_tried_above() -> None:
    assert {*PLACES, "livecodebench-v5", "livecodebench-v6"} == set(BENCHMARKS)
    assert ("pocket", *BENCHMARKS) == NAMES
