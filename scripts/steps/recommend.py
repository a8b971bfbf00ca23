"""Recommend a setting of each model: the largest gain among those shown to lose no more than the margin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from analysis import describe
from analysis.choose import recommendation
from analysis.data import read_results, write_table
from common.files import write_json, write_text
from common.job import job
from present.tables import alone


def recommend(
    records: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Choose among the settings that the study trained, ready-made ones, interpolations, checkpoints and soups.

    Arguments and errors are those of `tables`, with the output `decision`: what is recommended, as JSON for
    `export_recommended`.
    """
    results = read_results(records, settings)
    frame, decided = recommendation(results)
    write_table(outputs["csv"], frame)
    questions = describe.questions(results)
    write_text(outputs["md"], alone("recommendation", frame, settings, questions, results.measures))
    write_json(outputs["decision"], decided)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        recommend(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
