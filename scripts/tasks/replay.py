"""Rows of general knowledge to replay in the training: MMLU's own training rows, or those of a local file.

A row has id (file and number), kind and either subject ("" if none is known), question, choices (4 texts) and answer
(A to D), or prompt and completion.
"""

import csv
import random
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from common.files import UserError, json_lines, read_jsonl, redacted, sha256_file, sha256_json, write_json, write_jsonl
from tasks import mmlu
from tasks.base import Context, Part, TaskOptions
from tasks.choice import LETTERS, fault, normal, not_text, told
from tasks.sections import AtLeast1, Count, Sha256, Text

CHOICE, INSTRUCTION = "multiple_choice", "instruction"
KEYS = {"question", "choices", "answer"}
PROMPT = "replay.jinja"
LICENCE = ""
PARTS = ("train",)
STAGES = {"fetch": ("source", "revision", "sha256"), "train": ("questions", "seed"), "prompt": ("system",)}
SMOKE: Mapping[str, Any] = {}
REMEDY = ""  # a row that is too long is left out
# MMLU's prompt names a subject; rows of auxiliary_train have none.
NO_SUBJECT = "general knowledge"


class Options(TaskOptions):
    """Rows of general knowledge mixed into the training, against forgetting; `replay.fraction` says how many.

    A row whose question and choices, in any order, are those of a yardstick's test or dev row is dropped and counted.
    """

    kind: Literal["replay"] = "replay"
    role: Literal["replay"] = "replay"
    source: Text
    """A release of MMLU as in a task of kind mmlu, whose auxiliary_train is taken; or a local file: CSV with columns
    question, A, B, C, D, answer and, if known, subject; or JSONL of {"question": ..., "choices": [...], "answer": ...}
    and of {"prompt": ..., "completion": ...}."""
    revision: str | None = None
    """The commit of a hub repository; null for other sources."""
    sha256: Sha256 | None = None
    """SHA-256 of an archive, or null."""
    questions: AtLeast1 = 2000
    """How many rows are drawn at most, for all adapters. Each adapter takes as many of the first rows as its fraction
    needs."""
    seed: Count = 42
    """Draws the rows."""
    system: str = "Answer with the letter of the correct choice."
    """System text of a multiple-choice row; an instruction has none."""


def fetch(options: Mapping, folder: Path) -> None:
    """Write all rows of a source (rows.jsonl) and manifest.json."""
    path, own = Path(options["source"]), None
    if path.suffix in READERS:
        rows, own = _read_file(options["name"], path), sha256_file(path)
    elif path.is_file() and not (tarfile.is_tarfile(path) or zipfile.is_zipfile(path)):
        raise UserError(
            f"{options['name']}.source: found {path}, expected a file named .csv or .jsonl, or a release of MMLU."
        )
    else:
        found = mmlu.fetch_auxiliary(options, folder / "unpacked")
        rows = [{"id": row["id"], "kind": CHOICE, "subject": "", **row} for row in found]
    write_jsonl(folder / "rows.jsonl", rows)
    facts = {key: options[key] for key in STAGES["fetch"]} | {"file_sha256": own, "rows": len(rows)}
    facts["source"] = redacted(options["source"])
    facts |= {"by_kind": Counter(row["kind"] for row in rows), "sha256": sha256_file(folder / "rows.jsonl")}
    write_json(folder / "manifest.json", facts)


def context(options: Mapping, folder: Path) -> Context:
    """A prompt may say of a row what `tasks.choice.told` says, or `prompt` and no choices."""
    return lambda row: (
        told({**row, "subject": row["subject"] or NO_SUBJECT})
        if "choices" in row
        else {"prompt": row["prompt"], "choices": []}
    )


def target(row: Mapping) -> str:
    return row["answer"] if "answer" in row else row["completion"]


