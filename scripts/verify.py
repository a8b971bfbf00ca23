"""Verify a bundle: score all its answers and compute all its tables anew, and say which numbers agree.

    python scripts/verify.py BUNDLE [--data results/<study>/data] [--offline] [--cores N]

BUNDLE is an archive of scripts/bundle.py. Its files are held against their hashes, and its reports against the files
that they name. Then the rules of this workflow that come after the answers run in a temporary folder on what was asked
and answered, and every record and table that they write is compared with that of the bundle. Numbers agree if they
differ by less than a millionth: the last digits depend on the machine. No GPU and no model library is needed.

To execute SQL takes the databases. They are fetched from the source that the study names, or taken from --data, the
folder of a study's data that has them. With the data, the questions are made anew and compared too. What could not be
checked for want of data is said.

Each difference is named with file, row and column. The exit status is 1 if there is one, else 0.
"""

import argparse
import csv
import difflib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(ROOT))

from common.download import extract  # noqa: E402
from common.files import (  # noqa: E402
    UserError,
    described,
    read_json,
    read_jsonl,
    read_object,
    sha256_file,
    write_json,
    write_jsonl,
    write_text,
)
from custom_metrics.judge import cores  # noqa: E402
from present.catalogue import TABLES  # noqa: E402
from study import unfold  # noqa: E402
from study.read import read_yaml, resolve  # noqa: E402
from study.repair import repairs  # noqa: E402
from tasks.registry import KINDS  # noqa: E402

CRATE = "ro-crate-metadata.json"
# Numbers that differ by less, relative or absolute, agree.
RELATIVE, ABSOLUTE = 1e-6, 1e-9
# So many differences of one file are printed.
SHOWN = 10
# Every file has one time, so that nothing is newer than what was made of it.
TIME = 1.7e9

Rows = list[tuple[str, Mapping[str, str]]]  # of each row its name, and its cells by column


@dataclass
class Findings:
    """What was compared: how much of each kind, what differs, and what could not be checked."""

    agreed: list[str] = field(default_factory=list)
    different: dict[str, list[str]] = field(default_factory=dict)  # by file
    unchecked: list[str] = field(default_factory=list)

    def differs(self, place: str, what: str) -> None:
        self.different.setdefault(place, []).append(what)


def fact(path: Path, key: str) -> Any:
    """What a JSON object of a bundle says of a key; a UserError if it lacks the key."""
    if key not in (found := read_object(path)):
        raise UserError(f"{path}: lacks {key}. Get the archive again.")
    return found[key]


def _are_named(entities: Any) -> bool:
    return isinstance(entities, list) and all(
        isinstance(one, dict) and isinstance(one.get("@id"), str) for one in entities
    )


def check_hashes(bundle: Path, found: Findings) -> None:
    """Hold each file against the hash that the archive's metadata list."""
    graph = fact(bundle / CRATE, "@graph")
    listed = {one["@id"]: one for one in graph if one.get("@type") == "File"} if _are_named(graph) else {}
    if not listed:
        raise UserError(f"{bundle / CRATE}: lists no files: it is not one of scripts/bundle.py. Give the path of one.")
    there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()} - {CRATE}
    for name in sorted(listed.keys() - there):
        found.differs(name, f"is not in the archive, but in {CRATE}")
    for name in sorted(there - listed.keys()):
        found.differs(name, f"is in the archive, but not in {CRATE}")
    same = sorted(there & listed.keys())
    for name, actual in described(bundle, same).items():
        if actual["sha256"] != listed[name].get("sha256"):
            found.differs(name, f"sha256 {actual['sha256']}, but {listed[name].get('sha256')} in {CRATE}")
    found.agreed.append(f"{len(same)} files were held against their hashes.")


