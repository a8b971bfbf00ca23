"""Render the MMLU prompts with a model's chat template, into the file that all variants read."""

from tqdm import tqdm

import _path  # noqa: F401
from common.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from common.job import job
from llm.chat import check_context, load_chat, token_counts
from tasks.prompts import mmlu_user


def render_mmlu(questions: str, record: str, prompts: str, report: str, system: str, max_new_tokens: int) -> None:
    """Render the prompts of an MMLU suite.

    Args:
        questions: JSON-lines file of `prepare_mmlu`, shots included.
        record: the model record.
        prompts, report: the files to write.
        system: system text.
        max_new_tokens: tokens that must fit behind each prompt.

    Raises:
        UserError: a prompt does not fit the model's context, or a template that cannot be used.
    """
    chat = load_chat(read_json(record))
    rendered = []
    for row in tqdm(read_jsonl(questions), desc="prompts of mmlu", mininterval=5):
        prompt = chat.prompt(system, mmlu_user(row["subject"], row["shots"], row["question"], row["choices"]))
        ids, _ = chat.encode(prompt)
        chat.check_bos(row["id"], ids)
        remedy = "Use fewer mmlu.shots or a smaller inference.mmlu_max_new_tokens, or a model with a longer context."
        check_context(chat, row["id"], len(ids), max_new_tokens, remedy)
        rendered.append({"id": row["id"], "prompt": prompt, "prompt_tokens": len(ids)})
    write_jsonl(prompts, rendered)
    write_json(
        report,
        {
            "count": len(rendered),
            "sha256": sha256_file(prompts),
            "prompt_tokens": token_counts([row["prompt_tokens"] for row in rendered]),
            "settings": {"system": system, "max_new_tokens": max_new_tokens},
            "template": chat.facts(),
            "first_prompt": rendered[0]["prompt"] if rendered else None,
        },
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        render_mmlu(
            questions=snakemake.input.questions,
            record=snakemake.input.record,
            prompts=snakemake.output.prompts,
            report=snakemake.output.report,
            **snakemake.params.settings,
        )
