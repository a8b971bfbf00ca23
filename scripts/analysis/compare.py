"""Compare runs on the same questions: adapters with their base, swept settings and seeds with each other.

Differences are in percentage points, tuned minus base. A conclusion takes the units of a `Part` as drawn at random.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.data import ALL, BASE, SEED, Part, Results
from custom_metrics import stats
from custom_metrics.stats import Estimate

SAME = "not distinguishable at this n"
# Why there is no exchange rate.
TARGET_FELL, GAIN_NOT_SHOWN = "accuracy fell", "gain not distinguishable from 0"
# All pairs of so many levels of a setting are compared.
MOST_LEVELS = 4
COMPARED = (
    "task", "category", "n", "base_correct", "tuned_correct", "base_accuracy_pct", "tuned_accuracy_pct",
    "difference_pp", "ci_low_pp", "ci_high_pp", "bootstrap_low_pp", "bootstrap_high_pp", "percent_change", "gained",
    "lost", "p_mcnemar", "p_mcnemar_holm", "p_clustered", "p_holm", "minimum_detectable_pp", "verdict", "unit",
    "clusters",
)  # fmt: skip
EXCHANGED = (
    "task", "gain_pp", "gain_ci_low_pp", "gain_ci_high_pp", "loss_pp", "loss_ci_low_pp", "loss_ci_high_pp",
    "exchange_rate", "ci_low", "ci_high", "note", "n_target", "n_yardstick",
)  # fmt: skip
FACTORS = (
    "model", "axis", "low", "high", "pairs", "task", "n", "low_accuracy_pct", "high_accuracy_pct", "difference_pp",
    "ci_low_pp", "ci_high_pp", "p", "p_holm", "minimum_detectable_pp", "verdict", "unit", "clusters",
)  # fmt: skip
SEEDS = (
    "task", "seeds", "n", "mean_accuracy_pct", "mean_difference_pp", "ci_low_pp", "ci_high_pp", "sd_pp",
    "min_accuracy_pct", "max_accuracy_pct", "seed_sd_pp", "question_sd_pp", "seed_share_pct", "p", "p_holm", "verdict",
    "unit", "clusters",
)  # fmt: skip


def gains(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Count the questions gained and lost, and give the difference in percentage points."""
    gained, lost = int((after > before).sum()), int((after < before).sum())
    return {"difference_pp": 100.0 * (gained - lost) / len(before), "gained": gained, "lost": lost}


def bounds(low: float, high: float, prefix: str = "", suffix: str = "") -> dict[str, float]:
    """Give an interval in percent or percentage points."""
    return {f"{prefix}ci_low{suffix}": 100 * low, f"{prefix}ci_high{suffix}": 100 * high}


def clustered(part: Part, changes: np.ndarray, level: float) -> Estimate:
    """Estimate a difference from the change of each question of a part."""
    return stats.clustered_difference(np.bincount(part.codes, changes), part.sizes, level)


def about(part: Part) -> dict[str, Any]:
    """Say how much a comparison stands on."""
    return {"n": len(part.chosen), "clusters": part.clusters, "unit": part.unit}


def tested(part: Part, changes: np.ndarray, level: float, exact: bool = True) -> dict[str, Any]:
    """Test the mean change of the questions of a part.

    `p` is that of the clustered test, and where the unit is the question of McNemar's; it is not adjusted.

    Args:
        changes: of each question; -1, 0 or 1 where `exact`, which McNemar's test needs.
    """
    estimate = clustered(part, changes, level)
    p, least = estimate.p, stats.detectable(estimate, level)
    if exact and part.unit == "question":
        p = stats.mcnemar(int((changes > 0).sum()), int((changes < 0).sum()))
    least = None if least is None else 100.0 * least
    return {**bounds(estimate.low, estimate.high, suffix="_pp"), "p": p, "minimum_detectable_pp": least}


def paired(part: Part, before: np.ndarray, after: np.ndarray, level: float) -> dict[str, Any]:
    """Compare the answers of two runs to the questions of a part; see `tested`.

    Args:
        before, after: 0 or 1 for each question of the part, of the base and of the tuned model.
    """
    n, change, found = len(before), gains(before, after), tested(part, after - before, level)
    if part.unit == "question":
        least = stats.minimum_detectable_difference(change["gained"], change["lost"], n, level)
        found["minimum_detectable_pp"] = None if least is None else 100.0 * least
    return {
        **about(part),
        "base_correct": int(before.sum()),
        "tuned_correct": int(after.sum()),
        "base_accuracy_pct": 100.0 * int(before.sum()) / n,
        "tuned_accuracy_pct": 100.0 * int(after.sum()) / n,
        **change,
        **found,
    }


def verdict(p: float, difference: float, level: float, words: tuple[str, str] = ("better", "worse")) -> str | None:
    """Say what a p value lets one conclude about the sign of a difference; nothing without a p value."""
    if p is None or math.isnan(p):
        return None
    return SAME if p >= 1 - level else words[0] if difference > 0 else words[1]


