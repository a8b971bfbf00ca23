"""Train one LoRA adapter, on one GPU or on several."""

import gc
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import check_files
from common.gpus import take
from common.job import collect_garbage, job
from llm.load import set_threads
from llm.processes import ranks, run, run_on_nodes

# What trains on one GPU of several.
PROGRAM = (sys.executable, "-m", "llm.training")


def train_on(gpus: Sequence[str], plan: Mapping[str, Any]) -> None:
    """Carry out a plan, given by the fields of `llm.training.Plan`, here or with a process on each of several GPUs.

    The processes compute the same optimizer steps as one would: each takes its share of a step's rows, and they add up
    their gradients (data-parallel, by accelerate).
    """
    if len(gpus) > 1:
        return run(PROGRAM, gpus, [plan] * len(gpus), ranks(len(gpus)))
    # Not before GPUs are taken: what it imports asks CUDA which there are.
    gc.disable()
    from llm.training import Plan, train

    collect_garbage()
    train(Plan(**plan))


if __name__ == "__main__":
    run_dir = Path(snakemake.output.report).parent  # …/runs/<model>/<run>
    with job(snakemake.log[0], lock=run_dir / ".train.lock"):
        check_files(snakemake.input.record)
        launcher = snakemake.resources.get("mpi")
        # On several nodes, SLURM gives each process its GPU.
        gpus = [] if launcher else take(snakemake.resources.gpu)
        set_threads(snakemake.threads)
        files = {
            "prompts": snakemake.input.prompts,
            "audit": snakemake.input.audit,
            "record": snakemake.input.record,
            "adapter_dir": str(run_dir / "adapter"),
            "report": snakemake.output.report,
            # An input that a study does not use is an empty list.
            "validation": snakemake.input.get("validation") or None,
            "chosen": snakemake.input.get("chosen") or None,
            "replay_prompts": snakemake.input.get("replay") or None,
            "replay_audit": snakemake.input.get("replay_audit") or None,
        }
        kept = sorted({int(Path(file).parent.name) for file in snakemake.output.get("kept", [])})
        settings = {**snakemake.params.unwatched, "identity": snakemake.params.identity}
        tracker = settings["training"]["report_to"]
        files["tracker_dir"] = str(run_dir.parents[2] / "trackers" / tracker / run_dir.parent.name / run_dir.name)
        plan = files | {"kept_steps": kept} | settings
        if launcher:
            given = snakemake.resources.get("tasks"), snakemake.resources.get("nodes", 1)
            run_on_nodes(launcher, PROGRAM, plan, *given)
        else:
            train_on(gpus, plan)
