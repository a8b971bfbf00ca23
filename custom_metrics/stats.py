"""Intervals and tests for right/wrong answers to the same questions. Proportions are in 0..1, not percent.

`gained` is the number of questions that the base model had wrong and the tuned one has right, `lost` the reverse;
`n` is the number of questions. Questions on one database or of one subject resemble each other, and a test that takes
them as independent finds too much: `clustered_difference` and what stands on it allow for that. `mcnemar` and
`minimum_detectable_difference` do not, and are for questions that are all there is to say something about.

Which small-cluster correction was settled by simulation (tests/custom_metrics/test_simulations.py holds the result):
on 8 to 57 clusters, balanced or as uneven as Spider dev, the t interval below covers 94 to 97% where 95% is meant (more
where only a few answers change); the bootstrap with expanded percentiles 92 to 96%, the studentised bootstrap 88 to
95%.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit


class Estimate(NamedTuple):
    """A difference of two proportions on the same questions, with what its sampling leaves open."""

    centre: float  # of the interval: the difference, drawn a little towards 0
    se: float  # its standard error
    df: float  # degrees of freedom of that
    low: float
    high: float
    p: float  # two-sided, of no difference; p < 1 - level exactly where the interval leaves out 0


@cache
def wilson_interval(k: int, n: int, level: float) -> tuple[float, float]:
    """Return the score interval of a proportion k/n (Wilson 1927); the whole of 0..1 for n = 0."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # takes as long to import as all else here

    interval = binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


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
    return _estimate(centre, se, bell_mccaffrey(sizes), level)


def _estimate(centre: float, se: float, df: float, level: float) -> Estimate:
    half = stdtrit(df, (1 + level) / 2) * se
    p = 2 * stdtr(df, -abs(centre) / se) if se else float(centre == 0)
    return Estimate(*map(float, (centre, se, df, max(-1, centre - half), min(1, centre + half), p)))


