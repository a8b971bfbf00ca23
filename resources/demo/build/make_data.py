"""Write the demo's data: a Spider-format and an MMLU-format data set. `python resources/demo/build/make_data.py`"""

import csv
import hashlib
import json
import random
import re
import shutil
import sqlite3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from domains import DEV, OTHERS, TRAIN
from facts import Fact, facts, options
from grammar import KINDS, Impossible, Kind, Schema, ask, fill, parse_domain

DEMO = Path(__file__).parents[1]
SEED = 20
# Questions a database, and the share of them that is asked in the plain style, which pre-training knows.
QUESTIONS = {"train": 36, "others": 36, "dev": 32}
PLAIN = 0.2
# More than 50, so that the workflow has a selection to make.
MMLU_TEST, MMLU_DEV = 60, 5
# Rows to replay of each fact that no test or dev question is about.
REPLAYED = 2


def connect(path: Path, schema: Schema) -> sqlite3.Connection:
    """Write a schema and its rows as a SQLite file; equal schemas give equal bytes."""
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    for table in schema.tables:
        lines = []
        for column in table.columns:
            kind = "INTEGER" if column.kind in ("key", "link", "number") else "TEXT"
            lines.append(f"{column.name} {kind}{' PRIMARY KEY' if column.kind == 'key' else ''}")
        lines += [f"FOREIGN KEY ({c.name}) REFERENCES {c.target} ({c.name})" for c in table.of("link")]
        connection.execute(f"CREATE TABLE {table.name} ({', '.join(lines)})")
        marks = ", ".join("?" * len(table.columns))
        connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", table.rows)
    connection.commit()
    return connection


def questions(rng: random.Random, schema: Schema, connection: sqlite3.Connection, count: int) -> list[dict]:
    """Draw questions whose answers are not empty, no question twice, kinds as evenly as the schema allows."""
    rows: list[dict] = []
    seen: set[str] = set()
    queue: list[Kind] = []
    while len(rows) < count:
        if not queue:
            queue = rng.sample(KINDS, len(KINDS))
        chosen = queue.pop()
        try:
            text, sql = ask(rng, schema, chosen, chosen.plain if rng.random() < PLAIN else chosen.analyst)
        except Impossible:
            continue
        if text in seen or not connection.execute(sql).fetchall():
            continue
        seen.add(text)
        rows.append({"db_id": schema.db_id, "question": text, "query": sql})
    return rows


def write_spider(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    rng = random.Random(SEED)
    tables = []
    for split, domains in (("train", TRAIN), ("others", OTHERS), ("dev", DEV)):
        rows = []
        for db_id, text in domains.items():
            schema = parse_domain(db_id, text)
            fill(rng, schema)
            connection = connect(folder / "database" / db_id / f"{db_id}.sqlite", schema)
            rows += questions(rng, schema, connection, QUESTIONS[split])
            connection.close()
            tables.append(schema.tables_json())
        name = {"train": "train_spider", "others": "train_others", "dev": "dev"}[split]
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (folder / "tables.json").write_text(json.dumps(tables, indent=1) + "\n")


def mmlu_rows() -> dict[tuple[str, str], list[list[str]]]:
    """Return the rows of each (split, subject): question, four choices, letter."""
    rng = random.Random(SEED)
    rows: dict[tuple[str, str], list[list[str]]] = {}
    by_subject: dict[str, list] = {}
    for fact in facts():
        by_subject.setdefault(fact.subject, []).append(fact)
    for subject, known in by_subject.items():
        chosen = rng.sample(known, MMLU_TEST + MMLU_DEV)
        drawn = [[fact.question, *choices, letter] for fact in chosen for choices, letter in [options(rng, fact)]]
        rows["dev", subject], rows["test", subject] = drawn[:MMLU_DEV], drawn[MMLU_DEV:]
    return rows


def held_out() -> set[str]:
    """Return the hashes of the test questions with their choices in order, which pre-training must not show."""
    return {
        fingerprint(row[0], row[1:5]) for (split, _), rows in mmlu_rows().items() if split == "test" for row in rows
    }


def fingerprint(question: str, choices: list[str]) -> str:
    return hashlib.sha256(json.dumps([question, choices]).encode()).hexdigest()


def write_mmlu(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for (split, subject), rows in mmlu_rows().items():
        path = folder / split / f"{subject}_{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)


def about_the_same(one: Fact, other: Fact) -> bool:
    """Return whether two facts are one in other words: each question names what the other one's answer is."""

    def names(fact: Fact, answer: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", fact.question) is not None

    return one.question == other.question or (names(one, other.answer) and names(other, one.answer))


def replay_rows() -> list[list[str]]:
    """Return rows on the facts that no test or dev question is about: subject, question, four choices, letter."""
    rng = random.Random(SEED + 1)
    asked = {(subject, row[0]) for (_, subject), rows in mmlu_rows().items() for row in rows}
    used = [fact for fact in facts() if (fact.subject, fact.question) in asked]
    left = [
        fact
        for fact in facts()
        if not any(fact.subject == other.subject and about_the_same(fact, other) for other in used)
    ]
    rows = []
    for _ in range(REPLAYED):
        for fact in left:
            choices, letter = options(rng, fact)
            rows.append([fact.subject, fact.question, *choices, letter])
    rng.shuffle(rows)
    return rows


def write_replay(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["subject", "question", "A", "B", "C", "D", "answer"])
        writer.writerows(replay_rows())


if __name__ == "__main__":
    write_spider(DEMO / "spider_data")
    write_mmlu(DEMO / "mmlu")
    write_replay(DEMO / "replay.csv")
