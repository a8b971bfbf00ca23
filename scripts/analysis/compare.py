"""The tables of a study that compare: each setting with its base and with others, and each single run with its base.

Differences are in percentage points, tuned minus base. Verdicts are about settings (`analysis.settings`); a single run
has none, as nobody can tell what of its difference is the chance of its seed.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.crossed import Units
from analysis.data import ALL, BASE, SEED, Results, counted
from analysis.forgetting import EQUAL_GAIN, Course, at_equal_gain, transitions_table
from analysis.settings import ALL as WHOLE
from analysis.settings import DETAILS, GAINED, Answers, Pair, contrasts_table, settings_tables
from analysis.settings import SETTINGS as VERDICTS
from custom_metrics import stats
from tasks.base import Measure

# All pairs of so many levels of a setting, or of so many settings, are compared.
MOST_LEVELS, MOST_COURSES = 4, 6
# At which shares of the gain that both reach two settings are compared.
OF_GAIN = (0.5, 0.75)
RIGHT, PROBABILITY, PROMPT = "correct", "score", "prompt"
COMPARED = (
    "setting", "task", "category", "n", "base_correct", "tuned_correct", "base_accuracy_pct", "tuned_accuracy_pct",
    "difference_pp", "ci_low_pp", "ci_high_pp", "percent_change", "gained", "lost", "p_mcnemar", "unit", "clusters",
)  # fmt: skip
SETTINGS = (
    "task", "category", "measure", "seeds", "n", "base_accuracy_pct", "tuned_accuracy_pct", "difference_pp",
    "ci_low_pp", "ci_high_pp", "p", "p_holm", "verdict", "margin_verdict", "minimum_detectable_pp", "percent_change",
    "exchange_rate", "unit", "clusters", "margin_pp",
)  # fmt: skip
CONTRASTS = (
    "model", "axis", "low", "high", "pairs", "task", "n", "low_accuracy_pct", "high_accuracy_pct", "difference_pp",
    "ci_low_pp", "ci_high_pp", "p", "p_holm", "verdict", "minimum_detectable_pp", "about", "unit", "clusters",
)  # fmt: skip


def gains(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Count the questions gained and lost, and give the difference in percentage points.

    Of answers drawn several times, with the share of draws that are right: how many a draw of each turns on average.
    """
    gained, lost = counted((after * (1 - before)).sum()), counted((before * (1 - after)).sum())
    return {"difference_pp": 100.0 * (gained - lost) / len(before), "gained": gained, "lost": lost}


def bounds(low: float, high: float, prefix: str = "", suffix: str = "") -> dict[str, float]:
    """Give an interval in percent or percentage points."""
    return {f"{prefix}ci_low{suffix}": 100 * low, f"{prefix}ci_high{suffix}": 100 * high}


def percent_change(measure: Measure, base: float, tuned: float, n: int, level: float) -> float | None:
    """Give the change in percent of the base's right answers; None where the base is not shown to be above chance."""
    return stats.percent_change(base, tuned, n, measure.chance, level)


def regression(results: Results) -> pd.DataFrame:
    """Compare each run with the base of its model, question by question: all questions of each task, and their parts.

    The interval and McNemar's exact p are of this one run; neither is adjusted, and there is no verdict.
    """
    rows = []
    for part in results.reported():
        measure, right = results.measures[part.task], results.right[part.task][:, part.chosen]
        for run, base in results.compared(part.task).items():
            before, after = right[base], right[run]
            sums, n = (counted(before.sum()), counted(after.sum())), len(before)
            estimate = stats.clustered_difference(np.bincount(part.codes, after - before), part.sizes, results.level)
            change = gains(before, after)
            found = {
                "run": run,
                "setting": results.runs[run]["setting"],
                "task": part.task,
                "category": part.value,
                "n": n,
            }
            for name, count in zip(("base", "tuned"), sums, strict=True):
                found |= {f"{name}_correct": count, f"{name}_accuracy_pct": 100.0 * count / n}
            found |= change | bounds(estimate.low, estimate.high, suffix="_pp")
            found["percent_change"] = percent_change(measure, *sums, n, results.level)
            # It counts questions; of means over draws there is no such test.
            drawn = results.draws and measure.form != "choice"
            found["p_mcnemar"] = None if drawn else stats.mcnemar(change["gained"], change["lost"])
            rows.append(results.heads[run] | found | {"unit": part.unit, "clusters": part.clusters})
    rows.sort(key=lambda row: row["run"])
    return pd.DataFrame(rows, columns=[*results.heads[0], *COMPARED])


