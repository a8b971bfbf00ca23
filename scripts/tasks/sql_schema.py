"""The schema of a database as text of a prompt: from an entry of Spider's tables.json, or from any SQLite file."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

from common.files import UserError

# The kind of a column by what its declared type contains, the first that fits.
KINDS = {
    "text": ("char", "text", "var"),
    "number": ("int", "numeric", "decimal", "number", "id", "real", "double", "float"),
    "time": ("date", "time", "year"),
    "boolean": ("boolean",),
}
HEADER = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html#magic_header_string


def misshapen(schema: Mapping) -> str | None:
    """Say what of an entry of tables.json, which has all keys, is not in Spider's form; None if all is."""
    tables, columns, types, primary, foreign = (
        schema[key] if isinstance(schema[key], list) else None
        for key in ("table_names_original", "column_names_original", "column_types", "primary_keys", "foreign_keys")
    )
    if not tables or not all(isinstance(name, str) for name in tables):
        return "table_names_original is no list of names."
    if not columns or not all(
        isinstance(one, list) and [*map(type, one)] == [int, str] and -1 <= one[0] < len(tables) for one in columns
    ):
        return "column_names_original is no list of pairs [number of the table, name]."
    if types is None or len(types) != len(columns):
        return f"column_types is no list of {len(columns)} types, one for each column."
    places = range(len(columns))
    if primary is None or not all(n in places for key in primary for n in (key if isinstance(key, list) else [key])):
        return "primary_keys is no list of numbers of columns."
    if foreign is None or not all(isinstance(key, list) and len(key) == 2 and {*key} <= {*places} for key in foreign):
        return "foreign_keys is no list of pairs of numbers of columns."
    return None


def schema_texts(
    tables: Sequence[dict], style: str, databases: Path = Path(), sample_rows: int = 0
) -> Callable[[str], str]:
    """Make a function that renders the schema of a database by its db_id, once.

    Args:
        tables: entries of Spider's tables.json.
        databases: the folder that holds <db_id>/<db_id>.sqlite; the others as of `schema_text`.
    """
    entries = {entry["db_id"]: entry for entry in tables}

    @cache
    def text(db_id: str) -> str:
        if db_id not in entries:
            raise UserError(f"tables.json: no entry for database {db_id}. The Spider files do not belong together.")
        return schema_text(entries[db_id], style, databases / db_id / f"{db_id}.sqlite", sample_rows)

    return text


def schema_text(schema: dict, style: str, database: Path, sample_rows: int) -> str:
    """Render an entry of tables.json as compact, pipe, ddl, ddl_rows, or none for no text at all.

    ddl_rows alone reads the file `database`: `sample_rows` of each table.
    """
    match style:
        case "none":
            return ""
        case "compact":
            return compact_schema(schema)
        case "pipe":
            return pipe_schema(schema)
    return _ddl_schema(schema, database if style == "ddl_rows" else None, sample_rows)


def _quote(name: str) -> str:
    """Quote an identifier for SQLite where it is not a plain word."""
    return name if name.isidentifier() and name.isascii() else '"' + name.replace('"', '""') + '"'


def _tables(schema: dict) -> list[tuple[str, list[int]]]:
    """Name each table with the places of its columns. One release entry lists a table of SQLite's own: no data."""
    owners = [owner for owner, _ in schema["column_names_original"]]
    return [
        (name, [place for place, owner in enumerate(owners) if owner == number])
        for number, name in enumerate(schema["table_names_original"])
        if not name.startswith("sqlite_")
    ]


def _keys(schema: dict) -> list[tuple[str, str, str, str]]:
    """List the foreign keys as (table, column, other table, other column)."""
    tables, columns = schema["table_names_original"], schema["column_names_original"]
    return [
        (tables[columns[a][0]], columns[a][1], tables[columns[b][0]], columns[b][1]) for a, b in schema["foreign_keys"]
    ]


