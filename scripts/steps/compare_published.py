"""Put the figures that a report printed beside ours: difference, interval, and whether they can be right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis.data import ALL, MMLU, SPIDER, write_table
from analysis.published import COLUMNS, beside, findings
from common.files import UserError, atomic_write
from common.job import job
from present.format import Say
from present.tables import to_markdown


def compare_published(
    execution_accuracy: str | Path,
    mmlu: Sequence[str | Path],
    outputs: Mapping[str, str | Path],
    settings: Mapping[str, Any],
) -> None:
    """Write the comparison as CSV (the truth) and as Markdown (the same, to be read).

    Args:
        execution_accuracy: the table of that name.
        mmlu: the records of each run, in the order of `runs`.
        outputs: the files `csv` and `md`.
        settings: the rule's. `published` is the block of the study, `dev_questions` the size of the official evaluation
            split, `runs` has `model` and `variant` of each run; the others are as in `tables`.

    Raises:
        UserError: a table or a file of records is not there or lacks a column.
    """
    published, level = settings["published"], settings["confidence_level"]
    table = read(execution_accuracy, ["model", "variant", "questions", "n", "correct"])
    table = table[(table["model"] == published["model"]) & (table["questions"] == ALL)].set_index("variant")
    ours = {}
    for run, records in zip(settings["runs"], mmlu, strict=True):
        if run["model"] != published["model"]:
            continue
        if run["variant"] not in table.index:
            raise UserError(f"{execution_accuracy}: no row of {run['variant']}. Run `snakemake -R tables`.")
        counted = tuple(int(table.at[run["variant"], column]) for column in ("correct", "n"))
        ours[run["variant"]] = {SPIDER: counted, MMLU: read(records, ["subject", "category", "correct"])}
    rows = beside(published, ours, level)
    whole = dict.fromkeys(("published_n", "published_correct", "n", "correct"), "Int64")
    write_table(outputs["csv"], pd.DataFrame(rows).reindex(columns=COLUMNS).astype(whole))
    with atomic_write(outputs["md"]) as stream:
        stream.write(page(rows, settings))


def page(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Write the comparison as a page of Markdown; the arguments are those of the step."""
    published, say = settings["published"], Say(settings["language"])
    shown = [
        row
        | {"shown": row["run"] or row["variant"]}
        | {"what": say.word(f"tables.published.{row['kind']}", what=f"{named(row['measure'])}, {named(row['column'])}")}
        for row in rows
    ]
    odd = findings(published, settings["dev_questions"])
    stated = [f"* {one['what']}: {say.number(one['value'], one['decimals'])}" for one in published["stated"]]
    facts = {
        **settings,
        "percent": say.level(settings["confidence_level"]),
        "report": published["report"],
        "findings": "\n".join(f"* {sentence}" for sentence in odd),
        "stated": "\n".join(stated),
    }
    beside_ours = ["ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci"]
    columns = ["table", "shown", "what", "published", "kind", "decimals", "possible", "why", *beside_ours]
    return to_markdown("published", pd.DataFrame(shown, columns=columns), facts, say)


def named(key: str) -> str:
    """Name a measure or a category as it stands in a sentence."""
    return "MMLU" if key == "mmlu" else key.replace("_", " ")


def read(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file. Raises a UserError if it lacks one of these columns."""
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
            outputs=dict(snakemake.output.items()),
            settings=snakemake.params.settings,
        )
