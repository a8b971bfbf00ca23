"""Spider: questions, schemas and databases, checked and reduced to what the study reads."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.download import CACHE, find_root, opened
from common.files import UserError, read_json, sha256_file, write_json
from tasks.sql_schema import HEADER

QUESTION_FILES = ("train_spider", "train_others", "dev")
FIELDS = ("db_id", "question", "query")


def fetch(options: Mapping[str, Any], folder: str | Path, cache_dir: str | Path = CACHE) -> None:
    """Write train_spider.json, train_others.json, dev.json, tables.json, database/ and manifest.json into `folder`.

    Args:
        options: `source`: http(s) URL, `gdrive:<id>`, or local archive or folder in the layout of the official release.
            `sha256`: of the archive, or None.
            `counts`: expected number of questions of each of `QUESTION_FILES`.
        folder: nothing in it is replaced before all of the new data has been checked.
        cache_dir: where downloads are kept.

    Raises:
        UserError: the source cannot be had, or a file is missing, malformed or of another size than expected.
    """
    source, counts, out = options["source"], options["counts"], Path(folder)
    out.mkdir(parents=True, exist_ok=True)

    def keep(name: str) -> bool:
        return name.endswith((".json", ".sqlite"))

    with opened(source, options["sha256"], out / "unpacked", keep, cache_dir) as (found, archive_sha256):
        root = find_root(found, "tables.json", source)
        tables = read_tables(root / "tables.json")
        questions = {name: read_questions(root / f"{name}.json", counts[name], tables) for name in QUESTION_FILES}
        used = sorted({row["db_id"] for rows in questions.values() for row in rows})
        databases = {db_id: find_database(root, db_id) for db_id in used}
        originals = {f"{name}.json": sha256_file(root / f"{name}.json") for name in (*QUESTION_FILES, "tables")}
        _replace_databases(databases, out / "database")

    for name, rows in questions.items():
        write_json(out / f"{name}.json", rows)
    write_json(out / "tables.json", list(tables.values()))
    kept = [f"{name}.json" for name in (*QUESTION_FILES, "tables")] + [f"database/{d}/{d}.sqlite" for d in used]
    manifest = {
        "source": source,
        "archive_sha256": archive_sha256,
        "counts": {name: len(rows) for name, rows in questions.items()},
        "databases": len(used),
        "original_sha256": originals,
        "files": {name: {"bytes": (out / name).stat().st_size, "sha256": sha256_file(out / name)} for name in kept},
    }
    write_json(out / "manifest.json", manifest)


def read_tables(path: Path) -> dict[str, dict]:
    """Read tables.json: return the schema of each database by its db_id, in the order of the file.

    Raises:
        UserError: an entry lacks a key, or a db_id cannot be a folder's name.
    """
    needed = {"db_id", "table_names_original", "column_names_original", "column_types", "primary_keys", "foreign_keys"}
    tables = {}
    for number, schema in enumerate(_list(path)):
        missing = needed - set(schema)
        if missing:
            raise UserError(f"{path}, entry {number}: lacks {', '.join(sorted(missing))}, which Spider's schemas have.")
        db_id = schema["db_id"]
        if not isinstance(db_id, str) or db_id in ("", ".", "..") or "/" in db_id or "\\" in db_id or db_id in tables:
            raise UserError(f"{path}, entry {number}: db_id {db_id!r} is no folder's name, or comes twice.")
        tables[db_id] = schema
    return tables


def read_questions(path: Path, expected: int, tables: dict[str, dict]) -> list[dict[str, str]]:
    """Read a question file: return db_id, question and query of each row, without the token lists and the `sql` tree.

    Raises:
        UserError: another number of rows than `expected`, a row without one of the three, or with an unknown db_id.
    """
    rows = []
    for number, row in enumerate(_list(path)):
        for field in FIELDS:
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise UserError(f"{path}, row {number}: {field} is {row.get(field)!r}, expected a text.")
        if row["db_id"] not in tables:
            raise UserError(f"{path}, row {number}: db_id {row['db_id']!r} is not in tables.json.")
        rows.append({field: row[field] for field in FIELDS})
    if len(rows) != expected:
        raise UserError(
            f"{path.name}: found {len(rows):,} questions, expected {expected:,} (config: spider, counts, {path.stem}). "
            "Use the whole file, or correct the count if this is other data."
        )
    return rows


def find_database(root: Path, db_id: str) -> Path:
    """Return the path of a database file below the data's root.

    Raises:
        UserError: it is missing, or no SQLite database.
    """
    path = root / "database" / db_id / f"{db_id}.sqlite"
    if not path.is_file():
        raise UserError(
            f"database/{db_id}/{db_id}.sqlite: missing, and there are questions on it. "
            "Use the release that has the databases (some copies of Spider have none)."
        )
    with path.open("rb") as stream:
        if stream.read(len(HEADER)) != HEADER:
            raise UserError(f"database/{db_id}/{db_id}.sqlite: not an SQLite database. Get the data again.")
    return path


def _list(path: Path) -> list[dict]:
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{path}: expected a JSON list of objects. It is not a file of Spider.")
    return value


def _replace_databases(databases: dict[str, Path], target: Path) -> None:
    """Copy the databases into the folder `target`, which is replaced as a whole."""
    new, old = target.with_name("database.new"), target.with_name("database.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    for db_id, path in tqdm(databases.items(), desc="databases", mininterval=1):
        (new / db_id).mkdir(parents=True)
        shutil.copyfile(path, new / db_id / f"{db_id}.sqlite")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
