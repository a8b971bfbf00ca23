"""What a study's size costs: parsing, planning and the tables, for 10, 100, 600 and 1,000 adapters.

    python benchmarks/scale.py [--adapters 10 100 600 1000] [--out results.json]

The demo study with a sweep of that many adapters, in a folder of its own; no model is run. `parse` is
`snakemake --list-rules`; `plan` is a dry run in which every job is still to be done. `tables` is the tables' own
function on made-up records of every run: 1,034 questions of Spider (as many as its dev split has) and 150 of MMLU. Each
is a process of its own on two cores: wall time in seconds, and its peak memory in MiB.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = 1034

TABLES = """
import json, sys, time
from pathlib import Path
steps = Path(sys.argv[1])
sys.path[:0] = [*sys.argv[1:3], *map(str, (steps.parent, steps.parents[1]))]
from _study import study, table_paths, write_tables
folder = Path(sys.argv[3])
arguments = study(folder, int(sys.argv[4]), n=int(sys.argv[5]))
start = time.perf_counter()
write_tables(table_paths(folder), **arguments)
print(json.dumps(time.perf_counter() - start))
"""


def make_study(folder: Path, adapters: int) -> Path:
    """Write the demo study with a sweep of so many adapters: three seeds where the number divides by three."""
    import yaml

    study = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    seeds = 3 if adapters % 3 == 0 else 1
    ranks = next(n for n in (10, 5, 2, 1) if adapters % (seeds * n) == 0)
    study["study"] = f"scale-{adapters}"
    study["training"]["seed"] = list(range(1, seeds + 1))
    study["sweep"] = {
        "training.learning_rate": [round(1e-5 * (i + 1), 8) for i in range(adapters // (seeds * ranks))],
        "lora.r": [2 * (i + 1) for i in range(ranks)],
    }
    path = folder / f"{adapters}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def timed(command: list[str | Path], folder: Path) -> tuple[dict[str, float], str]:
    """Run a command; return its wall time and peak memory, and what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.STDOUT,
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{output[-2000:]}")
    return {"seconds": round(seconds, 2), "peak_memory_mib": round(usage.ru_maxrss / 1024)}, output


def measure(adapters: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Return the best of the repeats of each measure, for a study of so many adapters."""
    study = make_study(folder, adapters)
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", study]
    records = folder / f"records-{adapters}"
    tables = [
        sys.executable,
        "-c",
        TABLES,
        ROOT / "scripts/steps",
        ROOT / "tests/support",
        records,
        adapters,
        QUESTIONS,
    ]
    found: dict[str, Any] = {"adapters": adapters}
    for name, command in (("parse", [*snakemake, "--list-rules"]), ("plan", [*snakemake, "--dry-run"])):
        runs = [timed(command, folder) for _ in range(repeats)]
        found[name] = min((run[0] for run in runs), key=lambda run: run["seconds"])
        if name == "plan":
            found["jobs"] = runs[0][1].count("\nrule ") + runs[0][1].count("\nlocalrule ")
    used, output = timed([*map(str, tables)], folder)
    # Without the time in which the records are made up.
    found["tables"] = used | {"seconds": round(json.loads(output.splitlines()[-1]), 2)}
    shutil.rmtree(records)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, nargs="+", default=[10, 100, 600, 1000])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "repo"
        ignored = shutil.ignore_patterns(".*", "results", "tests", "data", "__pycache__")
        shutil.copytree(ROOT, folder, ignore=ignored)
        report = {
            "date": date.today().isoformat(),
            "device": {"cpu": cpu(), "cores_used": 2, "load_at_start": round(os.getloadavg()[0], 2)},
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("snakemake", "pandas")},
            "repeats": arguments.repeats,
            "questions": {"spider": QUESTIONS, "mmlu": 150},
            "studies": [],
        }
        for adapters in arguments.adapters:
            report["studies"].append(measure(adapters, folder, arguments.repeats))
            print(json.dumps(report["studies"][-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def cpu() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
