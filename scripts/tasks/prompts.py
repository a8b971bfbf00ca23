"""The words of every prompt. Pure text: no tokenizer, no model, so that any reader can see what a model is asked.

A prompt is a system text and one user turn; the model's own chat template wraps them (`render_spider`,
`render_mmlu`). Base and adapters read the same rendered file.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from common.files import UserError

LETTERS = "ABCD"


def _quote(name: str) -> str:
    """Quote an identifier for SQLite where it is not a plain word."""
    return name if name.isidentifier() and name.isascii() else '"' + name.replace('"', '""') + '"'


def _tables(schema: dict) -> list[tuple[int, str]]:
    """Return the tables with their numbers. One release entry lists a table of SQLite's own, which is no data."""
    return [(n, name) for n, name in enumerate(schema["table_names_original"]) if not name.startswith("sqlite_")]


def _keys(schema: dict) -> list[tuple[str, str, str, str]]:
    """Return the foreign keys of a `tables.json` entry as (table, column, other table, other column)."""
    tables, columns = schema["table_names_original"], schema["column_names_original"]
    return [
        (tables[columns[a][0]], columns[a][1], tables[columns[b][0]], columns[b][1]) for a, b in schema["foreign_keys"]
    ]


def compact_schema(schema: dict) -> str:
    """Render a `tables.json` entry as one line a table, then one line a foreign key.

    singer (singer_id, name, country)
    song (song_id, title, singer_id)
    song.singer_id = singer.singer_id
    """
    lines = []
    for number, table in _tables(schema):
        columns = [name for owner, name in schema["column_names_original"] if owner == number]
        lines.append(f"{_quote(table)} ({', '.join(map(_quote, columns))})")
    for table, column, other, target in _keys(schema):
        lines.append(f"{_quote(table)}.{_quote(column)} = {_quote(other)}.{_quote(target)}")
    return "\n".join(lines)


def pipe_schema(schema: dict) -> str:
    """Render a `tables.json` entry as one line between bars a table, then all foreign keys in one line.

    | singer : singer_id , name , country |
    | song : song_id , title , singer_id |
    Relationships:
    song.singer_id = singer.singer_id
    """
    lines = []
    for number, table in _tables(schema):
        columns = [name for owner, name in schema["column_names_original"] if owner == number]
        lines.append(f"| {table} : {' , '.join(columns)} |")
    keys = [f"{table}.{column} = {other}.{target}" for table, column, other, target in _keys(schema)]
    return "\n".join([*lines, "Relationships:", " , ".join(keys)] if keys else lines)


def ddl_schema(schema: dict, database: str | Path | None = None, sample_rows: int = 0) -> str:
    """Render a `tables.json` entry as CREATE TABLE statements, keys included.

    With `sample_rows`, the first rows of each table of the SQLite file `database` follow in a comment, which shows a
    model how values are written (Rajkumar et al. 2022, arXiv:2204.00498).

    Raises:
        UserError: `database` is missing or lacks a table of the schema.
    """
    types = {"text": "TEXT", "number": "NUMERIC", "time": "DATETIME", "boolean": "BOOLEAN"}
    primary = {n for key in schema["primary_keys"] for n in (key if isinstance(key, list) else [key])}
    blocks = []
    for number, table in _tables(schema):
        lines, key = [], []
        for position, (owner, name) in enumerate(schema["column_names_original"]):
            if owner != number:
                continue
            lines.append(f"  {_quote(name)} {types.get(schema['column_types'][position], 'TEXT')}")
            if position in primary:
                key.append(_quote(name))
        if key:
            lines.append(f"  PRIMARY KEY ({', '.join(key)})")
        for source, column, other, target in _keys(schema):
            if source == table:
                lines.append(f"  FOREIGN KEY ({_quote(column)}) REFERENCES {_quote(other)} ({_quote(target)})")
        block = f"CREATE TABLE {_quote(table)} (\n" + ",\n".join(lines) + "\n);"
        if sample_rows:
            block += "\n" + _sample(database, table, sample_rows)
        blocks.append(block)
    return "\n".join(blocks)


def _sample(database: str | Path | None, table: str, rows: int) -> str:
    if database is None or not Path(database).is_file():
        raise UserError(f"{database}: no such database. Run `snakemake -R fetch_spider` to fetch it again.")
    connection = sqlite3.connect(f"file:{Path(database).absolute()}?mode=ro&immutable=1", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    try:
        name = table.replace('"', '""')
        cursor = connection.execute(f'SELECT * FROM "{name}" LIMIT {int(rows)}')
        lines = ["\t".join(column[0] for column in cursor.description)]
        # A long text would fill the prompt and teach nothing about the format of the column.
        lines += ["\t".join("NULL" if v is None else str(v)[:50] for v in row) for row in cursor]
    except sqlite3.Error as error:
        raise UserError(f"{database}: cannot read table {table} ({error}). tables.json and the file differ.") from None
    finally:
        connection.close()
    return f"/*\n{rows} rows of {table}:\n" + "\n".join(lines).replace("*/", "* /") + "\n*/"


def spider_user(shots: Sequence[dict], schema: str, question: str, style: str = "default") -> str:
    """Return the user turn of a text-to-SQL prompt: solved examples, then the question, ending at `SQL:`.

    Args:
        shots: dicts of strings: `schema` (rendered), `question`, `query`.
        schema: rendered; empty for a question without one.
        question: what is asked.
        style: "default", or "ribeiro", which puts `Schema:` before a schema, an empty line after it, and the SQL on a
            line of its own.
    """
    before, after, sql = {"default": ("", "\n", " "), "ribeiro": ("Schema:\n", "\n\n", "\n")}[style]
    blocks = []
    for block in [*shots, {"schema": schema, "question": question}]:
        head = f"{before}{block['schema']}{after}" if block["schema"] else ""
        query = f"{sql}{block['query']}" if "query" in block else sql.rstrip(" ")
        blocks.append(f"{head}Question: {block['question']}\nSQL:{query}")
    return "\n\n".join(blocks)


def mmlu_user(subject: str, shots: Sequence[dict], question: str, choices: Sequence[str]) -> str:
    """Return the user turn of an MMLU prompt, ending at `Answer:`.

    The words are those of the benchmark (Hendrycks et al. 2021, arXiv:2009.03300).

    Each shot is a dict: `question`, `choices` (4 strings), `answer` (a letter A to D).
    """
    blocks = [f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."]
    for shot in shots:
        blocks.append(f"{_choices(shot['question'], shot['choices'])}\nAnswer: {shot['answer']}")
    blocks.append(f"{_choices(question, choices)}\nAnswer:")
    return "\n\n".join(blocks)


def _choices(question: str, choices: Sequence[str]) -> str:
    return (
        question.strip() + "\n" + "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=True))
    )
