"""Count what each run got right and wrong: by part of the questions, criterion, class of error, database."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import bounds, gains
from analysis.data import ALL, Part, Results, counted, kind_of, values_of, word
from custom_metrics.judge import ERROR_CLASSES
from custom_metrics.stats import clustered_difference, holm, mean_of_proportions, wilson_interval
from tasks.records import CRITERIA

GOLD_NOT_EMPTY, GOLD_EMPTY = "gold_not_empty", "gold_empty"
ERRORS = (
    "task", "error_class", "n", "share_pct", "questions", "base_n", "difference_pp", "ci_low_pp", "ci_high_pp", "p",
    "p_holm",
)  # fmt: skip
PROPORTION = ("n", "correct", "accuracy_pct", "ci_low", "ci_high")


def proportion(correct: float, n: int, level: float) -> dict[str, Any]:
    """Give n, right answers, and accuracy in percent with its Wilson interval; of no questions there is no accuracy."""
    found = {"n": n, "correct": correct, "accuracy_pct": 100.0 * correct / n if n else None}
    return found | bounds(*wilson_interval(correct, n, level))


def questions(results: Results) -> dict[str, pd.DataFrame]:
    """Give by task how many questions it has, in all and in each reported part, and their hash."""
    parts = results.reported()
    counted = pd.DataFrame([{"task": part.task, "category": part.value, "n": len(part.chosen)} for part in parts])
    return dict(list(results.label(counted).groupby("task", sort=False)))


def sql(results: Results, task: str) -> pd.DataFrame:
    """Give the execution accuracy of each run: all questions, then parts of them.

    The parts are the strata, such as levels of hardness, and the questions whose gold query has rows, and has none; a
    part without questions has n 0. n, correct, accuracy and interval follow the study's criterion; then every criterion
    has its own columns, for the SQL taken out of the answer and, with `_raw`, for the answer as it is.
    """
    measure, rows = results.measures[task], []
    strata = [column for column in measure.strata if column != measure.cluster]
    for run, (head, frame) in enumerate(zip(results.heads, results.frames[task], strict=True)):
        values = results.shares(task, run, lambda frame: frame[[*CRITERIA]].to_numpy())
        empty = frame["gold_rows"].to_numpy() == 0
        parts = {ALL: empty | True}
        parts |= {name: (frame[one] == name).to_numpy() for one in strata for name in values_of(measure, one, frame)}
        for name, chosen in (parts | {GOLD_NOT_EMPTY: ~empty, GOLD_EMPTY: empty}).items():
            sums, n = map(counted, values[chosen].sum(axis=0)), int(chosen.sum())
            sums = dict(zip(CRITERIA, sums, strict=True))
            row = {"questions": name, "criterion": measure.criterion}
            row |= proportion(sums[measure.criterion], n, results.level)
            for column, right in sums.items():
                row |= {f"{column}_correct": right, f"{column}_pct": 100.0 * right / n if n else None}
            rows.append(head | row)
    return pd.DataFrame(rows)


def databases(results: Results) -> pd.DataFrame:
    """Give the accuracy of each run on each database, and what its base had there; of the tasks of form sql."""
    names = {task: word(results.measures[task].cluster) for task in results.of_form("sql")}
    rows = []
    for run, head in enumerate(results.heads):
        for part in (part for part in results.parts if part.part == names.get(part.task)):
            right = results.right[part.task][run, part.chosen]
            row = {"task": part.task, "db_id": part.value} | proportion(counted(right.sum()), len(right), results.level)
            if run in results.bases:
                before = results.right[part.task][results.bases[run], part.chosen]
                row |= {"base_correct": counted(before.sum()), **gains(before, right)}
            rows.append(head | row)
    columns = ("task", "db_id", *PROPORTION, "base_correct", "difference_pp", "gained", "lost")
    frame = pd.DataFrame(rows, columns=[*results.heads[0], *columns])
    return frame.astype(dict.fromkeys(("base_correct", "gained", "lost"), number_type(results)))


def choice(results: Results, task: str) -> pd.DataFrame:
    """Give the accuracy of each run: all questions, then each reported part in the order of the questions.

    Besides the share of all questions stands the mean over subjects (macro average), and its difference to the base's.
    Of a task of form choice also what the letters in generated text say.
    """
    level, rows, letters = results.level, [], results.measures[task].form == "choice"
    for run, (head, frame) in enumerate(zip(results.heads, results.frames[task], strict=True)):
        right, base = results.right[task][run], results.right[task][results.bases.get(run, run)]
        for part in results.reported(task):
            sizes = np.bincount(part.subjects)
            mean, *limits = mean_of_proportions(np.bincount(part.subjects, right[part.chosen]), sizes, level)
            macro = macro_difference(part, right - base, level)
            rows.append(
                head
                | {"category": part.value}
                | proportion(counted(right[part.chosen].sum()), len(part.chosen), level)
                | {"subjects": len(sizes), "macro_accuracy_pct": 100 * mean}
                | bounds(*limits, "macro_")
                | (generated(frame.iloc[part.chosen], level) if letters else {})
                | (macro if run in results.bases else dict.fromkeys(macro))
            )
    return pd.DataFrame(rows)


def generated(frame: pd.DataFrame, level: float) -> dict[str, Any]:
    """Say how often the letter in the generated text is right, and how often there is none."""
    n, right = len(frame), int(frame["correct_generated"].sum())
    invalid = int((frame["generated_letter"] == "").sum())
    found = {"correct_generated": right, "accuracy_generated_pct": 100.0 * right / n}
    found |= bounds(*wilson_interval(right, n, level), "generated_")
    found |= {"invalid": invalid, "invalid_pct": 100.0 * invalid / n}
    return found | bounds(*wilson_interval(invalid, n, level), "invalid_")


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
    """Count each class of error of each run, in the order of `ERROR_CLASSES`; of the tasks of form sql.

    Beside it stands what became of the base's count, with the test of the difference (databases drawn at random, as in
    the comparison of a single run). Holm's adjustment is over all classes of wrong answers that occur, of all runs of
    one kind.
    """
    rows = []
    for task in results.of_form("sql"):
        whole, compared = results.whole[task], results.compared(task)
        classes = classes_of(results, task)
        for run, head in enumerate(results.heads):
            for number, name in enumerate(ERROR_CLASSES):
                is_class = classes[run][:, number]
                row = {"task": task, "error_class": name, "n": counted(is_class.sum()), "questions": len(is_class)}
                row |= {"share_pct": 100.0 * is_class.mean(), "family": kind_of(results.runs[run])}
                if run in compared:
                    before = classes[compared[run]][:, number]
                    row["base_n"] = counted(before.sum())
                    row |= class_change(whole, before, is_class, results.level)
                rows.append(head | row)
    frame = pd.DataFrame(rows, columns=[*results.heads[0], *ERRORS, "family"])
    tested = (frame["error_class"] != "ok") & ((frame["n"] > 0) | (frame["base_n"] > 0)) & frame["p"].notna()
    families = frame[tested].groupby(["task", "family"])["p"]
    frame["p_holm"] = families.transform(lambda family: holm(family.tolist()))
    return frame.drop(columns="family").astype({"base_n": number_type(results)})


def classes_of(results: Results, task: str) -> list[np.ndarray]:
    """Of each run whether each answer is of each of `ERROR_CLASSES`: 0, 1 or a share of draws, (questions, classes)."""
    names = np.array(ERROR_CLASSES)

    def classes(frame: pd.DataFrame) -> np.ndarray:
        return (frame["error_class"].to_numpy()[:, None] == names).astype(np.int8)

    return [results.shares(task, run, classes) for run in range(len(results.heads))]


def number_type(results: Results) -> str:
    """The type of a column of numbers of questions, some of which are missing."""
    return "Float64" if results.draws else "Int64"


def class_change(whole: Part, before: np.ndarray, after: np.ndarray, level: float) -> dict[str, float]:
    """Give how much more often a run's answers are of a class than its base's, question by question."""
    change = after - before
    found = clustered_difference(np.bincount(whole.codes, change), whole.sizes, level)
    return {"difference_pp": 100 * change.mean(), "p": found.p} | bounds(found.low, found.high, suffix="_pp")


def flips(results: Results) -> pd.DataFrame:
    """Count the answers that each run and its base have right and wrong, in every part of the questions."""
    rows, compared = [], {task: results.compared(task) for task in results.measures}
    for run, base in results.bases.items():
        for part in (part for part in results.parts if run in compared[part.task]):
            before, after = (results.right[part.task][number, part.chosen] for number in (base, run))
            both = {"both_right": counted((before * after).sum())}
            both["both_wrong"] = counted(((1 - before) * (1 - after)).sum())
            row = {"task": part.task, "part": part.part, "value": part.value, "n": len(before)} | both
            row |= gains(before, after)
            rows.append(results.heads[run] | row)
    columns = ("task", "part", "value", "n", "both_right", "gained", "lost", "both_wrong")
    return pd.DataFrame(rows, columns=[*results.heads[0], *columns])


def confusion(results: Results) -> pd.DataFrame:
    """Count how the base's class of each answer became the run's own, of the tasks of form sql; only what occurs."""
    rows = []
    for task in results.of_form("sql"):
        classes = classes_of(results, task)
        for run, base in results.bases.items():
            became = classes[base].T.astype(float) @ classes[run]
            for (i, before), (j, after) in itertools.product(enumerate(ERROR_CLASSES), repeat=2):
                if became[i, j]:
                    row = {"task": task, "base_class": before, "tuned_class": after, "n": counted(became[i, j])}
                    rows.append(results.heads[run] | row | {"questions": len(classes[run])})
    return pd.DataFrame(rows, columns=[*results.heads[0], "task", "base_class", "tuned_class", "n", "questions"])
