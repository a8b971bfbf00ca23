"""Put into one table how many verdicts turn where the machine alone makes the difference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from analysis import describe
from analysis.data import read_results, write_table
from analysis.noise import floor
from common.files import write_text
from common.job import job
from present.tables import alone


def noise(
    records: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write the table as CSV and as Markdown; arguments and errors are those of `tables`.

    The `runs` of the settings are the repeated ones and, with `repeats` and `how`, those that repeat them.
    """
    results = read_results(records, settings)
    frame = floor(results)
    write_table(outputs["csv"], frame)
    questions = describe.questions(results)
    write_text(outputs["md"], alone("noise", frame, settings, questions, results.measures))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        noise(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
