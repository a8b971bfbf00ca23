"""Fetch rows of general knowledge to mix into the training."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import sha256_file, write_json, write_jsonl
from common.job import job
from tasks import replay
from tasks.mmlu import AUXILIARY


def fetch_replay(settings: Mapping[str, Any], rows: str | Path, manifest: str | Path) -> None:
    """Write all rows of a source as JSON lines, and their manifest; settings and errors as of `tasks.replay.fetch`."""
    source = settings["source"]
    found = replay.fetch(settings, Path(rows).parent / "unpacked")
    write_jsonl(rows, found)
    facts = {
        "source": source,
        "mmlu": settings.get("mmlu"),
        "file_sha256": None if source == AUXILIARY else sha256_file(source),
        "rows": len(found),
        "by_kind": Counter(row["kind"] for row in found),
        "sha256": sha256_file(rows),
    }
    write_json(manifest, facts)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_replay(snakemake.params.settings, snakemake.output.rows, snakemake.output.manifest)
