"""Read what is to be scored, in the formats people have: questions with their gold queries, files of predictions."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from custom_metrics.engines import UnavailableError, is_address, readable
from custom_metrics.sandbox import UnmergedError

# What prediction files call the column with the model's answer.
COLUMNS = (
    "predicted_sql", "predicted_query", "predicted", "pred_sql", "pred", "prediction", "predictions", "sql", "answer",
    "actual_output", "generated_sql", "generated_query", "generated_text", "generated", "generation", "output",
    "model_output", "completion", "response",
)  # fmt: skip
# Between SQL and db_id in BIRD's predict_dev.json.
BIRD_MARK = "\t----- bird -----\t"
Rows = list[tuple[int, dict[str, Any]]]  # with the numbers of their lines


class InputError(ValueError):
    """A file that cannot be scored. The message is one sentence that names the file, what it has and what it needs."""


@dataclass(frozen=True)
class Question:
    """One question: the database, the gold query, and the name that the file gives it, if any.

    `others` are further gold queries: an answer that is right by one of them is right. `difficulty` is the file's own.
    """

    db_id: str
    gold: str
    id: str | None = None
    text: str = ""
    others: tuple[str, ...] = ()
    difficulty: str = ""


def read_questions(path: str | Path) -> list[Question]:
    """Read Spider's or BIRD's `dev.json`, or JSON lines with the same keys.

    These are `db_id`; `query`, or `SQL` as in BIRD, one gold query or a list of them; and perhaps `question`, `id` (in
    BIRD `question_id`) and `difficulty`.

    Raises:
        InputError: the file cannot be read, is empty, or a question lacks `db_id` or the gold query.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        numbered = [(f"question {index}", row) for index, row in enumerate(_json(path, text))]
    else:
        numbered = [(f"line {number}", row) for number, row in json_lines(path, text)]
    questions = []
    for place, row in numbered:
        if not isinstance(row, dict):
            raise InputError(f"{path}, {place}: expected an object with db_id and query.")
        gold = row.get("query", row.get("SQL"))
        golds = gold if isinstance(gold, list) and gold else [gold]
        for key, values in (("db_id", [row.get("db_id")]), ("query", golds)):
            if not all(isinstance(value, str) for value in values):
                raise InputError(
                    f"{path}, {place}: has no {key}, expected db_id and query (or SQL; the gold query) as text."
                )
        identifier = row.get("id", row.get("question_id"))
        identifier = None if identifier is None else str(identifier)
        text, difficulty = (str(row.get(key) or "") for key in ("question", "difficulty"))
        questions.append(Question(row["db_id"], golds[0], identifier, text, tuple(golds[1:]), difficulty))
    if not questions:
        raise InputError(f"{path}: has no questions.")
    return questions


def read_predictions(path: str | Path, questions: Sequence[Question], column: str | None = None) -> list[str | None]:
    """Return one prediction for each question, in the order of the questions; None where a JSON value is null.

    The format follows from the file: CSV if it is named .csv; if it is named .json, a list of texts or objects, or
    BIRD's object of `SQL<tab>----- bird -----<tab>db_id` by place; JSON lines if it is named .jsonl or begins with
    `{`; else one SQL a line, where a tab and the question's db_id at the end, as in Spider's own files, are
    dropped. Rows with an `id` (or `question_id`, `instance_id`) that the questions have too, or with an `index`
    that counts 0, 1, … in any order, are matched by it, others by their place. A `db_id` must be the question's.

    Args:
        path: the file, UTF-8.
        questions: what it answers.
        column: where the prediction is, in CSV and JSON lines; without it, one of `COLUMNS`.

    Raises:
        InputError: the file cannot be read, has another number of rows than there are questions, has no such column,
            more than one of `COLUMNS`, or belongs to other questions.
    """
    text = read_text(path)
    rows = _objects(path, text, path, column)
    if rows is None and column is not None:
        raise InputError(f"{path}: has one SQL a line and no columns, so there is no column {column}.")
    if rows is None:
        return _plain_lines(path, text, questions)
    column = _find_column(path, list(dict.fromkeys(key for _, row in rows for key in row)), column)
    _check_count(path, len(rows), len(questions), "predictions")
    predictions = []
    for (number, row), question in zip(_in_order(path, rows, questions), questions, strict=True):
        if isinstance(row.get("db_id"), str) and row["db_id"] != question.db_id:
            raise InputError(
                f"{path}, line {number}: found db_id {row['db_id']}, expected {question.db_id} as in the questions."
            )
        if column not in row:
            raise InputError(f"{path}, line {number}: has no {column}.")
        if not isinstance(row[column], str | None):
            raise InputError(f"{path}, line {number}, {column}: expected text, found {row[column]!r}.")
        predictions.append(_without_db_id(path, number, row[column], question))
    return predictions


