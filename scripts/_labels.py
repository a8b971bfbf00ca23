"""The proof that the target is in the loss: what the collator hands to the model, decoded, is the gold SQL."""

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from tqdm import tqdm

from _chat import Chat
from _files import UserError

IGNORED = -100  # the label of a token outside the loss, in PyTorch's cross entropy
BATCH = 16  # rows collated at a time, so that padding is checked too


def build_dataset(chat: Chat, rows: Sequence[dict]) -> Dataset:
    """Return the training set: `input_ids` and `labels`, the labels of the prompt being -100.

    SFTTrainer takes tokenised rows with labels as they are: it appends no EOS and masks nothing itself.
    """
    encoded = [chat.encode(row["prompt"], row["completion"]) for row in rows]
    return Dataset.from_dict(
        {
            "input_ids": [prompt + completion for prompt, completion in encoded],
            "labels": [[IGNORED] * len(prompt) + completion for prompt, completion in encoded],
        }
    )


def check_labels(
    chat: Chat,
    dataset: Dataset,
    collator: Callable[[list[dict]], dict[str, Any]],
    rows: Sequence[dict],
    max_length: int | None,
) -> dict[str, Any]:
    """Check every row as the collator gives it to the model, and return a summary.

    Args:
        chat: the model's tokenizer and template.
        dataset: columns `input_ids` and `labels`, one row for each of `rows`, in their order.
        collator: what makes a padded batch of dataset rows, with `input_ids`, `attention_mask`, `labels`, all of
            shape (rows, longest row).
        rows: prompts rows with `id`, `prompt`, `completion` (the gold SQL and the end of turn: see `check_gold`).
        max_length: tokens at which a trainer would cut a row off; None = it would not.

    Raises:
        UserError: a row is missing, cut, begins without its one BOS, or its labels are not exactly the completion
            up to the end-of-turn token. The message names the row and says what was found.
    """
    if len(dataset) != len(rows):
        raise UserError(f"labels: found {len(dataset)} rows in the training set, expected {len(rows)}, one a prompt.")
    label_tokens, longest, example = 0, 0, None
    for start in tqdm(range(0, len(rows), BATCH), desc="labels", mininterval=5):
        chunk = [dataset[i] for i in range(start, min(start + BATCH, len(rows)))]
        # Only what the trainer itself passes on.
        batch = collator([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in chunk])
        for i, row in enumerate(rows[start : start + BATCH]):
            real = batch["attention_mask"][i].bool()
            ids, labels = batch["input_ids"][i][real].tolist(), batch["labels"][i][real].tolist()
            if any(label != IGNORED for label in batch["labels"][i][~real].tolist()):
                raise UserError(f"labels of {row['id']}: found padding in the loss, expected none.")
            decoded = _check_row(chat, row, ids, labels, max_length)
            label_tokens += sum(label != IGNORED for label in labels)
            longest = max(longest, len(ids))
            example = example or {"id": row["id"], "labels_decoded": decoded}
    return {
        "rows": len(rows),
        "checked": len(rows),
        "truncated": 0,
        "longest_row_tokens": longest,
        "label_tokens": label_tokens,
        "example": example,
        "pass": True,
    }


def check_gold(chat: Chat, rows: Sequence[dict], split: Sequence[dict]) -> None:
    """Check that the completions are the gold SQL of the split, row by row, and the end-of-turn token.

    Raises:
        UserError: another row than the split has at this place, or another SQL. The message names the row.
    """
    if len(rows) != len(split):
        raise UserError(f"labels: found {len(rows)} prompts, expected {len(split)}, one a row of the training split.")
    for row, source in zip(rows, split, strict=True):
        if row["id"] != source["id"]:
            raise UserError(f"labels of {row['id']}: expected row {source['id']} at this place of the prompts.")
        sql = row["completion"].strip().removesuffix(chat.end_of_turn).strip()  # Mistral: a space before the SQL
        if sql != source["query"].strip() or not row["completion"].endswith(chat.end_of_turn):
            raise UserError(
                f"labels of {row['id']}: the completion is {row['completion']!r}, expected the gold SQL "
                f"{source['query']!r} and {chat.end_of_turn!r}."
            )


def _check_row(chat: Chat, row: dict, ids: list[int], labels: list[int], max_length: int | None) -> str:
    """Check one row without its padding and return its labels decoded."""
    name = row["id"]
    prompt_ids, completion_ids = chat.encode(row["prompt"], row["completion"])
    expected = len(prompt_ids) + len(completion_ids)
    if max_length is not None and expected > max_length:
        raise UserError(
            f"labels of {name}: found {expected} tokens, expected at most training.max_length = {max_length}: the end "
            f"of the SQL would be cut off. Set training.max_length to {expected} or more, or shorten the prompt."
        )
    if len(ids) != expected:
        raise UserError(f"labels of {name}: found {len(ids)} tokens, expected {expected}. The row was cut or padded.")
    if ids[: len(prompt_ids)] != prompt_ids:
        raise UserError(f"labels of {name}: the prompt's tokens differ from those that inference will see.")
    chat.check_bos(name, ids[: len(prompt_ids)])
    kept = [i for i, label in enumerate(labels) if label != IGNORED]
    decoded = chat.tokenizer.decode([labels[i] for i in kept], clean_up_tokenization_spaces=False)
    # Decoders of the SentencePiece kind drop a leading space.
    if decoded.strip() != row["completion"].strip():
        raise UserError(
            f"labels of {name}: found {decoded!r} in the loss, expected {row['completion']!r}. Nothing was trained."
        )
    if labels[-1] != chat.end_of_turn_id:
        raise UserError(f"labels of {name}: the last label is {labels[-1]}, expected the end of turn.")
    if any(labels[i] != ids[i] for i in kept):
        raise UserError(f"labels of {name}: a label differs from the token at its place.")
    return decoded
