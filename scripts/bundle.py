"""Pack a finished study into one archive that stands alone; scripts/verify.py makes its numbers anew from it.

    python scripts/bundle.py [--configfile studies/<name>.yaml] [--config protocol=as_reported] [--licence TASK=LICENCE]

The archive results/<study>.zip is an RO-Crate 1.1 (https://w3id.org/ro/crate/1.1). It holds the resolved study, its
pre-registration, the questions with their hashes, the prompts, all raw answers, a record for each, the tables, the
report, and the reports of training and answers with the versions of all libraries. Its README says how the data sets
are had, which are not in it, and neither are weights. Equal results are equal bytes.

Questions, prompts and gold answers of a task are only in it if the licence of the data lets them be passed on. That of
Spider, BIRD and MMLU does, and a task of such a kind counts as that data set. Of all other data nothing is passed on
but the ids of the questions and a hash, unless --licence names the licence of a task's data; --licence TASK=none keeps
those of a task back.
"""

import argparse
import csv
import datetime
import io
import json
import mimetypes
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(ROOT))

from snakemake.exceptions import WorkflowError  # noqa: E402

from common.files import UserError, atomic_write, read_json, redacted  # noqa: E402
from common.job import versions  # noqa: E402
from study import unfold  # noqa: E402
from study.read import as_for_snakemake, overrides_of  # noqa: E402
from tasks.registry import KINDS  # noqa: E402
from why import Workflow, planned  # noqa: E402

CRATE = "ro-crate-metadata.json"
# What a bundle has of a study, below results/<study>/. No weights, no raw data, no pages with rows of databases.
KEPT = (
    "index.csv", "report.md", "report.pdf", "tables/*", "figures/*.svg", "benchmarks/**/*.tsv", "preregistered/*.json",
    "models/*.json", "data/*/*.json", "data/*/*.jsonl", "data/*/gold.csv", "data/*/source/manifest.json",
    "prompts/*/*.json", "prompts/*/*.jsonl", "runs/*/*/*.json", "runs/*/*/*_answers.jsonl", "runs/*/*/*.csv",
)  # fmt: skip
# Keys of reports that quote rows, and one that names a folder of this machine.
QUOTES, FOLDER = ("example", "first_prompt", "first_completion"), "path"
# The oldest date that a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
README = """# {study}: what was asked, answered and found

This archive was made of the finished study `{study}` by the workflow LoRA Trade-off {version}. `{crate}` lists
every file with its SHA-256. `config.yaml` is the resolved study. `runs/<model>/<run>/` has the raw answers
(`*_answers.jsonl`) and a record for each (`*.csv`), `tables/` what follows from them, and `index.csv` which run is
which.

To score every answer and compute every table anew, without a GPU, in a clone of the workflow:

    make verify BUNDLE={study}.zip

## The data sets

They are not part of this archive. `make verify` fetches what it needs from the source named here, or takes what a
study has fetched already: `make verify BUNDLE={study}.zip DATA=results/<study>/data`.

| task | source | SHA-256 of the archive | licence | questions, prompts and gold answers |
| --- | --- | --- | --- | --- |
{tasks}
"""


def licences(config: Mapping, given: Iterable[str]) -> dict[str, str]:
    """The licence of each task's data, "" of those that may not be passed on: what is `given`, else by its kind.

    Raises:
        UserError: a word that is given is not TASK=LICENCE, or there is no such task.
    """
    found = {task: KINDS[section["kind"]].LICENCE for task, section in config["tasks"].items()}
    for word in given:
        task, equals, licence = word.partition("=")
        if task not in found or not equals or not licence:
            raise UserError(
                f"--licence: found {word}, expected TASK=LICENCE with a task of the study ({', '.join(found)}), such "
                f"as {next(iter(found))}=CC-BY-4.0."
            )
        found[task] = "" if licence == "none" else licence
    return found


def finished(workflow: Workflow, results: Path) -> list[Path]:
    """The files of a study that a bundle has.

    Raises:
        UserError: the study is not finished, or its results are not those of the study as it is now.
    """
    jobs = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.rule.name != "all"]
    if jobs:
        missing = sorted({job.rule.name for job in jobs})
        raise UserError(
            f"{results}: not finished, or not of the study as it is now: {len(jobs)} jobs would run "
            f"({', '.join(missing[:4])}{', …' if len(missing) > 4 else ''}). Run snakemake for this study first; "
            "scripts/why.py says what would run and why."
        )
    files = {Path(str(file)) for job in workflow.dag.jobs for file in (*job.input, *job.output, job.benchmark or "")}
    below = {file for file in files if file.is_relative_to(results) and file.is_file()}
    wanted = {file for pattern in KEPT for file in results.glob(pattern)}
    return sorted(below & wanted)


def packed(file: Path, place: str, config: Mapping, closed: Iterable[str]) -> bytes | None:
    """The bytes of a file as a bundle has it, None if it must not have it; `closed` are tasks not to be passed on.

    Of these tasks, records are without the columns that hold the question or the right answer.
    """
    parts, target = Path(place).parts, unfold.target_of(config)
    own = next((task for task in closed if _about(parts, task)), None)
    if place.startswith("report.") and target in closed:  # which quotes questions
        return None
    if own and file.suffix == ".jsonl" and not file.name.endswith("_answers.jsonl"):
        return None
    if file.suffix == ".json":
        drop = {FOLDER} if parts[0] == "models" else set()
        drop |= {*QUOTES} if own or (target in closed and file.name == "train.json") else set()
        return _json(_without(read_json(file), drop)) if drop else file.read_bytes()
    if own and parts[0] == "runs" and file.suffix == ".csv":
        section = config["tasks"][own]
        measure = KINDS[section["kind"]].measure(unfold.stage(config, own, "measure"))
        telling = {*measure.question} - {"id", measure.cluster, *measure.strata}
        with file.open(encoding="utf-8", newline="") as stream:
            rows, text = csv.DictReader(stream), io.StringIO()
            writer = csv.DictWriter(
                text, [one for one in rows.fieldnames if one not in telling], extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)
        return text.getvalue().encode()
    return file.read_bytes()


