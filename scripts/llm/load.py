"""Loading a model at its study's precision, on the GPU if there is one, and saying where it ran."""

import os
import platform
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from common.files import UserError
from llm.chat import Chat


def device() -> torch.device:
    """The device that this job computes on: the first visible GPU, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def set_threads(count: int) -> None:
    """Compute with so many threads, as processes that are started do: what a CPU adds up depends on how many."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)


def named(record: dict) -> dict[str, Any]:
    """What of a model's record a report repeats."""
    return {key: record[key] for key in ("name", "source", "revision", "commit", "sha256")}


def load_model(record: dict, precision: str, quantization: Mapping[str, Any] | None = None) -> PreTrainedModel:
    """Load the model of a record in evaluation mode.

    fp32 and bf16 load and compute in that type. nf4 quantises the linear layers to 4-bit NormalFloat with double
    quantisation and computes in bf16 (Dettmers et al. 2023, arXiv:2305.14314), unless `quantization`, further keys of
    BitsAndBytesConfig, says otherwise. What cannot be loaded here is a UserError.
    """
    options: dict[str, Any] = {"dtype": torch.float32 if precision == "fp32" else torch.bfloat16}
    if precision == "nf4":
        if not torch.cuda.is_available():
            raise UserError(
                f"models.{record['name']}.precision: precision nf4 needs a CUDA GPU and none is visible. Set it to "
                "bf16 or fp32."
            )
        keys = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, **(quantization or {})}
        try:
            config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, **keys)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"models.{record['name']}.quantization: BitsAndBytesConfig refuses these values ({error})."
            ) from None
        options["quantization_config"] = config
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}  # straight to the GPU: the weights never lie in memory twice
    try:
        model = AutoModelForCausalLM.from_pretrained(Path(record["path"]), local_files_only=True, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{record['path']}: cannot load the model ({error}). Run `snakemake -R fetch_model`.") from None
    return model.eval()


def fuse_kernels(model: PreTrainedModel) -> str:
    """Put Liger's fused norms, rotations and gates into a model in half precision on a GPU: "liger", or "" if not.

    The head and its loss are TRL's own fused ones.
    """
    from transformers.integrations.liger import apply_liger_kernel
    from transformers.utils import is_liger_kernel_available

    if device().type != "cuda" or model.dtype == torch.float32 or not is_liger_kernel_available():
        return ""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return ""
    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    return "liger"


def set_greedy(model: PreTrainedModel, chat: Chat, max_new_tokens: int) -> None:
    """Make `generate` plain greedy decoding up to a stop token, whatever sampling the checkpoint recommends."""
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(chat.stop_ids),
        pad_token_id=chat.tokenizer.pad_token_id,
        bos_token_id=chat.tokenizer.bos_token_id,
    )


def machine() -> dict[str, Any]:
    """What this process computes on, and the most memory it has used so far, in MiB: of a GPU, if it has any."""
    if torch.cuda.is_available():
        gpus = range(torch.cuda.device_count())
        return {
            "device": " + ".join(dict.fromkeys(map(torch.cuda.get_device_name, gpus))),
            "peak_memory_mib": round(max(map(torch.cuda.max_memory_allocated, gpus)) / 2**20, 1),
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return {
        "device": f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)",
        "peak_memory_mib": round(peak / 2 ** (20 if platform.system() == "Darwin" else 10), 1),
    }
