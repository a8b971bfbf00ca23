"""The error of a mean difference whose training seeds and question clusters are both drawn at random.

The two are crossed (Hagmann and Riezler 2023, arXiv:2302.04054), so the variance has two parts; Miller (2024,
arXiv:2411.00640) has the paired differences and their clusters:

* of the questions: the cluster-robust variance CR2 of the differences averaged over the setting's seeds, with the
  degrees of freedom of Bell and McCaffrey. It holds the noise of seed x question already, divided by the seeds.
* of the seeds: what the mean of a whole run owes to its seed. It is the variance between the runs of a setting, less
  the noise of seed x question in it, pooled over the settings of a model (`Seeds`), and divided by the seeds.

`Error` puts the two together; docs/statistics.md has the simulations that chose how. All values are shares.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from custom_metrics.stats import bell_mccaffrey

# With fewer databases or subjects than this, nobody can tell how much they differ: the interval would be several times
# as wide, and most studies of one subject a category could say nothing. Then only the questions count as drawn at
# random, and what is concluded holds for these databases or subjects alone.
FEWEST_CLUSTERS = 5
# Of more clusters the wild bootstrap says what CR2 says.
MOST_FOR_BOOTSTRAP, BOOTSTRAPS = 60, 1999
POWER = 0.8


@dataclass(frozen=True)
class Units:
    """What counts as drawn at random among some questions: clusters; or the questions, within fixed clusters."""

    codes: np.ndarray  # (questions,), of each its unit
    sizes: np.ndarray  # (units,), in questions
    strata: np.ndarray  # (units,), the stratum of each; 0 everywhere where clusters are the units
    clusters: int
    unit: str  # cluster or question

    @classmethod
    def of(cls, clusters: np.ndarray, fixed: bool) -> "Units":
        """Take clusters as units if there are enough of them and they are not declared fixed."""
        codes, found = pd.factorize(clusters)
        count, n = len(found), len(codes)
        if not fixed and count >= FEWEST_CLUSTERS:
            return cls(codes, np.bincount(codes).astype(float), np.zeros(count, int), count, "cluster")
        # A stratum of one question tells nothing of its variance.
        strata = codes if np.bincount(codes).min() > 1 else np.zeros(n, int)
        return cls(np.arange(n), np.ones(n), strata, count, "question")

    @property
    def n(self) -> float:
        return self.sizes.sum()

    @property
    def inflation(self) -> np.ndarray:
        """1 / (1 - a unit's share of its stratum): the correction of CR2."""
        return 1 / (1 - self.sizes / self.by_stratum(self.sizes))

    @property
    def df(self) -> float:
        """Degrees of freedom of the variance (Bell and McCaffrey), for questions that vary alike."""
        if len(self.sizes) < 2:
            return 1.0
        strata = [self.sizes[self.strata == one] for one in range(self.strata.max() + 1)]
        return self.n**2 / sum(sizes.sum() ** 2 / bell_mccaffrey(sizes) for sizes in strata)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the questions of each unit: (rows, questions) to (rows, units)."""
        if self.unit == "question":
            return values
        order = np.argsort(self.codes, kind="stable")
        return np.add.reduceat(values[:, order], np.searchsorted(self.codes[order], np.arange(self.clusters)), axis=1)

    def by_stratum(self, sums: np.ndarray) -> np.ndarray:
        """Give each unit the total of its stratum: (..., units) to (..., units)."""
        if not self.strata.any():
            return np.broadcast_to(sums.sum(axis=-1, keepdims=True), sums.shape)
        return (sums @ np.eye(self.strata.max() + 1)[self.strata])[..., self.strata]

    def residuals(self, sums: np.ndarray) -> np.ndarray:
        """What each unit's sum is away from its stratum's mean."""
        return sums - self.by_stratum(sums) * (self.sizes / self.by_stratum(self.sizes))

    def variance(self, sums: np.ndarray, added: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimate means and their CR2 variances, of many rows at once.

        As in `stats.clustered_difference`, one gained and one lost question are added, so that there is a variance
        where no answer changed.

        Args:
            sums: (rows, units).
            added: (rows,), as how much of a question each of the two counts (`added_share`); 0 adds none.

        Returns:
            The centres, drawn a little towards 0, and the variances; infinite for fewer than two units.
        """
        n = self.n + 2 * added
        centre = sums.sum(axis=1) / n
        if len(self.sizes) < 2:
            return centre, np.full(len(sums), np.inf)
        means = self.by_stratum(sums) / self.by_stratum(self.sizes) * (self.n / n)[:, None]
        squares = ((sums - means * self.sizes) ** 2 * self.inflation).sum(axis=1)
        return centre, (squares + added**2 * ((1 - centre) ** 2 + (1 + centre) ** 2)) / n**2


def added_share(changes: np.ndarray) -> float:
    """As how much of a question the gained and the lost one count each that `Units.variance` adds.

    One seed: as a whole one. Of more seeds, where many answers changed, as the one answer of a run that it then is; and
    where none did, as a whole one, since nothing says that other questions would not change in all runs.

    Args:
        changes: (seeds, questions).
    """
    seeds, changed = len(changes), (changes**2).sum() / len(changes)
    return 1 / seeds + (1 - 1 / seeds) * 2 / (changed + 2)


@dataclass(frozen=True)
class Seeds:
    """How much runs differ that differ in their seed alone, pooled over settings (shares squared)."""

    between: float = 0.0  # variance of the means of a setting's runs
    noise: float = 0.0  # how much of that the questions make: seed x question, clustered as the questions are
    df: int = 0  # sum of (seeds - 1); 0: no setting has two

    @classmethod
    def pooled(cls, units: Units, sums: Sequence[np.ndarray]) -> "Seeds":
        """Pool over settings, each with its sums: (seeds, units).

        Mean squares of a crossed two-way layout (Searle, Casella and McCulloch 1992, Variance Components, chapter 4).
        """
        df = sum(len(one) - 1 for one in sums)
        if not df or len(units.sizes) < 2:
            return cls()
        between, noise = 0.0, 0.0
        for one in (one for one in sums if len(one) > 1):
            own = one - one.mean(axis=0)
            between += ((own.sum(axis=1) / units.n) ** 2).sum()
            noise += (units.residuals(own) ** 2 * units.inflation).sum() / units.n**2
        return cls(between / df, noise / df, df)

    @property
    def variance(self) -> float:
        """The variance of a run's true mean over seeds; 0 where the estimate is negative."""
        return max(0.0, self.between - self.noise)


@dataclass(frozen=True)
class Error:
    """What some estimates may be off by: arrays of one length, or numbers for all.

    The half width of an interval is the larger of

    * sqrt(t_q^2 V_q + t_s^2 V_s), with the variance and the t quantile of the questions and of the seeds (Howe 1974,
      Journal of the American Statistical Association 69(347), 789-794); and
    * t_s times the standard error of the seeds' means, whatever of it is noise. Where few seeds by chance agree, V_s
      is 0 though seeds differ, and the first would be too narrow.
    """

    clusters: np.ndarray  # variance of the questions, with noise of seed x question
    cluster_df: float | np.ndarray
    seeds: Seeds
    weight: np.ndarray  # what the seeds' variance counts: 1 / seeds, of a contrast the sum of both

    @property
    def variance(self) -> np.ndarray:
        return self.clusters + self.weight * self.seeds.variance

    @property
    def df(self) -> np.ndarray:
        """Satterthwaite's, of `variance`."""
        if not self.seeds.variance:
            return np.broadcast_to(self.cluster_df, np.shape(self.clusters))
        squares = self.clusters**2 / self.cluster_df + (self.weight * self.seeds.between) ** 2 / self.seeds.df
        return self.variance**2 / squares

    def half(self, alpha: np.ndarray | float) -> np.ndarray:
        """Half widths of two-sided intervals that miss with probability `alpha`."""
        with np.errstate(invalid="ignore"):  # infinite, of a single unit
            questions = stdtrit(self.cluster_df, 1 - alpha / 2) ** 2 * self.clusters
        if not self.seeds.df:
            return np.sqrt(questions)
        t = stdtrit(self.seeds.df, 1 - alpha / 2) ** 2 * self.weight
        return np.sqrt(np.maximum(questions + t * self.seeds.variance, t * self.seeds.between))

    def p(self, estimates: np.ndarray) -> np.ndarray:
        """Two-sided p values of no difference: `half(p)` is the size of the estimate."""
        size = np.abs(estimates)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stdtr(self.cluster_df, -np.nan_to_num(size / np.sqrt(self.clusters)))
            if not self.seeds.df:
                return p
            t = np.nan_to_num(size / np.sqrt(self.weight * self.seeds.between))
            p = np.maximum(p, 2 * stdtr(self.seeds.df, -t))
        if not self.seeds.variance:
            return p
        low, high = np.log(np.maximum(p, 1e-300)), np.zeros_like(p)
        for _ in range(48):
            middle = (low + high) / 2
            inside = self.half(np.exp(middle)) > size
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return np.maximum(p, np.exp(high))

    def detectable(self, alpha: np.ndarray) -> np.ndarray:
        """The least true difference that is found with probability `POWER` (Bloom 1995, Evaluation Review 19(5))."""
        return self.half(alpha) + stdtrit(self.df, POWER) * np.sqrt(self.variance)


@cache
def wild_weights(clusters: int) -> tuple[np.ndarray, bool]:
    """Weights of a wild cluster bootstrap, (draws, clusters), and whether these are all there are.

    Rademacher's signs; Webb's six points where clusters are so few that there are too few signs (Webb 2023, Canadian
    Journal of Economics 56(3), 839-858). All of them, where they are few.
    """
    points = np.sqrt([0.5, 1, 1.5]) if clusters <= 10 else np.ones(1)
    points = np.concatenate([-points, points])
    if len(points) ** (clusters - 1) > 2 * BOOTSTRAPS:
        return np.random.default_rng(1).choice(points, (BOOTSTRAPS, clusters)), False
    # Turning all signs changes nothing in absolute value: the first is positive.
    return np.array(list(itertools.product(points[len(points) // 2 :], *[points] * (clusters - 1)))), True


def wild_bootstrap(units: Units, sums: np.ndarray) -> np.ndarray:
    """p values of no difference by the restricted wild cluster bootstrap of the CR2 t statistic; NaN of many units.

    Of the questions alone, without what seeds differ in (Cameron, Gelbach and Miller 2008, Review of Economics and
    Statistics 90(3), 414-427; MacKinnon, Nielsen and Webb 2023, Journal of Econometrics 232(2), 272-299).
    """
    if units.unit == "question" or units.clusters > MOST_FOR_BOOTSTRAP:
        return np.full(len(sums), np.nan)
    weights, everything = wild_weights(units.clusters)

    def t_squared(totals: np.ndarray, squares: np.ndarray, products: np.ndarray) -> np.ndarray:
        # Of mean c: sum of (sum_g - c size_g)^2 inflation_g, multiplied out.
        c = totals / units.n
        spread = squares - 2 * c * products + c**2 * (units.sizes**2 * units.inflation).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(totals**2 / np.maximum(spread, 0))

    p = []
    for some in np.array_split(sums, len(sums) // 100 + 1):
        parts = some, some**2 * units.inflation, some * units.sizes * units.inflation
        own = t_squared(*(part.sum(axis=1) for part in parts))
        drawn = t_squared(parts[0] @ weights.T, parts[1] @ weights.T**2, parts[2] @ weights.T)
        beyond = (drawn >= own[:, None] * (1 - 1e-9)).sum(axis=1)
        p.append(beyond / len(weights) if everything else (beyond + 1) / (len(weights) + 1))
    return np.concatenate(p)
