"""Run the SQL of every answer of a run, and keep the answers whose SQL failed; no gold query is looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import read_jsonl, write_jsonl
from common.job import job
from tasks import text_to_sql
from tasks.records import by_id


def run_sql(
    inputs: Mapping[str, str | Path], output: str | Path, settings: Mapping[str, Any], workers: int = 1
) -> None:
    """Write the failed answers as JSON lines, in the order of the questions; see `text_to_sql.failed`.

    Of the questions id and database are read. Arguments and errors are those of `score`.
    """
    questions = by_id(read_jsonl(inputs["questions"]), inputs["questions"])
    given = by_id(read_jsonl(inputs["answers"]), inputs["answers"], questions)
    asked = [(name, questions[name]["db_id"], given[name]["answer"]) for name in questions if name in given]
    write_jsonl(output, list(text_to_sql.failed(settings, Path(inputs["manifest"]).parent, asked, workers)))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = dict(snakemake.input.items()), snakemake.output.failed
        run_sql(*files, snakemake.params.unwatched, snakemake.threads)
