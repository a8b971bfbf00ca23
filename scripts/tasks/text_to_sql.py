"""Text-to-SQL on data of Spider's form: splits that do not overlap, few-shot examples, the user's turn, and scoring.

A row has id (`<file>-<5-digit position>`), db_id, question, query and hardness.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import UserError, read_json, sha256_file
from custom_metrics.hardness import LEVELS, hardness, parse
from custom_metrics.judge import Judge

# An example is paid for in every prompt, with its schema: what is drawn is short.
MAX_SHOT_CHARACTERS = 200
MAX_SHOT_COLUMNS = 30
REFETCH = "Run `snakemake -R fetch_spider` to fetch it again."
# Of each prompt.style: what stands before a schema, after it, and before the SQL.
STYLES = {"default": ("", "\n", " "), "ribeiro": ("Schema:\n", "\n\n", "\n")}


def prepare(options: Mapping[str, Any], folder: str | Path) -> tuple[dict[str, list[dict]], list[str]]:
    """Split the questions of a folder, the same way on every run and every machine.

    Args:
        options: `train_files`, `train_questions`, `shots`, `seed` and `validation` of the section spider
            (`study.schema.Spider`). Few-shot examples are in no other split, and their drawing and that of validation
            rows have each a generator of its own. With validation by "dev", what is chosen by these rows has seen the
            test.
        folder: of train_spider.json, train_others.json, dev.json and tables.json.

    Returns:
        The rows of train, validation, dev and shots; and the ids of training rows that were left out, as they ask a
        question of a few-shot example.

    Raises:
        UserError: an unknown db_id or example, a dev database in a training file, a split without rows, or fewer rows
            than are to be kept.
    """
    folder, validation, shots = Path(folder), options["validation"], options["shots"]
    schemas = {schema["db_id"]: schema for schema in read_json(folder / "tables.json")}
    dev = _read(folder / "dev.json", schemas)
    train = [row for name in options["train_files"] for row in _read(folder / f"{name}.json", schemas)]
    dev_databases = {row["db_id"] for row in dev}
    if both := [row for row in train if row["db_id"] in dev_databases]:
        raise UserError(
            f"{both[0]['id']}: is on database {both[0]['db_id']}, which is in dev.json too. Training on it would spoil "
            "the evaluation; remove its rows from one of the two files."
        )
    examples = draw_shots(train, shots, options["seed"], schemas) if isinstance(shots, int) else _named(train, shots)
    # The release has a few questions twice: a copy of an example would show the model its own answer in every prompt.
    taken = {row["id"] for row in examples}
    asked = {(row["db_id"], row["question"]) for row in examples}
    copies = [row["id"] for row in train if row["id"] not in taken and (row["db_id"], row["question"]) in asked]
    rest = [row for row in train if row["id"] not in taken.union(copies)]
    if validation["by"] == "dev":
        kept, held_out = rest, dev
    else:
        kept, held_out = _split_validation(rest, validation, options["seed"], {row["db_id"] for row in examples})
    kept = _first(kept, options["train_questions"], "spider.train_questions")
    if held_out:
        held_out = _first(held_out, validation["questions"], "spider.validation.questions")
    ids = [row["id"] for row in kept + held_out + examples]
    assert len(ids) == len(set(ids)), "a row is in two splits"
    return {"train": kept, "validation": held_out, "dev": dev, "shots": examples}, copies


def _first(rows: list[dict], number: int | None, key: str) -> list[dict]:
    if number is not None and number > len(rows):
        raise UserError(f"{key}: found {number}, expected at most {len(rows)}, or null for all.")
    return rows[:number]


def draw_shots(
    train: Sequence[dict], number: int, seed: int, schemas: dict[str, dict], first: Sequence[dict] = ()
) -> list[dict]:
    """Draw few-shot examples, each from another database, one easy, one medium, one hard, one extra and so on.

    Only rows whose query can be parsed, with at most `MAX_SHOT_CHARACTERS`, on a schema of at most `MAX_SHOT_COLUMNS`.
    The `number` rows begin with those of `first`; what is drawn does not depend on how many are drawn after it.

    Raises:
        UserError: there are fewer such databases than examples.
    """
    generator = random.Random(seed)
    candidates = [
        row
        for row in train
        if len(row["query"]) <= MAX_SHOT_CHARACTERS
        and len(schemas[row["db_id"]]["column_names_original"]) <= MAX_SHOT_COLUMNS
        and parse(row["query"]) is not None
    ]
    drawn = list(first)
    for position in range(len(drawn), number):
        used = {row["db_id"] for row in drawn}
        unused = [row for row in candidates if row["db_id"] not in used]
        level = LEVELS[position % len(LEVELS)]
        if not unused:
            raise UserError(
                f"spider.shots or evaluation.shots: found {len(drawn)} databases with a short query, expected "
                f"{number}. Use fewer shots."
            )
        drawn.append(generator.choice([row for row in unused if row["hardness"] == level] or unused))
    return drawn


def _split_validation(
    rows: Sequence[dict], validation: Mapping[str, Any], seed: int, shot_databases: set[str]
) -> tuple[list[dict], list[dict]]:
    """Divide rows into those of training and those of validation.

    by "rows": shuffled with the seed; the last `fraction` is validation, and training keeps the shuffled order.
    by "database": whole databases, in the seed's order, until `fraction` of the rows is reached; never one of the
    few-shot examples, since validation is to stand for databases never seen. Both keep the order of `rows`.
    by "none": no validation.
    """
    by, fraction = validation["by"], validation["fraction"]
    generator = random.Random(seed)
    if by == "none":
        return list(rows), []
    if by == "rows":
        shuffled = list(rows)
        generator.shuffle(shuffled)
        # 1 - 0.9 is a little less than 0.1, which must not cost a row.
        number = int(len(rows) * (1 - fraction) + 1e-6)
        kept, held_out = shuffled[:number], shuffled[number:]
    else:
        sizes = Counter(row["db_id"] for row in rows)
        order = sorted(set(sizes) - shot_databases)
        generator.shuffle(order)
        chosen: set[str] = set()
        for db_id in order:
            if sum(sizes[name] for name in chosen) >= fraction * len(rows):
                break
            chosen.add(db_id)
        kept = [row for row in rows if row["db_id"] not in chosen]
        held_out = [row for row in rows if row["db_id"] in chosen]
    if not kept or not held_out:
        raise UserError(
            f"spider, validation: {fraction} of {len(rows)} rows by {by} leaves {len(kept)} for training and "
            f"{len(held_out)} for validation. Choose another fraction, or by: none."
        )
    return kept, held_out


def _read(path: Path, schemas: Mapping[str, dict]) -> list[dict]:
    rows = []
    for number, row in enumerate(read_json(path)):
        if row["db_id"] not in schemas:
            raise UserError(f"{path}, row {number}: db_id {row['db_id']!r} is not in tables.json. Get the data again.")
        # Kept exactly but for the ends, where a line break would be learnt as a part of the answer.
        query = row["query"].strip()
        name, question = f"{path.stem}-{number:05d}", row["question"].strip()
        hard = hardness(query)
        rows.append({"id": name, "db_id": row["db_id"], "question": question, "query": query, "hardness": hard})
    return rows


def _named(train: Sequence[dict], ids: Sequence[str]) -> list[dict]:
    rows = {row["id"]: row for row in train}
    if missing := [name for name in ids if name not in rows]:
        raise UserError(
            f"spider, shots: {missing[0]!r} is no row of the training files (spider, train_files); "
            f"expected an id like {next(iter(rows), 'train_spider-00017')}."
        )
    if len(set(ids)) != len(ids):
        raise UserError("spider, shots: an id comes twice. Name each row once.")
    return [rows[name] for name in ids]


def select(rows: list[dict], questions: int | None, exclude_databases: Sequence[str]) -> list[dict]:
    """Choose the dev rows to ask: without the excluded databases, then the first `questions` (None = all).

    Raises:
        UserError: an excluded database is not there, or there are fewer questions than asked for.
    """
    unknown = sorted(set(exclude_databases) - {row["db_id"] for row in rows})
    if unknown:
        raise UserError(f"spider.exclude_databases: found {', '.join(unknown)}, expected databases of the dev split.")
    kept = [row for row in rows if row["db_id"] not in exclude_databases]
    return _first(kept, questions, "spider.dev_questions")


def user_turn(row: Mapping[str, str], shots: Sequence[Mapping[str, str]], style: str = "default") -> str:
    """Write the user's turn: few-shot examples, then the question of `row`, ending at `SQL:`.

    Args:
        row, shots: each with `question` and `schema`, the text of its database's schema (`Schemas.attach`), which may
            be empty; examples with `query`.
        style: one of `STYLES`.
    """
    before, after, sql = STYLES[style]
    blocks = []
    for block, answer in [*((shot, f"{sql}{shot['query'].strip()}") for shot in shots), (row, sql.rstrip(" "))]:
        head = f"{before}{block['schema']}{after}" if block["schema"] else ""
        blocks.append(f"{head}Question: {block['question'].strip()}\nSQL:{answer}")
    return "\n\n".join(blocks)


def shorter(db_id: str, key: str = "spider.shots") -> str:
    """Say how a prompt on a database becomes shorter; `key` is the study's number of few-shot examples in it."""
    return (
        f"Choose a shorter prompt.schema, fewer {key} or a smaller inference.spider_max_new_tokens, exclude "
        f"database {db_id}, or take a model with a longer context."
    )


