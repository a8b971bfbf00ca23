"""How long scoring takes: all semantics, raw and extracted, of every prediction file in a folder.

    python benchmarks/execution_accuracy.py PREDICTIONS --questions dev.json --databases DIR [--official DIR]

Each run starts from nothing: new worker processes, no result kept. What is timed is `Judge.judge_all`, with the start
of its processes; neither reading the files nor importing Python modules. `--official` names a checkout of
https://github.com/taoyds/test-suite-sql-eval, whose `exec_eval.eval_exec_match` is then timed on the same input in the
same run, in this process as its own script does it: one semantics, the answers as they are, plug_value and
keep_distinct off. It needs `sqlparse`. The row `all` is all files in one call.

Prints a Markdown table and writes benchmarks/results/<date>-<device>.json.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import re
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from custom_metrics.inputs import find_databases, read_predictions, read_questions
from custom_metrics.judge import SEMANTICS, Judge, Verdict

RESULTS = Path(__file__).parent / "results"
TIMEOUT_S = 30.0
# Database, gold query, answer.
Item = tuple[Path, str, str]


def measure(
    inputs: dict[str, list[Item]], jobs: Sequence[int], repeats: int, official: Callable[..., int] | None
) -> list[dict]:
    """Time each system: seconds by number of jobs and of the official evaluator, and counts, one row a system.

    The kinds of run take turns within each repeat, so that a slower minute of the machine slows all of them.
    """
    rows = []
    for system, items in inputs.items():
        seconds: dict[str, list[float]] = {}
        right_official = None
        for _ in range(repeats):
            for number in jobs:
                elapsed, verdicts = judge_all(items, number)
                seconds.setdefault(f"jobs {number}", []).append(elapsed)
            if official:
                elapsed, right_official = run_official(items, official)
                seconds.setdefault("official", []).append(elapsed)
        row = {
            "system": system,
            "questions": len(items),
            "seconds": {name: [round(x, 4) for x in times] for name, times in seconds.items()},
            "right": {name: sum(v.correct[name] for v in verdicts) for name in SEMANTICS},
            "right_raw": {name: sum(v.correct_raw[name] for v in verdicts) for name in SEMANTICS},
        }
        if official:
            row["right_official"] = right_official
        rows.append(row)
        print(f"{system}: done", file=sys.stderr)
    return rows


def judge_all(items: Sequence[Item], jobs: int) -> tuple[float, list[Verdict]]:
    """Return the seconds that a new Judge takes for all items, and its verdicts."""
    start = time.perf_counter()
    with Judge(timeout_s=TIMEOUT_S, jobs=jobs) as judge:
        verdicts = judge.judge_all(items)
    return time.perf_counter() - start, verdicts


def run_official(items: Sequence[Item], official: Callable[..., int]) -> tuple[float, int]:
    """Return the seconds that the official evaluator takes for all items, and how many are right.

    A prediction on which it stops with an error counts as wrong.
    """
    right = 0
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        for database, gold, answer in items:
            with contextlib.suppress(Exception):
                right += official(str(database), answer, gold, False, False, False)
    return time.perf_counter() - start, right


def table(rows: Sequence[dict]) -> str:
    """Return the medians as Markdown, with half the range of the repeats, and as ratios of the official time."""
    runs = list(rows[0]["seconds"])
    lines = ["| system | " + " | ".join(f"{run}, s" for run in runs), "| --- |" + " ---: |" * len(runs)]
    with_official = "official" in runs
    if with_official:
        lines[0] += f" | official / {runs[0]}"
        lines[1] += " ---: |"
    lines[0] += " |"
    for row in rows:
        medians = {run: statistics.median(row["seconds"][run]) for run in runs}
        cells = [row["system"]]
        cells += [f"{medians[run]:.2f} ± {spread(row['seconds'][run]):.2f}" for run in runs]
        if with_official:
            cells.append(f"{medians['official'] / medians[runs[0]]:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(times: Sequence[float]) -> float:
    """Return half the range."""
    return (max(times) - min(times)) / 2


def device() -> str:
    """Return the model of the CPU."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def load_official(folder: Path) -> Callable[..., int]:
    """Return `eval_exec_match` of a checkout of the official evaluator."""
    # Behind everything else, so that its modules with common names hide none of ours.
    sys.path.append(str(folder))
    from exec_eval import eval_exec_match

    return eval_exec_match


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("predictions", metavar="PREDICTIONS", type=Path, help="folder with .jsonl, .csv or .txt files")
    parser.add_argument("--questions", required=True, help="Spider's dev.json")
    parser.add_argument("--databases", required=True, metavar="DIR", help="folder with <db_id>/<db_id>.sqlite")
    parser.add_argument("--official", metavar="DIR", type=Path, help="a checkout of test-suite-sql-eval")
    parser.add_argument("--jobs", default="1,2,4", help="numbers of worker processes [1,2,4]")
    parser.add_argument("--repeats", type=int, default=3, help="[3]")
    options = parser.parse_args()

    jobs = [int(number) for number in options.jobs.split(",")]
    official = load_official(options.official) if options.official else None
    questions = read_questions(options.questions)
    databases = find_databases(options.databases, [question.db_id for question in questions])
    files = sorted(path for path in options.predictions.iterdir() if path.suffix in (".jsonl", ".csv", ".txt"))
    inputs = {
        path.stem: [
            (databases[question.db_id], question.gold, answer or "")
            for question, answer in zip(questions, read_predictions(path, questions), strict=True)
        ]
        for path in files
    }
    inputs["all"] = [item for items in inputs.values() for item in items]

    load = os.getloadavg()[0]
    rows = measure(inputs, jobs, options.repeats, official)
    today = datetime.date.today().isoformat()
    result = {
        "date": today,
        "device": {"cpu": device(), "cores": os.cpu_count(), "load_at_start": round(load, 2)},
        "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
        "timed": f"Judge.judge_all, all semantics, extracted and raw, timeout {TIMEOUT_S:g} s",
        "repeats": options.repeats,
        "systems": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", f"{device()}-{os.cpu_count()}-cores".lower()).strip("-")
    path = RESULTS / f"{today}-{slug}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{device()}, {os.cpu_count()} cores, load {load:.1f}; median of {options.repeats} ± half their range\n")
    print(table(rows))
    print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
