"""The page: what its template is given. Every value is escaped by Jinja unless it is Markup."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hogwild_agents.evaluation.figures import Comparison, Estimate, Speedup, Summary
from hogwild_agents.evaluation.report import words
from hogwild_agents.evaluation.report.charts import COLOURS, DARK, Chart
from hogwild_agents.evaluation.report.embed import Embedded, policy
from hogwild_agents.evaluation.report.findings import summary
from hogwild_agents.evaluation.report.svg import Drawing
from hogwild_agents.evaluation.statistics import Analysis

HERE = Path(__file__).parent

MEASURES = ("duplicated", "balance", "checks", "yes", "pivots")
"""Those that have a column of their own; `yes` is shown as a share of `checks`."""

MOST_ERRORS = 20


class Tile(NamedTuple):
    """A figure in large letters: the figure, what it is, and what stands below."""

    figure: str
    what: str
    below: str


def render(
    analysis: Analysis,
    reference: str,
    charts: Sequence[Chart],
    embedded: Embedded,
    run: Mapping[str, Any],
    pictures: Sequence[str],
) -> str:
    """The whole page."""
    script, style = _read("page.js"), _palette() + _read("page.css")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(words=words, data=data, among=among)
    return environment.get_template("page.html").render(
        policy=policy(script, style),
        script=Markup(script),  # this package's own files
        style=Markup(style),
        analysis=analysis,
        reference=reference,
        colours={name: place % len(COLOURS) for place, name in enumerate(analysis.strategies)},
        lead=[run[name] for name in ("model", "dataset", "date") if run.get(name)],
        findings=summary(analysis, reference),
        tiles=list(_tiles(analysis, reference)),
        charts={chart.name: _drawings(chart) for chart in charts},
        titles={chart.name: chart.title for chart in charts},
        groups=_by_strategy(analysis),
        chances=_chances(analysis),
        pairs=_pairs(analysis, reference),
        speeds=_speeds(analysis, reference),
        measured=_measured(analysis),
        extra=_extra(analysis),
        errors=_errors(analysis),
        failed=sum(row.errors for row in analysis.summaries),
        missing=_missing(analysis),
        embedded=embedded,
        run=run,
        pictures=pictures,
    )


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _palette() -> str:
    """The charts' colours as the style sheet's variables, in both themes."""

    def variables(colours: Sequence[str]) -> str:
        return "".join(f"--s{place}:{colour};" for place, colour in enumerate(colours))

    series = "".join(f".s{place}{{--series:var(--s{place})}}\n" for place in range(len(COLOURS)))
    dark = f"@media (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
    return f":root{{{variables(COLOURS)}}}\n{dark}\n{series}"


def data(value: float, show: words.Format) -> Markup:
    """A figure as people read it, with the one of results.csv behind it."""
    return Markup('<data value="{}">{}</data>').format(words.exact(value), show(value))


def among(estimate: Estimate, show: words.Format) -> Markup:
    """An interval in the same way."""
    if not estimate.known:
        return Markup("<small>{}</small>").format(words.interval(estimate, show))
    low, dash, high = words.interval(estimate, show).partition(words.BETWEEN)
    ends = (words.exact(estimate.low), low, dash, words.exact(estimate.high), high)
    return Markup('<small><data value="{}">{}</data>{}<data value="{}">{}</data></small>').format(
        *ends
    )


def _drawings(chart: Chart) -> Markup:
    """A chart for desks and one for phones; the style sheet shows one of them."""
    wide, narrow = Drawing(chart, 860, 420).draw(), Drawing(chart, 352, 320).draw()
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)


def _tiles(analysis: Analysis, reference: str) -> Iterator[Tile]:
    """The largest gain in accuracy and in passes that can be told, and how much was measured."""
    gains = [
        pair if pair.other == reference else analysis.compare(pair.other, reference, pair.budget)
        for pair in analysis.comparisons
        if reference in (pair.strategy, pair.other)
    ]
    better = [pair for pair in gains if pair.verdict == "better"]
    if better:
        best = max(better, key=lambda pair: pair.difference.value)
        yield Tile(
            f"{words.points(best.difference.value)} points",
            f"{best.strategy} against {reference}, at {best.budget:,} passes",
            f"95 %: {words.interval(best.difference, words.points)}",
        )
    speeds = [] if len(analysis.strategies) == 1 else analysis.speedups(reference)
    sooner = [found for found in speeds if found.verdict == "better"]
    if sooner:
        quick = max(sooner, key=lambda found: found.ratio.low)  # the surest
        yield Tile(
            f"{words.speedup(quick)} sooner",
            f"{quick.strategy} against {reference}, at {words.percent(quick.accuracy)} accuracy",
            f"95 %: {words.interval(quick.ratio, words.times)}",
        )
    if len(analysis.strategies) > 1 and not better and not sooner:
        yield Tile("cannot tell", f"no strategy is better than {reference} beyond doubt", "")
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


def _chances(analysis: Analysis) -> list[int]:
    """The k of pass@k."""
    return sorted({k for row in analysis.summaries for k in row.pass_at})


def _pairs(analysis: Analysis, reference: str) -> list[tuple[bool, str, str, list[Comparison]]]:
    """Pairs with all their budgets; the strategies against the reference first."""
    found: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for pair in analysis.comparisons:
        if pair.strategy == reference:
            pair = analysis.compare(pair.other, pair.strategy, pair.budget)
        found[pair.strategy, pair.other].append(pair)
    rows = [(other == reference, one, other, cells) for (one, other), cells in found.items()]
    return sorted(rows, key=lambda row: not row[0])


def _speeds(analysis: Analysis, reference: str) -> dict[str, list[Speedup]]:
    found: dict[str, list[Speedup]] = defaultdict(list)
    for one in analysis.speedups(reference):
        found[one.strategy].append(one)
    return found


def _measured(analysis: Analysis) -> list[Summary]:
    return [row for row in analysis.summaries if row.measures]


def _extra(analysis: Analysis) -> list[str]:
    """Measures that this page does not know by name."""
    return sorted({m for row in analysis.summaries for m in row.measures} - set(MEASURES))


def _errors(analysis: Analysis) -> list[tuple[str, int, list[str], str]]:
    """The most frequent messages: how often, of which strategies, and a problem where it was so."""
    failed = [
        (record.error or "no score was given", record)
        for record in analysis.records
        if record.error is not None or record.score is None
    ]
    messages = Counter(message for message, _ in failed)
    found = []
    for message, times in messages.most_common(MOST_ERRORS):
        some = [record for said, record in failed if said == message]
        found.append((message, times, sorted({r.strategy for r in some}), some[0].problem))
    return found


def _missing(analysis: Analysis) -> int:
    """Records that an unbroken run would have."""
    sizes = (analysis.strategies, analysis.budgets, analysis.problems, analysis.seeds)
    expected = 1
    for some in sizes:
        expected *= len(some)
    return expected - len(analysis.records)