def _find_databases(folder: Path, db_ids: Iterable[str]) -> dict[str, Path]:
    """Find the files of databases, after checking that they are those of the folder's manifest, byte for byte."""
    files, found = read_json(folder / "manifest.json")["files"], {}
    for db_id in sorted(set(db_ids)):
        name = f"database/{db_id}/{db_id}.sqlite"
        path = found[db_id] = folder / name
        if name not in files:
            raise UserError(f"{folder / 'manifest.json'}, files: has no {name}. {REFETCH}")
        if not path.is_file():
            raise UserError(f"{path}: no such database. {REFETCH}")
        if (actual := sha256_file(path)) != files[name]["sha256"]:
            raise UserError(f"{path}: found sha256 {actual}, expected {files[name]['sha256']}. {REFETCH}")
    return found


def score(
    folder: str | Path, asked: Sequence[tuple[Mapping, str | None]], timeout_s: float, jobs: int
) -> Iterator[tuple[dict, dict]]:
    """Run answers against the gold queries, and yield a record and the previews of both results for each question.

    A column named like a criterion of `custom_metrics.judge.SEMANTICS` is about the SQL taken out of the answer, with
    `_raw` about the answer as it is; error class, row counts and message are about the SQL.

    Args:
        folder: of the data: manifest.json, and database/<db_id>/<db_id>.sqlite.
        asked: questions with their answers. None is a 0 with error_class `missing`, so that the denominator is always
            the number of questions.
        timeout_s: seconds a query may take.
        jobs: processes to run queries in; the records do not depend on it.

    Raises:
        UserError: a database is missing or changed.
        custom_metrics.judge.GoldError: a gold query does not run; its `index` is that of `asked`.
    """
    databases = _find_databases(Path(folder), (question["db_id"] for question, _ in asked))
    items = [(databases[question["db_id"]], question["query"], answer or "") for question, answer in asked]
    with Judge(timeout_s, jobs, previews=True) as judge:
        verdicts = judge.judge_all(items, progress=True)
    for (question, answer), verdict in zip(asked, verdicts, strict=True):
        record = {name: question[name] for name in ("id", "db_id", "hardness", "question")}
        record |= {"gold": question["query"], "answer": answer or "", **verdict.cells(missing=answer is None)}
        yield record, {"id": question["id"]} | verdict.previews
