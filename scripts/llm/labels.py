"""The proof of what is in the loss: what the collator hands to the model, decoded, is what the study means to learn.

A rendered row says what that is: its completion and, of its prompt, what lies in `learnt`, pairs of characters (from,
up to): the assistant's turns, or all of it. A row without a completion is one whose prompt alone is learnt.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from common.files import UserError, sha256_file, write_json
from common.job import versions
from llm.chat import Chat, Turn

if TYPE_CHECKING:  # who renders prompts needs neither, nor torch
    from datasets import Dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

IGNORED = -100  # the label of a token outside the loss, in PyTorch's cross entropy
BATCH = 16  # rows collated at a time, so that padding is checked too

# What published studies have done wrong and a study may repeat, if it says so in accept_defect.
DEFECTS = {
    "target_not_in_loss": "the loss is that of the prompts, and no gold SQL is in it",
    "truncated": "rows longer than training.max_length are cut, and with them the end of their SQL",
    "dev_used_to_choose": "dev questions are among the validation rows, by which a checkpoint is chosen",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be wrong with rows."""

    max_length: int | None  # tokens at which a trainer would cut a row off; None = it would not
    truncate: bool = False  # rows are meant to be cut there; only then can `truncated` be accepted
    accept_defect: Sequence[str] = ()  # names of `DEFECTS` to go on with

    @property
    def cut_at(self) -> int | None:
        """Tokens at which rows are cut on purpose."""
        return self.max_length if self.truncate else None

    def refuse(self, defect: str, found: str) -> None:
        """Refuse what was `found`, unless the study accepts the defect."""
        if defect not in self.accept_defect:
            raise UserError(f"{found} A study that means to repeat this defect says accept_defect: [{defect}].")

    def verdict(self, failed: Iterable[str]) -> dict[str, Any]:
        """`pass`, and the defects `failed` and `accepted` in the order of `DEFECTS`."""
        found = sorted(set(failed), key=[*DEFECTS].index)
        return {"pass": not found, "failed": found, "accepted": [name for name in found if name in self.accept_defect]}


def learnt(chat: Chat, turns: Sequence[Turn], prompt: str, loss_on: str) -> dict[str, list]:
    """What a row to train on says of its prompt, for each value of training.loss_on."""
    spans = {"assistant": lambda: chat.said(turns), "text": lambda: [[0, len(prompt)]]}
    return {"learnt": spans[loss_on]()} if loss_on in spans else {}


def _all_learnt(row: Mapping) -> bool:
    """Whether all of a row's prompt is learnt."""
    return not row["completion"] or row.get("learnt") == [[0, len(row["prompt"])]]


def _tokens(chat: Chat, row: dict) -> tuple[list[int], list[int]]:
    """The ids and labels of a whole row."""
    prompt, completion = chat.encode(row["prompt"], row["completion"])
    if _all_learnt(row):
        return prompt + completion, prompt + completion
    labels = [IGNORED] * len(prompt)
    if row.get("learnt"):
        inside = chat.within(row["prompt"], row["learnt"])
        labels = [token if seen else IGNORED for token, seen in zip(prompt, inside, strict=True)]
    return prompt + completion, labels + completion