def adjusted(p: pd.Series, families: pd.Series) -> pd.Series:
    """Adjust p values by Holm's method within each family; rows without a p value stay without."""
    known = p.dropna().astype(float)
    return known.groupby(families).transform(lambda family: stats.holm(family.tolist())).reindex(p.index)


def judge(
    frame: pd.DataFrame, level: float, difference: str = "difference_pp", words: tuple[str, str] = ("better", "worse")
) -> pd.DataFrame:
    """Add `p_holm` and `verdict`.

    Args:
        frame: has a column `p`, and `family`; without that one all rows are one family.
        difference: the column whose sign the verdict is about.
        words: the verdict where it is above 0, and where it is below.
    """
    families = frame["family"] if "family" in frame else pd.Series("", index=frame.index)
    p = adjusted(frame["p"], families)
    found = [verdict(*row, level, words) for row in zip(p, frame[difference], strict=True)]
    return frame.assign(p_holm=p, verdict=pd.Series(found, index=frame.index, dtype=object))


def kind(head: Mapping[str, Any]) -> str:
    """Say what a run is, by its first columns: an adapter, a point of one, or the base with other few-shot examples."""
    return "examples" if head.get("of") == BASE else "point" if head.get("of") else "adapter"


def regression(results: Results) -> pd.DataFrame:
    """Compare each run with the base of its model, question by question: all questions of each task, and their parts.

    The p values are adjusted (Holm) within two families: the headlines (all questions of each task, all adapters) and
    the parts that are reported (of all adapters). The points that `evaluation` adds are exploratory and have two such
    families of their own, and one for the base with other few-shot examples: one point more changes no verdict of an
    adapter. The verdict follows the adjusted p.
    """
    rows = []
    for part in results.reported():
        chance, headline = results.measures[part.task].chance, part.part == ALL
        right, compared = results.right[part.task][:, part.chosen], results.compared(part.task)
        drawn = bootstrap(part, [right[run] - right[base] for run, base in compared.items()], results)
        for (run, base), (low, high) in zip(compared.items(), drawn, strict=True):
            found = paired(part, right[base], right[run], results.level)
            counted = found["base_correct"], found["tuned_correct"], found["n"]
            further = {
                "run": run,
                "family": f"{kind(results.heads[run])} {headline}",
                "task": part.task,
                "category": part.value,
                "bootstrap_low_pp": 100 * low,
                "bootstrap_high_pp": 100 * high,
                "percent_change": stats.percent_change(*counted, chance, results.level),
                "p_mcnemar": stats.mcnemar(found["gained"], found["lost"]),
                "p_clustered": None if part.unit == "question" else found["p"],
            }
            rows.append(results.heads[run] | found | further)
    rows.sort(key=lambda row: row["run"])
    columns = [*results.heads[0], *COMPARED]
    frame = pd.DataFrame(rows, columns=[*columns, "p", "family"])
    frame["p_mcnemar_holm"] = adjusted(frame["p_mcnemar"], frame["family"])
    return judge(frame, results.level)[columns]


def bootstrap(part: Part, differences: Sequence[np.ndarray], results: Results) -> np.ndarray:
    """Give the bootstrap limits of each run's differences: (runs, 2), NaN where the unit is the question."""
    if part.unit == "question" or not differences:
        return np.full((len(differences), 2), np.nan)
    sums = np.array([np.bincount(part.codes, row) for row in differences])
    seed = int(results.hashes[part.task][:16], 16)
    return np.transpose(stats.cluster_bootstrap(sums, part.sizes, results.level, seed))


