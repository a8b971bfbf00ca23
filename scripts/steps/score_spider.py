"""Score a model's answers to Spider questions by running them: one record a question, and the first rows beside it."""

import json
from collections.abc import Iterable
from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json, read_jsonl, sha256_file
from common.job import job
from custom_metrics.judge import SEMANTICS, GoldError, Judge
from tasks.records import SPIDER_COLUMNS, by_id, write_records

REFETCH = "Run `snakemake -R fetch_spider` to fetch it again."


def score_spider(
    answers: str | Path,
    questions: str | Path,
    prompts: str | Path,
    manifest: str | Path,
    records: str | Path,
    rows: str | Path,
    timeout_s: float,
    jobs: int = 1,
) -> None:
    """Write one record for each prompt, in the order of the prompts.

    A column named like a semantics of `custom_metrics.judge` is about the SQL taken out of the answer, with `_raw`
    about the answer as it is; error class, row counts and message are about the SQL. A prompt without an answer is a 0
    with error_class `missing`, so the denominator is always the number of prompts.

    Args:
        answers: JSON lines with id and answer.
        questions: JSON lines with id, db_id, question, query and hardness, a superset of the prompts.
        prompts: JSON lines with id.
        manifest: of the data; the databases stand beside it as database/<db_id>/<db_id>.sqlite.
        records: CSV to write; see `tasks.records`.
        rows: JSON lines to write: id, and as `gold` and `predicted` the first rows of both results
            (`custom_metrics.preview.preview`), `predicted` null if the query did not run.
        timeout_s: seconds a query may take.
        jobs: processes to run queries in; the records do not depend on it.

    Raises:
        UserError: a database is missing or changed, a gold query does not run, ids are unknown or come twice.
    """
    known = by_id(read_jsonl(questions), questions)
    asked = by_id(read_jsonl(prompts), prompts, known)
    given = by_id(read_jsonl(answers), answers, asked)
    databases = find_databases(manifest, (known[i]["db_id"] for i in asked))

    items = [(databases[known[i]["db_id"]], known[i]["query"], given[i]["answer"] if i in given else "") for i in asked]
    try:
        with Judge(timeout_s, jobs, previews=True) as judge:
            verdicts = judge.judge_all(items, progress=True)
    except GoldError as error:
        raise UserError(
            f"{questions}, {list(asked)[error.index]}: {error}. If it is a timeout, raise scoring.timeout_s; otherwise "
            "the data are at fault: put its database into spider.exclude_databases."
        ) from None

    found = []
    for number, (_, _, answer), verdict in zip(asked, items, verdicts, strict=True):
        question = known[number]
        answered = number in given
        row = {
            "id": number,
            "db_id": question["db_id"],
            "hardness": question["hardness"],
            "question": question["question"],
            "gold": question["query"],
            "answer": answer,
            "sql": verdict.sql,
            "error_class": verdict.error_class if answered else "missing",
            "gold_rows": verdict.gold_rows,
            "predicted_rows": verdict.predicted_rows,
            "flags": " ".join(verdict.flags),
            "message": verdict.message if answered else "no answer to this question",
        }
        row |= {name: int(verdict.correct[name]) for name in SEMANTICS}
        row |= {f"{name}_raw": int(verdict.correct_raw[name]) for name in SEMANTICS}
        found.append(row)
    with atomic_write(rows) as stream:
        for number, verdict in zip(asked, verdicts, strict=True):
            # ASCII, as a value that is no UTF-8 has lone surrogates.
            stream.write(json.dumps({"id": number} | verdict.previews, separators=(",", ":")) + "\n")
    write_records(records, SPIDER_COLUMNS, found)


def find_databases(manifest: str | Path, db_ids: Iterable[str]) -> dict[str, Path]:
    """Return the files of the databases, after checking that they are those of the manifest, byte for byte.

    Raises:
        UserError: one is not in the manifest, missing, or changed.
    """
    files = read_json(manifest)["files"]
    found = {}
    for db_id in sorted(set(db_ids)):
        name = f"database/{db_id}/{db_id}.sqlite"
        path = Path(manifest).parent / name
        if name not in files:
            raise UserError(f"{manifest}, files: has no {name}. {REFETCH}")
        if not path.is_file():
            raise UserError(f"{path}: no such database. {REFETCH}")
        if (actual := sha256_file(path)) != files[name]["sha256"]:
            raise UserError(f"{path}: found sha256 {actual}, expected {files[name]['sha256']}. {REFETCH}")
        found[db_id] = path
    return found


if __name__ == "__main__":
    with job(snakemake.log[0]):
        score_spider(
            answers=snakemake.input.answers,
            questions=snakemake.input.questions,
            prompts=snakemake.input.prompts,
            manifest=snakemake.input.manifest,
            records=snakemake.output.records,
            rows=snakemake.output.rows,
            jobs=snakemake.threads,
            **snakemake.params.settings,
        )
