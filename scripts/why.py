"""Say what a run of a study would do, what made it necessary, and how long training and answers took. Nothing is run.

    python scripts/why.py [--configfile studies/<name>.yaml] [--config protocol=as_reported]

The causes are those of Snakemake's own dry run with profiles/default: a key of the study with its old and its new
value, a changed file, an output that is not there. Jobs that only follow from others are counted, and named with -v.
Hours are those that the same job took last time, else the median of its rule's jobs; a job of a rule that has never run
in this study has none (make plan estimates them).
"""

import argparse
import ast
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.io import _IOFile
from snakemake.settings.enums import Quietness, RerunTrigger
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings
from snakemake.workflow import Workflow

ROOT = Path(__file__).resolve().parents[1]
# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(ROOT))

from common.files import UserError  # noqa: E402
from study.read import overrides_of, read_yaml  # noqa: E402

# The settings that list a study's runs.
RUNS = ("runs", "labels", "folders", "adapters")
HASH = re.compile(r"[0-9a-f]{64}")


def planned(study: Path, overrides: dict[str, Any]) -> Workflow:
    """The workflow after a dry run of a study, as `snakemake -n` makes it.

    Raises:
        WorkflowError: the study is refused.
    """
    profile = yaml.safe_load((ROOT / "profiles/default/profile.yaml").read_text(encoding="utf-8"))
    triggers = frozenset(RerunTrigger.parse_choice(name) for name in profile["rerun-triggers"])
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        config = ConfigSettings(configfiles=[study], config=overrides)
        workflow = api.workflow(ResourceSettings(cores=1), config, snakefile=ROOT / "Snakefile")
        dag = workflow.dag(DAGSettings(rerun_triggers=triggers, max_checksum_file_size=10**9))
        dag.execute_workflow(executor="dryrun")
        return workflow._workflow


def changes(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """The keys that differ between two settings, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if not place and key in RUNS and before.get(key) != after.get(key):
                yield "other runs than before"
                continue
            yield from changes(before.get(key), after.get(key), f"{place}.{key}".lstrip("."))
    elif before != after and HASH.fullmatch(str(after)):
        yield f"{place}: its content has changed"
    elif before != after:
        yield f"{place}: {json.dumps(before, default=str)} -> {json.dumps(after, default=str)}"


def values(params: list[str]) -> dict:
    """Recorded params as one mapping: Snakemake keeps their representations, and no names."""
    found: dict = {}
    for value in map(ast.literal_eval, params):
        found |= value if isinstance(value, dict) else {"code" if HASH.fullmatch(str(value)) else "recipe": value}
    return found


def causes(workflow: Workflow, job: Any) -> list[str]:
    """What of a job itself has changed; nothing if it only follows from other jobs."""
    reason, kept = workflow.dag.reason(job), workflow.persistence
    found: list[str] = []
    before = next((params for path in job.output if (params := kept.params(path)) is not None), None)
    if before is not None:  # also of a job that follows from others, of which Snakemake does not look
        try:
            now = values(kept._params(job))
            found += changes(values(before), now, now.get("name", ""))
        except (ValueError, SyntaxError):
            found += ["its settings"] if reason.params_changed else []
    if reason.input_changed:
        found.append("other input files than before")
    produced = {path for other in workflow.dag.needrun_jobs(exclude_finished=False) for path in other.output}
    found += [f"{path} is newer" for path in sorted(reason.updated_input - produced)]
    if reason.incomplete_output:
        found.append("was cut off")
    follows = any(path in produced for path in job.input)
    if reason.missing_output and not found and not follows:
        found += unlike(workflow, job)
    if reason.missing_output and not found and not follows:
        ran = before is not None or any(Path(path).exists() for path in job.output)
        found.append(f"{min(reason.missing_output)} is not there" if ran else "has not run yet")
    return found


def unlike(workflow: Workflow, job: Any) -> list[str]:
    """In what a run that is new differs from the most similar one that the study has; nothing if it has none."""
    kept, run = workflow.persistence, job.wildcards.get("run", "")
    others = Path().glob(str(job.output[0]).replace(f"/{run}/", "/*/")) if run else ()
    records = [_IOFile(str(path), rule=job.rule) for path in others]
    try:
        now = values(kept._params(job))
        found = [list(changes(values(params), now)) for path in records if (params := kept.params(path)) is not None]
    except (ValueError, SyntaxError):
        return []
    return min(found, key=len, default=[])


def hours(job: Any) -> float | None:
    """The hours that a job is to take, by what it or its rule took before; None if its rule has never run."""
    own = Path(str(job.benchmark))
    # A rule with several jobs has a folder of its own.
    rule = next((folder for folder in own.parents if folder.name == job.rule.name), own)
    seconds = [pd.read_csv(path, sep="\t")["s"][0] for path in ([own] if own.is_file() else rule.rglob("*.tsv"))]
    return statistics.median(seconds) / 3600 if seconds else None


def report(workflow: Workflow, verbose: bool) -> Iterator[str]:
    """The lines to print."""
    jobs = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.rule.name != "all"]
    if not jobs:
        yield "Nothing would run: all results are those of this study."
        return
    because: dict[str, list[str]] = {}
    follow: Counter[str] = Counter()
    for job in jobs:
        name = " ".join([job.rule.name, *(value for key, value in job.wildcards.items() if key != "task")])
        found = causes(workflow, job)
        for cause in found:
            because.setdefault(cause, []).append(name)
        if not found:
            follow[name if verbose else job.rule.name] += 1
    for cause, names in because.items():
        shown = names if verbose or len(names) < 4 else [*names[:3], f"and {len(names) - 3} more"]
        yield f"{cause}\n    {', '.join(shown)}"
    if follow:
        named = (name if number == 1 else f"{name} ({number})" for name, number in follow.items())
        yield f"What follows from these\n    {', '.join(named)}"
    took = [hours(job) for job in jobs if job.resources.get("gpu", 0)]
    known = [time for time in took if time is not None]
    said = [f"{len(jobs)} jobs"]
    if known:
        said.append(f"{len(known)} of training and answers took {sum(known):.2f} hours last time")
    if None in took:
        said.append(f"{took.count(None)} of training and answers have not run yet (make plan estimates them)")
    yield f"\n{'; '.join(said)}."


def main(arguments: list[str] | None = None) -> int:
    """Print what would run and why; return 1 if the study is refused, and say why on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"), help="the study")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake")
    parser.add_argument("-v", "--verbose", action="store_true", help="name every job")
    given = parser.parse_args(arguments)
    try:
        read_yaml(given.configfile)  # of what Snakemake cannot read it says less
        workflow = planned(given.configfile, overrides_of(given.config))
        print(*report(workflow, given.verbose), sep="\n")
    except (UserError, WorkflowError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
