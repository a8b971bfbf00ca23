"""Score a model's answers to Spider questions by running them: one record a question, and the first rows beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_jsonl
from common.job import job
from custom_metrics.judge import GoldError
from tasks.records import SPIDER_COLUMNS, by_id, write_records
from tasks.text_to_sql import score


def score_spider(
    inputs: Mapping[str, str | Path], outputs: Mapping[str, str | Path], timeout_s: float, jobs: int = 1
) -> None:
    """Write one record for each prompt, in the order of the prompts; see `tasks.text_to_sql.score`.

    Args:
        inputs: `answers`, JSON lines with id and answer; `questions`, JSON lines with id, db_id, question, query and
            hardness, a superset of the prompts; `prompts`, JSON lines with id; `manifest` of the data.
        outputs: `records`, a CSV file (see `tasks.records`); `rows`, JSON lines with id, and the first rows of both
            results as `gold` and `predicted` (`custom_metrics.preview.preview`; null if the query did not run).
        timeout_s: seconds a query may take.
        jobs: processes to run queries in; the records do not depend on it.

    Raises:
        UserError: a database is missing or changed, a gold query does not run, ids are unknown or come twice.
    """
    questions = inputs["questions"]
    known = by_id(read_jsonl(questions), questions)
    prompts = by_id(read_jsonl(inputs["prompts"]), inputs["prompts"], known)
    given = by_id(read_jsonl(inputs["answers"]), inputs["answers"], prompts)
    asked = [(known[name], given[name]["answer"] if name in given else None) for name in prompts]
    try:
        scored = list(score(Path(inputs["manifest"]).parent, asked, timeout_s, jobs))
    except GoldError as error:
        raise UserError(
            f"{questions}, {list(prompts)[error.index]}: {error}. If it is a timeout, raise scoring.timeout_s; "
            "otherwise the data are at fault: put its database into spider.exclude_databases."
        ) from None
    with atomic_write(outputs["rows"]) as stream:
        for _, previews in scored:
            # ASCII, as a value that is no UTF-8 has lone surrogates.
            stream.write(json.dumps(previews, separators=(",", ":")) + "\n")
    write_records(outputs["records"], SPIDER_COLUMNS, (record for record, _ in scored))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        score_spider(snakemake.input, snakemake.output, jobs=snakemake.threads, **snakemake.params.settings)
