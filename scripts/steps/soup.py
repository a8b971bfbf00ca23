"""Average several LoRA adapters of one base model into one."""

from pathlib import Path

import _path  # noqa: F401
from common.job import job
from llm.adapters import average
from llm.load import set_threads

if __name__ == "__main__":
    with job(snakemake.log[0]):
        set_threads(snakemake.threads)
        average(
            # Two files of each adapter.
            adapters=list(dict.fromkeys(str(Path(file).parent) for file in snakemake.input.adapters)),
            record=snakemake.input.record,
            output=Path(snakemake.output.weights).parent,
        )
