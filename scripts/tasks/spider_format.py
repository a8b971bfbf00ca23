"""Databases and questions of your own, in Spider's form; also what other releases of SQLite databases share.

The source has dev.json and, to train on it, train.json or train_spider.json: lists of db_id, question and query. The
databases are files <db_id>.sqlite, wherever they lie. tables.json, the schemas, is made from them where it is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from common.download import find_root, opened
from common.files import UserError, read_json
from custom_metrics.hardness import LEVELS
from custom_metrics.judge import GoldError, Judge
from tasks import text_to_sql
from tasks.base import Measure
from tasks.choice import not_text
from tasks.sections import Count, Sha256, Text, Unique, either
from tasks.spider import context, held_out, read_list, read_tables, store
from tasks.sql_schema import read_schema
from tasks.text_to_sql import PARTS, PROMPT, SMOKE, choices, remedy, score, shots, target

__all__ = ["PARTS", "PROMPT", "SMOKE", "choices", "context", "held_out", "remedy", "score", "shots", "target"]

STAGES = text_to_sql.STAGES | {"fetch": ("source", "sha256", "role")}
TRAIN_FILES = ("train.json", "train_spider.json")
FIELDS = {"db_id": "db_id", "question": "question", "query": "query"}
Questions = Mapping[str, Sequence[Mapping[str, str]]]  # of dev and train


class Options(text_to_sql.Options):
    """Databases and questions of your own, in Spider's form."""

    kind: Literal["spider_format"] = "spider_format"
    role: Literal["target", "yardstick"] = "yardstick"
    source: Text
    """A folder or an archive with dev.json, SQLite databases and, to train on it, train.json; see docs/tasks.md."""
    sha256: Sha256 | None = None
    """SHA-256 of the archive, or null."""
    shots: either(Count, Unique[str], list) = 0
    """Few-shot examples in every prompt, drawn from train.json and excluded from training: a number, or a list of the
    ids of questions."""


def measure(options: Mapping[str, Any]) -> Measure:
    return text_to_sql.measure(options, options["name"].removeprefix("tasks."), ("hardness", LEVELS))


def fetch(options: Mapping[str, Any], folder: str | Path) -> None:
    """Write dev.json, train.json if there is one, tables.json, database/ and manifest.json into `folder`.

    Args:
        options: `source`, `sha256` and `role`; and `name`, the section in messages.
        folder: nothing in it is replaced before all of the new data has been checked.

    Raises:
        UserError: the source cannot be had, a file or database is missing or malformed, or a gold query does not run.
    """
    source, out = options["source"], Path(folder)
    keep = (".json", ".sqlite")
    with opened(source, options["sha256"], out / "unpacked", lambda name: name.endswith(keep)) as (found, archive):
        root = find_root(found, "dev.json", source)
        questions = {"dev": read_questions(root / "dev.json", FIELDS)}
        if train := next((root / name for name in TRAIN_FILES if (root / name).is_file()), None):
            questions["train"] = read_questions(train, FIELDS)
        elif options["role"] == "target":
            raise no_train(options, "role: target")
        databases = find_databases(root, questions, source)
        given = read_tables(root / "tables.json") if (root / "tables.json").is_file() else {}
        tables = {name: given.get(name) or read_schema(path) | {"db_id": name} for name, path in databases.items()}
        _check_apart(questions)
        _run_gold(questions, databases)
        store(out, questions, tables, databases, {"source": source, "archive_sha256": archive})


def no_train(options: Mapping[str, Any], needing: str) -> UserError:
    """What to say where `needing` asks for rows to train on, and there are none."""
    name = options["name"]
    return UserError(
        f"{name}, {needing}: found no train.json in the data, expected one. Add the file, or set {name}.role to "
        f"yardstick and {name}.shots to 0."
    )


def read_questions(path: Path, fields: Mapping[str, str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read rows: their `fields`, each by our name of theirs, and the `optional` ones, "" where a row has none.

    Raises:
        UserError: there is no such file, no row, or a field that is no text.
    """
    rows = []
    for number, row in enumerate(read_list(path)):
        if wrong := not_text({theirs: row.get(theirs) for theirs in fields.values()}):
            raise UserError(f"{path.name}, row {number}: {wrong}. Mend the row, counted from 0, or leave it out.")
        kept = {ours: row[theirs] for ours, theirs in fields.items()}
        rows.append(kept | {name: (row.get(name) or "").strip() for name in optional})
    if not rows:
        raise UserError(f"{path.name}: found no rows, expected at least 1 of {', '.join(fields.values())}.")
    return rows


def placed(questions: Questions) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield all rows with their places, for messages."""
    return ((f"{part}.json, row {number}", row) for part, rows in questions.items() for number, row in enumerate(rows))


def find_databases(root: Path, questions: Questions, source: str) -> dict[str, Path]:
    """Find the file <db_id>.sqlite of each database that is asked about, anywhere below a folder.

    Raises:
        UserError: there is no such file, or more than one.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.sqlite")):
        files.setdefault(path.stem, []).append(path)
    for place, row in placed(questions):
        name, found = row["db_id"], files.get(row["db_id"], [])
        if len(found) != 1:
            places = " and ".join(str(path.relative_to(root)) for path in found) or "none"
            raise UserError(
                f"{place}: db_id is {name!r}, expected one file {name}.sqlite in {source}, found {places}. Add the "
                "database, remove the copy, or correct db_id."
            )
    return {name: files[name][0] for name in sorted({row["db_id"] for _, row in placed(questions)})}


def _check_apart(questions: Questions) -> None:
    """Refuse a row to train on that asks a question of the evaluation."""
    asked = {(row["db_id"], row["question"].strip()): number for number, row in enumerate(questions["dev"])}
    for number, row in enumerate(questions.get("train", ())):
        if (twin := asked.get((row["db_id"], row["question"].strip()))) is not None:
            raise UserError(f"train.json, row {number}: asks the question of dev.json, row {twin}. Remove one of them.")


def _run_gold(questions: Questions, databases: Mapping[str, Path]) -> None:
    """Refuse a gold query that does not run, which would else be found out once a model has answered."""
    rows = list(placed(questions))
    try:
        with Judge() as judge:
            judge.judge_all([(databases[row["db_id"]], row["query"], "") for _, row in rows], progress=True)
    except GoldError as error:
        raise UserError(f"{rows[error.index][0]}: {error}. Mend the query, or leave the row out.") from None


def prepare(options: Mapping[str, Any], folder: Path, part: str) -> tuple[list[dict], dict[str, Any]]:
    """One part of the data of a folder that `fetch` wrote; see `tasks.text_to_sql.prepare`."""
    schemas = {schema["db_id"]: schema for schema in read_json(folder / "tables.json")}
    path, train = folder / "train.json", []
    if part != "test" and not path.is_file():
        if options["shots"]:
            raise no_train(options, "shots")
        return [], {}
    if part != "test":
        train = text_to_sql.read_rows(path, schemas)
    return text_to_sql.prepare(options, part, train, held_out(folder), schemas)
