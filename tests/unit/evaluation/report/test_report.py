"""The files of a report: complete, consistent, and clear where there are few data."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.estimates import Estimate
from hogwild_agents.evaluation.report import formatting, write_report
from hogwild_agents.evaluation.report.charts import charts, round_ticks, spread
from hogwild_agents.evaluation.report.findings import findings
from hogwild_agents.evaluation.report.transcripts import embed
from hogwild_agents.evaluation.statistics import Analysis
from tests.unit.evaluation.report import made
from tests.unit.evaluation.report.made import record
from tests.unit.evaluation.report.pages import Page

many = settings(max_examples=200, deadline=None, derandomize=True)


def read(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_every_figure_of_the_table_is_on_the_page(tmp_path: Path) -> None:
    """As it is in results.csv, row by row and in its order."""
    records = [
        replace(one, measures={**one.measures, "talk": 0.123} if one.measures else {})
        for one in made.records(failing=0.05)
    ]
    page = read(write_report(tmp_path, records))
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 6
    exact = [value for value, _ in page.figures]
    for row in rows:
        order = ["budget"]
        for name in ("accuracy", "passes", "tokens", "seconds", "memory"):
            order += [name, f"{name}_low", f"{name}_high"]
        line = [row[name] for name in [*order, "problems", "records"]]
        line += [row["errors"]] if row["errors"] != "0" else []
        found = any(exact[n : n + len(line)] == line for n in range(len(exact)))
        assert found, f"{row['strategy']} at {row['budget']} is not on the page"
        for name in ("pass@1", "pass@2", "duplicated", "checks", "yes", "talk"):
            assert row[name] in exact or row[name] == ""
    assert {row["talk"] for row in rows} == {"", "0.123"}


def test_what_is_shown_is_what_is_meant(tmp_path: Path) -> None:
    """The words of a figure are its rounding."""
    units = {"%": 0.01, "s": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "": 1.0}
    seen = set()
    for value, shown in read(write_report(tmp_path, made.records())).figures:
        number, _, unit = shown.partition(formatting.THIN)
        if not unit:
            continue  # an interval has its unit at its end, a count has none
        seen.add(unit)
        digits = len(number.partition(".")[2])
        off = abs(float(value) / units[unit] - float(number.replace(",", "")))
        assert off <= 0.51 * 10**-digits + 1e-4 / units[unit], (value, shown)
    assert seen >= {"%", "s", "kB"}


def test_the_table_holds_the_statistics(tmp_path: Path) -> None:
    records = [record(f"p{n}", "single", 64, float(n < 3), passes=10 * n) for n in range(8)]
    records += [record("p8", "single", 64, None, error="no")]
    write_report(tmp_path, records)
    with (tmp_path / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    (expected,) = Analysis(records).summaries
    assert float(row["accuracy"]) == round(3 / 9, 4)
    assert float(row["accuracy_high"]) == round(expected.accuracy.high, 4)
    assert float(row["passes"]) == 35
    counts = [row[name] for name in ("budget", "problems", "records", "missing", "errors")]
    assert counts == ["64", "9", "9", "0", "1"]


def test_the_page_says_how_it_was_made(tmp_path: Path) -> None:
    page = read(write_report(tmp_path, made.records(), run=made.RUN))
    for text in ("hogwild eval --dataset pocket --limit 100", "torch 2.13.0", "pocket tasks"):
        assert text in page.text
        assert text.replace("hogwild eval", "") in (tmp_path / "report.md").read_text()


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    records, transcripts = made.records(problems=8), [made.transcript(), made.transcript("p-001")]
    write_report(tmp_path / "a", records, transcripts, made.RUN)
    write_report(tmp_path / "b", records[::-1], transcripts[::-1], made.RUN)
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == [
        "accuracy.svg", "passes.svg", "report.html", "report.md", "results.csv", "speedup.svg",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    markdown = (tmp_path / "a" / "report.md").read_text()
    assert all(f"({name})" in markdown for name in names if name.endswith("svg"))


LITTLE = {
    "one strategy": made.records(teams=("single",)),
    "one budget": made.records(budgets=(96,)),
    "one record": [record("p", "single", 64, 1.0)],
    "one problem": made.records(problems=1),
    "only errors": [replace(r, score=None, error="it broke") for r in made.records(problems=3)],
    "all wrong": [replace(r, score=0.0) for r in made.records(problems=3)],
    "all right": [replace(r, score=1.0) for r in made.records(problems=3)],
    "budget zero": [replace(r, budget=r.budget - 32) for r in made.records(problems=3)],
    "no passes": [replace(r, passes=0) for r in made.records(problems=3)],
    "nothing in common": [
        record("a", "single", 32, 1.0),
        record("b", "hogwild-2", 64, 0.0),
    ],
    "ten strategies": [
        replace(r, strategy=f"team-{n}") for n in range(10) for r in made.records(2, 1, (32, 64))
        if r.strategy == "single"
    ],
    "large figures": [
        replace(r, budget=r.budget * 1000, passes=10**7, tokens=10**9, seconds=1e5, memory=10**12)
        for r in made.records(problems=3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", LITTLE)
def test_reports_of_little(case: str, tmp_path: Path) -> None:
    """All files are written for any run, and `nan` is never shown."""
    records = LITTLE[case]
    page = read(write_report(tmp_path, records))
    for text in (page.text, (tmp_path / "report.md").read_text()):
        assert "nan" not in text.split()
        assert "inf" not in text.split()
    assert "nan" not in (tmp_path / "results.csv").read_text()
    for _, name, value in page.attributes:
        if name in ("x", "y", "x1", "x2", "y1", "y2", "points"):
            places = [float(part) for part in value.replace(",", " ").split()]
            assert all(math.isfinite(place) and -1 <= place <= 900 for place in places)
    assert ("No transcripts were kept." in page.text) is True
    assert ElementTree.parse(tmp_path / "accuracy.svg").getroot().tag.endswith("svg")


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no records to report on"):
        write_report(tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_a_reference_that_was_not_run(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="reference='alone' is not one of the strategies"):
        write_report(tmp_path, made.records(), reference="alone")


def test_errors_are_told(tmp_path: Path) -> None:
    """How many, which, and where; and what is missing."""
    records = made.records(problems=10, seeds=1)
    broken = [replace(r, score=None, error="out of memory") if n % 8 == 0 else r
              for n, r in enumerate(records)]  # fmt: skip
    count = sum(r.error is not None for r in broken)
    page = read(write_report(tmp_path, broken[:-1]))
    assert f"{count} of 239 records are errors" in page.text
    assert "1 records of the run are missing" in page.text
    assert f"{count}{formatting.TIMES} out of memory" in page.text
    unbroken = read(write_report(tmp_path, records))
    assert "There are no errors." in unbroken.text
    assert "missing" not in unbroken.text


# Findings.


def test_the_summary_says_who_is_ahead() -> None:
    records = made.records(problems=60, failing=0.03)
    analysis = Analysis(records, strategies=("single", "vote-4", "hogwild-2", "hogwild-4"))
    sentences = [
        sentence.replace(formatting.THIN, "").replace("\N{NO-BREAK SPACE}", " ")
        for sentence in findings(analysis, "single")
    ]
    clear = "confidence intervals do not overlap"
    assert sentences == [
        "At 32 passes no strategy is significantly better than another.",
        f"At 64 and 96 passes hogwild-4 is better than all others (40.0% to 95.8% right; {clear}).",
        f"At 128 passes hogwild-4 is better than single and vote-4 (96.7% right; {clear}); "
        "hogwild-2 may be as good.",
        f"At 192 passes hogwild-2 is better than single and vote-4 (96.7% right; {clear}); "
        "hogwild-4 may be as good.",
        "At 256 passes no strategy is significantly better than another.",
        "For 78.3% accuracy, hogwild-2 needs a budget of 123 passes, and single 192: "
        f"1.56{formatting.TIMES} sooner (1.41 to 1.64{formatting.TIMES}).",
        "For 78.3% accuracy, hogwild-4 needs a budget of 86 passes, and single 192: "
        f"2.23{formatting.TIMES} sooner (2.11 to 2.38{formatting.TIMES}).",
    ]


def test_the_summary_says_when_nobody_is() -> None:
    records = made.records(teams=("single",))
    twins = [replace(r, strategy="twin") for r in records]
    (only,) = findings(Analysis(records + twins), "single")
    assert only == "At 32 to 256 passes no strategy is significantly better than another."


def test_the_summary_of_some_behind() -> None:
    """Three are equal, so the sentence names the one that is worse."""
    records = [
        record(f"p{n}", name, 64, score)
        for n in range(30)
        for name, score in (("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 0.0))
    ]
    (only,) = findings(Analysis(records), "a")
    assert only == (
        f"At 64 passes d is worse than a (100.0{formatting.THIN}% right; confidence intervals do "
        "not overlap); b and c may be as good."
    )


def test_clear_by_the_paired_test_only() -> None:
    """Problems differ so much that the intervals touch, but each is a little better."""
    records = [
        record(f"p{n}", name, 64, n / 40 + more)
        for n in range(40)
        for name, more in (("a", 0.0), ("b", 0.02))
    ]
    (only,) = findings(Analysis(records), "a")
    assert only.startswith("At 64 passes b is better than all others (")
    assert only.endswith("right; paired test).")


def test_a_lucky_best_is_not_ahead() -> None:
    """A higher mean that could be chance is not called ahead."""
    records = [record(f"p{n}", "a", 64, float(n < 20)) for n in range(40)]
    records += [record(f"p{n}", "b", 64, float(n < 22)) for n in range(40)]
    (only,) = findings(Analysis(records), "a")
    assert only == "At 64 passes no strategy is significantly better than another."


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.count(1234567), "1,234,567"),
        (formatting.mean(72.94), "72.9"),
        (formatting.mean(1234.5), "1,234"),
        (formatting.percent(0.1234), f"12.3{formatting.THIN}%"),
        (formatting.percent(math.nan), formatting.UNKNOWN),
        (formatting.points(0.123), "+12.3"),
        (formatting.points(-0.123), f"{formatting.MINUS}12.3"),
        (formatting.points(-0.0001), "0.0"),
        (formatting.times(3.144), f"3.14{formatting.TIMES}"),
        (formatting.times(math.inf), "∞"),
        (formatting.seconds(0.712), f"0.71{formatting.THIN}s"),
        (formatting.seconds(1234.5), f"1,234{formatting.THIN}s"),
        (formatting.memory(2_130_000), f"2.13{formatting.THIN}MB"),
        (formatting.memory(12), f"12{formatting.THIN}B"),
        (formatting.p_value(0.00004), "< 0.001"),
        (formatting.exact(0.12345), "0.1235"),
        (formatting.exact(3.0), "3"),
        (formatting.exact(-0.00001), "0"),
        (formatting.exact(120.0), "120"),
        (formatting.exact(math.nan), ""),
        (formatting.enumerate_names(["a"]), "a"),
        (formatting.enumerate_names(["a", "b", "c"]), "a, b and c"),
        (formatting.budgets([32, 64]), "32 and 64"),
        (formatting.budgets([32, 64, 1024]), "32 to 1,024"),
        (
            formatting.interval(Estimate(0.5, 0.25, 0.75), formatting.percent),
            f"25.0{formatting.BETWEEN}75.0{formatting.THIN}%",
        ),
        (
            formatting.interval(Estimate(1e6, 9e5, 1.1e6), formatting.memory),
            f"900.00{formatting.THIN}kB{formatting.BETWEEN}1.10{formatting.THIN}MB",
        ),
        (
            formatting.interval(Estimate(0.5, math.nan, math.nan), formatting.percent),
            formatting.UNKNOWN,
        ),
    ],
)
def test_formatting(shown: str, expected: str) -> None:
    assert shown == expected


# Charts.


@many
@given(
    st.lists(st.floats(0, 300), min_size=1, max_size=12),
    st.floats(1, 25),
)
def test_labels_move_apart(places: Sequence[float], gap: float) -> None:
    """In the order in which they were, within the chart, and not at all if there is room."""
    moved = spread(places, gap, 0, 300)
    order = sorted(range(len(places)), key=places.__getitem__)
    ordered = [moved[n] for n in order]
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(ordered))
    assert ordered[-1] <= 300 + 1e-6
    assert ordered[0] >= -1e-6
    near = sorted(places)
    if all(b - a >= gap for a, b in pairwise(near)):
        assert moved == pytest.approx(list(places))


@many
@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e6))
def test_ticks_enclose(low: float, span: float) -> None:
    ticks = round_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= low + span * (1 - 1e-6)
    assert 2 <= len(ticks) <= 8
    steps = [b - a for a, b in pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))


def test_charts_show_the_statistics() -> None:
    records = made.records(failing=0.05)
    analysis = Analysis(records, strategies=("single", "vote-4", "hogwild-2", "hogwild-4"))
    accuracy, used, speed = charts(analysis, "single")
    rows = [row for row in analysis.summaries if row.strategy == "hogwild-4"]
    (line,) = (one for one in accuracy.series if one.name == "hogwild-4")
    assert line.colour == 3
    assert [(p.x, p.y) for p in line.points] == [(row.budget, row.accuracy) for row in rows]
    (line,) = (one for one in used.series if one.name == "hogwild-4")
    assert [(p.x, p.x_interval) for p in line.points] == [(r.passes.value, r.passes) for r in rows]
    assert [one.name for one in speed.series if one.colour == 0] == []  # not against itself
    assert all(point.y.low > 0 for one in speed.series for point in one.points)
    assert accuracy.y_ticks[0] == 0  # an axis that starts elsewhere exaggerates


# Transcripts.


def test_transcripts_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    """Problem by problem, all strategies of one before the next."""
    some = [
        made.transcript(f"p-{n:03}", name, seed=0)
        for name in ("hogwild-2", "single")
        for n in range(30)
    ]
    page = read(write_report(tmp_path, made.records(), some, max_transcripts=7))
    chosen = [(entry["problem"], entry["strategy"]) for entry in page.json("index")]
    assert chosen == [(f"p-{n:03}", name) for n in range(4) for name in ("single", "hogwild-2")][:7]
    assert page.json("t6")["question"] == "So (a) 7."
    assert "contains 7 transcripts; 53 more are in the folder" in page.text


def test_long_transcripts_are_cut() -> None:
    """After so many letters; what was cut is counted, and short ones stay whole."""
    long, short = made.transcript(text="x" * 1000), made.transcript("p-001", text="y" * 10)
    found = embed([long, short], ["hogwild-2"], max_count=9, max_characters=1500, max_total=10**6)
    assert (len(found.texts), found.omitted, found.shortened) == (2, 0, 1)
    assert found.texts[0].count("x") < 7500
    assert '"cut": 2500' in found.texts[0]
    assert '"cut": 0' in found.texts[1]


def test_all_transcripts_together_have_a_limit() -> None:
    some = [made.transcript(f"p-{n:03}", text="x" * 1000) for n in range(20)]
    one = len(embed(some[:1], [], max_count=9, max_characters=10**5, max_total=10**6).texts[0])
    found = embed(some, [], max_count=99, max_characters=10**5, max_total=5 * one)
    assert (len(found.texts), found.omitted) == (5, 15)


def test_odd_transcripts(tmp_path: Path) -> None:
    """Steps without passes, by workers that nobody named, no answer, a truth of any shape."""
    odd = replace(
        made.transcript(),
        steps=({"worker": "Zoe", "text": "hm"}, {"begun": math.nan, "ended": None}),
        truth={"values": [1, None]},
        answer=None,
        score=math.nan,
    )
    read_back = read(write_report(tmp_path, made.records(), [odd])).json("t0")
    assert read_back["truth"] == '{"values": [1, null]}'
    assert (read_back["answer"], read_back["score"]) == (None, None)
    assert [step["worker"] for step in read_back["steps"]] == ["Zoe", ""]
    assert [step["begun"] for step in read_back["steps"]] == [None, None]
