"""Render the rows to replay with a model's chat template: prompts as in the evaluation, and what is to be answered."""

from pathlib import Path

from tqdm import tqdm

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl
from common.job import job
from llm.chat import load_chat
from llm.prompts import prompt_row, write_prompts
from tasks.choice import user_turn

# MMLU's prompt names a subject; rows of auxiliary_train have none.
NO_SUBJECT = "general knowledge"


def render_replay(rows: str | Path, record: str | Path, prompts: str | Path, system: str, max_length: int) -> None:
    """Render the rows that fit the training, count those that do not, and write a report beside the prompts.

    A multiple-choice row is rendered like a question of the evaluation without few-shot examples, and completed by its
    letter; an instruction is the user's turn, without a system text.

    Args:
        rows: JSON lines of `prepare_replay`.
        record: the model record.
        system: the system text of multiple-choice prompts.
        max_length: training.max_length; a row of more tokens is left out.

    Raises:
        UserError: no row fits, or a template that cannot be used.
    """
    chat = load_chat(read_json(record))
    rendered, too_long = [], []
    for row in tqdm(read_jsonl(rows), desc="prompts to replay", mininterval=5):
        if "choices" in row:
            asked = (system, user_turn(row["subject"] or NO_SUBJECT, [], row["question"], row["choices"]))
            answer = row["answer"]
        else:
            asked, answer = ("", row["prompt"]), row["completion"]
        found = prompt_row(chat, {"id": row["id"]}, asked, answer)
        if found["prompt_tokens"] + found["completion_tokens"] > max_length:
            too_long.append(row["id"])
        else:
            rendered.append(found)
    if too_long:
        print(f"{len(too_long)} of {len(too_long) + len(rendered)} rows have more than {max_length} tokens: left out.")
    if not rendered:
        raise UserError(
            f"replay: all {len(too_long)} rows have more tokens than training.max_length = {max_length}. Set it "
            "higher, or use another replay.source."
        )
    report = {"too_long": too_long, "settings": {"system": system, "max_length": max_length}}
    write_prompts(prompts, rendered, chat, report, completed=True)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs = snakemake.input
        render_replay(inputs.rows, inputs.record, snakemake.output.prompts, **snakemake.params.settings)
