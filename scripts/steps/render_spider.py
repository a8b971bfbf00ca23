"""Render the text-to-SQL prompts of one split with a model's chat template, into the file that all runs read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl
from common.job import job
from llm.chat import check_context, load_chat
from llm.prompts import prompt_row, write_prompts
from tasks.sql_schema import Schemas
from tasks.text_to_sql import select, shorter, user_turn


@dataclass(frozen=True)
class Settings:
    """How a split is asked.

    system, schema, sample_rows: the system text; the others as of `Schemas`.
    style: as of `user_turn`.
    train_target: sql; or prompt, which leaves the completions empty, so that the prompt itself is learnt. Studies have
        trained that way; the audit stops it unless the study says so.
    questions, exclude_databases: as of `select`; of dev only.
    max_new_tokens: tokens that must fit behind each prompt; of dev only.
    """

    system: str
    schema: str
    sample_rows: int
    style: str = "default"
    train_target: str = "sql"
    questions: int | None = None
    exclude_databases: Sequence[str] = ()
    max_new_tokens: int | None = None


def render_spider(inputs: Mapping[str, str | Path], split: str, prompts: str | Path, settings: Settings) -> None:
    """Render one split's prompts, and write their report beside them.

    Args:
        inputs: `rows` and `shots`, JSON-lines files of `prepare_spider`; `tables` and `manifest`, Spider's tables.json
            and the manifest of `fetch_spider`, beside which database/ lies; `record`, the model record.
        split: train and validation get completions; dev, and dev_shots<N> with other examples than those, get none and
            are cut down by `questions` and `exclude_databases`.
        prompts: the file to write.

    Raises:
        UserError: a prompt does not fit the model's context, a template that cannot be used, a missing schema.
    """
    chat = load_chat(read_json(inputs["record"]))
    databases = Path(inputs["manifest"]).parent / "database"
    schemas = Schemas(read_json(inputs["tables"]), databases, settings.schema, settings.sample_rows)
    if settings.train_target not in ("sql", "prompt"):
        raise UserError(f"prompt.train_target: found {settings.train_target!r}, expected sql or prompt.")
    shots, chosen = read_jsonl(inputs["shots"]), read_jsonl(inputs["rows"])
    facts = {name: getattr(settings, name) for name in ("system", "schema", "sample_rows", "style")}
    asked = split.startswith("dev")
    if asked:
        if settings.max_new_tokens is None:
            raise ValueError(f"the {split} split needs max_new_tokens")
        chosen = select(chosen, settings.questions, settings.exclude_databases)
        facts |= {"questions": settings.questions, "exclude_databases": list(settings.exclude_databases)}
        facts |= {"max_new_tokens": settings.max_new_tokens}
    else:
        facts |= {"train_target": settings.train_target}
    examples = [schemas.attach(shot) for shot in shots]
    key = "evaluation.shots (or prompt.base_shots)" if "_shots" in split else "spider.shots"
    rendered = []
    for row in tqdm(chosen, desc=f"prompts of {split}", mininterval=5):
        user = user_turn(schemas.attach(row), examples, settings.style)
        target = row["query"].strip() if settings.train_target == "sql" else ""
        names = {"id": row["id"], "db_id": row["db_id"]}
        found = prompt_row(chat, names, (settings.system, user), None if asked else target)
        new_tokens = settings.max_new_tokens if asked else found["completion_tokens"]
        check_context(chat, row["id"], found["prompt_tokens"], new_tokens, shorter(row["db_id"], key))
        rendered.append(found)
    report = {"split": split, "shots": [shot["id"] for shot in shots], "settings": facts}
    write_prompts(prompts, rendered, chat, report, completed=not asked)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        render_spider(
            snakemake.input,
            snakemake.wildcards.split,
            snakemake.output.prompts,
            Settings(**snakemake.params.settings),
        )
