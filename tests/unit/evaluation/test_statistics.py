"""Accuracy, costs, comparisons, speed-ups, and their invariants."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.records import Record
from hogwild_agents.evaluation.resampling import unanimous
from hogwild_agents.evaluation.statistics import Analysis
from tests.unit.evaluation.report import made
from tests.unit.evaluation.report.made import record

some = settings(max_examples=20, deadline=None, derandomize=True)


def scored(strategy: str, *curves: tuple[float, ...], budgets: tuple[int, ...]) -> list[Record]:
    """One problem per curve, with a score per budget."""
    return [
        record(f"p{n}", strategy, budget, score)
        for n, curve in enumerate(curves)
        for budget, score in zip(budgets, curve, strict=True)
    ]


def at_one(name: str, scores: list[float]) -> list[Record]:
    """One budget, and one score per problem."""
    return scored(name, *((score,) for score in scores), budgets=(64,))


def test_seeds_are_averaged_within_a_problem_first() -> None:
    """A problem with three seeds counts no more than one with one."""
    records = [record("a", "single", 64, 1.0, seed=seed) for seed in range(3)]
    records += [record("b", "single", 64, 0.0), record("c", "single", 64, 0.5)]
    (row,) = Analysis(records).summaries
    assert row.accuracy.value == pytest.approx(0.5)
    assert (row.problems, row.records, row.missing) == (3, 5, 4)


def test_an_error_scores_nothing_and_costs_nothing() -> None:
    """It is counted, lowers accuracy, and is left out of what a problem costs."""
    records = [
        record("a", "single", 64, 1.0, passes=40, tokens=80, seconds=2.0, memory=1000),
        record("b", "single", 64, 0.0, passes=60, tokens=100, seconds=4.0, memory=3000),
        record("c", "single", 64, None, passes=9999, error="it broke"),
        record("d", "single", 64, None, passes=9999),
        record("e", "single", 64, math.nan, passes=9999),
        record("f", "single", 64, 1.0, passes=9999, error="scored, and then it broke"),
    ]
    (row,) = Analysis(records).summaries
    assert row.errors == 4
    assert row.accuracy.value == pytest.approx(1 / 6)
    costs = (row.passes, row.tokens, row.seconds, row.memory)
    assert [cost.value for cost in costs] == [50, 90, 3, 2000]
    assert row.pass_at == {1: pytest.approx(1 / 6)}


def test_only_errors() -> None:
    (row,) = Analysis([record(p, "single", 64, None, error="no") for p in "abc"]).summaries
    assert row.accuracy.value == 0
    assert row.accuracy.high == unanimous(3)
    assert math.isnan(row.passes.value)
    assert not row.passes.known


def test_all_alike_still_has_an_interval() -> None:
    """Ten of ten right does not mean that all are: Clopper and Pearson's interval."""
    rows = Analysis(at_one("all", [1.0] * 10) + at_one("none", [0.0] * 10)).summaries
    assert rows[0].accuracy == pytest.approx((1.0, 0.6915, 1.0), abs=1e-4)
    assert rows[1].accuracy == pytest.approx((0.0, 0.0, 0.3085), abs=1e-4)


def test_one_problem_has_no_interval() -> None:
    rows = Analysis(at_one("one", [0.5])).summaries
    assert rows[0].accuracy.value == 0.5
    assert not rows[0].accuracy.known


def test_seeds_of_a_problem_stay_together() -> None:
    """Saying everything three times makes nothing surer."""
    once = at_one("a", [1, 0, 1, 0, 0, 1, 1, 0.5]) + at_one("b", [0, 0, 1, 1, 0, 1, 0, 0])
    thrice = [replace(one, seed=seed) for one in once for seed in range(3)]
    one, three = Analysis(once), Analysis(thrice)
    for row, same in zip(one.summaries, three.summaries, strict=True):
        assert row.accuracy == pytest.approx(same.accuracy)
    assert one.comparisons[0].p == pytest.approx(three.comparisons[0].p)
    assert one.comparisons[0].difference == pytest.approx(three.comparisons[0].difference)


def test_pass_at_k_over_seeds() -> None:
    """One problem always right, one half right, one never: k = 1, 2, 4 and all five."""
    seeds = {"a": [1.0] * 5, "b": [1.0, 0.0, 0.0, 0.0, 0.9], "c": [0.0] * 5}
    records = [
        record(problem, "single", 64, score, seed=seed)
        for problem, scores in seeds.items()
        for seed, score in enumerate(scores)
    ]
    (row,) = Analysis(records).summaries
    expected = {1: (1 + 1 / 5) / 3, 2: (1 + 2 / 5) / 3, 4: (1 + 4 / 5) / 3, 5: 2 / 3}
    assert row.pass_at == pytest.approx(expected)


