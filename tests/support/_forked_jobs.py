"""Several Snakemake runs whose scripts need not import anything: `_forked_jobs.py [--models] < runs.json`.

It runs in the root of a repository. Nearly all of a tiny job's time is spent on imports. Here each `script:` runs in a
fork of a process that has imported what the scripts do; all else (the plan, the scheduler, what becomes of logs and
outputs, what a failed job means) is Snakemake's own, one process a run, two runs at a time.

With `--models` torch and its kin are imported too: of use where models are loaded, and a waste where only tables and
pages are made.

Standard input is a JSON object: the arguments of each run, by its name. So is standard output: the exit status of each.
What a run printed is in the file <name>.out.
"""

import gc
import importlib
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

from snakemake import cli
from snakemake.benchmark import benchmarked
from snakemake.script import PythonScript

AT_ONCE = 2
# What a dry run imports, and steps that between them import what all do, and what these import late.
PLAN = ("common.access", "present.catalogue", "study.read", "study.repair", "tasks.registry")
LIGHT = ("compare_published", "deepeval_tests", "figures", "prepare", "report", "score", "tables", "tables_page")
MODELS = ("datasets", "peft", "transformers.trainer", "transformers.models.llama.modeling_llama")
MODELS += ("torch.utils.tensorboard", "llm.answering", "llm.training")


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
        ours.close()  # upon which the server ends
        os.waitpid(server, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


def main() -> None:
    """Run all runs of standard input."""
    waiting = list(json.load(sys.stdin).items())
    dry = all("--dry-run" in arguments for _, arguments in waiting)
    for name in (*PLAN, *(() if dry else LIGHT), *(MODELS if "--models" in sys.argv else ())):
        importlib.import_module(name)
    # Otherwise each fork's collector would look through what was imported, and so copy it.
    gc.freeze()
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
