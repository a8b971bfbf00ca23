"""Text-to-SQL on data of Spider's form: splits that do not overlap, few-shot examples, prompts and scores.

What the tasks of form sql share. A row has id (`<file>-<5-digit position>`), db_id, question, query and hardness.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from common.files import UserError, read_json, sha256_file
from custom_metrics.compare import SEMANTICS
from custom_metrics.hardness import LEVELS, hardness, parse
from custom_metrics.judge import GoldError, Judge
from tasks.base import Measure, TaskOptions
from tasks.records import SPIDER_COLUMNS
from tasks.sections import AtLeast1, Count, Positive, Section, Set, Share, Unique, either
from tasks.sql_schema import Schemas

PROMPT = "text_to_sql.jinja"
PARTS = ("train", "validation", "shots", "test")
# Which keys of its section each stage depends on; a stage sees no other.
_TRAIN = ("shots", "seed", "validation.by", "validation.fraction", "train_questions")
STAGES = {
    "train": _TRAIN,
    "validation": (*_TRAIN, "validation.questions"),
    "shots": _TRAIN,
    "test": ("questions", "exclude_databases"),
    "prompt": ("system", "schema", "sample_rows"),
    "score": ("timeout_s",),
    "measure": ("criterion",),
}
SMOKE = {"train_questions": 2, "validation": {"questions": 4}, "questions": 8, "max_new_tokens": 16}
# An example is paid for in every prompt, with its schema: what is drawn is short.
MAX_SHOT_CHARACTERS = 200
MAX_SHOT_COLUMNS = 30


class Validation(Section):
    """The rows that are set aside from training, for the validation loss."""

    by: Literal["rows", "database", "dev", "none"] = "database"
    """rows: drawn at random. database: whole databases, so that no database is in both parts. none: no rows. dev: the
    questions of the evaluation themselves, a defect that accept_defect must name."""
    fraction: Share = 0.1
    """Share of the training rows to set aside."""
    questions: AtLeast1 | None = None
    """Evaluate on the first N of these rows while training; the others stay set aside. null for all."""


class Options(TaskOptions):
    """Keys of every text-to-SQL task."""

    shots: either(Count, Unique[str], list) = 3
    """Few-shot examples in every prompt, drawn from the training rows and excluded from training: a number, or a list
    of the ids of questions."""
    seed: Count = 42
    """Draws the few-shot examples and the validation rows."""
    train_questions: AtLeast1 | None = None
    """Train on the first N rows of the training split; null for all."""
    validation: Validation = Validation()
    questions: AtLeast1 | None = None
    """Evaluate on the first N questions; null for all."""
    exclude_databases: Set[str] = []
    """Databases whose questions are left out of the evaluation, for example because they have no rows."""
    system: str = "You translate questions into SQLite queries. Reply with one SQL query and nothing else."
    """System text of a prompt."""
    schema_: Literal["compact", "pipe", "ddl", "ddl_rows", "none"] = Field(default="compact", alias="schema")
    """How the prompt shows the database. compact: one line a table. pipe: the same between bars. ddl: CREATE TABLE
    statements. ddl_rows: the same with sample rows. none: not at all."""
    sample_rows: AtLeast1 = 3
    """Rows shown of each table, with schema: ddl_rows."""
    base_shots: Count | None = None
    """Few-shot examples in the base model's prompts, to repeat a study that gave the base fewer than the adapters (a
    defect). null: the same prompts for all."""
    train_target: Literal["sql", "prompt"] = "sql"
    """What the loss covers: sql, the gold query; or prompt, a defect that accept_defect must name."""
    criterion: Literal["set", "bag", "ordered", "test_suite", "columns_any_order"] = "bag"
    """When an answer's rows count as equal to those of the gold query, for the headline and all that follows from it.
    The table of execution accuracy shows all five. set: the same rows occur. bag: they occur equally often. ordered:
    also in the same order, where the gold query sorts. columns_any_order: bag, with the columns in any order.
    test_suite: what Spider's official test-suite evaluator says."""
    timeout_s: Positive = 30.0
    """Seconds after which a query counts as wrong. Before that it is tried again with nothing running beside it."""