def database_facts(schema: dict) -> dict[str, list[dict]]:
    """Say what an entry of tables.json holds, SQLite's own tables included, for templates with a schema form of theirs.

    Returns:
        `tables`, each with its `name`, `columns` (of `name` and `type`) and `key`, the names of its primary key;
        `foreign_keys`, each with `table`, `column`, `other_table` and `other_column`.
    """
    primary = {n for key in schema["primary_keys"] for n in (key if isinstance(key, list) else [key])}
    columns = [
        (owner, name, kind)
        for (owner, name), kind in zip(schema["column_names_original"], schema["column_types"], strict=True)
    ]
    tables = [
        {
            "name": table,
            "columns": [{"name": name, "type": kind} for owner, name, kind in columns if owner == number],
            "key": [name for place, (owner, name, _) in enumerate(columns) if owner == number and place in primary],
        }
        for number, table in enumerate(schema["table_names_original"])
    ]
    names = ("table", "column", "other_table", "other_column")
    return {"tables": tables, "foreign_keys": [dict(zip(names, key, strict=True)) for key in _keys(schema)]}


def compact_schema(schema: dict) -> str:
    """Render a `tables.json` entry as one line a table, then one line a foreign key.

    singer (singer_id, name, country)
    song (song_id, title, singer_id)
    song.singer_id = singer.singer_id
    """
    names = [_quote(name) for _, name in schema["column_names_original"]]
    lines = [f"{_quote(table)} ({', '.join(names[i] for i in columns)})" for table, columns in _tables(schema)]
    return "\n".join([*lines, *("{}.{} = {}.{}".format(*map(_quote, key)) for key in _keys(schema))])


def pipe_schema(schema: dict) -> str:
    """Render a `tables.json` entry as one line between bars a table, then all foreign keys in one line.

    | singer : singer_id , name , country |
    | song : song_id , title , singer_id |
    Relationships:
    song.singer_id = singer.singer_id
    """
    names = [name for _, name in schema["column_names_original"]]
    lines = [f"| {table} : {' , '.join(names[i] for i in columns)} |" for table, columns in _tables(schema)]
    keys = ["{}.{} = {}.{}".format(*key) for key in _keys(schema)]
    return "\n".join([*lines, "Relationships:", " , ".join(keys)] if keys else lines)


def _ddl_schema(schema: dict, database: Path | None, sample_rows: int) -> str:
    """Render a `tables.json` entry as CREATE TABLE statements, keys included.

    The first rows of each table follow in a comment if there is a `database`, to show a model how values are written
    (Rajkumar et al. 2022, arXiv:2204.00498).
    """
    types = {"text": "TEXT", "number": "NUMERIC", "time": "DATETIME", "boolean": "BOOLEAN"}
    primary = {n for key in schema["primary_keys"] for n in (key if isinstance(key, list) else [key])}
    names = [_quote(name) for _, name in schema["column_names_original"]]
    blocks = []
    for table, columns in _tables(schema):
        lines = [f"  {names[i]} {types.get(schema['column_types'][i], 'TEXT')}" for i in columns]
        if key := [names[i] for i in columns if i in primary]:
            lines.append(f"  PRIMARY KEY ({', '.join(key)})")
        for source, *rest in _keys(schema):
            if source == table:
                lines.append("  FOREIGN KEY ({}) REFERENCES {} ({})".format(*map(_quote, rest)))
        block = f"CREATE TABLE {_quote(table)} (\n" + ",\n".join(lines) + "\n);"
        if database is not None:
            block += "\n" + _sample(database, table, sample_rows)
        blocks.append(block)
    return "\n".join(blocks)


def _sample(database: Path, table: str, rows: int) -> str:
    if not database.is_file():
        raise UserError(f"{database}: no such database. Run `snakemake -R fetch_spider` to fetch it again.")
    name = table.replace('"', '""')
    with _opened(database) as connection:
        try:
            cursor = connection.execute(f'SELECT * FROM "{name}" LIMIT {int(rows)}')
            lines = ["\t".join(column[0] for column in cursor.description)]
            # A long text would fill the prompt and teach nothing about the format of the column.
            lines += ["\t".join("NULL" if v is None else str(v)[:50] for v in row) for row in cursor]
        except sqlite3.Error as error:
            raise UserError(
                f"{database}: cannot read table {table} ({error}). tables.json and the file differ."
            ) from None
    return f"/*\n{rows} rows of {table}:\n" + "\n".join(lines).replace("*/", "* /") + "\n*/"


