"""Fetch rows of general knowledge to mix into the training."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.download import CACHE
from common.files import sha256_file, write_json, write_jsonl
from common.job import job
from tasks import replay
from tasks.mmlu import AUXILIARY


def fetch_replay(
    settings: Mapping[str, Any], rows: str | Path, manifest: str | Path, cache_dir: str | Path = CACHE
) -> None:
    """Write all rows of a source as JSON lines, and their manifest; settings and errors as of `tasks.replay.fetch`."""
    source, mmlu = settings["source"], settings.get("mmlu")
    found = replay.fetch(settings, Path(rows).parent / "unpacked", cache_dir)
    write_jsonl(rows, found)
    write_json(
        manifest,
        {
            "source": source,
            "mmlu": dict(mmlu) if mmlu else None,
            "file_sha256": None if source == AUXILIARY else sha256_file(source),
            "rows": len(found),
            "by_kind": dict(sorted(Counter(row["kind"] for row in found).items())),
            "sha256": sha256_file(rows),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_replay(snakemake.params.settings, snakemake.output.rows, snakemake.output.manifest)
