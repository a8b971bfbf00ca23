"""Count what each run got right and wrong: by part of the questions, criterion, class of error, database."""

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import bounds, gains
from analysis.data import ALL, HARDNESS, MMLU, SPIDER, Part, Results
from custom_metrics.compare import SEMANTICS
from custom_metrics.judge import ERROR_CLASSES
from custom_metrics.stats import clustered_difference, mean_of_proportions, wilson_interval

GOLD_NOT_EMPTY, GOLD_EMPTY = "gold_not_empty", "gold_empty"
PROPORTION = ("n", "correct", "accuracy_pct", "ci_low", "ci_high")


def proportion(correct: int, n: int, level: float) -> dict[str, Any]:
    """Give n, right answers, and accuracy in percent with its Wilson interval; of no questions there is no accuracy."""
    accuracy = 100.0 * correct / n if n else None
    return {"n": n, "correct": correct, "accuracy_pct": accuracy} | bounds(*wilson_interval(correct, n, level))


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
        parts = {ALL: empty | True} | {name: (hardness == name).to_numpy() for name in HARDNESS}
        for name, chosen in (parts | {GOLD_NOT_EMPTY: ~empty, GOLD_EMPTY: empty}).items():
            sums, n = dict(zip(columns, values[chosen].sum(axis=0).tolist(), strict=True)), int(chosen.sum())
            row = {"questions": name, "semantics": criterion} | proportion(sums[criterion], n, results.level)
            for column, right in sums.items():
                row |= {f"{column}_correct": right, f"{column}_pct": 100.0 * right / n if n else None}
            rows.append(head | row)
    return pd.DataFrame(rows)


def databases(results: Results) -> pd.DataFrame:
    """Give the accuracy of each run on each database, and what its base had there."""
    parts = [part for part in results.parts if part.part == "database"]
    rows = []
    for run, head in enumerate(results.heads):
        for part in parts:
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
                | macro_difference(part, right - base if run in results.bases else None, level)
            )
    return pd.DataFrame(rows)


def macro_difference(part: Part, change: np.ndarray | None, level: float) -> dict[str, float]:
    """Give the difference of a run's macro average to its base's, with its interval; NaN for the base itself.

    Each question weighs so much that all subjects of a part weigh alike; what is drawn at random is as in the
    comparison of all questions.
    """
    mean = low = high = math.nan
    if change is not None:
        sizes = np.bincount(part.subjects)
        weights = len(part.chosen) / len(sizes) / sizes[part.subjects]
        weighted = weights * change[part.chosen]
        mean = weighted.mean()
        sums, units = (np.bincount(part.codes, values) for values in (weighted, weights))
        estimate = clustered_difference(sums, units, level)
        low, high = estimate.low, estimate.high
    return {"macro_difference_pp": 100 * mean} | bounds(low, high, "macro_difference_", "_pp")


def errors(results: Results) -> pd.DataFrame:
    """Count each class of error of each run, in the order of `ERROR_CLASSES`."""
    rows = []
    for head, frame in zip(results.heads, results.frames[SPIDER], strict=True):
        counts, questions = frame["error_class"].value_counts(), len(frame)
        for name in ERROR_CLASSES:
            n = int(counts.get(name, 0))
            row = {"error_class": name, "n": n, "share_pct": 100.0 * n / questions, "questions": questions}
            rows.append(head | row)
    return pd.DataFrame(rows)


def flips(results: Results) -> pd.DataFrame:
    """Count the answers that each run and its base have right and wrong, in every part of the questions."""
    rows, compared = [], {measure: results.compared(measure) for measure in results.right}
    for run, base in results.bases.items():
        for part in (part for part in results.parts if run in compared[part.measure]):
            before, after = (results.right[part.measure][number, part.chosen] for number in (base, run))
            both, change = int((before & after).sum()), gains(before, after)
            rows.append(
                results.heads[run]
                | {"measure": part.measure, "part": part.part, "value": part.value, "n": len(before)}
                | {"both_right": both, "gained": change["gained"], "lost": change["lost"]}
                | {"both_wrong": len(before) - both - change["gained"] - change["lost"]}
            )
    counted = ("measure", "part", "value", "n", "both_right", "gained", "lost", "both_wrong")
    return pd.DataFrame(rows, columns=[*results.heads[0], *counted])


def confusion(results: Results) -> pd.DataFrame:
    """Count, for each run, how its base's class of each answer became its own; only what occurs."""
    size = len(ERROR_CLASSES)
    classes = [
        pd.Categorical(frame["error_class"], categories=ERROR_CLASSES).codes.astype(np.int64)
        for frame in results.frames[SPIDER]
    ]
    rows = []
    for run, base in results.bases.items():
        counts = np.bincount(classes[base] * size + classes[run], minlength=size * size)
        rows += [
            results.heads[run]
            | {"base_class": ERROR_CLASSES[cell // size], "tuned_class": ERROR_CLASSES[cell % size]}
            | {"n": int(counts[cell]), "questions": len(classes[base])}
            for cell in np.flatnonzero(counts)
        ]
    return pd.DataFrame(rows, columns=[*results.heads[0], "base_class", "tuned_class", "n", "questions"])
