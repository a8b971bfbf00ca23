"""Put every question and every answer of a study into one HTML page to look at: answers.html beside this file, filled.

The page needs no network and no other file. Answers are hostile text: they travel as compressed JSON in base64, which
cannot end the element it stands in, reach the page as text nodes only, and a Content-Security-Policy lets nothing run
but the page's own script, known by its hash, and nothing be fetched from anywhere.
"""

import base64
import hashlib
import html
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json, read_jsonl
from common.job import job
from custom_metrics.judge import ERROR_CLASSES, SEMANTICS
from present.words import read_words
from tables import MMLU_QUESTION, SPIDER_QUESTION, read_same
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS, by_id

TEMPLATE = Path(__file__).resolve().parents[1] / "present/answers.html"
# Of one answer; what is beyond stands in the run's files.
LONGEST_TEXT = 10_000
LETTERS = "ABCD"


def answers(
    spider: Sequence[str | Path],
    mmlu: Sequence[str | Path],
    rows: Sequence[str | Path],
    questions: str | Path,
    tables: str | Path,
    page: str | Path,
    study: str,
    runs: Sequence[Mapping],
    semantics: str = "bag",
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
) -> None:
    """Write `page`, equal bytes for equal inputs.

    Args:
        spider, mmlu, rows: records of each run, and the first rows of its results, in the order of `runs`.
        questions: the multiple-choice questions, JSON lines with id, question and choices.
        tables: Spider's tables.json.
        study: the study's name, for the title.
        runs: of each run `model` and `variant`.
        semantics: what "right" means when the page is opened; one of `custom_metrics.judge.SEMANTICS`.
        known_defects, accept_defect: what is said of the method, and which failures of the audit it ran with.

    Raises:
        UserError: the files are not about the same questions, or tables.json lacks a database.
    """
    if not len(runs) == len(spider) == len(mmlu) == len(rows):
        raise UserError(
            f"answers: found {len(spider)}, {len(mmlu)} and {len(rows)} files, expected one of each of {len(runs)} "
            "runs."
        )
    spider_frames = read_same(spider, SPIDER_COLUMNS, SPIDER_QUESTION)
    mmlu_frames = read_same(mmlu, MMLU_COLUMNS, MMLU_QUESTION)
    data = {
        "study": study,
        "runs": [{"model": run["model"], "variant": run["variant"]} for run in runs],
        "headline": semantics,
        "semantics": [{"key": key, **read_words("en")["criteria"][key]} for key in SEMANTICS],
        "classes": ERROR_CLASSES,
        "defects": [*known_defects, *(f"Runs although its audit may fail: {name}" for name in accept_defect)],
        "schemas": schemas(read_json(tables), spider_frames[0]["db_id"].unique(), tables),
        "spider": spider_questions(spider_frames, [read_previews(path, spider_frames[0]["id"]) for path in rows]),
        "mmlu": mmlu_questions(mmlu_frames, by_id(read_jsonl(questions), questions), questions),
    }
    with atomic_write(page) as stream:
        stream.write(fill(TEMPLATE.read_text(encoding="utf-8"), f"Answers: {study}", data))


def fill(template: str, title: str, data: Mapping) -> str:
    """Return the page: the template with its title, its data, and the policy that knows its script and style."""
    # ASCII: a lone surrogate is no UTF-8.
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii")
    hashes = {}
    for element in ("script", "style"):
        code = re.search(rf"<{element}>(.*?)</{element}>", template, re.DOTALL)[1]
        hashes[element] = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    values = {"POLICY": policy, "TITLE": html.escape(title), "DATA": packed}
    return re.sub(r"\{\{(POLICY|TITLE|DATA)\}\}", lambda match: values[match[1]], template)


def schemas(entries: Sequence[Mapping], db_ids: Sequence[str], source: str | Path) -> dict:
    """Return the tables of each database: name, and columns as [name, type, whether in the key, foreign key or null].

    Args:
        entries: of Spider's tables.json, which is the file `source`.

    Raises:
        UserError: a database is not among the entries.
    """
    known = {entry["db_id"]: entry for entry in entries}
    found = {}
    for db_id in db_ids:
        if db_id not in known:
            raise UserError(f"{source}: no entry for database {db_id}. The Spider files do not belong together.")
        entry = known[db_id]
        names, columns = entry["table_names_original"], entry["column_names_original"]
        keys = {n for key in entry["primary_keys"] for n in (key if isinstance(key, list) else [key])}
        foreign = {a: f"{names[columns[b][0]]}.{columns[b][1]}" for a, b in entry["foreign_keys"]}
        found[db_id] = [
            {
                "name": name,
                "columns": [
                    [column, entry["column_types"][number], int(number in keys), foreign.get(number)]
                    for number, (owner, column) in enumerate(columns)
                    if owner == table
                ],
            }
            for table, name in enumerate(names)
            if not name.startswith("sqlite_")  # of SQLite's own
        ]
    return found


