"""The report of `python -m tests.gpu`."""

from __future__ import annotations

from typing import Any

import pytest

from hogwild_agents.bench.profiling import HOST
from tests.gpu.bars import REAL, TINY, Bar, bars_of, report, table


def row(scene: str, engine: str, workers: int, context: int, **more: Any) -> dict[str, Any]:
    """A line that `tests.gpu.measuring` writes."""
    line = {
        "kind": "row",
        "scene": scene,
        "engine": engine,
        "teams": 1,
        "workers": workers,
        "context": context,
        "ms_per_pass": 10.0,
        "limit_ms": 6.0,
        "bandwidth_share": 0.6,
        "tokens_per_second": 100.0 * workers,
        "kv_bytes": 2**30,
        "captures": 0,
    }
    return line | more


LINES = [
    row("short", "hogwild", 1, 1024),
    row("compiled", "hogwild-compiled", 1, 1024, bandwidth_share=0.74),
    row("long", "hogwild", 1, 16_384),
    row("long", "hogwild", 4, 16_384, tokens_per_second=380.0),
    row("longest", "hogwild", 4, 32_768, ms_per_pass=14.0),
    row("longest", "hogwild", 4, 1024),
    row("static", "hogwild", 4, 16_384, kv_bytes=2**28),
    row("static", "transformers-static-compiled", 4, 16_384, tokens_per_second=250.0),
    row("teams", "hogwild", 2, 2048, teams=32, tokens_per_second=2900.0),
    row("teams", "hogwild", 2, 2048),
    {"kind": "startup", "seconds": 12.5, "loading": 3.0, "loaded": 9.0, "self_check": 8.0}
    | {"first_passes": 3.5, "captures": 1},
    {"kind": "note", "text": "attention skipped"},
    {"kind": "profile", "engine": "hogwild", "teams": 1, "workers": 1, "context": 1024}
    | {"parts": {"attend": 1.25, HOST: 0.5}, "longest": []},
]


def test_bars_are_computed_from_rows_of_one_scene() -> None:
    bars = bars_of(LINES, REAL)
    values = [0.6, 0.74, 3.8, 1.4, None, 1.6, 0.25, 14.5, 12.5]
    assert [bar.value for bar in bars] == [v if v is None else pytest.approx(v) for v in values]
    met = [True, False, True, True, None, True, True, False, True]
    assert [bar.met for bar in bars] == met
    assert {bar.met for bar in bars_of([], REAL)} == {None}
    assert {bar.met for bar in bars_of(LINES, TINY)[:-1]} == {None}


def test_the_report_ends_with_the_bars() -> None:
    text = report(LINES, REAL, ["some card", "some versions"], "passed; 3 passed")
    assert text.endswith("tests: passed; 3 passed")
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("what "))
    assert "1.400 x" not in text
    verdicts = [line.split("  ")[-1].strip() for line in lines[first + 2 : first + 11]]
    assert verdicts == ["yes", "NO", "yes", "yes", "not measured", "yes", "yes", "NO", "yes"]
    for words in ("some card", "attention skipped", "1.250", "12.5 s", "74%", "loading 3.0 s"):
        assert words in text
    assert report([], REAL, [], "failed").endswith("tests: failed")


def test_a_table() -> None:
    text = table([("name", "ms"), ("a", "1.5"), ("long", "10")], right=[1])
    assert text.splitlines() == ["name   ms", "---------", "a     1.5", "long   10"]
    assert Bar("x", 2, True, "{:.1f}", 2.0).cells() == ("x", ">= 2.0", "2.0", "yes")
