"""Put all records of a study into four tables: execution accuracy, MMLU, adapters against their base, errors."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# `custom_metrics` stands beside this folder; Snakemake makes only the script's own folder importable.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from _files import UserError, atomic_write, sha256_json
from _job import job
from _records import MMLU_COLUMNS, SPIDER_COLUMNS, read_records
from _stamp import stamp
from custom_metrics.judge import ERROR_CLASSES, SEMANTICS
from custom_metrics.stats import (
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_difference_interval,
    percent_change,
    wilson_interval,
)

BASE = "base"
ALL = "aggregate"
HARDNESS = ("easy", "medium", "hard", "extra")
GOLD_NOT_EMPTY, GOLD_EMPTY = "gold_not_empty", "gold_empty"
# How each semantics is called in a heading, and what makes an answer right under it.
NAMES = {
    "set": "Set",
    "bag": "Bag",
    "ordered": "Ordered",
    "test_suite": "Test suite",
    "columns_any_order": "Columns in any order",
}
MEANINGS = {
    "set": "its query gives the gold query's rows, however often, in any order, columns in the same order",
    "bag": "its query gives the gold query's rows, equally often, in any order, columns in the same order",
    "ordered": "its query gives the gold query's rows, equally often, in the same order where the gold query has a "
    "top-level ORDER BY, columns in the same order",
    "test_suite": "the rules of Spider's official test-suite evaluator say so, on one database: columns in any order, "
    "rows in the same order if the gold query holds ORDER BY, DISTINCT ignored",
    "columns_any_order": "its query gives the gold query's rows, equally often, in any order, for some order of its "
    "columns",
}
CHANCE = {"execution_accuracy": 0.0, "mmlu": 0.25}
MEASURES = {"execution_accuracy": "Spider execution accuracy", "mmlu": "MMLU"}
SPIDER_QUESTION = ["id", "db_id", "hardness", "question", "gold"]
MMLU_QUESTION = ["id", "subject", "category", "answer"]


def tables(
    spider: Sequence[str | Path],
    mmlu: Sequence[str | Path],
    outputs: Mapping[str, str | Path],
    study: str,
    runs: Sequence[Mapping],
    confidence_level: float,
    semantics: str = "bag",
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
) -> None:
    """Write the four tables, each as CSV (the truth: full precision) and as Markdown (the same, to be read).

    Args:
        spider, mmlu: records of each run, in the order of `runs`.
        outputs: paths named execution_accuracy, mmlu, regression and errors, and the same with `_md`.
        study: the study's name, for the headings.
        runs: of each run `model`, `variant` and `settings` (the swept values of an adapter, {} for the base).
        confidence_level: of all intervals and verdicts, such as 0.95.
        semantics: the headline's, one of `custom_metrics.judge.SEMANTICS`; the comparison with the base follows it.
        known_defects, accept_defect: what is said of the method, and which failures of the audit it ran with; they
            stand under every table.

    Raises:
        UserError: the records of two runs are not about the same questions, or a model has no base run.
    """
    runs = list(runs)
    if not len(runs) == len(spider) == len(mmlu):
        raise UserError(
            f"tables: found {len(spider)} and {len(mmlu)} record files, expected one of each of {len(runs)} runs."
        )
    axes = list(dict.fromkeys(axis for run in runs for axis in run["settings"]))
    heads = [
        {"model": run["model"], "variant": run["variant"]} | {axis: plain(run["settings"].get(axis)) for axis in axes}
        for run in runs
    ]
    spider_frames = read_same(spider, SPIDER_COLUMNS, SPIDER_QUESTION)
    mmlu_frames = read_same(mmlu, MMLU_COLUMNS, MMLU_QUESTION)
    if ALL in set(mmlu_frames[0]["category"]):
        raise UserError(
            f"config, mmlu.categories: {ALL} is the name of the row over all categories. Choose another name."
        )

    spider_frames = [frame.assign(correct=frame[semantics]) for frame in spider_frames]
    accuracy = pd.DataFrame(
        [
            h | row
            for h, f in zip(heads, spider_frames, strict=True)
            for row in spider_rows(f, confidence_level, semantics)
        ]
    )
    knowledge = pd.DataFrame(
        [h | row for h, f in zip(heads, mmlu_frames, strict=True) for row in mmlu_rows(f, confidence_level)]
    )
    regression = regression_rows(heads, spider_frames, mmlu_frames, confidence_level)
    errors = pd.DataFrame([h | row for h, f in zip(heads, spider_frames, strict=True) for row in error_rows(f)])

    hashes = {
        "spider": sha256_json(spider_frames[0][SPIDER_QUESTION].values.tolist()),
        "mmlu": sha256_json(mmlu_frames[0][MMLU_QUESTION].values.tolist()),
    }
    notes = Notes(study, confidence_level, semantics, len(spider_frames[0]), mmlu_frames[0]["category"], hashes)
    for name, frame, text in (
        ("execution_accuracy", accuracy, execution_accuracy_md(accuracy, notes)),
        ("mmlu", knowledge, mmlu_md(knowledge, notes)),
        ("regression", regression, regression_md(regression, notes)),
        ("errors", errors, errors_md(errors, notes)),
    ):
        with atomic_write(outputs[name]) as stream:
            frame = frame.assign(confidence_level=confidence_level)
            frame.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
        with atomic_write(outputs[f"{name}_md"]) as stream:
            stream.write(text + stamp(known_defects, accept_defect))


def plain(value: object) -> object:
    """Return a setting as it stands in a table: a list joined by +, a number without exponent."""
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def read_same(paths: Sequence[str | Path], columns: Sequence[str], question: list[str]) -> list[pd.DataFrame]:
    """Read the records of all runs, each in the order of the first file.

    Raises:
        UserError: a file is not about the questions of the first; the message names the file and what differs.
    """
    frames = [read_records(path, columns) for path in paths]
    first = frames[0]
    if first.empty:
        raise UserError(f"{paths[0]}: has no records, expected one a question.")
    for number, (path, frame) in enumerate(zip(paths, frames, strict=True)):
        expected, found = set(first["id"]), set(frame["id"])
        if expected != found:
            raise UserError(
                f"{path}: lacks {listed(expected - found)} and has {listed(found - expected)} against {paths[0]}. All "
                "runs must answer the same questions: run the scoring rules again."
            )
        frame = frame.set_index("id", drop=False).loc[first["id"]].reset_index(drop=True)
        for column in question:
            different = frame.loc[frame[column] != first[column], "id"]
            if len(different):
                raise UserError(f"{path}, {column} of {different.iloc[0]}: differs from {paths[0]}. Score both again.")
        frames[number] = frame
    return frames


def listed(ids: set[str]) -> str:
    """Return "no question", or how many and the first few."""
    return (
        f"{len(ids)} questions ({', '.join(sorted(ids)[:3])}{', …' if len(ids) > 3 else ''})" if ids else "no question"
    )


def proportion(correct: int, n: int, level: float) -> dict:
    """Return n, correct, accuracy in percent and its Wilson interval in percent."""
    low, high = wilson_interval(correct, n, level)
    accuracy = 100.0 * correct / n if n else None
    return {"n": n, "correct": correct, "accuracy_pct": accuracy, "ci_low": 100 * low, "ci_high": 100 * high}


def spider_rows(frame: pd.DataFrame, level: float, semantics: str) -> list[dict]:
    """Return one run's rows of the table of execution accuracy: all questions, then parts of them.

    The parts are the levels of hardness and the questions whose gold query has rows, and has none; a part without
    questions has n 0. n, correct, accuracy and interval are of the headline's semantics; then every semantics has its
    own columns, for the SQL taken out of the answer and, with `_raw`, for the answer as it is.
    """
    empty = frame["gold_rows"] == 0
    parts = {ALL: empty | True} | {name: frame["hardness"] == name for name in HARDNESS}
    rows = []
    for name, chosen in (parts | {GOLD_NOT_EMPTY: ~empty, GOLD_EMPTY: empty}).items():
        part = frame[chosen]
        row = {"questions": name, "semantics": semantics} | proportion(int(part["correct"].sum()), len(part), level)
        for column in (f"{name}{raw}" for raw in ("", "_raw") for name in SEMANTICS):
            correct = int(part[column].sum())
            row |= {f"{column}_correct": correct, f"{column}_pct": 100.0 * correct / len(part) if len(part) else None}
        rows.append(row)
    return rows


def error_rows(frame: pd.DataFrame) -> list[dict]:
    """Return one run's rows of the table of errors: each class in the order of `ERROR_CLASSES`, with how often."""
    counts = frame["error_class"].value_counts()
    return [
        {"error_class": name, "n": int(counts.get(name, 0)), "share_pct": 100.0 * int(counts.get(name, 0)) / len(frame)}
        for name in ERROR_CLASSES
    ]


