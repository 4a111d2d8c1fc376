"""Users' own data: files, field maps, malformed rows, and reproducible samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.datasets import Dataset, load
from hogwild_agents.evaluation.problems import digest_of
from hogwild_agents.evaluation.scoring import mark
from tests.unit.evaluation.datasets.writing import cases, json_lines

ROOT = Path(__file__).parents[4]


def brief(dataset: Dataset) -> list[tuple[str, str, Any, str]]:
    """The problems as tuples."""
    return [(p.id, p.question, p.truth, p.scorer) for p in dataset.problems]


def test_usual_field_names(tmp_path: Path) -> None:
    """They are found, the line number is the id, and the answer decides the scorer."""
    path = json_lines(
        tmp_path / "my.jsonl",
        [
            {"question": "1+1?", "answer": 2},
            {"problem": "Price?", "target": "$1,200.50"},
            "",
            {"id": "capital", "prompt": "Capital of France?", "answer": "Paris"},
            {"question": "Two colours?", "answer": ["red", "blue"]},
            {"question": "Half?", "answer": "\\frac{1}{2}", "scorer": "math"},
        ],
    )
    assert brief(load(path)) == [
        ("my-1", "1+1?", 2, "number"),
        ("my-2", "Price?", "$1,200.50", "number"),
        ("capital", "Capital of France?", "Paris", "exact"),
        ("my-5", "Two colours?", ["red", "blue"], "list"),
        ("my-6", "Half?", "\\frac{1}{2}", "math"),
    ]


def test_a_field_map(tmp_path: Path) -> None:
    row = {"q": "Which?", "gold": "B", "key": 7, "how": "choice", "question": "no", "letters": "AB"}
    path = json_lines(tmp_path / "my.jsonl", [row])
    fields = {"question": "q", "answer": "gold", "id": "key", "scorer": "how"}
    dataset = load(path, fields=fields)
    assert brief(dataset) == [("7", "Which?", "B", "choice")]
    assert dataset.problems[0].extra == {"letters": "AB"}
    assert load(path, fields=fields, scorer="exact").problems[0].scorer == "exact"
    with pytest.raises(EvaluationError, match="no role title: choose from question, answer"):
        load(path, fields={"title": "q"})
    with pytest.raises(EvaluationError, match="gsm8k has its own"):
        load(f"gsm8k:{path}", fields=fields)
    with pytest.raises(EvaluationError, match="no scorer 'none'"):
        load(path, scorer="none")


def test_programs(tmp_path: Path) -> None:
    tests = json.loads(cases(("2", "4")))
    path = json_lines(tmp_path / "my.jsonl", [{"question": "Double?", "answer": tests}])
    (problem,) = load(path, scorer="code").problems
    assert mark(problem, "```python\nprint(2 * int(input()))\n```") == 1
    assert mark(problem, "```python\nprint(int(input()))\n```") == 0


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_tables(tmp_path: Path, suffix: str, comma: str) -> None:
    """Cells with line ends and quotes; the line of a row is its first; a mark at the start."""
    lines = [
        "question,answer,scorer".replace(",", comma),
        f'"Two\nlines, ""quoted""?"{comma}5{comma}',
        f"Short?{comma}5",
        f'Colours?{comma}"red, blue"{comma}list',
        f'Labels?{comma}"{{""a"": ""4""}}"{comma}list',
        f"Which?{comma}B{comma}choice",
    ]
    path = tmp_path / f"my.{suffix}"
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    dataset = load(str(path))
    assert brief(dataset) == [
        ("my-2", 'Two\nlines, "quoted"?', "5", "number"),
        ("my-5", "Colours?", ["red", "blue"], "list"),
        ("my-6", "Labels?", {"a": "4"}, "list"),
        ("my-7", "Which?", "B", "choice"),
    ]
    assert [str(bad) for bad in dataset.malformed] == [
        f"{path}:4: it has 2 cells, but the first line has 3."
    ]


def test_a_list_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text(json.dumps([{"question": "1+1?", "answer": "2"}, 7]))
    dataset = load(str(path))
    assert brief(dataset) == [("my-1", "1+1?", "2", "number")]
    assert [bad.line for bad in dataset.malformed] == [2]
    for broken in ('{"question": "1+1?"}', "["):
        path.write_text(broken)
        with pytest.raises(EvaluationError, match=r"jsonl"):
            load(str(path))


GOOD = {"question": "1+1?", "answer": "2"}

BAD: list[tuple[Any, str]] = [
    ("{", "it is not JSON: "),
    ("[1]", "it is not a JSON object"),
    ("[" * 100_000, "JSON"),
    ({"question": "1+1?"}, "it has no 'answer'; its fields are 'question'."),
    ({"question": "", "answer": "2"}, "it has no 'question'"),
    ({"question": "  ", "answer": "2"}, "its 'question' is blank."),
    ({"question": ["1+1?"], "answer": "2"}, "its 'question' is not text but a list."),
    ({"question": "1+1?", "answer": "two", "scorer": "number"}, "'two' is not a number."),
    ({"question": "1+1?", "answer": "two", "scorer": "choice"}, "'two' is not a letter."),
    ({"question": "1+1?", "answer": [2], "scorer": "math"}, "use the scorer `list`"),
    ({"question": "1+1?", "answer": 2, "scorer": "list"}, "2 is not a list."),
    ({"question": "1+1?", "answer": 2, "scorer": "none"}, "no scorer 'none': choose from math"),
    ({"question": "1+1?", "answer": "2", "scorer": "code"}, "its tests cannot be read"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_malformed_row_is_named_and_skipped(row: Any, reason: str, tmp_path: Path) -> None:
    path = json_lines(tmp_path / "my.jsonl", [GOOD, row, {**GOOD, "answer": "3"}])
    dataset = load(path)
    assert [problem.id for problem in dataset.problems] == ["my-1", "my-3"]
    (bad,) = dataset.malformed
    assert (bad.file, bad.line) == (path, 2)
    assert reason in bad.reason
    assert str(bad).startswith(f"{path}:2: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "1+1?", "answer": "2"}\r\n\xff\xfe\n')
    dataset = load(str(path))
    assert len(dataset.problems) == 1
    assert [bad.line for bad in dataset.malformed] == [2]


@pytest.mark.parametrize(
    ("rows", "reason"), [([], "it is empty"), (["{", "["], r"all 2 rows are malformed: .*:1: ")]
)
def test_no_valid_row_is_an_error(rows: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=reason):
        load(json_lines(tmp_path / "my.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no data set 'none': choose from pocket, gsm8k"),
        ("none.jsonl", "no file none.jsonl"),
        ("gsm8k:data.xlsx", "must end in .jsonl"),
        ("my.xlsx", "no data set"),
        ("pocket:my", "no data set"),
    ],
)
def test_missing_data(name: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        load(name)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{"question": f"{n}+1?", "answer": n + 1} for n in range(100)]
    return json_lines(tmp_path_factory.mktemp("data") / "my.jsonl", rows)


def ids(dataset: Dataset) -> list[str]:
    return [problem.id for problem in dataset.problems]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(0, 5))
def test_samples(hundred: str, one: int, other: int, seed: int) -> None:
    """Reproducible, in the order of the file, and the smaller one is part of the larger one."""
    small, large = sorted((one, other))
    sample, more = (load(hundred, limit=limit, seed=seed) for limit in (small, large))
    assert sample == load(hundred, limit=small, seed=seed)
    everyone = ids(load(hundred))
    assert ids(more) == sorted(ids(more), key=everyone.index)
    assert len(ids(sample)) == min(small, 100)
    assert set(ids(sample)) <= set(ids(more)) <= set(everyone)


def test_another_seed_is_another_sample(hundred: str) -> None:
    samples = {tuple(ids(load(hundred, limit=10, seed=seed))) for seed in range(20)}
    assert len(samples) == 20
    counts = [sum(f"my-{n}" in sample for sample in samples) for n in range(1, 101)]
    assert max(counts) <= 8  # of 20, where 2 are expected: it is not a fixed choice
    for limit in (0, -1):
        with pytest.raises(EvaluationError, match="leaves no problem"):
            load(hundred, limit=limit)


def test_the_digest_names_the_problems(hundred: str, tmp_path: Path) -> None:
    assert digest_of(load(hundred).problems) == digest_of(load(hundred).problems)
    assert digest_of(load(hundred).problems) != digest_of(load(hundred, limit=99).problems)
    one, other = (
        load(json_lines(tmp_path / "my.jsonl", [{**GOOD, "answer": answer}])) for answer in "23"
    )
    assert digest_of(one.problems) != digest_of(other.problems)


def test_pocket_problems() -> None:
    """Unseen tasks; a larger limit only adds problems; their own answers are right."""
    dataset = load(limit=20)
    assert dataset == load("pocket", limit=20)
    assert dataset.problems[:5] == load(limit=5).problems
    assert len(load().problems) == 100
    assert len(set(ids(dataset))) == 20
    for problem in dataset.problems:
        assert problem.scorer == "list"
        assert len(problem.truth) == 6
        answer = ", ".join(f"({label}) {right}" for label, right in problem.truth.items())
        assert mark(problem, answer) == 1
        assert mark(problem, answer.replace("(a)", "(h)")) == pytest.approx(5 / 6)
    assert {p.question for p in dataset.problems}.isdisjoint(
        p.question for p in load(limit=20, seed=1).problems
    )
    assert set(ids(dataset)).isdisjoint(ids(load(limit=20, size=3)))
    assert len(load(limit=1, size=3).problems[0].truth) == 3
    assert load(limit=1, split="train").problems != load(limit=1).problems
    with pytest.raises(EvaluationError):
        load(split="dev")
    with pytest.raises(EvaluationError):
        load(size=9)
    with pytest.raises(EvaluationError, match="own fields"):
        load(scorer="exact")


def test_the_example_is_right() -> None:
    """All its rows are valid, and its answers are right."""
    dataset = load(str(ROOT / "examples" / "evaluate_your_data.jsonl"))
    assert dataset.malformed == ()
    assert ids(dataset) == ["sums", "words", "orders"]
    reply = "(a) 42, (b) 222"
    assert [mark(problem, reply) for problem in dataset.problems] == [1, 0, 0]
