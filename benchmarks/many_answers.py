"""What scoring 100,000 answers costs, from the start of the command to its end.

    python benchmarks/many_answers.py PREDICTIONS --databases DIR [--answers 100000] [--jobs 2] [--root DIR]

PREDICTIONS is a folder of .jsonl files with `db_id`, `gold` and `pred`. Their answers are taken in turn, each time in
another wrapper, until there are enough; `--distinct` puts a comment with a number of its own behind each query, so that
no two answers are the same text. What is measured is `python -m custom_metrics score … --out`: reading, judging raw and
extracted answers under all semantics, the tables and the records. Seconds of the processor, of all processes, are what
a busy machine changes least; memory is the largest resident, of the main process and of each worker (Linux).

`--root` names another checkout, whose command is run in turns with this one: the ratio of both is of one run. Prints a
table and writes benchmarks/results/<date>-many-answers.json.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WRAPPERS = ("{}", "```sql\n{}\n```", "Here is the SQL:\n```sql\n{};\n```\nIt lists what was asked.", "SQL: {}")


def write_inputs(predictions: Path, folder: Path, number: int, distinct: bool) -> None:
    """Write questions.jsonl and answers.jsonl with so many rows."""
    rows = [json.loads(line) for path in sorted(predictions.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    with (folder / "questions.jsonl").open("w") as questions, (folder / "answers.jsonl").open("w") as answers:
        for index in range(number):
            row, turn = rows[index % len(rows)], index // len(rows)
            sql = f"{row['pred']} /* {index} */" if distinct else row["pred"]
            questions.write(json.dumps({"db_id": row["db_id"], "query": row["gold"]}) + "\n")
            answer = WRAPPERS[turn % len(WRAPPERS)].format(sql)
            answers.write(json.dumps({"index": index, "prediction": answer}) + "\n")


def run(root: Path, folder: Path, databases: Path, jobs: int) -> dict:
    """Score once; return seconds by the clock and of the processor, memory in MB, and the hash of the records."""
    records = folder / "records.csv"
    command = [sys.executable, "-c", PROGRAM, "score", "answers.jsonl", "--questions", "questions.jsonl"]
    command += ["--databases", databases, "--out", records, "--jobs", str(jobs)]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    elapsed = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stderr)
    used = json.loads(done.stderr.splitlines()[-1])
    return used | {
        "wall_s": round(elapsed, 2),
        "records_sha256": hashlib.sha256(records.read_bytes()).hexdigest(),
    }


# Run in the measured process, which then says what it and its workers have used. What the system says of the memory of
# processes that have ended counts what they had of this one before they began, so they are asked while they live.
PROGRAM = """
import json, re, resource, sys
from pathlib import Path
from custom_metrics.cli import main
from custom_metrics.judge import Judge
workers = []
def close(self, original=Judge.close):
    for one in self._all:
        if one._process:
            status = Path(f"/proc/{one._process.pid}/status").read_text()
            workers.append(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1000)
    original(self)
Judge.close = close
status = main()
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu = sum(used.ru_utime + used.ru_stime for used in (own, others))
print(json.dumps({"cpu_s": round(cpu, 2), "main_mb": own.ru_maxrss // 1000, "worker_mb": workers}), file=sys.stderr)
sys.exit(status)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", metavar="PREDICTIONS", type=Path)
    parser.add_argument("--databases", required=True, metavar="DIR", type=Path)
    parser.add_argument("--answers", type=int, default=100_000, help="[100000]")
    parser.add_argument("--distinct", action="store_true", help="no two answers are the same text")
    parser.add_argument("--jobs", type=int, default=2, help="[2]")
    parser.add_argument("--repeats", type=int, default=1, help="[1]")
    parser.add_argument("--root", metavar="DIR", type=Path, help="another checkout to be measured in the same run")
    options = parser.parse_args()

    roots = {"here": ROOT} | ({"other": options.root.resolve()} if options.root else {})
    runs: dict[str, list[dict]] = {name: [] for name in roots}
    with tempfile.TemporaryDirectory() as name:
        write_inputs(options.predictions, Path(name), options.answers, options.distinct)
        for _ in range(options.repeats):
            for which, root in roots.items():
                load = round(os.getloadavg()[0], 1)
                used = run(root, Path(name), options.databases.resolve(), options.jobs)
                runs[which].append(used | {"load_at_start": load})
                print(which, runs[which][-1], file=sys.stderr)
    cpu = {which: statistics.median(one["cpu_s"] for one in found) for which, found in runs.items()}
    result = {
        "date": datetime.date.today().isoformat(),
        "device": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "answers": options.answers,
        "distinct": options.distinct,
        "jobs": options.jobs,
        "runs": runs,
        "cpu_s": cpu,
    }
    if "other" in cpu:
        result["other_by_here"] = round(cpu["other"] / cpu["here"], 2)
    suffix = "-distinct" if options.distinct else ""
    path = ROOT / "benchmarks" / "results" / f"{result['date']}-many-answers{suffix}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in result if key != "runs"}, indent=2))
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