def categories(frame: pd.DataFrame) -> list[str]:
    """Return the categories of MMLU records in the order of the questions."""
    return list(dict.fromkeys(frame["category"]))


def mmlu_rows(frame: pd.DataFrame, level: float) -> list[dict]:
    """Return one run's rows of the MMLU table: all questions, then each category."""
    rows = []
    for category in [ALL, *categories(frame)]:
        part = frame if category == ALL else frame[frame["category"] == category]
        generated, invalid = int(part["correct_generated"].sum()), int((part["generated_letter"] == "").sum())
        rows.append(
            {"category": category}
            | proportion(int(part["correct"].sum()), len(part), level)
            | {"correct_generated": generated, "accuracy_generated_pct": 100.0 * generated / len(part)}
            | {"invalid": invalid, "invalid_pct": 100.0 * invalid / len(part)}
        )
    return rows


def regression_rows(
    heads: Sequence[dict], spider: Sequence[pd.DataFrame], mmlu: Sequence[pd.DataFrame], level: float
) -> pd.DataFrame:
    """Compare each adapter with the base of its model, question by question.

    The p values are adjusted (Holm) within two families: the headline (execution accuracy and aggregate MMLU of all
    adapters) and the categories of MMLU of all adapters. The verdict follows the adjusted p.

    Raises:
        UserError: a model has adapters and no base run.
    """
    bases = {head["model"]: number for number, head in enumerate(heads) if head["variant"] == BASE}
    rows = []
    for number, head in enumerate(heads):
        if head["variant"] == BASE:
            continue
        if head["model"] not in bases:
            raise UserError(
                f"tables: {head['model']} has adapters and no run called {BASE}, which they are compared with."
            )
        base = bases[head["model"]]
        parts = [("execution_accuracy", ALL, spider[base]["correct"], spider[number]["correct"])]
        for category in [ALL, *categories(mmlu[base])]:
            chosen = slice(None) if category == ALL else mmlu[base]["category"] == category
            parts.append(("mmlu", category, mmlu[base].loc[chosen, "correct"], mmlu[number].loc[chosen, "correct"]))
        rows += [
            head | {"measure": measure, "category": category} | compare(before, after, CHANCE[measure], level)
            for measure, category, before, after in parts
        ]
    columns = [*heads[0], "measure", "category", *compare(pd.Series([0]), pd.Series([0]), 0.0, level)]
    frame = pd.DataFrame(rows, columns=columns)
    for family in (frame["category"] == ALL, frame["category"] != ALL):
        frame.loc[family, "p_holm"] = holm(frame.loc[family, "p_mcnemar"].tolist())
    frame["p_holm"] = frame["p_holm"].astype(float)
    frame["verdict"] = [
        "not distinguishable at this n" if row.p_holm >= 1 - level else "better" if row.gained > row.lost else "worse"
        for row in frame.itertuples()
    ]
    return frame


