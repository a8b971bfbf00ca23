"""Rows of general knowledge to replay in the training: MMLU's own training rows, or those of a local file.

A row has id (file and number), kind and either subject ("" if none is known), question, choices (4 texts) and answer
(A to D), or prompt and completion.
"""

import csv
import json
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import UserError, sha256_json
from tasks import mmlu
from tasks.choice import LETTERS, fault, not_text

CHOICE, INSTRUCTION = "multiple_choice", "instruction"
KEYS = {"question", "choices", "answer"}


def fetch(options: Mapping[str, Any], scratch: Path) -> list[dict]:
    """Get all rows of a source.

    `options` are `source` of the section replay (`study.schema.Replay`) and, for auxiliary_train, `mmlu`: where MMLU
    comes from, as for `tasks.mmlu.fetch_auxiliary`, which uses the folder `scratch`.

    Raises:
        UserError: the source cannot be had or has no such rows; a bad row, by its file and line.
    """
    if options["source"] != mmlu.AUXILIARY:
        return _read_file(Path(options["source"]))
    rows = mmlu.fetch_auxiliary(options["mmlu"], scratch)
    return [{"id": row["id"], "kind": CHOICE, "subject": "", **row} for row in rows]


def _read_file(path: Path) -> list[dict]:
    if not path.is_file():
        raise UserError(f"replay.source: {path} is no file. Write auxiliary_train, or the path of a CSV or JSONL file.")
    readers = {".csv": _csv_lines, ".jsonl": _json_lines}
    if path.suffix not in readers:
        raise UserError(f"replay.source: found {path}, expected a file named .csv or .jsonl.")
    try:
        rows = [_checked(path, number, row) for number, row in readers[path.suffix](path)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8.") from None
    if not rows:
        raise UserError(f"{path}: found no rows, expected at least 1. Set replay.source to another file.")
    return rows


def _csv_lines(path: Path) -> Iterator[tuple[int, dict]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            head = next(reader, [])
            needed = {"question", *LETTERS, "answer"}
            if not needed <= set(head) <= needed | {"subject"}:
                raise UserError(
                    f"{path}, line 1: found columns {', '.join(head) or '(none)'}, expected question, A, B, C, D, "
                    "answer and maybe subject. Write these as the file's first line."
                )
            for cells in filter(None, reader):
                if len(cells) != len(head):
                    raise UserError(
                        f"{path}, line {reader.line_num}: found {len(cells)} fields, expected {len(head)}. Put texts "
                        'that hold a comma into "quotes".'
                    )
                row = dict(zip(head, cells, strict=True))
                choices = [row.pop(letter) for letter in LETTERS]
                yield reader.line_num, row | {"choices": choices}
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num + 1}: not CSV ({error}). Mend the line.") from None


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                if line.strip():
                    yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not valid JSON ({error}). Mend the line.") from None


def _checked(path: Path, number: int, row: Any) -> dict:
    """Bring a row of a local file into the form of this module."""
    name = {"id": f"{path.stem}-{number:05d}"}
    keys = set(row) if isinstance(row, dict) else set()
    if keys == {"prompt", "completion"}:
        wrong = not_text({key: row[key] for key in ("prompt", "completion")})
    elif KEYS <= keys <= KEYS | {"subject"}:
        wrong = fault(row)
        if not isinstance(row.get("subject") or "", str):
            wrong = f"subject is {row['subject']!r}, expected a text, or none"
    else:
        wrong = (
            f"found keys {', '.join(sorted(keys)) or '(none)'}, expected prompt and completion, or question, choices, "
            "answer and maybe subject"
        )
    if wrong:
        raise UserError(f"{path}, line {number}: {wrong}. Mend or remove the line.")
    if "prompt" in row:
        return {**name, "kind": INSTRUCTION, "prompt": row["prompt"], "completion": row["completion"].strip()}
    question = {key: row[key] for key in ("question", "choices", "answer")}
    return {**name, "kind": CHOICE, "subject": row.get("subject") or "", **question}


def draw(pool: list[dict], folder: str | Path, questions: int, seed: int) -> tuple[list[dict], dict[str, Any]]:
    """Draw the rows to replay, the same on every run, without any that MMLU evaluates on or shows as an example.

    All rows are shuffled with the seed, and the first ones taken that are neither equal to one before them nor a row of
    MMLU: one with the question and the choices of a test or dev row, in any order (`fingerprint`), or an instruction
    whose prompt contains such a question and all of its choices. Every test and dev row counts, of whatever subject:
    what a study evaluates on may change without a change of what was trained on.

    Args:
        pool: rows of `fetch`.
        folder: of MMLU's dev.csv and test.csv.
        questions: how many rows are drawn at most.

    Returns:
        The rows, in the order in which trainings take them; and what was left out before the last of them:
        of_mmlu_dropped (of each row the name that it has in MMLU), repeated_dropped (how many rows were equal to one
        before them) and checked_against (how many rows MMLU has).

    Raises:
        UserError: no row is left.
    """
    known = [
        (f"{split} {subject}-{row['index']:05d}", row["question"], row["choices"])
        for split in ("test", "dev")
        for subject, found in mmlu.read_table(Path(folder) / f"{split}.csv").items()
        for row in found
    ]
    of_mmlu = {fingerprint(question, choices): name for name, question, choices in known}
    texts = [(name, [normal(text) for text in (question, *choices)]) for name, question, choices in known]
    shuffled = list(pool)
    random.Random(seed).shuffle(shuffled)
    chosen, dropped, repeated, seen = [], {}, 0, set()
    for row in shuffled:
        if len(chosen) == questions:
            break
        if "choices" in row:
            mark = fingerprint(row["question"], row["choices"])
            twin = of_mmlu.get(mark)
        else:
            prompt = normal(row["prompt"])
            mark = sha256_json([prompt, normal(row["completion"])])
            twin = next((name for name, parts in texts if all(part in prompt for part in parts)), None)
        if twin:
            print(f"{row['id']}: is MMLU's {twin}; dropped.", flush=True)
            dropped[row["id"]] = twin
        elif mark in seen:
            repeated += 1
        else:
            seen.add(mark)
            chosen.append(row)
    print(f"{len(chosen)} of {len(pool)} rows drawn; {len(dropped)} of MMLU's and {repeated} repeated ones dropped.")
    if not chosen:
        raise UserError(
            f"replay.source: none of its {len(pool)} rows is left: {len(dropped)} are of MMLU's test or dev files. "
            "Use another source."
        )
    return chosen, {"of_mmlu_dropped": dropped, "repeated_dropped": repeated, "checked_against": len(known)}


def normal(text: str) -> str:
    """Strip a text of what does not change what it asks: compatibility forms, case, spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def fingerprint(question: str, choices: Sequence[str]) -> str:
    """SHA-256 of a normalised question and its normalised choices, whatever their order."""
    return sha256_json([normal(question), sorted(map(normal, choices))])
