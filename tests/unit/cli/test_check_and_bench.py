"""`hogwild check`, `hogwild bench` and what all commands share, run as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hogwild_agents import __version__
from hogwild_agents.cli import app
from tests.unit.engine.families import ACCEPTED, REFUSED, build

runner = CliRunner(env={"COLUMNS": "160", "TERM": "dumb", "NO_COLOR": "1"})


def saved(name: str, folder: Path) -> str:
    """Saves a tiny random model and returns its folder."""
    family = next(family for family in (*ACCEPTED, *REFUSED) if family.name == name)
    build(family).save_pretrained(folder)
    return str(folder)


def test_check_accepts_a_qwen3(tmp_path: Path) -> None:
    """Every part of the check, its cost, and what the model offers."""
    result = runner.invoke(app, ["check", saved("qwen3", tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    for word in ("structure", "rotation", "windows", "layer by layer", "end to end", "Accepted"):
        assert word in result.output
    assert "The check cost" in result.output


def test_check_refuses_a_falcon_h1_with_the_reason(tmp_path: Path) -> None:
    """The verdict names the layer and what is wrong with it."""
    result = runner.invoke(app, ["check", saved("falcon_h1", tmp_path), "--device", "cpu"])
    assert result.exit_code == 1, result.output
    assert "layer 0" in result.output
    assert "linear attention" in result.output


def test_check_of_nothing(tmp_path: Path) -> None:
    """A path without a model is an error of its own."""
    result = runner.invoke(app, ["check", str(tmp_path / "nothing")])
    assert result.exit_code == 2
    assert "Cannot load" in result.output


def test_check_of_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question and one sentence, instead of transformers' half a minute of attempts."""
    asked: list[str] = []

    def refuse(url: str, **_: Any) -> None:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr("hogwild_agents.hub.get_hf_file_metadata", refuse)
    result = runner.invoke(app, ["check", "no/such-model"])
    assert result.exit_code == 2
    assert "does not answer (no network)" in " ".join(result.output.split())
    assert len(asked) == 1


def test_bench_measures_all_engines_in_one_run(tmp_path: Path) -> None:
    """The tables for people and the rows for programs."""
    file = tmp_path / "rows.json"
    arguments = ["bench", "--shape", "5m", "--workers", "2,1", "--contexts", "100,64"]
    arguments += ["--dtype", "float32", "--device", "cpu", "--passes", "2", "--json", str(file)]
    arguments += ["--teams", "3", "--cache-dtype", "fp8", "--profile"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for words in ("ms/pass", "floor ms", "reached", "matrix products", "Loading took"):
        assert words in result.output
    rows = json.loads(file.read_text())
    found = {(row["engine"], row["teams"], row["workers"], row["context"]) for row in rows}
    engines = [
        *(("hogwild", teams, workers) for teams in (1, 3) for workers in (1, 2)),
        *(("transformers", 1, 1), ("transformers-batch", 1, 2)),
        *(("transformers-static", 1, 1), ("transformers-static", 1, 2)),
    ]
    assert found == {(*engine, context) for engine in engines for context in (64, 100)}
    assert len(rows) == len(found)
    for row in rows:
        assert {*row} >= {
            *("engine", "workers", "context", "dtype", "device", "ms_per_pass"),
            *("tokens_per_second", "kv_bytes", "bandwidth_share", "limit_ms", "parts"),
        }
        assert row["ms_per_pass"] > 0
        tokens = row["teams"] * row["workers"]
        assert row["tokens_per_second"] == pytest.approx(1e3 * tokens / row["ms_per_pass"])
        assert row["bandwidth_share"] > 0
        assert sum(row["parts"].values()) == pytest.approx(row["ms_per_pass"], rel=0.01)
        ours = row["engine"] == "hogwild"
        assert row["cache_dtype"] == ("float8_e4m3fn" if ours else "float32")
    size = {
        (row["engine"], row["workers"]): row["kv_bytes"]
        for row in rows
        if row["context"] == 100 and row["teams"] == 1
    }
    one_token = 2 * 6 * 4 * 32 * 4  # keys and values, layers, heads, head size, bytes
    held = 100 + 2 + 2  # the context, and what was written to warm up and in timed passes
    assert size["transformers", 1] == held * one_token
    assert size["transformers-batch", 2] == 2 * held * one_token
    assert size["hogwild", 2] < size["transformers-batch", 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a model or --shape"),
        (["--shape", "5m", "--workers", "0"], "not a list of whole numbers"),
        (["--shape", "5m", "--contexts", "many"], "not a list of whole numbers"),
        (["--shape", "giant"], "not one of '5m'"),
        (["--shape", "5m", "--dtype", "int3"], "Unknown dtype"),
        (["--shape", "5m", "--device", "cpu", "--cache-dtype", "fp4"], "not one of 'auto', 'fp8'"),
    ],
)
def test_bench_with_wrong_arguments(arguments: list[str], message: str) -> None:
    """One line that says what is expected."""
    result = runner.invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_skipping_the_check_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The flag warns of what is given up, and no end-to-end verdict is shown."""
    arguments = ["bench", "--shape", "5m", "--workers", "1", "--contexts", "32", "--passes", "1"]
    result = runner.invoke(app, [*arguments, "--device", "cpu", "--skip-check"])
    assert result.exit_code == 0, result.output
    assert "end to end" not in result.output
    assert "nothing will say so" in caplog.text


def test_bench_beyond_the_models_positions(tmp_path: Path) -> None:
    """Left out with the figures instead of a traceback; nothing measured is an error."""
    build(ACCEPTED[0]).save_pretrained(tmp_path)
    arguments = ["bench", str(tmp_path), "--device", "cpu", "--workers", "1", "--passes", "1"]
    result = runner.invoke(app, [*arguments, "--contexts", "255"])
    assert result.exit_code == 1
    assert "256" in result.output
    result = runner.invoke(app, [*arguments, "--json", str(tmp_path / "no" / "x.json")])
    assert result.exit_code == 2
    result = runner.invoke(app, ["bench", "--shape", "5m", "--device", "meta"])
    assert result.exit_code == 2


def test_version_and_help() -> None:
    """The first things that a newcomer types."""
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == f"hogwild_agents {__version__}"
    assert "bench" in runner.invoke(app, ["--help"]).output
