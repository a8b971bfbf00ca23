"""Intervals and tests for right/wrong answers to the same questions. Proportions are in 0..1, not percent.

`gained` is the number of questions that the base model had wrong and the tuned one has right, `lost` the reverse;
`n` is the number of questions. Questions on one database or of one subject resemble each other, and a test that takes
them as independent finds too much: `clustered_difference` allows for that. `mcnemar` does not, and is for questions
that are all there is to say something about.

Which small-cluster correction was settled by simulation (tests/custom_metrics/test_simulations.py holds the result):
on 8 to 57 clusters, balanced or as uneven as Spider dev, the t interval below covers 94 to 97% where 95% is meant (more
where only a few answers change).
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from custom_metrics.intervals import wilson_interval as wilson_interval


class Estimate(NamedTuple):
    """A difference of two proportions on the same questions, with what its sampling leaves open."""

    centre: float  # of the interval: the difference, drawn a little towards 0
    se: float  # its standard error
    df: float  # degrees of freedom of that
    low: float
    high: float
    p: float  # two-sided, of no difference; p < 1 - level exactly where the interval leaves out 0


def mean_of_proportions(right: Sequence[int], sizes: Sequence[int], level: float) -> tuple[float, float, float]:
    """Return the unweighted mean of the proportions right/sizes of several groups, and its interval.

    The questions of each group are what is drawn, not the groups. Each proportion's own Wilson limits give its variance
    near the mean's lower and upper limit (MOVER: Zou, Huang & Zhang 2009, Computational Statistics & Data Analysis
    53(4), 1080-1085, equation 5); of one group it is the Wilson interval.
    """
    shares = np.asarray(right, float) / np.asarray(sizes, float)
    low, high = np.array([wilson_interval(int(k), int(n), level) for k, n in zip(right, sizes, strict=True)]).T
    mean, groups = shares.mean(), len(shares)
    below, above = (math.sqrt(((limits - shares) ** 2).sum()) / groups for limits in (low, high))
    return float(mean), float(mean - below), float(mean + above)


@cache
def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p of the exact McNemar test: is a changed answer as often gained as lost? 1.0 if none is."""
    from scipy.stats import binomtest

    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


def bell_mccaffrey(sizes: np.ndarray) -> float:
    """Return the degrees of freedom of CR2 of a mean over two or more clusters of these sizes.

    Satterthwaite's, for questions that vary alike (Bell & McCaffrey 2002).
    """
    # Of the matrix with n_g on the diagonal and weights_g * weights_h / n beside it: squared trace by trace of square.
    n = sizes.sum()
    weights = sizes**2 / (1 - sizes / n) / n
    return n**2 / ((sizes**2).sum() + weights.sum() ** 2 - (weights**2).sum())


def clustered_difference(sums: Sequence[float], sizes: Sequence[int], level: float) -> Estimate:
    """Return the difference of two proportions on the same questions, with an interval robust to clusters.

    Args:
        sums: of each cluster (database, subject; or single questions), the sum of tuned minus base over its questions.
        sizes: its number of questions.

    The variance is the cluster-robust one with the correction of Bell & McCaffrey (2002), Survey Methodology 28(2),
    169-181 (CR2), and Student's t has their degrees of freedom (Satterthwaite's, for questions that vary alike):
    G - 1 for G clusters of one size, fewer where sizes differ. As in the interval of Bonett & Price (2012), Statistical
    Methods in Medical Research 21(5), 479-488, one gained and one lost question are added, here as clusters of their
    own, so that it has a width also where no answer changed. Of fewer than two clusters nothing is known: the interval
    is -1 to 1.
    """
    if len(sizes) < 2:
        return Estimate(float(np.sum(sums)) / max(1, int(np.sum(sizes))), math.inf, 1.0, -1.0, 1.0, 1.0)
    sums, sizes = np.asarray(sums, float), np.asarray(sizes, float)
    n = sizes.sum()
    share = sizes / n
    centre = sums.sum() / (n + 2)
    residuals = (sums - centre * sizes) ** 2 / (1 - share)
    se = math.sqrt(residuals.sum() + (1 - centre) ** 2 + (1 + centre) ** 2) / (n + 2)
    df = bell_mccaffrey(sizes)
    half = stdtrit(df, (1 + level) / 2) * se
    p = 2 * stdtr(df, -abs(centre) / se)
    return Estimate(*map(float, (centre, se, df, max(-1, centre - half), min(1, centre + half), p)))


def percent_change(base: int, tuned: int, n: int, chance: float, level: float) -> float | None:
    """Return 100 * (tuned - base) / base of two counts of right answers to the same n questions.

    None where the base model is not shown to be above chance (its Wilson interval reaches down to `chance`): a change
    relative to guessing says nothing.
    """
    if base == 0 or wilson_interval(base, n, level)[0] <= chance:
        return None
    return 100.0 * (tuned - base) / base


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's step-down method (1979), in the given order."""
    p, order = np.asarray(p_values, float), np.argsort(p_values, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * p[order]))
    return adjusted.tolist()
