"""Count what each run got right and wrong: by part of the questions, criterion, class of error, database."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import bounds, gains
from analysis.data import ALL, MMLU, SPIDER, Part, Results
from custom_metrics.compare import SEMANTICS
from custom_metrics.hardness import LEVELS
from custom_metrics.judge import ERROR_CLASSES
from custom_metrics.stats import clustered_difference, mean_of_proportions, wilson_interval

GOLD_NOT_EMPTY, GOLD_EMPTY = "gold_not_empty", "gold_empty"
PROPORTION = ("n", "correct", "accuracy_pct", "ci_low", "ci_high")


def proportion(correct: int, n: int, level: float) -> dict[str, Any]:
    """Give n, right answers, and accuracy in percent with its Wilson interval; of no questions there is no accuracy."""
    found = {"n": n, "correct": correct, "accuracy_pct": 100.0 * correct / n if n else None}
    return found | bounds(*wilson_interval(correct, n, level))


def questions(results: Results) -> list[pd.DataFrame]:
    """Give of each measure how many questions it has, in all and by category, and their hash."""
    counted = [
        {"measure": part.measure, "category": part.value, "n": len(part.chosen)}
        for part in results.parts
        if part.part in (ALL, "category")
    ]
    frame = results.label(pd.DataFrame(counted))
    return [frame[frame["measure"] == measure] for measure in results.right]


def execution_accuracy(results: Results) -> pd.DataFrame:
    """Give the execution accuracy of each run: all questions, then parts of them.

    The parts are the levels of hardness and the questions whose gold query has rows, and has none; a part without
    questions has n 0. n, correct, accuracy and interval follow the study's criterion; then every criterion has its own
    columns, for the SQL taken out of the answer and, with `_raw`, for the answer as it is.
    """
    criterion = results.criteria[SPIDER]
    columns = [f"{name}{raw}" for raw in ("", "_raw") for name in SEMANTICS]
    rows = []
    for head, frame in zip(results.heads, results.frames[SPIDER], strict=True):
        values, empty, hardness = frame[columns].to_numpy(), frame["gold_rows"].to_numpy() == 0, frame["hardness"]
        parts = {ALL: empty | True} | {name: (hardness == name).to_numpy() for name in LEVELS}
        for name, chosen in (parts | {GOLD_NOT_EMPTY: ~empty, GOLD_EMPTY: empty}).items():
            sums, n = dict(zip(columns, values[chosen].sum(axis=0).tolist(), strict=True)), int(chosen.sum())
            row = {"questions": name, "semantics": criterion} | proportion(sums[criterion], n, results.level)
            for column, right in sums.items():
                row |= {f"{column}_correct": right, f"{column}_pct": 100.0 * right / n if n else None}
            rows.append(head | row)
    return pd.DataFrame(rows)


def databases(results: Results) -> pd.DataFrame:
    """Give the accuracy of each run on each database, and what its base had there."""
    rows = []
    for run, head in enumerate(results.heads):
        for part in (part for part in results.parts if part.part == "database"):
            right = results.right[part.measure][run, part.chosen]
            row = {"db_id": part.value} | proportion(int(right.sum()), len(right), results.level)
            if run in results.bases:
                before = results.right[part.measure][results.bases[run], part.chosen]
                row |= {"base_correct": int(before.sum()), **gains(before, right)}
            rows.append(head | row)
    columns = ("db_id", *PROPORTION, "base_correct", "difference_pp", "gained", "lost")
    frame = pd.DataFrame(rows, columns=[*results.heads[0], *columns])
    return frame.astype(dict.fromkeys(("base_correct", "gained", "lost"), "Int64"))


def mmlu(results: Results) -> pd.DataFrame:
    """Give the accuracy of each run on MMLU: all questions, then each category in the order of the questions.

    Besides the share of all questions stands the mean over subjects (macro average), and its difference to the base's.
    """
    parts = [part for part in results.parts if part.measure == MMLU and part.part in (ALL, "category")]
    level, rows = results.level, []
    for run, (head, frame) in enumerate(zip(results.heads, results.frames[MMLU], strict=True)):
        right, base = results.right[MMLU][run], results.right[MMLU][results.bases.get(run, run)]
        by_text, no_letter = frame["correct_generated"].to_numpy(), (frame["generated_letter"] == "").to_numpy()
        for part in parts:
            n, sizes = len(part.chosen), np.bincount(part.subjects)
            mean, *limits = mean_of_proportions(np.bincount(part.subjects, right[part.chosen]), sizes, level)
            generated, invalid = int(by_text[part.chosen].sum()), int(no_letter[part.chosen].sum())
            macro = macro_difference(part, right - base, level)
            rows.append(
                head
                | {"category": part.value}
                | proportion(int(right[part.chosen].sum()), n, level)
                | {"subjects": len(sizes), "macro_accuracy_pct": 100 * mean}
                | bounds(*limits, "macro_")
                | {"correct_generated": generated, "accuracy_generated_pct": 100.0 * generated / n}
                | bounds(*wilson_interval(generated, n, level), "generated_")
                | {"invalid": invalid, "invalid_pct": 100.0 * invalid / n}
                | bounds(*wilson_interval(invalid, n, level), "invalid_")
                | (macro if run in results.bases else dict.fromkeys(macro))
            )
    return pd.DataFrame(rows)


def macro_difference(part: Part, change: np.ndarray, level: float) -> dict[str, float]:
    """Give the difference of a run's macro average to its base's, with its interval.

    Each question weighs so much that all subjects of a part weigh alike; what is drawn at random is as in the
    comparison of all questions.
    """
    sizes = np.bincount(part.subjects)
    weights = len(part.chosen) / len(sizes) / sizes[part.subjects]
    weighted = weights * change[part.chosen]
    found = clustered_difference(*(np.bincount(part.codes, values) for values in (weighted, weights)), level)
    return {"macro_difference_pp": 100 * weighted.mean()} | bounds(found.low, found.high, "macro_difference_", "_pp")


def errors(results: Results) -> pd.DataFrame:
    """Count each class of error of each run, in the order of `ERROR_CLASSES`."""
    rows = []
    for head, frame in zip(results.heads, results.frames[SPIDER], strict=True):
        counts, n = Counter(frame["error_class"]), len(frame)
        for name in ERROR_CLASSES:
            share = 100.0 * counts[name] / n
            rows.append(head | {"error_class": name, "n": counts[name], "share_pct": share, "questions": n})
    return pd.DataFrame(rows)


def flips(results: Results) -> pd.DataFrame:
    """Count the answers that each run and its base have right and wrong, in every part of the questions."""
    rows, compared = [], {measure: results.compared(measure) for measure in results.right}
    for run, base in results.bases.items():
        for part in (part for part in results.parts if run in compared[part.measure]):
            before, after = (results.right[part.measure][number, part.chosen] for number in (base, run))
            both, either = int((before & after).sum()), int((before | after).sum())
            row = {"measure": part.measure, "part": part.part, "value": part.value, "n": len(before)}
            row |= {"both_right": both, "both_wrong": len(before) - either} | gains(before, after)
            rows.append(results.heads[run] | row)
    counted = ("measure", "part", "value", "n", "both_right", "gained", "lost", "both_wrong")
    return pd.DataFrame(rows, columns=[*results.heads[0], *counted])


def confusion(results: Results) -> pd.DataFrame:
    """Count, for each run, how its base's class of each answer became its own; only what occurs."""
    classes, rows = [frame["error_class"] for frame in results.frames[SPIDER]], []
    for run, base in results.bases.items():
        became = Counter(zip(classes[base], classes[run], strict=True))
        rows += [
            results.heads[run]
            | {"base_class": before, "tuned_class": after, "n": became[before, after], "questions": len(classes[run])}
            for before, after in itertools.product(ERROR_CLASSES, repeat=2)
            if became[before, after]
        ]
    return pd.DataFrame(rows, columns=[*results.heads[0], "base_class", "tuned_class", "n", "questions"])
