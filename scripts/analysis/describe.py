"""Count what each run got right and wrong: by part of the questions, criterion, class of error, database."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import bounds, gains
from analysis.data import ALL, HARDNESS, MMLU, SPIDER, Results
from custom_metrics.compare import SEMANTICS
from custom_metrics.judge import ERROR_CLASSES
from custom_metrics.stats import clustered_difference, mean_of_proportions, wilson_interval

GOLD_NOT_EMPTY, GOLD_EMPTY = "gold_not_empty", "gold_empty"
PROPORTION = ("n", "correct", "accuracy_pct", "ci_low", "ci_high")


def proportion(correct: int, n: int, level: float) -> dict[str, Any]:
    """Give n, right answers, and accuracy in percent with its Wilson interval; of no questions there is no accuracy."""
    accuracy = 100.0 * correct / n if n else None
    return {"n": n, "correct": correct, "accuracy_pct": accuracy} | bounds(*wilson_interval(correct, n, level))


def of_each_run(results: Results, measure: str, rows: Callable[[pd.DataFrame], list[dict]]) -> pd.DataFrame:
    """Put the rows that `rows` makes of each run's records into one table."""
    heads, frames = results.heads, results.frames[measure]
    return pd.DataFrame([head | row for head, frame in zip(heads, frames, strict=True) for row in rows(frame)])


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
    """Give the execution accuracy of each run, on all questions and on parts of them."""
    return of_each_run(results, SPIDER, lambda records: sql_rows(records, results.criteria[SPIDER], results.level))


def sql_rows(frame: pd.DataFrame, criterion: str, level: float) -> list[dict[str, Any]]:
    """Make one run's rows of the table of execution accuracy.

    The parts are the levels of hardness and the questions whose gold query has rows, and has none; a part without
    questions has n 0. n, correct, accuracy and interval follow `criterion`; then every criterion has its own columns,
    for the SQL taken out of the answer and, with `_raw`, for the answer as it is.
    """
    empty, hardness = frame["gold_rows"].to_numpy() == 0, frame["hardness"].to_numpy()
    parts = {ALL: empty | True} | {name: hardness == name for name in HARDNESS}
    columns = [f"{name}{raw}" for raw in ("", "_raw") for name in SEMANTICS]
    values = frame[columns].to_numpy()
    rows = []
    for name, chosen in (parts | {GOLD_NOT_EMPTY: ~empty, GOLD_EMPTY: empty}).items():
        sums, n = dict(zip(columns, values[chosen].sum(axis=0).tolist(), strict=True)), int(chosen.sum())
        row = {"questions": name, "semantics": criterion} | proportion(sums[criterion], n, level)
        for column in columns:
            row |= {f"{column}_correct": sums[column], f"{column}_pct": 100.0 * sums[column] / n if n else None}
        rows.append(row)
    return rows


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
    frame = of_each_run(results, MMLU, lambda records: choice_rows(records, results.level))
    changes = macro_differences(results)
    found = [changes.get(key, {}) for key in zip(frame["model"], frame["variant"], frame["category"], strict=True)]
    columns = ("macro_difference_pp", "macro_difference_ci_low_pp", "macro_difference_ci_high_pp")
    return frame.join(pd.DataFrame(found, index=frame.index, columns=columns, dtype=float))


def choice_rows(frame: pd.DataFrame, level: float) -> list[dict[str, Any]]:
    """Make one run's rows of the table of MMLU."""
    rows = []
    for category in [ALL, *dict.fromkeys(frame["category"])]:
        part = frame if category == ALL else frame[frame["category"] == category]
        n = len(part)
        by_subject = part.groupby("subject", sort=False)["correct"].agg(["sum", "size"])
        mean, low, high = mean_of_proportions(by_subject["sum"].tolist(), by_subject["size"].tolist(), level)
        generated, invalid = int(part["correct_generated"].sum()), int((part["generated_letter"] == "").sum())
        rows.append(
            {"category": category}
            | proportion(int(part["correct"].sum()), n, level)
            | {"subjects": len(by_subject), "macro_accuracy_pct": 100 * mean}
            | bounds(low, high, "macro_")
            | {"correct_generated": generated, "accuracy_generated_pct": 100.0 * generated / n}
            | bounds(*wilson_interval(generated, n, level), "generated_")
            | {"invalid": invalid, "invalid_pct": 100.0 * invalid / n}
            | bounds(*wilson_interval(invalid, n, level), "invalid_")
        )
    return rows


def macro_differences(results: Results) -> dict[tuple[str, str, str], dict[str, float]]:
    """Give the difference of each macro average to the base's, by model, variant and category.

    Each question weighs so much that all subjects of a part weigh alike; what is drawn at random is as in the
    comparison of all questions.
    """
    found = {}
    for part in results.parts:
        if part.measure != MMLU or part.part not in (ALL, "category"):
            continue
        right, sizes = results.right[MMLU][:, part.chosen], np.bincount(part.subjects)
        weights = len(part.chosen) / len(sizes) / sizes[part.subjects]
        units = np.bincount(part.codes, weights)
        for run, base in results.bases.items():
            change = weights * (right[run] - right[base])
            estimate = clustered_difference(np.bincount(part.codes, change), units, results.level)
            head, difference = results.heads[run], {"macro_difference_pp": 100 * change.mean()}
            difference |= bounds(estimate.low, estimate.high, "macro_difference_", "_pp")
            found[head["model"], head["variant"], part.value] = difference
    return found


def errors(results: Results) -> pd.DataFrame:
    """Count each class of error of each run."""
    return of_each_run(results, SPIDER, error_rows)


def error_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Make one run's rows of the table of errors: each class in the order of `ERROR_CLASSES`, with how often."""
    counts, questions = frame["error_class"].value_counts(), len(frame)
    found = {name: int(counts.get(name, 0)) for name in ERROR_CLASSES}
    return [
        {"error_class": name, "n": n, "share_pct": 100.0 * n / questions, "questions": questions}
        for name, n in found.items()
    ]


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
