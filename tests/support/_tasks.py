"""Small data of every kind of task, made by code: the same bytes of text and the same rows on every run."""

import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tasks.base import filled

PROMPTS = Path(__file__).parents[2] / "resources" / "prompts"
THINGS = ("ship", "horse", "clock", "garden", "bridge", "violin")
COLOURS = ("red", "green", "blue", "black")
DIFFICULTY = ("simple", "moderate", "challenging")


def database(path: Path, thing: str) -> None:
    """Write a database of one kind of thing and its makers; every third thing has no price."""
    generator = random.Random(thing)
    makers = [(i, f"Maker {i}", generator.choice(("Porto", "Lyon", "Graz"))) for i in range(1, 5)]
    things = [
        (i, f"{thing.title()} {i}", generator.choice(COLOURS), generator.randint(1, 4), i % 3 and i * 10)
        for i in range(1, 13)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE maker (maker_id INTEGER PRIMARY KEY, name TEXT, town TEXT)")
        connection.execute(
            f"CREATE TABLE {thing} ({thing}_id INTEGER PRIMARY KEY, name TEXT, colour TEXT, "
            "maker_id INTEGER REFERENCES maker (maker_id), price INTEGER)"
        )
        connection.executemany("INSERT INTO maker VALUES (?, ?, ?)", makers)
        connection.executemany(f"INSERT INTO {thing} VALUES (?, ?, ?, ?, nullif(?, 0))", things)


def questions(thing: str) -> list[dict[str, str]]:
    """Twelve questions on such a database, of three levels in turn: db_id, question and query."""
    join = f"FROM {thing} AS T1 JOIN maker AS T2 ON T1.maker_id = T2.maker_id"
    asked = []
    for colour in COLOURS:
        asked += [
            (f"How many {colour} {thing}s are there?", f"SELECT count(*) FROM {thing} WHERE colour = '{colour}'"),
            (f"Which towns make {colour} {thing}s?", f"SELECT T2.town {join} WHERE T1.colour = '{colour}'"),
            (
                f"Which maker has most {colour} {thing}s?",
                f"SELECT T2.name {join} WHERE T1.colour = '{colour}' GROUP BY T2.maker_id ORDER BY count(*) DESC, "
                "T2.maker_id LIMIT 1",
            ),
        ]
    return [{"db_id": f"{thing}s", "question": question, "query": query} for question, query in asked]


def spider_folder(folder: Path, train: bool = True) -> Path:
    """Databases and questions in Spider's form without tables.json: two things to ask, four to train on."""
    asked, learnt = THINGS[:2], THINGS[2:] if train else ()
    for thing in (*asked, *learnt):
        database(folder / "database" / f"{thing}s" / f"{thing}s.sqlite", thing)
    for name, things in (("dev", asked), ("train", learnt)):
        if things:
            rows = [row for thing in things for row in questions(thing)]
            (folder / f"{name}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return folder


def tables_entry(path: Path, db_id: str) -> dict:
    """The entry of a database in tables.json, written out by hand: the schema that `database` makes."""
    thing = path.stem.removesuffix("s")
    columns = ["maker_id", "name", "town"], [f"{thing}_id", "name", "colour", "maker_id", "price"]
    return {
        "db_id": db_id,
        "table_names_original": ["maker", thing],
        "column_names_original": [[-1, "*"], *([n, name] for n, names in enumerate(columns) for name in names)],
        "column_types": ["text", "number", "text", "text", "number", "text", "text", "number", "number"],
        "primary_keys": [1, 4],
        "foreign_keys": [[7, 1]],
    }


def bird_release(folder: Path, train: bool = True, packed: bool = True) -> Path:
    """BIRD's release as it is unpacked: dev_20240627/ and train/, their databases in archives of their own."""
    parts = {"dev": ("dev_20240627", THINGS[:2]), "train": ("train", THINGS[2:])}
    for part, (place, things) in parts.items() if train else [("dev", parts["dev"])]:
        root, rows, tables = folder / place, [], []
        for thing in things:
            path = root / f"{part}_databases" / f"{thing}s" / f"{thing}s.sqlite"
            database(path, thing)
            description = path.parent / "database_description" / "maker.csv"
            description.parent.mkdir()
            description.write_text("original_column_name,column_description\ntown,where the maker is\n")
            tables.append(tables_entry(path, f"{thing}s"))
            for row in questions(thing):
                evidence = f"{thing}s are made by makers" if "maker" in row["question"] else ""
                rows.append(
                    {"db_id": row["db_id"], "question": row["question"], "evidence": evidence, "SQL": row["query"]}
                )
        if part == "dev":
            rows = [{"question_id": n, **row, "difficulty": DIFFICULTY[n % 3]} for n, row in enumerate(rows)]
        (root / f"{part}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (root / f"{part}_tables.json").write_text(json.dumps(tables, indent=1), encoding="utf-8")
        if packed:
            archive = root / f"{part}_databases"
            shutil.make_archive(str(archive), "zip", root, archive.name)
            shutil.rmtree(archive)
    return folder


def jsonl_rows(form: str, first: int, number: int) -> list[dict]:
    """Rows about sums: of form choice (4 choices), exact or regex; `topic` and `size` are keys to divide them by."""
    rows = []
    for n in range(first, first + number):
        left, right = n % 10, n // 10
        total = left + right
        row = {"question": f"What is {left} + {right}?", "topic": f"plus {right}", "size": "one digit"}
        row["size"] = "two digits" if total > 9 else "one digit"
        if form == "choice":
            shift = n % 4
            row |= {"choices": [str(total + i - shift) for i in range(4)], "answer": "ABCD"[shift]}
        elif form == "exact":
            row |= {"answer": str(total)}
        else:
            row |= {"answer": rf"(the sum is )?{total}\.?", "target": str(total)}
        rows.append(row)
    return rows


def jsonl_file(path: Path, form: str = "choice", first: int = 0, number: int = 40) -> Path:
    """Write such rows, the first of which is the row `first` of one list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in jsonl_rows(form, first, number)), encoding="utf-8")
    return path


def edit(path: Path, row: int, **changes) -> None:
    """Change a row of a file of JSON."""
    rows = json.loads(path.read_text())
    rows[row] |= changes
    path.write_text(json.dumps(rows))


def options(task, **keys) -> dict:
    """All keys of a task's section as a step gets them, whatever the stage; the task is called mine."""
    return task.Options(**keys).model_dump(by_alias=True) | {"name": "tasks.mine"}


def shown(task, chosen: dict, folder: Path, row: dict, pool: list[dict] = ()) -> list:
    """The turns of a row's prompt, of the task's own template."""
    from llm.prompts import template

    return template(PROMPTS / task.PROMPT)(filled(task, task.context(chosen, folder), row, pool, chosen))
