"""Put all records of a study into tables: what each run got right, and what every adapter changed against its base."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis import compare, describe
from analysis.data import Results, read_results, write_table
from common.files import write_text
from common.job import job
from present.format import Say
from present.tables import shared_facts, to_markdown


def tables(
    records: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write the tables, each as CSV (the truth: full precision) and as Markdown (the same, to be read).

    Args:
        records: by task, the records of each run in the order of `runs`.
        outputs: a path for each table that the study has, and for each with `_md`.
        settings: the rule's. `tasks` has of each task its kind, its role and what its measure depends on, the target
            first. `runs` has of each run `model`, `variant` and `settings` (the swept values of an adapter, {} for the
            base); of a point that `evaluation` adds also `point`.

    Raises:
        UserError: the records of two runs are not about the same questions, or a model has no base run.
    """
    results = read_results(records, settings)
    say = Say(settings["language"], results.measures)
    facts = settings | shared_facts(settings["study"], describe.questions(results), say)
    found = all_tables(results)
    for name in (name for name in found if name in outputs):
        frame = found[name]
        write_table(outputs[name], frame)
        write_text(outputs[f"{name}_md"], to_markdown(name, frame, facts, say))


def all_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Make every table of a study, by its name."""
    compared = (compare.settings, compare.contrasts, compare.transitions, compare.equal_gain, compare.regression)
    frames = {one.__name__: results.label(one(results)) for one in (*compared, describe.flips)}
    frames |= {task: results.label(describe.sql(results, task), task) for task in results.of_form("sql")}
    if results.of_form("sql"):
        frames["databases"] = results.label(describe.databases(results))
    # Nothing in these depends on a criterion.
    plain = {task: results.label(describe.choice(results, task), task) for task in results.of_form("choice", "match")}
    if results.of_form("sql"):
        plain |= {one.__name__: results.label(one(results)) for one in (describe.errors, describe.confusion)}
    return frames | {name: frame.drop(columns="criterion") for name, frame in plain.items()}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
