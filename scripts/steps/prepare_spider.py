"""Split Spider: few-shot examples, training, validation and dev rows, the same on every run and every machine."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, read_json, sha256_file, sha256_json, write_json, write_jsonl
from common.job import job
from custom_metrics.hardness import LEVELS, hardness, parse

# A shot is paid for in every prompt, with its schema: what is drawn is short.
MAX_SHOT_CHARACTERS = 200
MAX_SHOT_COLUMNS = 30


def prepare_spider(
    files: dict[str, str | Path],
    train_files: Sequence[str],
    shots: int | Sequence[str],
    seed: int,
    validation: dict,
    out_dir: str | Path,
    train_questions: int | None = None,
) -> None:
    """Write train.jsonl, validation.jsonl, dev.jsonl, shots.jsonl and manifest.json into `out_dir`.

    A row has id (`<file>-<5-digit position>`), db_id, question, query and hardness.

    Args:
        files: paths of train_spider, train_others, dev and tables, as `fetch_spider` writes them.
        train_files: which of train_spider and train_others to train on, in this order.
        shots: ids of the few-shot rows, or how many to draw (see `draw_shots`). They are in no other split.
        seed: of the drawing and of the validation split, each with its own generator.
        validation: `by` "rows", "database", "none" or "dev", and `fraction` of the rows (see `split_validation`). By
            "dev", the validation rows are those of dev: what is chosen by them has seen the test. Of all these rows
            `questions` keeps the first so many; None = all.
        out_dir: where the five files go.
        train_questions: keep only the first so many training rows, in the split's order; None = all. Validation stays.

    Raises:
        UserError: an unknown db_id or shot id, a dev database in a training file, a split without rows, or fewer rows
            than `train_questions` or `questions`.
    """
    out_dir = Path(out_dir)
    schemas = {schema["db_id"]: schema for schema in read_json(files["tables"])}
    dev = _rows("dev", files["dev"], schemas)
    train = [row for name in train_files for row in _rows(name, files[name], schemas)]
    check_apart(train, dev)

    examples = draw_shots(train, shots, seed, schemas) if isinstance(shots, int) else _named(train, shots)
    taken = {row["id"] for row in examples}
    # The release has a few questions twice: a copy of a shot would show the model its own answer in every prompt.
    asked = {(row["db_id"], row["question"]) for row in examples}
    copies = [row["id"] for row in train if row["id"] not in taken and (row["db_id"], row["question"]) in asked]
    rest = [row for row in train if row["id"] not in taken.union(copies)]
    by_dev = validation["by"] == "dev"
    if by_dev:
        kept, held_out = rest, dev
    else:
        kept, held_out = split_validation(rest, validation, seed, {row["db_id"] for row in examples})
    if train_questions is not None and train_questions > len(kept):
        raise UserError(
            f"spider.train_questions: found {train_questions}, expected at most {len(kept)}, or null for all."
        )
    kept = kept[:train_questions]
    questions = validation.get("questions")
    if questions is not None and held_out:
        if questions > len(held_out):
            raise UserError(
                f"spider.validation.questions: found {questions}, expected at most {len(held_out)}, or null for all."
            )
        held_out = held_out[:questions]
    splits = {"train": kept, "validation": held_out, "dev": dev, "shots": examples}
    ids = [row["id"] for name, rows in splits.items() if not (by_dev and name == "validation") for row in rows]
    assert len(ids) == len(set(ids)), "a row is in two splits"
    learnt_from = kept if by_dev else kept + held_out
    check_apart(learnt_from, dev)

    for name, rows in splits.items():
        write_jsonl(out_dir / f"{name}.jsonl", rows)
    dev_texts = {row["question"] for row in dev}
    manifest = {
        "settings": {
            "train_files": list(train_files),
            "shots": shots if isinstance(shots, int) else list(shots),
            "seed": seed,
            "validation": dict(validation),
            "train_questions": train_questions,
        },
        "inputs": {name: sha256_file(path) for name, path in sorted(files.items())},
        "shots": [row["id"] for row in examples],
        "copies_of_shots_left_out": copies,
        "splits": {name: _describe(rows, out_dir / f"{name}.jsonl") for name, rows in splits.items()},
        # The rules of hardness cannot be applied to these: they are filed under "extra".
        "unparsable": [row["id"] for row in [*learnt_from, *dev, *examples] if parse(row["query"]) is None],
        # Same words on another database: no leak, but worth knowing.
        "train_questions_worded_as_in_dev": [row["id"] for row in learnt_from if row["question"] in dev_texts],
    }
    write_json(out_dir / "manifest.json", manifest)


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
    """Draw few-shot rows, each from another database, one easy, one medium, one hard, one extra and so on.

    Only rows whose query can be parsed, with at most `MAX_SHOT_CHARACTERS`, on a schema of at most `MAX_SHOT_COLUMNS`.
    The `number` rows begin with those of `first`; what is drawn does not depend on how many are drawn after it.

    Raises:
        UserError: there are fewer such databases than shots.
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
    rows: Sequence[dict], validation: dict, seed: int, shot_databases: set[str]
) -> tuple[list[dict], list[dict]]:
    """Return the training rows and the validation rows.

    by "rows": shuffled with the seed; the last `fraction` is validation, and training keeps the shuffled order.
    by "database": whole databases, in the seed's order, until `fraction` of the rows is reached; never one of the
    few-shot rows, since validation is to stand for databases never seen. Both keep the order of `rows`.
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


def _rows(name: str, path: str | Path, schemas: dict[str, dict]) -> list[dict]:
    rows = []
    for number, row in enumerate(read_json(path)):
        if row["db_id"] not in schemas:
            raise UserError(f"{path}, row {number}: db_id {row['db_id']!r} is not in tables.json. Get the data again.")
        # Kept exactly but for the ends, where a line break would be learnt as a part of the answer.
        query = row["query"].strip()
        rows.append(
            {
                "id": f"{name}-{number:05d}",
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


def _describe(rows: Sequence[dict], path: Path) -> dict:
    levels = Counter(row["hardness"] for row in rows)
    return {
        "rows": len(rows),
        "ids_sha256": sha256_json([row["id"] for row in rows]),
        "sha256": sha256_file(path),
        "by_hardness": {level: levels[level] for level in LEVELS},
        "by_database": dict(sorted(Counter(row["db_id"] for row in rows).items())),
    }


if __name__ == "__main__":
    with job(snakemake.log[0]):
        prepare_spider(
            {name: snakemake.input[name] for name in ("train_spider", "train_others", "dev", "tables")},
            **snakemake.params.settings,
            out_dir=Path(snakemake.output.manifest).parent,
        )
