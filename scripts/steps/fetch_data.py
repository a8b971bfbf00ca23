"""Fetch the data of a task."""

from pathlib import Path

import _path  # noqa: F401
from common.job import job
from tasks.registry import KINDS

if __name__ == "__main__":
    with job(snakemake.log[0]):
        settings = snakemake.params.settings
        KINDS[settings["kind"]].fetch(settings, Path(snakemake.output.manifest).parent)
