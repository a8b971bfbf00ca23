"""Put into one table what the gold queries are worth, and between which bounds that leaves each accuracy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from analysis import describe
from analysis.data import read_results, write_table
from analysis.gold import bounds
from common.files import write_text
from common.job import job
from present.tables import alone
from tasks.records import read_records
from tasks.text_to_sql import CERTIFIED


def gold(inputs: Mapping[str, Any], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]) -> None:
    """Write the table as CSV and as Markdown; arguments and errors are those of `tables`.

    Of the text-to-SQL tasks alone; as `certified_<task>` the inputs have the rows of `certify`.
    """
    records: dict[str, Sequence[str | Path]] = {task: inputs[task] for task in settings["tasks"]}
    results = read_results(records, settings)
    frame = bounds(results, {task: read_records(inputs[f"certified_{task}"], CERTIFIED) for task in records})
    write_table(outputs["csv"], frame)
    questions = describe.questions(results)
    write_text(outputs["md"], alone("gold", frame, settings, questions, results.measures))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        gold(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
