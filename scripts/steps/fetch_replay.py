"""Fetch rows of general knowledge to mix into the training: MMLU's own training rows, or those of a local file."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.download import CACHE, find_root, hub_snapshot, opened
from common.files import UserError, sha256_file, write_json, write_jsonl
from common.job import job
from fetch_mmlu import LETTERS, csv_rows, parquet_rows
from study.unfold import AUXILIARY

CHOICE, INSTRUCTION = "multiple_choice", "instruction"
# Of the release's archive and of the hub's copy, whose configuration `all` has it in the form of the other splits.
PATTERNS = ("auxiliary_train/*.csv", "all/auxiliary_train-*.parquet")


def fetch_replay(
    source: str,
    rows: str | Path,
    manifest: str | Path,
    mmlu: Mapping[str, Any] | None = None,
    cache_dir: str | Path = CACHE,
) -> None:
    """Write all rows of a source as JSON lines, and their manifest.

    A row has id (file and number), kind and either subject ("" if none is known), question, choices (4 texts) and
    answer (A to D), or prompt and completion.

    Args:
        source: auxiliary_train, or a local CSV or JSONL file.
        rows, manifest: output paths.
        mmlu: `source`, `revision` and `sha256` of MMLU, for auxiliary_train; as for `fetch_mmlu`.
        cache_dir: where downloads are kept.

    Raises:
        UserError: the source cannot be had or has no such rows; a bad row, by its file and line.
    """
    if source == AUXILIARY:
        found = _auxiliary(mmlu, Path(rows).parent / "unpacked", cache_dir)
    else:
        found = list(_local(Path(source)))
        if not found:
            raise UserError(f"{source}: found no rows, expected at least 1. Set replay.source to another file.")
    write_jsonl(rows, found)
    write_json(
        manifest,
        {
            "source": source,
            "mmlu": dict(mmlu) if mmlu else None,
            "file_sha256": None if source == AUXILIARY else sha256_file(source),
            "rows": len(found),
            "by_kind": dict(sorted(Counter(row["kind"] for row in found).items())),
            "sha256": sha256_file(rows),
        },
    )


def _auxiliary(mmlu: Mapping[str, Any], scratch: Path, cache_dir: str | Path) -> list[dict]:
    source = mmlu["source"]
    if source.startswith("hub:"):
        folder = hub_snapshot(source.removeprefix("hub:"), mmlu["revision"], "dataset", [PATTERNS[1]], [])
        return _auxiliary_rows(folder, source)

    def keep(name: str) -> bool:
        return AUXILIARY in name and name.endswith((".csv", ".parquet"))

    with opened(source, mmlu["sha256"], scratch, keep, cache_dir) as (folder, _):
        return _auxiliary_rows(folder, source)


def _auxiliary_rows(folder: Path, source: str) -> list[dict]:
    pattern = next((p for p in PATTERNS if any(Path(folder).rglob(p))), None)
    if pattern is None:
        raise UserError(
            f"replay.source: auxiliary_train is not in {source} (looked for {' and '.join(PATTERNS)}). Some copies of "
            "MMLU lack it: set mmlu.source to the release's archive or to hub:cais/mmlu, or replay.source to a file."
        )
    read = csv_rows if pattern.endswith(".csv") else parquet_rows
    return [
        _choice(f"{path.name.partition('.')[0]}-{number:05d}", "", cells[0], cells[1:5], cells[5])
        for path in sorted(find_root(folder, pattern, source).glob(pattern))
        for number, cells in enumerate(read(path))
    ]


def _choice(name: str, subject: str, question: str, choices: list[str], answer: str) -> dict:
    return {
        "id": name,
        "kind": CHOICE,
        "subject": subject,
        "question": question,
        "choices": choices,
        "answer": answer,
    }


def _local(path: Path) -> Iterator[dict]:
    """Yield the rows of a local file.

    Raises:
        UserError: no such file, another format, or a bad row, by its line.
    """
    if not path.is_file():
        raise UserError(f"replay.source: {path} is no file. Write auxiliary_train, or the path of a CSV or JSONL file.")
    readers = {".csv": _csv_lines, ".jsonl": _json_lines}
    if path.suffix not in readers:
        raise UserError(f"replay.source: found {path}, expected a file named .csv or .jsonl.")
    try:
        for number, row in readers[path.suffix](path):
            yield _checked(path, number, row)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8.") from None


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
    """Return a row of a local file as `fetch_replay` writes it."""

    def wrong(found: str, remedy: str) -> UserError:
        return UserError(f"{path}, line {number}: {found}. {remedy}")

    name = f"{path.stem}-{number:05d}"
    keys = set(row) if isinstance(row, dict) else set()
    if keys == {"prompt", "completion"}:
        for key in ("prompt", "completion"):
            if not isinstance(row[key], str) or not row[key].strip():
                raise wrong(f"{key} is {row[key]!r}, expected a text", "Write one, or remove the line.")
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
        if not isinstance(cell, str) or not cell.strip():
            raise wrong(f"{key} is {cell!r}, expected a text", "Write one, or remove the line.")
    if row["answer"] not in tuple(LETTERS):
        raise wrong(f"answer is {row['answer']!r}, expected A, B, C or D", "Write the letter of the right choice.")
    subject = row.get("subject") or ""
    if not isinstance(subject, str):
        raise wrong(f"subject is {subject!r}, expected a text", "Write one, or leave it out.")
    return _choice(name, subject, row["question"], choices, row["answer"])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_replay(
            rows=snakemake.output.rows,
            manifest=snakemake.output.manifest,
            **snakemake.params.settings,
        )
