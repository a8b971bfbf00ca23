"""Put all records of a study into three tables: execution accuracy, MMLU, and each adapter against its base model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from _files import UserError, atomic_write, sha256_json
from _job import job
from _records import MMLU_COLUMNS, SPIDER_COLUMNS, read_records
from _stats import (
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
) -> None:
    """Write the three tables, each as CSV (the truth: full precision) and as Markdown (the same, to be read).

    Args:
        spider, mmlu: records of each run, in the order of `runs`.
        outputs: paths named execution_accuracy, mmlu and regression, and the same with `_md`.
        study: the study's name, for the headings.
        runs: of each run `model`, `variant` and `settings` (the swept values of an adapter, {} for the base).
        confidence_level: of all intervals and verdicts, such as 0.95.

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

    accuracy = pd.DataFrame([h | spider_row(f, confidence_level) for h, f in zip(heads, spider_frames, strict=True)])
    knowledge = pd.DataFrame(
        [h | row for h, f in zip(heads, mmlu_frames, strict=True) for row in mmlu_rows(f, confidence_level)]
    )
    regression = regression_rows(heads, spider_frames, mmlu_frames, confidence_level)

    hashes = {
        "spider": sha256_json(spider_frames[0][SPIDER_QUESTION].values.tolist()),
        "mmlu": sha256_json(mmlu_frames[0][MMLU_QUESTION].values.tolist()),
    }
    notes = Notes(study, confidence_level, len(spider_frames[0]), mmlu_frames[0]["category"], hashes)
    for name, frame, text in (
        ("execution_accuracy", accuracy, execution_accuracy_md(accuracy, notes)),
        ("mmlu", knowledge, mmlu_md(knowledge, notes)),
        ("regression", regression, regression_md(regression, notes)),
    ):
        with atomic_write(outputs[name]) as stream:
            frame = frame.assign(confidence_level=confidence_level)
            frame.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
        with atomic_write(outputs[f"{name}_md"]) as stream:
            stream.write(text)


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


def spider_row(frame: pd.DataFrame, level: float) -> dict:
    """Return one run's row of the table of execution accuracy; a level of hardness without questions has n 0."""
    n = len(frame)
    raw = int(frame["correct_raw"].sum())
    row = proportion(int(frame["correct"].sum()), n, level)
    row |= {"correct_raw": raw, "accuracy_raw_pct": 100.0 * raw / n}
    for hardness in HARDNESS:
        part = frame.loc[frame["hardness"] == hardness, "correct"]
        accuracy = 100.0 * int(part.sum()) / len(part) if len(part) else None
        row |= {
            f"{hardness}_n": len(part),
            f"{hardness}_correct": int(part.sum()),
            f"{hardness}_accuracy_pct": accuracy,
        }
    return row


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

    def __init__(self, study: str, level: float, n: int, mmlu_categories: pd.Series, hashes: Mapping[str, str]):
        self.study = study
        self.percent, self.alpha = f"{100 * level:g}%", f"{1 - level:.4g}"
        sizes = mmlu_categories.value_counts(sort=False)
        self.spider = (
            f"n = {n} Spider questions, the same for all rows. Bag semantics: an answer is right if its query gives "
            "the gold query's rows, equally often, in any order, columns in the same order. Questions (id, database, "
            f"hardness, text, gold): sha256 `{hashes['spider']}`."
        )
        parts = ", ".join(f"{count} {escape(name)}" for name, count in sizes.items())
        self.mmlu = (
            f"n = {len(mmlu_categories)} MMLU questions, the same for all rows ({parts}). Questions (id, subject, "
            f"category, answer): sha256 `{hashes['mmlu']}`."
        )
        self.wilson = f"Intervals: {self.percent}, Wilson."


def execution_accuracy_md(frame: pd.DataFrame, notes: Notes) -> str:
    """Return the table of execution accuracy as Markdown."""
    table = head_columns(frame)
    table["Right"] = counts(frame["correct"], frame["n"])
    table["Accuracy % (interval)"] = intervals(frame)
    table["As answered %"] = frame["accuracy_raw_pct"].map("{:.1f}".format)
    for hardness in HARDNESS:
        if frame[f"{hardness}_n"].any():
            table[f"{hardness.capitalize()} % (n = {frame[f'{hardness}_n'].iloc[0]})"] = frame[
                f"{hardness}_accuracy_pct"
            ].map("{:.1f}".format)
    return page(
        f"Execution accuracy on Spider: {notes.study}",
        table,
        f'{notes.spider} {notes.wilson} "As answered" scores the raw answer without taking the SQL out of it.',
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
    aligned = [
        "left" if column in ("Model", "Variant", "Category", "Measure", "Verdict") else "right" for column in table
    ]
    return f"# {title}\n\n{table.to_markdown(index=False, disable_numparse=True, colalign=aligned)}\n\n{notes}\n"


if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables(
            spider=snakemake.input.spider,
            mmlu=snakemake.input.mmlu,
            outputs=dict(snakemake.output.items()),
            **snakemake.params.settings,
        )
