"""Prove, before any training, that the loss of every row to replay covers its answer and nothing else."""

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl
from common.job import job
from llm.chat import load_chat
from llm.labels import Limits, audit, write_audit


def audit_replay(prompts: str, rows: str, record: str, report: str, max_length: int) -> None:
    """Check 100% of the rows to replay (of `prepare_replay`, rendered by `render_replay`), and write the report.

    Raises:
        UserError: the first row that fails, by its id, and what was found.
    """
    chat, rendered = load_chat(read_json(record)), read_jsonl(prompts)
    answers = {row["id"]: row["answer"] if "answer" in row else row["completion"] for row in read_jsonl(rows)}
    unknown = [row["id"] for row in rendered if row["id"] not in answers]
    if unknown:
        raise UserError(f"{prompts}: row {unknown[0]} is not in {rows}. Run `snakemake -R render_replay`.")
    # Rows too long for the training have not been rendered.
    split = [{"id": row["id"], "query": answers[row["id"]]} for row in rendered]
    limits = Limits(max_length)
    write_audit(report, chat, limits, audit(chat, rendered, split, limits), {"prompts": prompts, "rows": rows})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = [snakemake.input[name] for name in ("prompts", "rows", "record")]
        audit_replay(*files, snakemake.output.report, **snakemake.params.settings)
