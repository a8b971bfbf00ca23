"""Render the MMLU prompts with a model's chat template, into the file that all runs read."""

from pathlib import Path

from tqdm import tqdm

import _path  # noqa: F401
from common.files import read_json, read_jsonl
from common.job import job
from llm.chat import check_context, load_chat
from llm.prompts import prompt_row, write_prompts
from tasks.choice import user_turn


def render_mmlu(
    questions: str | Path, record: str | Path, prompts: str | Path, system: str, max_new_tokens: int
) -> None:
    """Render the questions of `prepare_mmlu` for the model of `record`, and write their report beside them.

    Raises:
        UserError: a prompt and `max_new_tokens` behind it do not fit the context, or a template that cannot be used.
    """
    chat = load_chat(read_json(record))
    remedy = "Use fewer mmlu.shots or a smaller inference.mmlu_max_new_tokens, or a model with a longer context."
    rendered = []
    for row in tqdm(read_jsonl(questions), desc="prompts of mmlu", mininterval=5):
        user = user_turn(row["subject"], row["shots"], row["question"], row["choices"])
        rendered.append(prompt_row(chat, {"id": row["id"]}, (system, user)))
        check_context(chat, row["id"], rendered[-1]["prompt_tokens"], max_new_tokens, remedy)
    write_prompts(prompts, rendered, chat, {"settings": {"system": system, "max_new_tokens": max_new_tokens}})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs = snakemake.input
        render_mmlu(inputs.questions, inputs.record, snakemake.output.prompts, **snakemake.params.settings)
