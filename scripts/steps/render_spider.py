"""Render the text-to-SQL prompts of one split with a model's chat template, into the file that all variants read."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

import _path  # noqa: F401
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from common.job import job
from llm.chat import Chat, check_context, load_chat, token_counts
from tasks.prompts import compact_schema, ddl_schema, pipe_schema, spider_user


class Schemas:
    """The schema text of each database, rendered once.

    Args:
        tables: entries of Spider's tables.json.
        databases: the folder that holds <db_id>/<db_id>.sqlite; read for sample rows only.
        schema: compact, pipe, ddl, ddl_rows, or none for no text at all.
        sample_rows: rows a table, for ddl_rows.
    """

    def __init__(self, tables: Sequence[dict], databases: str | Path, schema: str, sample_rows: int):
        if schema not in ("compact", "pipe", "ddl", "ddl_rows", "none"):
            raise UserError(f"prompt.schema: found {schema!r}, expected compact, pipe, ddl, ddl_rows or none.")
        self.tables = {entry["db_id"]: entry for entry in tables}
        self.databases, self.schema, self.sample_rows = Path(databases), schema, sample_rows
        self.texts: dict[str, str] = {}

    def __getitem__(self, db_id: str) -> str:
        """Return the schema text of `db_id`. Raises a UserError if tables.json lacks it."""
        if db_id not in self.texts:
            if db_id not in self.tables:
                raise UserError(f"tables.json: no entry for database {db_id}. The Spider files do not belong together.")
            database = self.databases / db_id / f"{db_id}.sqlite"
            self.texts[db_id] = schema_text(self.tables[db_id], database, self.schema, self.sample_rows)
        return self.texts[db_id]


def schema_text(entry: dict, database: str | Path, schema: str, sample_rows: int) -> str:
    """Return the schema text of one database, whose file is read for ddl_rows only; arguments as of `Schemas`."""
    match schema:
        case "none":
            return ""
        case "compact":
            return compact_schema(entry)
        case "pipe":
            return pipe_schema(entry)
        case "ddl":
            return ddl_schema(entry)
        case _:
            return ddl_schema(entry, database, sample_rows)


def select(rows: list[dict], questions: int | None, exclude_databases: Sequence[str]) -> list[dict]:
    """Return the dev rows to ask: without the excluded databases, then the first `questions` (None = all).

    Raises:
        UserError: an excluded database is not there, or there are fewer questions than asked for.
    """
    unknown = sorted(set(exclude_databases) - {row["db_id"] for row in rows})
    if unknown:
        raise UserError(f"spider.exclude_databases: found {', '.join(unknown)}, expected databases of the dev split.")
    kept = [row for row in rows if row["db_id"] not in set(exclude_databases)]
    if questions is not None and questions > len(kept):
        raise UserError(f"spider.dev_questions: found {questions}, expected at most {len(kept)}, or null for all.")
    return kept[:questions]


def prompt_row(
    chat: Chat,
    row: dict,
    shots: Sequence[dict],
    schemas: Schemas,
    system: str,
    max_new_tokens: int | None,
    style: str = "default",
    train_target: str = "sql",
    number: str = "spider.shots",
) -> dict:
    """Return the prompts row of one question; with the completion to train on where `max_new_tokens` is None.

    `number` is the key of the study that says how many shots there are.
    """
    user = spider_user(
        [{"schema": schemas[s["db_id"]], "question": s["question"], "query": s["query"].strip()} for s in shots],
        schemas[row["db_id"]],
        row["question"].strip(),
        style,
    )
    prompt = chat.prompt(system, user)
    gold = row["query"].strip()
    completion = chat.completion(system, user, gold) if max_new_tokens is None and train_target == "sql" else ""
    prompt_ids, completion_ids = chat.encode(prompt, completion)
    chat.check_bos(row["id"], prompt_ids)
    check_context(
        chat,
        row["id"],
        len(prompt_ids),
        len(completion_ids) if max_new_tokens is None else max_new_tokens,
        f"Choose a shorter prompt.schema, fewer {number} or a smaller inference.spider_max_new_tokens, exclude "
        f"database {row['db_id']}, or take a model with a longer context.",
    )
    if max_new_tokens is not None:
        return {"id": row["id"], "db_id": row["db_id"], "prompt": prompt, "prompt_tokens": len(prompt_ids)}
    return {
        "id": row["id"],
        "db_id": row["db_id"],
        "prompt": prompt,
        "completion": completion,
        "prompt_tokens": len(prompt_ids),
        "completion_tokens": len(completion_ids),
    }


def render_spider(
    rows: str,
    shots: str,
    tables: str,
    manifest: str,
    record: str,
    split: str,
    prompts: str,
    report: str,
    system: str,
    schema: str,
    sample_rows: int,
    questions: int | None = None,
    exclude_databases: Sequence[str] = (),
    max_new_tokens: int | None = None,
    style: str = "default",
    train_target: str = "sql",
) -> None:
    """Render one split's prompts.

    Args:
        rows, shots: JSON-lines files of `prepare_spider`.
        tables, manifest: Spider's tables.json and the manifest of `fetch_spider`, beside which database/ lies.
        record: the model record.
        split: train and validation get completions; dev, and dev_shots<N> with other shots than those, get none and
            are cut down by `questions` and `exclude_databases`, and `max_new_tokens` must fit behind each.
        prompts, report: the files to write.
        system, schema, sample_rows: see `Schemas`.
        style: see `spider_user`.
        train_target: sql; or prompt, which leaves the completions empty, so that the prompt itself is learnt. Studies
            have trained that way; the audit stops it unless the study says so.

    Raises:
        UserError: a prompt does not fit the model's context, a template that cannot be used, a missing schema.
    """
    chat = load_chat(read_json(record))
    schemas = Schemas(read_json(tables), Path(manifest).parent / "database", schema, sample_rows)
    if style not in ("default", "ribeiro"):
        raise UserError(f"prompt.style: found {style!r}, expected default or ribeiro.")
    if train_target not in ("sql", "prompt"):
        raise UserError(f"prompt.train_target: found {train_target!r}, expected sql or prompt.")
    examples = read_jsonl(shots)
    chosen = read_jsonl(rows)
    asked = split.startswith("dev")
    if asked:
        if max_new_tokens is None:
            raise ValueError(f"the {split} split needs max_new_tokens")
        chosen = select(chosen, questions, exclude_databases)
    rendered = [
        prompt_row(
            chat,
            row,
            examples,
            schemas,
            system,
            max_new_tokens if asked else None,
            style,
            train_target,
            "spider.shots" if split in ("train", "validation", "dev") else "evaluation.shots (or prompt.base_shots)",
        )
        for row in tqdm(chosen, desc=f"prompts of {split}", mininterval=5)
    ]
    write_jsonl(prompts, rendered)
    facts = {
        "split": split,
        "count": len(rendered),
        "sha256": sha256_file(prompts),
        "prompt_tokens": token_counts([row["prompt_tokens"] for row in rendered]),
        "shots": [shot["id"] for shot in examples],
        "settings": {"system": system, "schema": schema, "sample_rows": sample_rows, "style": style},
        "template": chat.facts(),
        "first_prompt": rendered[0]["prompt"] if rendered else None,
    }
    if asked:
        facts["settings"] |= {
            "questions": questions,
            "exclude_databases": list(exclude_databases),
            "max_new_tokens": max_new_tokens,
        }
    else:
        facts["settings"]["train_target"] = train_target
        facts["completion_tokens"] = token_counts([row["completion_tokens"] for row in rendered])
        facts["first_completion"] = rendered[0]["completion"] if rendered else None
    write_json(report, facts)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        render_spider(
            rows=snakemake.input.rows,
            shots=snakemake.input.shots,
            tables=snakemake.input.tables,
            manifest=snakemake.input.manifest,
            record=snakemake.input.record,
            split=snakemake.wildcards.split,
            prompts=snakemake.output.prompts,
            report=snakemake.output.report,
            **snakemake.params.settings,
        )
