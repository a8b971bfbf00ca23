"""Text-to-SQL on data of Spider's form: splits that do not overlap, few-shot examples, prompts and scores.

What the tasks of form sql share. A row has id (`<file>-<5-digit position>`), db_id, question, query and hardness.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from common.files import UserError, read_json, sha256_file
from custom_metrics.compare import SEMANTICS
from custom_metrics.gold import certify
from custom_metrics.hardness import LEVELS, hardness, parse
from custom_metrics.judge import DAY_S, ERROR_CLASSES, GoldError, Judge
from tasks.base import PER_QUESTION, Asked, Context, Measure, Part, Scored, TaskOptions, chosen
from tasks.questions import Questions, first, picked
from tasks.records import CRITERIA, SPIDER_COLUMNS
from tasks.sections import AtLeast1, Count, Section, Set, Share, Text, Unique, contradiction, either, real
from tasks.sql_schema import database_facts, schema_texts

PROMPT = "text_to_sql.jinja"
# Which keys of its section each stage depends on; a stage sees no other.
TRAIN = ("shots", "seed", "validation.by", "validation.fraction", "train_questions")
STAGES = {
    "train": (*TRAIN, "shots_from"),
    "validation": (*TRAIN, "shots_from", "validation.questions"),
    "shots": (*TRAIN, "shots_from"),
    "test": ("questions", "exclude_databases"),
    "prompt": ("system", "schema", "sample_rows", "shots_from"),
    "score": ("timeout_s",),
    "measure": ("criterion",),
}
SMOKE = {"train_questions": 2, "validation": {"questions": 4}, "questions": 8, "max_new_tokens": 16}
REMEDY = (
    "Choose a shorter {name}.schema, fewer shots or a smaller {name}.max_new_tokens, exclude database {db_id}, or take "
    "a model with a longer context."
)
# What is known of a gold query.
CERTIFIED = ("id", *SEMANTICS, "error_class", "gold_rows", "open")
# The classes of queries that ran, whatever their rows.
RAN = ERROR_CLASSES[: ERROR_CLASSES.index("syntax_error")]
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
    shots_from: Literal["one_list", PER_QUESTION] = "one_list"
    """one_list: all questions have the same few-shot examples, which are set aside. per_question: each question has
    examples of its own, drawn from the rows that are trained on, but never of its own database."""
    seed: Count = 42
    """Draws the few-shot examples and the validation rows."""
    train_questions: AtLeast1 | None = None
    """Train on the first N rows of the training split; null for all."""
    validation: Validation = Validation()
    questions: Questions = None
    """Evaluate on the first N questions, on those of a list of ids such as [dev-00017], on those whose ids stand in a
    file ({file: ids.txt}), or on those that a library draws ({draw: pandas, seed: 42, n: 50}); null for all."""
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
    base_prompt: Text | None = None
    """The prompt template of the base model, where it is asked in other words than its adapters; the report says so.
    null: the same prompts for all."""
    criterion: Literal["set", "bag", "ordered", "test_suite", "columns_any_order"] = "bag"
    """When an answer's rows count as equal to those of the gold query, for the headline and all that follows from it.
    The table of execution accuracy shows all five. set: the same rows occur. bag: they occur equally often. ordered:
    also in the same order, where the gold query sorts. columns_any_order: bag, with the columns in any order.
    test_suite: what Spider's official test-suite evaluator says."""
    timeout_s: real(gt=0, le=DAY_S) = 30.0
    """Seconds of processor time after which a query counts as wrong."""

    @model_validator(mode="after")
    def _drawn(self) -> "Options":
        if self.shots_from == PER_QUESTION and not isinstance(self.shots, int):
            raise contradiction("shots", f"found {self.shots}, but shots_from draws them. Write how many.")
        return self


def measure(
    options: Mapping, name: str, stratum: str = "hardness", levels: Sequence[str] = LEVELS, told: Sequence[str] = ()
) -> Measure:
    """What the analysis must know: `stratum` is the column of difficulty, and `told` are further ones of a question."""
    question = ("id", "db_id", stratum, "question", *told, "gold")
    return Measure(
        name=name,
        form="sql",
        columns=(*question, *SPIDER_COLUMNS[SPIDER_COLUMNS.index("answer") :]),
        question=question,
        counted=(*CRITERIA, "error_class", "gold_rows"),
        cluster="db_id",
        strata={stratum: levels, "db_id": "sorted"},
        criterion=options.get("criterion", SEMANTICS[0]),  # scoring asks for the columns alone
    )


