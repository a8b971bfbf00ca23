"""Take solved examples for the prompts of a base model: those that the study set aside, then further ones."""

from pathlib import Path

import _path  # noqa: F401
from common.files import read_json, read_jsonl, write_jsonl
from common.job import job
from prepare_spider import draw_shots


def extend_shots(
    shots: str | Path, train: str | Path, tables: str | Path, number: int, seed: int, output: str | Path
) -> None:
    """Write the first `number` of one list of examples: three of them are the first three of five.

    The list begins with the study's few-shot rows. Where these are too few, training rows follow, drawn as they were:
    each from a database that no example before it is on, and so from none of dev. No adapter answers these prompts, and
    the base model is not trained on these rows.

    Args:
        shots, train: JSON-lines files of `prepare_spider`.
        tables: Spider's tables.json.
        seed: spider.seed.
        output: the file to write.

    Raises:
        UserError: the training rows are on too few databases.
    """
    schemas = {schema["db_id"]: schema for schema in read_json(tables)}
    first = read_jsonl(shots)[:number]
    write_jsonl(output, draw_shots(read_jsonl(train), number, seed, schemas, first))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        extend_shots(
            shots=snakemake.input.shots,
            train=snakemake.input.train,
            tables=snakemake.input.tables,
            number=int(snakemake.wildcards.shots),
            output=snakemake.output.shots,
            **snakemake.params.settings,
        )