def test_measures_are_means_over_the_records_that_have_them() -> None:
    records = [
        record("a", "team", 64, 1.0, measures={"balance": 0.5, "checks": 4.0}),
        record("b", "team", 64, 1.0, measures={"balance": 1.0, "checks": math.nan}),
        record("c", "team", 64, 1.0),
    ]
    (row,) = Analysis(records).summaries
    assert row.measures == {"balance": 0.75, "checks": 4.0}


def test_pairs_are_compared_on_the_problems_that_both_have() -> None:
    """By hand: both have p0 to p3, differing by 1, 1, 0 and -1."""
    a = at_one("a", [0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    b = at_one("b", [1.0, 1.0, 1.0, 0.0])
    (pair,) = Analysis(a + b).comparisons
    assert (pair.strategy, pair.other, pair.problems) == ("b", "a", 4)
    assert pair.difference.value == 0.25
    assert pair.p == 1.0  # of the eight flips of 1, 1, -1 all have a sum of 1 or more


def test_nothing_in_common() -> None:
    records = [record("a", "one", 64, 1.0), record("b", "two", 64, 0.0)]
    records += [record("a", "one", 32, 1.0)]
    analysis = Analysis(records)
    assert [pair.verdict for pair in analysis.comparisons] == ["cannot tell"] * 2
    assert [pair.problems for pair in analysis.comparisons] == [0, 0]
    assert math.isnan(analysis.comparisons[0].difference.value)
    assert len(analysis.summaries) == 3


@pytest.mark.parametrize(("problems", "verdict"), [(5, "cannot tell"), (6, "better")])
def test_few_problems_can_tell_nothing(problems: int, verdict: str) -> None:
    """However clear five are, one sign flip of 16 is as clear."""
    records = at_one("a", [0.0] * problems) + at_one("b", [1.0] * problems)
    analysis = Analysis(records)
    assert analysis.comparisons[0].verdict == verdict
    turned = {"better": "worse"}.get(verdict, verdict)
    assert analysis.compare("a", "b", 64).verdict == turned
    assert analysis.compare("b", "a", 64).verdict == verdict
    assert analysis.compare("a", "b", 64).difference.value == -1


def test_a_pair_seen_from_the_other_side() -> None:
    records = at_one("a", [0.0, 0.5, 0.2, 1.0]) + at_one("b", [1.0, 0.5, 0.9, 0.6])
    pair = Analysis(records).comparisons[0]
    back = Analysis(records).compare("a", "b", 64)
    assert (back.strategy, back.other, back.p) == ("a", "b", pair.p)
    value, low, high = pair.difference
    assert low < value < high
    assert back.difference == (-value, -high, -low)


def test_more_comparisons_need_more() -> None:
    """Six problems tell two strategies apart, but no longer one pair among three."""
    records = at_one("a", [0.0] * 6) + at_one("b", [1.0] * 6)
    more = Analysis(records + at_one("c", [0.0, 1.0] * 3))
    pair = more.compare("b", "a", 64)
    assert pair.p == pytest.approx(2 / 64)
    assert pair.adjusted == pytest.approx(3 * 2 / 64)
    assert pair.verdict == "cannot tell"


def test_a_small_sure_difference_and_a_large_doubtful_one() -> None:
    sure = Analysis(at_one("a", [0.4] * 40) + at_one("b", [0.5] * 40)).comparisons[0]
    doubtful = Analysis(at_one("a", [1.0, 0.0] * 3) + at_one("b", [1.0] * 6)).comparisons[0]
    assert (sure.verdict, doubtful.verdict) == ("better", "cannot tell")
    assert doubtful.difference.value > sure.difference.value


@some
@given(st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(rng: random.Random) -> None:
    records = made.records(problems=12, budgets=(64, 128), failing=0.1)
    mixed = rng.sample(records, len(records))
    one, other = Analysis(records), Analysis(mixed)
    assert str(one.summaries) == str(other.summaries)  # NaN is not equal to itself
    assert one.comparisons == other.comparisons
    assert str(one.speedups("single")) == str(other.speedups("single"))


def test_a_twin_cannot_be_told_apart() -> None:
    """A strategy that does the same under another name: nowhere better, and as fast."""
    records = made.records(teams=("single", "hogwild-2"))
    twins = [replace(one, strategy="twin") for one in records if one.strategy == "single"]
    analysis = Analysis(records + twins)
    pairs = [analysis.compare("twin", "single", budget) for budget in analysis.budgets]
    assert {pair.verdict for pair in pairs} == {"cannot tell"}
    assert {pair.p for pair in pairs} == {1.0}
    found = [one for one in analysis.speedups("single") if one.strategy == "twin"]
    told = [one for one in found if 0 < one.accuracy < 1]
    assert len(told) >= 3
    assert all(one.ratio.value == one.ratio.low == 1 for one in told)
    assert {one.verdict for one in found} == {"cannot tell"}


def test_other_strategies_change_no_figures() -> None:
    """Only Holm's correction knows of them."""
    records = made.records()
    few = [one for one in records if one.strategy in ("single", "hogwild-4")]
    whole, part = Analysis(records), Analysis(few)
    for row in part.summaries:
        (same,) = (
            r for r in whole.summaries if (r.strategy, r.budget) == (row.strategy, row.budget)
        )
        assert row.accuracy == pytest.approx(same.accuracy)
        assert row.memory == pytest.approx(same.memory)
    one, other = (a.compare("hogwild-4", "single", 96) for a in (whole, part))
    assert one.difference == pytest.approx(other.difference)
    assert one.p == pytest.approx(other.p, abs=1e-3)
    assert one.adjusted > other.adjusted


@pytest.mark.parametrize("transform", [lambda s: s / 4, lambda s: 0.25 + s / 2])
def test_another_scale_of_scores_changes_no_verdict(transform: Callable[[float], float]) -> None:
    records = [replace(r, score=r.score or 0.0, error=None) for r in made.records(failing=0.05)]
    scaled = [replace(one, score=transform(one.score or 0.0)) for one in records]
    one, other = Analysis(records), Analysis(scaled)
    assert [pair.verdict for pair in one.comparisons] == [p.verdict for p in other.comparisons]
    told = {found.verdict for found in one.speedups("single")}
    assert told == {"better", "cannot tell"}
    for found, same in zip(one.speedups("single"), other.speedups("single"), strict=True):
        assert found.needed == pytest.approx(same.needed)
        assert found.passes == pytest.approx(same.passes)
        if found.accuracy > 0:
            assert found.verdict == same.verdict


def test_another_unit_of_budget_changes_no_speedup() -> None:
    records = made.records()
    scaled = [replace(one, budget=10 * one.budget) for one in records]
    pairs = zip(
        Analysis(records).speedups("single"), Analysis(scaled).speedups("single"), strict=True
    )
    for found, same in pairs:
        assert 10 * found.passes == pytest.approx(same.passes)
        assert found.ratio == pytest.approx(same.ratio, nan_ok=True)


def test_speedup_by_hand() -> None:
    """The team is where one worker is at twice the budget; every problem says the same."""
    budgets = (10, 20, 40, 80)
    slow = scored("single", *[(0.1, 0.2, 0.4, 0.8)] * 5, budgets=budgets)
    fast = scored("team", *[(0.2, 0.4, 0.8, 0.9)] * 5, budgets=budgets)
    found = {one.budget: one for one in Analysis(slow + fast).speedups("single")}
    assert found[80].ratio == pytest.approx((2, 2, 2))
    assert found[80].verdict == "better"
    assert (found[40].passes, found[40].ratio.value) == (20, 2)
    assert found[20].is_lower_bound  # it is there at its smallest budget: twice as soon, or more
    assert found[20].ratio == pytest.approx((2, 2, math.inf))
    assert found[10].ratio == (1, 1, math.inf)
    assert found[10].verdict == "cannot tell"
    back = {one.budget: one for one in Analysis(slow + fast).speedups("team")}
    assert back[40].ratio == pytest.approx((0.5, 0.5, 0.5))
    assert back[40].verdict == "worse"
    assert back[80].passes == math.inf  # one worker never gets there
    assert back[80].ratio == (0, 0, 1)
    assert back[80].verdict == "cannot tell"


def test_a_plateau_is_reached_where_it_begins() -> None:
    """A budget that buys nothing makes nobody sooner."""
    budgets = (10, 20, 40, 80)
    slow = scored("single", *[(0.1, 0.8, 0.8, 0.8)] * 5, budgets=budgets)
    fast = scored("team", *[(0.8, 0.8, 0.8, 0.8)] * 5, budgets=budgets)
    found = Analysis(slow + fast).speedups("single")
    assert [one.needed for one in found] == [10, 20, 20, 20]
    assert [one.ratio.value for one in found] == [1, 2, 2, 2]


def test_a_dip_is_evened_out() -> None:
    """0.6 and 0.4 are 0.5 twice, so the team is at 0.5 from 20 on, and at 0.45 at 19."""
    budgets = (10, 20, 40)
    slow = scored("single", *[(0.1, 0.2, 0.45)] * 5, budgets=budgets)
    fast = scored("team", *[(0.0, 0.6, 0.4)] * 5, budgets=budgets)
    found = Analysis(slow + fast).speedups("single")[-1]
    assert found.passes == pytest.approx(19)


def test_nothing_is_reached_sooner_than_nothing() -> None:
    budgets = (10, 20)
    slow = scored("single", *[(0.0, 0.5)] * 5, budgets=budgets)
    fast = scored("team", *[(0.5, 0.5)] * 5, budgets=budgets)
    nothing, half = Analysis(slow + fast).speedups("single")
    assert math.isnan(nothing.ratio.value)
    assert (nothing.verdict, half.verdict) == ("cannot tell", "better")


def test_perfection_has_no_interval() -> None:
    """All problems are right at the end, so all resamples are: that makes nothing sure."""
    records = [replace(r, error=None) for r in made.records()]
    found = [one for one in Analysis(records).speedups("single") if one.accuracy == 1]
    assert [one.strategy for one in found] == ["hogwild-2", "hogwild-4", "vote-4"]
    assert not any(one.ratio.known for one in found)
    assert {one.verdict for one in found} == {"cannot tell"}


def test_a_doubtful_speedup_cannot_be_told() -> None:
    """Two problems of which one is faster and one slower."""
    budgets = (10, 20, 40)
    slow = scored("single", (0, 0.5, 1), (0, 0.5, 1), budgets=budgets)
    mixed = scored("team", (0.5, 1, 1), (0, 0, 0.6), budgets=budgets)
    assert {one.verdict for one in Analysis(slow + mixed).speedups("single")} == {"cannot tell"}


def test_the_papers_picture() -> None:
    """Ahead at tight budgets, level at large ones, and twice as soon."""
    analysis = Analysis(made.records(problems=60))
    verdicts = [analysis.compare("hogwild-4", "single", b).verdict for b in (96, 128, 256)]
    assert verdicts == ["better", "better", "cannot tell"]
    found = analysis.speedups("single")
    team = next(one for one in found if (one.strategy, one.budget) == ("hogwild-4", 192))
    assert team.verdict == "better"
    assert team.ratio.low < 165 / 66 * 1.15
    assert team.ratio.high > 165 / 66 * 0.8


def test_rounding_is_no_difference() -> None:
    """Thirds of a point that add up to the same in another order."""
    seeds = [(0.1, 0.2, 0.3), (0.3, 0.2, 0.1)]
    records = [
        record(f"p{problem}", name, 64, score, seed=seed)
        for name, scores in zip(("a", "b"), seeds, strict=True)
        for problem in range(30)
        for seed, score in enumerate(scores)
    ]
    (pair,) = Analysis(records).comparisons
    assert (pair.p, pair.verdict) == (1.0, "cannot tell")


def test_strategies_in_the_order_asked_for() -> None:
    records = made.records(problems=2, budgets=(64,), teams=("single", "hogwild-4", "hogwild-2"))
    more = [replace(one, strategy="hogwild-10") for one in records if one.strategy == "single"]
    analysis = Analysis(records + more)
    assert analysis.strategies == ("hogwild-2", "hogwild-4", "hogwild-10", "single")
    asked = ("single", "hogwild-4", "hogwild-2")
    assert tuple(row.strategy for row in Analysis(records, strategies=asked).summaries) == asked


@pytest.mark.parametrize(
    ("strategies", "message"),
    [(("single",), "does not name each"), (("single", "single", "vote-4"), "does not name each")],
)
def test_strategies_that_are_not_those_of_the_records(
    strategies: tuple[str, ...], message: str
) -> None:
    records = made.records(problems=2, teams=("single", "vote-4"))
    with pytest.raises(EvaluationError, match=message):
        Analysis(records, strategies=strategies)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no records"):
        Analysis([])
    one = record("a", "single", 64, 1.0)
    with pytest.raises(EvaluationError, match=r"the same key.*problem='a'"):
        Analysis([one, record("b", "single", 64, 1.0), replace(one, score=0.0)])
    with pytest.raises(EvaluationError, match="no strategy 'team'"):
        Analysis([one]).speedups("team")
    with pytest.raises(EvaluationError, match="do not hold both"):
        Analysis([one]).compare("single", "team", 64)


def test_a_large_run() -> None:
    """Six strategies, six budgets, 500 problems, three seeds."""
    records = made.records(problems=500, seeds=3)
    for name in ("single", "hogwild-2"):
        records += [replace(r, strategy=f"{name}+") for r in records if r.strategy == name]
    assert len(records) == 54_000
    started = time.process_time()
    analysis = Analysis(records)
    assert len(analysis.summaries) == 36
    assert len(analysis.comparisons) == 90
    assert len(analysis.speedups("single")) == 30
    assert time.process_time() - started < 6  # CPU time; usually 1.2