def compare(base: pd.Series, tuned: pd.Series, chance: float, level: float) -> dict:
    """Return the paired comparison of two columns of 0/1 on the same questions."""
    n, gained, lost = len(base), int(((base == 0) & (tuned == 1)).sum()), int(((base == 1) & (tuned == 0)).sum())
    low, high = paired_difference_interval(gained, lost, n, level)
    detectable = minimum_detectable_difference(gained, lost, n, level)
    return {
        "n": n,
        "base_correct": int(base.sum()),
        "tuned_correct": int(tuned.sum()),
        "base_accuracy_pct": 100.0 * int(base.sum()) / n,
        "tuned_accuracy_pct": 100.0 * int(tuned.sum()) / n,
        "difference_pp": 100.0 * (gained - lost) / n,
        "ci_low_pp": 100.0 * low,
        "ci_high_pp": 100.0 * high,
        "percent_change": percent_change(int(base.sum()), int(tuned.sum()), n, chance, level),
        "gained": gained,
        "lost": lost,
        "p_mcnemar": mcnemar(gained, lost),
        "p_holm": None,
        "minimum_detectable_pp": None if detectable is None else 100.0 * detectable,
        "verdict": "",
    }


class Notes:
    """What stands under every table: n, semantics, interval, and the hash of the questions."""

    def __init__(
        self, study: str, level: float, semantics: str, n: int, mmlu_categories: pd.Series, hashes: Mapping[str, str]
    ):
        self.study, self.semantics = study, semantics
        self.percent, self.alpha = f"{100 * level:g}%", f"{1 - level:.4g}"
        sizes = mmlu_categories.value_counts(sort=False)
        self.questions = f"n = {n} Spider questions, the same for all rows."
        self.right = f"{NAMES[semantics]} semantics: an answer is right if {MEANINGS[semantics]}."
        self.hash = f"Questions (id, database, hardness, text, gold): sha256 `{hashes['spider']}`."
        self.spider = f"{self.questions} {self.right} {self.hash}"
        parts = ", ".join(f"{count} {escape(name)}" for name, count in sizes.items())
        self.mmlu = (
            f"n = {len(mmlu_categories)} MMLU questions, the same for all rows ({parts}). Questions (id, subject, "
            f"category, answer): sha256 `{hashes['mmlu']}`."
        )
        self.wilson = f"Intervals: {self.percent}, Wilson."


