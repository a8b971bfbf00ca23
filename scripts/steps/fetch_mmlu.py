"""Fetch MMLU: the questions of all subjects."""

from pathlib import Path

import _path  # noqa: F401
from common.job import job
from tasks import mmlu

if __name__ == "__main__":
    with job(snakemake.log[0]):
        mmlu.fetch(snakemake.params.settings, Path(snakemake.output.manifest).parent)