def answers_of(results: Results, *kinds: str) -> list[Answers]:
    """Gather the answers of the settings of each model to each task: the right ones, and probabilities of letters.

    Args:
        kinds: those of `data.kind_of`. The few-shot examples that `evaluation` varies are those of the target alone.
    """
    found, bases = [], {head["model"]: run for run, head in enumerate(results.heads) if head["variant"] == BASE}
    settings = {key: runs for kind in kinds for key, runs in results.settings(kind).items()}
    for model, base in bases.items():
        own = {setting: runs for (of, setting), runs in settings.items() if of == model}
        for task in results.measures if own else ():
            if task != results.target and "examples" in kinds:
                continue
            whole, *parts = results.reported(task)
            masks = {f"{part.part} {part.value}": np.isin(np.arange(len(whole.chosen)), part.chosen) for part in parts}
            measured = {RIGHT: (results.right[task], masks)}
            if results.measures[task].form == "choice":
                probabilities = np.array([one["probability"] for one in results.frames[task]])
                if not np.isnan(probabilities[[base, *itertools.chain.from_iterable(own.values())]]).any():
                    measured[PROBABILITY] = probabilities, {}
            for measure, (values, of_measure) in measured.items():
                by_setting = {name: values[runs] for name, runs in own.items()}
                before = values[base].astype(float)
                found.append(Answers(model, task, before, by_setting, whole.subjects, of_measure, measure, share=True))
    return found


def setting_heads(results: Results) -> dict[tuple[str, str], dict[str, Any]]:
    """By model and setting the first columns of its rows: as a run's, without what its seeds differ in."""
    names = {run["variant"]: run["setting"] for run in results.runs}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in results.bases:
        own, head = results.runs[run], results.heads[run]
        further = {key: value for key, value in head.items() if key not in ("model", "variant", SEED)}
        if "of" in further:
            further["of"] = " ".join(names[one] for one in further["of"].split())
        found.setdefault((own["model"], own["setting"]), {"model": own["model"], "setting": own["setting"]} | further)
    return found


def settings(results: Results) -> pd.DataFrame:
    """Compare each setting, over its seeds, with the base of its model: all questions of each task, and their parts.

    The p values are adjusted (Holm) within each model and measure, the parts apart. What `evaluation` adds to the
    adapters is exploratory, and so are the base's other few-shot examples: families of their own, so that one point
    more changes no verdict about an adapter.
    """
    heads, frames = setting_heads(results), []
    parts = {(part.task, f"{part.part} {part.value}"): part for part in results.reported()}
    for kind in ("adapter", "point", "examples"):
        answers = answers_of(results, kind)
        if not answers:
            continue
        verdicts, details = settings_tables(answers, results.margin_pp, results.level)
        frame = verdicts.join(details[[*details.columns.difference(VERDICTS)]])
        if kind == "examples":  # no training, which chance could be left out of
            frame = frame.assign(about=PROMPT, seed_variance="")
        by_task = {(one.model, one.task, one.measure): one for one in answers}
        extra = []
        for row in frame.itertuples():
            part = results.whole[row.task] if row.part == WHOLE else parts[row.task, row.part]
            base = by_task[row.model, row.task, row.measure].base[part.chosen]
            tuned = base.mean() + row.difference_pp / 100
            own = {"base_accuracy_pct": 100 * base.mean(), "tuned_accuracy_pct": 100 * tuned, "category": part.value}
            if row.measure == RIGHT:
                counts = counted(base.sum()), tuned * len(base), len(base)
                own["percent_change"] = percent_change(results.measures[row.task], *counts, results.level)
            extra.append(heads[row.model, row.setting] | own)
        columns = [*next(iter(heads.values())), "base_accuracy_pct", "tuned_accuracy_pct", "category", "percent_change"]
        extra = pd.DataFrame(extra, columns=columns, index=frame.index)
        frames.append(frame[frame.columns.difference(extra.columns, sort=False)].join(extra))
    columns = [*head_columns(results), *SETTINGS, *(name for name in DETAILS if name not in (*VERDICTS, "unit"))]
    if not frames:
        return pd.DataFrame(columns=columns)
    frame = pd.concat(frames, ignore_index=True).rename(columns={"mde_pp": "minimum_detectable_pp"})
    order, tasks = {key: number for number, key in enumerate(heads)}, list(results.measures)
    frame["order"] = [order[key] for key in zip(frame["model"], frame["setting"], strict=True)]
    frame["place"] = frame["task"].map(tasks.index)
    frame["unit"] = frame["unit"].where(frame["unit"] == "question", frame["task"].map(results.units))
    frame = frame.sort_values(["order", "place", "measure"], kind="stable", ignore_index=True)
    return exchanged(results, frame).assign(margin_pp=results.margin_pp)[columns]


