"""The mathematics of the statistics, against enumeration, simulation and other algorithms."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.evaluation import resampling as rs
from hogwild_agents.evaluation.resampling import Floats

many = settings(max_examples=100, deadline=None, derandomize=True)

small = st.lists(st.integers(-3, 3).map(lambda n: n / 3), min_size=1, max_size=9)
shares = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@pytest.mark.parametrize("samples", range(1, 7))
def test_pass_at_k_counts_subsets(samples: int) -> None:
    """The share of all subsets of k samples that hold a right one."""
    for right, k in product(range(samples + 1), range(1, samples + 1)):
        subsets = list(combinations([True] * right + [False] * (samples - right), k))
        expected = np.mean([any(subset) for subset in subsets])
        assert rs.pass_at_k(samples, right, k) == pytest.approx(expected)


def test_pass_at_k_needs_k_samples() -> None:
    found = rs.pass_at_k([2, 3, 0], [1, 1, 0], 3)
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == 1


@many
@given(small)
def test_sign_flips_by_hand(differences: list[float]) -> None:
    """The share of all sign flips whose sum is as far from 0 as the one observed."""
    flips = product((-1, 1), repeat=len(differences))
    sums = [abs(np.dot(flip, differences)) for flip in flips]
    expected = np.mean([some >= abs(sum(differences)) - 1e-9 for some in sums])
    assert rs.sign_flip_tests(np.array(differences)[:, None], 0) == pytest.approx(expected)


def test_sign_flips_leave_out_what_is_missing() -> None:
    """NaN is as if the problem were not there; nothing at all has no p."""
    columns = np.array([[1.0, np.nan], [np.nan, np.nan], [1.0, np.nan], [0.5, np.nan]])
    p = rs.sign_flip_tests(columns, 0)
    assert p[0] == rs.sign_flip_tests(np.array([[1.0], [1.0], [0.5]]), 0)[0] == 2 / 8
    assert np.isnan(p[1])


def test_sampled_sign_flips_agree_with_all() -> None:
    """With 14 differences flips are drawn; there are few enough to count them here."""
    differences = np.random.default_rng(3).normal(0.35, 1, (14, 6))
    flips = np.array(list(product((-1.0, 1.0), repeat=14)))
    expected = np.mean(np.abs(flips @ differences) >= np.abs(differences.sum(0)) - 1e-9, axis=0)
    p = rs.sign_flip_tests(differences, 0)
    np.testing.assert_allclose(p, expected, atol=0.015)
    assert not np.array_equal(p, expected)
    assert np.array_equal(p, rs.sign_flip_tests(differences, 0))


def test_sampled_p_is_never_zero() -> None:
    """However clear: the observed one is among the flips."""
    (p,) = rs.sign_flip_tests(np.ones((60, 1)), 0)
    assert p == 1 / (rs.FLIPS + 1)


def test_sign_flips_seldom_cry_wolf() -> None:
    """Where there is no difference, one p in twenty is below 0.05."""
    differences = np.random.default_rng(5).choice([-1.0, 0.0, 0.0, 1.0], (40, 1500))
    share = np.mean(rs.sign_flip_tests(differences, 0) < 0.05)
    assert 0.025 < share < 0.06


def test_many_comparisons_can_still_be_told() -> None:
    """More flips are drawn for more comparisons, so that Holm's correction leaves something."""
    differences = np.ones((60, 600))
    assert (rs.holm(rs.sign_flip_tests(differences, 0)) < 0.05).all()


def test_holm_by_hand() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005, 0.9])
    expected = [0.04, np.nan, 0.09, 0.09, 0.025, 0.9]
    np.testing.assert_allclose(rs.holm(p), expected)
    assert rs.holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


@many
@given(shares)
def test_holm_keeps_order_and_only_raises(p: list[float]) -> None:
    adjusted = rs.holm(np.array(p))
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def pool(values: list[float]) -> list[float]:
    """Isotonic regression by pooling adjacent violators."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [float(np.mean(block)) for block in blocks for _ in block]


@many
@given(st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=1, max_size=4))
def test_curves_never_fall(curves: list[list[float]]) -> None:
    """The same as pooling adjacent violators finds, curve by curve."""
    found = rs.never_falling(np.array(curves))
    np.testing.assert_allclose(found, [pool(curve) for curve in curves], atol=1e-12)


@many
@given(st.floats(0.1, 1))
def test_where_a_target_is_reached(target: float) -> None:
    """Read off a straight line between two budgets."""
    budgets, curve = np.array([10.0, 20.0, 40.0, 80.0]), np.array([0.1, 0.4, 0.5, 1.0])
    found = rs.first_reached(budgets, curve[None], np.array([target]))
    assert found == pytest.approx(np.interp(target, curve, budgets))


def test_where_a_plateau_is_reached() -> None:
    """At its beginning; below the first budget at that budget; above the last one never."""
    budgets = np.array([10.0, 20.0, 40.0])
    curves = np.array([[0.2, 0.6, 0.6]] * 4)
    found = rs.first_reached(budgets, curves, np.array([0.6, 0.1, 0.7, 0.4]))
    assert found.tolist() == [20, 10, np.inf, 15]


def test_resamples_draw_as_many_as_there_are() -> None:
    weights = rs.draw_weights(7, 500, 0)
    assert weights.shape == (500, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert np.array_equal(weights, rs.draw_weights(7, 500, 0))
    assert not np.array_equal(weights, rs.draw_weights(7, 500, 1))
    assert weights.mean() == pytest.approx(1)
    assert weights.var() == pytest.approx(6 / 7, abs=0.05)  # of a multinomial


def test_means_leave_out_what_is_missing() -> None:
    values = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])
    means = rs.weighted_means(values, np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]]))
    np.testing.assert_allclose(means, [[1 / 2, np.nan], [2 / 3, np.nan]])


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_intervals_hold_the_truth(missing: float) -> None:
    """Nineteen in twenty of the intervals of samples hold the mean that the samples come from.

    Problems differ, so their seeds hang together: drawn one by one, intervals would be too narrow.
    """
    rng = np.random.default_rng(7)
    easy = rng.beta(0.5, 1.0, (80, 600))  # mean 1 / 3
    scores: Floats = rng.binomial(3, easy) / 3
    scores[rng.random(scores.shape) < missing] = np.nan
    low, high = rs.percentiles(rs.weighted_means(scores, rs.draw_weights(80, 1000, 0)))
    held = np.mean((low <= 1 / 3) & (high >= 1 / 3))
    assert 0.915 < held < 0.975


def test_intervals_leave_out_empty_resamples() -> None:
    """A resample without any problem that was measured says nothing."""
    values = np.array([[1.0, 0.5], [np.nan, 0.5]])
    low, high = rs.percentiles(rs.weighted_means(values, rs.draw_weights(2, 200, 0)))
    assert low.tolist() == high.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("problems", [1, 10, 100])
def test_the_exact_interval_of_a_unanimous_sample(problems: int) -> None:
    """At its end, a sample like this one has the chance of one tail."""
    assert (1 - rs.unanimous(problems)) ** problems == pytest.approx(0.025)
