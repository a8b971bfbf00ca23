"""Databases and questions of your own, in Spider's form; also what other releases of SQLite databases share.

The source has dev.json and, to train on it, train.json or train_spider.json: lists of db_id, question and query. The
databases are files <db_id>.sqlite, wherever they lie. tables.json, the schemas, is made from them where it is missing.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from common.download import find_root, opened
from common.files import UserError, described, read_json, redacted, write_json
from custom_metrics.judge import GoldError, Judge
from custom_metrics.sandbox import UnmergedError, refuse_unmerged
from tasks import text_to_sql
from tasks.base import PARTS, Measure, Part
from tasks.choice import not_text
from tasks.sections import Count, Sha256, Text, Unique, either
from tasks.sql_schema import HEADER, check_whole, misshapen, read_schema
from tasks.text_to_sql import PROMPT, REMEDY, SMOKE, context, held_out, score, target

__all__ = ["PARTS", "PROMPT", "REMEDY", "SMOKE", "context", "held_out", "score", "target"]

STAGES = text_to_sql.STAGES | {"fetch": ("source", "sha256", "role")}
LICENCE = ""
TRAIN_FILES = ("train.json", "train_spider.json")
# Our keys of a row, each with its name in the file.
FIELDS = {key: key for key in ("db_id", "question", "query")}
SCHEMA = {"db_id", "table_names_original", "column_names_original", "column_types", "primary_keys", "foreign_keys"}
# Of an archive: beside a database may lie changes that are not in it, of which `find_databases` says so.
ENDINGS = (".json", ".sqlite", ".sqlite-wal", ".sqlite-journal")
Questions = Mapping[str, Sequence[Mapping[str, str]]]  # of dev and train


class Options(text_to_sql.Options):
    """Databases and questions of your own, in Spider's form."""

    kind: Literal["spider_format"] = "spider_format"
    role: Literal["target", "yardstick"] = "yardstick"
    source: Text
    """A folder or an archive with dev.json, SQLite databases and, to train on it, train.json
    (docs/spider_format.md)."""
    sha256: Sha256 | None = None
    """SHA-256 of the archive, or null."""
    shots: either(Count, Unique[str], list) = 0
    """Few-shot examples in every prompt, drawn from train.json and excluded from training: a number, or a list of the
    ids of questions."""


def measure(options: Mapping) -> Measure:
    return text_to_sql.measure(options, options["name"].removeprefix("tasks."))


def fetch(options: Mapping, folder: Path) -> None:
    """Write dev.json, train.json if there is one, tables.json, database/ and manifest.json.

    Nothing in the folder is replaced before all of the new data has been checked.
    """
    source = options["source"]
    with opened(source, options["sha256"], folder / "unpacked", ENDINGS) as (found, archive):
        root = find_root(found, "dev.json", source)
        questions = {"dev": read_questions(root / "dev.json")}
        if train := next((root / name for name in TRAIN_FILES if (root / name).is_file()), None):
            questions["train"] = read_questions(train)
        elif options["role"] == "target":
            raise no_train(options, "role: target")
        databases = find_databases(root, questions, source)
        given = read_tables(root / "tables.json") if (root / "tables.json").is_file() else {}
        tables = {name: given.get(name) or read_schema(path) | {"db_id": name} for name, path in databases.items()}
        _check_apart(questions)
        _run_gold(questions, databases)
        store(folder, questions, tables, databases, {"source": source, "archive_sha256": archive})


def no_train(options: Mapping, needing: str) -> UserError:
    """What to say where `needing` asks for rows to train on, and there are none."""
    name = options["name"]
    return UserError(
        f"{name}, {needing}: found no train.json in the data, expected one. Add the file, or set {name}.role to "
        f"yardstick and {name}.shots to 0."
    )


def _read_list(path: Path) -> list[dict]:
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{path}: expected a JSON list of objects. It is not a file of Spider.")
    return value


def read_tables(path: Path) -> dict[str, dict]:
    """Read tables.json: the schema of each database by its db_id, in the order of the file."""
    tables = {}
    for number, schema in enumerate(_read_list(path)):
        if missing := SCHEMA - set(schema):
            raise UserError(f"{path}, entry {number}: lacks {', '.join(sorted(missing))}, which Spider's schemas have.")
        if wrong := misshapen(schema):
            raise UserError(
                f"{path}, entry {number}: {wrong} Mend the entry; of a task of kind spider_format remove it."
            )
        db_id = schema["db_id"]
        if not isinstance(db_id, str) or db_id in ("", ".", "..") or "/" in db_id or "\\" in db_id or db_id in tables:
            raise UserError(f"{path}, entry {number}: db_id {db_id!r} is no folder's name, or comes twice.")
        tables[db_id] = schema
    return tables


