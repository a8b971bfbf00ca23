"""The schema of a database as text of a prompt: from an entry of Spider's tables.json, or from any SQLite file."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
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


class Schemas(dict[str, str]):
    """The schema text of each database by its db_id, rendered when it is first asked for.

    Args:
        tables: entries of Spider's tables.json.
        databases: the folder that holds <db_id>/<db_id>.sqlite; read for sample rows only.
        style: compact, pipe, ddl, ddl_rows, or none for no text at all.
        sample_rows: rows a table, for ddl_rows.
    """

    def __init__(self, tables: Sequence[dict], databases: str | Path, style: str, sample_rows: int):
        super().__init__()
        self.tables = {entry["db_id"]: entry for entry in tables}
        self.databases, self.style, self.sample_rows = Path(databases), style, sample_rows

    def __missing__(self, db_id: str) -> str:
        if db_id not in self.tables:
            raise UserError(f"tables.json: no entry for database {db_id}. The Spider files do not belong together.")
        self.add(db_id, self.tables[db_id], self.databases / db_id / f"{db_id}.sqlite")
        return self[db_id]

    def attach(self, row: dict) -> dict:
        """Return the row with its database's schema as `schema`."""
        return row | {"schema": self[row["db_id"]]}

    def add(self, name: str, entry: dict, database: str | Path) -> None:
        """Render a schema that is to be known as `name`; the file `database` is read for ddl_rows only."""
        match self.style:
            case "none":
                self[name] = ""
            case "compact":
                self[name] = compact_schema(entry)
            case "pipe":
                self[name] = pipe_schema(entry)
            case "ddl":
                self[name] = _ddl_schema(entry)
            case _:
                self[name] = _ddl_schema(entry, Path(database), self.sample_rows)


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


def _ddl_schema(schema: dict, database: Path | None = None, sample_rows: int = 0) -> str:
    """Render a `tables.json` entry as CREATE TABLE statements, keys included.

    The first `sample_rows` of each table of the SQLite file `database` follow in a comment, which shows a model how
    values are written (Rajkumar et al. 2022, arXiv:2204.00498).
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


def _read(connection: sqlite3.Connection, path: Path) -> dict:
    hidden = {row[0] for row in connection.execute("SELECT name FROM pragma_table_list WHERE type = 'shadow'")}
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    tables = [name for (name,) in connection.execute(query) if name not in hidden]
    if not tables:
        raise UserError(f"{path}: has no tables. Name a database with some.")
    columns, types, keys = [[-1, "*"]], ["text"], []
    for number, table in enumerate(tables):
        key = {}
        # table_xinfo, not table_info, which leaves generated columns out.
        rows = connection.execute("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", (table,))
        for name, declared, rank, kind in rows:
            if kind == 1:  # of a virtual table; SELECT * has it not
                continue
            if rank:
                key[rank] = len(columns)
            columns.append([number, name])
            types.append(_type(declared))
        keys.append([key[rank] for rank in sorted(key)])
    # SQLite takes names in any case.
    places = {(number, name.lower()): place for place, (number, name) in enumerate(columns)}
    numbers = {name.lower(): number for number, name in enumerate(tables)}
    foreign = []
    for number, table in enumerate(tables):
        query = 'SELECT "from", "table", "to", seq FROM pragma_foreign_key_list(?) ORDER BY id, seq'
        for source, other, target, position in connection.execute(query, (table,)):
            there = numbers.get(other.lower())
            if there is None:  # SQLite lets a key refer to what does not exist
                continue
            # REFERENCES without columns: the primary key.
            whole = dict(enumerate(keys[there]))
            to = whole.get(position) if target is None else places.get((there, target.lower()))
            if to is not None:
                foreign.append([places[number, source.lower()], to])
    return {
        "db_id": path.stem,
        "table_names_original": tables,
        "column_names_original": columns,
        "column_types": types,
        "primary_keys": [key[0] for key in keys if key],
        "foreign_keys": foreign,
    }


def _type(declared: str) -> str:
    if not declared:
        return "text"
    return next((kind for kind, words in KINDS.items() if any(w in declared.lower() for w in words)), "others")
