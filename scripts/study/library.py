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
# The types of JSON, as Python has them.
PYTHON = {"boolean": bool, "integer": int, "number": float, "string": str, "array": list, "object": dict}
PYTHON["null"] = type(None)
# The logits processors of transformers that the engine `generate` is given.
PROCESSORS = ("repetition_penalty", "no_repeat_ngram_size")
WARPERS = ("top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

_GPUS = "each GPU has a process with the whole model, which rule train starts"
_BITS = "precision: nf4 means weights of 4 bits that compute in bf16, and int8 weights of 8 bits"
_DONE = "rule train trains, and predict predicts"
# Why a key of a class is no key of a study: reasons, each with the patterns of its keys, of which the first that fits
# holds. Those without a reason may be written.
REFUSED = {
    "SFTConfig": {
        "checkpoints lie beside the adapter until it is written": "output_dir",
        "it follows from models.<name>.precision": "bf16* fp16*",
        "it follows from whether a GPU is there": "use_cpu dataloader_pin_memory",
        "the workflow makes the rows and the micro-batches, and proves what enters the loss": (
            "packing* eval_packing pad* label_names remove_unused_columns length_column_name dataset_* shuffle_dataset"
        ),
        "training.loss_on says what the loss covers": "completion_only_loss assistant_only_loss",
        "checkpoints come every save_steps, and at each evaluation": "save_strategy",
        "a killed training must end as if it had not been killed": (
            "save_on* restore_callback* enable_jit_checkpoint ignore_data_skip resume_from_checkpoint"
        ),
        "a loss of nan must be seen": "logging_nan_inf_filter",
        "nothing is uploaded": "push_to_hub hub_*",
        _DONE: "do_*",
        "the loss of a step is the sum over its labels divided by their number, in whatever micro-batches": (
            "label_smoothing_factor average_tokens*"
        ),
        "the size of a micro-batch follows from the GPU's memory": "auto_find_batch_size",
        "Liger's kernels are used where they compute the same": "use_liger_kernel liger_kernel_config",
        "a training has no use for it": "use_cache",
        "less eval_loss is better": "greater_is_better",
        "truncate cuts rows at the end": "truncation_mode",
        "base and adapters have the model's own chat template": "chat_template_path eos_token",
        "models.<name> says how a model is loaded": "model_init_kwargs trust_remote_code",
        _GPUS: "deepspeed fsdp* local_rank accelerator_config",
        "a training writes to train.json, and to tensorboard with report_to": "run_name project trackio_*",
    },
    "LoraConfig": {
        "it is CAUSAL_LM": "task_type",
        "it is LORA": "peft_type",
        "PEFT writes it": "peft_version auto_mapping",
        _DONE: "inference_mode",
        "it is models.<name>.source": "base_model_name_or_path",
        "it is models.<name>.revision": "revision",
        "the adapter would no longer be what is added to the weights of the base model": (
            "bias layer_replication loftq_config"
        ),
        "an adapter answers every prompt as a whole": "alora_invocation_tokens",
        _GPUS: "megatron_*",
    },
    "BitsAndBytesConfig": {
        "": "llm_int8_skip_modules llm_int8_threshold",
        _BITS: "load_in_* bnb_4bit_compute_dtype llm_int8_*",
    },
    "GenerationConfig": {
        "max_new_tokens of a task says it": "max_length",
        "each task has its own": "max_new_tokens",
        "the model's chat template says how a turn ends": "*_token_id",
        "neither engine answers with it; they take " + ", ".join((*PROCESSORS, *WARPERS)): "*",
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
    reasons = REFUSED[cls].items()
    because = next((why for why, of in reasons if any(fnmatchcase(key, one) for one in of.split())), None)
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
