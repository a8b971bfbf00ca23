"""List every run of a study with its folder, its setting and seed, and what was swept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis.data import plain, write_table
from common.job import job


def index(settings: Mapping[str, Any], output: str | Path) -> None:
    """Write a row for each of `runs`, whose folder lies below that of the results."""
    rows = [
        {
            "model": run["model"],
            "run": run["variant"],
            "setting": run["setting"],
            "seed": plain(run.get("seed")),
            "folder": f"runs/{run['model']}/{run['folder']}",
        }
        | {place: plain(value) for place, value in run["settings"].items()}
        for run in settings["runs"]
    ]
    write_table(output, pd.DataFrame(rows))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        index(snakemake.params.settings, snakemake.output.index)
