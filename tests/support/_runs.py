"""Runs of the workflow in processes of their own: as a user starts them, or with jobs that need not import anything."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def forked(
    folder: Path, runs: Mapping[str, Sequence[str]], *, models: bool = False, env: Mapping[str, str] | None = None
) -> dict[str, subprocess.CompletedProcess]:
    """Run Snakemake in a folder with the arguments of each run, two runs at a time: see _forked_jobs.py.

    Args:
        folder: the root of a copy of the repository.
        runs: the arguments of each run by its name.
        models: whether jobs load models, so that torch is to be imported once for all of them.
        env: the environment in place of this process's.

    Returns:
        How each run ended; its `stdout` holds all output, as does the file <name>.out.
    """
    program = Path(__file__).with_name("_forked_jobs.py")
    done = subprocess.run(
        [sys.executable, str(program), *(["--models"] if models else [])],
        input=json.dumps(runs),
        cwd=folder,
        env=dict(os.environ if env is None else env) | OFFLINE,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    statuses = json.loads(done.stdout)
    return {
        name: subprocess.CompletedProcess(words, statuses[name], (folder / f"{name}.out").read_text(encoding="utf-8"))
        for name, words in runs.items()
    }
