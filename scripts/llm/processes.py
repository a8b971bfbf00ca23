"""One job on several GPUs: a process for each, which ends when the job ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from socket import gethostname, socket
from typing import Any

from common.files import UserError


def run(
    command: Sequence[str],
    gpus: Sequence[str],
    jobs: Sequence[Mapping[str, Any]],
    environments: Sequence[Mapping[str, str]],
) -> None:
    """Start a process for each job, on the GPU of the same place, and wait for all.

    The `command` is a program that calls `serve`. Each process gets its job as JSON on its standard input. If one ends
    otherwise than well, the others are ended too: a UserError. What they have done is in their files.
    """
    processes = []
    try:
        for gpu, job, more in zip(gpus, jobs, environments, strict=False):
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": gpu, "PYTHONPATH": os.pathsep.join(sys.path)} | dict(more),
                text=True,
            )
            processes.append(process)
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()  # and left open: its end tells the process that this one is gone
        while any(process.poll() is None for process in processes) and not any(p.poll() for p in processes):
            time.sleep(0.1)
        for gpu, process in zip(gpus, processes, strict=False):
            if process.poll():
                code = process.returncode
                how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
                raise UserError(
                    f"{gpu}: the process on this GPU {how}; what it said stands above. What all GPUs have done so far "
                    "is kept: run the same command again."
                )
    except BrokenPipeError:
        raise UserError("The process on a GPU ended at its start; what it said stands above.") from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ranks(count: int) -> list[dict[str, str]]:
    """The variables by which processes on this machine find each other, as torch.distributed reads them."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    # Each process sees one GPU, its first.
    shared = size | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    return [shared | {"RANK": str(rank)} for rank in range(count)]


def run_on_nodes(launcher: str, command: Sequence[str], job: Mapping[str, Any], count: int | None, nodes: int) -> None:
    """Start `count` processes of a job on the nodes of this SLURM job, each with one GPU, and wait for all.

    `launcher` is srun. It gives each process the job, on its standard input, and ends all when one ends otherwise than
    well: a UserError. The processes find each other at this node.
    """
    if not count or not shutil.which(launcher):
        raise UserError(
            f"resources, mpi: found {launcher} with {count or 'no'} tasks, expected srun on a SLURM cluster with a "
            "task for each GPU, as in --set-resources train:mpi=srun train:nodes=2 train:tasks=8 train:tasks_per_gpu=1 "
            "train:gpu=8."
        )
    # What sbatch was told of tasks and GPUs stands in the environment, and would be told to srun twice.
    told = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_NTASKS", "SLURM_GPUS"))}
    one_of_all = ranks(count)[0] | {"MASTER_ADDR": gethostname(), "PYTHONPATH": os.pathsep.join(sys.path)}
    del one_of_all["RANK"]
    step = [launcher, f"--nodes={nodes}", f"--ntasks={count}", "--gpus-per-task=1", "--kill-on-bad-exit=1"]
    process = subprocess.Popen([*step, *command], stdin=subprocess.PIPE, env=told | one_of_all, text=True)
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()  # and left open, as for processes of one machine
        if code := process.wait():
            raise UserError(
                f"{launcher}: a process on one of the {nodes} nodes ended with exit code {code}; what it said stands "
                "above. What all have done so far is kept: run the same command again."
            )
    finally:
        process.kill()
        process.wait()


def serve(function: Callable[..., Any]) -> int:
    """Call `function` with the job on standard input, for as long as that stays open; the exit code."""
    if "WORLD_SIZE" in os.environ and "RANK" not in os.environ:  # on several nodes
        os.environ["RANK"] = os.environ["SLURM_PROCID"]
    job = json.loads(sys.stdin.readline())
    # Nothing more is written: this read ends when the parent does.
    threading.Thread(target=lambda: (os.read(sys.stdin.fileno(), 1), os._exit(1)), daemon=True).start()
    try:
        function(**job)
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
