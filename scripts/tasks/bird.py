"""BIRD (Li et al. 2023, arXiv:2305.03111): questions on large databases, with evidence and levels of difficulty.

The release's archives dev.zip and train.zip hold <part>.json, <part>_tables.json and <part>_databases.zip, in which the
databases are. Its execution accuracy compares the rows of two results as sets: the criterion `set`.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from common.download import find_root, opened
from common.files import UserError
from tasks import spider_format, text_to_sql
from tasks.base import PARTS, Context, Measure
from tasks.sections import Text
from tasks.spider_format import find_databases, no_train, prepare, read_questions, read_tables, store
from tasks.text_to_sql import REMEDY, SMOKE, held_out, score, target

__all__ = ["PARTS", "REMEDY", "SMOKE", "held_out", "prepare", "score", "target"]

PROMPT = "bird.jinja"
LICENCE = "CC-BY-SA-4.0"
STAGES = spider_format.STAGES | {"prompt": (*spider_format.STAGES["prompt"], "evidence")}
DIFFICULTY = ("simple", "moderate", "challenging")
FIELDS = {"db_id": "db_id", "question": "question", "query": "SQL"}
# Further ones of ours; training rows have no difficulty.
OPTIONAL = ("evidence", "difficulty")


class Options(spider_format.Options):
    """BIRD (Li et al. 2023, arXiv:2305.03111): text-to-SQL on large databases with unclean values."""

    kind: Literal["bird"] = "bird"
    source: Text
    """dev.zip of the release, or a folder into which it is unpacked; to train, a folder with train.zip unpacked too."""
    evidence: bool = True
    """Show each question's evidence, the knowledge that BIRD gives with it."""
    criterion: Literal["set", "bag", "ordered", "test_suite", "columns_any_order"] = "set"
    """As of other text-to-SQL tasks. set is BIRD's own execution accuracy."""


def measure(options: Mapping) -> Measure:
    return text_to_sql.measure(options, "BIRD", "difficulty", DIFFICULTY, ("evidence",))


def fetch(options: Mapping, folder: Path) -> None:
    """Write dev.json, train.json if there is one, tables.json, database/ and manifest.json.

    As `tasks.spider_format.fetch`, but gold queries are not run, as some take long.
    """
    source, keep = options["source"], (".json", ".sqlite", "_databases.zip")
    questions, tables, databases = {}, {}, {}
    with ExitStack() as stack:

        def enter(place: str, sha256: str | None, name: str) -> tuple[Path, str | None]:
            return stack.enter_context(opened(place, sha256, folder / name, keep))

        found, archive = enter(source, options["sha256"], "unpacked")
        parts = ["dev", *(["train"] if any(found.rglob("train.json")) else [])]
        if options["role"] == "target" and "train" not in parts:
            raise no_train(options, "role: target")
        for part in parts:
            root = find_root(found, f"{part}.json", source)
            questions[part] = read_questions(root / f"{part}.json", FIELDS, OPTIONAL)
            tables |= read_tables(root / f"{part}_tables.json")
            packed = root / f"{part}_databases.zip"
            is_packed = packed.is_file() and not packed.with_suffix("").is_dir()
            inside, _ = enter(str(packed if is_packed else root), None, f"unpacked_{part}")
            databases |= find_databases(inside, {part: questions[part]}, source)
        for number, row in enumerate(questions["dev"]):
            if row["difficulty"] not in DIFFICULTY:
                raise UserError(
                    f"dev.json, row {number}: difficulty is {row['difficulty']!r}, expected {', '.join(DIFFICULTY)}. "
                    "Use the release's own file."
                )
        if missing := sorted(set(databases) - set(tables)):
            raise UserError(f"dev_tables.json or train_tables.json: has no entry for {missing[0]}. Get the data again.")
        used = {name: tables[name] for name in databases}
        store(folder, questions, used, databases, {"source": source, "archive_sha256": archive})


def context(options: Mapping, folder: Path) -> Context:
    """As of other text-to-SQL tasks; evidence is "" where there is none, or none is to be shown."""
    told = text_to_sql.context(options, folder)
    return lambda row: told(row) | ({} if options["evidence"] else {"evidence": ""})
