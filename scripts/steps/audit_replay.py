"""Prove, before any training, that the loss of every row to replay covers its answer and nothing else."""

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json
from common.job import job, versions
from llm.chat import load_chat
from llm.labels import Limits, build_dataset, check_gold, check_labels, padding


def audit_replay(prompts: str, rows: str, record: str, report: str, max_length: int) -> None:
    """Check 100% of the rows to replay (of `prepare_replay`, rendered by `render_replay`), and write the report.

    Raises:
        UserError: the first row that fails, by its id, and what was found.
    """
    chat = load_chat(read_json(record))
    rendered = read_jsonl(prompts)
    answers = {row["id"]: row["answer"] if "answer" in row else row["completion"] for row in read_jsonl(rows)}
    unknown = [row["id"] for row in rendered if row["id"] not in answers]
    if unknown:
        raise UserError(f"{prompts}: row {unknown[0]} is not in {rows}. Run `snakemake -R render_replay`.")
    # Rows too long for the training have not been rendered.
    check_gold(chat, rendered, [{"id": row["id"], "query": answers[row["id"]]} for row in rendered])
    collator = padding(chat)
    summary = check_labels(chat, build_dataset(chat, rendered), collator, rendered, Limits(max_length))
    write_json(
        report,
        {
            **summary,
            "max_length": max_length,
            "collator": f"{type(collator).__module__}.{type(collator).__name__}",
            "sha256": {"prompts": sha256_file(prompts), "rows": sha256_file(rows)},
            "template": chat.facts(),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        audit_replay(
            prompts=snakemake.input.prompts,
            rows=snakemake.input.rows,
            record=snakemake.input.record,
            report=snakemake.output.report,
            **snakemake.params.settings,
        )
