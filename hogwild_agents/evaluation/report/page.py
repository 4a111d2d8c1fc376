"""Renders the page. Jinja escapes every value that is not Markup."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hogwild_agents.evaluation.estimates import Comparison, Estimate, Speedup, Summary
from hogwild_agents.evaluation.report import colours, formatting, svg
from hogwild_agents.evaluation.report.charts import Chart
from hogwild_agents.evaluation.report.findings import findings
from hogwild_agents.evaluation.report.safety import security_policy
from hogwild_agents.evaluation.report.transcripts import EmbeddedTranscripts
from hogwild_agents.evaluation.statistics import Analysis

FOLDER = Path(__file__).parent

MEASURES = ("duplicated", "balance", "checks", "yes", "pivots")
"""Measures with a column of their own; `yes` is shown as a share of `checks`."""

MAX_ERRORS = 20
"""How many different error messages are shown."""


class Tile(NamedTuple):
    """A number at the top of the page, with a label and a note."""

    number: str
    label: str
    note: str


def render(
    analysis: Analysis,
    reference: str,
    charts: Sequence[Chart],
    embedded: EmbeddedTranscripts,
    run: Mapping[str, Any],
) -> str:
    """The whole page."""
    script = _read("page.js")
    style = colours.variables() + _read("page.css") + svg.STYLE + colours.series_rules()
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(formatting=formatting, data=data, interval=interval)
    return environment.get_template("page.html").render(
        policy=security_policy(script, style),
        script=Markup(script),  # from the package's own files
        style=Markup(style),
        analysis=analysis,
        reference=reference,
        colours={name: index % colours.COUNT for index, name in enumerate(analysis.strategies)},
        lead=[run[name] for name in ("model", "dataset", "date") if run.get(name)],
        findings=findings(analysis, reference),
        tiles=list(_tiles(analysis, reference)),
        charts={chart.name: svg.for_page(chart) for chart in charts},
        groups=_by_strategy(analysis),
        ks=_ks(analysis),
        pairs=_pairs(analysis, reference),
        speedups=_speedups(analysis, reference),
        measured=_measured(analysis),
        other_measures=_other_measures(analysis),
        errors=_errors(analysis),
        failed=sum(row.errors for row in analysis.summaries),
        missing=_missing(analysis),
        embedded=embedded,
        run=run,
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def data(value: float, show: formatting.Format) -> Markup:
    """A number as readable text, with the value of results.csv in its `data` element."""
    return Markup('<data value="{}">{}</data>').format(formatting.exact(value), show(value))


def interval(estimate: Estimate, show: formatting.Format) -> Markup:
    """An interval in the same way."""
    text = formatting.interval(estimate, show)
    if not estimate.known:
        return Markup("<small>{}</small>").format(text)
    low, to, high = text.partition(formatting.BETWEEN)
    ends = (formatting.exact(estimate.low), low, to, formatting.exact(estimate.high), high)
    return Markup('<small><data value="{}">{}</data>{}<data value="{}">{}</data></small>').format(
        *ends
    )


def _tiles(analysis: Analysis, reference: str) -> Iterator[Tile]:
    """The largest significant gains in accuracy and in passes, and the size of the run."""
    better = [
        pair
        for _, _, other, pairs in _pairs(analysis, reference)
        for pair in pairs
        if other == reference and pair.verdict == "better"
    ]
    if better:
        best = max(better, key=lambda pair: pair.difference.value)
        yield Tile(
            f"{formatting.points(best.difference.value)} points",
            f"{best.strategy} compared with {reference}, at {best.budget:,} passes",
            f"95 %: {formatting.interval(best.difference, formatting.points)}",
        )
    speedups = analysis.speedups(reference)
    sooner = [speedup for speedup in speedups if speedup.verdict == "better"]
    if sooner:
        fastest = max(sooner, key=lambda speedup: speedup.ratio.low)
        accuracy = formatting.percent(fastest.accuracy)
        yield Tile(
            f"{formatting.speedup(fastest)} sooner",
            f"{fastest.strategy} compared with {reference}, at {accuracy} accuracy",
            f"95 %: {formatting.interval(fastest.ratio, formatting.times)}",
        )
    if len(analysis.strategies) > 1 and not better and not sooner:
        yield Tile("cannot tell", f"no strategy is significantly better than {reference}", "")
    seeds = len(analysis.seeds)
    yield Tile(
        f"{len(analysis.problems):,} problems",
        f"{seeds:,} {'seed' if seeds == 1 else 'seeds'} each, {len(analysis.records):,} records",
        f"{len(analysis.strategies)} strategies, {len(analysis.budgets)} budgets",
    )


def _by_strategy(analysis: Analysis) -> dict[str, list[Summary]]:
    groups: dict[str, list[Summary]] = {name: [] for name in analysis.strategies}
    for row in analysis.summaries:
        groups[row.strategy].append(row)
    return groups


def _ks(analysis: Analysis) -> list[int]:
    """All k of pass@k."""
    return sorted({k for row in analysis.summaries for k in row.pass_at})


def _pairs(analysis: Analysis, reference: str) -> list[tuple[bool, str, str, list[Comparison]]]:
    """Pairs of strategies at all budgets; pairs with the reference come first."""
    by_names: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for pair in analysis.comparisons:
        if pair.strategy == reference:
            pair = analysis.compare(pair.other, pair.strategy, pair.budget)
        by_names[pair.strategy, pair.other].append(pair)
    rows = [(other == reference, name, other, pairs) for (name, other), pairs in by_names.items()]
    return sorted(rows, key=lambda row: not row[0])


def _speedups(analysis: Analysis, reference: str) -> dict[str, list[Speedup]]:
    by_strategy: dict[str, list[Speedup]] = defaultdict(list)
    for speedup in analysis.speedups(reference):
        by_strategy[speedup.strategy].append(speedup)
    return by_strategy


def _measured(analysis: Analysis) -> list[Summary]:
    return [row for row in analysis.summaries if row.measures]


def _other_measures(analysis: Analysis) -> list[str]:
    """Measures that this page has no column for."""
    return sorted({m for row in analysis.summaries for m in row.measures} - set(MEASURES))


def _errors(analysis: Analysis) -> list[tuple[str, int, list[str], str]]:
    """The most frequent errors: message, count, strategies, and the first problem."""
    failed = [
        (record.error or "no score", record)
        for record in analysis.records
        if record.error is not None or record.score is None
    ]
    messages = Counter(message for message, _ in failed)
    errors = []
    for message, count in messages.most_common(MAX_ERRORS):
        records = [record for text, record in failed if text == message]
        errors.append((message, count, sorted({r.strategy for r in records}), records[0].problem))
    return errors


def _missing(analysis: Analysis) -> int:
    """Records that a complete run would have in addition."""
    axes = (analysis.strategies, analysis.budgets, analysis.problems, analysis.seeds)
    return math.prod(map(len, axes)) - len(analysis.records)