def head_columns(results: Results) -> list[str]:
    """The first columns of the table of settings."""
    return ["model", "setting", *(name for name in results.heads[0] if name not in ("model", "variant", SEED))]


def exchanged(results: Results, frame: pd.DataFrame) -> pd.DataFrame:
    """Add how many points of a yardstick were lost for one gained on the target, of settings whose gain is shown."""
    whole = frame[(frame["category"] == ALL) & (frame["measure"] == RIGHT)]
    gained = whole[(whole["task"] == results.target) & (whole["verdict"] == GAINED)]
    gain = gained.set_index(["model", "setting"])["difference_pp"]
    wanted = whole[whole["task"] != results.target]
    keys = pd.MultiIndex.from_frame(wanted[["model", "setting"]])
    rate = pd.Series(-wanted["difference_pp"].to_numpy() / gain.reindex(keys).to_numpy(), index=wanted.index)
    return frame.assign(exchange_rate=rate.reindex(frame.index) + 0.0)


def contrasts(results: Results) -> pd.DataFrame:
    """Compare settings with each other: `high` minus `low`, each averaged over the settings of its side.

    Of what is swept, two levels are compared over the settings that are alike in all else; an adapter with a name of
    its own, or a ready-made one, with each other setting. Holm's family is all of a model.
    """
    pairs: dict[str, list[tuple[dict[str, Any], Pair]]] = {}
    answers, accuracy = answers_of(results, "adapter"), {}
    for model, heads in heads_by_model(results).items():
        pairs[model] = [*swept_pairs(results, heads), *named_pairs(results, heads)]
    for one in answers:
        accuracy[one.model, one.task, one.measure] = np.array([100 * runs.mean() for runs in one.settings.values()])
    frame = contrasts_table(answers, results.level, {model: [pair for _, pair in of] for model, of in pairs.items()})
    frame = frame.rename(columns={"mde_pp": "minimum_detectable_pp"})
    rows = []
    for row in frame.to_dict("records"):
        head, sides = pairs[row["model"]][row["pair"]]
        means = (accuracy[row["model"], row["task"], RIGHT][[*side]].mean() for side in sides)
        rows.append(row | head | dict(zip(("high_accuracy_pct", "low_accuracy_pct"), means, strict=True)))
    frame = pd.DataFrame(rows, columns=[*CONTRASTS])
    return frame.assign(unit=frame["unit"].where(frame["unit"] == "question", frame["task"].map(results.units)))


Heads = Mapping[str, Mapping[str, Any]]  # of a model's settings, in their order, the first columns of the first run


def heads_by_model(results: Results) -> dict[str, Heads]:
    """By model the heads of the settings that were trained or are ready-made."""
    found: dict[str, dict[str, Any]] = {}
    for (model, setting), runs in results.settings().items():
        found.setdefault(model, {})[setting] = results.heads[runs[0]]
    return found


