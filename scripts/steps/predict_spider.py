"""Let the base model, or one adapter on it, write the SQL of every dev question."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import _path  # noqa: F401
from common.gpus import take
from common.job import job
from llm.answering import Read, decode_new, predict
from llm.chat import Chat


def read(chat: Chat, first: torch.Tensor | None, new: list[list[int]]) -> list[dict[str, Any]]:
    """Return answer, number of new tokens (the stop token counted) and whether it is finished, for each prompt."""
    decoded = [decode_new(chat, ids) for ids in new]
    return [{"answer": text, "tokens": tokens, "finished": finished} for text, tokens, finished in decoded]


def prepare(chat: Chat) -> tuple[Read, dict[str, Any]]:
    """Return what reads answers off, and no facts."""
    return read, {}


def predict_spider(
    prompts: str,
    record: str,
    adapter_dir: str | Path | None,
    answers: str,
    report: str,
    precision: str,
    batch_size: int | str,
    max_new_tokens: int,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 42,
    merge_adapters: bool = False,
    strength: float = 1.0,
    cards: Sequence[str] = (),
) -> None:
    """Answer the dev prompts; arguments and errors as `llm.answering.predict`."""
    predict(
        prompts,
        record,
        adapter_dir,
        answers,
        report,
        precision,
        batch_size,
        max_new_tokens,
        "predict_spider",
        False,
        do_sample,
        temperature,
        top_p,
        seed,
        merge_adapters,
        strength,
        cards,
    )


if __name__ == "__main__":
    with job(snakemake.log[0], lock=f"{snakemake.output.answers}.lock"):
        cards = take(snakemake.resources.gpu)
        torch.set_num_threads(snakemake.threads)
        adapter = snakemake.input.get("adapter")
        predict_spider(
            prompts=snakemake.input.prompts,
            record=snakemake.input.record,
            adapter_dir=Path(adapter[0]).parent if adapter else None,
            answers=snakemake.output.answers,
            report=snakemake.output.report,
            cards=cards,
            **snakemake.params.settings,
        )
