"""Get the data sets of lm-evaluation-harness's tasks into the cache, where there is a network."""

from collections.abc import Sequence
from pathlib import Path

import _path  # noqa: F401
from common.files import write_json
from common.job import job
from tasks.harness import load_tasks


def fetch_harness(tasks: Sequence[str], include_path: str | None, manifest: str | Path) -> None:
    """Fetch the data sets of the tasks, and write which version of the harness they are for."""
    from lm_eval import __version__

    load_tasks(tasks, include_path)
    write_json(manifest, {"lm_eval": __version__, "tasks": list(tasks), "include_path": include_path})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_harness(**snakemake.params.settings, manifest=snakemake.output.manifest)