def execution_accuracy_md(frame: pd.DataFrame, notes: Notes) -> str:
    """Return the tables of execution accuracy as Markdown: headline, every semantics, parts of the questions."""
    whole = frame[frame["questions"] == ALL]
    headline = head_columns(whole)
    headline["Right"] = counts(whole["correct"], whole["n"])
    headline["Accuracy % (interval)"] = intervals(whole)
    sides = []
    for raw in ("", "_raw"):
        side = head_columns(whole)
        for name in SEMANTICS:
            side[f"{NAMES[name]} %"] = shares(whole[f"{name}{raw}_pct"])
        sides.append(side)
    parts = head_columns(whole)
    for name in (*HARDNESS, GOLD_NOT_EMPTY, GOLD_EMPTY):
        part = frame[frame["questions"] == name].set_axis(whole.index)
        if part["n"].any():
            parts[f"{name.replace('_', ' ').capitalize()} % (n = {part['n'].iloc[0]})"] = shares(part["accuracy_pct"])
    meanings = "\n".join(f"- {NAMES[name]}: {MEANINGS[name]}." for name in SEMANTICS)
    return page(
        f"Execution accuracy on Spider ({NAMES[notes.semantics].lower()} semantics): {notes.study}",
        headline,
        f"{notes.spider} {notes.wilson}",
    ) + "".join(
        f"\n{text}\n\n{markdown_table(table)}\n"
        for text, table in (
            (
                f"Under every semantics, for the SQL taken out of the answer. An answer is right, under\n\n{meanings}",
                sides[0],
            ),
            ("Under every semantics, for the answer as it is, without taking the SQL out of it:", sides[1]),
            (
                f"Parts of the questions, under {NAMES[notes.semantics].lower()} semantics: by hardness, and by "
                "whether the gold query gives any rows (where it gives none, any query without rows is right):",
                parts,
            ),
        )
    )


def errors_md(frame: pd.DataFrame, notes: Notes) -> str:
    """Return the table of error classes as Markdown, with a column for each class that occurs."""
    occurring = [name for name in ERROR_CLASSES if frame.loc[frame["error_class"] == name, "n"].any()]
    first = frame[frame["error_class"] == ERROR_CLASSES[0]]
    table = head_columns(first)
    for name in occurring:
        table[f"`{name}`"] = frame.loc[frame["error_class"] == name, "n"].map(str).tolist()
    return page(
        f"What became of the SQL: {notes.study}",
        table,
        f"{notes.questions} Number of questions in each class, for the SQL taken out of the answer; a class that never "
        "occurs is left out. `ok` is right as a bag of rows and, where the gold query sorts, in its order; "
        "`wrong_order_only` is right as a bag, `duplicate_only` as a set; the other classes that begin with `wrong`, "
        "and `extra_or_missing_columns`, ran and gave other rows or columns. The classes do not depend on the "
        f"headline's semantics. {notes.hash}",
    )


def mmlu_md(frame: pd.DataFrame, notes: Notes) -> str:
    """Return the MMLU table as Markdown."""
    table = head_columns(frame)
    table["Category"] = frame["category"].map(escape)
    table["Right"] = counts(frame["correct"], frame["n"])
    table["Accuracy % (interval)"] = intervals(frame)
    table["Generated %"] = frame["accuracy_generated_pct"].map("{:.1f}".format)
    table["Invalid %"] = frame["invalid_pct"].map("{:.1f}".format)
    return page(
        f"MMLU: {notes.study}",
        table,
        f"{notes.mmlu} {notes.wilson} Accuracy is that of the letter with the highest probability; chance is 25%. "
        '"Generated" reads a letter from generated text instead, where "invalid" texts, which give no plain letter, '
        "count as wrong.",
    )