def swept_pairs(results: Results, heads: Heads) -> Iterator[tuple[dict[str, Any], Pair]]:
    """Yield two levels of what is swept, and the settings that have them and are alike in all else.

    Of more than `MOST_LEVELS` levels each is compared with the first alone: all pairs would leave the adjusted p values
    no power.
    """
    axes = results.swept
    swept = {number: head for number, head in enumerate(heads.values()) if all(head[axis] != "" for axis in axes)}
    for axis in axes:
        levels = list(dict.fromkeys(head[axis] for head in swept.values()))
        by_rest: dict[tuple, dict[str, int]] = {}
        for number, head in swept.items():
            rest = tuple(head[other] for other in axes if other != axis)
            by_rest.setdefault(rest, {})[head[axis]] = number
        for low, high in itertools.combinations(levels, 2):
            if len(levels) > MOST_LEVELS and low != levels[0]:
                continue
            alike = [of for of in by_rest.values() if low in of and high in of]
            if alike:
                sides = tuple(of[high] for of in alike), tuple(of[low] for of in alike)
                yield {"axis": axis, "low": low, "high": high, "pairs": len(alike)}, sides


def named_pairs(results: Results, heads: Heads) -> Iterator[tuple[dict[str, Any], Pair]]:
    """Yield each pair of settings of which one has a name of its own."""
    axes = results.swept
    named = {name for name, head in heads.items() if not axes or any(head[axis] == "" for axis in axes)}
    for (first, low), (second, high) in itertools.combinations(enumerate(heads), 2):
        if named & {low, high}:
            yield {"axis": "", "low": low, "high": high, "pairs": 1}, ((second,), (first,))


def transitions(results: Results) -> pd.DataFrame:
    """Count how many right answers of the base became wrong, and the reverse, of each setting over its seeds."""
    chances = {task: measure.chance for task, measure in results.measures.items()}
    return transitions_table(answers_of(results, "adapter"), chances, results.level)


def equal_gain(results: Results) -> pd.DataFrame:
    """Compare what two settings changed on each yardstick where their interpolations or checkpoints gained the same.

    Of more than `MOST_COURSES` settings of a model each is compared with the first alone.
    """
    rows = []
    for model, yardstick in itertools.product(
        dict.fromkeys(head["model"] for head in results.heads), results.yardsticks
    ):
        courses = dict(courses_of(results, model, yardstick))
        units = {
            name: Units.of(results.whole[task].subjects, fixed=False)
            for name, task in (("target", results.target), ("yardstick", yardstick))
        }
        for first, second in itertools.combinations(courses, 2):
            if len(courses) > MOST_COURSES and first != next(iter(courses)):
                continue
            reach = min(courses[name].target.mean(axis=(1, 2)).max() for name in (first, second))
            if reach <= 0:
                continue
            sides = courses[second], courses[first]
            found = at_equal_gain(sides, units, [share * reach for share in OF_GAIN], results.level)
            rows.append(found.assign(model=model, task=yardstick, low=first, high=second))
    columns = ["model", "task", "low", "high", *EQUAL_GAIN]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def courses_of(results: Results, model: str, yardstick: str) -> Iterator[tuple[str, Course]]:
    """Yield the settings of a model that have interpolations, or else checkpoints, with what changed along the way."""
    runs = {run["variant"]: number for number, run in enumerate(results.runs) if run["model"] == model}
    for (of, setting), members in results.settings().items():
        if of != model:
            continue
        for axis in ("strength", "step"):
            by_seed = [way(results, model, run, axis) for run in members]
            if all(len(one) > 1 for one in by_seed) and len({len(one) for one in by_seed}) == 1:
                points = np.transpose(by_seed)  # (points, seeds), numbers of runs
                changes = [
                    (results.right[task][points] - results.right[task][runs[BASE]]).astype(float)
                    for task in (results.target, yardstick)
                ]
                yield setting, Course(*changes)
                break


def way(results: Results, model: str, run: int, axis: str) -> list[int]:
    """The runs between the base and an adapter by their strength or step, the adapter itself as the last one."""
    own = results.runs[run]["variant"]
    points = {
        one["point"][axis]: number
        for number, one in enumerate(results.runs)
        if one["model"] == model and one.get("point", {}).get("of") == [own] and axis in one["point"]
    }
    between = [points[place] for place in sorted(points) if axis == "step" or 0 < place < 1]
    return [*between, run]