def _read_file(name: str, path: Path) -> list[dict]:
    if not path.is_file():
        raise UserError(
            f"{name}.source: {path} is no file. Write the path of a CSV or JSONL file, or a release of MMLU."
        )
    try:
        rows = [_checked(path, number, row) for number, row in READERS[path.suffix](path)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8.") from None
    if not rows:
        raise UserError(f"{path}: found no rows, expected at least 1. Set {name}.source to another file.")
    return rows


def _csv_lines(path: Path) -> Iterator[tuple[int, dict]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            head = next(reader, [])
            needed = {"question", *LETTERS, "answer"}
            if not needed <= set(head) <= needed | {"subject"} or len({*head}) < len(head):
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


READERS = {".csv": _csv_lines, ".jsonl": json_lines}


def _checked(path: Path, number: int, row: Any) -> dict:
    """Bring a row of a local file into the form of this module."""
    keys, made = set(row) if isinstance(row, dict) else set(), {"id": f"{path.stem}-{number:05d}"}
    if keys == {"prompt", "completion"}:
        wrong = not_text({key: row[key] for key in ("prompt", "completion")})
        made |= {"kind": INSTRUCTION, "prompt": row["prompt"], "completion": str(row["completion"]).strip()}
    elif KEYS <= keys <= KEYS | {"subject"}:
        subject = row.get("subject") or ""
        wrong = None if isinstance(subject, str) else f"subject is {subject!r}, expected a text, or none"
        wrong = wrong or fault(row)
        made |= {"kind": CHOICE, "subject": subject, **{key: row[key] for key in ("question", "choices", "answer")}}
    else:
        wrong = (
            f"found keys {', '.join(sorted(keys)) or '(none)'}, expected prompt and completion, or question, choices, "
            "answer and maybe subject"
        )
    if wrong:
        raise UserError(f"{path}, line {number}: {wrong}. Mend or remove the line.")
    return made


def prepare(options: Mapping, folder: Path, part: str, held_out: Sequence[Mapping] = ()) -> Part:
    """Draw the rows to replay, without any that a yardstick evaluates on or shows as an example.

    All rows are shuffled with the seed, and the first ones taken that are neither equal to one before them nor a row of
    a yardstick: one with the question and the choices of such a row, in any order (`fingerprint`), or an instruction
    whose prompt contains such a question and all of its choices. What a study evaluates on may change without a change
    of what was trained on: every row of the yardsticks' data counts.

    Returns:
        The rows, in the order in which trainings take them; and what was left out before the last of them: dropped (of
        each row the name that it has in its yardstick), repeated_dropped (how many rows were equal to one before them)
        and checked_against (how many rows the yardsticks have).
    """
    pool = read_jsonl(folder / "rows.jsonl")
    known = [(row["id"], row["question"], row.get("choices", [])) for row in held_out]
    marks = {fingerprint(question, choices): name for name, question, choices in known}
    texts = [(name, [_normal(text) for text in (question, *choices)]) for name, question, choices in known]
    random.Random(options["seed"]).shuffle(pool)
    chosen, dropped, repeated, seen = [], {}, 0, set()
    for row in pool:
        if len(chosen) == options["questions"]:
            break
        if "choices" in row:
            mark = fingerprint(row["question"], row["choices"])
            twin = marks.get(mark)
        else:
            prompt = _normal(row["prompt"])
            mark = sha256_json([prompt, _normal(row["completion"])])
            twin = next((name for name, parts in texts if all(part in prompt for part in parts)), None)
        if twin:
            print(f"{row['id']}: is {twin} of a yardstick; dropped.", flush=True)
            dropped[row["id"]] = twin
        elif mark in seen:
            repeated += 1
        else:
            seen.add(mark)
            chosen.append(row)
    print(
        f"{len(chosen)} of {len(pool)} rows drawn; {len(dropped)} of yardsticks and {repeated} repeated ones dropped."
    )
    if not chosen:
        raise UserError(
            f"{options['name']}.source: none of its {len(pool)} rows is left: {len(dropped)} are of the yardsticks' "
            "data. Use another source."
        )
    facts = {"found": len(pool), "by_kind": Counter(row["kind"] for row in chosen)}
    return chosen, facts | {"dropped": dropped, "repeated_dropped": repeated, "checked_against": len(known)}


def _normal(text: str) -> str:
    """Strip a text of what does not change what it asks: compatibility forms, case, spaces."""
    return normal(unicodedata.normalize("NFKC", text))


def fingerprint(question: str, choices: Sequence[str]) -> str:
    """SHA-256 of a normalised question and its normalised choices, whatever their order."""
    return sha256_json([_normal(question), sorted(map(_normal, choices))])
