"""Fetch MMLU: the questions of all subjects, from the official CSV files or the hub's parquet files, in one table."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

import _path  # noqa: F401
from common.download import CACHE, find_root, hub_snapshot, opened
from common.files import UserError, atomic_write, sha256_file, write_json
from common.job import job

SPLITS = ("dev", "test")
LETTERS = "ABCD"
COLUMNS = ("subject", "index", "question", *LETTERS, "answer")
# Configurations of the hub's copy that are no subject.
NO_SUBJECT = ("all", "auxiliary_train")


def fetch_mmlu(
    source: str,
    revision: str | None,
    sha256: str | None,
    subjects: int,
    out_dir: str | Path,
    cache_dir: str | Path = CACHE,
) -> None:
    """Write dev.csv, test.csv (columns `COLUMNS`; index counts the subject's rows from 0) and manifest.json.

    Args:
        source: http(s) URL, `gdrive:<id>`, or local archive or folder, with CSV files as the authors release them
            (`{dev,test}/<subject>_{dev,test}.csv`) or parquet files as the hub has them
            (`<subject>/{dev,test}-*.parquet`); or `hub:<owner>/<name>`.
        revision: commit of the hub repository; None for any other source.
        sha256: of the archive, or None.
        subjects: expected number of subjects.
        out_dir: nothing in it is replaced before all of the new data has been checked.
        cache_dir: where downloads are kept.

    Raises:
        UserError: the source cannot be had, or a file or row of it is not as expected.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    archive_sha256 = None
    if source.startswith("hub:"):
        if sha256:
            raise UserError(f"mmlu, sha256: {source} has no archive; its commit pins it. Set sha256 to null.")
        allow, ignore = [f"*/{split}-*.parquet" for split in SPLITS], [f"{name}/*" for name in NO_SUBJECT]
        folder = hub_snapshot(source.removeprefix("hub:"), revision, "dataset", allow, ignore)
        tables = read_folder(folder, source)
    else:
        if revision:
            raise UserError(f"mmlu, revision: {source} is not on the hub (hub:<owner>/<name>). Set revision to null.")

        def keep(name: str) -> bool:
            return name.endswith((".csv", ".parquet"))

        with opened(source, sha256, out_dir / "unpacked", keep, cache_dir) as (folder, archive_sha256):
            tables = read_folder(folder, source)
    names = sorted(tables["test"])
    if len(names) != subjects:
        raise UserError(
            f"{source}: found {len(names)} subjects, expected {subjects} (config: mmlu, subjects). "
            "Use the whole data, or correct the number if this is other data."
        )
    for split in SPLITS:
        with atomic_write(out_dir / f"{split}.csv") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for subject in names:
                writer.writerows([subject, index, *row] for index, row in enumerate(tables[split][subject]))
    manifest = {
        "source": source,
        "revision": revision,
        "archive_sha256": archive_sha256,
        "subjects": {name: {split: len(tables[split][name]) for split in SPLITS} for name in names},
        "counts": {split: sum(map(len, tables[split].values())) for split in SPLITS},
        "files": {
            f"{split}.csv": {
                "bytes": (out_dir / f"{split}.csv").stat().st_size,
                "sha256": sha256_file(out_dir / f"{split}.csv"),
            }
            for split in SPLITS
        },
    }
    write_json(out_dir / "manifest.json", manifest)


def read_folder(folder: Path, source: str) -> dict[str, dict[str, list[list[str]]]]:
    """Read all subjects below `folder`: return `tables[split][subject]`, rows of question, 4 choices, answer letter.

    Raises:
        UserError: there are no files of MMLU, a subject lacks a split, or a row is not as expected.
    """
    is_parquet = any(Path(folder).rglob("*.parquet"))
    root = find_root(folder, "*/test-*.parquet" if is_parquet else "test/*_test.csv", source)
    tables: dict[str, dict[str, list[list[str]]]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        if is_parquet:
            for path in sorted(root.glob(f"*/{split}-*.parquet")):
                if path.parent.name not in NO_SUBJECT:
                    tables[split].setdefault(path.parent.name, []).extend(parquet_rows(path))
        else:
            for path in sorted((root / split).glob(f"*_{split}.csv")):
                if not path.name.startswith("."):
                    tables[split][path.name.removesuffix(f"_{split}.csv")] = list(csv_rows(path))
    for subject in sorted(set(tables["dev"]) ^ set(tables["test"])):
        lacking = "dev" if subject in tables["test"] else "test"
        raise UserError(f"{source}: {subject} has no {lacking} file, which is needed. Get the data again.")
    return tables


def csv_rows(path: Path) -> Iterator[list[str]]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8") + "?"
        number = len(list(csv.reader(io.StringIO(before, newline=""))))
        raise UserError(
            f"{_short(path)}, row {number}: not UTF-8 (byte {raw[error.start]:#04x}). "
            "Save the file as UTF-8, or get it again."
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if len(row) != 6:
                raise UserError(
                    f"{_short(path)}, row {number}: found {len(row)} fields, expected 6 "
                    "(question, four choices, answer letter). Get the file again."
                )
            yield _checked(path, number, row)
    except csv.Error as error:
        raise UserError(f"{_short(path)}, row {number + 1}: not CSV ({error}). Get the file again.") from None
    if not number:
        raise UserError(f"{_short(path)}: empty, expected one question a row. Get the file again.")


def parquet_rows(path: Path) -> Iterator[list[str]]:
    try:
        rows = pyarrow.parquet.read_table(path, columns=["question", "choices", "answer"]).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{_short(path)}: cannot be read ({str(error).splitlines()[0]}). Get the file again.") from None
    if not rows:
        raise UserError(f"{_short(path)}: empty, expected one question a row. Get the file again.")
    for number, row in enumerate(rows, 1):
        choices, answer = row["choices"], row["answer"]
        if not isinstance(choices, list) or len(choices) != 4:
            raise UserError(f"{_short(path)}, row {number}: choices are {choices!r}, expected 4. Get the file again.")
        if answer not in range(4):
            raise UserError(f"{_short(path)}, row {number}: answer is {answer!r}, expected 0 to 3. Get the file again.")
        yield _checked(path, number, [row["question"], *choices, LETTERS[answer]])


def _checked(path: Path, number: int, row: list[str]) -> list[str]:
    for name, cell in zip(COLUMNS[2:], row, strict=True):
        if not isinstance(cell, str) or not cell.strip():
            raise UserError(f"{_short(path)}, row {number}: {name} is {cell!r}, expected a text. Get the file again.")
    if row[5] not in tuple(LETTERS):
        raise UserError(f"{_short(path)}, row {number}: answer is {row[5]!r}, expected A to D. Get the file again.")
    return row


def _short(path: Path) -> str:
    """The path inside the data: that of the folder it was unpacked to no longer exists when the message is read."""
    return "/".join(path.parts[-2:])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_mmlu(**snakemake.params.settings, out_dir=Path(snakemake.output.manifest).parent)
