"""From records to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.records import Record, Transcript
from hogwild_agents.evaluation.report import svg
from hogwild_agents.evaluation.report.charts import charts
from hogwild_agents.evaluation.report.page import render
from hogwild_agents.evaluation.report.safety import clean
from hogwild_agents.evaluation.report.tables import as_csv, as_markdown
from hogwild_agents.evaluation.report.transcripts import embed
from hogwild_agents.evaluation.statistics import Analysis, natural


def write_report(
    folder: str | Path,
    records: Sequence[Record],
    transcripts: Sequence[Transcript] = (),
    run: Mapping[str, Any] | None = None,
    *,
    strategies: Sequence[str] | None = None,
    reference: str | None = None,
    max_transcripts: int = 600,
    max_characters: int = 100_000,
    max_total_characters: int = 20_000_000,
) -> Path:
    """Writes `report.html`, `report.md`, `results.csv`, and one SVG file per chart.

    The same arguments give the same bytes.

    Args:
        folder: Created if missing.
        records: All records of the run, in any order.
        transcripts: Transcripts for the page's reader, in any order. The page contains as many as
            the limits allow, problem by problem, and says how many it leaves out.
        run: How the run was made (command, model, data set, versions, date, seeds, machine): names
            and values, shown in this order.
        strategies: The order of the strategies; by default the reference first, then by name.
        reference: The strategy that the others are compared with: `single` if it was run, else the
            first.
        max_transcripts: Largest number of transcripts in the page.
        max_characters: Largest length of the steps of one transcript; the rest is cut.
        max_total_characters: Largest length of all transcripts in the page.

    Returns:
        Path of the page.

    Raises:
        EvaluationError: There are no records, or the reference is not one of the strategies.
    """
    if not records:
        raise EvaluationError("There are no records to report on: run the evaluation first.")
    names = list(strategies or sorted({record.strategy for record in records}, key=natural))
    reference = reference or ("single" if "single" in names else names[0])
    if reference not in names:
        raise EvaluationError(
            f"reference={reference!r} is not one of the strategies: {', '.join(names)}."
        )
    if strategies is None:
        names.sort(key=lambda name: name != reference)
    run = run or {}
    analysis = Analysis(records, strategies=names)
    drawn = list(charts(analysis, reference))
    embedded = embed(
        transcripts,
        names,
        max_count=max_transcripts,
        max_characters=max_characters,
        max_total=max_total_characters,
    )
    chart_names = [chart.name for chart in drawn]
    files = {
        "report.html": render(analysis, reference, drawn, embedded, run),
        "report.md": as_markdown(analysis, reference, run, chart_names),
        "results.csv": as_csv(analysis),
        **{f"{chart.name}.svg": svg.as_file(chart) for chart in drawn},
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(clean(text), encoding="utf-8", newline="\n")
    return folder / "report.html"
