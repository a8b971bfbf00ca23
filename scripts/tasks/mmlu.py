"""MMLU: the questions of all subjects, from the official CSV files or the hub's parquet files, in one table."""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.download import CACHE, find_root, hub_snapshot, opened
from common.files import UserError, atomic_write, sha256_file, write_json
from tasks.choice import LETTERS, draw

SPLITS = ("dev", "test")
COLUMNS = ("subject", "index", "question", *LETTERS, "answer")
AUXILIARY = "auxiliary_train"
HUB = "hub:"
# Configurations of the hub's copy that are no subject.
NO_SUBJECT = ("all", AUXILIARY)
# Of the release's archive and of the hub's copy, whose configuration `all` has it in the form of the other splits.
AUXILIARY_FILES = (f"{AUXILIARY}/*.csv", f"all/{AUXILIARY}-*.parquet")
# The benchmark's own grouping (Hendrycks et al. 2021, arXiv:2009.03300; categories.py of its release).
OFFICIAL = {
    "stem": (
        "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
        "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law "
        "world_religions"
    ),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
CATEGORY = {subject: category for category, subjects in OFFICIAL.items() for subject in subjects.split()}


def fetch(options: Mapping[str, Any], folder: str | Path, cache_dir: str | Path = CACHE) -> None:
    """Write dev.csv, test.csv (columns `COLUMNS`; index counts the subject's rows from 0) and manifest.json.

    Args:
        options: `source`: http(s) URL, `gdrive:<id>`, or local archive or folder, with CSV files as the authors
            release them (`{dev,test}/<subject>_{dev,test}.csv`) or parquet files as the hub has them
            (`<subject>/{dev,test}-*.parquet`); or `hub:<owner>/<name>`.
            `revision`: commit of the hub repository; None for any other source.
            `sha256`: of the archive, or None.
            `subjects`: expected number of subjects.
        folder: nothing in it is replaced before all of the new data has been checked.
        cache_dir: where downloads are kept.

    Raises:
        UserError: the source cannot be had, or a file or row of it is not as expected.
    """
    source, revision, sha256, subjects = (options[key] for key in ("source", "revision", "sha256", "subjects"))
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    if source.startswith(HUB) and sha256:
        raise UserError(f"mmlu, sha256: {source} has no archive; its commit pins it. Set sha256 to null.")
    if revision and not source.startswith(HUB):
        raise UserError(f"mmlu, revision: {source} is not on the hub (hub:<owner>/<name>). Set revision to null.")
    allow, ignore = [f"*/{split}-*.parquet" for split in SPLITS], [f"{name}/*" for name in NO_SUBJECT]
    with _data(options, (allow, ignore), out / "unpacked", cache_dir) as (found, archive_sha256):
        tables = read_folder(found, source)
    names = sorted(tables["test"])
    if len(names) != subjects:
        raise UserError(
            f"{source}: found {len(names)} subjects, expected {subjects} (config: mmlu, subjects). "
            "Use the whole data, or correct the number if this is other data."
        )
    for split in SPLITS:
        with atomic_write(out / f"{split}.csv") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for subject in names:
                writer.writerows([subject, index, *row] for index, row in enumerate(tables[split][subject]))
    files = {f"{split}.csv": out / f"{split}.csv" for split in SPLITS}
    manifest = {
        "source": source,
        "revision": revision,
        "archive_sha256": archive_sha256,
        "subjects": {name: {split: len(tables[split][name]) for split in SPLITS} for name in names},
        "counts": {split: sum(map(len, tables[split].values())) for split in SPLITS},
        "files": {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in files.items()},
    }
    write_json(out / "manifest.json", manifest)


@contextmanager
def _data(
    options: Mapping[str, Any], of_hub: tuple[list[str], list[str]], scratch: Path, cache_dir: str | Path
) -> Iterator[tuple[Path, str | None]]:
    """Yield the folder with the tables of a source, and the SHA-256 of its archive; `of_hub`: allow, ignore."""
    source = options["source"]
    if source.startswith(HUB):
        yield hub_snapshot(source.removeprefix(HUB), options["revision"], "dataset", *of_hub), None
        return

    def keep(name: str) -> bool:
        return name.endswith((".csv", ".parquet"))

    with opened(source, options["sha256"], scratch, keep, cache_dir) as found:
        yield found


def prepare(options: Mapping[str, Any], folder: str | Path) -> list[dict]:
    """Draw a study's questions from a folder that `fetch` wrote; options and errors as of `tasks.choice.draw`."""
    return draw(options, *(read_table(Path(folder) / f"{split}.csv") for split in SPLITS))


def read_table(path: str | Path) -> dict[str, list[dict]]:
    """Read dev.csv or test.csv: for each subject, rows of index, question, choices (4 texts) and answer.

    Cells are text as they are: "None" and "NA" are answers in MMLU, not missing values.
    """
    table: dict[str, list[dict]] = {}
    with Path(path).open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            table.setdefault(row["subject"], []).append(
                {
                    "index": int(row["index"]),
                    "question": row["question"],
                    "choices": [row[letter] for letter in LETTERS],
                    "answer": row["answer"],
                }
            )
    return table


def fetch_auxiliary(options: Mapping[str, Any], scratch: Path, cache_dir: str | Path = CACHE) -> list[tuple[str, list]]:
    """Get MMLU's own training rows: pairs of an id (file and number) and question, 4 choices, answer letter.

    Args:
        options: `source`, `revision` and `sha256`, as of `fetch`.
        scratch: folder to unpack an archive into; it is deleted at the end.
        cache_dir: where downloads are kept.

    Raises:
        UserError: the source cannot be had or has no such rows, or a row is not as expected.
    """
    source = options["source"]
    with _data(options, ([AUXILIARY_FILES[1]], []), scratch, cache_dir) as (folder, _):
        pattern = next((p for p in AUXILIARY_FILES if any(folder.rglob(p))), None)
        if pattern is None:
            raise UserError(
                f"replay.source: {AUXILIARY} is not in {source} (looked for {' and '.join(AUXILIARY_FILES)}). Some "
                "copies of MMLU lack it: set mmlu.source to the release's archive or to hub:cais/mmlu, or "
                "replay.source to a file."
            )
        read = csv_rows if pattern.endswith(".csv") else parquet_rows
        return [
            (f"{path.name.partition('.')[0]}-{number:05d}", cells)
            for path in sorted(find_root(folder, pattern, source).glob(pattern))
            for number, cells in enumerate(read(path))
        ]


def read_folder(folder: Path, source: str) -> dict[str, dict[str, list[list[str]]]]:
    """Read all subjects below `folder` as `tables[split][subject]`: rows of question, 4 choices, answer letter.

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
    """Yield question, 4 choices and answer letter of each row of a CSV file."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8") + "?"
        number = len(list(csv.reader(io.StringIO(before, newline=""))))
        found = f"not UTF-8 (byte {raw[error.start]:#04x})"
        raise _wrong(path, number, found, "Save the file as UTF-8, or get it again.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if len(row) != 6:
                found = f"found {len(row)} fields, expected 6 (question, four choices, answer letter)"
                raise _wrong(path, number, found)
            yield _checked(path, number, row)
    except csv.Error as error:
        raise _wrong(path, number + 1, f"not CSV ({error})") from None
    if not number:
        raise _wrong(path, None, "empty, expected one question a row")


def parquet_rows(path: Path) -> Iterator[list[str]]:
    """Yield question, 4 choices and answer letter of each row of a parquet file."""
    import pyarrow.parquet  # tenths of a second to import

    try:
        rows = pyarrow.parquet.read_table(path, columns=["question", "choices", "answer"]).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise _wrong(path, None, f"cannot be read ({str(error).splitlines()[0]})") from None
    if not rows:
        raise _wrong(path, None, "empty, expected one question a row")
    for number, row in enumerate(rows, 1):
        choices, answer = row["choices"], row["answer"]
        if not isinstance(choices, list) or len(choices) != 4:
            raise _wrong(path, number, f"choices are {choices!r}, expected 4")
        if answer not in range(4):
            raise _wrong(path, number, f"answer is {answer!r}, expected 0 to 3")
        yield _checked(path, number, [row["question"], *choices, LETTERS[answer]])


def _checked(path: Path, number: int, row: list[str]) -> list[str]:
    for name, cell in zip(COLUMNS[2:], row, strict=True):
        if not isinstance(cell, str) or not cell.strip():
            raise _wrong(path, number, f"{name} is {cell!r}, expected a text")
    if row[5] not in tuple(LETTERS):
        raise _wrong(path, number, f"answer is {row[5]!r}, expected A to D")
    return row


def _wrong(path: Path, row: int | None, found: str, remedy: str = "Get the file again.") -> UserError:
    # By its path inside the data: the folder it was unpacked to no longer exists when the message is read.
    place = "/".join(path.parts[-2:]) + (f", row {row}" if row is not None else "")
    return UserError(f"{place}: {found}. {remedy}")
