"""Intervals and tests for right/wrong answers to the same questions. Proportions are in 0..1, not percent.

`gained` is the number of questions that the base model had wrong and the tuned one has right, `lost` the reverse;
`n` is the number of questions. Questions are taken as independent draws: databases and subjects that make questions
alike are not accounted for.
"""

import math
from collections.abc import Sequence

from scipy.optimize import brentq
from scipy.stats import binomtest, chi2_contingency, norm


def wilson_interval(k: int, n: int, level: float) -> tuple[float, float]:
    """Return the score interval of a proportion k/n (Wilson 1927); the whole of 0..1 for n = 0."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p of the exact McNemar test: is a changed answer as often gained as lost? 1.0 if none is."""
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


def paired_difference_interval(gained: int, lost: int, n: int, level: float) -> tuple[float, float]:
    """Return an interval of (gained - lost)/n, the difference of two proportions on the same n questions.

    Adjusted Wald interval of Bonett & Price (2012), Statistical Methods in Medical Research 21(5), 479-488: one
    question is added to each of gained and lost, so that it has a width also where no answer changed. It may
    disagree with the exact test at the margin; verdicts follow the test.
    """
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = norm.ppf((1 + level) / 2) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, float(up - down - half)), min(1.0, float(up - down + half))


def minimum_detectable_difference(gained: int, lost: int, n: int, level: float, power: float = 0.8) -> float | None:
    """Return the least true difference that McNemar's test would find with probability `power` at this n.

    Connor (1987), Biometrics 43(1), 207-211: n = (z_alpha sqrt(d) + z_power sqrt(d - x^2))^2 / x^2, solved for the
    difference x, where d is the share of questions whose answer changed. A difference cannot be larger than the share
    of changed answers; where the observed share is smaller than x, d = x is put in its place (every change goes one
    way). None where n is too small for any difference to be found.
    """
    changed = (gained + lost) / n if n else 0.0
    z_alpha, z_power = norm.ppf((1 + level) / 2), norm.ppf(power)

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
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def two_proportions(k1: int, n1: int, k2: int, n2: int) -> float:
    """Return the two-sided p of the pooled z test of k1/n1 against k2/n2 (chi-squared, no continuity correction).

    For published counts whose answers are not known one by one. It ignores that the questions are the same, and so
    finds less than `mcnemar`.
    """
    table = [[k1, n1 - k1], [k2, n2 - k2]]
    if k1 + k2 in (0, n1 + n2):
        return 1.0
    return float(chi2_contingency(table, correction=False).pvalue)
