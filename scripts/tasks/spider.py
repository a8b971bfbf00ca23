"""Spider: questions, schemas and databases, checked and reduced to what the study reads."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from common.download import find_root, opened
from common.files import UserError, described, read_json, sha256_file, write_json
from custom_metrics.hardness import LEVELS
from tasks import text_to_sql
from tasks.base import Measure
from tasks.choice import not_text
from tasks.sections import AtLeast1, Count, Section, Sha256, SomeSet, Text
from tasks.sql_schema import HEADER, Schemas
from tasks.text_to_sql import PARTS, PROMPT, SMOKE, choices, remedy, score, shots, target

__all__ = ["PARTS", "PROMPT", "SMOKE", "choices", "remedy", "score", "shots", "target"]

QUESTION_FILES = ("train_spider", "train_others", "dev")
FIELDS = ("db_id", "question", "query")
_FETCH = {"fetch": ("source", "sha256", "counts")}
_TRAIN = {part: ("train_files", *text_to_sql.STAGES[part]) for part in ("train", "validation", "shots")}
STAGES = text_to_sql.STAGES | _FETCH | _TRAIN


class Counts(Section):
    """How many questions each file must hold. The official release has 7000, 1659 and 1034."""

    train_spider: Count = 7000
    """Questions in train_spider.json."""
    train_others: Count = 1659
    """Questions in train_others.json."""
    dev: AtLeast1 = 1034
    """Questions in dev.json."""


class Options(text_to_sql.Options):
    """Spider (Yu et al. 2018, arXiv:1809.08887): text-to-SQL on databases that the training has not seen."""

    kind: Literal["spider"] = "spider"
    role: Literal["target", "yardstick"] = "target"
    source: Text = "gdrive:1403EGqzIDoHMdQF4c9Bkyl7dZLZ5Wt6J"
    """The release's archive or its unpacked folder: an http(s) URL, gdrive:<id> (the official archive is
    gdrive:1403EGqzIDoHMdQF4c9Bkyl7dZLZ5Wt6J), or a local path."""
    sha256: Sha256 | None = None
    """SHA-256 of the archive; null to check only the counts."""
    counts: Counts = Counts()
    train_files: SomeSet[Literal["train_spider", "train_others"]] = ["train_others", "train_spider"]
    """The files whose questions are trained on."""


def measure(options: Mapping[str, Any]) -> Measure:
    return text_to_sql.measure(options, "Spider", ("hardness", LEVELS))


def prepare(options: Mapping[str, Any], folder: Path, part: str) -> tuple[list[dict], dict[str, Any]]:
    """One part of the data of a folder that `fetch` wrote; see `tasks.text_to_sql.prepare`."""
    schemas = {schema["db_id"]: schema for schema in read_json(folder / "tables.json")}
    train = (
        []
        if part == "test"
        else [row for name in options["train_files"] for row in text_to_sql.read_rows(folder / f"{name}.json", schemas)]
    )
    dev = held_out(folder)
    dev_databases = {row["db_id"] for row in dev}
    if both := [row for row in train if row["db_id"] in dev_databases]:
        raise UserError(
            f"{both[0]['id']}: is on database {both[0]['db_id']}, which is in dev.json too. Training on it would spoil "
            "the evaluation; remove its rows from one of the two files."
        )
    return text_to_sql.prepare(options, part, train, dev, schemas)


def held_out(folder: Path) -> list[dict]:
    """All questions of dev, which no training may see."""
    schemas = {schema["db_id"]: schema for schema in read_json(folder / "tables.json")}
    return text_to_sql.read_rows(folder / "dev.json", schemas)


def context(options: Mapping[str, Any], folder: Path) -> Callable[[Mapping], dict[str, str]]:
    """See `tasks.text_to_sql.context`."""
    schemas = Schemas(read_json(folder / "tables.json"), folder / "database", options["schema"], options["sample_rows"])
    return text_to_sql.context(options, schemas)


def fetch(options: Mapping[str, Any], folder: str | Path) -> None:
    """Write train_spider.json, train_others.json, dev.json, tables.json, database/ and manifest.json into `folder`.

    Args:
        options: `source`, `sha256` and `counts`; and `name`, the section in messages.
        folder: nothing in it is replaced before all of the new data has been checked.

    Raises:
        UserError: the source cannot be had, or a file is missing, malformed or of another size than expected.
    """
    source, out = options["source"], Path(folder)
    keep = (".json", ".sqlite")
    with opened(source, options["sha256"], out / "unpacked", lambda name: name.endswith(keep)) as (found, archive):
        root = find_root(found, "tables.json", source)
        tables = read_tables(root / "tables.json")
        questions = {name: _read_questions(root / f"{name}.json", options, tables) for name in QUESTION_FILES}
        used = sorted({row["db_id"] for rows in questions.values() for row in rows})
        for db_id in used:
            _check_database(root, f"database/{db_id}/{db_id}.sqlite")
        databases = {db_id: root / "database" / db_id / f"{db_id}.sqlite" for db_id in used}
        originals = {f"{name}.json": sha256_file(root / f"{name}.json") for name in (*QUESTION_FILES, "tables")}
        facts = {"source": source, "archive_sha256": archive, "original_sha256": originals}
        store(out, questions, tables, databases, facts)


def store(
    out: Path,
    questions: Mapping[str, Sequence[Mapping]],
    tables: Mapping[str, Mapping],
    databases: Mapping[str, Path],
    facts: Mapping[str, Any],
) -> None:
    """Write checked data: the questions of each file, schemas, the databases by db_id, and manifest.json with `facts`.

    What was there before, of these or of other files, is no longer there after it.
    """
    shutil.rmtree(out / "database", ignore_errors=True)
    for old in out.glob("*.json"):
        old.unlink()
    for name, rows in questions.items():
        write_json(out / f"{name}.json", rows)
    write_json(out / "tables.json", list(tables.values()))
    files = [*(f"{name}.json" for name in questions), "tables.json"]
    for db_id, path in tqdm(databases.items(), desc="databases", mininterval=1):
        files.append(f"database/{db_id}/{db_id}.sqlite")
        (out / files[-1]).parent.mkdir(parents=True)
        shutil.copyfile(path, out / files[-1])
    counts = {"counts": {name: len(rows) for name, rows in questions.items()}, "databases": len(databases)}
    write_json(out / "manifest.json", {**facts, **counts, "files": described(out, files)})


def read_tables(path: Path) -> dict[str, dict]:
    """Read tables.json: the schema of each database by its db_id, in the order of the file."""
    needed = {"db_id", "table_names_original", "column_names_original", "column_types", "primary_keys", "foreign_keys"}
    tables = {}
    for number, schema in enumerate(read_list(path)):
        if missing := needed - set(schema):
            raise UserError(f"{path}, entry {number}: lacks {', '.join(sorted(missing))}, which Spider's schemas have.")
        db_id = schema["db_id"]
        if not isinstance(db_id, str) or db_id in ("", ".", "..") or "/" in db_id or "\\" in db_id or db_id in tables:
            raise UserError(f"{path}, entry {number}: db_id {db_id!r} is no folder's name, or comes twice.")
        tables[db_id] = schema
    return tables


def _read_questions(path: Path, options: Mapping[str, Any], tables: dict[str, dict]) -> list[dict[str, str]]:
    """Read db_id, question and query of each row, without the token lists and the `sql` tree."""
    rows, expected = [], options["counts"][path.stem]
    for number, row in enumerate(read_list(path)):
        kept = {field: row.get(field) for field in FIELDS}
        if wrong := not_text(kept):
            raise UserError(f"{path}, row {number}: {wrong}.")
        if row["db_id"] not in tables:
            raise UserError(f"{path}, row {number}: db_id {row['db_id']!r} is not in tables.json.")
        rows.append(kept)
    if len(rows) != expected:
        raise UserError(
            f"{path.name}: found {len(rows):,} questions, expected {expected:,} "
            f"({options['name']}.counts.{path.stem}). "
            "Use the whole file, or correct the count if this is other data."
        )
    return rows


def _check_database(root: Path, name: str) -> None:
    if not (root / name).is_file():
        raise UserError(
            f"{name}: missing, and there are questions on it. "
            "Use the release that has the databases (some copies of Spider have none)."
        )
    with (root / name).open("rb") as stream:
        if stream.read(len(HEADER)) != HEADER:
            raise UserError(f"{name}: not an SQLite database. Get the data again.")


def read_list(path: Path) -> list[dict]:
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{path}: expected a JSON list of objects. It is not a file of Spider.")
    return value
