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

    Args:
        rows: JSON lines of `fetch_replay`.
        mmlu: folder that `fetch_mmlu` wrote.
        settings: `questions` and `seed`, as of `tasks.replay.draw`.
        drawn, manifest: output paths.

    Raises:
        UserError: no row is left.
    """
    pool = read_jsonl(rows)
    found = replay.draw(pool, mmlu, **settings)
    write_jsonl(drawn, found.rows)
    inputs = {"rows": rows, "dev": Path(mmlu) / "dev.csv", "test": Path(mmlu) / "test.csv"}
    write_json(
        manifest,
        {
            "settings": dict(settings),
            "inputs": {name: sha256_file(path) for name, path in inputs.items()},
            "found": len(pool),
            "rows": len(found.rows),
            "by_kind": dict(sorted(Counter(row["kind"] for row in found.rows).items())),
            # Of the rows up to the last one drawn.
            "of_mmlu_dropped": found.dropped,
            "repeated_dropped": found.repeated,
            "checked_against": found.checked_against,
            "sha256": sha256_file(drawn),
            "ids_sha256": sha256_json([row["id"] for row in found.rows]),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        prepare_replay(
            snakemake.input.rows,
            Path(snakemake.input.test).parent,
            snakemake.params.settings,
            snakemake.output.rows,
            snakemake.output.manifest,
        )
