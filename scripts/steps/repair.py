"""Put into one table what a second answer changes where the SQL of the first one did not run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from analysis import describe
from analysis.data import read_results, write_table
from analysis.repair import second_round
from common.files import read_jsonl, write_text
from common.job import job
from present.tables import alone


def repair(
    inputs: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write the table as CSV and as Markdown; settings and errors are those of `tables`, with the target alone.

    The `runs` of the settings are those whose answers were repaired and, with `repairs`, those that did so.

    Args:
        inputs: `records` of each run, in their order; `again`, the second answers of each run that has `repairs`.
    """
    (target,) = settings["tasks"]
    results = read_results({target: inputs["records"]}, settings)
    frame = second_round(results, [{row["id"] for row in read_jsonl(path)} for path in inputs["again"]])
    write_table(outputs["csv"], frame)
    questions = describe.questions(results)
    write_text(outputs["md"], alone("repair", frame, settings, questions, results.measures))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        repair(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