def chain(config: Mapping, bundle: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield of each report the file, the key of a hash in it, and the file whose hash that is."""
    labels = {run["folder"]: run["variant"] for run in unfold.runs(config) + unfold.noise(config)}
    again = {run["folder"] for run in repairs(config)}
    target = unfold.target_of(config)
    own = {task: unfold.own_prompts(config, task) for task in unfold.asked_tasks(config)}
    for part in sorted(bundle.glob("data/*/*.json")):
        yield part, "sha256", part.with_suffix(".jsonl")
        yield part, "source_sha256", part.parent / "source/manifest.json"
    for report in sorted(bundle.glob("prompts/*/*.json")):
        yield report, "sha256", report.with_suffix(".jsonl")
    for report in sorted(bundle.glob("runs/*/*/*_predict.json")):
        model, folder, task = report.parts[-3], report.parts[-2], report.name.removesuffix("_predict.json")
        part = folder if folder in again else own[task].get(labels.get(folder), "test")
        yield report, "answers_sha256", report.with_name(f"{task}_answers.jsonl")
        yield report, "prompts_sha256", bundle / f"prompts/{model}/{task}_{part}.jsonl"
    for report in sorted(bundle.glob("runs/*/*/train.json")):
        yield report, "data_sha256", bundle / f"prompts/{report.parts[-3]}/{target}_train.jsonl"


def check_reports(config: Mapping, bundle: Path, found: Findings) -> None:
    """Hold the hashes in the reports against the files that they are of, and a pre-registration against the study."""
    number = 0
    for report, key, file in chain(config, bundle):
        # Prompts and questions that may not be passed on are not there.
        if file.is_file() and (expected := read_object(report).get(key)):
            number += 1
            if (actual := sha256_file(file)) != expected:
                place = report.relative_to(bundle).as_posix()
                found.differs(place, f"{key}: found {expected}, but {file.relative_to(bundle)} has {actual}")
    registered = bundle / f"preregistered/{unfold.registration(config)}.json"
    for path in bundle.glob("preregistered/*.json"):
        written = {key: one for key, one in read_object(path).items() if key not in ("registered", "expected")}
        now = json.loads(json.dumps(unfold.registered(config)))
        if path != registered or written != now:
            other = sorted(key for key in {*written, *now} if written.get(key) != now.get(key))
            found.differs(
                path.relative_to(bundle).as_posix(), f"is not of this study: {', '.join(other) or 'its name'}"
            )
    found.agreed.append(f"{number} hashes of questions, prompts and answers in reports were held against the files.")


def get_data(
    config: Mapping, bundle: Path, given: Path | None, scratch: Path | None, found: Findings
) -> dict[str, Path]:
    """Give by task the folder of the raw data, of those tasks for which it is needed and there.

    They are taken from `given`, or else fetched into `scratch`; where that is None, nothing is fetched.
    """
    folders = {}
    for task in unfold.asked_tasks(config):
        kind, section = KINDS[config["tasks"][task]["kind"]], config["tasks"][task]
        own = given / task / "source" if given else None
        if own and (own / "manifest.json").is_file():
            folders[task] = own
        elif needs_data(config, bundle, task):
            why = "nothing is fetched with --offline"
            if scratch:
                try:
                    kind.fetch(unfold.stage(config, task, "fetch"), scratch / task)
                    folders[task] = scratch / task
                    continue
                except (UserError, OSError) as error:
                    why = str(error)
            found.unchecked.append(
                f"{task}: its data are not there ({why}), so its answers were not scored anew. Fetch them from "
                f"{section['source']} by running a study, and give the folder: --data results/<study>/data."
            )
    for task, folder in folders.items():
        listed, there = (
            read_object(one / "manifest.json").get("files", {}) for one in (bundle / f"data/{task}/source", folder)
        )
        for name in sorted({*listed, *there}):
            if listed.get(name) != there.get(name):
                found.differs(f"data/{task}/source/manifest.json", f"{name}: the data that are there have another hash")
    return folders


def needs_data(config: Mapping, bundle: Path, task: str) -> bool:
    """Whether answers to a task cannot be scored from the bundle alone: SQL, or questions that it may not have."""
    measure = KINDS[config["tasks"][task]["kind"]].measure(unfold.stage(config, task, "measure"))
    return measure.form == "sql" or not (bundle / f"data/{task}/test.jsonl").is_file()


def check_questions(config: Mapping, bundle: Path, folders: Mapping[str, Path], study: Path, found: Findings) -> None:
    """Make the questions anew from the data, compare them, and put them where a bundle must not have them."""
    for task in unfold.asked_tasks(config):
        if task not in folders:
            if (bundle / f"data/{task}/test.jsonl").is_file():
                found.unchecked.append(f"{task}: its questions were not compared with their source. --data does so.")
            continue
        kind = KINDS[config["tasks"][task]["kind"]]
        asked = unfold.stage(config, task, "test")
        if config["tasks"][task].get("answered"):  # answers that were given elsewhere decided it
            asked["only"] = fact(bundle / f"data/{task}/test.json", "ids")
        rows, _ = kind.prepare(asked, folders[task], "test")
        place = f"data/{task}/test.jsonl"
        if (bundle / place).is_file():
            sides = ([(_name(row), texts(row)) for row in one] for one in (read_jsonl(bundle / place), rows))
            for difference in differences(*sides):
                found.differs(place, difference)
        else:
            write_jsonl(study / place, rows)
            if (actual := sha256_file(study / place)) != fact(bundle / f"data/{task}/test.json", "sha256"):
                found.differs(f"data/{task}/test.json", f"sha256: the questions made of the data have {actual}")
        found.agreed.append(f"{len(rows):,} questions of {task} were made anew from the data.")


def lay_out(config: Mapping, bundle: Path, folders: Mapping[str, Path], work: Path) -> Path:
    """Put the study where the workflow looks for it, without what it is to make; return the folder of its results."""
    study = work / "results" / unfold.label(config)
    # What no rule after the answers depends on, and what would ask for a token.
    tasks = {name: section | {"prompt": None} for name, section in config["tasks"].items()}
    models = {name: model | {"gated": False} for name, model in config["models"].items()}
    write_text(work / "study.yaml", yaml.safe_dump({**config, "tasks": tasks, "models": models}))
    for path in bundle.rglob("*"):
        if path.is_file():
            copy = study / path.relative_to(bundle)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            if path.name.endswith("_predict.json"):  # answers that were changed are scored too, to see what differs
                write_json(copy, read_json(path) | {"answers_sha256": None})
            os.utime(copy, (TIME, TIME))
    for task, folder in folders.items():
        source = study / f"data/{task}/source"
        for path in source.iterdir():
            path.unlink()
        source.rmdir()
        source.symlink_to(folder.resolve(), target_is_directory=True)
    return study


def to_make(config: Mapping, bundle: Path, scored: Sequence[str]) -> tuple[list[str], list[str]]:
    """The records and the tables of the bundle that can be made again, below its root."""
    runs = unfold.runs(config) + unfold.noise(config)
    places = [f"runs/{run['model']}/{run['folder']}" for run in runs]
    records = [f"{place}/{task}.csv" for place in places for task in scored]
    target = unfold.target_of(config)
    if target in scored:
        records += [f"runs/{run['model']}/{run['folder']}/{target}.csv" for run in repairs(config)]
    records += [f"data/{task}/gold.csv" for task in scored if (bundle / f"data/{task}/gold.csv").is_file()]
    known = {*unfold.asked_tasks(config), *(table.key for table in TABLES)}
    tables = [path for path in sorted(bundle.glob("tables/*")) if path.stem in known]
    return records, [path.relative_to(bundle).as_posix() for path in tables] + ["index.csv"]


def run_rules(config: Mapping, study: Path, targets: Sequence[str], number: int) -> list[str]:
    """Run the rules that make these files of a study; return the sentences with which jobs have failed."""
    work = study.parents[1]
    rules = [f"{what}_{task}" for task in unfold.asked_tasks(config) for what in ("score", "certify")]
    rules += [*sorted({table.rule for table in TABLES}), "index"]
    for place in targets:
        (study / place).unlink(missing_ok=True)
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(work)]
        + ["--configfile", str(work / "study.yaml"), "--cores", str(number), "--quiet", "all", "--keep-going"]
        + ["--workflow-profile", "none", "--rerun-triggers", "mtime", "--allowed-rules", *rules, "--"]
        + [(study / place).relative_to(work).as_posix() for place in targets],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode == 0:
        return []
    logs = sorted((study / "logs").rglob("*.log"))
    lines = [(log, line) for log in logs for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    told = [f"{log.relative_to(study / 'logs')}: {line[7:]}" for log, line in lines if line.startswith("ERROR: ")]
    return told or [run.stdout[-2000:].strip()]


def _name(row: Any) -> str:
    return str(row.get("id")) if isinstance(row, dict) else "a row that is no object"


def texts(row: Any, prefix: str = "") -> dict[str, str]:
    """The values of a JSON object as text, by their places in it."""
    if not isinstance(row, dict | list):
        return {prefix: json.dumps(row)}
    found = {}
    for key, value in row.items() if isinstance(row, dict) else enumerate(row):
        place = f"{prefix}.{key}" if prefix else str(key)
        found |= texts(value, place) if isinstance(value, dict | list) else {place: json.dumps(value)}
    return found


def read(path: Path) -> Rows:
    """The rows of a CSV file, the lines of a page, or the values of a JSON file; a record is named by its id."""
    if path.suffix == ".json":
        return [("", texts(read_json(path)))]
    # Whoever forged a file may have written anything into it.
    with path.open(encoding="utf-8", errors="backslashreplace", newline="") as stream:
        if path.suffix != ".csv":
            return list(_lines(stream))
        try:
            found = list(csv.DictReader(stream))
        except csv.Error as error:
            raise UserError(f"{path}: not a CSV file ({error}). Get the archive again.") from None
    # A row with more cells than there are columns has a list of them.
    rows = [{key or "": cell if cell is None else "".join(cell) for key, cell in row.items()} for row in found]
    named = []
    for number, row in enumerate(rows, 2):
        words = [cell for cell in row.values() if cell and _number(cell) is None][:3]
        named.append((row["id"] if "id" in row else f"line {number} ({', '.join(words)})", row))
    return named


def _lines(page: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the lines of Markdown, those of a table cell by cell under its headings."""
    headings: list[str] = []
    for number, line in enumerate(page, 1):
        cells = [cell.strip() for cell in line.split("|")] if line.startswith("|") else []
        headings = (headings or cells) if cells else []
        whole = {"": line.rstrip("\n")} if len(cells) != len(headings) or not cells else None
        yield f"line {number}", whole or dict(zip(headings, cells, strict=True))


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (ValueError, TypeError):  # the second of a cell that its row lacks
        return None


def agree(one: str | None, other: str | None) -> bool:
    """Whether two cells are equal, or numbers that differ by less than what machines differ in."""
    if one == other or one is None or other is None:
        return one == other
    first, second = _number(one), _number(other)
    numbers = first is not None and second is not None
    return numbers and math.isclose(first, second, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def differences(stored: Rows, made: Rows) -> Iterator[str]:
    """Yield what differs between rows of the bundle and those made anew: a row that one side lacks, or a cell."""
    names = [name for name, _ in stored], [name for name, _ in made]
    by_name = len({*names[0]}) == len(stored) and not all(name.startswith("line ") for name in names[0])
    if by_name or len(stored) == len(made):
        keys = names if by_name else (range(len(stored)), range(len(made)))
        first, second = (dict(zip(of, rows, strict=True)) for of, rows in zip(keys, (stored, made), strict=True))
        for key in [*first, *(key for key in second if key not in first)]:
            if key not in second:
                yield f"{first[key][0]}: is in the bundle, and not made anew"
            elif key not in first:
                yield f"{second[key][0]}: is not in the bundle"
            else:
                yield from _cells(first[key], second[key])
        return
    yield from _aligned(stored, made, _whole, _words)


def _whole(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row.values())


def _words(row: Mapping[str, str]) -> tuple[str, ...]:
    """What of a row stays though its numbers change."""
    return tuple(cell for cell in row.values() if _number(cell) is None)


def _aligned(stored: Rows, made: Rows, key: Callable, *further: Callable) -> Iterator[str]:
    """Yield what differs between rows, of which those belong together whose keys are equal, by one key or a further."""
    keys = [[key(row) for _, row in rows] for rows in (stored, made)]
    for what, start, end, begin, stop in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        mine, theirs = stored[start:end], made[begin:stop]
        if what == "equal":
            for pair in zip(mine, theirs, strict=True):
                yield from _cells(*pair)
        elif further:
            yield from _aligned(mine, theirs, *further)
        else:
            yield from (f"{name}: is in the bundle, and not made anew" for name, _ in mine)
            yield from (f"{name} of the table made anew: is not in the bundle" for name, _ in theirs)


def _cells(stored: tuple[str, Mapping[str, str]], made: tuple[str, Mapping[str, str]]) -> Iterator[str]:
    name, mine, theirs = stored[0], stored[1], made[1]
    for column in [*mine, *(one for one in theirs if one not in mine)]:
        if not agree(mine.get(column), theirs.get(column)):
            place = ", ".join(part for part in (name, column) if part)
            yield f"{place}: {_short(mine.get(column))} in the bundle, {_short(theirs.get(column))} made anew"


def _short(text: str | None) -> str:
    return "nothing" if text is None else repr(text if len(text) <= 100 else f"{text[:100]}…")


def compare(bundle: Path, study: Path, places: Sequence[str], kind: str, found: Findings) -> None:
    """Compare files of the bundle with those made anew, and count what agrees."""
    cells = wrong = files = 0
    for place in places:
        if not (bundle / place).is_file():
            found.differs(place, "is not in the bundle")
        elif not (study / place).is_file():
            found.differs(place, "could not be made anew")
        else:
            stored, made = read(bundle / place), read(study / place)
            if place.startswith("runs/") and stored:
                # Columns with questions that may not be passed on are not there.
                there = stored[0][1].keys()
                made = [(name, {key: row[key] for key in row if key in there}) for name, row in made]
            told = list(differences(stored, made))
            files, wrong, cells = files + 1, wrong + len(told), cells + sum(len(row) for _, row in stored)
            for one in told:
                found.differs(place, one)
    found.agreed.append(f"{kind}: {files} files with {cells:,} values were made anew; {wrong} differ.")


def verify(bundle: Path, work: Path, data: Path | None, offline: bool, number: int) -> Findings:
    """Check an unpacked bundle; files are made in the folder `work`.

    Raises:
        UserError: it is no bundle.
    """
    for name in (CRATE, "config.yaml"):
        if not (bundle / name).is_file():
            raise UserError(f"{name} is not in the archive: it is not one of scripts/bundle.py. Give the path of one.")
    found = Findings()
    config = resolve(read_yaml(bundle / "config.yaml"), source="config.yaml of the bundle")
    check_hashes(bundle, found)
    check_reports(config, bundle, found)
    folders = get_data(config, bundle, data, None if offline else work / "data", found)
    study = lay_out(config, bundle, folders, work)
    check_questions(config, bundle, folders, study, found)
    scored = [task for task in unfold.asked_tasks(config) if task in folders or not needs_data(config, bundle, task)]
    records, tables = to_make(config, bundle, scored)
    whole = all(
        (bundle / f"data/{task}/test.jsonl").is_file() for task in unfold.asked_tasks(config) if task not in scored
    )
    if not whole:
        found.unchecked.append("The tables were not computed anew: they need records that have their questions.")
    for sentence in run_rules(config, study, [*records, *(tables if whole else ["index.csv"])], number):
        found.differs("a job that failed", sentence)
    compare(bundle, study, records, "Records", found)
    compare(bundle, study, tables if whole else ["index.csv"], "Tables", found)
    return found


def report(found: Findings) -> Iterator[str]:
    """The lines to print."""
    yield from found.agreed
    yield "Report, figures, and what training and answering say of themselves: only their hashes were checked."
    for sentence in found.unchecked:
        yield f"NOT CHECKED  {sentence}"
    for place, sentences in found.different.items():
        for sentence in sentences[:SHOWN]:
            yield f"DIFFERS  {place}, {sentence}" if not sentence.startswith("is ") else f"DIFFERS  {place} {sentence}"
        if len(sentences) > SHOWN:
            yield f"DIFFERS  {place}: {len(sentences) - SHOWN} more"
    number = sum(map(len, found.different.values()))
    rest = " of what could be checked" if found.unchecked else ""
    yield f"{number} differences in {len(found.different)} files." if number else f"All numbers{rest} agree."


def main(arguments: list[str] | None = None) -> int:
    """Print what agrees and what does not; return 1 if anything differs, or the archive is no bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the archive")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="the folder data/ of a study that has the data sets"
    )
    parser.add_argument("--offline", action="store_true", help="fetch no data")
    parser.add_argument("--cores", type=int, default=cores(), help="processes to use; by default all cores")
    given = parser.parse_args(arguments)
    try:
        if not given.bundle.is_file():
            raise UserError(f"{given.bundle}: no such file. Give the path of an archive that scripts/bundle.py wrote.")
        if given.data and not given.data.is_dir():
            raise UserError(f"--data {given.data}: no such folder. Give the folder data/ of a study's results.")
        if given.cores < 1:
            raise UserError(f"--cores: found {given.cores}, expected 1 or more.")
        with tempfile.TemporaryDirectory() as folder:
            extract(given.bundle, bundle := Path(folder, "bundle"))
            try:
                found = verify(bundle, Path(folder, "work"), given.data, given.offline, given.cores)
            except UserError as error:
                raise UserError(str(error).replace(f"{bundle}/", f"{given.bundle}, ")) from None
    except (UserError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(*report(found), sep="\n")
    return int(bool(found.different))


if __name__ == "__main__":
    sys.exit(main())
