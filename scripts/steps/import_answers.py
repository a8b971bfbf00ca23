"""Join answers that were given elsewhere to the questions of a task, as if a model of this study had given them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import read_jsonl, redacted, sha256_file, write_json, write_jsonl
from common.job import job
from tasks.imported import Join, read_given
from tasks.registry import KINDS


def import_answers(inputs: Mapping[str, str | Path], outputs: Mapping[str, str | Path], settings: Mapping) -> None:
    """Write the answers as `predict` does, and a report that says where they are from.

    Args:
        inputs: `file`, as it was given; `questions`, of `prepare`; `manifest`, of `fetch_data`.
        outputs: `answers`, JSON lines; `report`, JSON.
        settings: of `tasks.imported.Answers`, with `name`, its place in the study, and the task's `kind`.

    Raises:
        UserError: as `tasks.imported`.
    """
    asked = read_jsonl(inputs["questions"])
    known = KINDS[settings["kind"]].held_out(Path(inputs["manifest"]).parent)
    rows = read_given(inputs["file"], settings)
    join = Join(rows, asked, known, settings)
    answers = list(join.answers(asked))
    facts: dict[str, Any] = {
        "source": redacted(settings["source"]),
        "sha256": sha256_file(inputs["file"]),
        "rows": len(rows),
        "questions": len(asked),
        "answered": len(answers),
        "not_asked": join.not_asked,
        "settings": {key: value for key, value in settings.items() if key not in ("source", "files")},
    }
    missing = len(asked) - len(answers)
    print(f"{facts['source']}: {len(answers)} of {len(asked)} questions answered; {missing} count as wrong.")
    if join.not_asked:
        print(f"{join.not_asked} rows are about questions that the study does not ask; they are left out.")
    write_jsonl(outputs["answers"], answers)
    write_json(outputs["report"], {"imported": facts, "answers_sha256": sha256_file(outputs["answers"])})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = dict(snakemake.input.items()), dict(snakemake.output.items())
        import_answers(*files, snakemake.params.settings)
