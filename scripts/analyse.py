"""Analyse the results of any harness: what each setting gained or lost against its base model, and how sure that is.

RECORDS.csv has one row for each answer, with the columns

    model      which model was fine-tuned
    setting    its settings without the seed, such as lr1e-4; `base` for the model as it was
    seed       of the training (or of the sampling of answers); empty for base and where there is but one training
    task       such as spider or mmlu
    question   the question's name within its task; every run of a task answers the same questions
    cluster    what the question shares with others: its database, its subject; its own name, if nothing
    part       in which part of the task it is reported, too: hardness, category; may be empty
    correct    1 or 0
    score      may be left out: a number, such as the probability of the right letter; of a task in all rows or none

A model's settings are compared with its base on the same questions. DIR gets

    settings.csv     a row for each setting and task (part `all`), and for each part of a task: the mean difference over
                     seeds, its interval, p alone and adjusted for settings x tasks (Holm), a verdict (lost, gained,
                     undecided), one against the margin, and the minimum detectable effect of that test
    details.csv      for the same rows, what the verdict stands on: the two parts of the error with their degrees of
                     freedom, the interval of this row alone, what would decide an undecided row
    contrasts.csv    each pair of settings: a minus b
    transitions.csv  how many right answers became wrong, and wrong ones right

A difference is in percentage points, setting minus base; of scores a hundred times the difference. Seeds and clusters
count as drawn at random. Of a setting with one seed, where no setting of its model has two, the row is about this
training run alone. Of a task with fewer than 5 clusters, or one named after --fixed-clusters, conclusions are about its
own clusters alone. docs/statistics.md has the model.
"""

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path

# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

from analysis.forgetting import transitions_table
from analysis.settings import ALL, BASE, CONTRASTS, Answers, contrasts_table, settings_tables
from common.files import UserError, atomic_write

COLUMNS = ("model", "setting", "seed", "task", "question", "cluster", "part", "correct")
MAY_BE_EMPTY = ("seed", "part", "score")
RIGHT = {
    text: right
    for right, texts in enumerate(("0 0.0 false False FALSE", "1 1.0 true True TRUE"))
    for text in texts.split()
}


def read_records(path: Path) -> list[Answers]:
    """Read the answers to each task of each model: right or wrong, and after these the scores, if it has any.

    Raises:
        UserError: something is not as expected; with file, row (the first has the columns' names) and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            # Of two columns of one name pandas renames the second.
            names = next(csv.reader(stream), [])
            if twice := [name for name in (*COLUMNS, "score") if names.count(name) > 1]:
                raise UserError(f"{path}, row 1: found the column {twice[0]} twice, expected it once. Remove one.")
            stream.seek(0)
            frame = pd.read_csv(stream, dtype=str, keep_default_na=False, skip_blank_lines=False).astype("category")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (OSError, UnicodeDecodeError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({str(error).strip()}).") from None
    lacking = [column for column in COLUMNS if column not in frame]
    if lacking:
        problem = f"lacks the column {', '.join(lacking)}, found {', '.join(frame.columns)}"
        raise UserError(f"{path}, row 1: {problem}. Add it, or mend its name.")
    frame = frame[[*COLUMNS, *frame.columns.intersection(["score"])]]
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    frame = frame[~(frame.isna() | frame.eq("")).all(axis=1)]
    if frame.empty:
        raise UserError(f"{path}, row 2: found no answer, expected one in each row.")
    return [answers for one in split(checked(path, frame)) for answers in of_task(path, one)]


def refuse(path: Path, frame: pd.DataFrame, column: str, bad: np.ndarray | pd.Series, expected: str) -> None:
    """Raise a `UserError` for the first bad row, if there is one."""
    if (bad := np.asarray(bad)).any():
        first = int(bad.argmax())
        found = frame[column].iloc[first]
        found = "nothing" if pd.isna(found) or found == "" else repr(str(found))
        raise UserError(f"{path}, row {frame.index[first]}, column {column}: found {found}, expected {expected}.")


def checked(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Check each value for itself, and make numbers of those that are; the names stay as they are."""
    for column in frame:
        empty = frame[column].isna() | (frame[column].eq("") & (column not in MAY_BE_EMPTY))
        refuse(path, frame, column, empty, "a value")
    refuse(path, frame, "correct", ~frame["correct"].isin(RIGHT), "0 or 1")
    whole = frame["part"].eq(ALL)
    refuse(path, frame, "part", whole & ~whole.all(), f"another name, as {ALL} is that of all parts together")
    found = {"correct": frame["correct"].astype(object).map(RIGHT).to_numpy(np.int8)}
    if "score" in frame:
        found["score"] = pd.to_numeric(frame["score"].astype(object), errors="coerce").to_numpy(float)
        refuse(path, frame, "score", ~np.isfinite(found["score"]) & frame["score"].ne(""), "a number")
    return frame.assign(**found)


