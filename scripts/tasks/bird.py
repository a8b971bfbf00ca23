"""BIRD (Li et al. 2023, arXiv:2305.03111): questions on large databases, with evidence and levels of difficulty.

The release's archives dev.zip and train.zip hold <part>.json, <part>_tables.json and <part>_databases.zip, in which the
databases are. Its execution accuracy compares the rows of two results as sets: the criterion `set`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from common.download import find_root, opened
from common.files import UserError
from tasks import spider_format, text_to_sql
from tasks.base import Measure
from tasks.sections import Text
from tasks.spider import context as spider_context
from tasks.spider import held_out, read_tables, store
from tasks.spider_format import STAGES as SPIDER_STAGES
from tasks.spider_format import find_databases, no_train, prepare, read_questions
from tasks.text_to_sql import PARTS, SMOKE, choices, remedy, shots, target

__all__ = ["PARTS", "SMOKE", "choices", "held_out", "prepare", "remedy", "shots", "target"]

PROMPT = "bird.jinja"
STAGES = SPIDER_STAGES | {"prompt": (*SPIDER_STAGES["prompt"], "evidence")}
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


def measure(options: Mapping[str, Any]) -> Measure:
    known = text_to_sql.measure(options, "BIRD", ("difficulty", DIFFICULTY))
    columns, question = ([*names] for names in (known.columns, known.question))
    for names in (columns, question):
        names.insert(names.index("question") + 1, "evidence")
    return replace(known, columns=tuple(columns), question=tuple(question))


def fetch(options: Mapping[str, Any], folder: str | Path) -> None:
    """Write dev.json, train.json if there is one, tables.json, database/ and manifest.json into `folder`.

    Args and errors are those of `tasks.spider_format.fetch`; gold queries are not run, as some take long.
    """
    source, out = options["source"], Path(folder)
    keep = (".json", ".sqlite", "_databases.zip")
    questions, tables, databases = {}, {}, {}
    with ExitStack() as stack:

        def enter(place: str, sha256: str | None, name: str) -> tuple[Path, str | None]:
            return stack.enter_context(opened(place, sha256, out / name, lambda entry: entry.endswith(keep)))

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
        store(out, questions, used, databases, {"source": source, "archive_sha256": archive})


def context(options: Mapping[str, Any], folder: Path) -> Callable[[Mapping], dict[str, str]]:
    """As of `tasks.spider.context`; evidence is "" where there is none, or none is to be shown."""
    told = spider_context(options, folder)
    return lambda row: told(row) | ({} if options["evidence"] else {"evidence": ""})


def score(
    options: Mapping[str, Any], folder: Path, asked: Sequence[tuple[Mapping, Mapping | None]], workers: int
) -> Iterator[tuple[dict, dict]]:
    """As of `tasks.text_to_sql.score`, with each question's difficulty and evidence."""
    scored = text_to_sql.score(options, folder, asked, workers)
    for (row, _), (record, previews) in zip(asked, scored, strict=True):
        yield record | {key: row[key] for key in OPTIONAL}, previews