def regression_md(frame: pd.DataFrame, notes: Notes) -> str:
    """Return the comparison of adapters with their base models as Markdown."""
    title = f"Adapters against their base model: {notes.study}"
    if frame.empty:
        return f"# {title}\n\nThis study has no adapters: there is nothing to compare with the base model.\n"
    table = head_columns(frame)
    table["Measure"] = [
        MEASURES[row.measure] + ("" if row.category == ALL else f", {escape(row.category)}")
        for row in frame.itertuples()
    ]
    table["n"] = frame["n"].map(str)
    table["Base % → tuned %"] = [
        f"{row.base_accuracy_pct:.1f} → {row.tuned_accuracy_pct:.1f}" for row in frame.itertuples()
    ]
    table["Difference pp (interval)"] = [
        f"{signed(row.difference_pp)} ({signed(row.ci_low_pp)} to {signed(row.ci_high_pp)})"
        for row in frame.itertuples()
    ]
    table["Change %"] = ["n/a" if pd.isna(value) else signed(value) for value in frame["percent_change"]]
    table["Gained / lost"] = [f"{row.gained} / {row.lost}" for row in frame.itertuples()]
    table["p"] = frame["p_mcnemar"].map(p_value)
    table["p (Holm)"] = frame["p_holm"].map(p_value)
    table["Detectable pp"] = ["n/a" if pd.isna(value) else f"{value:.1f}" for value in frame["minimum_detectable_pp"]]
    table["Verdict"] = frame["verdict"]
    headline = int((frame["category"] == ALL).sum())
    return page(
        title,
        table,
        f"{notes.spider}\n\n{notes.mmlu}\n\n"
        f"Difference: tuned minus base in percentage points (pp), with its {notes.percent} interval (Bonett and Price "
        "2012). Change: the same in percent of the base's right answers, n/a where the base is not shown to be above "
        "chance (0% for SQL, 25% for MMLU). Gained: base wrong, tuned right; lost: the reverse. p: exact McNemar test; "
        f"p (Holm): adjusted for the {headline} comparisons of execution accuracy and aggregate MMLU, and for the "
        f"{len(frame) - headline} of single categories apart. Verdict: by the adjusted p at level {notes.alpha}. "
        "Detectable: the least true difference that a study of this n finds with 80% probability before adjustment "
        "(Connor 1987). Questions are taken as independent of each other.",
    )


def head_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that say which run a row is about; a variant's name holds its swept settings."""
    return pd.DataFrame({"Model": frame["model"].map(escape), "Variant": frame["variant"].map(escape)})


def counts(correct: pd.Series, n: pd.Series) -> list[str]:
    """Return "12 / 40" for each row."""
    return [f"{k} / {total}" for k, total in zip(correct, n, strict=True)]


def intervals(frame: pd.DataFrame) -> list[str]:
    """Return "30.0 (18.1 to 45.4)" for each row."""
    return [f"{row.accuracy_pct:.1f} ({row.ci_low:.1f} to {row.ci_high:.1f})" for row in frame.itertuples()]


def shares(values: pd.Series) -> list[str]:
    """Return "30.0" for each value, n/a for one that is missing."""
    return ["n/a" if pd.isna(value) else f"{value:.1f}" for value in values]


def signed(value: float) -> str:
    """Return a number with one digit and its sign; zero has none."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def p_value(p: float) -> str:
    """Return a p value as journals print it."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def escape(text: str) -> str:
    """Return a name that cannot break a Markdown table."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def page(title: str, table: pd.DataFrame, notes: str) -> str:
    """Return a Markdown page: title, table, notes."""
    return f"# {title}\n\n{markdown_table(table)}\n\n{notes}\n"


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as Markdown, words to the left and numbers to the right."""
    aligned = [
        "left" if column in ("Model", "Variant", "Category", "Measure", "Verdict") else "right" for column in table
    ]
    return table.to_markdown(index=False, disable_numparse=True, colalign=aligned)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables(
            spider=snakemake.input.spider,
            mmlu=snakemake.input.mmlu,
            outputs=dict(snakemake.output.items()),
            **snakemake.params.settings,
        )
