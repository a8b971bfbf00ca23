"""Put all records of a study into tables: what each run got right, and what every adapter changed against its base."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis import compare, describe
from analysis.data import MMLU, SPIDER, Results, read_results, write_table
from common.files import atomic_write
from common.job import job
from present.format import Say
from present.tables import shared_facts, to_markdown

# Nothing in these depends on the criterion of the headline.
UNDER_EVERY_CRITERION = ("mmlu", "errors", "confusion")


def tables(
    records: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write the tables, each as CSV (the truth: full precision) and as Markdown (the same, to be read).

    Args:
        records: by measure, the records of each run in the order of `runs`.
        outputs: a path for each table, and for each with `_md`.
        settings: the rule's. `runs` has of each run `model`, `variant` and `settings` (the swept values of an adapter,
            {} for the base); of a point that `evaluation` adds also `point`. `known_defects` and `accept_defect` stand
            under every table.

    Raises:
        UserError: the records of two runs are not about the same questions, or a model has no base run.
    """
    results = read_results(records, settings["runs"], settings["semantics"], settings["confidence_level"])
    say = Say(settings["language"])
    facts = settings | shared_facts(settings["study"], *describe.questions(results), say)
    for name, frame in all_tables(results).items():
        write_table(outputs[name], frame)
        with atomic_write(outputs[f"{name}_md"]) as stream:
            stream.write(to_markdown(name, frame, facts, say))


def all_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Make every table of a study, by its name."""
    frames = {
        "regression": (comparisons := compare.regression(results)),
        "exchange": compare.exchange(results, comparisons),
        "factors": compare.factors(results),
        "seeds": compare.seeds(results),
        "execution_accuracy": describe.execution_accuracy(results),
        "databases": describe.databases(results),
        "mmlu": describe.mmlu(results),
        "errors": describe.errors(results),
        "flips": describe.flips(results),
        "confusion": describe.confusion(results),
    }
    for name, frame in frames.items():
        frames[name] = results.label(frame, MMLU if name == "mmlu" else SPIDER)
        if name in UNDER_EVERY_CRITERION:
            frames[name] = frames[name].drop(columns="semantics")
    frames["exchange"]["data_sha256"] = " ".join(results.hashes.values())
    return frames


if __name__ == "__main__":
    with job(snakemake.log[0]):
        records = {SPIDER: snakemake.input.spider, MMLU: snakemake.input.mmlu}
        tables(records, dict(snakemake.output.items()), snakemake.params.settings)
