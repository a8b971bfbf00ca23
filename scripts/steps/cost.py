"""Put into one table what each run cost: time, speed and memory of its training and of its answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

import _path  # noqa: F401
from common.files import atomic_write, read_json, read_jsonl
from common.job import job
from present.format import Say
from present.tables import to_markdown
from present.values import BASE
from tables import heads_of

COLUMNS = (
    "task", "device", "seconds", "job_seconds", "gpu_hours", "cpu_hours", "rows", "rows_per_second",
    "tokens_per_second", "peak_memory_mib", "resumed",
)  # fmt: skip


def cost(
    study: str,
    runs: Sequence[Mapping],
    train: Sequence[str | Path],
    predict_spider: Sequence[str | Path],
    predict_mmlu: Sequence[str | Path],
    answers: Sequence[str | Path],
    csv: str | Path,
    md: str | Path,
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
    language: str = "en",
) -> None:
    """Write a row for each run and task: `train` (adapters), `predict_spider`, `predict_mmlu`.

    A job's whole time is in its benchmark file, results/<study>/benchmarks/<task>/<model>/<variant>.tsv. That is no
    input of this rule, for a lost benchmark would train the adapter again; without it, `job_seconds` and the hours
    are empty.

    Args:
        study: the study's name, for the heading.
        runs: as in `tables`.
        train: train.json of each adapter, in their order in `runs`.
        predict_spider, answers: predict_spider.json and spider_answers.jsonl of each run, in
            …/<study>/runs/<model>/<variant>/.
        predict_mmlu: predict_mmlu.json of each run but those with other shots, which have the base's answers.
        csv, md: files to write.
        known_defects, accept_defect: see `present.format.defects`.
        language: of the Markdown page.
    """
    _, heads = heads_of(runs)
    trained, knowledge = iter(train), iter(predict_mmlu)
    rows = []
    for run, head, spider, texts in zip(runs, heads, predict_spider, answers, strict=True):
        found = {"train": trained_row(next(trained))} if run["variant"] != BASE and "point" not in run else {}
        found["predict_spider"] = answered_row(spider)
        # Tokens that were generated before a job was cut off were not generated in these seconds.
        if found["predict_spider"]["seconds"] and not found["predict_spider"]["resumed"]:
            tokens = sum(row["tokens"] for row in read_jsonl(texts))
            found["predict_spider"]["tokens_per_second"] = tokens / found["predict_spider"]["seconds"]
        if "shots" not in run.get("point", {}):
            found["predict_mmlu"] = answered_row(next(knowledge))
        benchmarks = Path(spider).parents[3] / "benchmarks"
        for task, row in found.items():
            whole = benchmark(benchmarks / task / run["model"] / f"{run['variant']}.tsv", row["device"])
            rows.append(head | {"task": task} | row | whole)
    frame = pd.DataFrame(rows, columns=[*head, *COLUMNS])
    with atomic_write(csv) as stream:
        frame.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
    with atomic_write(md) as stream:
        facts = {"study": study, "known_defects": known_defects, "accept_defect": accept_defect}
        stream.write(to_markdown("cost", frame, facts, Say(language)))


def trained_row(path: str | Path) -> dict:
    """Return what a report of `train` says of its cost."""
    facts = read_json(path)
    rows, seconds = facts["rows"] * facts["epochs"], facts["train_seconds"]
    return {
        "device": facts["device"],
        "seconds": seconds,
        "rows": rows,
        "rows_per_second": rows / seconds if seconds and facts["resumed_from_step"] is None else None,
        "tokens_per_second": facts["tokens_per_second"],
        "peak_memory_mib": facts["peak_memory_mib"],
        "resumed": int(facts["resumed_from_step"] is not None),
    }


def answered_row(path: str | Path) -> dict:
    """Return what a report of `predict_spider` or `predict_mmlu` says of its cost."""
    facts = read_json(path)
    return {
        "device": facts["device"],
        "seconds": facts["seconds"],
        "rows": facts["questions"],
        "rows_per_second": facts["questions_per_second"],
        "peak_memory_mib": facts["peak_memory_mib"],
        "resumed": int(facts["answered_before_resuming"] > 0),
    }


def benchmark(path: Path, device: str) -> dict:
    """Return a job's seconds, and hours of its one GPU and of processor cores; nothing if the file is gone."""
    if not path.exists():
        return {}
    row = pd.read_csv(path, sep="\t").iloc[0]
    seconds = float(row["s"])
    return {
        "job_seconds": seconds,
        "gpu_hours": 0.0 if device.startswith("cpu") else seconds / 3600,
        "cpu_hours": float(row["cpu_time"]) / 3600,
    }


if __name__ == "__main__":
    with job(snakemake.log[0]):
        cost(
            train=snakemake.input.train,
            predict_spider=snakemake.input.predict_spider,
            predict_mmlu=snakemake.input.predict_mmlu,
            answers=snakemake.input.answers,
            csv=snakemake.output.csv,
            md=snakemake.output.md,
            **snakemake.params.settings,
        )