def prepare(options: Mapping, folder: Path, part: str, train: list[dict]) -> Part:
    """Make one part of a task's data out of the rows to train on, and those of dev.json in `folder`.

    train, validation: see `divide`; no few-shot example is in them, nor a copy of one. shots: a list of which prompts
    show the first ones: those that are set aside, then training rows, each from another database; or all training rows
    from which each question's own are drawn. test: the questions to ask. Each drawing has a generator of its own.
    """
    dev, name = held_out(folder), options["name"]
    if part == "test":
        if unknown := sorted(set(options["exclude_databases"]) - {row["db_id"] for row in dev}):
            raise UserError(
                f"{name}.exclude_databases: found {', '.join(unknown)}, expected databases of the questions to ask."
            )
        asked = [row for row in chosen(options, dev) if row["db_id"] not in options["exclude_databases"]]
        if not asked:
            raise UserError(f"{name}.exclude_databases: leaves no question to ask. Take a database out of it.")
        rows = picked(asked, options["questions"], f"{name}.questions")
        return rows, _described(rows)
    schemas = {entry["db_id"]: entry for entry in read_json(folder / "tables.json")}
    own = options.get("shots_from") == PER_QUESTION
    examples = [] if own else _examples(options, train, schemas)
    # The release has a few questions twice: a copy of an example would show the model its own answer in every prompt.
    taken = {row["id"] for row in examples}
    shown = {(row["db_id"], row["question"]) for row in examples}
    copies = [row["id"] for row in train if row["id"] not in taken and (row["db_id"], row["question"]) in shown]
    rest = [row for row in train if row["id"] not in taken.union(copies)]
    # Validation is to stand for databases never seen, so those of the examples stay in training.
    kept, validation = divide(options, rest, dev, taken={row["db_id"] for row in examples})
    if part == "shots" and own:
        return _short(kept, schemas), {"set_aside": [], "copies_left_out": []}
    if part == "shots":
        every = draw_shots(kept, len(schemas), options["seed"], schemas, examples)
        return every, {"set_aside": [row["id"] for row in examples], "copies_left_out": copies}
    rows = kept if part == "train" else validation
    ids = [row["id"] for row in rows + examples]
    assert len(ids) == len(set(ids)), "a row is in two parts"
    facts = _described(rows) | {"worded_as_in_test": []}
    if part == "train" or options["validation"]["by"] != "dev":
        texts = {row["question"] for row in dev}
        # Same words on another database: no leak, but worth knowing.
        facts["worded_as_in_test"] = [row["id"] for row in rows if row["question"] in texts]
    return rows, facts


def _described(rows: Sequence[dict]) -> dict[str, Any]:
    """Count rows by hardness and by database, and name those that the rules of hardness cannot parse: "extra"."""
    return {
        "by_database": Counter(row["db_id"] for row in rows),
        "by_hardness": {**dict.fromkeys(LEVELS, 0), **Counter(row["hardness"] for row in rows)},
        "unparsable": [row["id"] for row in rows if parse(row["query"]) is None],
    }


def _examples(options: Mapping, train: Sequence[dict], schemas: Mapping[str, dict]) -> list[dict]:
    """The few-shot examples that are set aside: drawn, or named by their ids."""
    name, shots = options["name"], options["shots"]
    if isinstance(shots, int):
        examples = draw_shots(train, shots, options["seed"], schemas)
        if len(examples) < shots:
            raise UserError(
                f"{name}.shots: found {len(examples)} databases with a short query, expected {shots}. Use fewer shots."
            )
        return examples
    rows = {row["id"]: row for row in train}
    if missing := [one for one in shots if one not in rows]:
        raise UserError(
            f"{name}.shots: {missing[0]!r} is no row of the training files; expected an id like "
            f"{next(iter(rows), 'train_spider-00017')}."
        )
    return [rows[one] for one in shots]


