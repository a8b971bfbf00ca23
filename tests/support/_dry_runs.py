"""Dry runs of many edits in one process, which parses the workflow anew for each and imports Snakemake once.

    python _dry_runs.py edits.json

In the root of a repository with results. Each edit has `study`, the YAML text, and `files`, of which each has `text`
while the edit is tried. Prints, as JSON, the jobs that would run for each edit, as rule and wildcards.
"""

import json
import sys
from pathlib import Path

# Those of the repository in which this runs.
sys.path.insert(0, str(Path("scripts").resolve()))

from common import code
from why import planned


def dry_run(study: str) -> list[str]:
    path = Path("edited.yaml")
    path.write_text(study, encoding="utf-8")
    jobs = planned(path, {}).dag.needrun_jobs(exclude_finished=False)
    # A rule of a task says so in its name.
    shown = ((job.rule.name, [v for v in job.wildcards if job.rule.name.partition("_")[2] != v]) for job in jobs)
    return [f"{rule} {'/'.join(values)}".strip() for rule, values in shown]


def tried(edit: dict) -> list[str]:
    before = {path: path.read_bytes() for path in map(Path, edit["files"])}
    for path, text in edit["files"].items():
        Path(path).write_text(text, encoding="utf-8")
        forget()
    try:
        return dry_run(edit["study"])
    finally:
        for path, content in before.items():
            path.write_bytes(content)
            forget()


def forget() -> None:
    """Forget the hashes of code that has been edited."""
    code.digest.cache_clear()
    code.imported.cache_clear()


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = {name: tried(edit) for name, edit in given.items()}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
