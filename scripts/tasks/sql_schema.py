"""Read the schema of any SQLite file, in the form of an entry of Spider's tables.json."""

import sqlite3
from contextlib import closing
from pathlib import Path

from common.files import UserError

HEADER = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html#magic_header_string


def read_schema(path: str | Path) -> dict:
    """Return `table_names_original`, `column_names_original`, `column_types`, `primary_keys` and `foreign_keys`.

    The order of all of them, the kinds of types, and that of a primary key of several columns only the first is named,
    are those of the script that made Spider's own file (https://github.com/taoyds/spider, preprocess/get_tables.py):
    that is what models were trained on. So the prompts are those that the file's entry gives, but where that was mended
    by hand or made from another state of the database: 162 of Spider's 166 entries and 33 of the demo's 34 give the
    same text; the others differ in order or number of foreign keys. Views are left out, and so are the tables that
    SQLite keeps behind virtual ones.

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
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
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
    kinds = {
        "text": ("char", "text", "var"),
        "number": ("int", "numeric", "decimal", "number", "id", "real", "double", "float"),
        "time": ("date", "time", "year"),
        "boolean": ("boolean",),
    }
    if not declared:
        return "text"
    return next((kind for kind, words in kinds.items() if any(w in declared.lower() for w in words)), "others")
