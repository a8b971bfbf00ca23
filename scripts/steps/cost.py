"""Put into one table what each run cost: time, speed and memory of its training and of its answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis.data import BASE, heads_of, write_table
from common.files import atomic_write, read_json, read_jsonl
from common.job import job
from present.format import Say
from present.tables import to_markdown

COLUMNS = (
    "task", "device", "seconds", "job_seconds", "gpu_hours", "cpu_hours", "rows", "rows_per_second",
    "tokens_per_second", "peak_memory_mib", "resumed",
)  # fmt: skip


def cost(
    inputs: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write a row for each run and task: `train` (adapters), `predict_spider`, `predict_mmlu`.

    A job's whole time is in its benchmark file, results/<study>/benchmarks/<task>/<model>/<variant>.tsv. That is no
    input of this rule, for a lost benchmark would train the adapter again; without it, `job_seconds` and the hours
    are empty.

    Args:
        inputs: in the order of `runs`: `train`, train.json of each adapter; `predict_spider` and `answers`,
            predict_spider.json and spider_answers.jsonl of each run, in …/<study>/runs/<model>/<variant>/;
            `predict_mmlu`, predict_mmlu.json of each run but those with other few-shot examples, which have the base's
            answers.
        outputs: the files `csv` and `md`.
        settings: the rule's: `study`, `runs`, `known_defects`, `accept_defect`, as in `tables`.
    """
    runs = settings["runs"]
    _, heads = heads_of(runs)
    trained, knowledge = iter(inputs["train"]), iter(inputs["predict_mmlu"])
    rows = []
    for run, head, spider, answers in zip(runs, heads, inputs["predict_spider"], inputs["answers"], strict=True):
        found = {"train": trained_row(next(trained))} if run["variant"] != BASE and "point" not in run else {}
        found["predict_spider"] = answered_row(spider, answers)
        if "shots" not in run.get("point", {}):
            found["predict_mmlu"] = answered_row(next(knowledge))
        benchmarks = Path(spider).parents[3] / "benchmarks"
        for task, row in found.items():
            whole = benchmark(benchmarks / task / run["model"] / f"{run['variant']}.tsv", row["device"])
            rows.append(head | {"task": task} | row | whole)
    frame = pd.DataFrame(rows, columns=[*heads[0], *COLUMNS])
    write_table(outputs["csv"], frame)
    with atomic_write(outputs["md"]) as stream:
        stream.write(to_markdown("cost", frame, settings, Say(settings["language"])))


def trained_row(path: str | Path) -> dict[str, Any]:
    """Take the cost of a training from its report."""
    facts = read_json(path)
    rows, seconds, resumed = facts["rows"] * facts["epochs"], facts["train_seconds"], facts["resumed_from_step"]
    speed = rows / seconds if seconds and resumed is None else None
    row = {name: facts[name] for name in ("device", "tokens_per_second", "peak_memory_mib")}
    return row | {"seconds": seconds, "rows": rows, "rows_per_second": speed, "resumed": int(resumed is not None)}


def answered_row(path: str | Path, answers: str | Path | None = None) -> dict[str, Any]:
    """Take the cost of a run's answers from their report; with the answers also the tokens generated a second."""
    facts = read_json(path)
    row = {name: facts[name] for name in ("device", "seconds", "peak_memory_mib")}
    row |= {"rows": facts["questions"], "rows_per_second": facts["questions_per_second"]}
    row["resumed"] = int(facts["answered_before_resuming"] > 0)
    # Tokens that were generated before a job was cut off were not generated in these seconds.
    if answers and row["seconds"] and not row["resumed"]:
        row["tokens_per_second"] = sum(answer["tokens"] for answer in read_jsonl(answers)) / row["seconds"]
    return row


def benchmark(path: Path, device: str) -> dict[str, float]:
    """Give a job's seconds, and its hours of one GPU and of processor cores; nothing if the file is gone."""
    if not path.exists():
        return {}
    seconds, cpu_seconds = pd.read_csv(path, sep="\t").loc[0, ["s", "cpu_time"]].astype(float)
    gpu_seconds = 0.0 if device.startswith("cpu") else seconds
    return {"job_seconds": seconds, "gpu_hours": gpu_seconds / 3600, "cpu_hours": cpu_seconds / 3600}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        cost(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
