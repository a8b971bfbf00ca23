"""What each kind of job takes before it begins to work: Python and the imports of its step.

    python benchmarks/startup.py [--runs 5] [--out results.json]

Each step's file is run as Snakemake runs it, in a new process, up to the first thing that it asks of its job. The first
round is not counted: it reads the files from the disk. Processor time is what a busy machine changes least.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

STEPS = Path(__file__).resolve().parents[1] / "scripts/steps"
# By kind of job its step, and what that imports later. What a job cannot do without stands without a step.
JOBS = {
    "libraries of predict": ("", "transformers.models.auto.modeling_auto"),
    "libraries of train": ("", "trl.trainer.sft_trainer"),
    "prepare": ("prepare", ""),
    "render": ("render", ""),
    "audit_labels": ("audit_labels", "trl.trainer.sft_trainer"),
    "train": ("train", "llm.training"),
    "predict, base": ("predict", ""),
    "predict, adapter": ("predict", "peft"),
    "score": ("score", ""),
    "tables": ("tables", ""),
    "figures": ("figures", ""),
    "report": ("report", ""),
}
PROGRAM = """
import gc, importlib, json, runpy, sys, time

class Begun(Exception):
    pass

class Job:
    def __getattr__(self, name):
        raise Begun

step, later = sys.argv[1:]
sys.path.insert(0, step.rpartition("/")[0])
try:
    if step:
        runpy.run_path(step, {"snakemake": Job()}, "__main__")
except Begun:
    pass
if not step.endswith("train.py"):
    gc.enable()  # as in `job`; `train` turns it off once more
if later:
    importlib.import_module(later)
print(json.dumps({"processor_s": time.process_time(), "modules": len(sys.modules)}))
"""


def begin(step: str, later: str) -> dict[str, float]:
    """The processor seconds and the modules with which a job begins."""
    command = [sys.executable, "-c", PROGRAM, str(STEPS / f"{step}.py") if step else "", later]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict]] = {name: [] for name in JOBS}
    for counted in [False] + [True] * options.runs:  # the jobs in turn: what else the machine does meets all of them
        for name, (step, later) in JOBS.items():
            one = begin(step, later)
            found[name] += [one] * counted
    results = {}
    for name, runs in found.items():
        times = [run["processor_s"] for run in runs]
        results[name] = {"processor_s": times, "modules": runs[0]["modules"]}
        spread = f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
        print(f"{name:22}{spread}, {runs[0]['modules']} modules", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
