"""Keys that a study passes on to TRL, PEFT, bitsandbytes and transformers by the names they have there.

Their names and types stand in `library_keys.json`, which `python scripts/studies.py document` makes from the installed
versions, so that a study is checked without importing them.
"""

import json
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from tasks.sections import Section, sized

FILE = Path(__file__).with_name("library_keys.json")
_LISTED = json.loads(FILE.read_text(encoding="utf-8"))
# The names that a key of SFTConfig may have.
WORDS = {key: tuple(words) for key, words in _LISTED.pop("words").items()}
KEYS = {cls: {key: kinds.split("|") for key, kinds in keys.items()} for cls, keys in _LISTED.items()}
# In a JSON schema, the library's class that a key is passed on to.
MARK = "x-passed-on-to"
PYTHON = {
    "boolean": bool,
    "integer": int,
    "number": float,
    "string": str,
    "array": list,
    "object": dict,
    "null": type(None),
}
# The logits processors of transformers that the engine `generate` is given.
PROCESSORS = ("repetition_penalty", "no_repeat_ngram_size")
WARPERS = ("top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

_RESUMED = "a killed training must end as if it had not been killed"
_PRECISION = "it follows from models.<name>.precision"
_GPU = "it follows from whether a GPU is there"
_ROWS = "the workflow makes the rows and the micro-batches, and proves what enters the loss"
_LOSS = "the loss of a step is the sum over its labels divided by their number, in whatever micro-batches"
_GPUS = "each GPU has a process with the whole model, which rule train starts"
_NAMES = "a training writes to train.json, and to tensorboard with report_to"
_BASE = "the adapter would no longer be what is added to the weights of the base model"
_BITS = "precision: nf4 means weights of 4 bits that compute in bf16, and int8 weights of 8 bits"
# Why a key of a class, given by a pattern, is no key of a study; the first pattern that fits.
REFUSED = {
    "SFTConfig": {
        "output_dir": "checkpoints lie beside the adapter until it is written",
        "bf16*": _PRECISION,
        "fp16*": _PRECISION,
        "use_cpu": _GPU,
        "dataloader_pin_memory": _GPU,
        "packing*": _ROWS,
        "eval_packing": _ROWS,
        "pad*": _ROWS,
        "completion_only_loss": "training.loss_on says what the loss covers",
        "assistant_only_loss": "training.loss_on says what the loss covers",
        "save_strategy": "checkpoints come every save_steps, and at each evaluation",
        "save_on*": _RESUMED,
        "restore_callback*": _RESUMED,
        "enable_jit_checkpoint": _RESUMED,
        "ignore_data_skip": _RESUMED,
        "resume_from_checkpoint": _RESUMED,
        "logging_nan_inf_filter": "a loss of nan must be seen",
        "push_to_hub": "nothing is uploaded",
        "hub_*": "nothing is uploaded",
        "do_*": "rule train trains, and predict predicts",
        "label_smoothing_factor": _LOSS,
        "average_tokens*": _LOSS,
        "auto_find_batch_size": "the size of a micro-batch follows from the GPU's memory",
        "use_liger_kernel": "Liger's kernels are used where they compute the same",
        "liger_kernel_config": "Liger's kernels are used where they compute the same",
        "use_cache": "a training has no use for it",
        "greater_is_better": "less eval_loss is better",
        "label_names": _ROWS,
        "remove_unused_columns": _ROWS,
        "length_column_name": _ROWS,
        "dataset_*": _ROWS,
        "shuffle_dataset": _ROWS,
        "truncation_mode": "truncate cuts rows at the end",
        "chat_template_path": "base and adapters have the model's own chat template",
        "eos_token": "base and adapters have the model's own chat template",
        "model_init_kwargs": "models.<name> says how a model is loaded",
        "trust_remote_code": "models.<name> says how a model is loaded",
        "deepspeed": _GPUS,
        "fsdp*": _GPUS,
        "local_rank": _GPUS,
        "accelerator_config": _GPUS,
        "run_name": _NAMES,
        "project": _NAMES,
        "trackio_*": _NAMES,
    },
    "LoraConfig": {
        "task_type": "it is CAUSAL_LM",
        "peft_type": "it is LORA",
        "peft_version": "PEFT writes it",
        "auto_mapping": "PEFT writes it",
        "inference_mode": "rule train trains, and predict predicts",
        "base_model_name_or_path": "it is models.<name>.source",
        "revision": "it is models.<name>.revision",
        "bias": _BASE,
        "layer_replication": _BASE,
        "loftq_config": _BASE,
        "alora_invocation_tokens": "an adapter answers every prompt as a whole",
        "megatron_*": _GPUS,
    },
    "BitsAndBytesConfig": {
        "load_in_*": _BITS,
        "bnb_4bit_compute_dtype": _BITS,
        "llm_int8_skip_modules": "",
        "llm_int8_threshold": "",
        "llm_int8_*": _BITS,
    },
    "GenerationConfig": {
        "max_length": "max_new_tokens of a task says it",
        "max_new_tokens": "each task has its own",
        "*_token_id": "the model's chat template says how a turn ends",
        "*": "neither engine answers with it; they take " + ", ".join((*PROCESSORS, *WARPERS)),
    },
}
# Types that are narrower than the library's. Its other ways to begin change the weights of the base model.
NARROWER = {"init_lora_weights": (["boolean"], ["gaussian", "orthogonal"])}
# Of a key that the study does not have; None is a value, and pydantic copies defaults.
UNSET = ...


def refusal(cls: str, key: str) -> str | None:
    """Why a key of a library's class is no key of a study; None if it may be one, or is no key of the class."""
    if key not in KEYS[cls] or (cls == "GenerationConfig" and key in (*PROCESSORS, *WARPERS)):
        return None
    because = next((why for pattern, why in REFUSED[cls].items() if fnmatchcase(key, pattern)), None)
    if because is None and not set(KEYS[cls][key]) - {"null", ""}:
        because = "it takes an object of Python, which a study cannot hold"
    return because or None


def passes_on(cls: str) -> Callable[[type[Section]], type[Section]]:
    """Give a section a key for each one of a library's class that the workflow does not set itself.

    Keys that the section declares stay as they are. A key that is not in the study is not in its values either: the
    library's own default holds.
    """

    def extended(section: type[Section]) -> type[Section]:
        taken = {field.alias or name for name, field in section.model_fields.items()}
        fields = {
            key: (_passed(cls, key, kinds), Field(default_factory=lambda: UNSET, exclude_if=lambda v: v is UNSET))
            for key, kinds in KEYS[cls].items()
            if key not in taken and refusal(cls, key) is None
        }
        names = {"__module__": section.__module__, "__doc__": section.__doc__}
        return create_model(section.__name__, __base__=section, **names, **fields)

    return extended


def _passed(cls: str, key: str, kinds: list[str]) -> Any:
    """The type of a key that is passed on: a value of one of these types of JSON."""
    kinds, words = NARROWER.get(key, (kinds, []))

    def convert(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise PydanticCustomError("finite_number", "not finite")
        if type(value) in (int, float):
            sized(value)
        if isinstance(value, float) and value.is_integer() and "integer" in kinds:
            return int(value)
        if type(value) is int and "number" in kinds and "integer" not in kinds:
            return float(value)
        if value not in words and type(value) not in [PYTHON[kind] for kind in kinds]:
            raise PydanticCustomError("wrong_type", "another type")
        return value

    choices = [{"type": kind} for kind in kinds] + ([{"type": "string", "enum": words}] if words else [])
    return Annotated[Any, AfterValidator(convert), WithJsonSchema({"anyOf": choices, MARK: cls})]
