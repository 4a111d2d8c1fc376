"""Bootstrap, permutation test, Holm's correction and monotone curves, on plain arrays.

Rows are problems, columns are what is compared; NaN marks missing values. All random numbers come
from a seed, so the same records give the same statistics.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

LEVEL = 0.95
"""Confidence of every interval."""

FLIPS = 9_999
"""How many sign flips are drawn where there are too many to enumerate."""

_MOST_ENUMERATED = 13
"""Up to so many differences, all 2**n sign flips are enumerated; they are fewer than `FLIPS`."""

_TOLERANCE = 1e-9
"""Sums that differ by less are equal: means over seeds are not exact."""


def draw_weights(problems: int, resamples: int, seed: int) -> Floats:
    """How often each problem is drawn in each resample: `[resamples, problems]`.

    The nonparametric bootstrap (Efron 1979, Annals of Statistics 7) draws as many problems as there
    are, with replacement. A problem brings all its seeds along.
    """
    rng = np.random.default_rng(seed)
    shares = np.full(problems, 1 / problems)
    return rng.multinomial(problems, shares, size=resamples).astype(np.float64)


def weighted_means(values: Floats, weights: Floats) -> Floats:
    """The mean of each column in each resample, without missing values: `[resamples, columns]`."""
    measured = np.isfinite(values)
    sums = weights @ np.where(measured, values, 0.0)
    with np.errstate(invalid="ignore"):
        means: Floats = sums / (weights @ measured.astype(np.float64))
    return means


def percentiles(replicates: Floats) -> tuple[Floats, Floats]:
    """Both ends of the percentile interval (Efron and Tibshirani 1993, chapter 13), per column."""
    tail = (1 - LEVEL) / 2
    if np.isnan(replicates).any():
        return _columns_without_nan(replicates, tail), _columns_without_nan(replicates, 1 - tail)
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=0)
    return low, high


def _columns_without_nan(replicates: Floats, share: float) -> Floats:
    columns = [column[~np.isnan(column)] for column in replicates.T]
    return np.array([np.quantile(column, share) if column.size else np.nan for column in columns])


def unanimous(problems: int) -> float:
    """How far from 0 (or 1) a rate may be if all of so many problems gave 0 (or 1).

    The bootstrap cannot say, as all resamples are equal. This is the exact interval of Clopper and
    Pearson (1934, Biometrika 26).
    """
    return float(1 - ((1 - LEVEL) / 2) ** (1 / problems))


def pass_at_k(samples: ArrayLike, right: ArrayLike, k: int) -> Floats:
    """The probability that one of k samples is right, per problem; NaN with fewer than k samples.

    The unbiased estimate of Chen et al. (arXiv 2107.03374, section 2.1): 1 - C(n-c, k) / C(n, k),
    as a product, for n samples of which c are right.
    """
    n = np.asarray(samples, dtype=np.float64)
    wrong = n - np.asarray(right, dtype=np.float64)
    missed = np.ones(np.broadcast_shapes(n.shape, wrong.shape))
    for drawn in range(k):  # the probability that this one is wrong too
        missed = missed * np.maximum(wrong - drawn, 0) / np.maximum(n - drawn, 1)
    return np.where(n >= k, 1 - missed, np.nan)


def sign_flip_tests(differences: Floats, seed: int) -> Floats:
    """The two-sided paired permutation test of each column: p, NaN for an empty column.

    If two strategies are equally good, each problem's difference could as well have had the other
    sign (Fisher 1935, The Design of Experiments, section 21). p is the share of sign flips whose
    sum is at least as far from 0 as the observed one: among all of them where few problems differ,
    otherwise among a random sample plus the observed one (Phipson and Smyth 2010, SAGMB 9).
    """
    values = np.nan_to_num(differences, nan=0.0)
    observed = np.abs(values.sum(axis=0)) - _TOLERANCE
    differ = np.count_nonzero(values, axis=0)
    many = np.flatnonzero(differ > _MOST_ENUMERATED)
    p = np.ones(values.shape[1])
    for column in np.flatnonzero(differ <= _MOST_ENUMERATED):
        nonzero = values[values[:, column] != 0, column]
        p[column] = np.mean(np.abs(_all_signs(len(nonzero)) @ nonzero) >= observed[column])
    if many.size:
        flips = max(FLIPS, 100 * values.shape[1])  # so that p can survive the correction
        rng = np.random.default_rng(seed)
        extreme = np.zeros(many.size)
        for start in range(0, flips, 1000):
            shape = (min(1000, flips - start), len(values))
            signs = 1.0 - 2.0 * rng.integers(0, 2, size=shape, dtype=np.int8)
            extreme += (np.abs(signs @ values[:, many]) >= observed[many]).sum(axis=0)
        p[many] = (1 + extreme) / (1 + flips)
    p[~np.isfinite(differences).any(axis=0)] = np.nan
    return p


def _all_signs(count: int) -> Floats:
    bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    signs: Floats = np.where(bits, -1.0, 1.0)
    return signs


def holm(p: Floats) -> Floats:
    """p-values adjusted for multiple comparisons (Holm 1979, Scand. J. Statistics 6)."""
    valid = np.flatnonzero(~np.isnan(p))
    order = valid[np.argsort(p[valid], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def never_falling(curves: Floats) -> Floats:
    """The nearest curves that never fall, along the last axis.

    Isotonic regression by the max-min formula (Robertson, Wright and Dykstra 1988, section 1.4).
    """
    sums = np.concatenate([np.zeros_like(curves[..., :1]), np.cumsum(curves, axis=-1)], axis=-1)
    points = curves.shape[-1]
    fitted: Floats = np.full(curves.shape, -np.inf)
    for start in range(points):
        lengths = np.arange(1, points - start + 1)
        means = (sums[..., start + 1 :] - sums[..., start, None]) / lengths
        least = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        fitted[..., start:] = np.maximum(fitted[..., start:], least)
    return fitted


def first_reached(budgets: Floats, curves: Floats, targets: Floats) -> Floats:
    """Where each curve first reaches its target, interpolated linearly; inf if never.

    A curve that begins above its target gives the first budget.
    """
    reached = curves >= targets[:, None] - _TOLERANCE
    after = np.argmax(reached, axis=1)
    rows = np.arange(len(curves))
    before = np.maximum(after - 1, 0)
    high, low = curves[rows, after], curves[rows, before]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(after > 0, (targets - low) / (high - low), 0.0)
    passes = budgets[before] + np.clip(share, 0, 1) * (budgets[after] - budgets[before])
    return np.where(reached.any(axis=1), passes, np.inf)
