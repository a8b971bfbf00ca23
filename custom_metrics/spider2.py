"""Read Spider 2 lite's questions on SQLite, their gold results, and the answers of a submission.

The layout is that of xlang-ai/Spider2, folder spider2-lite: `spider2-lite.jsonl` has the questions, and in
`evaluation_suite/gold` are `spider2lite_eval.jsonl`, with `condition_cols` and `ignore_order` of each question that is
judged, and the folder `exec_result`, with the gold results `<instance_id>.csv` or `<instance_id>_a.csv`, `_b.csv`, ….
The identifiers of questions on SQLite begin with `local`; others need BigQuery or Snowflake and are left out.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from custom_metrics.inputs import InputError, Question, json_lines, read_predictions, read_text, refuse_unreadable
from custom_metrics.results import Results, typed, without_blank_lines

ON_SQLITE = "local"
QUESTIONS, GOLD = "spider2-lite.jsonl", Path("evaluation_suite", "gold")
STANDARDS, RESULTS = GOLD / "spider2lite_eval.jsonl", GOLD / "exec_result"


def read_tasks(folder: str | Path) -> tuple[list[Question], list[Results]]:
    """Return the questions on SQLite that are judged, in the order of `spider2lite_eval.jsonl`, and their gold results.

    A question's `gold` is empty: there are results in place of a query.

    Args:
        folder: `spider2-lite` of a clone of Spider 2.

    Raises:
        InputError: a file is missing or not as expected, or a question has no gold result.
    """
    folder = Path(folder)
    known, path = _by_id(folder / QUESTIONS, ("db",)), folder / STANDARDS
    standards = _by_id(path, ("condition_cols", "ignore_order"))
    chosen = {name: row for name, row in standards.items() if name.startswith(ON_SQLITE)}
    if not chosen:
        raise InputError(f"{path}: has no question on SQLite, expected an instance_id that begins with {ON_SQLITE}.")
    if unknown := next((name for name in chosen if name not in known), None):
        raise InputError(f"{path}: found instance_id {unknown}, which is not in {folder / QUESTIONS}.")
    if not (folder / RESULTS).is_dir():
        raise InputError(f"{folder / RESULTS}: no such folder; expected one with <instance_id>.csv.")
    files = sorted(file.name for file in (folder / RESULTS).iterdir())
    questions, results = [], []
    for name, row in chosen.items():
        form = re.compile(rf"{re.escape(name)}(_[a-z])?\.csv")
        golds = [folder / RESULTS / file for file in files if form.fullmatch(file)]
        if not golds:
            raise InputError(
                f"{folder / RESULTS}: has neither {name}.csv nor {name}_a.csv. Fetch the gold results, or take the "
                f"line of {name} out of {path}."
            )
        if not isinstance(row["ignore_order"], bool):
            raise InputError(f"{path}, {name}, ignore_order: found {row['ignore_order']!r}, expected true or false.")
        tables = [read_table(file) for file in golds]
        counted = _counted(
            f"{path}, {name}, condition_cols", row["condition_cols"], dict(zip(golds, tables, strict=True))
        )
        questions.append(Question(str(known[name]["db"]), "", name, str(known[name].get("question") or "")))
        results.append(Results(tables, counted, row["ignore_order"]))
    return questions, results


def read_answers(
    path: str | Path, folder: str | Path, questions: Sequence[Question], column: str | None = None
) -> list[str | None]:
    """Return one answer for each question; None where there is none.

    Args:
        path: a folder with `<instance_id>.sql`, as submissions are; questions without a file have no answer, and files
            of questions that are not on SQLite, or not judged, are left out. Or a file as of `inputs.read_predictions`,
            whose rows may have an `instance_id`.
        folder: as of `read_tasks`.
        questions: what `read_tasks` returned.
        column: as of `inputs.read_predictions`.

    Raises:
        InputError: a file belongs to no question, there is none of these, or it cannot be read.
    """
    if not Path(path).is_dir():
        return read_predictions(path, questions, column)
    found = {file.stem: file for file in sorted(Path(path).glob("*.sql"))}
    known = _by_id(Path(folder) / QUESTIONS, ())
    if unknown := next((file for name, file in found.items() if name not in known), None):
        raise InputError(f"{unknown}: found instance_id {unknown.stem}, which is not in {Path(folder) / QUESTIONS}.")
    if not any(question.id in found for question in questions):
        raise InputError(f"{path}: has no <instance_id>.sql of the {len(questions)} questions on SQLite.")
    return [read_text(found[question.id]) if question.id in found else None for question in questions]


def find_local(folder: str | Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the file of each database: `folder/<db>.sqlite`, as in Spider 2's archive.

    Raises:
        InputError: files are missing (all are named), or one has rows that are not in its file yet.
    """
    found = {name: Path(folder) / f"{name}.sqlite" for name in names}
    if missing := sorted(name for name, path in found.items() if not path.is_file()):
        raise InputError(
            f"{folder}: has no <db>.sqlite for {len(missing)} of {len(found)} databases that the questions name: "
            f"{', '.join(missing)}."
        )
    refuse_unreadable(found.values())
    return found


def read_table(path: Path) -> list[list[object]]:
    """Return the columns of a CSV file with a header, as `results.typed` makes them; what a short row lacks is missing.

    Raises:
        InputError: it cannot be read, has no header, or a row has more cells than the header.
    """
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header, *rows = [(reader.line_num, row) for row in reader if row] or [(0, [])]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error}).") from None
    width = len(header[1])
    if not width:
        raise InputError(f"{path}: is empty, expected a header with the names of columns.")
    if long := next((number for number, row in rows if len(row) > width), None):
        raise InputError(f"{path}, line {long}: has more cells than the {width} of the header.")
    columns = [[row[place] if place < len(row) else "" for _, row in rows] for place in range(width)]
    return [typed(without_blank_lines(column) if width == 1 else column) for column in columns]


def _by_id(path: Path, keys: Sequence[str]) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for number, row in json_lines(path, read_text(path)):
        name = row.get("instance_id") if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise InputError(f"{path}, line {number}: expected an object with instance_id as text.")
        if name in found:
            raise InputError(f"{path}, line {number}: instance_id {name} comes twice.")
        if lacking := next((key for key in keys if key not in row), None):
            raise InputError(f"{path}, line {number}: {name} has no {lacking}.")
        found[name] = row
    return found


def _counted(where: str, value: object, tables: dict[Path, list[list[object]]]) -> list[list[int]]:
    """Return for each gold result the places of the columns that count: one list for all of them, or one for each."""
    if value in (None, [], [None]):
        return [[] for _ in tables]
    lists = [value] * len(tables)
    if isinstance(value, list) and all(isinstance(one, list) for one in value):
        lists = value if value != [[]] else [[]] * len(tables)
    if len(lists) != len(tables):
        files = ", ".join(path.name for path in tables)
        raise InputError(f"{where}: found {len(lists)} lists, expected one for each of {files}.")
    for one, (path, table) in zip(lists, tables.items(), strict=True):
        places = range(-len(table), len(table))
        if not isinstance(one, list) or not all(type(place) is int and place in places for place in one):
            raise InputError(f"{where}: found {one!r}, expected a list of columns of {path.name}, 0 to {places[-1]}.")
    return lists
