"""Ask the base model, or one adapter on it, every multiple-choice question: by the letters' logits and in words."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import _path  # noqa: F401
from common.files import UserError
from common.gpus import take
from common.job import job
from llm.answering import Read, decode_new, predict
from llm.chat import Chat
from tasks.choice import LETTERS


def letter_tokens(chat: Chat) -> dict[str, list[int]]:
    """Return the ids that stand for each letter: "A" alone and with the space before it, where each is one token.

    Tokenisers differ: byte-level BPE has "A" and "ĠA", SentencePiece "A" and "▁A". Only the forms that all four letters
    have are taken, so that none is favoured.

    Raises:
        UserError: neither form is a single token.
    """
    vocabulary = chat.tokenizer.get_vocab()
    forms = []
    for write in ("{}", "Ġ{}", "▁{}"):
        ids = [vocabulary.get(write.format(letter)) for letter in LETTERS]
        if None not in ids:
            forms.append(ids)
    for text in ("{}", " {}"):
        ids = [chat.tokenizer.encode(text.format(letter), add_special_tokens=False) for letter in LETTERS]
        if all(len(one) == 1 for one in ids):
            forms.append([one[0] for one in ids])
    if not forms:
        raise UserError(f"{chat.source}: its tokenizer has no single token for the letters A, B, C and D.")
    return {letter: sorted({form[i] for form in forms}) for i, letter in enumerate(LETTERS)}


def read(letters: dict[str, list[int]], chat: Chat, first: torch.Tensor, new: list[list[int]]) -> list[dict[str, Any]]:
    """Return for each prompt the letters' log probabilities, the likeliest letter, and what the model writes.

    The log probabilities are those of the first answer position over the whole vocabulary, before any generation
    setting, summed over a letter's tokens. `first` is (prompts, vocabulary).
    """
    first = first.log_softmax(dim=-1)
    scores = torch.stack([first[:, ids].logsumexp(dim=-1) for ids in letters.values()], dim=-1).tolist()
    return [
        {
            "logprobs": dict(zip(letters, row, strict=True)),
            "prediction": max(zip(row, letters, strict=True), key=lambda pair: pair[0])[1],
            "generated": decode_new(chat, ids)[0],
        }
        for row, ids in zip(scores, new, strict=True)
    ]


def prepare(chat: Chat) -> tuple[Read, dict[str, Any]]:
    """Return what reads answers off, and the tokens taken for the letters."""
    letters = letter_tokens(chat)
    facts = {letter: chat.tokenizer.convert_ids_to_tokens(ids) for letter, ids in letters.items()}
    return partial(read, letters), {"letter_tokens": facts}


def predict_mmlu(
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
    """Answer the MMLU prompts; arguments and errors as `llm.answering.predict`.

    Drawing at random changes what the model writes, not the letters' log probabilities.
    """
    predict(
        prompts,
        record,
        adapter_dir,
        answers,
        report,
        precision,
        batch_size,
        max_new_tokens,
        "predict_mmlu",
        True,
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
        predict_mmlu(
            prompts=snakemake.input.prompts,
            record=snakemake.input.record,
            adapter_dir=Path(adapter[0]).parent if adapter else None,
            answers=snakemake.output.answers,
            report=snakemake.output.report,
            cards=cards,
            **snakemake.params.settings,
        )
