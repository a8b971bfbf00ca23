"""Prompts: turns by a Jinja template, text by a model's chat template, rows of a file. Nothing is ever cut."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from common.files import UserError, sha256_file, write_json, write_jsonl
from llm.chat import FAULTS, Chat, Turn, token_counts

ROLES = ("system", "user", "assistant")
# In place of turns: the text of a whole prompt, and what stands between it and the answer in a row to train on.
WHOLE = ("whole", "before_answer")


def template(path: str | Path) -> Callable[[Mapping[str, Any]], list[Turn]]:
    """Read a prompt template; the function returned makes the turns of a prompt, of what the template may say.

    A turn is what stands in `{% call user() %}…{% endcall %}`, and likewise `system` and `assistant`; a turn without
    text is left out. A call adds a turn, so no text of a question can open one. In place of turns, `whole` may hold the
    prompt as the tokenizer is to have it, without the model's chat template. A template that cannot be read, or makes
    no prompt, is a UserError.
    """
    path = Path(path)
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(path.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    try:
        made = environment.get_template(path.name)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    except FAULTS as error:
        raise UserError(f"{path}: not a template ({error}). See docs/tasks.md.") from None

    def turns(values: Mapping[str, Any]) -> list[Turn]:
        found: list[Turn] = []

        def add(role: str, caller: Callable[[], str]) -> str:
            if text := caller():
                found.append(Turn(role, text))
            return ""

        try:
            outside = made.render({**values, **{role: partial(add, role) for role in (*ROLES, *WHOLE)}})
        except FAULTS as error:
            raise UserError(f"{path}: {error}. What it may use: {', '.join(values)}. See docs/tasks.md.") from None
        if outside.strip():
            raise UserError(
                f"{path}: found {outside.strip()[:60]!r} outside of the turns. Put it between {{% call user() %}} and "
                "{% endcall %}."
            )
        if any(turn.role in WHOLE for turn in found):
            if [turn.role for turn in found] not in (["whole"], [*WHOLE]):
                raise UserError(
                    f"{path}: found {', '.join(turn.role for turn in found)}, expected {{% call whole() %}} alone, or "
                    "{% call before_answer() %} after it: a whole prompt has no turns beside it."
                )
        elif not found or found[-1].role != "user":
            raise UserError(
                f"{path}: the last turn is not the user's. End it with {{% call user() %}}…{{% endcall %}}."
            )
        return found

    return turns


def asked_again(said: Sequence[Turn], answer: str, told: Sequence[Turn], path: str | Path) -> list[Turn]:
    """The turns of a prompt, the answer to it, and the turn in which the user says (`told`) what is wrong with that.

    Raises:
        UserError: the prompt has no turns, or the template at `path`, of which `told` is, another turn than the user's.
    """
    if said[0].role in WHOLE:
        raise UserError(f"evaluation.repair: no turn can follow a whole prompt (see {path}). Write 0.")
    if [turn.role for turn in told] != ["user"]:
        found = ", ".join(turn.role for turn in told)
        raise UserError(f"{path}: found turns of {found}, expected one of the user, which follows the failed answer.")
    return [*said, Turn("assistant", answer), *told]


def prompt_row(chat: Chat, names: Mapping[str, Any], turns: Sequence[Turn], answer: str | None = None) -> dict:
    """Render a prompt, and the completion to train on if there is an `answer`.

    Args:
        names: `id`, and what else is to stand before the prompt in its row.
        turns: of the conversation so far, the user's last; or a whole prompt (`WHOLE`), which is taken as it is but for
            the one BOS that a model may want before it. What is learnt of it ends with the end of turn, too.
        answer: the assistant's turn; "" for an empty completion, None for a prompt alone.
    """
    whole = {turn.role: turn.text for turn in turns if turn.role in WHOLE}
    bos = "" if chat.bos == 0 or not whole else chat.tokenizer.bos_token
    prompt = bos + whole["whole"].removeprefix(bos) if whole else chat.prompt(turns)
    try:
        if whole and answer:
            completion = whole.get("before_answer", "") + answer + chat.end_of_turn
        else:
            completion = chat.completion(turns, answer) if answer else ""
    except UserError as error:
        raise UserError(f"row {names['id']}: {error}") from None
    prompt_ids, completion_ids = chat.encode(prompt, completion)
    chat.check_bos(names["id"], prompt_ids)
    if answer is None:
        return {**names, "prompt": prompt, "prompt_tokens": len(prompt_ids)}
    counts = {"prompt_tokens": len(prompt_ids), "completion_tokens": len(completion_ids)}
    return {**names, "prompt": prompt, "completion": completion, **counts}


def write_prompts(
    path: str | Path, rows: Sequence[dict], chat: Chat, facts: Mapping[str, Any], completed: bool = False
) -> None:
    """Write rows of `prompt_row`, `completed` or not, and beside them (.json) their report with the `facts` given."""
    write_jsonl(path, rows)
    report = {"count": len(rows), "sha256": sha256_file(path), "template": chat.facts(), **facts}
    for part in ("prompt", "completion") if completed else ("prompt",):
        report[f"{part}_tokens"] = token_counts([row[f"{part}_tokens"] for row in rows])
        report[f"first_{part}"] = rows[0][part] if rows else None
    write_json(Path(path).with_suffix(".json"), report)
