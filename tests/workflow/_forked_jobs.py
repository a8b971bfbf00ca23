"""Several Snakemake runs whose scripts need not import anything: `_forked_jobs.py < runs.json`, in a repository.

Nearly all of a tiny job's time is spent on importing torch. Here each `script:` runs in a fork of a process that has
imported what the scripts do; all else (the plan, the scheduler, what becomes of logs and outputs, what a failed job
means) is Snakemake's own, one process a run, two runs at a time.

Standard input is a JSON object: the arguments of each run, by its name. So is standard output: the exit status of each.
What a run printed is in the file <name>.out.
"""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path.cwd() / "scripts/steps"))
sys.path.insert(0, str(Path.cwd() / "scripts"))
sys.path.insert(0, str(Path.cwd()))

# What the scripts import, and the parts that transformers and its kin import late.
import datasets  # noqa: F401
import peft  # noqa: F401
import transformers.models.llama.modeling_llama
import transformers.trainer  # noqa: F401
from snakemake import cli
from snakemake.benchmark import benchmarked
from snakemake.script import PythonScript
from torch.utils import tensorboard  # noqa: F401

import compare_published  # noqa: F401
import figures  # noqa: F401
import llm.answering
import llm.training  # noqa: F401
import prepare  # noqa: F401
import score  # noqa: F401

AT_ONCE = 2


def serve(connection: Connection) -> None:
    """Run each script whose path comes in a process of its own, and send back its exit status, until there is no more.

    This process has one thread, so that its forks find no lock held by another.
    """
    context = multiprocessing.get_context("fork")
    while True:
        try:
            path = connection.recv()
        except EOFError:
            os._exit(0)
        script = context.Process(target=runpy.run_path, args=(path,), kwargs={"run_name": "__main__"})
        script.start()
        script.join()
        connection.send(script.exitcode)


def run(arguments: list[str], out: Path) -> None:
    """Run Snakemake in this process, its output going to the file `out`; end with its exit status."""
    with out.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    ours, theirs = multiprocessing.Pipe()
    server = os.fork()
    if server == 0:
        ours.close()
        serve(theirs)
    theirs.close()
    one_by_one = threading.Lock()

    def execute_script(self, fname, edit=False):
        with one_by_one, benchmarked(server, self.bench_record):
            ours.send(fname)
            status = ours.recv()
        if status:
            raise subprocess.CalledProcessError(status, fname)

    PythonScript.execute_script = execute_script
    status = 1
    try:
        cli.main(arguments)
    except SystemExit as end:
        status = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


def main() -> None:
    """Run all runs of standard input."""
    waiting = list(json.load(sys.stdin).items())
    running, ended = {}, {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name, arguments = waiting.pop(0)
            child = os.fork()
            if child == 0:
                run(arguments, Path(f"{name}.out"))
            running[child] = name
        child, status = os.wait()
        ended[running.pop(child)] = os.waitstatus_to_exitcode(status)
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main()
