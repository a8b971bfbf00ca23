"""Verdicts about settings: each against its base model and against the others, with training seeds as chance.

A setting is all of a training's settings but the seed. Its effect on a task is the mean, over seeds and questions, of
the paired differences to the base model; `crossed` has its error. Values are shares, tables are in percentage points.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import fdtrc, stdtrit

from analysis.crossed import BOOTSTRAPS, POWER, Error, Seeds, Units, added_share, wild_bootstrap
from custom_metrics.stats import holm

BASE, ALL = "base", "all"
LOST, GAINED, UNDECIDED = "lost", "gained", "undecided"
HIGHER, LOWER = "higher", "lower"
LOST_MORE, NOT_LOST = "lost more than the margin", "no more than the margin lost"
GAINED_MORE, NOT_GAINED = "gained more than the margin", "no more than the margin gained"
SETTING, RUN = "setting", "this training run"
# Where the variance between seeds comes from.
OWN, OTHERS, LEFT_OUT = "own seeds", "seeds of other settings", "left out"
SETTINGS = (
    "model", "setting", "task", "part", "measure", "seeds", "n", "clusters", "difference_pp", "ci_low_pp",
    "ci_high_pp", "p", "p_holm", "verdict", "margin_verdict", "mde_pp",
)  # fmt: skip
DETAILS = (
    "model", "setting", "task", "part", "measure", "about", "unit", "confidence_of_interval", "family",
    "single_ci_low_pp", "single_ci_high_pp", "cluster_se_pp", "cluster_df", "seed_sd_pp", "seed_df", "seed_variance",
    "seeds_differ_more", "p_wild_bootstrap", "methods_disagree", "gain_margin_verdict", "units_to_decide",
    "seeds_to_decide",
)  # fmt: skip
CONTRASTS = ("model", "task", "a", "b", "difference_pp", "ci_low_pp", "ci_high_pp", "p", "p_holm")
CONTRASTED = ("pair", "n", "clusters", "unit", "about", "family", "verdict", "mde_pp")
# Of a contrast the numbers of the settings on each side.
Pair = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Answers:
    """What a model and its settings made of the questions of one task: 0 or 1, or a score."""

    model: str
    task: str
    base: np.ndarray  # (questions,), the mean over the base's own seeds
    settings: Mapping[str, np.ndarray]  # by setting: (seeds, questions)
    clusters: np.ndarray  # (questions,), any labels
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)  # by name: (questions,), which are of the part
    measure: str = "correct"  # or score
    share: bool = False  # a score that lies between 0 and 1, as `correct` does
    fixed: bool = False  # these clusters are all that conclusions are about; always so of fewer than `FEWEST_CLUSTERS`

    @property
    def most(self) -> float:
        """The largest difference that there can be."""
        return 1.0 if self.share or self.measure == "correct" else np.inf


def decide(p: np.ndarray, families: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adjust p values by Holm's method within each family, and find the level of each row's interval.

    An interval leaves out 0 exactly where the adjusted p is below `alpha`. Of a family of m rows it misses with
    probability

    * alpha / (m - R) where the row is undecided and R rows are decided: the level at which Holm's method stopped;
      these intervals and the signs of the decided rows hold together (Guilbaud 2008, Biometrical Journal 50(5));
    * alpha / m where the row is decided (Bonferroni's); or the level of its own step, where only that decides it.

    Returns:
        Adjusted p values; levels; of each row the size of its family.
    """
    adjusted, levels, sizes = np.ones(len(p)), np.ones(len(p)), np.ones(len(p), int)
    for rows in pd.Series(np.arange(len(p))).groupby(families, sort=False).indices.values():
        m = len(rows)
        adjusted[rows], sizes[rows] = holm(p[rows]), m
        decided = adjusted[rows] < alpha
        steps = np.empty(m, int)
        steps[np.argsort(p[rows], kind="stable")] = np.arange(m)
        steps = np.where(decided & (p[rows] < alpha / m), 0, np.minimum(steps, decided.sum()))
        levels[rows] = alpha / (m - steps)
    return adjusted, levels, sizes


def against(low: np.ndarray, high: np.ndarray, margin: float, words: tuple[str, str]) -> np.ndarray:
    """Say whether intervals of a loss or gain lie above a margin (the first word) or below it (the second)."""
    return np.select([low > margin, high < margin], words, UNDECIDED)