def read_previews(path: str | Path, ids: Sequence[str]) -> dict[str, Mapping]:
    """Read what `score_spider` wrote beside its records.

    Raises:
        UserError: it is not about these questions.
    """
    found = by_id(read_jsonl(path), path, ids)
    missing = [number for number in ids if number not in found]
    if missing:
        raise UserError(f"{path}: lacks {len(missing)} questions, {missing[0]} among them. Run its rule again.")
    return found


def spider_questions(frames: Sequence[pd.DataFrame], previews: Sequence[Mapping[str, Mapping]]) -> list[dict]:
    """Return what the page shows of each text-to-SQL question; each answer is a list, in the order of the runs.

    The rows of the gold query are merged over the runs: each run's file has the first, and those that its answer lacks.
    """
    found = []
    for records in zip(*(frame.to_dict("records") for frame in frames), strict=True):
        first = records[0]
        shown = [preview[first["id"]] for preview in previews]
        found.append(
            {
                "id": first["id"],
                "db": first["db_id"],
                "hardness": first["hardness"],
                "question": first["question"],
                "gold": first["gold"],
                "flags": first["flags"].split(),
                "count": int(first["gold_rows"]),
                "columns": shown[0]["gold"]["columns"],
                "width": shown[0]["gold"]["width"],
                "rows": sorted({index: cells for one in shown for index, cells in one["gold"]["rows"]}.items()),
                "answers": [spider_answer(record, one) for record, one in zip(records, shown, strict=True)],
            }
        )
    return found


def spider_answer(record: Mapping, preview: Mapping) -> list:
    """Return what the page shows of one answer; its script names the places."""
    return [
        None if record["error_class"] == "missing" else cut(record["answer"]),
        None if record["sql"] == record["answer"] else cut(record["sql"]),
        [record[name] for name in SEMANTICS],
        [record[f"{name}_raw"] for name in SEMANTICS],
        ERROR_CLASSES.index(record["error_class"]),
        cut(record["message"]),
        None if pd.isna(record["predicted_rows"]) else int(record["predicted_rows"]),
        preview["predicted"],
        preview["gold"]["unmatched"],
    ]


def mmlu_questions(frames: Sequence[pd.DataFrame], texts: Mapping[str, Mapping], source: str | Path) -> list[dict]:
    """Return what the page shows of each multiple-choice question.

    Raises:
        UserError: the file `source` lacks a question.
    """
    found = []
    for records in zip(*(frame.to_dict("records") for frame in frames), strict=True):
        first = records[0]
        if first["id"] not in texts:
            raise UserError(f"{source}: has no question {first['id']}. Run `snakemake -R score_mmlu`.")
        text = texts[first["id"]]
        found.append(
            {key: first[key] for key in ("id", "subject", "category", "answer")}
            | {"question": text["question"], "choices": text["choices"]}
            | {"answers": [mmlu_answer(record) for record in records]}
        )
    return found


def mmlu_answer(record: Mapping) -> list:
    logprobs = [record[f"logprob_{letter}"] for letter in LETTERS]
    return [
        record["prediction"],
        # None for a question without an answer. JSON has no infinity; "-inf" is what the page understands.
        [None if pd.isna(x) else round(x, 4) if math.isfinite(x) else str(x) for x in logprobs],
        cut(record["generated"]),
        record["generated_letter"],
        record["correct"],
        record["correct_generated"],
    ]


def cut(text: str) -> str | list:
    """Return a text, or the beginning of a long one with its length."""
    return text if len(text) <= LONGEST_TEXT else [text[:LONGEST_TEXT], len(text)]


if __name__ == "__main__":
    with job(snakemake.log[0]):
        answers(
            spider=snakemake.input.spider,
            mmlu=snakemake.input.mmlu,
            rows=snakemake.input.rows,
            questions=snakemake.input.questions,
            tables=snakemake.input.tables,
            page=snakemake.output.page,
            **snakemake.params.settings,
        )