def padding(chat: Chat) -> "DataCollatorForLanguageModeling":
    """TRL's own collator, which pads the rows of a batch."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(pad_token_id=chat.tokenizer.pad_token_id)


def build_dataset(chat: Chat, rows: Sequence[dict], cut_at: int | None = None) -> "Dataset":
    """Make the training set: `input_ids` and `labels`, -100 for each token that is not learnt.

    Rows longer than `cut_at` tokens lose their end. SFTTrainer takes such rows as they are: it appends no EOS and masks
    nothing itself.
    """
    from datasets import Dataset

    cut = [[one[:cut_at] for one in _tokens(chat, row)] for row in rows]
    return Dataset.from_dict({"input_ids": [ids for ids, _ in cut], "labels": [labels for _, labels in cut]})


def rows_of(batch: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """The ids and labels of each row of a batch, padded or packed (`llm.packing.pack`); padding has no label."""
    if "cu_seq_lens_q" in batch:
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        return [(ids[start:end], labels[start:end]) for start, end in pairwise(batch["cu_seq_lens_q"].tolist())]
    if (batch["labels"][batch["attention_mask"] == 0] != IGNORED).any():
        raise UserError("labels: found padding in the loss, expected none.")
    return [
        (ids[mask == 1].tolist(), labels[mask == 1].tolist())
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    ]


class Checked(NamedTuple):
    """A row that is as it is meant to be: its accepted defects, its tokens and labels, and its labels decoded."""

    defects: list[str]
    tokens: int
    labels: int
    of_target: int  # labels of the completion
    decoded: str


def check_labels(
    chat: Chat,
    dataset: "Dataset",
    collator: Callable[[list[dict]], dict[str, Any]],
    rows: Sequence[dict],
    limits: Limits,
) -> dict[str, Any]:
    """Check every row of the data set, one for each of the rendered `rows`, as the collator gives it to the model.

    Raises:
        UserError: a row is missing, cut, begins without its one BOS, or its labels are not exactly what it says is
            learnt, up to the end-of-turn token, and the study does not accept that defect. The message names the row.
    """
    if len(dataset) != len(rows):
        raise UserError(f"labels: found {len(dataset)} rows in the training set, expected {len(rows)}, one a prompt.")
    found: list[Checked] = []
    given = dataset.select_columns(["input_ids", "labels"])  # only what the trainer itself passes on
    for start in tqdm(range(0, len(rows), BATCH), desc="labels", mininterval=5):
        batch = collator([given[i] for i in range(start, min(start + BATCH, len(rows)))])
        for row, (ids, labels) in zip(rows[start : start + BATCH], rows_of(batch), strict=True):
            found.append(_check_row(chat, row, ids, labels, limits))
    without_target, failed = sum(row.of_target == 0 for row in found), [name for row in found for name in row.defects]
    if without_target == len(rows) and "target_not_in_loss" not in failed:
        cut = f"labels: training.max_length = {limits.max_length} cuts every row before its SQL. Set it higher."
        if not any(row.labels for row in found):
            raise UserError(cut)
        limits.refuse("target_not_in_loss", cut)
        failed.append("target_not_in_loss")
    return {
        "rows": len(rows),
        "checked": len(found),
        "truncated": sum("truncated" in row.defects for row in found),
        "without_target": without_target,
        "longest_row_tokens": max(row.tokens for row in found),
        "label_tokens": sum(row.labels for row in found),
        "example": {"id": rows[0]["id"], "labels_decoded": found[0].decoded},
        **limits.verdict(failed),
    }


def audit(chat: Chat, rows: Sequence[dict], targets: Mapping[str, str], limits: Limits) -> dict[str, Any]:
    """Check that completions are the targets and the end of turn, in their order, and what TRL's own collator makes.

    An empty completion is no target but a defect of its own. Summary and errors are those of `check_labels`.
    """
    if len(rows) != len(targets):
        raise UserError(f"labels: found {len(rows)} prompts, expected {len(targets)}, one a row to train on.")
    for row, (name, target) in zip(rows, targets.items(), strict=True):
        if row["id"] != name:
            raise UserError(f"labels of {row['id']}: expected row {name} at this place of the prompts.")
        said = row["completion"].removeprefix(chat.thought.prefill if chat.thought.tokens else "")
        text = said.strip().removesuffix(chat.end_of_turn).strip()  # Mistral: a space before the answer
        if said and (text != target.strip() or not said.endswith(chat.end_of_turn)):
            raise UserError(
                f"labels of {name}: the completion is {said!r}, expected the target {target!r} and "
                f"{chat.end_of_turn!r}."
            )
    return check_labels(chat, build_dataset(chat, rows, limits.cut_at), padding(chat), rows, limits)


def write_audit(
    report: str | Path, chat: Chat, limits: Limits, found: Mapping[str, Any], files: Mapping[str, str | Path]
) -> None:
    """Write the report of an audit: what was `found` in which `files`, and by what."""
    collator = type(padding(chat))
    facts = {
        **found,
        "max_length": limits.max_length,
        "collator": f"{collator.__module__}.{collator.__name__}",
        "sha256": {name: sha256_file(path) for name, path in files.items()},
        "template": chat.facts(),
        "versions": versions(),
    }
    write_json(report, facts)


def check_learnt(rows: Sequence[dict], loss_on: str) -> None:
    """Refuse rows that were rendered for another value of training.loss_on."""
    for row in rows:
        right = "learnt" not in row
        if loss_on in ("assistant", "text"):
            right = "learnt" in row and _all_learnt(row) == (loss_on == "text")
        if not right or bool(row["completion"]) != (loss_on != "prompt"):
            raise UserError(
                f"labels of {row['id']}: the completion is {row['completion']!r}, and of the prompt is learnt "
                f"{row.get('learnt', [])}, not what training.loss_on: {loss_on} renders. Run the task's rule render "
                "again: snakemake -R render_<task>."
            )


def _check_row(chat: Chat, row: dict, ids: list[int], labels: list[int], limits: Limits) -> Checked:
    """Check one row without its padding."""
    name, (meant_ids, meant), prompt_ids = row["id"], _tokens(chat, row), chat.encode(row["prompt"])[0]
    full, max_length, defects = len(meant_ids), limits.max_length, []

    def need(right: bool, found: str) -> None:
        if not right:
            raise UserError(f"labels of {name}: {found}")

    if max_length is not None and full > max_length:
        found = (
            f"found {full} tokens, expected at most training.max_length = {max_length}: the end of the SQL would be "
            f"cut off. Set training.max_length to {full} or more, or shorten the prompt."
        )
        need(limits.truncate, found)
        limits.refuse("truncated", f"labels of {name}: {found}")
        defects.append("truncated")
        meant_ids, meant = meant_ids[:max_length], meant[:max_length]
    if not row["completion"]:
        limits.refuse("target_not_in_loss", f"labels of {name}: the completion is empty.")
        defects.append("target_not_in_loss")
    need(len(ids) == len(meant_ids), f"found {len(ids)} tokens, expected {len(meant_ids)}. The row was cut or padded.")
    seen = prompt_ids[: len(ids)]
    need(ids[: len(prompt_ids)] == seen, "the prompt's tokens differ from those that inference will see.")
    chat.check_bos(name, ids[: len(prompt_ids)])
    kept = [i for i, label in enumerate(labels) if label != IGNORED]

    def decode(places: Iterable[int]) -> str:
        return chat.tokenizer.decode([labels[i] for i in places], clean_up_tokenization_spaces=False)

    decoded = decode(kept)
    # The first token has nothing before it that could predict it: its label counts in no loss, and may be left out.
    same = ids == meant_ids and labels[1:] == meant[1:]
    if defects:
        need(same, "the labels differ from those of the row as it is meant to be trained.")
    elif _all_learnt(row):
        need(same, f"found {decoded!r} in the loss, expected the whole text. Nothing was trained.")
        wanted, found = row["completion"], decode(range(len(prompt_ids), len(ids)))
        need(found.strip() == wanted.strip(), f"found {found!r} at the end of the loss, expected {wanted!r}.")
    else:
        wanted = [*(row["prompt"][slice(*span)] for span in row.get("learnt", [])), row["completion"]]
        # What is learnt stands apart, with questions between. Decoders of the SentencePiece kind drop a leading space.
        parts = [[i for _, i in part] for _, part in groupby(enumerate(kept), lambda pair: pair[1] - pair[0])]
        right = [decode(part).strip() for part in parts] == [text.strip() for text in wanted]
        need(right, f"found {decoded!r} in the loss, expected {''.join(wanted)!r}. Nothing was trained.")
        ends = [labels[part[-1]] for part in parts]
        need({*ends} == {chat.end_of_turn_id}, f"the last label is {ends[-1]}, expected the end of turn.")
        need(all(labels[i] == ids[i] for i in kept), "a label differs from the token at its place.")
        need(same, "the labels differ from those of the row as it is meant to be trained.")  # by a space
    return Checked(defects, len(ids), len(kept), sum(i >= len(prompt_ids) for i in kept), decoded)
