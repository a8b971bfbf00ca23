"""Draw the rows to replay, without any that MMLU evaluates on or shows as an example."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import read_jsonl, sha256_file, sha256_json, write_json, write_jsonl
from common.job import job
from tasks import replay


def prepare_replay(
    rows: str | Path, mmlu: str | Path, settings: Mapping[str, Any], drawn: str | Path, manifest: str | Path
) -> None:
    """Write the drawn rows (JSON lines, in the order in which trainings take them) and their manifest.

    `rows` is a file of `fetch_replay`, `mmlu` a folder of `fetch_mmlu`; `settings` are `questions` and `seed`, as of
    `tasks.replay.draw`, where errors are told too.
    """
    pool = read_jsonl(rows)
    chosen, left_out = replay.draw(pool, mmlu, **settings)
    write_jsonl(drawn, chosen)
    inputs = {"rows": rows, "dev": Path(mmlu) / "dev.csv", "test": Path(mmlu) / "test.csv"}
    facts = {
        "settings": dict(settings),
        "inputs": {name: sha256_file(path) for name, path in inputs.items()},
        "found": len(pool),
        "rows": len(chosen),
        "by_kind": Counter(row["kind"] for row in chosen),
        "sha256": sha256_file(drawn),
        "ids_sha256": sha256_json([row["id"] for row in chosen]),
    }
    write_json(manifest, facts | left_out)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        mmlu, settings = Path(snakemake.input.test).parent, snakemake.params.settings
        prepare_replay(snakemake.input.rows, mmlu, settings, snakemake.output.rows, snakemake.output.manifest)