def _short(rows: Sequence[dict], schemas: Mapping[str, dict]) -> list[dict]:
    """The rows that may be drawn as examples."""
    return [
        row
        for row in rows
        if len(row["query"]) <= MAX_SHOT_CHARACTERS
        and len(schemas[row["db_id"]]["column_names_original"]) <= MAX_SHOT_COLUMNS
        and parse(row["query"]) is not None
    ]


def draw_shots(
    rows: Sequence[dict], number: int, seed: int, schemas: Mapping[str, dict], first: Sequence[dict] = ()
) -> list[dict]:
    """Draw few-shot examples, each from another database, one easy, one medium, one hard, one extra and so on.

    Only rows whose query can be parsed, with at most `MAX_SHOT_CHARACTERS`, on a schema of at most `MAX_SHOT_COLUMNS`.
    The list begins with `first`; what is drawn does not depend on how many are drawn after it. It is shorter where
    there are too few such databases.
    """
    generator, drawn, unused = random.Random(seed), list(first), _short(rows, schemas)
    while True:
        used = {row["db_id"] for row in drawn}
        unused = [row for row in unused if row["db_id"] not in used]
        if len(drawn) >= number or not unused:
            return drawn
        level = LEVELS[len(drawn) % len(LEVELS)]
        drawn.append(generator.choice([row for row in unused if row["hardness"] == level] or unused))


def divide(
    options: Mapping, rows: list[dict], dev: list[dict], cluster: str = "db_id", taken: Collection[str] = ()
) -> tuple[list[dict], list[dict]]:
    """Divide rows into those to train on and those of validation, and keep the first ones of both as options say.

    by "rows": shuffled with the seed; the last `fraction` is validation, and training keeps the shuffled order.
    by "database": whole clusters but for those `taken`, in the seed's order, until `fraction` of the rows is reached;
    both keep the order of `rows`. by "dev": `dev` is validation, so what is chosen by it has seen the test. by "none":
    no validation.
    """
    name, by, fraction = options["name"], options["validation"]["by"], options["validation"]["fraction"]
    generator, kept, held_out = random.Random(options["seed"]), list(rows), dev if by == "dev" else []
    if by == "rows":
        generator.shuffle(kept)
        # 1 - 0.9 is a little less than 0.1, which must not cost a row.
        number = int(len(rows) * (1 - fraction) + 1e-6)
        kept, held_out = kept[:number], kept[number:]
    elif by == "database":
        sizes = Counter(row[cluster] for row in rows)
        # Values of a user's own key may be texts and numbers.
        order = sorted(set(sizes).difference(taken), key=lambda one: (isinstance(one, str), one))
        generator.shuffle(order)
        chosen: set[str] = set()
        while order and sum(sizes[one] for one in chosen) < fraction * len(rows):
            chosen.add(order.pop(0))
        kept = [row for row in rows if row[cluster] not in chosen]
        held_out = [row for row in rows if row[cluster] in chosen]
    if by in ("rows", "database") and not (kept and held_out):
        raise UserError(
            f"{name}.validation: {fraction} of {len(rows)} rows by {by} leaves {len(kept)} for training and "
            f"{len(held_out)} for validation. Choose another fraction, or by: none."
        )
    if held_out:  # training does not depend on how many are looked at
        held_out = first(held_out, options["validation"].get("questions"), f"{name}.validation.questions")
    return first(kept, options["train_questions"], f"{name}.train_questions"), held_out


def read_rows(path: Path) -> list[dict]:
    """Read the questions of a file that a fetch wrote; further keys are kept behind ours."""
    rows = []
    for number, row in enumerate(read_json(path)):
        # Kept exactly but for the ends, where a line break would be learnt as a part of the answer.
        sql, question = row["query"].strip(), row["question"].strip()
        known = {"id": f"{path.stem}-{number:05d}", "db_id": row["db_id"], "question": question, "query": sql}
        known["hardness"] = hardness(sql)
        rows.append(known | row | known)
    return rows


def held_out(folder: Path) -> list[dict]:
    return read_rows(folder / "dev.json")


def context(options: Mapping, folder: Path) -> Context:
    tables, databases = read_json(folder / "tables.json"), folder / "database"
    schema_of = schema_texts(tables, options["schema"], databases, options["sample_rows"])
    entries = {entry["db_id"]: database_facts(entry) for entry in tables}
    return lambda row: told(row, schema_of(row["db_id"]), entries[row["db_id"]])


