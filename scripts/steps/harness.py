"""Run tasks of lm-evaluation-harness on the base model or one adapter, with every question's score."""

from collections.abc import Sequence
from pathlib import Path

import torch

import _path  # noqa: F401
from common.files import read_json, sha256_file, sha256_json, write_json
from common.gpus import take
from common.job import job, versions
from llm.chat import load_chat
from llm.load import load_adapter, load_model, machine
from tasks.harness import load_tasks


def harness(
    record: str | Path,
    adapter_dir: str | Path | None,
    output: str | Path,
    precision: str,
    batch_size: int | str,
    tasks: Sequence[str],
    num_fewshot: int | None,
    limit: int | None,
    include_path: str | None,
    merge_adapters: bool = False,
    strength: float = 1.0,
) -> None:
    """Write the harness's figures and the scores behind them.

    The model is loaded as for the other answers. Prompts are the harness's own, without a chat template.

    Responses so far lie in the harness's own cache, `<output>.partial.<hash>_rank0.db`, so that an attempt after a kill
    does not ask for them again. It batches what is left by itself: a figure may differ in the last digits then.

    Args:
        record: the model record.
        adapter_dir: folder of the LoRA adapter, None for the base model.
        output: the JSON file to write: `results`, a list of task, metric, filter, value and n; `samples`, a list of
            task, filter, doc_id, doc_hash and scores (by metric) of each question.
        precision, batch_size, merge_adapters, strength: as `llm.answering.predict`.
        tasks, num_fewshot, limit, include_path: as `lm_eval.simple_evaluate` and its TaskManager; None is the task's
            own number of examples, and all questions.

    Raises:
        UserError: as `llm.load.load_model`, `llm.load.load_adapter` and `tasks.harness.load_tasks`.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    manager = load_tasks(tasks, include_path)
    base, output = read_json(record), Path(output)
    identity = {
        "lm_eval": lm_eval.__version__,
        "model": {key: base[key] for key in ("name", "source", "revision", "commit", "sha256")},
        "adapter_sha256": None if adapter_dir is None else sha256_file(Path(adapter_dir) / "adapter_model.safetensors"),
        "settings": {"precision": precision, "merge_adapters": merge_adapters, "strength": strength},
        "versions": versions(),
    }
    # The cache knows a response by its request alone.
    bound_to = sha256_json({**identity, "batch_size": batch_size, "on": machine()["device"]})
    cache = f"{output.name}.partial.{bound_to[:16]}"
    for path in output.parent.glob(f"{output.name}.partial.*"):
        if path.name.startswith(cache):
            print(f"{path}: going on from the responses in it.", flush=True)
        else:
            print(f"{path}: responses of another model or settings found; starting over.", flush=True)
            path.unlink()
    model = load_model(base, precision)
    if adapter_dir is not None:
        model = load_adapter(model, adapter_dir, merge_adapters, strength)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=load_chat(base).tokenizer, batch_size=batch_size),
        tasks=list(tasks),
        num_fewshot=num_fewshot,
        limit=limit,
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,  # standard errors are made from the samples, in the table
        use_cache=str(output.with_name(cache)),
    )
    results, samples = [], []
    for task, rows in found["samples"].items():
        for row in rows:
            scores = {name: float(row[name]) for name in row["metrics"] if isinstance(row[name], int | float)}
            samples.append({"task": task, **{key: row[key] for key in ("filter", "doc_id", "doc_hash")}, **scores})
        for key, value in found["results"][task].items():
            metric, _, chosen = key.partition(",")
            if chosen and not metric.endswith("_stderr"):
                n = found["n-samples"][task]["effective"]
                results.append({"task": task, "metric": metric, "filter": chosen, "value": float(value), "n": n})
    write_json(
        output,
        {
            **identity,
            "task_versions": {task: found["versions"][task] for task in found["samples"]},
            "shots": {task: found["n-shot"][task] for task in found["samples"]},
            **machine(),
            "results": results,
            "samples": samples,
        },
    )
    for path in output.parent.glob(f"{output.name}.partial.*"):
        path.unlink()


if __name__ == "__main__":
    with job(snakemake.log[0], lock=f"{snakemake.output.scores}.lock"):
        take(snakemake.resources.gpu)
        torch.set_num_threads(snakemake.threads)
        adapter = snakemake.input.get("adapter")
        harness(
            record=snakemake.input.record,
            adapter_dir=Path(adapter[0]).parent if adapter else None,
            output=snakemake.output.scores,
            **snakemake.params.settings,
        )
