"""Put the figures that a report printed beside ours: difference, interval, and whether they can be right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis.data import write_table
from analysis.published import COLUMNS, WHOLE, Reasons, beside, findings, swapped
from common.files import write_json, write_text
from common.job import job
from present.format import Say
from present.tables import to_markdown
from tasks.records import read_records
from tasks.registry import measured


def compare_published(
    records: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write the comparison as CSV (the truth) and as Markdown (the same, to be read).

    The output `findings` is what the report says of it, as JSON; `official` of the settings has by task the size of the
    official evaluation split. All else is as of `tables`.
    """
    published, measures = settings["published"], measured(settings["tasks"])
    ours = {
        run["variant"]: {task: read_records(paths[i], measures[task].columns) for task, paths in records.items()}
        for i, run in enumerate(settings["runs"])
        if run["model"] == published["model"]
    }
    rows = beside(published, ours, measures, settings["confidence_level"])
    # The CSV file is the same in every language.
    frame = pd.DataFrame([row | {"why": Say("en").told(row["why"])} for row in rows])
    whole = dict.fromkeys(("published_n", "published_correct", "n", "correct"), "Int64")
    write_table(outputs["csv"], frame.reindex(columns=COLUMNS).astype(whole))
    found = [*findings(published, settings["official"]), *swapped(rows)]
    write_text(outputs["md"], page(rows, found, settings, Say(settings["language"], measures)))
    compared = [row for row in rows if "ours" in row]
    facts = {"report": published["report"], "figures": len(rows), "compared": len(compared), "findings": found}
    facts["equal"] = sum(round(row["ours"], row["decimals"]) == row["published"] for row in compared)
    facts["impossible"] = sum(row["possible"] is False for row in rows)
    write_json(outputs["findings"], facts)


def page(rows: Sequence[Mapping[str, Any]], found: Reasons, settings: Mapping[str, Any], say: Say) -> str:
    """Write the comparison as a page of Markdown."""
    published = settings["published"]

    def what(row: Mapping[str, Any]) -> str:
        part = say.word("tables.published.all") if row["column"] == WHOLE else row["column"].replace("_", " ")
        return say.word(f"tables.published.{row['kind']}", what=say.measure(row["task"], part))

    shown = [
        row | {"shown": row["run"] or row["variant"], "what": what(row), "why": say.told(row["why"], say.marked)}
        for row in rows
    ]
    odd = (f"* {say.told([one], say.marked)}" for one in found)
    stated = (f"* {one['what']}: {say.number(one['value'], one['decimals'])}" for one in published["stated"])
    facts = {"percent": say.level(settings["confidence_level"]), "report": published["report"]}
    facts |= {"findings": "\n".join(odd), "stated": "\n".join(stated)}
    beside_ours = ["ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci"]
    columns = ["table", "shown", "what", "published", "kind", "decimals", "possible", "why", *beside_ours]
    return to_markdown("published", pd.DataFrame(shown, columns=columns), settings | facts, say)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        compare_published(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