def exchange(results: Results, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Give the points of each yardstick that each adapter lost for one point gained on the target.

    A base with other few-shot examples can lose none and is left out. There is no rate where a gain is not shown, by
    the adjusted p of the regression table and by Fieller's interval.

    Args:
        comparisons: what `regression` returned.
    """
    found = comparisons[comparisons["category"] == ALL].set_index(["model", "variant", "task"]).to_dict("index")
    whole = {part.task: part for part in results.parts if part.part == ALL}
    rows = []
    for run, base, yardstick in (
        (run, base, task) for run, base in results.bases.items() for task in results.yardsticks
    ):
        if run not in results.compared(yardstick):
            continue
        head, tasks = results.heads[run], (results.target, yardstick)
        gain, loss = (found[head["model"], head["variant"], task] for task in tasks)
        row = {"task": yardstick, "gain_pp": gain["difference_pp"], "n_target": gain["n"], "n_yardstick": loss["n"]}
        row |= {"gain_ci_low_pp": gain["ci_low_pp"], "gain_ci_high_pp": gain["ci_high_pp"]}
        row |= {"loss_pp": 0.0 - loss["difference_pp"], "note": ""}
        row |= {"loss_ci_low_pp": -loss["ci_high_pp"], "loss_ci_high_pp": -loss["ci_low_pp"]}
        learned, changed = (
            clustered(whole[task], results.right[task][run] - results.right[task][base], results.level)
            for task in tasks
        )
        interval = stats.fieller(changed._replace(centre=-changed.centre), learned, results.level)
        if interval and gain["verdict"] == "better":
            row |= {"exchange_rate": row["loss_pp"] / row["gain_pp"], "ci_low": interval[0], "ci_high": interval[1]}
        else:
            row["note"] = TARGET_FELL if gain["verdict"] == "worse" else GAIN_NOT_SHOWN
        rows.append(head | row)
    return pd.DataFrame(rows, columns=[*results.heads[0], *EXCHANGED])


def factors(results: Results) -> pd.DataFrame:
    """Compare the levels of each swept setting, averaged over the adapters that are alike in all others.

    Seeds are averaged over and no factor themselves. The family of Holm's adjustment is this table.
    """
    rows = [
        head | contrast(part, results.right[part.task], pairs, results.level)
        for head, pairs in level_pairs(results)
        for part in results.parts
        if part.part == ALL
    ]
    return judge(pd.DataFrame(rows, columns=FACTORS), results.level, words=("higher", "lower"))


def level_pairs(results: Results) -> Iterator[tuple[dict[str, Any], list[tuple[int, int]]]]:
    """Yield two levels of a swept setting, and each pair of adapters that differ in these levels alone.

    Of more than `MOST_LEVELS` levels each is compared with the first alone: all pairs would leave the adjusted p values
    no power.
    """
    heads = results.heads
    for model in dict.fromkeys(head["model"] for head in heads):
        adapters = [run for run in results.trained() if heads[run]["model"] == model]
        # One with a name of its own, or ready-made, is not between levels.
        adapters = [run for run in adapters if all(heads[run][axis] != "" for axis in results.axes)]
        for axis in results.axes:
            if axis == SEED:
                continue
            levels = list(dict.fromkeys(heads[run][axis] for run in adapters))
            by_rest: dict[tuple, dict[str, int]] = {}
            for run in adapters:
                rest = tuple(heads[run][other] for other in results.axes if other != axis)
                by_rest.setdefault(rest, {})[heads[run][axis]] = run
            for low, high in itertools.combinations(levels, 2):
                if len(levels) > MOST_LEVELS and low != levels[0]:
                    continue
                pairs = [(of[low], of[high]) for of in by_rest.values() if low in of and high in of]
                if pairs:
                    yield {"model": model, "axis": axis, "low": low, "high": high, "pairs": len(pairs)}, pairs


def contrast(part: Part, right: np.ndarray, pairs: Sequence[tuple[int, int]], level: float) -> dict[str, Any]:
    """Give the difference of the second of each pair of runs to the first, averaged over the pairs."""
    low, high = (right[[pair[side] for pair in pairs]][:, part.chosen].mean(axis=0) for side in (0, 1))
    return about(part) | {
        "task": part.task,
        "low_accuracy_pct": 100.0 * low.mean(),
        "high_accuracy_pct": 100.0 * high.mean(),
        "difference_pp": 100.0 * (high - low).mean(),
        **tested(part, high - low, level, exact=len(pairs) == 1),
    }


def seeds(results: Results) -> pd.DataFrame:
    """Put adapters that differ in their seed alone together: their mean against the base, and how they spread."""
    others = [axis for axis in results.axes if axis != SEED]
    groups: dict[tuple, list[int]] = {}
    for run in results.trained() if SEED in results.axes else ():
        groups.setdefault(tuple(results.heads[run][name] for name in ("model", *others)), []).append(run)
    rows = []
    for (model, *values), members in groups.items():
        if len(members) < 2:
            continue
        first = results.heads[members[0]]
        setting = first["variant"].removesuffix(f"seed{first[SEED]}").rstrip("-") or "adapter"
        head = {"model": model, "setting": setting} | dict(zip(others, values, strict=True))
        rows += [head | spread(part, results, members) for part in results.parts if part.part == ALL]
    frame = pd.DataFrame(rows, columns=["model", "setting", *others, *SEEDS])
    return judge(frame, results.level, "mean_difference_pp")


def spread(part: Part, results: Results, members: Sequence[int]) -> dict[str, Any]:
    """Give the mean of runs that differ in their seed alone against their base, and what their spread consists of."""
    tuned, base = results.right[part.task][members], results.right[part.task][results.bases[members[0]]]
    found = stats.replicates(tuned - base, part.codes, results.level)
    accuracy, seed_variance = 100.0 * tuned.mean(axis=1), found.seed_sd**2
    return about(part) | {
        "task": part.task,
        "seeds": len(members),
        "mean_accuracy_pct": accuracy.mean(),
        "mean_difference_pp": accuracy.mean() - 100.0 * base.mean(),
        **bounds(found.mean.low, found.mean.high, suffix="_pp"),
        "sd_pp": accuracy.std(ddof=1),
        "min_accuracy_pct": accuracy.min(),
        "max_accuracy_pct": accuracy.max(),
        "seed_sd_pp": 100.0 * found.seed_sd,
        "question_sd_pp": 100.0 * found.question_sd,
        "seed_share_pct": 100.0 * seed_variance / (seed_variance + found.question_sd**2),
        "p": found.mean.p,
    }
