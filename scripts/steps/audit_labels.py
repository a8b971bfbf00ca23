"""Prove, before any training, that the loss sees the gold SQL of every row and that no row it must not see is there."""

from collections.abc import Sequence
from typing import Any

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json
from common.job import job, versions
from llm.chat import load_chat
from llm.labels import build_dataset, check_accepted, check_gold, check_labels, check_target, refuse, verdict


def check_disjoint(rows: list[dict], others: list[dict], what: str, remedy: str, kind: str = "training") -> None:
    """Raise a UserError if a row has the id, or the database and question, of one of `others`."""
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


def audit_labels(
    prompts: str,
    train: str,
    shots: str,
    dev: str,
    record: str,
    report: str,
    max_length: int | None,
    truncate: bool = False,
    train_target: str = "sql",
    accept_defect: Sequence[str] = (),
    validation: str | None = None,
    validation_prompts: str | None = None,
) -> None:
    """Check 100% of the training rows, and of the validation rows if they are used, and write the report.

    There is no report without a pass, unless the study names each defect that was found in accept_defect: the report
    then says which failed.

    Args:
        prompts: rendered training prompts.
        train, shots, dev: JSON-lines files of `prepare_spider`.
        record: the model record.
        report: the file to write.
        max_length: training.max_length.
        truncate: training.truncate: longer rows are cut.
        train_target: prompt.train_target: sql, or prompt where completions are meant to be empty.
        accept_defect: defects (`llm.labels.DEFECTS`) with which to go on.
        validation, validation_prompts: validation rows of `prepare_spider` and their rendered prompts; None if training
            does not look at them.

    Raises:
        UserError: the first row that fails, by its id, and what was found.
    """
    check_accepted(accept_defect)
    chat = load_chat(read_json(record))
    rows = read_jsonl(prompts)
    if not rows:
        raise UserError(f"{prompts}: found no training rows, expected at least 1. See spider.validation.fraction.")
    split = read_jsonl(train)
    check_gold(chat, rows, split)
    check_disjoint(split, read_jsonl(shots), "few-shot examples", "Choose other spider.shots.")
    check_disjoint(split, read_jsonl(dev), "dev questions", "The Spider files do not belong together.")
    collator = DataCollatorForLanguageModeling(pad_token_id=chat.tokenizer.pad_token_id)
    cut_at = max_length if truncate else None

    def check(rows: list[dict]) -> dict[str, Any]:
        check_target(rows, train_target)
        return check_labels(
            chat, build_dataset(chat, rows, cut_at), collator, rows, max_length, truncate, accept_defect
        )

    summary, held_out = check(rows), None
    failed = summary["failed"]
    hashes = {"prompts": prompts, "train": train, "shots": shots, "dev": dev}
    if validation:
        hashes |= {"validation": validation, "validation_prompts": validation_prompts}
        held_out_rows, held_out_split = read_jsonl(validation_prompts), read_jsonl(validation)
        if not held_out_rows:
            raise UserError(
                f"{validation_prompts}: found no validation rows, expected at least 1. See spider.validation."
            )
        check_gold(chat, held_out_rows, held_out_split)
        try:
            check_disjoint(held_out_split, read_jsonl(dev), "dev questions", "Make the splits anew.", "validation")
        except UserError as error:
            refuse("dev_used_to_choose", str(error), accept_defect)
            failed = [*failed, "dev_used_to_choose"]
        held_out = check(held_out_rows)
        failed = [*failed, *held_out["failed"]]
    write_json(
        report,
        {
            **summary,
            **verdict(failed, accept_defect),
            "validation": held_out,
            "max_length": max_length,
            "truncate": truncate,
            "collator": f"{type(collator).__module__}.{type(collator).__name__}",
            "few_shot_rows_in_train": 0,
            "dev_rows_in_train": 0,
            "sha256": {name: sha256_file(path) for name, path in hashes.items()},
            "template": chat.facts(),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        audit_labels(
            prompts=snakemake.input.prompts,
            train=snakemake.input.train,
            shots=snakemake.input.shots,
            dev=snakemake.input.dev,
            record=snakemake.input.record,
            report=snakemake.output.report,
            # An input that a study does not use is an empty list.
            validation=snakemake.input.get("validation") or None,
            validation_prompts=snakemake.input.get("validation_prompts") or None,
            **snakemake.params.settings,
        )
