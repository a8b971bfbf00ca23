"""Get the data sets of lm-evaluation-harness's tasks into the cache, where there is a network."""

import _path  # noqa: F401
from common.files import write_json
from common.job import job
from tasks.harness import load_tasks

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from lm_eval import __version__

        load_tasks(**snakemake.params.settings)
        write_json(snakemake.output.manifest, {"lm_eval": __version__} | snakemake.params.settings)