def measure(options: Mapping[str, Any], name: str, stratum: tuple[str, Sequence[str]]) -> Measure:
    """What the analysis must know; `stratum` is the column of difficulty with its levels."""
    columns = tuple(stratum[0] if column == "hardness" else column for column in SPIDER_COLUMNS)
    return Measure(
        name=name,
        form="sql",
        columns=columns,
        question=("id", "db_id", stratum[0], "question", "gold"),
        counted=(*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS), "error_class", "gold_rows"),
        cluster="db_id",
        strata={stratum[0]: stratum[1], "db_id": "sorted"},
        criterion=options.get("criterion", SEMANTICS[0]),  # scoring asks for the columns alone
        role=options.get("role", "yardstick"),
    )


def prepare(
    options: Mapping[str, Any], part: str, train: list[dict], dev: list[dict], schemas: Mapping[str, dict]
) -> tuple[list[dict], dict[str, Any]]:
    """Make one part of a task's data, the same way on every run and every machine.

    train, validation: split as `validation` says; no few-shot example is in them, nor a copy of one. shots: a list of
    which prompts show the first ones: those that are set aside, then training rows, each from another database. test:
    the questions to ask. Each drawing has a generator of its own. With validation by "dev", what is chosen by these
    rows has seen the test.

    Args:
        options: of the part (`STAGES`), and `name`, the section in messages.
        train, dev: all rows to train on, and to evaluate on.
        schemas: of each database, as in Spider's tables.json.

    Returns:
        The rows, and facts about them.

    Raises:
        UserError: an unknown example or database, a part without rows, or fewer rows than are to be kept.
    """
    if part == "test":
        return (rows := select(options, dev)), describe(rows)
    name, shots = options["name"], options["shots"]
    if isinstance(shots, int):
        examples = draw_shots(train, shots, options["seed"], schemas)
        if len(examples) < shots:
            raise UserError(
                f"{name}.shots: found {len(examples)} databases with a short query, expected {shots}. Use fewer shots."
            )
    else:
        examples = _named(name, train, shots)
    # The release has a few questions twice: a copy of an example would show the model its own answer in every prompt.
    taken = {row["id"] for row in examples}
    asked = {(row["db_id"], row["question"]) for row in examples}
    copies = [row["id"] for row in train if row["id"] not in taken and (row["db_id"], row["question"]) in asked]
    rest = [row for row in train if row["id"] not in taken.union(copies)]
    if options["validation"]["by"] == "dev":
        kept, held_out = rest, dev
    else:
        kept, held_out = split_validation(rest, options, {row["db_id"] for row in examples})
    kept = first(kept, options["train_questions"], f"{name}.train_questions")
    if part == "shots":
        every = draw_shots(kept, len(schemas), options["seed"], schemas, examples)
        return every, {"set_aside": [row["id"] for row in examples], "copies_left_out": copies}
    if part == "validation":
        rows = first(held_out, options["validation"]["questions"], f"{name}.validation.questions") if held_out else []
    else:
        rows = kept
    ids = [row["id"] for row in rows + examples]
    assert len(ids) == len(set(ids)), "a row is in two parts"
    texts = {row["question"] for row in dev}
    # Same words on another database: no leak, but worth knowing.
    worded = [] if held_out is dev and rows is not kept else [row["id"] for row in rows if row["question"] in texts]
    return rows, describe(rows) | {"worded_as_in_test": worded}


def describe(rows: Sequence[dict]) -> dict[str, Any]:
    """Count rows by hardness and by database, and name those whose query the rules of hardness cannot parse."""
    facts: dict[str, Any] = {"by_database": Counter(row["db_id"] for row in rows)}
    if all("hardness" in row for row in rows):
        facts["by_hardness"] = {**dict.fromkeys(LEVELS, 0), **Counter(row["hardness"] for row in rows)}
        # They are filed under "extra".
        facts["unparsable"] = [row["id"] for row in rows if parse(row["query"]) is None]
    return facts


def first(rows: list[dict], number: int | None, key: str) -> list[dict]:
    if number is not None and number > len(rows):
        raise UserError(f"{key}: found {number}, expected at most {len(rows)}, or null for all.")
    return rows[:number]


