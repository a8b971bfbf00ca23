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
    """Write the questions (JSON lines) and their manifest.

    `data` is a folder of `fetch_mmlu`; `settings` are options of `tasks.choice.draw`, where errors are told too.
    """
    rows = mmlu.prepare(settings, data)
    write_jsonl(questions, rows)
    categories, ids = settings["categories"], [row["id"] for row in rows]
    parts = {
        "category": categories,
        "subject": [subject for subjects in categories.values() for subject in subjects],
        "answer": LETTERS,
    }
    # MMLU itself has a few questions twice under one subject.
    different = {sha256_json([row["subject"], row["question"], row["choices"]]) for row in rows}
    facts = {
        "settings": dict(settings),
        "inputs": {split: sha256_file(Path(data) / f"{split}.csv") for split in mmlu.SPLITS},
        "rows": len(rows),
        "sha256": sha256_file(questions),
        "repeated_questions": len(rows) - len(different),
        "ids": ids,
        "ids_sha256": sha256_json(ids),
    }
    for part, names in parts.items():
        facts[f"by_{part}"] = {name: sum(row[part] == name for row in rows) for name in names}
    write_json(manifest, facts)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        data = Path(snakemake.input.test).parent
        prepare_mmlu(data, snakemake.params.settings, snakemake.output.questions, snakemake.output.manifest)
