"""Prove, before any training, that the loss sees the gold SQL of every row and that no row it must not see is there."""

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from _chat import load_chat
from _files import UserError, read_json, read_jsonl, sha256_file, write_json
from _job import job, versions
from _labels import build_dataset, check_gold, check_labels


def check_disjoint(rows: list[dict], others: list[dict], what: str, remedy: str) -> None:
    """Raise a UserError if a training row has the id, or the database and question, of one of `others`."""
    ids = {other["id"] for other in others}
    asked = {(other["db_id"], other["question"].strip()): other["id"] for other in others}
    for row in rows:
        if row["id"] in ids:
            raise UserError(f"training row {row['id']}: found among the {what}, expected in one only. {remedy}")
        twin = asked.get((row["db_id"], row["question"].strip()))
        if twin is not None:
            raise UserError(
                f"training row {row['id']}: asks the question of {twin}, one of the {what}, of the same database. "
                f"{remedy}"
            )


def audit_labels(
    prompts: str, train: str, shots: str, dev: str, record: str, report: str, max_length: int | None
) -> None:
    """Check 100% of the training rows and write the report; there is no report without a pass.

    Args:
        prompts: rendered training prompts.
        train, shots, dev: JSON-lines files of `prepare_spider`.
        record: the model record.
        report: the file to write.
        max_length: training.max_length.

    Raises:
        UserError: the first row that fails, by its id, and what was found.
    """
    chat = load_chat(read_json(record))
    rows = read_jsonl(prompts)
    if not rows:
        raise UserError(f"{prompts}: found no training rows, expected at least 1. See spider.validation.fraction.")
    split = read_jsonl(train)
    check_gold(chat, rows, split)
    check_disjoint(split, read_jsonl(shots), "few-shot examples", "Choose other spider.shots.")
    check_disjoint(split, read_jsonl(dev), "dev questions", "The Spider files do not belong together.")
    collator = DataCollatorForLanguageModeling(pad_token_id=chat.tokenizer.pad_token_id)
    summary = check_labels(chat, build_dataset(chat, rows), collator, rows, max_length)
    write_json(
        report,
        {
            **summary,
            "max_length": max_length,
            "collator": f"{type(collator).__module__}.{type(collator).__name__}",
            "few_shot_rows_in_train": 0,
            "dev_rows_in_train": 0,
            "sha256": {
                "prompts": sha256_file(prompts),
                "train": sha256_file(train),
                "shots": sha256_file(shots),
                "dev": sha256_file(dev),
            },
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
            **snakemake.params.settings,
        )
