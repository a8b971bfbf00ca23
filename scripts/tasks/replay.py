"""Rows of general knowledge to replay in the training: MMLU's own training rows, or those of a local file.

A row has id (file and number), kind and either subject ("" if none is known), question, choices (4 texts) and answer
(A to D), or prompt and completion.
"""

import csv
import json
import random
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.download import CACHE
from common.files import UserError, sha256_json
from tasks import mmlu
from tasks.choice import LETTERS

CHOICE, INSTRUCTION = "multiple_choice", "instruction"


def fetch(options: Mapping[str, Any], scratch: Path, cache_dir: str | Path = CACHE) -> list[dict]:
    """Get all rows of a source.

    Args:
        options: `source`: auxiliary_train, or a local CSV or JSONL file.
            `mmlu`: `source`, `revision` and `sha256` of MMLU, for auxiliary_train; as for `tasks.mmlu.fetch`.
        scratch: folder to unpack an archive into; it is deleted at the end.
        cache_dir: where downloads are kept.

    Raises:
        UserError: the source cannot be had or has no such rows; a bad row, by its file and line.
    """
    if options["source"] != mmlu.AUXILIARY:
        return read_file(Path(options["source"]))
    found = mmlu.fetch_auxiliary(options["mmlu"], scratch, cache_dir)
    return [_choice(name, "", cells[0], cells[1:5], cells[5]) for name, cells in found]


def _choice(name: str, subject: str, question: str, choices: list[str], answer: str) -> dict:
    kind = {"id": name, "kind": CHOICE, "subject": subject}
    return kind | {"question": question, "choices": choices, "answer": answer}


def read_file(path: Path) -> list[dict]:
    """Read all rows of a local CSV or JSONL file.

    Raises:
        UserError: no such file, another format, no rows, or a bad row, by its line.
    """
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
        reader = csv.DictReader(stream, strict=True)
        needed = {"question", *LETTERS, "answer"}
        head = set(reader.fieldnames or ())
        if not needed <= head <= needed | {"subject"}:
            raise UserError(
                f"{path}, line 1: found columns {', '.join(reader.fieldnames or ()) or '(none)'}, expected question, "
                "A, B, C, D, answer and maybe subject. Write these as the file's first line."
            )
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}, line {reader.line_num}: found {_fields(row)} fields, expected {len(head)}. Put texts "
                        'that hold a comma into "quotes".'
                    )
                choices = [row.pop(letter) for letter in LETTERS]
                yield reader.line_num, row | {"choices": choices}
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num + 1}: not CSV ({error}). Mend the line.") from None


def _fields(row: dict) -> int:
    return sum(len(cell) if isinstance(cell, list) else cell is not None for cell in row.values())


def _json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not valid JSON ({error}). Mend the line.") from None
            yield number, row


def _checked(path: Path, number: int, row: Any) -> dict:
    """Bring a row of a local file into the form of this module."""

    def wrong(found: str, remedy: str) -> UserError:
        return UserError(f"{path}, line {number}: {found}. {remedy}")

    def need_text(key: str, cell: Any) -> None:
        if not isinstance(cell, str) or not cell.strip():
            raise wrong(f"{key} is {cell!r}, expected a text", "Write one, or remove the line.")

    name = f"{path.stem}-{number:05d}"
    keys = set(row) if isinstance(row, dict) else set()
    if keys == {"prompt", "completion"}:
        for key in ("prompt", "completion"):
            need_text(key, row[key])
        return {"id": name, "kind": INSTRUCTION, "prompt": row["prompt"], "completion": row["completion"].strip()}
    if not {"question", "choices", "answer"} <= keys <= {"question", "choices", "answer", "subject"}:
        raise wrong(
            f"found keys {', '.join(sorted(keys)) or '(none)'}, expected prompt and completion, or question, choices, "
            "answer and maybe subject",
            "Rename or remove the others.",
        )
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        raise wrong(
            f"choices are {choices!r}, expected a list of 4", "Rows of other numbers cannot be used: remove it."
        )
    for key, cell in [("question", row["question"]), *zip(LETTERS, choices, strict=True)]:
        need_text(key, cell)
    if row["answer"] not in tuple(LETTERS):
        raise wrong(f"answer is {row['answer']!r}, expected A, B, C or D", "Write the letter of the right choice.")
    subject = row.get("subject") or ""
    if not isinstance(subject, str):
        raise wrong(f"subject is {subject!r}, expected a text", "Write one, or leave it out.")
    return _choice(name, subject, row["question"], choices, row["answer"])


@dataclass(frozen=True)
class Drawn:
    """Rows to replay, in the order in which trainings take them, and what was left out before the last of them.

    dropped: of each row of MMLU the name that it has there.
    repeated: how many rows were equal to one before them.
    checked_against: how many rows of MMLU there are.
    """

    rows: list[dict]
    dropped: dict[str, str]
    repeated: int
    checked_against: int


def draw(pool: list[dict], folder: str | Path, questions: int, seed: int) -> Drawn:
    """Draw the rows to replay, the same on every run, without any that MMLU evaluates on or shows as an example.

    All rows are shuffled with the seed, and the first ones taken that are neither equal to one before them nor a row of
    MMLU: one with the question and the choices of a test or dev row, in any order (`fingerprint`), or an instruction
    whose prompt contains such a question and all of its choices. Every test and dev row counts, of whatever subject:
    what a study evaluates on may change without a change of what was trained on.

    Args:
        pool: rows of `fetch`.
        folder: of MMLU's dev.csv and test.csv.
        questions: how many rows are drawn at most.
        seed: of the shuffle.

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
    texts = [(name, normal(question), [normal(choice) for choice in choices]) for name, question, choices in known]
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
            mark = sha256_json([normal(row["prompt"]), normal(row["completion"])])
            twin = contained(normal(row["prompt"]), texts)
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
    return Drawn(chosen, dropped, repeated, len(known))


def normal(text: str) -> str:
    """Strip a text of what does not change what it asks: compatibility forms, case, spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def fingerprint(question: str, choices: Sequence[str]) -> str:
    """SHA-256 of a normalised question and its normalised choices, whatever their order."""
    return sha256_json([normal(question), sorted(map(normal, choices))])


def contained(prompt: str, known: Iterable[tuple[str, str, Sequence[str]]]) -> str | None:
    """Name the first of `known` whose question and choices all stand in the prompt; all normalised."""
    return next(
        (name for name, question, choices in known if question in prompt and all(c in prompt for c in choices)), None
    )
