"""Prove, before any training, that the loss sees the target of every row and that no row it must not see is there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl
from common.job import job
from llm.chat import load_chat
from llm.labels import Limits, audit, check_learnt, write_audit
from tasks.base import PER_QUESTION, marked
from tasks.registry import KINDS


def check_disjoint(rows: Sequence[Mapping], others: Sequence[Mapping], cluster: str, what: str, remedy: str) -> None:
    """Refuse a row that has the id, or the question and database or subject (`cluster`), of one of `others`."""
    ids = {other["id"] for other in others}
    asked = {(other.get(cluster), other["question"].strip()): other["id"] for other in others}
    for row in rows:
        if row["id"] in ids:
            raise UserError(f"row {row['id']}: found among the {what}, expected in one only. {remedy}")
        twin = asked.get((row.get(cluster), row["question"].strip()))
        if twin is not None:
            raise UserError(
                f"row {row['id']}: asks the question of {twin}, one of the {what}, of the same {cluster}. {remedy}"
            )


def check_shown(prompts: Sequence[Mapping], rows: Sequence[Mapping], shots: Sequence[Mapping]) -> int:
    """Refuse a row whose few-shot examples, drawn for it, are of its database; how many rows are examples of others."""
    of, own = {shot["id"]: shot["db_id"] for shot in shots}, {row["id"]: row["db_id"] for row in rows}
    for row in prompts:
        for shot in row["shots"]:
            if of.get(shot, own[row["id"]]) == own[row["id"]]:
                raise UserError(
                    f"row {row['id']}: shows {shot}, expected a training row of another database. Run the task's rule "
                    "render again: snakemake -R render_<task>."
                )
    return len({shot for row in prompts for shot in row["shots"]} & own.keys())


def audit_labels(files: Mapping[str, str | Path], settings: Mapping[str, Any], report: str | Path) -> None:
    """Check 100% of the rows to train on, and of the validation rows if they are used, and write the report.

    There is none without a pass, unless the study's accept_defect names each defect found: it then says which failed.

    Args:
        files: prompts (rendered) and rows (of `prepare`) to train on; manifest, of `fetch_data`; record, of the model;
            shots, if there is a list of few-shot examples; validation and validation_prompts, if training looks at
            them.
        settings: kind, name and role of the task; max_length; of a target also cluster (the column of `Measure`),
            shots (how many of the list are set aside), shots_from (per_question: none is), truncate (longer rows are
            cut), loss_on (what is learnt of a row) and accept_defect (`llm.labels.DEFECTS` with which to go on). Rows
            to replay are of another benchmark, and held apart from the yardsticks when they are drawn; of them the
            answer alone is learnt.
        report: the file to write.

    Raises:
        UserError: the first row that fails, by its id, and what was found.
    """
    task, name, is_target = KINDS[settings["kind"]], settings["name"], settings["role"] == "target"
    loss_on = settings.get("loss_on", "completion")
    limits = Limits(settings["max_length"], settings.get("truncate", False), settings.get("accept_defect", ()))
    chat = load_chat(read_json(files["record"]))

    def check(prompts: str, rows: list[dict], remedy: str) -> dict[str, Any]:
        rendered = read_jsonl(files[prompts])
        if not rendered:
            raise UserError(f"{files[prompts]}: found no rows, expected at least 1. {remedy}")
        check_learnt(rendered, loss_on)
        targets = {row["id"]: marked(settings, task.target(row)) for row in rows}
        if not is_target:  # those too long for the training have not been rendered
            kept = {row["id"] for row in rendered}
            targets = {row: target for row, target in targets.items() if row in kept}
        return audit(chat, rendered, targets, limits)

    rows, found, drawn = read_jsonl(files["rows"]), {}, settings.get("shots_from") == PER_QUESTION
    if is_target:
        asked, cluster = task.held_out(Path(files["manifest"]).parent), settings["cluster"]
        if "shots" in files and not drawn:
            shots = read_jsonl(files["shots"])[: settings["shots"]]
            check_disjoint(rows, shots, cluster, "few-shot examples", f"Choose other {name}.shots.")
        check_disjoint(rows, asked, cluster, "questions to ask", "The files of the data do not belong together.")
        shown = check_shown(read_jsonl(files["prompts"]), rows, read_jsonl(files["shots"])) if drawn else 0
        found = {"few_shot_rows_in_train": shown, "test_rows_in_train": 0, "validation": None}
    summary = check("prompts", rows, f"See {name}.")
    failed = summary["failed"]
    if "validation" in files:
        held_out = read_jsonl(files["validation"])
        if drawn:
            check_shown(read_jsonl(files["validation_prompts"]), held_out, read_jsonl(files["shots"]))
        try:
            check_disjoint(held_out, asked, cluster, "questions to ask", "Make the parts anew.")
        except UserError as error:
            limits.refuse("dev_used_to_choose", f"validation, {error}")
            failed = [*failed, "dev_used_to_choose"]
        found["validation"] = check("validation_prompts", held_out, f"See {name}.validation.")
        failed = [*failed, *found["validation"]["failed"]]
    found |= {**limits.verdict(failed), "truncate": limits.truncate, "loss_on": loss_on}
    write_audit(report, chat, limits, summary | found, {name: files[name] for name in files if name != "record"})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        # An input that a study does not use is an empty list.
        used = {name: file for name, file in snakemake.input.items() if file}
        audit_labels(used, snakemake.params.unwatched, snakemake.output.report)