def _about(parts: tuple[str, ...], task: str) -> bool:
    """Whether a file of a study is about one task."""
    name = parts[-1].partition(".")[0]
    return parts[:2] == ("data", task) or (parts[0] in ("prompts", "runs") and f"{name}_".startswith(f"{task}_"))


def _without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(one, keys) for key, one in value.items() if key not in keys}
    return [_without(one, keys) for one in value] if isinstance(value, list) else value


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def workflow_version() -> dict[str, str]:
    """The version of this workflow and, of a clone, its commit."""
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {"version": version} | ({"commit": told.stdout.strip()} if told.returncode == 0 else {})


def data_sets(config: Mapping, results: Path, known: Mapping[str, str]) -> list[dict[str, Any]]:
    """What is to be known of the data of each task, as entities of an RO-Crate."""
    found = []
    for task in config["tasks"]:
        source = read_json(results / f"data/{task}/source/manifest.json")
        entity = {"@id": f"#data-{task}", "@type": "Dataset", "name": task, "url": source["source"]}
        entity |= {"sha256": source["archive_sha256"]} if source.get("archive_sha256") else {}
        found.append(entity | ({"license": known[task]} if known[task] else {}))
    return found


def crate(study: str, files: Mapping[str, bytes], data: list[dict], made: Mapping[str, str], date: str) -> bytes:
    """The metadata of the archive: RO-Crate 1.1, with the SHA-256 of each file."""
    entities: list[dict[str, Any]] = [
        {
            "@id": CRATE,
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": study,
            "description": f"Configuration, prompts, raw answers, records and tables of the study {study}: what fine-"
            "tuning with LoRA gains on text-to-SQL and what general knowledge it loses.",
            "datePublished": date,
            "license": {"@id": "#licence"},
            "hasPart": [{"@id": name} for name in files],
            "isBasedOn": [{"@id": one["@id"]} for one in data],
        },
        {
            "@id": "#licence",
            "@type": "CreativeWork",
            "name": "Licences of the data sets",
            "description": "Questions, prompts and gold answers are under the licence of their data set. Who made the "
            "study says under which terms the rest may be used.",
        },
        {"@id": "#workflow", "@type": "SoftwareApplication", "name": "LoRA Trade-off", "version": made["version"]}
        | ({"identifier": made["commit"]} if "commit" in made else {}),
        {"@id": "#made", "@type": "CreateAction", "instrument": {"@id": "#workflow"}, "result": {"@id": "./"}},
        *data,
    ]
    for name, content in files.items():
        entity = {"@id": name, "@type": "File", "name": name, "contentSize": str(len(content))}
        form = "application/jsonl" if name.endswith(".jsonl") else mimetypes.guess_type(name)[0]
        entities.append(entity | {"encodingFormat": form or "text/plain", "sha256": sha256(content).hexdigest()})
    context = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
    return _json({"@context": context, "@graph": entities})


def bundle(config: Mapping, workflow: Workflow, known: Mapping[str, str], out: Path) -> dict[str, bytes]:
    """Write the archive; return what is in it.

    Raises:
        UserError: as `finished`.
    """
    study = unfold.label(config)
    results = Path("results", study)
    chosen, closed = finished(workflow, results), [task for task, licence in known.items() if not licence]
    places = {file.relative_to(results).as_posix(): file for file in chosen}
    files = {
        place: content for place, file in places.items() if (content := packed(file, place, config, closed)) is not None
    }
    made, data = workflow_version(), data_sets(config, results, known)
    rows = [
        f"| {one['name']} | {one['url']} | {one.get('sha256', '')} | {one.get('license', 'not known')} | "
        f"{'in this archive' if one.get('license') else 'left out: their ids and a hash alone'} |"
        for one in data
    ]
    told = {"study": study, "version": made["version"], "crate": CRATE, "tasks": "\n".join(rows)}
    files["README.md"] = README.format(**told).encode()
    files["config.yaml"] = redacted(yaml.safe_dump(config, allow_unicode=True, width=120)).encode()
    files["versions.json"] = _json({"workflow": made, "libraries": versions()})
    files = dict(sorted(files.items()))
    last = max(file.stat().st_mtime for file in chosen)
    date = datetime.datetime.fromtimestamp(last, datetime.UTC).date().isoformat()
    files[CRATE] = crate(study, files, data, made, date)
    with atomic_write(out, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return files


def main(arguments: list[str] | None = None) -> int:
    """Pack a study; return 1 if it cannot be, and say why on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"), help="the study")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake")
    help_licence = "the licence under which the data of a task may be passed on, or none"
    parser.add_argument("--licence", action="append", default=[], metavar="TASK=LICENCE", help=help_licence)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the archive; by default results/<study>.zip")
    given = parser.parse_args(arguments)
    try:
        config = as_for_snakemake(given.configfile, given.config)
        known = licences(config, given.licence)
        out = given.out or Path("results", f"{unfold.label(config)}.zip")
        files = bundle(config, planned(given.configfile, overrides_of(given.config)), known, out)
    except (UserError, WorkflowError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    closed = [task for task, licence in known.items() if not licence]
    left = f" Without questions, prompts and gold answers of {', '.join(closed)}: --licence." if closed else ""
    print(f"{out}: {len(files)} files, {out.stat().st_size / 1e6:.1f} MB.{left}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