def draw_shots(
    train: Sequence[dict], number: int, seed: int, schemas: Mapping[str, dict], first: Sequence[dict] = ()
) -> list[dict]:
    """Draw few-shot examples, each from another database, one easy, one medium, one hard, one extra and so on.

    Only rows whose query can be parsed, with at most `MAX_SHOT_CHARACTERS`, on a schema of at most `MAX_SHOT_COLUMNS`.
    The rows begin with those of `first`; what is drawn does not depend on how many are drawn after it. There are fewer
    than `number` where there are fewer such databases.
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
            break
        drawn.append(generator.choice([row for row in unused if row["hardness"] == level] or unused))
    return drawn


def split_validation(
    rows: Sequence[dict], options: Mapping[str, Any], taken: set[str], cluster: str = "db_id"
) -> tuple[list[dict], list[dict]]:
    """Divide rows into those of training and those of validation.

    by "rows": shuffled with the seed; the last `fraction` is validation, and training keeps the shuffled order.
    by "database": whole databases, in the seed's order, until `fraction` of the rows is reached; never one of the
    few-shot examples, since validation is to stand for databases never seen. Both keep the order of `rows`.
    by "none": no validation.
    """
    by, fraction = options["validation"]["by"], options["validation"]["fraction"]
    generator = random.Random(options["seed"])
    if by == "none":
        return list(rows), []
    if by == "rows":
        shuffled = list(rows)
        generator.shuffle(shuffled)
        # 1 - 0.9 is a little less than 0.1, which must not cost a row.
        number = int(len(rows) * (1 - fraction) + 1e-6)
        kept, held_out = shuffled[:number], shuffled[number:]
    else:
        sizes = Counter(row[cluster] for row in rows)
        order = sorted(set(sizes) - taken)
        generator.shuffle(order)
        chosen: set[str] = set()
        for db_id in order:
            if sum(sizes[name] for name in chosen) >= fraction * len(rows):
                break
            chosen.add(db_id)
        kept = [row for row in rows if row[cluster] not in chosen]
        held_out = [row for row in rows if row[cluster] in chosen]
    if not kept or not held_out:
        raise UserError(
            f"{options['name']}.validation: {fraction} of {len(rows)} rows by {by} leaves {len(kept)} for training and "
            f"{len(held_out)} for validation. Choose another fraction, or by: none."
        )
    return kept, held_out


def read_rows(path: Path, schemas: Mapping[str, dict], query: str = "query") -> list[dict]:
    """Read the questions of a file; `query` is its key of the gold SQL.

    Raises:
        UserError: a database without a schema.
    """
    rows = []
    for number, row in enumerate(read_json(path)):
        if row["db_id"] not in schemas:
            raise UserError(f"{path}, row {number}: db_id {row['db_id']!r} is not in tables.json. Get the data again.")
        # Kept exactly but for the ends, where a line break would be learnt as a part of the answer.
        sql, question = row[query].strip(), row["question"].strip()
        name = f"{path.stem}-{number:05d}"
        known = {"id": name, "db_id": row["db_id"], "question": question, "query": sql, "hardness": hardness(sql)}
        rows.append(known | {key: value for key, value in row.items() if key not in known})
    return rows


def _named(name: str, train: Sequence[dict], ids: Sequence[str]) -> list[dict]:
    rows = {row["id"]: row for row in train}
    if missing := [one for one in ids if one not in rows]:
        raise UserError(
            f"{name}.shots: {missing[0]!r} is no row of the training files; expected an id like "
            f"{next(iter(rows), 'train_spider-00017')}."
        )
    return [rows[one] for one in ids]


def select(options: Mapping[str, Any], rows: list[dict]) -> list[dict]:
    """Choose the rows to ask: without the excluded databases, then the first `questions` (None = all).

    Raises:
        UserError: an excluded database is not there, or there are fewer questions than asked for.
    """
    name, excluded = options["name"], options["exclude_databases"]
    if unknown := sorted(set(excluded) - {row["db_id"] for row in rows}):
        raise UserError(
            f"{name}.exclude_databases: found {', '.join(unknown)}, expected databases of the questions to ask."
        )
    kept = [row for row in rows if row["db_id"] not in excluded]
    return first(kept, options["questions"], f"{name}.questions")


def context(options: Mapping[str, Any], schemas: Schemas) -> Callable[[Mapping], dict[str, str]]:
    """Say what a prompt may say of a row: schema (its text), question, and evidence if there is any."""

    def of(row: Mapping) -> dict[str, str]:
        told = {key: row[key].strip() for key in ("question", "evidence") if key in row}
        return told | {"schema": schemas[row["db_id"]]}

    return of


def shots(row: Mapping, pool: Sequence[Mapping]) -> Sequence[Mapping]:
    """All prompts show the same few-shot examples."""
    return pool


def target(row: Mapping) -> str:
    """The gold SQL."""
    return row["query"].strip()


def choices(row: Mapping) -> Sequence[str]:
    """Free text."""
    return ()


def remedy(options: Mapping[str, Any], row: Mapping) -> str:
    """Say how a prompt becomes shorter."""
    name = options["name"]
    return (
        f"Choose a shorter {name}.schema, fewer shots or a smaller {name}.max_new_tokens, exclude database "
        f"{row['db_id']}, or take a model with a longer context."
    )


def _find_databases(name: str, folder: Path, db_ids: Iterable[str]) -> dict[str, Path]:
    """Find the files of databases, after checking that they are those of the folder's manifest, byte for byte."""
    files, found = read_json(folder / "manifest.json")["files"], {}
    refetch = f"Run `snakemake -R fetch_{name.rpartition('.')[2]}` to fetch it again."
    for db_id in sorted(set(db_ids)):
        file = f"database/{db_id}/{db_id}.sqlite"
        path = found[db_id] = folder / file
        if file not in files:
            raise UserError(f"{folder / 'manifest.json'}, files: has no {file}. {refetch}")
        if not path.is_file():
            raise UserError(f"{path}: no such database. {refetch}")
        if (actual := sha256_file(path)) != files[file]["sha256"]:
            raise UserError(f"{path}: found sha256 {actual}, expected {files[file]['sha256']}. {refetch}")
    return found


