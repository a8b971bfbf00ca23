"""Prompts as rows of a file: rendered with a model's chat template and counted in tokens. Nothing is ever cut."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import sha256_file, write_json, write_jsonl
from llm.chat import Chat, token_counts


def prompt_row(chat: Chat, names: Mapping[str, str], asked: tuple[str, str], answer: str | None = None) -> dict:
    """Render a prompt, and the completion to train on if there is an `answer`.

    Args:
        names: `id`, and what else is to stand before the prompt in its row.
        asked: the system text and the user's turn.
        answer: the assistant's turn; "" for an empty completion, None for a prompt alone.

    Raises:
        UserError: the prompt has not the one BOS that it must have, or the template changes the answer.
    """
    prompt = chat.prompt(*asked)
    completion = chat.completion(*asked, answer) if answer else ""
    prompt_ids, completion_ids = chat.encode(prompt, completion)
    chat.check_bos(names["id"], prompt_ids)
    if answer is None:
        return {**names, "prompt": prompt, "prompt_tokens": len(prompt_ids)}
    counts = {"prompt_tokens": len(prompt_ids), "completion_tokens": len(completion_ids)}
    return {**names, "prompt": prompt, "completion": completion, **counts}


def write_prompts(
    path: str | Path, rows: Sequence[dict], chat: Chat, facts: Mapping[str, Any], completed: bool = False
) -> None:
    """Write rows of `prompt_row`, `completed` or not, and beside them (.json) their report.

    It has counts, hash, template and the first row, and the `facts` given, such as settings.
    """
    write_jsonl(path, rows)
    report = {"count": len(rows), "sha256": sha256_file(path), "template": chat.facts(), **facts}
    for part in ("prompt", "completion") if completed else ("prompt",):
        report[f"{part}_tokens"] = token_counts([row[f"{part}_tokens"] for row in rows])
        report[f"first_{part}"] = rows[0][part] if rows else None
    write_json(Path(path).with_suffix(".json"), report)