def _opened(path: Path) -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    return closing(connection)


def read_schema(path: str | Path) -> dict:
    """Return `table_names_original`, `column_names_original`, `column_types`, `primary_keys` and `foreign_keys`.

    Order and types, and that of a primary key of several columns only the first is named, follow the script that made
    Spider's own file (https://github.com/taoyds/spider, preprocess/get_tables.py), on which models were trained. So the
    prompts are those of the file's entry, unless that was mended by hand or made from another state of the database:
    162 of Spider's 166 entries and 33 of the demo's 34 give the same text, the others differ in foreign keys. Views and
    the tables that SQLite keeps behind virtual ones are left out.

    Raises:
        UserError: no such file, not a SQLite database, or one without tables.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Name a SQLite database.")
    with path.open("rb") as stream:
        if stream.read(len(HEADER)) not in (HEADER, b""):  # an empty file is an empty database
            raise UserError(f"{path}: not a SQLite database, by its first bytes. Name the .sqlite or .db file.")
    try:
        with _opened(path) as connection:
            return _read(connection, path)
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be read as a SQLite database ({error}).") from None


def check_whole(path: Path, shown: str) -> None:
    """Refuse a file, called `shown`, that is not a SQLite database from its first page to its last."""
    try:
        with _opened(path) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise UserError(f"{shown}: a damaged SQLite database ({found.splitlines()[-1]}). Get the data again.")


# Without the tables of SQLite itself and those that it keeps behind virtual ones.
TABLES = """
    SELECT name, rowid AS place FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    AND name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow')
"""
# table_xinfo, not table_info, which leaves generated columns out; 1 are those of a virtual table that SELECT * has not.
COLUMNS = f"""
    SELECT tables.name, columns.name, columns.type, columns.pk
    FROM ({TABLES}) AS tables JOIN pragma_table_xinfo(tables.name) AS columns
    WHERE columns.hidden <> 1 ORDER BY tables.place, columns.cid
"""
FOREIGN_KEYS = f"""
    SELECT tables.name, keys."from", keys."table", keys."to", keys.seq
    FROM ({TABLES}) AS tables JOIN pragma_foreign_key_list(tables.name) AS keys
    ORDER BY tables.place, keys.id, keys.seq
"""


def _read(connection: sqlite3.Connection, path: Path) -> dict:
    primary: dict[str, dict[int, int]] = {}  # of each table the places of the key's columns, by their rank in it
    columns, types = [[-1, "*"]], ["text"]
    for table, name, declared, rank in connection.execute(COLUMNS):
        key = primary.setdefault(table, {})
        if rank:
            key[rank] = len(columns)
        columns.append([len(primary) - 1, name])
        types.append(_type(declared))
    if not primary:
        raise UserError(f"{path}: has no tables. Name a database with some.")
    keys = list(primary.values())
    # SQLite takes names in any case.
    numbers = {name.lower(): number for number, name in enumerate(primary)}
    places = {(number, name.lower()): place for place, (number, name) in enumerate(columns)}
    foreign = []
    for table, source, other, target, position in connection.execute(FOREIGN_KEYS):
        there = numbers.get(other.lower())
        if there is None:  # SQLite lets a key refer to what does not exist
            continue
        # REFERENCES without columns: the primary key. Its ranks begin with 1.
        to = keys[there].get(position + 1) if target is None else places.get((there, target.lower()))
        if to is not None:
            foreign.append([places[numbers[table.lower()], source.lower()], to])
    return {
        "db_id": path.stem,
        "table_names_original": list(primary),
        "column_names_original": columns,
        "column_types": types,
        "primary_keys": [key[1] for key in keys if key],
        "foreign_keys": foreign,
    }


def _type(declared: str) -> str:
    if not declared:
        return "text"
    return next((kind for kind, words in KINDS.items() if any(w in declared.lower() for w in words)), "others")
