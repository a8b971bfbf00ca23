"""Text-to-SQL on data of Spider's form: splits that do not overlap, few-shot examples, the user's turn, and scoring.

A row has id (`<file>-<5-digit position>`), db_id, question, query and hardness.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import UserError, read_json, sha256_file
from custom_metrics.hardness import LEVELS, hardness, parse
from custom_metrics.judge import Judge

# An example is paid for in every prompt, with its schema: what is drawn is short.
MAX_SHOT_CHARACTERS = 200
MAX_SHOT_COLUMNS = 30
REFETCH = "Run `snakemake -R fetch_spider` to fetch it again."
# Of a prompt's style: what stands before a schema, after it, and before the SQL.
STYLES = {"default": ("", "\n", " "), "ribeiro": ("Schema:\n", "\n\n", "\n")}


@dataclass(frozen=True)
class Splits:
    """Rows by split: train, validation, dev and shots.

    copies_of_shots: ids of training rows left out, as they ask a question of a few-shot example.
    learnt_from: rows that a training may see, to fit or to choose by; those of dev are none of them.
    """

    rows: dict[str, list[dict]]
    copies_of_shots: list[str]
    learnt_from: list[dict]


def prepare(options: Mapping[str, Any], folder: str | Path) -> Splits:
    """Split the questions of a folder, the same way on every run and every machine.

    Args:
        options: `train_files`: which of train_spider and train_others to train on, in this order.
            `shots`: ids of the few-shot examples, or how many to draw (see `draw_shots`). They are in no other split.
            `seed`: of the drawing and of the validation split, each with its own generator.
            `validation`: `by` "rows", "database", "none" or "dev", and `fraction` of the rows (see
            `split_validation`). By "dev", the validation rows are those of dev: what is chosen by them has seen the
            test. Of all these rows `questions` keeps the first so many; None = all.
            `train_questions`: keep only the first so many training rows, in the split's order; None = all.
        folder: of train_spider.json, train_others.json, dev.json and tables.json.

    Raises:
        UserError: an unknown db_id or example, a dev database in a training file, a split without rows, or fewer rows
            than are to be kept.
    """
    folder, seed, validation = Path(folder), options["seed"], options["validation"]
    schemas = {schema["db_id"]: schema for schema in read_json(folder / "tables.json")}
    dev = _read(folder / "dev.json", schemas)
    train = [row for name in options["train_files"] for row in _read(folder / f"{name}.json", schemas)]
    check_apart(train, dev)

    shots = options["shots"]
    examples = draw_shots(train, shots, seed, schemas) if isinstance(shots, int) else _named(train, shots)
    taken = {row["id"] for row in examples}
    # The release has a few questions twice: a copy of an example would show the model its own answer in every prompt.
    asked = {(row["db_id"], row["question"]) for row in examples}
    copies = [row["id"] for row in train if row["id"] not in taken and (row["db_id"], row["question"]) in asked]
    rest = [row for row in train if row["id"] not in taken.union(copies)]
    by_dev = validation["by"] == "dev"
    if by_dev:
        kept, held_out = rest, dev
    else:
        kept, held_out = split_validation(rest, validation, seed, {row["db_id"] for row in examples})
    kept = _first(kept, options["train_questions"], "spider.train_questions")
    if held_out:
        held_out = _first(held_out, validation.get("questions"), "spider.validation.questions")
    splits = {"train": kept, "validation": held_out, "dev": dev, "shots": examples}
    ids = [row["id"] for name, rows in splits.items() if not (by_dev and name == "validation") for row in rows]
    assert len(ids) == len(set(ids)), "a row is in two splits"
    learnt_from = kept if by_dev else kept + held_out
    check_apart(learnt_from, dev)
    return Splits(splits, copies, learnt_from)


def _first(rows: list[dict], number: int | None, key: str) -> list[dict]:
    if number is not None and number > len(rows):
        raise UserError(f"{key}: found {number}, expected at most {len(rows)}, or null for all.")
    return rows[:number]


def check_apart(train: Sequence[dict], dev: Sequence[dict]) -> None:
    """Check that no database of dev, hence no question on it, is in the training rows.

    Raises:
        UserError: one is; the message names the database and a row.
    """
    dev_databases = {row["db_id"] for row in dev}
    for row in train:
        if row["db_id"] in dev_databases:
            raise UserError(
                f"{row['id']}: is on database {row['db_id']}, which is in dev.json too. Training on it would spoil the "
                "evaluation; remove its rows from one of the two files."
            )


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


def split_validation(
    rows: Sequence[dict], validation: Mapping[str, Any], seed: int, shot_databases: set[str]
) -> tuple[list[dict], list[dict]]:
    """Divide rows into those of training and those of validation.

    by "rows": shuffled with the seed; the last `fraction` is validation, and training keeps the shuffled order.
    by "database": whole databases, in the seed's order, until `fraction` of the rows is reached; never one of the
    few-shot examples, since validation is to stand for databases never seen. Both keep the order of `rows`.
    by "none": no validation.

    Raises:
        UserError: the fraction is not between 0 and 1, or a split would be without rows.
    """
    by, fraction = validation["by"], validation.get("fraction")
    generator = random.Random(seed)
    if by == "none":
        return list(rows), []
    if by not in ("rows", "database"):
        raise UserError(f"spider, validation, by: found {by!r}, expected rows, database, none or dev.")
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise UserError(f"spider, validation, fraction: found {fraction!r}, expected a number between 0 and 1.")
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
        rows.append(
            {
                "id": f"{path.stem}-{number:05d}",
                "db_id": row["db_id"],
                "question": row["question"].strip(),
                "query": query,
                "hardness": hardness(query),
            }
        )
    return rows


def _named(train: Sequence[dict], ids: Sequence[str]) -> list[dict]:
    by_id = {row["id"]: row for row in train}
    for name in ids:
        if name not in by_id:
            raise UserError(
                f"spider, shots: {name!r} is no row of the training files (spider, train_files); "
                f"expected an id like {next(iter(by_id), 'train_spider-00017')}."
            )
    if len(set(ids)) != len(ids):
        raise UserError("spider, shots: an id comes twice. Name each row once.")
    return [by_id[name] for name in ids]


def select(rows: list[dict], questions: int | None, exclude_databases: Sequence[str]) -> list[dict]:
    """Choose the dev rows to ask: without the excluded databases, then the first `questions` (None = all).

    Raises:
        UserError: an excluded database is not there, or there are fewer questions than asked for.
    """
    unknown = sorted(set(exclude_databases) - {row["db_id"] for row in rows})
    if unknown:
        raise UserError(f"spider.exclude_databases: found {', '.join(unknown)}, expected databases of the dev split.")
    return _first(
        [row for row in rows if row["db_id"] not in set(exclude_databases)], questions, "spider.dev_questions"
    )


def user_turn(row: Mapping[str, str], shots: Sequence[Mapping[str, str]], style: str = "default") -> str:
    """Write the user's turn: few-shot examples, then the question of `row`, ending at `SQL:`.

    Args:
        row, shots: each with `question` and `schema`, the text of its database's schema (`Schemas.attach`), which may
            be empty; examples with `query`.
        style: "default", or "ribeiro", which puts `Schema:` before a schema, an empty line after it, and the SQL on a
            line of its own.

    Raises:
        UserError: there is no such style.
    """
    if style not in STYLES:
        raise UserError(f"prompt.style: found {style!r}, expected default or ribeiro.")
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


def find_databases(folder: str | Path, db_ids: Iterable[str]) -> dict[str, Path]:
    """Find the files of databases, after checking that they are those of the folder's manifest, byte for byte.

    Raises:
        UserError: one is not in the manifest, missing, or changed.
    """
    folder = Path(folder)
    files = read_json(folder / "manifest.json")["files"]
    found = {}
    for db_id in sorted(set(db_ids)):
        name = f"database/{db_id}/{db_id}.sqlite"
        path = folder / name
        if name not in files:
            raise UserError(f"{folder / 'manifest.json'}, files: has no {name}. {REFETCH}")
        if not path.is_file():
            raise UserError(f"{path}: no such database. {REFETCH}")
        if (actual := sha256_file(path)) != files[name]["sha256"]:
            raise UserError(f"{path}: found sha256 {actual}, expected {files[name]['sha256']}. {REFETCH}")
        found[db_id] = path
    return found


def score(
    folder: str | Path, asked: Sequence[tuple[Mapping, str | None]], timeout_s: float, jobs: int = 1
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
    databases = find_databases(folder, (question["db_id"] for question, _ in asked))
    items = [(databases[question["db_id"]], question["query"], answer or "") for question, answer in asked]
    with Judge(timeout_s, jobs, previews=True) as judge:
        verdicts = judge.judge_all(items, progress=True)
    for (question, answer), verdict in zip(asked, verdicts, strict=True):
        record = {name: question[name] for name in ("id", "db_id", "hardness", "question")}
        record |= {"gold": question["query"], "answer": answer or "", **verdict.cells(missing=answer is None)}
        yield record, {"id": question["id"]} | verdict.previews
