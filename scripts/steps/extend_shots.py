"""Take few-shot examples for the prompts of a base model: those that the study set aside, then further ones."""

from collections.abc import Mapping
from pathlib import Path

import _path  # noqa: F401
from common.files import read_json, read_jsonl, write_jsonl
from common.job import job
from tasks.text_to_sql import draw_shots


def extend_shots(inputs: Mapping[str, str | Path], number: int, seed: int, output: str | Path) -> None:
    """Write the first `number` of one list of few-shot examples: three of them are the first three of five.

    The list begins with the study's few-shot examples. Where these are too few, training rows follow, drawn as they
    were: each from a database that no example before it is on, and so from none of dev. No adapter answers these
    prompts, and the base model is not trained on these rows.

    Args:
        inputs: `shots` and `train`, JSON-lines files of `prepare_spider`, and `tables`, Spider's tables.json.
        seed: spider.seed.

    Raises:
        UserError: the training rows are on too few databases.
    """
    schemas = {schema["db_id"]: schema for schema in read_json(inputs["tables"])}
    first = read_jsonl(inputs["shots"])[:number]
    write_jsonl(output, draw_shots(read_jsonl(inputs["train"]), number, seed, schemas, first))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        number = int(snakemake.wildcards.shots)
        extend_shots(snakemake.input, number, output=snakemake.output.shots, **snakemake.params.settings)