def score(
    options: Mapping[str, Any], folder: Path, asked: Sequence[tuple[Mapping, Mapping | None]], workers: int
) -> Iterator[tuple[dict, dict]]:
    """Run answers against the gold queries, and yield a record and the previews of both results for each question.

    A column named like a criterion of `custom_metrics.judge.SEMANTICS` is about the SQL taken out of the answer, with
    `_raw` about the answer as it is; error class, row counts and message are about the SQL.

    Args:
        options: `timeout_s`, the seconds a query may take; `name`, the section in messages.
        folder: of the data: manifest.json, and database/<db_id>/<db_id>.sqlite.
        asked: questions with their answers. None is a 0 with error_class `missing`, so that the denominator is always
            the number of questions.
        workers: processes to run queries in; the records do not depend on it.

    Raises:
        UserError: a database is missing or changed, or a gold query does not run.
    """
    databases = _find_databases(options["name"], folder, (question["db_id"] for question, _ in asked))
    given = [answer["answer"] if answer else "" for _, answer in asked]
    items = [(databases[row["db_id"]], row["query"], text) for (row, _), text in zip(asked, given, strict=True)]
    try:
        with Judge(options["timeout_s"], workers, previews=True) as judge:
            verdicts = judge.judge_all(items, progress=True)
    except GoldError as error:
        name = options["name"]
        raise UserError(
            f"{asked[error.index][0]['id']}: {error}. If it is a timeout, raise {name}.timeout_s; otherwise the data "
            f"are at fault: put its database into {name}.exclude_databases."
        ) from None
    about = [key for key in ("id", "db_id", "hardness", "difficulty", "question") if key in asked[0][0]]
    for (question, answer), text, verdict in zip(asked, given, verdicts, strict=True):
        record = {key: question[key] for key in about}
        record |= {"gold": question["query"], "answer": text, **verdict.cells(missing=answer is None)}
        yield record, {"id": question["id"]} | verdict.previews
