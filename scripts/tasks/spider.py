"""Spider: questions, schemas and databases, checked and reduced to what the study reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from common.download import find_root, opened
from common.files import UserError, sha256_file
from tasks import text_to_sql
from tasks.base import PARTS, Measure, Part
from tasks.sections import AtLeast1, Count, Section, Sha256, SomeSet, Text
from tasks.spider_format import FIELDS, find_databases, read_questions, read_tables, store
from tasks.text_to_sql import PROMPT, REMEDY, SMOKE, context, held_out, score, target

__all__ = ["FIELDS", "PARTS", "PROMPT", "REMEDY", "SMOKE", "context", "held_out", "score", "target"]

_TRAIN = {part: ("train_files", *text_to_sql.STAGES[part]) for part in ("train", "validation", "shots")}
STAGES = text_to_sql.STAGES | {"fetch": ("source", "sha256", "counts")} | _TRAIN
LICENCE = "CC-BY-SA-4.0"


class Counts(Section):
    """How many questions each file must hold. The official release has 7000, 1659 and 1034."""

    train_spider: Count = 7000
    """Questions in train_spider.json."""
    train_others: Count = 1659
    """Questions in train_others.json."""
    dev: AtLeast1 = 1034
    """Questions in dev.json."""


class Options(text_to_sql.Options):
    """Spider (Yu et al. 2018, arXiv:1809.08887): text-to-SQL on databases that the training has not seen."""

    kind: Literal["spider"] = "spider"
    role: Literal["target", "yardstick"] = "target"
    source: Text = "gdrive:1403EGqzIDoHMdQF4c9Bkyl7dZLZ5Wt6J"
    """The release's archive or its unpacked folder: an http(s) URL, gdrive:<id> (the official archive is
    gdrive:1403EGqzIDoHMdQF4c9Bkyl7dZLZ5Wt6J), or a local path."""
    sha256: Sha256 | None = None
    """SHA-256 of the archive; null to check only the counts."""
    counts: Counts = Counts()
    train_files: SomeSet[Literal["train_spider", "train_others"]] = ["train_others", "train_spider"]
    """The files whose questions are trained on."""


def measure(options: Mapping) -> Measure:
    return text_to_sql.measure(options, "Spider")


def prepare(options: Mapping, folder: Path, part: str) -> Part:
    """One part of the data; see `tasks.text_to_sql.prepare`."""
    files = [] if part == "test" else options["train_files"]
    train = [row for name in files for row in text_to_sql.read_rows(folder / f"{name}.json")]
    dev = {row["db_id"] for row in held_out(folder)}
    if both := [row for row in train if row["db_id"] in dev]:
        raise UserError(
            f"{both[0]['id']}: is on database {both[0]['db_id']}, which is in dev.json too. Training on it would spoil "
            "the evaluation; remove its rows from one of the two files."
        )
    return text_to_sql.prepare(options, folder, part, train)


def fetch(options: Mapping, folder: Path) -> None:
    """Write train_spider.json, train_others.json, dev.json, tables.json, database/ and manifest.json.

    Nothing in the folder is replaced before all of the new data has been checked.
    """
    source = options["source"]
    with opened(source, options["sha256"], folder / "unpacked", (".json", ".sqlite")) as (found, archive):
        root, questions = find_root(found, "tables.json", source), {}
        tables = read_tables(root / "tables.json")
        for name, expected in options["counts"].items():
            rows = questions[name] = read_questions(root / f"{name}.json", least=0)
            for number, row in enumerate(rows):
                if row["db_id"] not in tables:
                    raise UserError(f"{name}.json, row {number}: db_id {row['db_id']!r} is not in tables.json.")
            if len(rows) != expected:
                raise UserError(
                    f"{name}.json: found {len(rows):,} questions, expected {expected:,} "
                    f"({options['name']}.counts.{name}). Use the whole file, or correct the count if this is other "
                    "data."
                )
        # Beside it later releases have other states of the same databases, for the test suite.
        databases = find_databases(root / "database", questions, source)
        originals = {f"{name}.json": sha256_file(root / f"{name}.json") for name in (*questions, "tables")}
        facts = {"source": source, "archive_sha256": archive, "original_sha256": originals}
        store(folder, questions, tables, databases, facts)
