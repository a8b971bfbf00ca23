"""Spider: questions, schemas and databases, checked and reduced to what the study reads."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.download import find_root, opened
from common.files import UserError, described, read_json, sha256_file, write_json
from tasks.choice import not_text
from tasks.sql_schema import HEADER

QUESTION_FILES = ("train_spider", "train_others", "dev")
FIELDS = ("db_id", "question", "query")


def fetch(options: Mapping[str, Any], folder: str | Path) -> None:
    """Write train_spider.json, train_others.json, dev.json, tables.json, database/ and manifest.json into `folder`.

    Args:
        options: `source`, `sha256` and `counts` of the section spider (`study.schema.Spider`).
        folder: nothing in it is replaced before all of the new data has been checked.

    Raises:
        UserError: the source cannot be had, or a file is missing, malformed or of another size than expected.
    """
    source, out = options["source"], Path(folder)
    keep = (".json", ".sqlite")
    files = [f"{name}.json" for name in (*QUESTION_FILES, "tables")]
    with opened(source, options["sha256"], out / "unpacked", lambda name: name.endswith(keep)) as (found, archive):
        root = find_root(found, "tables.json", source)
        tables = _read_tables(root / "tables.json")
        questions = {name: _read_questions(root / f"{name}.json", options["counts"], tables) for name in QUESTION_FILES}
        used = sorted({row["db_id"] for rows in questions.values() for row in rows})
        databases = [f"database/{db_id}/{db_id}.sqlite" for db_id in used]
        for name in databases:
            _check_database(root, name)
        originals = {name: sha256_file(root / name) for name in files}
        shutil.rmtree(out / "database", ignore_errors=True)
        for name in tqdm(databases, desc="databases", mininterval=1):
            (out / name).parent.mkdir(parents=True)
            shutil.copyfile(root / name, out / name)

    for name, rows in questions.items():
        write_json(out / f"{name}.json", rows)
    write_json(out / "tables.json", list(tables.values()))
    manifest = {
        "source": source,
        "archive_sha256": archive,
        "counts": {name: len(rows) for name, rows in questions.items()},
        "databases": len(databases),
        "original_sha256": originals,
        "files": described(out, files + databases),
    }
    write_json(out / "manifest.json", manifest)


def _read_tables(path: Path) -> dict[str, dict]:
    """Read tables.json: the schema of each database by its db_id, in the order of the file."""
    needed = {"db_id", "table_names_original", "column_names_original", "column_types", "primary_keys", "foreign_keys"}
    tables = {}
    for number, schema in enumerate(_list(path)):
        if missing := needed - set(schema):
            raise UserError(f"{path}, entry {number}: lacks {', '.join(sorted(missing))}, which Spider's schemas have.")
        db_id = schema["db_id"]
        if not isinstance(db_id, str) or db_id in ("", ".", "..") or "/" in db_id or "\\" in db_id or db_id in tables:
            raise UserError(f"{path}, entry {number}: db_id {db_id!r} is no folder's name, or comes twice.")
        tables[db_id] = schema
    return tables


def _read_questions(path: Path, counts: Mapping[str, int], tables: dict[str, dict]) -> list[dict[str, str]]:
    """Read db_id, question and query of each row, without the token lists and the `sql` tree."""
    rows, expected = [], counts[path.stem]
    for number, row in enumerate(_list(path)):
        kept = {field: row.get(field) for field in FIELDS}
        if wrong := not_text(kept):
            raise UserError(f"{path}, row {number}: {wrong}.")
        if row["db_id"] not in tables:
            raise UserError(f"{path}, row {number}: db_id {row['db_id']!r} is not in tables.json.")
        rows.append(kept)
    if len(rows) != expected:
        raise UserError(
            f"{path.name}: found {len(rows):,} questions, expected {expected:,} (config: spider, counts, {path.stem}). "
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


def _list(path: Path) -> list[dict]:
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{path}: expected a JSON list of objects. It is not a file of Spider.")
    return value