def read_questions(
    path: Path, fields: Mapping[str, str] = FIELDS, optional: Sequence[str] = (), least: int = 1
) -> list[dict[str, str]]:
    """Read rows: their `fields`, each by our name of theirs, and the `optional` ones, "" where a row has none."""
    rows = []
    for number, row in enumerate(_read_list(path)):
        if wrong := not_text({theirs: row.get(theirs) for theirs in fields.values()}):
            raise UserError(f"{path.name}, row {number}: {wrong}. Mend the row, counted from 0, or leave it out.")
        kept = {ours: row[theirs] for ours, theirs in fields.items()}
        further = {name: row.get(name) or "" for name in optional}
        if wrong := next((name for name in optional if not isinstance(further[name], str)), None):
            raise UserError(f"{path.name}, row {number}: {wrong} is {further[wrong]!r}, expected a text. Mend the row.")
        rows.append(kept | {name: text.strip() for name, text in further.items()})
    if not rows and least:
        raise UserError(f"{path.name}: found no rows, expected at least 1 of {', '.join(fields.values())}.")
    return rows


def _placed(questions: Questions) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield all rows with their places, for messages."""
    return ((f"{part}.json, row {number}", row) for part, rows in questions.items() for number, row in enumerate(rows))


def find_databases(root: Path, questions: Questions, source: str) -> dict[str, Path]:
    """Find the file <db_id>.sqlite of each database that is asked about, anywhere below a folder."""
    files: dict[str, list[Path]] = {}
    for path in (one for one in sorted(root.rglob("*.sqlite")) if one.is_file()):
        files.setdefault(path.stem, []).append(path)
    for place, row in _placed(questions):
        name, found = row["db_id"], files.get(row["db_id"], [])
        if len(found) != 1:
            places = " and ".join(str(path.relative_to(root)) for path in found) or "none"
            raise UserError(
                f"{place}: db_id is {name!r}, expected one file {name}.sqlite in {source}, found {places}. Add the "
                "database, remove the copy, or correct db_id."
            )
    databases = {name: files[name][0] for name in sorted({row["db_id"] for _, row in _placed(questions)})}
    for path in databases.values():
        with path.open("rb") as stream:
            if stream.read(len(HEADER)) != HEADER:
                raise UserError(f"{path.relative_to(root)}: not a SQLite database. Get the data again.")
        try:
            refuse_unmerged(path)
        except UnmergedError as error:
            raise UserError(f"{error} (where the data are an archive, before it is packed).") from None
        check_whole(path, str(path.relative_to(root)))
    return databases


def _check_apart(questions: Questions) -> None:
    """Refuse a row to train on that asks a question of the evaluation."""
    asked = {(row["db_id"], row["question"].strip()): number for number, row in enumerate(questions["dev"])}
    for number, row in enumerate(questions.get("train", ())):
        if (twin := asked.get((row["db_id"], row["question"].strip()))) is not None:
            raise UserError(f"train.json, row {number}: asks the question of dev.json, row {twin}. Remove one of them.")


def _run_gold(questions: Questions, databases: Mapping[str, Path]) -> None:
    """Refuse a gold query that does not run, which would else be found out once a model has answered."""
    rows = list(_placed(questions))
    with Judge() as judge:
        found = judge.judge_all([(databases[row["db_id"]], row["query"], "") for _, row in rows], progress=True)
    for (place, _), verdict in zip(rows, found, strict=True):
        if isinstance(verdict, GoldError):
            raise UserError(f"{place}: {verdict}. Mend the query, or leave the row out.")


def store(
    folder: Path,
    questions: Questions,
    tables: Mapping[str, Mapping],
    databases: Mapping[str, Path],
    facts: Mapping[str, Any],
) -> None:
    """Write checked data: the questions of each file, schemas, the databases by db_id, and manifest.json with `facts`.

    Their `source` stands there without passwords and signatures.

    What was there before, of these or of other files, is no longer there after it.
    """
    shutil.rmtree(folder / "database", ignore_errors=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, rows in questions.items():
        write_json(folder / f"{name}.json", rows)
    write_json(folder / "tables.json", list(tables.values()))
    files = [*(f"{name}.json" for name in questions), "tables.json"]
    for db_id, path in tqdm(databases.items(), desc="databases", mininterval=1):
        files.append(f"database/{db_id}/{db_id}.sqlite")
        (folder / files[-1]).parent.mkdir(parents=True)
        shutil.copyfile(path, folder / files[-1])
    counts = {"counts": {name: len(rows) for name, rows in questions.items()}, "databases": len(databases)}
    known = {**facts, "source": redacted(facts["source"]), **counts}
    write_json(folder / "manifest.json", known | {"files": described(folder, files)})


def prepare(options: Mapping, folder: Path, part: str) -> Part:
    """One part of the data; see `tasks.text_to_sql.prepare`."""
    path = folder / "train.json"
    if part != "test" and not path.is_file():
        if options["shots"]:
            raise no_train(options, "shots")
        return [], {}
    return text_to_sql.prepare(options, folder, part, [] if part == "test" else text_to_sql.read_rows(path))
