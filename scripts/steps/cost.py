"""Put into one table what each run cost: time, speed and memory of its training and of its answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from analysis.data import BASE, heads_of, write_table
from common.files import read_json, read_jsonl, write_text
from common.job import job
from present.format import Say
from present.tables import to_markdown
from tasks.registry import measured

RUN = ("model", "variant")
COLUMNS = (
    "task", "device", "seconds", "job_seconds", "gpu_hours", "cpu_hours", "rows", "rows_per_second",
    "tokens_per_second", "peak_memory_mib", "resumed",
)  # fmt: skip


def cost(
    inputs: Mapping[str, Sequence[str | Path]], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]
) -> None:
    """Write a row for each run and job: `train` (adapters) and `predict_<task>`.

    A job's whole time is in its benchmark file, results/<study>/benchmarks/<job>/<model>/<run>.tsv. That is no
    input of this rule, for a lost benchmark would train the adapter again; without it, `job_seconds` and the hours
    are empty.

    Args:
        inputs: in the order of `runs`: `train`, the report of each training; of each task `predict_<task>`, the
            reports of its answers, and `<task>_answers`, the answers of those whose tokens are counted. Of yardsticks
            those of all runs but the ones with other few-shot examples, which have the base's answers, and those that
            repair another's; and letters are asked once, however often other answers are drawn.
        outputs: the files `csv` and `md`.
        settings: the rule's.
    """
    runs, measures = settings["runs"], measured(settings["tasks"])
    _, heads = heads_of(runs)
    files, rows = {name: iter(paths) for name, paths in inputs.items()}, []
    for run, head in zip(runs, heads, strict=True):
        found = {}
        if run["variant"] != BASE and {"point", "ready_made", "draw_of", "repairs"}.isdisjoint(run):
            found["train"] = trained_row(path := next(files["train"]))
        for task, measure in measures.items():
            once = "draw_of" in run and measure.form == "choice"
            of_target = "repairs" in run or "shots" in run.get("point", {})
            if not once and (measure.role == "target" or not of_target):
                path = next(files[f"predict_{task}"])
                answers = next(files[f"{task}_answers"]) if measure.form != "choice" else None
                found[f"predict_{task}"] = answered_row(path, answers)
        benchmarks = Path(path).parents[3] / "benchmarks"
        for name, row in found.items():
            whole = benchmark(benchmarks / name / run["model"] / f"{Path(path).parent.name}.tsv", row["device"])
            rows.append(head | {"task": name} | row | whole)
    frame = pd.DataFrame(rows, columns=[*(heads[0] if heads else RUN), *COLUMNS])
    write_table(outputs["csv"], frame)
    write_text(outputs["md"], to_markdown("cost", frame, settings, Say(settings["language"], measures)))


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
