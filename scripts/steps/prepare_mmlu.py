"""Draw the multiple-choice questions of each category, each with the few-shot examples of its subject."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import sha256_file, sha256_json, write_json, write_jsonl
from common.job import job
from tasks import mmlu
from tasks.choice import LETTERS


def prepare_mmlu(data: str | Path, settings: Mapping[str, Any], questions: str | Path, manifest: str | Path) -> None:
    """Write the question file (JSON lines) and its manifest.

    Args:
        data: folder that `fetch_mmlu` wrote.
        settings: options of `tasks.choice.draw`, where errors are told too.
        questions, manifest: output paths.
    """
    rows = mmlu.prepare(settings, data)
    write_jsonl(questions, rows)
    categories = settings["categories"]
    named = [subject for subjects in categories.values() for subject in subjects]
    # MMLU itself has a few questions twice under one subject.
    contents = [sha256_json([row["subject"], row["question"], row["choices"]]) for row in rows]
    ids = [row["id"] for row in rows]
    write_json(
        manifest,
        {
            "settings": dict(settings),
            "inputs": {split: sha256_file(Path(data) / f"{split}.csv") for split in mmlu.SPLITS},
            "rows": len(rows),
            "sha256": sha256_file(questions),
            "by_category": {name: sum(row["category"] == name for row in rows) for name in categories},
            "by_subject": {name: sum(row["subject"] == name for row in rows) for name in named},
            "by_answer": {letter: sum(row["answer"] == letter for row in rows) for letter in LETTERS},
            "repeated_questions": len(contents) - len(set(contents)),
            "ids": ids,
            "ids_sha256": sha256_json(ids),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        prepare_mmlu(
            Path(snakemake.input.test).parent,
            snakemake.params.settings,
            snakemake.output.questions,
            snakemake.output.manifest,
        )
