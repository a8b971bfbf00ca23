"""Fetch the data of a task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.job import job
from tasks.registry import KINDS


def fetch_data(settings: Mapping[str, Any], folder: Path) -> None:
    """Write a task's raw data and their manifest.json into a folder; `settings` are of the stage fetch."""
    KINDS[settings["kind"]].fetch(settings, folder)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_data(snakemake.params.settings, Path(snakemake.output.manifest).parent)
