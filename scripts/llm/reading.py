"""What a model has answered: the text, and for a multiple-choice question the probability of each option."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from common.files import UserError
from llm.chat import Chat


def decode_new(chat: Chat, new: list[int]) -> tuple[str, int, bool]:
    """Decode new tokens up to the first stop token: the text, how many tokens these are, and whether a stop came."""
    stops = [position for position, token_id in enumerate(new) if token_id in chat.stop_ids]
    if stops:
        new = new[: stops[0] + 1]
    # Cleaning up would join "a , b" and " 's": what a model wrote in a string literal must stay.
    text = chat.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text, len(new), bool(stops)


def option_tokens(chat: Chat, options: Sequence[str]) -> dict[str, list[int]]:
    """Find the ids that stand for each option: "A" alone and with the space before it, where each is one token.

    Tokenisers differ: byte-level BPE has "A" and "ĠA", SentencePiece "A" and "▁A". Only the forms that all options have
    are taken, so that none is favoured.

    Raises:
        UserError: neither form is a single token.
    """
    if not options:
        return {}
    vocabulary = chat.tokenizer.get_vocab()
    forms = []
    for before in ("", "Ġ", "▁"):
        ids = [vocabulary.get(before + option) for option in options]
        if None not in ids:
            forms.append(ids)
    for before in ("", " "):
        encoded = [chat.tokenizer.encode(before + option, add_special_tokens=False) for option in options]
        if all(len(ids) == 1 for ids in encoded):
            forms.append([ids[0] for ids in encoded])
    if not forms:
        named = f"{', '.join(options[:-1])} and {options[-1]}"
        raise UserError(f"{chat.source}: its tokenizer has no single token for the letters {named}.")
    return {option: sorted({form[i] for form in forms}) for i, option in enumerate(options)}


def read_answers(
    chat: Chat, tokens: Mapping[str, list[int]], first: torch.Tensor, new: Sequence[list[int]]
) -> list[dict[str, Any]]:
    """Read the answers to a batch of prompts.

    Log probabilities are those of the first answer position over the whole vocabulary, before any generation setting,
    summed over an option's tokens.

    Args:
        tokens: of each option (`option_tokens`); empty for free text.
        first, new: logits of each prompt's first new token, (prompts, vocabulary), and all of its new tokens.

    Returns:
        For each prompt: `answer`, `tokens` (the stop token counted) and `finished`; with options: `logprobs`,
        `prediction` (the likeliest option) and `generated` (the text).
    """
    if not tokens:
        return [dict(zip(("answer", "tokens", "finished"), decode_new(chat, ids), strict=True)) for ids in new]
    first = first.log_softmax(dim=-1)
    scores = torch.stack([first[:, ids].logsumexp(dim=-1) for ids in tokens.values()], dim=-1).tolist()
    return [
        {
            "logprobs": dict(zip(tokens, row, strict=True)),
            "prediction": max(zip(row, tokens, strict=True), key=lambda pair: pair[0])[1],
            "generated": decode_new(chat, ids)[0],
        }
        for row, ids in zip(scores, new, strict=True)
    ]
