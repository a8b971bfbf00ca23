"""Prove, before any training, that the loss sees the gold SQL of every row and that no row it must not see is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json
from common.job import job, versions
from llm.chat import load_chat
from llm.labels import Limits, build_dataset, check_gold, check_labels, check_target, padding


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
    rows, split, dev = (read_jsonl(files[name]) for name in ("prompts", "train", "dev"))
    if not rows:
        raise UserError(
            f"{files['prompts']}: found no training rows, expected at least 1. See spider.validation.fraction."
        )
    check_gold(chat, rows, split)
    check_disjoint(split, read_jsonl(files["shots"]), "few-shot examples", "Choose other spider.shots.")
    check_disjoint(split, dev, "dev questions", "The Spider files do not belong together.")
    collator = padding(chat)

    def check(rows: list[dict]) -> dict[str, Any]:
        check_target(rows, settings.get("train_target", "sql"))
        return check_labels(chat, build_dataset(chat, rows, limits.cut_at), collator, rows, limits)

    summary, held_out = check(rows), None
    failed = summary["failed"]
    if "validation" in files:
        held_out_rows, held_out_split = (read_jsonl(files[name]) for name in ("validation_prompts", "validation"))
        if not held_out_rows:
            raise UserError(
                f"{files['validation_prompts']}: found no validation rows, expected at least 1. See spider.validation."
            )
        check_gold(chat, held_out_rows, held_out_split)
        try:
            check_disjoint(held_out_split, dev, "dev questions", "Make the splits anew.", "validation")
        except UserError as error:
            limits.refuse("dev_used_to_choose", str(error))
            failed = [*failed, "dev_used_to_choose"]
        held_out = check(held_out_rows)
        failed = [*failed, *held_out["failed"]]
    write_json(
        report,
        {
            **summary,
            **limits.verdict(failed),
            "validation": held_out,
            "max_length": limits.max_length,
            "truncate": limits.truncate,
            "collator": f"{type(collator).__module__}.{type(collator).__name__}",
            "few_shot_rows_in_train": 0,
            "dev_rows_in_train": 0,
            "sha256": {name: sha256_file(path) for name, path in files.items() if name != "record"},
            "template": chat.facts(),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        # An input that a study does not use is an empty list.
        used = {name: file for name, file in snakemake.input.items() if file}
        audit_labels(used, snakemake.params.settings, snakemake.output.report)
