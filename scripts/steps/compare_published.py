"""Put the figures that a report printed beside ours: difference, interval, and whether they can be right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest

import _path  # noqa: F401
from analysis.published import ALL, BASE, check_table, findings
from common.files import UserError, atomic_write
from common.job import job
from present.format import Say
from present.tables import to_markdown

COLUMNS = [
    "table", "measure", "kind", "variant", "column", "published", "published_n", "published_correct", "possible",
    "why", "run", "ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci",
]  # fmt: skip
# What the table of execution accuracy calls the row of all questions, where it has rows for parts of them.
AGGREGATE = "aggregate"


def compare_published(
    execution_accuracy: str | Path,
    mmlu: Sequence[str | Path],
    csv: str | Path,
    md: str | Path,
    study: str,
    published: Mapping[str, Any],
    dev_questions: int,
    confidence_level: float,
    runs: Sequence[Mapping[str, str]],
    known_defects: Sequence[str],
    accept_defect: Sequence[str],
    language: str = "en",
) -> None:
    """Write the comparison as CSV (the truth) and as Markdown (the same, to be read).

    Args:
        execution_accuracy: the table of execution accuracy.
        mmlu: the records of each run, in the order of `runs`: a report's categories need not be this study's, so our
            figure is counted anew from the same subjects.
        csv, md: the files to write.
        study: the name for the heading.
        published: the block of the study's configuration.
        dev_questions: how many questions the official evaluation split has.
        confidence_level: of our intervals, such as 0.95 (Wilson 1927).
        runs: `model` and `variant` of each run.
        known_defects, accept_defect: what is said of the method, and which failures of the audit it ran with.
        language: of the Markdown page.

    Raises:
        UserError: a table or a file of records is not there or lacks a column.
    """
    ours = {
        run["variant"]: {"execution_accuracy": None, "mmlu": records}
        for run, records in zip(runs, mmlu, strict=True)
        if run["model"] == published["model"]
    }
    accuracy = _read(execution_accuracy, ["model", "variant", "n", "correct"])
    if "questions" in accuracy:
        accuracy = accuracy[accuracy["questions"] == AGGREGATE]
    accuracy = accuracy[accuracy["model"] == published["model"]].set_index("variant")
    for variant, measures in ours.items():
        if variant not in accuracy.index:
            raise UserError(f"{execution_accuracy}: no row of {variant}. Run `snakemake -R tables`.")
        measures["execution_accuracy"] = int(accuracy.at[variant, "correct"]), int(accuracy.at[variant, "n"])
        measures["mmlu"] = _read(measures["mmlu"], ["subject", "category", "correct"])

    rows = []
    for table in published["tables"]:
        for row in check_table(table, published["subjects"]):
            runs_of_it = matching(row["variant"], list(ours))
            for run in runs_of_it or [None]:
                rows.append(row | {"run": run} | _beside(row, ours, run, published["subjects"], confidence_level))
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    for column in ("published_n", "published_correct", "n", "correct"):
        frame[column] = frame[column].astype("Int64")
    with atomic_write(csv) as stream:
        frame.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
    with atomic_write(md) as stream:
        say = Say(language)
        facts = {"study": study, "percent": say.level(confidence_level)}
        facts |= {"known_defects": known_defects, "accept_defect": accept_defect}
        stream.write(_page(published, rows, findings(published, dev_questions), facts, say))


def matching(variant: str, ours: Sequence[str]) -> list[str]:
    """Return our runs that have the published variant's settings: `lr0.0001` stands for `lr0.0001-seed1` too."""
    parts = set(variant.split("-"))
    return [name for name in ours if parts <= set(name.split("-"))]


def count(records: pd.DataFrame, column: str, subjects: Mapping[str, Sequence[str]]) -> tuple[int, int] | None:
    """Return right answers and number of our MMLU questions that a published column is about; None if we have none.

    A category stands for the subjects that the report put into it, whatever this study calls them; where the report
    does not name them, for this study's category of that name. None too if we do not have all of its subjects.
    """
    if column == ALL:
        wanted = [subject for named in subjects.values() for subject in named] or list(records["subject"].unique())
    elif column in subjects:
        wanted = subjects[column]
    elif column in set(records["subject"]):
        wanted = [column]
    else:
        wanted = list(records.loc[records["category"] == column, "subject"].unique())
    if not wanted or not set(wanted) <= set(records["subject"]):
        return None
    part = records.loc[records["subject"].isin(wanted), "correct"]
    return int(part.sum()), len(part)


def _beside(
    row: Mapping[str, Any], ours: Mapping[str, dict], run: str | None, subjects: Mapping, level: float
) -> dict[str, Any]:
    """Return our columns beside one published figure; empty where we have none."""

    def counted(variant: str | None) -> tuple[int, int] | None:
        if variant is None or variant not in ours:
            return None
        found = ours[variant][row["measure"]]
        return found if row["measure"] == "execution_accuracy" else count(found, row["column"], subjects)

    found = counted(run)
    if found is None or not found[1]:
        return {}
    correct, n = found
    if row["kind"] == "change":
        base = counted(BASE)
        # A difference in percentage points that a report calls percent stays what it is called.
        return {"ours": 100 * (correct - base[0]) / base[0], "n": n} if base and base[0] else {}
    interval = binomtest(correct, n).proportion_ci(confidence_level=level, method="wilson")
    low, high = 100 * interval.low, 100 * interval.high
    return {
        "ours": 100 * correct / n,
        "n": n,
        "correct": correct,
        "difference_pp": 100 * correct / n - row["published"],
        "ci_low": low,
        "ci_high": high,
        "published_in_ci": bool(low <= row["published"] <= high),
    }


def _page(published: Mapping, rows: Sequence[Mapping], odd: Sequence[str], facts: Mapping, say: Say) -> str:
    """Return the comparison as a Markdown page; `facts` go into its notes."""
    words = "tables.published"
    named = [
        row
        | {"shown": row["run"] or row["variant"]}
        | {"what": say.word(f"{words}.{row['kind']}", what=f"{_words(row['measure'])}, {_words(row['column'])}")}
        for row in rows
    ]
    beside = ["ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci"]
    columns = ["table", "shown", "what", "published", "kind", "decimals", "possible", "why", *beside]
    stated = [f"* {one['what']}: {say.number(one['value'], one['decimals'])}" for one in published["stated"]]
    facts = {
        **facts,
        "report": published["report"],
        "findings": "\n".join(f"* {sentence}" for sentence in odd),
        "stated": "\n".join(stated),
    }
    return to_markdown("published", pd.DataFrame(named, columns=columns), facts, say)


def _words(name: str) -> str:
    return {"mmlu": "MMLU", "execution_accuracy": "execution accuracy"}.get(name, name.replace("_", " "))


def _read(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that must have these columns. Raises a UserError if it has not."""
    # "None" is no missing value here: MMLU has it as an answer, and a category may have any name.
    frame = pd.read_csv(path, keep_default_na=False)
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}, found {', '.join(frame)}. Run the rule that makes it again."
        )
    return frame


if __name__ == "__main__":
    with job(snakemake.log[0]):
        compare_published(
            execution_accuracy=snakemake.input.execution_accuracy,
            mmlu=snakemake.input.mmlu,
            csv=snakemake.output.csv,
            md=snakemake.output.md,
            **snakemake.params.settings,
        )
