"""What was forgotten: answers that turned, and what a gain cost where two settings gained the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from analysis.crossed import Error, Seeds, Units, added_share
from analysis.settings import Answers

TRANSITIONS = (
    "model", "setting", "task", "seeds", "n", "chance", "right_to_wrong_pct", "right_to_wrong_low_pct",
    "right_to_wrong_high_pct", "wrong_to_right_pct", "wrong_to_right_low_pct", "wrong_to_right_high_pct",
)  # fmt: skip
EQUAL_GAIN = ("gain_pp", "difference_pp", "ci_low_pp", "ci_high_pp")
BOOTSTRAPS = 1999
# An interval of a gain that more draws than these do not reach would be one of the lucky draws.
MOST_UNREACHED = 0.05


def transitions_table(tasks: Sequence[Answers], chance: Mapping[str, float], level: float) -> pd.DataFrame:
    """Count the questions whose answer turned, of all questions and without those that guessing turns.

    The counts are those of Harmon and others (2025, arXiv:2510.17776). A model knows an answer or guesses it, right
    with probability c, the base and the tuned model independently. Of F, the share that turned wrong, and the share w
    of wrong answers of the tuned model, (F - c w) / (1 - c)^2 is then the share that was known and no more is; the
    same with the base's wrong answers of the share that turned right. Both are below 0 where the models guess alike.
    They are means over questions, with the error of `Error`; each interval stands for itself.

    Args:
        chance: by task, c; 0, which leaves F as it is, for a task that is not there.
    """
    frames = []
    for answers in (one for one in tasks if one.measure == "correct"):
        units, c = Units.of(answers.clusters, answers.fixed), chance.get(answers.task, 0.0)
        seeds = np.array([len(runs) for runs in answers.settings.values()])
        found = {"model": answers.model, "setting": list(answers.settings), "task": answers.task, "seeds": seeds}
        found |= {"n": int(units.n), "chance": c}
        for name, before, after in (("right_to_wrong", 1, 0), ("wrong_to_right", 0, 1)):
            turned, added = [], []
            for runs in answers.settings.values():
                first, then = (1 - abs(side - values) for side, values in ((before, answers.base), (after, runs)))
                guessing = then if after == 0 else np.broadcast_to(first, then.shape)
                turned.append(units.sums((first * then - c * guessing) / (1 - c) ** 2))
                added.append(added_share(first * then))
            sums = np.array([one.mean(axis=0) for one in turned])
            centres, variances = units.variance(sums, np.array(added))
            half = Error(variances, units.df, Seeds.pooled(units, turned), 1 / seeds).half(1 - level)
            limits = (np.clip(centres + sign * half, -1 if c else 0, 1) for sign in (-1, 1))
            low, high = (100 * limit for limit in limits)
            found[f"{name}_pct"] = 100 * sums.sum(axis=1) / units.n
            found |= {f"{name}_low_pct": low, f"{name}_high_pct": high}
        frames.append(pd.DataFrame(found))
    return pd.concat([pd.DataFrame(columns=TRANSITIONS)] * (not frames) + frames, ignore_index=True)[[*TRANSITIONS]]


@dataclass(frozen=True)
class Course:
    """What the interpolations or checkpoints of a setting changed against its base, in their order.

    The base, which changed nothing, comes before the first.
    """

    target: np.ndarray  # (points, seeds, questions of the target)
    yardstick: np.ndarray  # (points, seeds, questions of the yardstick)

    def means(self, task: str, units: Units, drawn: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """The mean change at each point, the base first: (draws, 1 + points).

        Args:
            task: target or yardstick.
            drawn: (draws, units), how often each unit is there.
            runs: (draws, seeds), the weight of each seed.
        """
        values = getattr(self, task)
        points, seeds, n = values.shape
        sums = units.sums(values.reshape(-1, n).astype(float)).reshape(points, seeds, -1)
        by_seed = np.einsum("psu,du->dps", sums, drawn, optimize=True) / (drawn @ units.sizes)[:, None, None]
        return np.pad(np.einsum("dps,ds->dp", by_seed, runs), ((0, 0), (1, 0)))


def at_gain(gains: np.ndarray, changes: np.ndarray, gain: float) -> np.ndarray:
    """Interpolate, along each course, the change of the yardstick where the target has first gained so much.

    Args:
        gains, changes: (draws, points), of target and yardstick, the base first.

    Returns:
        (draws,), NaN where the gain is not reached.
    """
    reached = gains >= gain
    after = np.argmax(reached, axis=1)[:, None]
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(values, place, axis=1)[:, 0] for place in (np.maximum(after - 1, 0), after)]
        for values in (gains, changes)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(reached.any(axis=1), y0 + (gain - x0) / (x1 - x0) * (y1 - y0), np.nan)


def at_equal_gain(
    courses: tuple[Course, Course], units: Mapping[str, Units], gains: Sequence[float], level: float
) -> pd.DataFrame:
    """Compare what two settings changed on a yardstick where both have gained the same on the target.

    The interval is a bootstrap of clusters, of target and yardstick each, and of seeds, of each setting. Of n of them
    n - 1 are drawn, which gives the variance of a mean its unbiased size (Rao and Wu 1988, Journal of the American
    Statistical Association 83(401), 231-241); percentiles are widened to Student's t of the fewer clusters
    (Hesterberg 2015, The American Statistician 69(4), 371-386). One seed is not drawn: the interval leaves it out.

    Args:
        units: of target and yardstick.
        gains: above 0, as shares.

    Returns:
        A row for each gain: `difference_pp`, the first less the second, with its interval; empty for a gain that a
        setting does not reach, and without an interval where more than `MOST_UNREACHED` of the draws do not reach it.
    """
    generator, rows = np.random.default_rng(1), []
    once = {task: np.ones((1, len(one.sizes))) for task, one in units.items()}
    drawn = {task: draws(generator, len(one.sizes)) for task, one in units.items()}
    observed, bootstrapped = [], []
    for course in courses:
        seeds = course.target.shape[1]
        of_seeds = draws(generator, seeds)
        weights = of_seeds / of_seeds.sum(axis=1, keepdims=True)
        means = [course.means(task, one, once[task], np.full((1, seeds), 1 / seeds)) for task, one in units.items()]
        observed.append(means)
        bootstrapped.append([course.means(task, one, drawn[task], weights) for task, one in units.items()])
    df = min(one.df for one in units.values())
    tail = ndtr(stdtrit(df, (1 - level) / 2))
    for gain in gains:
        (difference,), many = (
            at_gain(*first, gain) - at_gain(*second, gain) for first, second in (observed, bootstrapped)
        )
        known = np.isfinite(difference) and np.isnan(many).mean() <= MOST_UNREACHED
        low, high = np.nanquantile(many, [tail, 1 - tail]) if known else (np.nan, np.nan)
        row = {"gain_pp": 100 * gain, "difference_pp": 100 * difference}
        rows.append(row | {"ci_low_pp": 100 * low, "ci_high_pp": 100 * high})
    return pd.DataFrame(rows)


def draws(generator: np.random.Generator, count: int) -> np.ndarray:
    """How often each of so many units or seeds is in each bootstrap: (draws, count)."""
    if count < 2:
        return np.ones((BOOTSTRAPS, count))
    return generator.multinomial(count - 1, np.full(count, 1 / count), size=BOOTSTRAPS).astype(float)
