"""Make one part of a task's data: the rows to train on, to validate on, to show as few-shot examples, or to ask."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import sha256_file, sha256_json, write_json, write_jsonl
from common.job import job
from tasks.imported import Join, read_given
from tasks.registry import KINDS


def prepare(folder: Path, part: str, settings: Mapping[str, Any], rows: Path, yardsticks: Sequence[Path] = ()) -> None:
    """Write the rows (JSON lines) and, beside them, what they are (JSON).

    Args:
        folder: of the task's raw data.
        part: train, validation, shots or test.
        settings: of the part, with `kind` and `name`; of a task of role replay `yardsticks`, the kinds of those. `only`
            names the questions to ask, if not all.
        yardsticks: the folders of the raw data of those, whose rows a task of role replay must not hold.

    Raises:
        UserError: as the task's own `prepare`.
    """
    given = {}
    if "yardsticks" in settings:
        data = zip(settings["yardsticks"], yardsticks, strict=True)
        given["held_out"] = [row for kind, place in data for row in KINDS[kind].held_out(place)]
    found, facts = KINDS[settings["kind"]].prepare(settings, folder, part, **given)
    write_jsonl(rows, found)
    ids = [row["id"] for row in found]
    known = {key: settings[key] for key in settings if key != "only"}
    about = {"settings": known, "rows": len(found), "ids": ids, "ids_sha256": sha256_json(ids)}
    about |= {"source_sha256": sha256_file(folder / "manifest.json"), "sha256": sha256_file(rows)}
    write_json(rows.with_suffix(".json"), about | facts)


def answered(folder: Path, settings: Mapping[str, Any], file: str | Path) -> list[str]:
    """The questions that a file of answers is about, by their ids; `settings` has `tasks.imported.Answers` as answered.

    Raises:
        UserError: as `tasks.imported`.
    """
    task, given = KINDS[settings["kind"]], settings["answered"]
    asked = task.prepare(settings, folder, "test")[0]
    return sorted(Join(read_given(file, given), asked, task.held_out(folder), given).found)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        settings, data = snakemake.params.unwatched, Path(snakemake.input.manifest).parent
        if "answered" in settings:
            settings = {**settings, "only": answered(data, settings, snakemake.input.answers)}
        prepare(
            data,
            snakemake.wildcards.part,
            settings,
            Path(snakemake.output.rows),
            [Path(file).parent for file in snakemake.input.get("yardsticks", [])],
        )
