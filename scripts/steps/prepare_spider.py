"""Split Spider into few-shot examples, training, validation and dev rows, and describe the splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import sha256_file, sha256_json, write_json, write_jsonl
from common.job import job
from custom_metrics.hardness import LEVELS, parse
from tasks import text_to_sql

INPUTS = ("dev", "tables", "train_others", "train_spider")


def prepare_spider(data: str | Path, settings: Mapping[str, Any], out_dir: str | Path) -> None:
    """Write train.jsonl, validation.jsonl, dev.jsonl, shots.jsonl and manifest.json into `out_dir`.

    `data` is a folder of `fetch_spider`; `settings` are options of `tasks.text_to_sql.prepare`, where errors are told.
    """
    data, out_dir = Path(data), Path(out_dir)
    splits, copies = text_to_sql.prepare(settings, data)
    for name, rows in splits.items():
        write_jsonl(out_dir / f"{name}.jsonl", rows)
    # What a training may see, to fit or to choose by, without rows of dev.
    learnt_from = splits["train"] + (splits["validation"] if settings["validation"]["by"] != "dev" else [])
    dev_texts = {row["question"] for row in splits["dev"]}
    everything = [*learnt_from, *splits["dev"], *splits["shots"]]
    manifest = {
        "settings": dict(settings),
        "inputs": {name: sha256_file(data / f"{name}.json") for name in INPUTS},
        "shots": [row["id"] for row in splits["shots"]],
        "copies_of_shots_left_out": copies,
        "splits": {name: describe(rows, out_dir / f"{name}.jsonl") for name, rows in splits.items()},
        # The rules of hardness cannot be applied to these: they are filed under "extra".
        "unparsable": [row["id"] for row in everything if parse(row["query"]) is None],
        # Same words on another database: no leak, but worth knowing.
        "train_questions_worded_as_in_dev": [row["id"] for row in learnt_from if row["question"] in dev_texts],
    }
    write_json(out_dir / "manifest.json", manifest)


def describe(rows: Sequence[dict], path: Path) -> dict:
    """Count the rows of a split by hardness and by database, and hash them."""
    return {
        "rows": len(rows),
        "ids_sha256": sha256_json([row["id"] for row in rows]),
        "sha256": sha256_file(path),
        "by_hardness": {**dict.fromkeys(LEVELS, 0), **Counter(row["hardness"] for row in rows)},
        "by_database": Counter(row["db_id"] for row in rows),
    }


if __name__ == "__main__":
    with job(snakemake.log[0]):
        data, out_dir = (Path(files.manifest).parent for files in (snakemake.input, snakemake.output))
        prepare_spider(data, snakemake.params.settings, out_dir)