def read_rows(path: str | Path, name: str | Path | None = None) -> Rows:
    """Read a file of answers as objects, each with the number of its line or its place in a list.

    The format follows from `name`, by default the file's own: CSV, JSON (a list, or an object with a text for each
    index), JSON lines; of any other name it is JSON lines if it begins with `{`, else one answer a line. Where there
    are no columns, an object has the key `answer`, and `index` where the file gives one.

    Raises:
        InputError: the file cannot be read, or a row is no object.
    """
    text = read_text(path)
    if (rows := _objects(path, text, name or path, "answer", indexed=True)) is not None:
        return rows
    lines = text.removesuffix("\n").split("\n")
    return [(number, {"answer": line.removesuffix("\r")}) for number, line in enumerate(lines, 1)]


def _objects(path: str | Path, text: str, name: str | Path, column: str | None, indexed: bool = False) -> Rows | None:
    """The rows of CSV, JSON or JSON lines, which the file's `name` tells apart; None of one text a line.

    With `indexed` a JSON object has a text for each index, else for each place or id.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".csv":
        return _csv_rows(path, text)
    if suffix == ".json":
        value = _json(path, text)
        if indexed and isinstance(value, dict):
            value = [{"index": index, column: answer} for index, answer in value.items()]
        rows = _json_rows(path, value, column)
    elif suffix in (".jsonl", ".ndjson") or text.lstrip().startswith("{"):
        rows = json_lines(path, text)
    else:
        return None
    for number, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object.")
    return rows


def _without_db_id(path: str | Path, number: int, text: str | None, question: Question) -> str | None:
    """Drop the name of the database that BIRD's files have behind the SQL."""
    sql, mark, db_id = (text or "").partition(BIRD_MARK)
    if not mark:
        return text
    if db_id.strip() != question.db_id:
        raise InputError(
            f"{path}, prediction {number}: found {db_id.strip()}, expected {question.db_id} as in the questions."
        )
    return sql


def read_records(path: str | Path, column: str) -> dict[tuple[str, str], int]:
    """Read one 0/1 column of a records file, by (index, db_id); files of the workflow have an id for the index.

    Raises:
        InputError: the file cannot be read, lacks a column, has a question twice, or something else than 0 and 1.
    """
    found: dict[tuple[str, str], int] = {}
    for number, row in _csv_rows(path, read_text(path)):
        index = "index" if "index" in row else "id"
        for name in (index, "db_id", column):
            if name not in row:
                raise InputError(f"{path}: has no column {name}; is it a file that `score --out` wrote?")
        question = row[index], row["db_id"]
        if question in found:
            raise InputError(f"{path}, line {number}: {index} {question[0]} comes twice.")
        if row[column] not in ("0", "1"):
            raise InputError(f"{path}, line {number}, {column}: found {row[column]!r}, expected 0 or 1.")
        found[question] = int(row[column])
    if not found:
        raise InputError(f"{path}: has no records.")
    return found


def find_databases(folder: str | Path, db_ids: Sequence[str]) -> dict[str, Path | str]:
    """Return where each database is: the file `folder/<db_id>/<db_id>.sqlite`, or .duckdb where there is no such file.

    Args:
        folder: or the address of a PostgreSQL server's database, in which {db_id} stands for the name of the database.
        db_ids: names of databases.

    Raises:
        InputError: there is no such folder, databases are missing in it (all are named), one has rows that are not
            in its file yet, the address is none, or the engine is not installed.
    """
    if is_address(folder):
        found = {db_id: folder.replace("{db_id}", quote(db_id, safe="")) for db_id in dict.fromkeys(db_ids)}
        refuse_unreadable(found.values())
        return found
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; expected one with <db_id>/<db_id>.sqlite.")
    found = {db_id: Path(folder) / db_id / f"{db_id}.sqlite" for db_id in dict.fromkeys(db_ids)}
    for db_id, path in found.items():
        if not path.is_file() and path.with_suffix(".duckdb").is_file():
            found[db_id] = path.with_suffix(".duckdb")
    missing = sorted(db_id for db_id, path in found.items() if not path.is_file())
    if missing:
        raise InputError(
            f"{folder}: has no <db_id>/<db_id>.sqlite (or .duckdb) for {len(missing)} of {len(found)} databases that "
            f"the questions name: {', '.join(missing)}."
        )
    refuse_unreadable(found.values())
    return found