def to_decide(error: Error, distance: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find how much more of what is drawn would decide whether a true difference is `distance` from a margin.

    Decide with probability `POWER`, everything else staying as it is: more units and the same seeds, or more seeds (of
    every setting) and the same units.

    Returns:
        By what factor the units must grow, and how many seeds a setting must have. NaN where 10,000 times as many are
        not enough, or where the seeds are not the setting's own.
    """
    seeds, weight = error.seeds, error.weight
    t_units, t_power = stdtrit(error.cluster_df, 1 - alpha / 2), stdtrit(error.df, POWER)

    def least(width: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        low, high = np.zeros(len(distance)), np.full(len(distance), np.log(1e4))
        never = width(np.exp(high)) > distance
        for _ in range(25):
            middle = (low + high) / 2
            enough = width(np.exp(middle)) <= distance
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.where(never, np.nan, np.exp(high))

    def width(units: np.ndarray, runs: np.ndarray, between: np.ndarray, t_seeds: np.ndarray) -> np.ndarray:
        of_seeds = weight * seeds.variance / runs
        half = np.maximum(t_units**2 * units + t_seeds**2 * of_seeds, t_seeds**2 * weight * between / runs)
        return np.sqrt(half) + t_power * np.sqrt(units + of_seeds)

    def more_units(factor: np.ndarray) -> np.ndarray:
        t = stdtrit(seeds.df, 1 - alpha / 2) if seeds.df else np.zeros(len(alpha))
        return width(error.clusters / factor, np.ones(len(alpha)), seeds.variance + seeds.noise / factor, t)

    def more_seeds(factor: np.ndarray) -> np.ndarray:
        df = seeds.df * (factor / weight - 1) / (1 / weight - 1)
        units = np.maximum(error.clusters - weight * seeds.noise * (1 - 1 / factor), 0.0)
        return width(units, factor, seeds.variance + seeds.noise, stdtrit(df, 1 - alpha / 2))

    own = (weight < 1) & bool(seeds.df)
    with np.errstate(divide="ignore", invalid="ignore"):
        return least(more_units), np.where(own, np.ceil(least(more_seeds) / weight - 1e-6), np.nan)


@dataclass(frozen=True)
class Estimates:
    """The settings of a model against its base, on some questions of one task."""

    answers: Answers
    part: str
    units: Units
    seeds: np.ndarray  # (settings,), how many
    added: np.ndarray  # (settings,), see `Units.variance`
    sums: np.ndarray  # (settings, units), of the differences averaged over seeds
    centres: np.ndarray  # (settings,)
    between: np.ndarray  # (settings,), the variance of the means of its own runs; NaN of one
    error: Error

    @classmethod
    def of(cls, answers: Answers, part: str = ALL) -> "Estimates":
        """Estimate on the questions of one part."""
        chosen = slice(None) if part == ALL else answers.parts[part]
        units, base = Units.of(answers.clusters[chosen], answers.fixed), answers.base[chosen]
        changes = [runs[:, chosen] - base for runs in answers.settings.values()]
        seeds = np.array([len(one) for one in changes])
        added = np.array([added_share(one) if answers.measure == "correct" else 0.0 for one in changes])
        by_unit = [units.sums(one) for one in changes]
        sums = np.array([one.mean(axis=0) for one in by_unit])
        centres, variances = units.variance(sums, added)
        between = np.array([one.mean(axis=1).var(ddof=1) if len(one) > 1 else np.nan for one in changes])
        error = Error(variances, units.df, Seeds.pooled(units, by_unit), 1 / seeds)
        return cls(answers, part, units, seeds, added, sums, centres, between, error)

    @property
    def seeds_differ_more(self) -> np.ndarray:
        """Whether runs of a setting differ more than those of the others: F test, Bonferroni, at 5%.

        Its interval is then too narrow, and those of the others too wide, as all have the pooled variance.
        """
        df, others = self.seeds - 1, self.error.seeds.df - self.seeds + 1
        rest = self.error.seeds.between * self.error.seeds.df - df * self.between
        with np.errstate(divide="ignore", invalid="ignore"):
            p = fdtrc(df, others, self.between * others / rest)
        return (others > 0) & (p * (df > 0).sum() < 0.05)

    def interval(self, alpha: np.ndarray, centres: np.ndarray, error: Error) -> tuple[np.ndarray, np.ndarray]:
        """Limits in percentage points."""
        half, most = error.half(alpha), self.answers.most
        return 100 * np.maximum(centres - half, -most), 100 * np.minimum(centres + half, most)

    def detectable(self, alpha: np.ndarray, error: Error) -> np.ndarray:
        """Minimum detectable effects in percentage points; NaN where no difference can be as large."""
        least = error.detectable(alpha)
        return 100 * np.where(least > self.answers.most, np.nan, least)

    def contrasts(self, pairs: Sequence[Pair] | None = None) -> tuple[np.ndarray, np.ndarray, Error]:
        """Compare settings: differences of the first to the second of each pair, centres, error.

        Args:
            pairs: the numbers of the settings of each side, which are averaged; all pairs of single settings, if None.
        """
        found, count = [], len(self.seeds)
        every = [((first,), (second,)) for first in range(count - 1) for second in range(first + 1, count)]
        pairs = every if pairs is None else pairs
        for some in (pairs[start : start + 1000] for start in range(0, len(pairs), 1000)):
            weights = np.zeros((len(some), count))
            for row, (first, second) in zip(weights, some, strict=True):
                row[list(first)] += 1 / len(first)
                row[list(second)] -= 1 / len(second)
            differences = weights @ self.sums
            centres, variances = self.units.variance(differences, np.abs(weights) @ self.added / 2)
            found.append((differences.sum(axis=1) / self.units.n, centres, variances, weights**2 @ (1 / self.seeds)))
        differences, centres, variances, weights = map(np.concatenate, zip(*found, strict=True))
        return differences, centres, Error(variances, self.units.df, self.error.seeds, weights)


def settings_tables(tasks: Sequence[Answers], margin_pp: float, level: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare each setting with its base: on all questions of each task, and on each part of them.

    The family of Holm's adjustment is the settings x tasks of a model, of one measure; its parts are another family.

    Args:
        margin_pp: a loss of no more percentage points than these does not matter.
        level: of confidence, such as 0.95.

    Returns:
        The verdicts, with the columns `SETTINGS`, and on which each stands, with the columns `DETAILS`.
    """
    groups, alpha = [], 1 - level
    for answers in tasks:
        groups += [Estimates.of(answers, part) for part in (ALL, *answers.parts)]
    p = np.concatenate([group.error.p(group.centres) for group in groups])
    families = pd.Series(
        [(group.answers.model, group.answers.measure, group.part == ALL) for group in groups for _ in group.seeds]
    )
    adjusted, levels, sizes = decide(p, pd.factorize(families)[0], alpha)
    judged, end = [], 0
    for group in groups:
        rows = slice(end, end := end + len(group.seeds))
        found = {"p": p[rows], "p_holm": adjusted[rows], "family": sizes[rows]}
        judged.append(judge(group, found, levels[rows], margin_pp, alpha))
    return stacked(judged, SETTINGS), stacked(judged, DETAILS)


def stacked(groups: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Put groups of rows under each other. A column of a group is an array, or one value for all its `setting`."""
    lengths = [len(group["setting"]) for group in groups]
    found = {}
    for column in columns:
        values = [np.asarray(group[column], None if np.ndim(group[column]) else object) for group in groups]
        values = [np.broadcast_to(one, length) for one, length in zip(values, lengths, strict=True)]
        found[column] = pd.Series(np.concatenate(values)).infer_objects()
    return pd.DataFrame(found)


def judge(
    group: Estimates, found: Mapping[str, np.ndarray], levels: np.ndarray, margin_pp: float, alpha: float
) -> dict[str, Any]:
    """Fill the columns of both tables for one group of estimates; see `settings_tables`."""
    answers, units, error = group.answers, group.units, group.error
    low, high = group.interval(levels, group.centres, error)
    difference, decided = group.sums.sum(axis=1) / units.n, found["p_holm"] < alpha
    on_margin = against(low, high, -margin_pp, (NOT_LOST, LOST_MORE))
    factor, seeds = to_decide(error, np.abs(difference + margin_pp / 100), levels)
    single_low, single_high = group.interval(np.full(len(levels), alpha), group.centres, error)
    wild, own, known = wild_p(group), group.seeds > 1, bool(error.seeds.df)
    return {
        "model": answers.model,
        "setting": np.array([*answers.settings], object),
        "task": answers.task,
        "part": group.part,
        "measure": answers.measure,
        "seeds": group.seeds,
        "n": int(units.n),
        "clusters": units.clusters,
        "difference_pp": 100 * difference,
        "ci_low_pp": low,
        "ci_high_pp": high,
        **found,
        "verdict": np.where(decided, np.where(group.centres > 0, GAINED, LOST), UNDECIDED),
        "margin_verdict": on_margin,
        "mde_pp": group.detectable(levels, error),
        "about": np.where(own | known, SETTING, RUN),
        "unit": units.unit,
        "confidence_of_interval": 1 - levels,
        "single_ci_low_pp": single_low,
        "single_ci_high_pp": single_high,
        "cluster_se_pp": 100 * np.sqrt(error.clusters),
        "cluster_df": error.cluster_df,
        "seed_sd_pp": 100 * np.sqrt(error.seeds.variance) if known else np.nan,
        "seed_df": error.seeds.df,
        "seeds_differ_more": group.seeds_differ_more,
        "seed_variance": np.where(own, OWN, OTHERS if known else LEFT_OUT),
        "p_wild_bootstrap": wild,
        # So few bootstraps can say nothing about the level of a large family.
        "methods_disagree": (levels > 2 / BOOTSTRAPS) & ~np.isnan(wild) & ((wild < levels) != (found["p"] < levels)),
        "gain_margin_verdict": against(low, high, margin_pp, (GAINED_MORE, NOT_GAINED)),
        "units_to_decide": np.where(on_margin == UNDECIDED, np.ceil(factor * len(units.sizes) - 1e-6), np.nan),
        "seeds_to_decide": np.where(on_margin == UNDECIDED, seeds, np.nan),
    }


def wild_p(group: Estimates) -> np.ndarray:
    """p values with the wild cluster bootstrap in place of CR2; NaN where it is not drawn.

    The bootstrap's p stands for a variance of the questions, which goes into `Error` as CR2's would.
    """
    wild = wild_bootstrap(group.units, group.sums)
    if np.isnan(wild).all():
        return wild
    variances = (group.centres / stdtrit(group.error.cluster_df, np.minimum(wild, 0.999999) / 2)) ** 2
    return replace(group.error, clusters=variances).p(group.centres)


def contrasts_table(
    tasks: Sequence[Answers], level: float, pairs: Mapping[str, Sequence[Pair]] | None = None
) -> pd.DataFrame:
    """Compare the settings of each model with each other, on all questions of each task.

    A difference is that of `a` to `b`: a positive one is a's. The family of Holm's adjustment is all pairs x tasks of a
    model. Without a setting of two seeds it is about training runs. Only right and wrong answers are compared.

    Args:
        pairs: by model, as for `Estimates.contrasts`; all pairs of single settings, if None.

    Returns:
        The columns `CONTRASTS`, and `CONTRASTED`. `pair` is the number of the pair.
    """
    wanted = [one for one in tasks if one.measure == "correct" and len(one.settings) > 1]
    wanted = [one for one in wanted if pairs is None or pairs.get(one.model)]
    groups = [Estimates.of(one) for one in wanted]
    if not groups:
        return pd.DataFrame(columns=[*CONTRASTS, *CONTRASTED])
    chosen = [None if pairs is None else pairs[group.answers.model] for group in groups]
    found = [group.contrasts(of) for group, of in zip(groups, chosen, strict=True)]
    p = [error.p(centres) for _, centres, error in found]
    models = pd.Series([group.answers.model for group in groups]).repeat([len(one) for one in p])
    adjusted, levels, sizes = decide(np.concatenate(p), pd.factorize(models)[0], 1 - level)
    rows, end = [], 0
    for group, of, (differences, centres, error), one in zip(groups, chosen, found, p, strict=True):
        place = slice(end, end := end + len(one))
        low, high = group.interval(levels[place], centres, error)
        names = np.array([*group.answers.settings], object)
        of = of or list(itertools.combinations([(number,) for number in range(len(names))], 2))
        sides = {key: np.array(["+".join(names[[*pair[side]]]) for pair in of]) for side, key in enumerate("ab")}
        verdicts = np.where(adjusted[place] >= 1 - level, UNDECIDED, np.where(centres > 0, HIGHER, LOWER))
        rows.append(
            {"setting": one, "model": group.answers.model, "task": group.answers.task, **sides}
            | {"difference_pp": 100 * differences, "ci_low_pp": low, "ci_high_pp": high}
            | {"p": one, "p_holm": adjusted[place], "pair": np.arange(len(one)), "n": int(group.units.n)}
            | {"clusters": group.units.clusters, "unit": group.units.unit, "verdict": verdicts}
            | {"about": SETTING if error.seeds.df else RUN, "family": sizes[place]}
            | {"mde_pp": group.detectable(levels[place], error)}
        )
    return stacked(rows, (*CONTRASTS, *CONTRASTED))
