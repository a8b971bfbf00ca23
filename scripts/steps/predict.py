"""Let the base model, or one adapter on it, answer the prompts of a task.

Of multiple-choice questions it gives the options' log-probabilities and an answer in words. Drawing at random changes
what the model writes, not the log-probabilities.
"""

from pathlib import Path

import _path  # noqa: F401
from common.files import check_files
from common.gpus import take
from common.job import job
from llm.answering import Job, predict
from llm.decoding import Decoding
from llm.load import set_threads

if __name__ == "__main__":
    with job(snakemake.log[0], lock=f"{snakemake.output.answers}.lock"):
        check_files(snakemake.input.record)
        gpus = take(snakemake.resources.gpu)
        set_threads(snakemake.threads)
        adapter = snakemake.input.get("adapter")
        work = Job(
            prompts=snakemake.input.prompts,
            record=snakemake.input.record,
            adapter=str(Path(adapter[0]).parent) if adapter else None,
            decoding=Decoding(**snakemake.params.unwatched),
            identity=snakemake.params.identity,
            maybe_none=bool(snakemake.input.get("failed")),
        )
        predict(work, snakemake.output.answers, snakemake.output.report, gpus)
