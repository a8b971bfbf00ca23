"""Run tasks of lm-evaluation-harness on the base model or one adapter, with every question's score."""

from pathlib import Path

import _path  # noqa: F401
from common.files import check_files
from common.gpus import take
from common.job import job
from llm.harness import harness
from llm.load import set_threads

if __name__ == "__main__":
    with job(snakemake.log[0], lock=f"{snakemake.output.scores}.lock"):
        check_files(snakemake.input.record)
        take(snakemake.resources.gpu)
        set_threads(snakemake.threads)
        adapter = snakemake.input.get("adapter")
        harness(
            record=snakemake.input.record,
            adapter_dir=Path(adapter[0]).parent if adapter else None,
            output=snakemake.output.scores,
            settings=snakemake.params.unwatched,
        )
