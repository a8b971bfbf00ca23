"""Put the figures that a report printed beside ours: difference, interval, and whether they can be right."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis.data import write_table
from analysis.published import COLUMNS, WHOLE, Reasons, beside, findings
from common.files import write_text
from common.job import job
from present.format import Say
from present.tables import to_markdown
from tasks.records import read_records
from tasks.registry import measured


def compare_published(
    records: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write the comparison as CSV (the truth) and as Markdown (the same, to be read).

    Args:
        records: by task, the records of each run, in the order of `runs`.
        outputs: the files `csv` and `md`.
        settings: the rule's; `official` has by task the size of the official evaluation split.
    """
    published, measures = settings["published"], measured(settings["tasks"])
    ours = {
        run["variant"]: {task: read_records(paths[i], measures[task].columns) for task, paths in records.items()}
        for i, run in enumerate(settings["runs"])
        if run["model"] == published["model"]
    }
    rows = beside(published, ours, measures, settings["confidence_level"])
    # The CSV file is the same in every language.
    frame = pd.DataFrame([row | {"why": told(row["why"], Say("en"))} for row in rows])
    whole = dict.fromkeys(("published_n", "published_correct", "n", "correct"), "Int64")
    write_table(outputs["csv"], frame.reindex(columns=COLUMNS).astype(whole))
    write_text(outputs["md"], page(rows, settings, Say(settings["language"], measures)))


def page(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], say: Say) -> str:
    """Write the comparison as a page of Markdown."""
    published = settings["published"]

    def what(row: Mapping[str, Any]) -> str:
        part = say.word("tables.published.all") if row["column"] == WHOLE else row["column"].replace("_", " ")
        return say.word(f"tables.published.{row['kind']}", what=say.measure(row["task"], part))

    shown = [
        row | {"shown": row["run"] or row["variant"], "what": what(row), "why": told(row["why"], say, say.marked)}
        for row in rows
    ]
    odd = (f"* {told([one], say, say.marked)}" for one in findings(published, settings["official"]))
    stated = (f"* {one['what']}: {say.number(one['value'], one['decimals'])}" for one in published["stated"])
    facts = {"percent": say.level(settings["confidence_level"]), "report": published["report"]}
    facts |= {"findings": "\n".join(odd), "stated": "\n".join(stated)}
    beside_ours = ["ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci"]
    columns = ["table", "shown", "what", "published", "kind", "decimals", "possible", "why", *beside_ours]
    return to_markdown("published", pd.DataFrame(shown, columns=columns), settings | facts, say)


def told(reasons: Reasons, say: Say, marked: Callable[[str], str] = str, between: str = "; ") -> str:
    """Write reasons in a language; `marked` writes a number with its marks."""

    def value(one: str | Reasons) -> str:
        if not isinstance(one, str):
            return told(one, say, marked, ", ")
        return one if any(letter.isalpha() for letter in one) else marked(one)

    return between.join(
        say.word(f"tables.published.why.{key}", **{name: value(one) for name, one in values.items()})
        for key, values in reasons
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        compare_published(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
