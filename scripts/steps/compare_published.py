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
from tasks.records import MMLU_COLUMNS, read_records


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
        UserError: the table lacks a run, or a file of records lacks a column.
    """
    published = settings["published"]
    # "None" is no missing value here: a variant may have any name.
    table = pd.read_csv(execution_accuracy, keep_default_na=False)
    table = table[(table["model"] == published["model"]) & (table["questions"] == ALL)].set_index("variant")
    ours = {}
    for run, records in zip(settings["runs"], mmlu, strict=True):
        if run["model"] != published["model"]:
            continue
        if run["variant"] not in table.index:
            raise UserError(f"{execution_accuracy}: no row of {run['variant']}. Run `snakemake -R tables`.")
        counted = tuple(int(table.at[run["variant"], column]) for column in ("correct", "n"))
        ours[run["variant"]] = {SPIDER: counted, MMLU: read_records(records, MMLU_COLUMNS)}
    rows = beside(published, ours, settings["confidence_level"])
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
    odd = (f"* {sentence}" for sentence in findings(published, settings["dev_questions"]))
    stated = (f"* {one['what']}: {say.number(one['value'], one['decimals'])}" for one in published["stated"])
    facts = {"percent": say.level(settings["confidence_level"]), "report": published["report"]}
    facts |= {"findings": "\n".join(odd), "stated": "\n".join(stated)}
    beside_ours = ["ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci"]
    columns = ["table", "shown", "what", "published", "kind", "decimals", "possible", "why", *beside_ours]
    return to_markdown("published", pd.DataFrame(shown, columns=columns), settings | facts, say)


def named(key: str) -> str:
    """Name a measure or a category as it stands in a sentence."""
    return "MMLU" if key == "mmlu" else key.replace("_", " ")


if __name__ == "__main__":
    with job(snakemake.log[0]):
        given, outputs = snakemake.input, dict(snakemake.output.items())
        compare_published(given.execution_accuracy, given.mmlu, outputs, snakemake.params.settings)
