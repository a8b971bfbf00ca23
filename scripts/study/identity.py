"""What results that cost hours depend on: the identity of a stage, which Snakemake compares, and nothing else.

Left out are run keys, with which the same result is computed (how often it is logged, how many rows at once); keys
that have no effect beside the others; and keys of our own at their default, so that a new key makes nothing stale. A
library's keys are written out even at our default: the libraries' own defaults change with their versions. Inputs are
not part of an identity, Snakemake compares them as files.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from study.library import PROCESSORS

# Raised by hand when a mended fault changes what a stage makes; its results are then made anew.
RECIPES = dict.fromkeys(("fetch", "prepare", "choose", "render", "audit", "train", "average", "predict", "run_sql"), 1)
# The only keys whose change makes no adapter and no answer stale, by patterns. A key that is not here counts.
RUN_KEYS = {
    "training": (
        "logging_*", "log_*", "save_*", "report_to", "disable_tqdm", "dataloader_num_workers",
        "dataloader_p*",  # persistent_workers, prefetch_factor; not drop_last, with which there are fewer rows
        "dataloader_multiprocessing_context", "per_device_eval_batch_size", "eval_accumulation_steps",
        "eval_do_concat_batches", "eval_use_gather_object", "batch_eval_metrics", "prediction_loss_only",
        "include_for_metrics", "include_num_input_tokens_seen", "gradient_checkpointing",
        "gradient_checkpointing_kwargs", "activation_offloading", "torch_empty_cache_steps", "skip_memory_metrics",
        "debug", "ddp_timeout",
    ),
    "inference": ("batch_size",),
}  # fmt: skip
# Keys of our own, not of a library, that do nothing at these values.
DEFAULTS = {
    "method": "lora", "mode": "faithful", "share_prefix": True, "truncate": False, "early_stopping_patience": None,
    "loss_on": "completion", "shots_from": "one_list", "marks": "letters", "kl": 0.0, "do_sample": False,
    "merge_adapters": False, "strength": 1.0, "generation": {}, "quantization": {},
}  # fmt: skip


def canonical(value: Any) -> Any:
    """A copy of a plain value with the keys of all its mappings as text, sorted."""
    if isinstance(value, dict):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    return [canonical(item) for item in value] if isinstance(value, list) else value


def stage(name: str, values: Mapping[str, Any], inert: Iterable[str] = ()) -> dict[str, Any]:
    """The identity of a stage of `RECIPES`: its values without inert keys, given by patterns, and `DEFAULTS`."""
    return canonical({"recipe": RECIPES[name], **_without(values, inert)})


def preparing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a part of a task's data depends on; names of categories are put beside answers when these are scored."""
    named, found = settings.get("categories"), _without(settings)
    if "questions_per_category" in found and found.get("questions") is None:
        found.pop("questions", None)  # a key of later
    return {**found, "categories": list(named.values())} if isinstance(named, dict) else found


def rendering(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of prompts, of what they show and say; without a schema of rows, how many these are is inert."""
    return stage("render", settings, () if settings.get("schema") == "ddl_rows" else ("sample_rows",))


def audit(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of the proof that rows may be trained on; without `truncate`, max_length only refuses rows.

    A lower one refuses them when the training checks its rows again. Which defects are accepted decides whether there
    is a proof, not what is in it.
    """
    return stage("audit", settings, ("accept_defect", *(() if settings.get("truncate") else ("max_length",))))


def training(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a training, of its settings (`unfold.training`)."""
    given = settings["training"]
    inert = [*RUN_KEYS["training"]]
    # Evaluations leave the weights alone, unless they choose the checkpoint or stop the training.
    inert += [] if given["load_best_model_at_end"] else ["eval_*", "metric_for_best_model"]
    inert += [] if given["truncate"] else ["max_length"]  # it only refuses rows
    # Rows then share the draws of dropout; and more of them fit a micro-batch.
    same = not settings.get("lora", {}).get("lora_dropout") and given["mode"] == "faithful"
    inert += ["share_prefix"] if same else []
    inert += ["num_train_epochs"] if given["max_steps"] > 0 else []
    inert += ["rows"] if given.get("rows") is None else []  # all of them
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    matter = _without(given, inert)
    if given["mode"] == "faithful":
        matter = _without(matter, sizes) | {"rows_per_step": given[sizes[0]] * given[sizes[1]]}
    parts = {"training": matter}
    if "replay" in settings:
        parts["replay"] = _without(settings["replay"])
    # What the rows may lack is a matter of the audit.
    return stage("train", {**settings, **parts}, ("accept_defect",))


def decoding(settings: Mapping[str, Any], adapted: bool) -> dict[str, Any]:
    """The identity of a run's answers to a task, of its settings (`llm.decoding.Decoding`), with an adapter or not."""
    inert, generation = [*RUN_KEYS["inference"], "prove"], settings.get("generation", {})
    if not settings["do_sample"]:
        inert += ["temperature", "top_p", "seed"]
        generation = {key: value for key, value in generation.items() if key in PROCESSORS}
    inert += [] if adapted else ["merge_adapters"]
    return stage("predict", {**settings, "generation": generation}, inert)


def _without(values: Mapping[str, Any], patterns: Iterable[str] = ()) -> dict[str, Any]:
    """Values without keys that fit a pattern, and without those that have their value of `DEFAULTS`."""
    return {
        key: value
        for key, value in values.items()
        if not any(fnmatchcase(key, pattern) for pattern in patterns)
        and not (key in DEFAULTS and value == DEFAULTS[key])
    }