def find_suites(databases: Mapping[str, Path | str]) -> dict[str, list[Path]]:
    """Return all files of its kind beside each database and itself: the variants of a distilled test suite.

    Raises:
        InputError: no database has a variant, one has rows that are not in its file yet, or they are no files.
    """
    if any(is_address(path) for path in databases.values()):
        raise InputError("--suite: expected a folder of files in --databases, found an address.")
    found = {db_id: sorted(path.parent.glob(f"*{path.suffix}")) for db_id, path in databases.items()}
    if all(len(paths) == 1 for paths in found.values()):
        raise InputError(
            f"{next(iter(databases.values())).parent}: has one .sqlite file, as all others; expected several of the "
            "same schema, the variants of a test suite. Leave out --suite, or name the folder of the suite."
        )
    refuse_unreadable(path for paths in found.values() for path in paths)
    return found


def refuse_unreadable(places: Iterable[Path | str]) -> None:
    """Raise an InputError if a database has rows that are not in its file yet, or its engine is not installed."""
    for place in places:
        try:
            readable(place)
        except (UnmergedError, UnavailableError) as error:
            raise InputError(str(error)) from None


def read_text(path: str | Path) -> str:
    """Return the text of a file in UTF-8, line ends as they are; an InputError says what is wrong with it."""
    try:
        # newline="": what ends a line is decided where lines are read; a byte order mark is not part of the text.
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}.") from None


def json_lines(path: str | Path, text: str) -> list[tuple[int, Any]]:
    """Return what the lines that are not blank hold, with their numbers; an InputError names one that is no JSON."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.strip():
                rows.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error}).") from None
    return rows


def _json(path: str | Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}).") from None


def _json_rows(path: str | Path, value: Any, column: str | None) -> list[tuple[int, Any]]:
    """Make rows of a list of texts or objects, or of an object that has a text for each place or id."""
    if isinstance(value, dict):
        value = [{"id": name, "index": name, "prediction": text} for name, text in value.items()]
        if {row["id"] for row in value} == {str(index) for index in range(len(value))}:
            value = [row["prediction"] for row in sorted(value, key=lambda row: int(row["id"]))]
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of predictions, or an object of them.")
    texts = all(row is None or isinstance(row, str) for row in value)
    return list(enumerate([{column or "prediction": row} for row in value] if texts else value))


def _csv_rows(path: str | Path, text: str) -> Rows:
    # A model's answer may be longer than the 128 KiB that Python's reader takes for one cell.
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        names = reader.fieldnames or []
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise InputError(f"{path}, line 1: has the column {twice[0]} twice. Remove one, or rename it.")
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}, line {reader.line_num}: expected {len(reader.fieldnames)} cells.")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error}).") from None
    return rows


def _plain_lines(path: str | Path, text: str, questions: Sequence[Question]) -> list[str]:
    # Only a newline ends a line: answers may hold the other characters that splitlines() takes for line ends.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    while len(lines) > len(questions) and not lines[-1].strip():
        lines.pop()
    _check_count(path, len(lines), len(questions), "lines")
    predictions = []
    for line, question in zip(lines, questions, strict=True):
        sql, tab, db_id = line.rpartition("\t")
        predictions.append(sql if tab and db_id.strip() == question.db_id else line)
    return predictions


def _find_column(path: str | Path, columns: list[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in columns:
        raise InputError(f"{path}: has no column {wanted}; its columns are {', '.join(columns)}.")
    usual = [column for column in columns if column.strip().lower() in COLUMNS]
    if wanted is not None or len(usual) == 1:
        return wanted or usual[0]
    problem = f"has no column with a usual name for predictions, only {', '.join(columns) or 'none at all'}"
    if usual:
        problem = f"several columns may hold the predictions, {', '.join(usual)}"
    raise InputError(f"{path}: {problem}; name one by --column.")


def _check_count(path: str | Path, found: int, expected: int, what: str) -> None:
    if found != expected:
        raise InputError(f"{path}: found {found} {what}, expected {expected}, one for each question.")


def _in_order(path: str | Path, rows: Rows, questions: Sequence[Question]) -> Rows:
    """Put rows into the order of the questions by `id` or `index`, where both sides have it."""
    key, names = "id", [question.id for question in questions]
    for name in ("question_id", "instance_id"):
        if all(name in row for _, row in rows):
            key = name
    if None in names or not all(key in row for _, row in rows):
        key, names = "index", [str(index) for index in range(len(questions))]
    found = {str(row.get(key)): (number, row) for number, row in rows}
    if len(found) == len(rows) and found.keys() == set(names):
        return [found[name] for name in names]
    if key != "index":
        name = next((name for name in names if name not in found), "one that comes twice")
        raise InputError(f"{path}: its ids are not those of the questions ({name} is missing or doubled).")
    return rows
