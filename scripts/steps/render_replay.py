"""Render the rows to replay with a model's chat template: prompts as in the evaluation, and what is to be answered."""

from tqdm import tqdm

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from common.job import job
from llm.chat import load_chat, token_counts
from tasks.prompts import mmlu_user

# MMLU's prompt names a subject; rows of auxiliary_train have none.
NO_SUBJECT = "general knowledge"


def render_replay(rows: str, record: str, prompts: str, report: str, system: str, max_length: int) -> None:
    """Render the rows that fit the training, and count those that do not.

    A multiple-choice row is rendered like a question of the evaluation without solved examples, and completed by its
    letter; an instruction is the user's turn, without a system text.

    Args:
        rows: JSON lines of `prepare_replay`.
        record: the model record.
        prompts, report: the files to write.
        system: the system text of multiple-choice prompts.
        max_length: training.max_length; a row of more tokens is left out.

    Raises:
        UserError: no row fits, or a template that cannot be used.
    """
    chat = load_chat(read_json(record))
    rendered, too_long = [], []
    for row in tqdm(read_jsonl(rows), desc="prompts to replay", mininterval=5):
        if "choices" in row:
            asked = (system, mmlu_user(row["subject"] or NO_SUBJECT, [], row["question"], row["choices"]))
            answer = row["answer"]
        else:
            asked, answer = ("", row["prompt"]), row["completion"]
        prompt, completion = chat.prompt(*asked), chat.completion(*asked, answer)
        prompt_ids, completion_ids = chat.encode(prompt, completion)
        chat.check_bos(row["id"], prompt_ids)
        if len(prompt_ids) + len(completion_ids) > max_length:
            too_long.append(row["id"])
            continue
        rendered.append(
            {
                "id": row["id"],
                "prompt": prompt,
                "completion": completion,
                "prompt_tokens": len(prompt_ids),
                "completion_tokens": len(completion_ids),
            }
        )
    if too_long:
        print(f"{len(too_long)} of {len(too_long) + len(rendered)} rows have more than {max_length} tokens: left out.")
    if not rendered:
        raise UserError(
            f"replay: all {len(too_long)} rows have more tokens than training.max_length = {max_length}. Set it "
            "higher, or use another replay.source."
        )
    write_jsonl(prompts, rendered)
    write_json(
        report,
        {
            "count": len(rendered),
            "too_long": too_long,
            "sha256": sha256_file(prompts),
            "prompt_tokens": token_counts([row["prompt_tokens"] for row in rendered]),
            "completion_tokens": token_counts([row["completion_tokens"] for row in rendered]),
            "settings": {"system": system, "max_length": max_length},
            "template": chat.facts(),
            "first_prompt": rendered[0]["prompt"],
            "first_completion": rendered[0]["completion"],
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        render_replay(
            rows=snakemake.input.rows,
            record=snakemake.input.record,
            prompts=snakemake.output.prompts,
            report=snakemake.output.report,
            **snakemake.params.settings,
        )
