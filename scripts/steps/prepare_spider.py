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

    Args:
        data: folder that `fetch_spider` wrote.
        settings: options of `tasks.text_to_sql.prepare`, where errors are told too.
        out_dir: where the five files go.
    """
    data, out_dir = Path(data), Path(out_dir)
    splits = text_to_sql.prepare(settings, data)
    for name, rows in splits.rows.items():
        write_jsonl(out_dir / f"{name}.jsonl", rows)
    dev, shots = splits.rows["dev"], splits.rows["shots"]
    dev_texts = {row["question"] for row in dev}
    manifest = {
        "settings": dict(settings),
        "inputs": {name: sha256_file(data / f"{name}.json") for name in INPUTS},
        "shots": [row["id"] for row in shots],
        "copies_of_shots_left_out": splits.copies_of_shots,
        "splits": {name: describe(rows, out_dir / f"{name}.jsonl") for name, rows in splits.rows.items()},
        # The rules of hardness cannot be applied to these: they are filed under "extra".
        "unparsable": [row["id"] for row in [*splits.learnt_from, *dev, *shots] if parse(row["query"]) is None],
        # Same words on another database: no leak, but worth knowing.
        "train_questions_worded_as_in_dev": [row["id"] for row in splits.learnt_from if row["question"] in dev_texts],
    }
    write_json(out_dir / "manifest.json", manifest)


def describe(rows: Sequence[dict], path: Path) -> dict:
    """Count the rows of a split by hardness and by database, and hash them."""
    levels = Counter(row["hardness"] for row in rows)
    return {
        "rows": len(rows),
        "ids_sha256": sha256_json([row["id"] for row in rows]),
        "sha256": sha256_file(path),
        "by_hardness": {level: levels[level] for level in LEVELS},
        "by_database": dict(sorted(Counter(row["db_id"] for row in rows).items())),
    }


if __name__ == "__main__":
    with job(snakemake.log[0]):
        prepare_spider(
            Path(snakemake.input.manifest).parent,
            snakemake.params.settings,
            Path(snakemake.output.manifest).parent,
        )