def split(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Divide the rows by model and task, in the order in which these first occur."""
    keys = frame["model"].cat.codes.to_numpy(np.int64) * len(frame["task"].cat.categories) + frame["task"].cat.codes
    found, _ = pd.factorize(keys)
    order = np.argsort(found, kind="stable")
    return [frame.iloc[rows] for rows in np.split(order, np.flatnonzero(np.diff(found[order])) + 1)]


def of_task(path: Path, frame: pd.DataFrame) -> list[Answers]:
    """Put the answers of one model to one task side by side.

    Raises:
        UserError: two rows are about the same answer, an answer is not there, or a question has two clusters or parts.
    """
    model, task = frame["model"].iloc[0], frame["task"].iloc[0]
    questions, names = pd.factorize(frame["question"])
    keys = frame["setting"].cat.codes.to_numpy(np.int64) * len(frame["seed"].cat.categories) + frame["seed"].cat.codes
    runs, _ = pd.factorize(keys)
    count, first = runs.max() + 1, np.unique(runs, return_index=True)[1]
    cells = runs * len(names) + questions
    refuse(path, frame, "question", pd.Series(cells).duplicated(), "one row for each question of a setting and seed")
    rows = np.full(count * len(names), -1)
    rows[cells] = np.arange(len(frame))
    if (rows < 0).any():
        run, question = divmod(int((rows < 0).argmax()), len(names))
        whose, seed = frame[["setting", "seed"]].iloc[first[run]]
        run_name = f"setting {whose}" + f", seed {seed}" * bool(seed)
        raise UserError(
            f"{path}, row {frame.index[first[run]]}, column question: found no answer of {model}, {run_name} to "
            f"{names[question]} of {task}, expected one, as other runs have it. All runs answer the same questions."
        )
    # The first row of each question says what it is; the others must say the same.
    described = rows.reshape(count, -1)[0]
    for column in ("cluster", "part"):
        codes = frame[column].cat.codes.to_numpy()
        refuse(path, frame, column, codes != codes[described][questions], f"the {column} that its question has before")
    settings = frame["setting"].iloc[first].to_numpy(object)
    if BASE not in settings or len(set(settings)) < 2:
        problem = f"no setting of {model} besides {BASE}" if BASE in settings else f"no row of {model}, setting {BASE}"
        raise UserError(
            f"{path}, row {frame.index[0]}, column setting: found {problem} on {task}, expected the answers of {BASE} "
            "and of a setting that is compared with it."
        )
    parts = frame["part"].to_numpy(object)[described]
    by_part = {name: parts == name for name in pd.unique(parts) if name not in ("", ALL)}
    answers = []
    for measure in frame.columns.intersection(["correct", "score"]):
        grid = frame[measure].to_numpy()[rows].reshape(count, -1)
        if measure == "score" and np.isnan(grid).all():
            continue
        refuse(path, frame, measure, np.isnan(frame[measure]), f"a number, as other rows of {model} on {task} have one")
        by_setting = {name: grid[settings == name] for name in dict.fromkeys(settings)}
        base = by_setting.pop(BASE).mean(axis=0)
        clusters = frame["cluster"].cat.codes.to_numpy()[described]
        answers.append(Answers(model, task, base, by_setting, clusters, by_part, measure))
    return answers


def shares(text: str) -> tuple[str, float]:
    """Read TASK=SHARE."""
    task, _, share = text.rpartition("=")
    if not task or not 0 <= float(share) < 1:
        raise ValueError
    return task, float(share)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, metavar="RECORDS.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the tables")
    parser.add_argument(
        "--margin", type=float, default=3.0, help="a loss of no more percentage points than these does not matter (3)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals and verdicts (0.95)")
    help_fixed = "a task whose clusters are all that conclusions are about; may be given for several"
    parser.add_argument("--fixed-clusters", action="append", default=[], metavar="TASK", help=help_fixed)
    help_chance = "of a task, what share guessing gets right, for the transitions, such as mmlu=0.25"
    parser.add_argument("--chance", action="append", type=shares, default=[], metavar="TASK=SHARE", help=help_chance)
    options = parser.parse_args(arguments)
    if not 0.5 <= options.confidence < 1:
        parser.error(f"--confidence: found {options.confidence:g}, expected a share from 0.5 to below 1, such as 0.95")
    if not 0 <= options.margin < 100:
        parser.error(f"--margin: found {options.margin:g}, expected percentage points from 0 to below 100, such as 3")
    try:
        tasks = read_records(options.records)
        unknown = {*options.fixed_clusters, *dict(options.chance)} - {one.task for one in tasks}
        if unknown:
            raise UserError(
                f"{options.records}, column task: found no {', '.join(sorted(unknown))}, which an option names."
            )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    tasks = [replace(one, fixed=one.task in options.fixed_clusters) for one in tasks]
    settings, details = settings_tables(tasks, options.margin, options.confidence)
    contrasts = contrasts_table(tasks, options.confidence)[[*CONTRASTS]]
    tables = {"settings": settings, "details": details, "contrasts": contrasts}
    tables["transitions"] = transitions_table(tasks, dict(options.chance), options.confidence)
    try:
        for name, table in tables.items():
            with atomic_write(options.out / f"{name}.csv") as stream:
                table.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
    except OSError as error:
        print(f"--out {options.out}: {error.strerror}. Name a folder that can be written.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
