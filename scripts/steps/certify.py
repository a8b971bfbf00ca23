"""Certify the gold queries of a text-to-SQL task: whether they run, and whether their rows or order are open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import read_jsonl
from common.job import job
from tasks import text_to_sql
from tasks.records import write_records


def certify(
    inputs: Mapping[str, str | Path], output: str | Path, settings: Mapping[str, Any], workers: int = 1
) -> None:
    """Write one row for each question, with the columns `text_to_sql.CERTIFIED`, in the order of the questions.

    Arguments and errors are those of `score`, but for the answers.
    """
    questions, folder = read_jsonl(inputs["questions"]), Path(inputs["manifest"]).parent
    write_records(output, text_to_sql.CERTIFIED, text_to_sql.certified(settings, folder, questions, workers))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = dict(snakemake.input.items()), snakemake.output.certificates
        certify(*files, snakemake.params.settings, snakemake.threads)
