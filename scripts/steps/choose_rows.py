"""Choose the rows that a training takes out of all training rows: a number or a share of them, balanced or not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import UserError, read_jsonl, sha256_file, sha256_json, write_json
from common.job import job
from tasks.questions import how_many

MOST_TOLD = 3  # classes named on the terminal


def choose(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The ids of the chosen rows, in the order of `rows`, and facts about them.

    Each row has a place in its class by the hash of seed and id. All first places are taken, then all second ones, and
    so on; among equal places the hash decides. So classes have equally many rows, or all that they have and the others
    the more; and which rows are chosen depends on the rows that there are, not on their order.

    Args:
        rows: with `id` and, if they are balanced, the `column` of their class.
        settings: `name` of the task's section; of `training.rows` count or fraction, seed, and balance, if any, with
            the `column` that it means; `label`, what the choice is called.

    Raises:
        UserError: there are fewer rows than are asked for, or than classes; a row has no class, or all have the same.
    """
    number, column = how_many(settings, len(rows)), settings.get("column")
    if number > len(rows):
        raise UserError(
            f"training.rows.count: found {number}, expected at most {len(rows)}, as many training rows as "
            f"{settings['name']} has. Write fewer, or null for all."
        )
    classes = [_class(row, column) for row in rows] if column else [""] * len(rows)
    sizes, key = Counter(classes), "count" if "count" in settings else "fraction"
    if column and len(sizes) == 1:
        raise UserError(
            f"training.rows.balance: found {settings['balance']}, but it is {classes[0]} in all {len(rows)} training "
            "rows: there is nothing to balance. Leave balance out."
        )
    if number < len(sizes):
        raise UserError(
            f"training.rows.{key}: found {settings[key]}, which is {number} rows, expected at least {len(sizes)}, one "
            f"of each {settings['balance']}. Write more."
        )
    hashes = [sha256(f"{settings['seed']} {row['id']}".encode()).hexdigest() for row in rows]
    places, taken = {}, Counter()
    for index in sorted(range(len(rows)), key=hashes.__getitem__):
        places[index] = taken[classes[index]]
        taken[classes[index]] += 1
    first = sorted(places, key=lambda index: (places[index], hashes[index]))[:number]
    found = Counter(classes[index] for index in first)
    facts = {"by": {name: {"chosen": found[name], "of": sizes[name]} for name in sorted(sizes)}} if column else {}
    return [rows[index]["id"] for index in sorted(first)], facts


def _class(row: Mapping[str, Any], column: str) -> str:
    """The class of a row, as text."""
    value = row.get(column)
    if not isinstance(value, str | int) or value == "":
        raise UserError(
            f"training.rows.balance: row {row['id']} has no {column} (found {value!r}), expected a text or a whole "
            "number in each training row. Name another column, or leave balance out."
        )
    return str(value)


def choose_rows(rows: str | Path, settings: Mapping[str, Any], output: str | Path) -> None:
    """Write which of the training rows (JSON lines) are chosen; `settings` as of `choose`.

    Raises:
        UserError: as `choose`.
    """
    every = read_jsonl(rows)
    ids, facts = choose(every, settings)
    known = {key: value for key, value in settings.items() if key not in ("name", "column", "label")}
    about = {"name": settings["label"], "settings": known, "rows": len(ids), "of": len(every)} | facts
    write_json(output, about | {"source_sha256": sha256_file(rows), "ids_sha256": sha256_json(ids), "ids": ids})
    most = max((one["chosen"] for one in facts.get("by", {}).values()), default=0)
    # One row less is what is left over of a number that the classes do not divide.
    short = [name for name, one in facts.get("by", {}).items() if one["of"] < most - 1]
    print(f"{len(ids)} of {len(every)} training rows.", flush=True)
    if short:
        named = ", ".join(short[:MOST_TOLD]) + (" …" if len(short) > MOST_TOLD else "")
        print(f"Classes with too few rows, which give all ({len(short)}): {named}.", flush=True)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        choose_rows(snakemake.input.rows, snakemake.params.settings, snakemake.output.chosen)
