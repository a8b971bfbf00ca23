"""Render the text-to-SQL prompts of one split with a model's chat template, into the file that all runs read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

import _path  # noqa: F401
from common.files import read_json, read_jsonl
from common.job import job
from llm.chat import check_context, load_chat
from llm.prompts import prompt_row, write_prompts
from tasks.sql_schema import Schemas
from tasks.text_to_sql import select, shorter, user_turn


def render_spider(
    inputs: Mapping[str, str | Path], split: str, prompts: str | Path, settings: Mapping[str, Any]
) -> None:
    """Render one split's prompts, and write their report beside them.

    Args:
        inputs: `rows` and `shots`, JSON-lines files of `prepare_spider`; `tables` and `manifest`, Spider's tables.json
            and the manifest of `fetch_spider`, beside which database/ lies; `record`, the model record.
        split: train and validation get completions; dev, and dev_shots<N> with other examples than those, get none and
            are cut down by `questions` and `exclude_databases`.
        settings: of the section prompt (`study.schema.Prompt`), `system` being spider_system. Of the splits that are
            asked also `questions` and `exclude_databases`, as of `select`, and `max_new_tokens`, the tokens that must
            fit behind each prompt. `train_target` prompt leaves the completions empty: the prompt itself is learnt.

    Raises:
        UserError: a prompt does not fit the model's context, a template that cannot be used, a missing schema.
    """
    chat = load_chat(read_json(inputs["record"]))
    databases = Path(inputs["manifest"]).parent / "database"
    schemas = Schemas(read_json(inputs["tables"]), databases, settings["schema"], settings["sample_rows"])
    shots, chosen = read_jsonl(inputs["shots"]), read_jsonl(inputs["rows"])
    asked = split.startswith("dev")
    if asked:
        chosen = select(chosen, settings["questions"], settings["exclude_databases"])
    examples = [schemas.attach(shot) for shot in shots]
    key = "evaluation.shots (or prompt.base_shots)" if "_shots" in split else "spider.shots"
    rendered = []
    for row in tqdm(chosen, desc=f"prompts of {split}", mininterval=5):
        user = user_turn(schemas.attach(row), examples, settings["style"])
        target = None
        if not asked:
            target = row["query"].strip() if settings["train_target"] == "sql" else ""
        found = prompt_row(chat, {"id": row["id"], "db_id": row["db_id"]}, (settings["system"], user), target)
        new_tokens = settings["max_new_tokens"] if asked else found["completion_tokens"]
        check_context(chat, row["id"], found["prompt_tokens"], new_tokens, shorter(row["db_id"], key))
        rendered.append(found)
    report = {"split": split, "shots": [shot["id"] for shot in shots], "settings": dict(settings)}
    write_prompts(prompts, rendered, chat, report, completed=not asked)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        split, settings = snakemake.wildcards.split, snakemake.params.settings
        render_spider(snakemake.input, split, snakemake.output.prompts, settings)
