"""Put every question and every answer of a study into one HTML page to look at."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis.data import MMLU, SPIDER, read_same
from common.files import UserError, atomic_write, read_json, read_jsonl
from common.job import job
from custom_metrics.judge import SEMANTICS
from present.answers import answers_page
from present.format import Say
from tasks.records import by_id

# Characters of one text; the run's files have it whole.
LONGEST_TEXT = 10_000


def answers(
    records: Mapping[str, Sequence[str | Path]],
    questions: str | Path,
    tables: str | Path,
    page: str | Path,
    settings: Mapping[str, Any],
) -> None:
    """Write `page`, equal bytes for equal inputs.

    Args:
        records: `spider` and `mmlu`, the records of each run, and `rows`, the first rows of its results.
        questions: the multiple-choice questions, JSON lines with id, question and choices.
        tables: Spider's tables.json.
        settings: `study`, the name in the title; `runs`, each a `model` and a `variant`, in the order of the records;
            `semantics`, the criterion that counts first; `language`; `known_defects` and `accept_defect`.

    Raises:
        UserError: the files are not about the same questions, or tables.json lacks a database.
    """
    runs = settings["runs"]
    found = [len(records[name]) for name in ("spider", "mmlu", "rows")]
    if found != [len(runs)] * 3:
        raise UserError(
            f"answers: found {found[0]}, {found[1]} and {found[2]} files, expected one of each of {len(runs)} runs."
        )
    spider, mmlu = read_same(records["spider"], SPIDER), read_same(records["mmlu"], MMLU)
    previews = [read_previews(path, spider[0]["id"]) for path in records["rows"]]
    texts = by_id(read_jsonl(questions), questions)
    if missing := [number for number in mmlu[0]["id"] if number not in texts]:
        raise UserError(f"{questions}: has no question {missing[0]}. Run `snakemake -R score_mmlu`.")
    say = Say(settings["language"])
    accepted = [say.word("answers.accepted", name=name) for name in settings["accept_defect"]]
    data = {
        "runs": describe_runs(runs),
        "headline": settings["semantics"],
        "criteria": SEMANTICS,
        "schemas": schemas(read_json(tables), spider[0]["db_id"].unique(), tables),
        "spider": [*map(spider_question, by_question(spider), zip(*previews, strict=True))],
        "mmlu": [mmlu_question(rows, texts[rows[0]["id"]]) for rows in by_question(mmlu)],
    }
    with atomic_write(page) as stream:
        stream.write(answers_page(say, settings["study"], [*settings["known_defects"], *accepted], data))


def by_question(frames: Sequence[pd.DataFrame]) -> Iterator[tuple[dict, ...]]:
    """Yield of each question the rows of all runs."""
    return zip(*(frame.to_dict("records") for frame in frames), strict=True)


def describe_runs(runs: Sequence[Mapping]) -> list[dict]:
    """Name the runs for the page, and say which run is the base of each."""
    bases = {run["model"]: place for place, run in enumerate(runs) if run["variant"] == "base"}
    several = len({run["model"] for run in runs}) > 1
    return [
        {
            "key": f"{run['model']}/{run['variant']}",
            "name": f"{run['model']} {run['variant']}" if several else run["variant"],
            "base": None if run["variant"] == "base" else bases.get(run["model"]),
            # A base model with other few-shot examples for text-to-SQL has no answers of its own to MMLU.
            "mmlu": not run["variant"].startswith("base@"),
        }
        for run in runs
    ]


def schemas(entries: Sequence[Mapping], db_ids: Sequence[str], source: str | Path) -> dict:
    """List the tables of each database: name, and columns as [name, type, whether in the key, foreign key or None].

    `entries` are those of the file `source`; a UserError if a database is not among them.
    """
    known = {entry["db_id"]: entry for entry in entries}
    if missing := [db_id for db_id in db_ids if db_id not in known]:
        raise UserError(f"{source}: no entry for database {missing[0]}. The Spider files do not belong together.")
    return {db_id: _tables(known[db_id]) for db_id in db_ids}


def _tables(entry: Mapping) -> list[dict]:
    names, columns = entry["table_names_original"], entry["column_names_original"]
    keys = {n for key in entry["primary_keys"] for n in (key if isinstance(key, list) else [key])}
    foreign = {a: f"{names[columns[b][0]]}.{columns[b][1]}" for a, b in entry["foreign_keys"]}
    inside: list[list] = [[] for _ in names]
    for n, (table, column) in enumerate(columns):
        if table >= 0:
            inside[table].append([column, entry["column_types"][n], n in keys, foreign.get(n)])
    found = [{"name": name, "columns": rows} for name, rows in zip(names, inside, strict=True)]
    return [table for table in found if not table["name"].startswith("sqlite_")]  # of SQLite's own


def read_previews(path: str | Path, ids: Sequence[str]) -> list[Mapping]:
    """Read, in the order of `ids`, what `score_spider` wrote beside its records.

    Raises:
        UserError: the file is not about exactly these questions.
    """
    found = by_id(read_jsonl(path), path, ids)
    if missing := [number for number in ids if number not in found]:
        raise UserError(f"{path}: lacks {len(missing)} questions, {missing[0]} among them. Run its rule again.")
    return [found[number] for number in ids]


def spider_question(records: Sequence[Mapping], previews: Sequence[Mapping]) -> dict:
    """Put a text-to-SQL question into the shape that the page reads, with the answers in the order of the runs.

    The rows of the gold query are merged over the runs: each run's file has the first, and those that its answer lacks.
    """
    first, gold = records[0], previews[0]["gold"]
    rows = {index: cells for preview in previews for index, cells in preview["gold"]["rows"]}
    return {
        **{key: first[key] for key in ("id", "hardness", "question", "gold")},
        **{"db": first["db_id"], "flags": first["flags"].split(), "count": int(first["gold_rows"])},
        **{"columns": gold["columns"], "width": gold["width"], "rows": sorted(rows.items())},
        "answers": [*map(spider_answer, records, previews)],
    }


def spider_answer(record: Mapping, preview: Mapping) -> dict:
    return {
        "answer": None if record["error_class"] == "missing" else cut(record["answer"]),
        "sql": None if record["sql"] == record["answer"] else cut(record["sql"]),
        "right": [record[name] for name in SEMANTICS],
        "raw": [record[f"{name}_raw"] for name in SEMANTICS],
        "class": record["error_class"],
        "message": cut(record["message"]),
        "count": None if pd.isna(record["predicted_rows"]) else int(record["predicted_rows"]),
        "predicted": preview["predicted"],
        "lacking": preview["gold"]["unmatched"],
    }


def mmlu_question(records: Sequence[Mapping], text: Mapping) -> dict:
    """Put a multiple-choice question into the shape that the page reads; `text` has its question and choices."""
    return {
        **{key: records[0][key] for key in ("id", "subject", "category", "answer")},
        **{key: text[key] for key in ("question", "choices")},
        "answers": [*map(mmlu_answer, records)],
    }


def mmlu_answer(record: Mapping) -> dict:
    logprobs = [record[f"logprob_{letter}"] for letter in "ABCD"]
    return {
        "letter": record["prediction"],
        # None, as JSON has no infinity; there is none at all for a question without an answer.
        "logprobs": [round(x, 4) if math.isfinite(x) else None for x in logprobs],
        "generated": cut(record["generated"]),
        "written": record["generated_letter"],
        "right": record["correct"],
        "rightWritten": record["correct_generated"],
    }


def cut(text: str) -> str | list:
    """Keep a text, or the beginning of a long one with its length."""
    return text if len(text) <= LONGEST_TEXT else [text[:LONGEST_TEXT], len(text)]


if __name__ == "__main__":
    with job(snakemake.log[0]):
        answers(
            {name: snakemake.input[name] for name in ("spider", "mmlu", "rows")},
            snakemake.input.questions,
            snakemake.input.tables,
            snakemake.output.page,
            snakemake.params.settings,
        )