def cluster_bootstrap(
    sums: np.ndarray, sizes: Sequence[int], level: float, seed: int, replicates: int = 9999
) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits of a paired bootstrap interval of each of many differences on the same questions.

    Whole clusters are drawn, the same ones for all differences. Its percentiles are widened for a small number of
    clusters: Hesterberg (2015), The American Statistician 69(4), 371-386, section 4.1.

    Args:
        sums: (comparisons, clusters), as in `clustered_difference`.
        sizes: of each cluster its number of questions.
        seed: of the draws; equal seeds give equal limits.

    Raises:
        ValueError: there are fewer than two clusters.
    """
    count = len(sizes)
    if count < 2:
        raise ValueError(f"found {count} clusters, expected two or more")
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    differences = (np.asarray(sums, float) @ draws.T) / (draws @ np.asarray(sizes))
    tail = ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, (1 - level) / 2))
    low, high = np.quantile(differences, [tail, 1 - tail], axis=1)
    return low, high


def detectable(estimate: Estimate, level: float, power: float = 0.8) -> float | None:
    """Return the least true difference that a test by this standard error finds with probability `power`.

    Bloom (1995), Evaluation Review 19(5), 547-556. None where that is more than 1.
    """
    least = (stdtrit(estimate.df, (1 + level) / 2) + stdtrit(estimate.df, power)) * estimate.se
    return float(least) if least <= 1 else None


def fieller(numerator: Estimate, denominator: Estimate, level: float) -> tuple[float, float] | None:
    """Return an interval of the ratio of two independent estimates; None where it is not bounded.

    That is where the denominator's own interval holds 0, or nearly so.

    Fieller (1954), Journal of the Royal Statistical Society B 16(2), 175-185. The t of the two has the degrees of
    freedom of Welch and Satterthwaite at the estimated ratio.
    """
    if denominator.p >= 1 - level or not math.isfinite(numerator.se):
        return None
    ratio = numerator.centre / denominator.centre
    parts = numerator.se**2, (ratio * denominator.se) ** 2
    df = sum(parts) ** 2 / (parts[0] ** 2 / numerator.df + parts[1] ** 2 / denominator.df)
    t = stdtrit(df, (1 + level) / 2)
    g = (t * denominator.se / denominator.centre) ** 2
    if g >= 1:
        return None
    half = t / abs(denominator.centre) * math.sqrt((1 - g) * parts[0] + parts[1])
    return float((ratio - half) / (1 - g)), float((ratio + half) / (1 - g))


class Replicates(NamedTuple):
    """The mean difference of runs that differ in their seed alone, with what seeds and questions leave open."""

    mean: Estimate
    seed_sd: float  # of one run's difference: how much of its standard deviation is the seed's
    question_sd: float  # and how much is which questions were drawn


def replicates(differences: np.ndarray, clusters: Sequence[int], level: float) -> Replicates:
    """Return the mean over seeds of tuned minus base, for other seeds and other questions (or databases, subjects).

    Args:
        differences: (seeds, questions), tuned minus base, -1, 0 or 1.
        clusters: of each question the number of its cluster, from 0; each number once for questions of their own.

    The seeds' variance is that of a crossed two-way random model without replication, by the expected mean squares of
    its analysis of variance (Searle, Casella & McCulloch 1992, Variance Components, chapter 4), 0 where that is
    negative; the questions' is that of `clustered_difference`, averaged over the seeds. The mean's variance is the
    seeds', by their number, plus that of the answers averaged over seeds; degrees of freedom by Satterthwaite (1946),
    Biometrics Bulletin 2(6), 110-114. Those are too many where few seeds differ much: the interval is at least as
    wide as Student's of the seeds' means, and p at least as large as theirs.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    differences = np.asarray(differences, float)
    seeds, n = differences.shape
    if seeds < 2:
        raise ValueError(f"found {seeds} seeds, expected two or more")
    sizes = np.bincount(clusters)
    each = [clustered_difference(np.bincount(clusters, row), sizes, level) for row in differences]
    mean = clustered_difference(np.bincount(clusters, differences.mean(axis=0)), sizes, level)
    if not math.isfinite(mean.se):
        return Replicates(mean, 0.0, math.inf)
    by_seed = differences.mean(axis=1)
    between = n * by_seed.var(ddof=1)
    residual = differences - by_seed[:, None] - differences.mean(axis=0) + differences.mean()
    within = (residual**2).sum() / ((seeds - 1) * (n - 1))
    seed_variance = max(0.0, (between - within) / n)
    variance = mean.se**2 + seed_variance / seeds
    df = variance**2 / (mean.se**4 / mean.df + (seed_variance / seeds) ** 2 / (seeds - 1))
    whole = _estimate(mean.centre, math.sqrt(variance), df, level)
    own = _estimate(mean.centre, by_seed.std(ddof=1) / math.sqrt(seeds), seeds - 1, level)
    whole = whole._replace(low=min(whole.low, own.low), high=max(whole.high, own.high), p=max(whole.p, own.p))
    return Replicates(whole, math.sqrt(seed_variance), math.sqrt(sum(one.se**2 for one in each) / seeds))


def minimum_detectable_difference(gained: int, lost: int, n: int, level: float, power: float = 0.8) -> float | None:
    """Return the least true difference that McNemar's test would find with probability `power` at this n.

    Connor (1987), Biometrics 43(1), 207-211: n = (z_alpha sqrt(d) + z_power sqrt(d - x^2))^2 / x^2, solved for the
    difference x, where d is the share of questions whose answer changed. A difference cannot be larger than the share
    of changed answers; where the observed share is smaller than x, d = x is put in its place (every change goes one
    way). None where n is too small for any difference to be found.
    """
    from scipy.optimize import brentq

    changed = (gained + lost) / n if n else 0.0
    z_alpha, z_power = ndtri((1 + level) / 2), ndtri(power)

    def excess(x: float) -> float:
        d = max(changed, x)
        return math.sqrt(n) * x - z_alpha * math.sqrt(d) - z_power * math.sqrt(max(0.0, d - x * x))

    return float(brentq(excess, 1e-9, 1.0)) if excess(1.0) > 0 else None


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
