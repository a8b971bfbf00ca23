"""Prove, before any training, that the loss sees the gold SQL of every row and that no row it must not see is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl
from common.job import job
from llm.chat import load_chat
from llm.labels import Limits, audit, check_target, write_audit


def check_disjoint(rows: list[dict], others: list[dict], what: str, remedy: str, kind: str = "training") -> None:
    """Refuse a row that has the id, or the database and question, of one of `others`."""
    ids = {other["id"] for other in others}
    asked = {(other["db_id"], other["question"].strip()): other["id"] for other in others}
    for row in rows:
        if row["id"] in ids:
            raise UserError(f"{kind} row {row['id']}: found among the {what}, expected in one only. {remedy}")
        twin = asked.get((row["db_id"], row["question"].strip()))
        if twin is not None:
            raise UserError(
                f"{kind} row {row['id']}: asks the question of {twin}, one of the {what}, of the same database. "
                f"{remedy}"
            )


def audit_labels(files: Mapping[str, str | Path], settings: Mapping[str, Any], report: str | Path) -> None:
    """Check 100% of the training rows, and of the validation rows if they are used, and write the report.

    There is no report without a pass, unless the study names each defect that was found in accept_defect: the report
    then says which failed.

    Args:
        files: prompts (rendered training prompts); train, shots and dev (of `prepare_spider`); record (of the model);
            validation and validation_prompts, if training looks at them.
        settings: max_length, and optionally truncate (longer rows are cut), train_target (sql, or prompt where
            completions are meant to be empty) and accept_defect (`llm.labels.DEFECTS` with which to go on).
        report: the file to write.

    Raises:
        UserError: the first row that fails, by its id, and what was found.
    """
    limits = Limits(settings["max_length"], settings.get("truncate", False), settings.get("accept_defect", ()))
    chat = load_chat(read_json(files["record"]))
    split, dev = read_jsonl(files["train"]), read_jsonl(files["dev"])

    def check(kind: str, prompts: str, split: list[dict], remedy: str) -> dict[str, Any]:
        rows = read_jsonl(files[prompts])
        if not rows:
            raise UserError(f"{files[prompts]}: found no {kind} rows, expected at least 1. {remedy}")
        check_target(rows, settings.get("train_target", "sql"))
        return audit(chat, rows, split, limits)

    check_disjoint(split, read_jsonl(files["shots"]), "few-shot examples", "Choose other spider.shots.")
    check_disjoint(split, dev, "dev questions", "The Spider files do not belong together.")
    summary, held_out = check("training", "prompts", split, "See spider.validation.fraction."), None
    failed = summary["failed"]
    if "validation" in files:
        held_out_split = read_jsonl(files["validation"])
        try:
            check_disjoint(held_out_split, dev, "dev questions", "Make the splits anew.", "validation")
        except UserError as error:
            limits.refuse("dev_used_to_choose", str(error))
            failed = [*failed, "dev_used_to_choose"]
        held_out = check("validation", "validation_prompts", held_out_split, "See spider.validation.")
        failed = [*failed, *held_out["failed"]]
    found = {
        **limits.verdict(failed),
        "validation": held_out,
        "truncate": limits.truncate,
        "few_shot_rows_in_train": 0,
        "dev_rows_in_train": 0,
    }
    write_audit(report, chat, limits, summary | found, {name: files[name] for name in files if name != "record"})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        # An input that a study does not use is an empty list.
        used = {name: file for name, file in snakemake.input.items() if file}
        audit_labels(used, snakemake.params.settings, snakemake.output.report)