def told(row: Mapping, schema: str, database: Mapping) -> dict[str, Any]:
    """What a prompt may say of a row: schema (its text), database (`database_facts`), question, evidence if any."""
    said = {key: row[key].strip() for key in ("question", "evidence") if key in row}
    return said | {"schema": schema, "database": database}


def target(row: Mapping) -> str:
    return row["query"].strip()


def _find_databases(name: str, folder: Path, db_ids: set[str]) -> dict[str, Path]:
    """Find the files of databases, after checking that they are those of the folder's manifest, byte for byte."""
    files = read_json(folder / "manifest.json")["files"]
    found = {db_id: folder / f"database/{db_id}/{db_id}.sqlite" for db_id in sorted(db_ids)}
    refetch = f"Run `snakemake -R fetch_{name.rpartition('.')[2]}` to fetch it again."
    for path in found.values():
        if not path.is_file():
            raise UserError(f"{path}: no such database. {refetch}")
        expected = files.get(str(path.relative_to(folder)), {}).get("sha256")
        if (actual := sha256_file(path)) != expected:
            raise UserError(f"{path}: found sha256 {actual}, expected {expected}. {refetch}")
    return found


def certified(options: Mapping, folder: Path, questions: Sequence[Mapping], workers: int) -> Iterator[dict]:
    """Say of each question what its gold query is worth (`custom_metrics.gold`): rows with the columns `CERTIFIED`."""
    databases = _find_databases(options["name"], folder, {row["db_id"] for row in questions})
    queries = [(databases[row["db_id"]], row["query"]) for row in questions]
    for row, one in zip(questions, certify(queries, options["timeout_s"], workers), strict=True):
        right = {name: int(one.correct[name]) for name in SEMANTICS}
        yield {"id": row["id"], **right, "error_class": one.error_class, "gold_rows": one.rows, "open": one.open}


def failed(
    options: Mapping, folder: Path, asked: Sequence[tuple[str, str, str]], workers: int
) -> Iterator[dict[str, str]]:
    """Run the SQL of answers, each with its question's id and database, and yield those that did not run.

    A row has id, answer, sql, error_class and message, as `score` would give them. Each query is held against one that
    is the same for all questions and reads no table, so nothing of a gold query can have a part in it.
    """
    databases = _find_databases(options["name"], folder, {db_id for _, db_id, _ in asked})
    items = [(databases[db_id], "SELECT 1", answer) for _, db_id, answer in asked]
    with Judge(options["timeout_s"], workers) as judge:
        verdicts = judge.judge_all(items, progress=True)
    for (name, _, answer), verdict in zip(asked, verdicts, strict=True):
        if verdict.error_class not in RAN:
            told = {key: getattr(verdict, key) for key in ("sql", "error_class", "message")}
            yield {"id": name, "answer": answer} | told


def score(options: Mapping, folder: Path, asked: Asked, workers: int) -> Scored:
    """Run answers against the gold queries; besides each record stand previews of both results.

    A column named like a criterion of `custom_metrics.judge.SEMANTICS` is about the SQL taken out of the answer, with
    `_raw` about the answer as it is; error class, row counts and message are about the SQL. Without an answer the
    error_class is `missing`.
    """
    name = options["name"]
    databases = _find_databases(name, folder, {question["db_id"] for question, _ in asked})
    items = [(databases[row["db_id"]], row["query"], given["answer"] if given else "") for row, given in asked]
    with Judge(options["timeout_s"], workers, previews=True) as judge:
        verdicts = judge.judge_all(items, progress=True)
    for (question, given), (_, gold, text), verdict in zip(asked, items, verdicts, strict=True):
        if isinstance(verdict, GoldError):
            raise UserError(
                f"{question['id']}: {verdict}. If it is a timeout, raise {name}.timeout_s; otherwise the data are at "
                f"fault: put its database into {name}.exclude_databases."
            )
        record = {**question, "gold": gold, "answer": text, **verdict.cells(missing=given is None)}
        yield record, {"id": question["id"]} | verdict.previews
