"""Tasks of lm-evaluation-harness on the base model or one adapter, with every question's score."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import read_json, sha256_file, sha256_json, write_json
from common.job import versions
from llm.adapters import load_adapter
from llm.chat import load_chat
from llm.load import load_model, machine, named
from tasks.harness import load_tasks


def harness(
    record: str | Path, adapter_dir: str | Path | None, output: str | Path, settings: Mapping[str, Any]
) -> None:
    """Write the harness's figures and the scores behind them. Prompts are its own, without a chat template.

    Responses so far lie in the harness's own cache, `<output>.partial.<hash>_rank0.db`, so that an attempt after a kill
    does not ask for them again. It batches what is left by itself: a figure may differ in the last digits then.

    Args:
        record, adapter_dir: of the model, and the folder of the LoRA adapter, None for the base model.
        output: the JSON file to write: `results`, a list of task, metric, filter, value and n; `samples`, a list of
            task, filter, doc_id, doc_hash and scores (by metric) of each question.
        settings: precision, batch_size, merge_adapters and strength, as in `llm.decoding.Decoding`; tasks, num_fewshot,
            limit and include_path, as lm_eval takes them: None is the task's own number of examples, and all questions.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    base, output, batch_size = read_json(record), Path(output), settings["batch_size"]
    loaded = {"precision": settings["precision"], "merge_adapters": False, "strength": 1.0}
    loaded |= {key: settings[key] for key in (*loaded, "quantization") if key in settings}
    manager = load_tasks(settings["tasks"], settings["include_path"])
    identity = {
        "lm_eval": lm_eval.__version__,
        "model": named(base),
        "adapter_sha256": None if adapter_dir is None else sha256_file(Path(adapter_dir) / "adapter_model.safetensors"),
        "settings": loaded,
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
    model = load_model(base, loaded["precision"], loaded.get("quantization"))
    if adapter_dir is not None:
        model = load_adapter(model, adapter_dir, loaded["merge_adapters"], loaded["strength"])
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=load_chat(base).tokenizer, batch_size=batch_size),
        tasks=list(settings["tasks"]),
        num_fewshot=settings["num_fewshot"],
        limit=settings["limit"],
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,  # standard errors are made from the samples, in the table
        use_cache=str(output.with_name(cache)),
    )
    results, samples = rows_of(found)
    facts = {
        "task_versions": {task: found["versions"][task] for task in found["samples"]},
        "shots": {task: found["n-shot"][task] for task in found["samples"]},
    }
    write_json(output, identity | facts | machine() | {"results": results, "samples": samples})
    for path in output.parent.glob(f"{output.name}.partial.*"):
        path.unlink()


def rows_of(found: Mapping[str, Any]) -> tuple[list[dict], list[dict]]:
    """The `results` and `samples` that `harness` writes, from what lm_eval.simple_evaluate returned."""
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
    return results, samples
