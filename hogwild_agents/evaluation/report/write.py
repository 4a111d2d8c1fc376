"""From records to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.records import Record, Transcript
from hogwild_agents.evaluation.report.charts import charts
from hogwild_agents.evaluation.report.embed import clean, embed
from hogwild_agents.evaluation.report.page import render
from hogwild_agents.evaluation.report.pictures import draw
from hogwild_agents.evaluation.report.tables import as_csv, as_markdown
from hogwild_agents.evaluation.statistics import Analysis, natural


def write_report(
    folder: str | Path,
    records: Sequence[Record],
    transcripts: Sequence[Transcript] = (),
    run: Mapping[str, Any] | None = None,
    *,
    strategies: Sequence[str] | None = None,
    reference: str | None = None,
    pictures: bool = True,
    most_transcripts: int = 600,
    most_letters: int = 100_000,
    most_in_all: int = 20_000_000,
) -> Path:
    """Writes `report.html`, `report.md`, `results.csv` and, last, the PNGs.

    The same arguments give the same bytes.

    Args:
        folder: Where to; made if it is not there.
        records: All records of the run, in any order.
        transcripts: For the page's reader, in any order; as many as the limits allow are embedded,
            problem by problem, and the page says how many are not.
        run: How the run was made (command, model, data set, versions, date, seeds, machine): names
            and values, shown in this order.
        strategies: In which order they are shown; the reference first, the others by name.
        reference: The strategy that the others are compared with: `single`, else the first.
        pictures: Whether to draw PNGs, which needs matplotlib.
        most_transcripts: Embedded in the page.
        most_letters: Of one transcript's steps; it is cut after them.
        most_in_all: Letters of all embedded transcripts together.

    Returns:
        The page.

    Raises:
        EvaluationError: There are no records, the reference is none of the strategies, or what
            draws the pictures is not installed (the other files are written then).
    """
    if not records:
        raise EvaluationError("There are no records to report on: nothing was evaluated yet.")
    names = list(strategies or sorted({record.strategy for record in records}, key=natural))
    reference = reference or ("single" if "single" in names else names[0])
    if reference not in names:
        raise EvaluationError(
            f"reference={reference!r} is none of the strategies: {', '.join(names)}."
        )
    if strategies is None:
        names.sort(key=lambda name: name != reference)
    analysis = Analysis(records, strategies=names)
    drawn = list(charts(analysis, reference))
    shown = [chart.name for chart in drawn] if pictures else []
    embedded = embed(
        transcripts,
        analysis.strategies,
        limit=most_transcripts,
        letters=most_letters,
        total=most_in_all,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = render(analysis, reference, drawn, embedded, run or {}, shown)
    _write(folder / "report.html", page)
    _write(folder / "report.md", as_markdown(analysis, reference, run or {}, shown))
    _write(folder / "results.csv", as_csv(analysis))
    if pictures:
        draw(drawn, folder)
    return folder / "report.html"


def _write(file: Path, text: str) -> None:
    file.write_text(clean(text), encoding="utf-8", newline="\n")
