"""Score a model's answers to the questions of a task: one record a question, and what the page of answers shows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl, sha256_file, write_text
from common.job import job
from tasks.records import by_id, write_records
from tasks.registry import KINDS


def score(
    inputs: Mapping[str, str | Path], outputs: Mapping[str, str | Path], settings: Mapping[str, Any], workers: int = 1
) -> None:
    """Write one record for each question, in the order of the questions.

    Args:
        inputs: `answers`, JSON lines with id and what the model answered; `report`, if there is one, what was written
            of them; `questions`, of `prepare`; `manifest`, of `fetch_data`; `first`, if some questions were asked
            again: all answers before that.
        outputs: `records`, a CSV file (see `tasks.records`); `rows`, JSON lines with what the page of answers shows
            besides, if the task has any such thing.
        settings: of the stage score, with `kind` and `name`.
        workers: processes to use; the records do not depend on it.

    Raises:
        UserError: ids are unknown or come twice, or the answers have changed since; else as the task's own `score`.
    """
    if "report" in inputs:
        check_unchanged(inputs["answers"], inputs["report"])
    task = KINDS[settings["kind"]]
    questions = by_id(read_jsonl(inputs["questions"]), inputs["questions"])
    given = by_id(read_jsonl(inputs["answers"]), inputs["answers"], questions)
    if inputs.get("first"):
        given = by_id(read_jsonl(inputs["first"]), inputs["first"], questions) | given
    asked = [(row, given.get(name)) for name, row in questions.items()]
    scored = list(task.score(settings, Path(inputs["manifest"]).parent, asked, workers))
    if "rows" in outputs:
        # ASCII, as a value that is no UTF-8 has lone surrogates.
        rows = (json.dumps(besides, separators=(",", ":")) + "\n" for _, besides in scored)
        write_text(outputs["rows"], "".join(rows))
    write_records(outputs["records"], task.measure(settings).columns, (record for record, _ in scored))


def check_unchanged(answers: str | Path, report: str | Path) -> None:
    """Refuse answers that are not those of their report: a file that was cut may still have whole lines."""
    expected, found = read_json(report).get("answers_sha256"), sha256_file(answers)
    if expected not in (None, found):
        raise UserError(
            f"{answers}: cut or changed since it was written: expected sha256 {expected}, as in {report}, found "
            f"{found}. Put it back, or delete it and run snakemake again: it is then made anew."
        )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = dict(snakemake.input.items()), dict(snakemake.output.items())
        score(*files, snakemake.params.settings, snakemake.threads)
