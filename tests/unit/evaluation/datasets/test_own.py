"""Data of one's own: files, field maps, malformed rows, and samples that can be made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.datasets import Loaded, load
from hogwild_agents.evaluation.problems import digest_of
from hogwild_agents.evaluation.scoring import mark
from tests.unit.evaluation.datasets.writing import cases, json_lines

ROOT = Path(__file__).parents[4]


def brief(loaded: Loaded) -> list[tuple[str, str, Any, str]]:
    """Its problems in short."""
    return [(p.id, p.question, p.truth, p.scorer) for p in loaded.problems]


def test_what_needs_no_map(tmp_path: Path) -> None:
    """Usual names are found, the line is the id, and the answer says who marks it."""
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
    loaded = load(path, fields=fields)
    assert brief(loaded) == [("7", "Which?", "B", "choice")]
    assert loaded.problems[0].extra == {"letters": "AB"}
    assert load(path, fields=fields, scorer="exact").problems[0].scorer == "exact"
    with pytest.raises(EvaluationError, match="No role title: fields are question, answer"):
        load(path, fields={"title": "q"})
    with pytest.raises(EvaluationError, match="gsm8k has its own"):
        load(f"gsm8k:{path}", fields=fields)
    with pytest.raises(EvaluationError, match="No scorer 'none'"):
        load(path, scorer="none")


def test_tests_of_ones_own(tmp_path: Path) -> None:
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
    loaded = load(str(path))
    assert brief(loaded) == [
        ("my-2", 'Two\nlines, "quoted"?', "5", "number"),
        ("my-5", "Colours?", ["red", "blue"], "list"),
        ("my-6", "Labels?", {"a": "4"}, "list"),
        ("my-7", "Which?", "B", "choice"),
    ]
    assert [str(bad) for bad in loaded.malformed] == [
        f"{path}:4: it has 2 cells where the first line has 3."
    ]


def test_a_list_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text(json.dumps([{"question": "1+1?", "answer": "2"}, 7]))
    loaded = load(str(path))
    assert brief(loaded) == [("my-1", "1+1?", "2", "number")]
    assert [bad.line for bad in loaded.malformed] == [2]
    for broken in ('{"question": "1+1?"}', "["):
        path.write_text(broken)
        with pytest.raises(EvaluationError, match=r"jsonl"):
            load(str(path))


GOOD = {"question": "1+1?", "answer": "2"}

BAD: list[tuple[Any, str]] = [
    ("{", "it is no JSON: "),
    ("[1]", "it is no JSON object"),
    ("7", "it is no JSON object"),
    ("[" * 100_000, "JSON"),
    ("{}", "it has no 'question'; its fields are ."),
    ({"question": "1+1?"}, "it has no 'answer'; its fields are 'question'."),
    ({"question": "", "answer": "2"}, "it has no 'question'"),
    ({"question": "  ", "answer": "2"}, "its 'question' is blank."),
    ({"question": ["1+1?"], "answer": "2"}, "its 'question' is no text, but a list."),
    ({"question": "1+1?", "answer": None}, "it has no 'answer'"),
    ({"question": "1+1?", "answer": "two", "scorer": "number"}, "'two' is no number."),
    ({"question": "1+1?", "answer": "two", "scorer": "choice"}, "'two' is no letter."),
    ({"question": "1+1?", "answer": [2], "scorer": "math"}, "the scorer `list` marks lists"),
    ({"question": "1+1?", "answer": 2, "scorer": "list"}, "2 is no list."),
    ({"question": "1+1?", "answer": 2, "scorer": "none"}, "no scorer 'none': choose from math"),
    ({"question": "1+1?", "answer": "2", "scorer": "code"}, "its tests cannot be read"),
]


@pytest.mark.parametrize(("row", "why"), BAD)
def test_a_malformed_row_is_named_and_skipped(row: Any, why: str, tmp_path: Path) -> None:
    path = json_lines(tmp_path / "my.jsonl", [GOOD, row, {**GOOD, "answer": "3"}])
    loaded = load(path)
    assert [problem.id for problem in loaded.problems] == ["my-1", "my-3"]
    (bad,) = loaded.malformed
    assert (bad.file, bad.line) == (path, 2)
    assert why in bad.why
    assert str(bad).startswith(f"{path}:2: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "1+1?", "answer": "2"}\r\n\xff\xfe\n')
    loaded = load(str(path))
    assert len(loaded.problems) == 1
    assert [bad.line for bad in loaded.malformed] == [2]


@pytest.mark.parametrize(
    ("rows", "why"), [([], "It is empty"), (["{", "["], r"all 2 rows are malformed: .*:1: ")]
)
def test_no_good_row_is_an_error(rows: list[str], why: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=why):
        load(json_lines(tmp_path / "my.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none", "No data set 'none': choose from pocket, gsm8k"),
        ("none.jsonl", "no file none.jsonl"),
        ("gsm8k:none.jsonl", "no file none.jsonl"),
        ("gsm8k:data.xlsx", "must end in .jsonl"),
        ("my.xlsx", "No data set"),
        ("pocket:my", "No data set"),
    ],
)
def test_what_there_is_not(name: str, why: str) -> None:
    with pytest.raises(EvaluationError, match=why):
        load(name)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{"question": f"{n}+1?", "answer": n + 1} for n in range(100)]
    return json_lines(tmp_path_factory.mktemp("data") / "my.jsonl", rows)


def ids(loaded: Loaded) -> list[str]:
    return [problem.id for problem in loaded.problems]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(0, 5))
def test_samples(hundred: str, one: int, other: int, seed: int) -> None:
    """The same again; in the file's order; the smaller one is inside the larger one."""
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
    assert max(counts) <= 8  # of 20, where 2 are expected: it is no fixed choice
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
    """Unseen tasks; a larger limit only adds; their own answers are right."""
    loaded = load(limit=20)
    assert loaded == load("pocket", limit=20)
    assert loaded.problems[:5] == load(limit=5).problems
    assert len(load().problems) == 100
    assert len(set(ids(loaded))) == 20
    for problem in loaded.problems:
        assert problem.scorer == "list"
        assert len(problem.truth) == 6
        answer = ", ".join(f"({label}) {right}" for label, right in problem.truth.items())
        assert mark(problem, answer) == 1
        assert mark(problem, answer.replace("(a)", "(h)")) == pytest.approx(5 / 6)
    assert {p.question for p in loaded.problems}.isdisjoint(
        p.question for p in load(limit=20, seed=1).problems
    )
    assert set(ids(loaded)).isdisjoint(ids(load(limit=20, size=3)))
    assert len(load(limit=1, size=3).problems[0].truth) == 3
    assert load(limit=1, split="train").problems != load(limit=1).problems
    for wrong in ({"split": "dev"}, {"size": 9}):
        with pytest.raises(EvaluationError):
            load(**wrong)
    with pytest.raises(EvaluationError, match="own fields"):
        load(scorer="exact")


def test_the_example_is_right() -> None:
    """All its rows are good, and the truths are what the pocket tasks say they are."""
    loaded = load(str(ROOT / "examples" / "evaluate_your_data.jsonl"))
    assert loaded.malformed == ()
    assert ids(loaded) == ["sums", "words", "orders"]
    reply = "(a) 42, (b) 222"
    assert [mark(problem, reply) for problem in loaded.problems] == [1, 0, 0]
