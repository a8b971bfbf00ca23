"""Fetch Spider: questions, schemas and databases."""

from pathlib import Path

import _path  # noqa: F401
from common.job import job
from tasks import spider

if __name__ == "__main__":
    with job(snakemake.log[0]):
        spider.fetch(snakemake.params.settings, Path(snakemake.output.manifest).parent)
