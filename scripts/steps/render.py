"""Render the prompts of one part of a task with a model's chat template, into the file that all runs read."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Without torch, which has nothing to do here and takes most of the time of the imports, transformers has tokenizers
    # and chat templates all the same; it would only advise to install it.
    sys.modules.setdefault("torch", None)
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"

from tqdm import tqdm

import _path  # noqa: F401
from common.files import UserError, check_files, read_json, read_jsonl
from common.job import job
from llm.chat import check_context, load_chat
from llm.labels import learnt
from llm.prompts import asked_again, prompt_row, template, write_prompts
from tasks.base import PER_QUESTION, examples_of, filled, letters, marked
from tasks.records import by_id
from tasks.registry import KINDS


def render(
    inputs: Mapping[str, str | Path],
    words: str | Path,
    settings: Mapping[str, Any],
    prompts: str | Path,
    repair: str | Path | None = None,
) -> None:
    """Render the rows of a part, and write their report beside the prompts.

    Args:
        inputs: `rows` and, of a task with a list of few-shot examples, `shots`, of `prepare`; `manifest`, of
            `fetch_data`; `record`, the model's. With `repair` also `failed`, of `run_sql`.
        words: the prompt template.
        settings: of the stage prompt, with `kind`, `name` and `role`; `shots`, how many examples of the list are shown.
            Of rows to be answered `max_new_tokens`, the tokens that must fit behind each prompt. Of rows to train on
            `loss_on`, what is learnt (`llm.labels.learnt`): with prompt the completions are empty. Of rows to replay
            `max_length`, in tokens; longer ones are left out and counted.
        repair: the template of what a model is told of its failed query. Then only the rows of `failed` are asked:
            again, behind the first prompt and the first answer.

    Raises:
        UserError: a prompt does not fit the model's context, no row fits, a template that cannot be used.
    """
    task, chat, turns = KINDS[settings["kind"]], load_chat(read_json(inputs["record"])), template(words)
    told = task.context(settings, Path(inputs["manifest"]).parent)
    pool, own = read_jsonl(inputs["shots"]) if inputs.get("shots") else [], settings.get("shots_from") == PER_QUESTION
    if len(pool) < settings.get("shots", 0):
        raise UserError(
            f"{settings['name']}: found {len(pool)} few-shot examples, each on another database with a short query, "
            f"expected {settings['shots']}. Use fewer in evaluation.shots or {settings['name']}.base_shots."
        )
    asked, most = "max_new_tokens" in settings, settings.get("max_length")
    loss_on = settings.get("loss_on", "completion")
    failed = by_id(read_jsonl(inputs["failed"]), inputs["failed"]) if repair else {}
    again = template(repair) if repair else None
    remedy = task.REMEDY + " Or write evaluation.repair: 0." * bool(repair)
    rendered, too_long = [], []
    rows = [row for row in read_jsonl(inputs["rows"]) if not repair or row["id"] in failed]
    for row in tqdm(rows, desc=f"prompts of {settings['name']}", mininterval=5):
        shots = examples_of(task, settings, row, pool)
        values = filled(task, told, row, shots, settings)
        said = turns(values)
        if again:
            first = failed[row["id"]]
            said = asked_again(said, first["answer"], again(values | first), repair)
        marks = [marked(settings, letter) for letter in letters(row)] if asked else []
        names = {"id": row["id"]} | ({"options": marks} if marks else {})
        names |= {"shots": [shot["id"] for shot in shots]} if own else {}
        without = not any(turn.role == "assistant" for turn in said)
        if loss_on == "assistant" and without and (shots or said[0].role == "whole"):
            raise UserError(
                f"training.loss_on: found assistant, but in {words} few-shot examples are no turns of the assistant. "
                f"Set {settings['name']}.prompt to a template in which they are, or loss_on to completion."
            )
        answer = None if asked else "" if loss_on == "prompt" else marked(settings, task.target(row))
        found = prompt_row(chat, names, said, answer)
        found |= learnt(chat, said, found["prompt"], loss_on)
        new_tokens = settings["max_new_tokens"] + chat.thought.tokens if asked else found["completion_tokens"]
        if most is not None and found["prompt_tokens"] + new_tokens > most:
            too_long.append(row["id"])
            continue
        if most is None:
            named = {**row, "name": settings["name"]}
            check_context(chat, row["id"], found["prompt_tokens"], new_tokens, remedy.format(**named))
        rendered.append(found)
    if too_long:
        print(f"{len(too_long)} of {len(too_long) + len(rendered)} rows have more than {most} tokens: left out.")
    if not rendered and too_long:
        raise UserError(
            f"{settings['name']}: all {len(too_long)} rows have more tokens than training.max_length = {most}. Set it "
            "higher, or use another source."
        )
    report = {
        "shots": [shot["id"] for shot in ([] if own else pool[: settings.get("shots", 0)])],
        "too_long": too_long,
        "settings": dict(settings),
    }
    # Not an absolute path: two copies of a study write the same bytes.
    report["prompt"] = os.path.relpath(words)
    report |= {"repair_prompt": os.path.relpath(repair)} if repair else {}
    write_prompts(prompts, rendered, chat, report, completed=not asked)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        check_files(snakemake.input.record)
        given = snakemake.params
        render(snakemake.input, given.words, given.unwatched, snakemake.output.prompts, given.get("repair"))
